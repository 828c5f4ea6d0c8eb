//! What an access log says of a request: `%FILTER_STATE(wasm.sluice:PLAIN)%`, on the real Envoy.

use http_body_util::Full;
use hyper::{Request, body::Bytes};
use serde_json::json;
use sluice_tests::{
    bed::Bed,
    http::{self, Answer},
    objects::Target,
    wait,
};
use tokio::task::JoinHandle;

fn request(target: &Target, id: &str) -> Request<Full<Bytes>> {
    let mut request = http::get_request(&target.host(), "/").unwrap();
    request.headers_mut().insert("x-test-id", id.parse().unwrap());
    request
}

async fn get(bed: &Bed, target: &Target, id: &str) -> Answer {
    http::request(bed.envoy.address(), request(target, id)).await.unwrap()
}

fn send(bed: &Bed, target: &Target, id: &str) -> JoinHandle<anyhow::Result<Answer>> {
    let (address, request) = (bed.envoy.address(), request(target, id));
    tokio::spawn(async move { http::request(address, request).await })
}

async fn told(bed: &Bed, id: &str) -> Option<String> {
    bed.envoy.access(id).await.unwrap().sluice
}

/// The milliseconds at the end of a line that begins so.
fn held_ms(line: Option<String>, beginning: &str) -> u64 {
    let line = line.unwrap();
    let rest = line.strip_prefix(beginning).unwrap_or_else(|| panic!("{line}: not {beginning}"));
    rest.strip_suffix("ms").unwrap_or_else(|| panic!("{line}: no time")).parse().unwrap()
}

#[tokio::test]
async fn a_released_request_says_its_route_and_how_long_it_was_held_and_a_warm_one_nothing() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let app = bed.start_app().await.unwrap();
    let held = send(&bed, &target, "cold");
    bed.until_held(&target, 1).await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
    assert_eq!(get(&bed, &target, "warm").await.status, 200);

    let ms = held_ms(told(&bed, "cold").await, &format!("{}/{} released ", target.namespace, target.name));
    let line = bed.envoy.access("cold").await.unwrap();
    let most = line.released_us.unwrap() - line.start_us;
    assert!(ms * 1_000 <= most, "held for {ms} ms, and sent to the app after {most} us");
    assert_eq!(told(&bed, "warm").await, None);
}

#[tokio::test]
async fn what_the_filter_answers_itself_says_why() {
    let target = Target::new("app");
    let limits = json!({"holdTimeout": "1s", "heldPerRoute": 1});
    let bed = Bed::of(std::slice::from_ref(&target)).plugin("limits", limits).start().await.unwrap();
    let held = send(&bed, &target, "first");
    bed.until_filter_holds(1).await.unwrap();
    assert_eq!(get(&bed, &target, "second").await.status, 503);
    assert_eq!(held.await.unwrap().unwrap().status, 504);

    let route = format!("{}/{}", target.namespace, target.name);
    assert_eq!(told(&bed, "second").await, Some(format!("{route} refused")));
    let ms = held_ms(told(&bed, "first").await, &format!("{route} expired "));
    assert!(ms >= 1_000, "{ms} ms, before its deadline");
}

#[tokio::test]
async fn a_request_whose_client_left_says_that_it_was_held() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let held = send(&bed, &target, "left");
    bed.until_held(&target, 1).await.unwrap();
    held.abort();
    assert_eq!(told(&bed, "left").await, Some(format!("{}/{} held", target.namespace, target.name)));
}

#[tokio::test]
async fn a_request_that_the_gateway_sends_elsewhere_says_whose_rules_it_matches() {
    let (target, other) = (Target::new("app"), Target::new("other"));
    let bed = Bed::of(std::slice::from_ref(&target)).unknown(vec![other.clone()]).start().await.unwrap();
    // The object has the host of another app's route.
    let mut object = target.scaled_object();
    object["spec"]["hosts"] = json!([other.host()]);
    bed.objects.add_with(&target, object).unwrap();
    let mut count = 0;
    wait::until("the object to have the other host at every worker", async || {
        count += 1;
        let id = format!("elsewhere-{count}");
        // Nobody is there: Envoy's own answer.
        assert_eq!(get(&bed, &other, &id).await.status, 503);
        match told(&bed, &id).await {
            Some(told) if told == format!("{}/{} mismatch", target.namespace, target.name) => Ok(()),
            told => Err(format!("{told:?}")),
        }
    })
    .await
    .unwrap();
}
