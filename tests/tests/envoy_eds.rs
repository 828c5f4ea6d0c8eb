//! An Envoy whose endpoints come from the scaler.

use sluice_tests::{
    bed::Bed,
    envoy::Protocol,
    http::{self, Http1},
    objects::Target,
    scaler::Scaler,
    wait,
};
use std::net::SocketAddr;

const COLD_START: &str = "x-keda-http-cold-start";

async fn wakes_and_sleeps(protocol: Protocol) {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).workers(2).eds(protocol).start().await.unwrap();
    for round in 0..3 {
        let held: Vec<_> = (0..4).map(|_| bed.spawn_get(&target, "/")).collect();
        bed.until_held(&target, 4).await.unwrap();
        let app = bed.start_app().await.unwrap();
        bed.say_ready(&target, &[app.address()]).unwrap();
        for answer in held {
            let answer = answer.await.unwrap().unwrap();
            assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"), "round {round}");
        }
        let answer = bed.get(&target, "/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "false"), "round {round}");
        bed.sleep(&target).await.unwrap();
    }
    let rejected = bed.envoy.stat(&format!("cluster.{}.update_rejected", target.cluster())).await.unwrap();
    assert_eq!((rejected, bed.scalers[0].state().await.unwrap().eds.rejections), (0, 0));
}

async fn until_streams(scaler: &Scaler, streams: u64) {
    wait::until(format!("{streams} streams of endpoints"), async || {
        let state = scaler.state().await.map_err(|error| format!("{error:#}"))?;
        if state.eds.streams == streams { Ok(()) } else { Err(format!("{:?}", state.eds)) }
    })
    .await
    .unwrap();
}

/// Sends so many requests one after the other; each has to be answered at once.
async fn warm(connection: &mut Http1, target: &Target, requests: usize) {
    for number in 0..requests {
        let answer = connection.send(http::get_request(&target.host(), "/").unwrap()).await.unwrap();
        let said = (answer.status.as_u16(), answer.header(COLD_START));
        assert_eq!(said, (200, "false"), "request {number}");
    }
}

async fn membership_changes(bed: &Bed, target: &Target) -> u64 {
    bed.envoy.stat(&format!("cluster.{}.membership_change", target.cluster())).await.unwrap()
}

async fn awake(bed: &Bed, target: &Target, endpoints: &[SocketAddr]) {
    bed.say_ready(target, endpoints).unwrap();
    bed.until_usable(target, endpoints.len() as u64).await.unwrap();
    bed.until_route(target, "the hint ready", |route| route.hint == "ready").await.unwrap();
}

#[tokio::test]
async fn endpoints_come_from_the_scaler_as_the_state_of_the_world() {
    wakes_and_sleeps(Protocol::StateOfTheWorld).await;
}

#[tokio::test]
async fn endpoints_come_from_the_scaler_incrementally() {
    wakes_and_sleeps(Protocol::Incremental).await;
}

#[tokio::test]
async fn endpoints_come_from_the_scaler_on_one_stream_for_all_clusters() {
    wakes_and_sleeps(Protocol::Aggregated).await;
}

async fn is_killed_and_comes_back(protocol: Protocol) {
    let target = Target::new("app");
    let mut bed = Bed::of(std::slice::from_ref(&target)).eds(protocol).start().await.unwrap();
    let (app, other) = (bed.start_app().await.unwrap(), bed.start_app().await.unwrap());
    awake(&bed, &target, &[app.address()]).await;
    let mut connection = Http1::connect(bed.envoy.address()).await.unwrap();
    // The first one after a while without any may be held for a look.
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 200);
    warm(&mut connection, &target, 20).await;
    let before = membership_changes(&bed, &target).await;

    bed.scalers[0].kill();
    // The links go with the process, and so does the stream of endpoints.
    wait::until("Envoy to notice", async || match bed.envoy.stat("wasmcustom.sluice_links_up").await {
        Ok(0) => Ok(()),
        Ok(up) => Err(format!("{up} links are up")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
    .unwrap();
    warm(&mut connection, &target, 200).await;
    bed.until_usable(&target, 1).await.unwrap();

    bed.scalers[0].restart().await.unwrap();
    until_streams(&bed.scalers[0], 1).await;
    warm(&mut connection, &target, 200).await;
    assert_eq!(membership_changes(&bed, &target).await, before, "nothing came or went in the meantime");

    awake(&bed, &target, &[app.address(), other.address()]).await;
    assert_eq!(membership_changes(&bed, &target).await, before + 1);
}

#[tokio::test]
async fn a_scaler_that_is_killed_takes_no_endpoint_along_and_changes_none_when_it_is_back() {
    is_killed_and_comes_back(Protocol::StateOfTheWorld).await;
}

#[tokio::test]
async fn the_same_incrementally() {
    is_killed_and_comes_back(Protocol::Incremental).await;
}

#[tokio::test]
async fn of_two_scalers_the_other_one_goes_on() {
    let target = Target::new("app");
    let mut bed = Bed::of(std::slice::from_ref(&target)).scalers(2).start().await.unwrap();
    let (app, other) = (bed.start_app().await.unwrap(), bed.start_app().await.unwrap());
    awake(&bed, &target, &[app.address()]).await;
    let serving = bed.scalers[0].state().await.unwrap().eds.streams;
    let (serving, idle) = if serving == 1 { (0, 1) } else { (1, 0) };
    until_streams(&bed.scalers[serving], 1).await;
    until_streams(&bed.scalers[idle], 0).await;

    bed.scalers[serving].kill();
    until_streams(&bed.scalers[idle], 1).await;
    bed.say_ready(&target, &[app.address(), other.address()]).unwrap();
    bed.until_usable(&target, 2).await.unwrap();

    bed.scalers[idle].kill();
    let mut connection = Http1::connect(bed.envoy.address()).await.unwrap();
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 200);
    warm(&mut connection, &target, 100).await;
    bed.until_usable(&target, 2).await.unwrap();
}

/// More clusters than HTTP/2 servers allow streams by default, and most of them nobody knows: Envoy has to start
/// nevertheless, and to learn of those that come to be.
#[tokio::test]
async fn clusters_that_nobody_knows_keep_no_envoy_from_starting() {
    let target = Target::new("app");
    let unknown: Vec<Target> = (0..300).map(|number| Target::new(&format!("unknown-{number}"))).collect();
    let bed = Bed::of(std::slice::from_ref(&target)).unknown(unknown.clone()).start().await.unwrap();
    until_streams(&bed.scalers[0], 301).await;
    let late = unknown.last().unwrap();
    assert_eq!(bed.get(late, "/").await.unwrap().status, 503, "as without Sluice");
    let app = bed.start_app().await.unwrap();
    for target in [&target, late] {
        if target == late {
            bed.objects.add(target).unwrap();
        }
        awake(&bed, target, &[app.address()]).await;
        assert_eq!(bed.get(target, "/").await.unwrap().status, 200);
    }
}
