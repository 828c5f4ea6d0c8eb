//! Counting, holding, waking, releasing: one app behind the real Envoy.

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sluice_tests::{
    app::App,
    bed::Bed,
    envoy::Upstream,
    http::{self, Answer, Http1, Http2},
    objects::Target,
    wait,
};
use std::collections::{BTreeMap, BTreeSet};
use tokio::task::JoinHandle;

const COLD_START: &str = "x-keda-http-cold-start";

/// What Envoy answers for a cluster without a usable host.
const NO_HOST: &str = "no healthy upstream";

#[tokio::test]
async fn a_request_to_a_sleeping_app_is_held_until_its_cluster_is_usable() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).control_plane().start().await.unwrap();
    let held = bed.spawn_get(&target, "/");
    let route = bed.until_held(&target, 1).await.unwrap();
    assert!(route.active, "KEDA has to be told of a held request: {route:?}");

    let app = bed.start_app().await.unwrap();
    // Kubernetes says ready before Envoy has the endpoint: a release now would be a 503.
    bed.say_ready(&target, &[app.address()]).unwrap();
    bed.until_route(&target, "the hint ready", |route| route.hint == "ready").await.unwrap();
    assert_eq!(
        bed.envoy.stat("wasmcustom.sluice_releases_total").await.unwrap(),
        0,
        "the cluster has no endpoint"
    );

    bed.set_endpoints(&target, &[app.address()]).unwrap();
    let answer = held.await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));

    let answer = bed.get(&target, "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "false"));

    let route =
        bed.until_route(&target, "both counted", |route| route.arrivals == 2 && route.in_flight == 0).await;
    let route = route.unwrap();
    assert_eq!((route.cold_starts, route.held), (1, 0));
    assert_eq!(bed.envoy.stat("wasmcustom.sluice_holds_total").await.unwrap(), 1);
    assert_eq!(bed.envoy.stat("wasmcustom.sluice_releases_total").await.unwrap(), 1);
}

#[tokio::test]
async fn an_app_that_went_to_sleep_is_held_for_again() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let app = bed.start_app().await.unwrap();
    for round in 1..=3 {
        let held = bed.spawn_get(&target, "/");
        bed.until_held(&target, 1).await.unwrap();
        bed.wake(&target, &[app.address()]).unwrap();
        let answer = held.await.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"), "round {round}");
        bed.sleep(&target).await.unwrap();
    }
}

