//! Holds that end otherwise than by a release: deadlines and limits.

use serde_json::{Value, json};
use sluice_tests::{
    bed::{Bed, Builder},
    http,
    objects::Target,
};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

const COLD_START: &str = "x-keda-http-cold-start";

async fn bed(target: &Target, limits: Value) -> Bed {
    limited(target, limits).start().await.unwrap()
}

fn limited(target: &Target, limits: Value) -> Builder {
    Bed::of(std::slice::from_ref(target)).plugin("limits", limits)
}

async fn grpc_status(bed: &Bed, target: &Target) -> Status {
    let mut client = http::grpc_client(bed.envoy.address(), &target.host()).await.unwrap();
    let codec = ProstCodec::<(), ()>::default();
    client
        .unary(tonic::Request::new(()), "/test.Echo/Echo".parse().unwrap(), codec)
        .await
        .expect_err("nothing runs")
}

#[tokio::test]
async fn a_hold_that_reaches_the_gateways_deadline_is_answered_504() {
    let target = Target::new("app");
    let bed = bed(&target, json!({"holdTimeout": "300ms"})).await;
    let answer = bed.get(&target, "/").await.unwrap();
    assert_eq!(answer.status, 504);
    assert!(!answer.text().is_empty(), "a person should be told what happened");
    let route = bed
        .until_route(&target, "the deadline counted", |route| (route.expirations, route.in_flight) == (1, 0));
    let route = route.await.unwrap();
    assert_eq!((route.held, route.cold_starts), (0, 0));
    assert_eq!(bed.envoy.stat("wasmcustom.sluice_expirations_total").await.unwrap(), 1);
}

#[tokio::test]
async fn an_object_may_have_a_deadline_of_its_own() {
    let (own, other) = (Target::new("own"), Target::new("other"));
    let bed = Bed::of(&[own.clone(), other.clone()]).start().await.unwrap();
    let mut object = own.scaled_object();
    object["spec"]["timeouts"] = json!({"conditionWait": "300ms"});
    let other_held = bed.spawn_get(&other, "/");
    bed.until_held(&other, 1).await.unwrap();
    bed.objects.add_with(&own, object).unwrap();
    // Whether or not the change has arrived when this one does: what is held goes by the route as it is.
    let answer = bed.get(&own, "/").await.unwrap();
    assert_eq!(answer.status, 504);
    assert_eq!(bed.route(&other).await.unwrap().held, 1, "the other app's requests still wait");
    let app = bed.start_app().await.unwrap();
    bed.wake(&other, &[app.address()]).unwrap();
    assert_eq!(other_held.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_full_route_is_answered_503_with_retry_after() {
    let target = Target::new("app");
    let bed = bed(&target, json!({"heldPerRoute": 2})).await;
    let held = [bed.spawn_get(&target, "/"), bed.spawn_get(&target, "/")];
    bed.until_held(&target, 2).await.unwrap();
    let answer = bed.get(&target, "/").await.unwrap();
    assert_eq!(answer.status, 503);
    let retry_after: u32 = answer.header("retry-after").parse().expect("Retry-After in seconds");
    assert!(retry_after > 0);
    let route = bed.until_route(&target, "the refusal counted", |route| route.rejections == 1).await.unwrap();
    assert_eq!((route.held, route.in_flight), (2, 2));

    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    for answer in held {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
    }
}

#[tokio::test]
async fn a_full_worker_is_answered_503_and_leaves_warm_apps_alone() {
    let (asleep, also_asleep, warm) =
        (Target::new("asleep"), Target::new("also-asleep"), Target::new("warm"));
    let bed = Bed::of(&[asleep.clone(), also_asleep.clone(), warm.clone()])
        .plugin("limits", json!({"heldPerWorker": 1}))
        .start()
        .await
        .unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&warm, &[app.address()]).unwrap();
    bed.until_usable(&warm, 1).await.unwrap();
    bed.until_route(&warm, "the hint ready", |route| route.hint == "ready").await.unwrap();
    let held = bed.spawn_get(&asleep, "/");
    bed.until_held(&asleep, 1).await.unwrap();
    let answer = bed.get(&also_asleep, "/").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_ne!(answer.header("retry-after"), "");
    assert_eq!(bed.get(&warm, "/").await.unwrap().status, 200);
    bed.wake(&asleep, &[app.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_grpc_call_at_its_deadline_gets_a_grpc_status() {
    let target = Target::new("app");
    let bed = bed(&target, json!({"holdTimeout": "300ms"})).await;
    let status = grpc_status(&bed, &target).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
}

#[tokio::test]
async fn a_grpc_call_to_a_full_route_gets_a_grpc_status() {
    let target = Target::new("app");
    let bed = bed(&target, json!({"heldPerRoute": 1})).await;
    let held = bed.spawn_get(&target, "/");
    bed.until_held(&target, 1).await.unwrap();
    let status = grpc_status(&bed, &target).await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    held.abort();
    bed.until_held(&target, 0).await.unwrap();
}