#[tokio::test]
async fn an_app_that_is_called_not_ready_is_held_for_even_while_envoy_still_lists_it() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).control_plane().start().await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    bed.until_usable(&target, 1).await.unwrap();
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 200);

    bed.say_ready(&target, &[]).unwrap();
    let (held, _) = held_once_told(&bed, &target).await;
    bed.say_ready(&target, &[app.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
}

/// The gateway still lists the last Pod when the next one is ready: to a look that is a usable cluster.
#[tokio::test]
async fn what_waits_is_not_sent_to_an_endpoint_from_before_the_sleep() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).control_plane().start().await.unwrap();
    let last = bed.start_app().await.unwrap();
    bed.wake(&target, &[last.address()]).unwrap();
    bed.until_usable(&target, 1).await.unwrap();
    bed.until_route(&target, "the hint ready", |route| route.hint == "ready").await.unwrap();
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 200);

    bed.say_ready(&target, &[]).unwrap();
    let (held, passed) = held_once_told(&bed, &target).await;
    let next = bed.start_app().await.unwrap();
    bed.say_ready(&target, &[next.address()]).unwrap();
    bed.until_route(&target, "the hint ready", |route| route.hint == "ready").await.unwrap();
    bed.set_endpoints(&target, &[]).unwrap();
    bed.until_usable(&target, 0).await.unwrap();
    bed.set_endpoints(&target, &[next.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
    let served = [&last, &next].map(|app| app.requests().unwrap().iter().filter(|it| it.path == "/").count());
    assert_eq!(served, [1 + passed, 1]);
}

/// Sends until a request is held: the worker hears "not ready" a moment after the scaler says that it knows. Gives the one that is
/// held, and how many passed before it.
async fn held_once_told(bed: &Bed, target: &Target) -> (JoinHandle<anyhow::Result<Answer>>, usize) {
    bed.until_route(target, "the hint not ready", |route| route.hint == "notReady").await.unwrap();
    let mut passed = 0;
    loop {
        let mut request = bed.spawn_get(target, "/");
        tokio::select! {
            answer = &mut request => assert_eq!(answer.unwrap().unwrap().status, 200),
            held = bed.until_held(target, 1) => {
                held.unwrap();
                return (request, passed);
            }
        }
        passed += 1;
        assert!(passed < 10_000, "the worker does not hear of it");
    }
}

/// Nobody waited while it slept; the look that found its last endpoint gone was made nevertheless.
#[tokio::test]
async fn who_comes_first_to_an_app_that_woke_soon_does_not_wait() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).control_plane().start().await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    bed.until_usable(&target, 1).await.unwrap();
    bed.until_route(&target, "the hint ready", |route| route.hint == "ready").await.unwrap();
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 200);

    let looks = async || bed.envoy.stat("wasmcustom.sluice_looks_total").await.unwrap();
    let before = looks().await;
    bed.set_endpoints(&target, &[]).unwrap();
    bed.until_usable(&target, 0).await.unwrap();
    bed.say_ready(&target, &[]).unwrap();
    wait::until("a look", async || match looks().await {
        looks if looks > before => Ok(()),
        looks => Err(format!("{looks} looks as before")),
    })
    .await
    .unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    bed.until_usable(&target, 1).await.unwrap();
    bed.until_route(&target, "the hint ready", |route| route.hint == "ready").await.unwrap();
    let answer = bed.get(&target, "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "false"));
}

/// The gateway has lost the last endpoint, and "not ready" has not come: the one answer that says so is enough.
#[tokio::test]
async fn an_answer_without_a_host_is_the_only_one_while_the_scaler_still_says_ready() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).control_plane().start().await.unwrap();
    let app = up_without_endpoints(&bed, &target).await;
    let held: Vec<_> = (0..3).map(|_| bed.spawn_get(&target, "/")).collect();
    let route = bed.until_held(&target, 3).await.unwrap();
    assert_eq!(route.hint, "ready");
    bed.say_ready(&target, &[]).unwrap();
    bed.until_route(&target, "the hint not ready", |route| route.hint == "notReady").await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    for answer in join_all(held).await {
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
    }
}

/// As where outlier detection has put out every host: that is not a sleep.
#[tokio::test]
async fn an_app_without_a_host_against_the_scalers_word_fails_as_without_the_filter_after_a_while() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).control_plane().plugin("distrustAfter", json!("1s"));
    let bed = bed.start().await.unwrap();
    let app = up_without_endpoints(&bed, &target).await;
    let holds = async || bed.envoy.stat("wasmcustom.sluice_holds_total").await.unwrap();
    assert_eq!(holds().await, 0);
    for (answer, cold) in [("the one that waited", "true"), ("the next", "false"), ("and its next", "false")]
    {
        let it = bed.get(&target, "/").await.unwrap();
        assert_eq!((it.status.as_u16(), it.header(COLD_START)), (503, cold), "{answer}");
        assert_eq!(it.text(), NO_HOST, "{answer}");
    }
    assert_eq!(holds().await, 1);

    // Once it has answered, the next time counts anew.
    bed.set_endpoints(&target, &[app.address()]).unwrap();
    until_answered(&bed, &target, 200).await;
    bed.set_endpoints(&target, &[]).unwrap();
    until_answered(&bed, &target, 503).await;
    assert_eq!(holds().await, 1);
    let held = bed.spawn_get(&target, "/");
    bed.until_filter_holds(1).await.unwrap();
    bed.set_endpoints(&target, &[app.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
}

/// An app that the scaler calls ready, and that the gateway has just lost: one request was answered so.
async fn up_without_endpoints(bed: &Bed, target: &Target) -> App {
    let app = bed.start_app().await.unwrap();
    bed.wake(target, &[app.address()]).unwrap();
    bed.until_usable(target, 1).await.unwrap();
    bed.until_route(target, "the hint ready", |route| route.hint == "ready").await.unwrap();
    assert_eq!(bed.get(target, "/").await.unwrap().status, 200);
    bed.set_endpoints(target, &[]).unwrap();
    until_answered(bed, target, 503).await;
    app
}

/// Sends until the answer is that one: the worker hears of endpoints some time after Envoy's main thread.
async fn until_answered(bed: &Bed, target: &Target, status: u16) {
    wait::until(format!("an answer {status}"), async || match bed.get(target, "/").await {
        Ok(answer) if answer.status == status => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
}

/// A look takes a turn of the balancer as a request does. Two endpoints and a look before every request would give all
/// requests to one of them.
#[tokio::test]
async fn looks_leave_round_robin_as_it_is() {
    const REQUESTS: usize = 20;
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let (one, other) = (bed.start_app().await.unwrap(), bed.start_app().await.unwrap());
    bed.wake(&target, &[one.address(), other.address()]).unwrap();
    bed.until_usable(&target, 2).await.unwrap();
    bed.until_route(&target, "both ready", |route| route.ready_endpoints == 2).await.unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(bed.get(&target, "/").await.unwrap().status, 200);
    }
    let served = [one.requests().unwrap().len(), other.requests().unwrap().len()];
    // The first request looks, since nothing is known.
    assert!(served.iter().all(|served| served.abs_diff(REQUESTS / 2) <= 1), "{served:?}");
}

/// Over HTTP/1.1 a look ends the idle connection that it is given, and over HTTP/2 its headers leave, with a reset behind
/// them: an app that is warm must see neither.
#[tokio::test]
async fn an_app_that_is_warm_keeps_its_connection_and_sees_only_requests() {
    for upstream in [Upstream::AsDownstream, Upstream::Http2] {
        const REQUESTS: usize = 50;
        let target = Target::new("app");
        let bed = Bed::of(std::slice::from_ref(&target)).upstream(upstream).start().await.unwrap();
        let app = bed.start_app().await.unwrap();
        bed.wake(&target, &[app.address()]).unwrap();
        bed.until_usable(&target, 1).await.unwrap();
        bed.until_route(&target, "the hint ready", |route| route.hint == "ready").await.unwrap();
        for number in 0..REQUESTS {
            assert_eq!(bed.get(&target, "/").await.unwrap().status, 200);
            // So that each comes after a spell without any under way.
            bed.until_route(&target, "its counts", |route| {
                route.arrivals > number as u64 && route.in_flight == 0
            })
            .await
            .unwrap();
        }
        let requests = app.requests().unwrap();
        assert_eq!(requests.len(), REQUESTS, "{upstream:?}: {requests:?}");
        let connections: BTreeSet<u64> = requests.iter().map(|request| request.connection).collect();
        assert_eq!(connections.len(), 1, "{upstream:?}: {requests:?}");
        let streams = format!("cluster.{}.upstream_rq_cancelled", target.cluster());
        assert!(bed.envoy.stat(&streams).await.unwrap() <= 1, "{upstream:?}: the look of the first request");
    }
}

/// Every request has a connection of its own, and each is sent only when Envoy has the one before, so their order
/// of arrival is known. Envoy talks HTTP/2 to the app over one connection per worker, so a connection at the app
/// is a worker, and the order on it is the worker's order of release.
#[tokio::test]
async fn a_thousand_held_on_two_workers_are_released_in_order_of_arrival() {
    const REQUESTS: u64 = 1_000;
    let target = Target::new("app");
    let bed =
        Bed::of(std::slice::from_ref(&target)).workers(2).upstream(Upstream::Http2).start().await.unwrap();
    let mut held = Vec::new();
    for number in 0..REQUESTS {
        let mut request = http::get_request(&target.host(), "/").unwrap();
        request.headers_mut().insert("x-test-id", number.to_string().parse().unwrap());
        let mut connection = Http1::connect(bed.envoy.address()).await.unwrap();
        held.push(tokio::spawn(async move { connection.send(request).await }));
        bed.until_filter_holds(number + 1).await.unwrap();
    }
    bed.until_held(&target, REQUESTS).await.unwrap();

    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    for answer in join_all(held).await {
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
    }

    let mut workers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    // The looks between two batches of releases leave over the connections that the first batch has opened.
    for request in app.requests().unwrap().into_iter().filter(|request| request.path == "/") {
        workers.entry(request.connection).or_default().push(request.id.parse().unwrap());
    }
    assert_eq!(workers.len(), 2, "one connection per worker, or the order cannot be told");
    assert_eq!(workers.values().map(Vec::len).sum::<usize>() as u64, REQUESTS);
    for (connection, order) in &workers {
        assert!(order.is_sorted(), "connection {connection}: released in the order {order:?}");
    }
    bed.until_route(&target, "nothing in flight", |route| route.in_flight == 0 && route.held == 0)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_upload_is_held_and_arrives_whole() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    // Three times what Envoy buffers, and no two MiB alike.
    let body: Vec<u8> = (0..3 * 1024 * 1024u32).map(|index| (index ^ (index >> 11)) as u8).collect();
    let body = Bytes::from(body);
    let hash: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();

    let mut http1 = Http1::connect(bed.envoy.address()).await.unwrap();
    let request =
        Request::post("/digest").header("host", target.host()).body(Full::new(body.clone())).unwrap();
    let http1 = tokio::spawn(async move { http1.send(request).await });
    let http2 = Http2::connect(bed.envoy.address()).await.unwrap();
    let uri = format!("http://{}/digest", target.host());
    let request = Request::post(uri).body(Full::new(body.clone())).unwrap();
    let http2 = tokio::spawn(async move { http2.send(request).await });
    bed.until_held(&target, 2).await.unwrap();

    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    for answer in [http1, http2] {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
        let digest: Value = answer.json().unwrap();
        assert_eq!(
            (digest["length"].as_u64(), digest["sha256"].as_str()),
            (Some(body.len() as u64), Some(&*hash))
        );
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_held_is_gone_from_the_counts() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let stays = bed.spawn_get(&target, "/stays");
    let closes = bed.spawn_get(&target, "/closes");
    let http2 = Http2::connect(bed.envoy.address()).await.unwrap();
    let request = http::get_request_http2(&target.host(), "/resets").unwrap();
    let resets = tokio::spawn({
        let http2 = http2.clone();
        async move { http2.send(request).await }
    });
    bed.until_held(&target, 3).await.unwrap();

    // Its connection closes with the task that owns it.
    closes.abort();
    bed.until_route(&target, "two left", |route| (route.held, route.in_flight) == (2, 2)).await.unwrap();
    // The stream is reset with its request's future; the connection stays.
    resets.abort();
    bed.until_route(&target, "one left", |route| (route.held, route.in_flight) == (1, 1)).await.unwrap();
    assert_eq!(bed.envoy.stat("wasmcustom.sluice_held").await.unwrap(), 1);

    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    assert_eq!(stays.await.unwrap().unwrap().status, 200);
    let paths: Vec<String> = app.requests().unwrap().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/stays"], "who left is not sent to the app");
    bed.until_route(&target, "none left", |route| (route.held, route.in_flight) == (0, 0)).await.unwrap();
    drop(http2);
}

#[tokio::test]
async fn hosts_of_nobody_pass_and_are_not_counted() {
    let (target, other) = (Target::new("app"), Target::new("other"));
    let bed = Bed::of(&[target.clone(), other.clone()]).start().await.unwrap();
    bed.objects.remove("default-other.yaml").unwrap();
    wait::until("the route's end", async || {
        let state = bed.scalers[0].state().await.map_err(|error| format!("{error:#}"))?;
        if state.connected(1) == 2 { Ok(()) } else { Err(format!("{:?}", state.gateways)) }
    })
    .await
    .unwrap();
    // Not held although its cluster has no endpoint: it has no object any more.
    let answer = bed.get(&other, "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (503, ""));
    assert_eq!(bed.route(&target).await.unwrap().arrivals, 0);
}
