//! The bed itself, on a plain Envoy: what fails here says nothing about the filter.

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;
use sluice_tests::{bed::Bed, http, objects::Target};

#[tokio::test]
async fn a_plain_envoy_reaches_the_app_while_it_has_an_endpoint() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).plain().start().await.unwrap();
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 503, "without an endpoint");

    let app = bed.start_app().await.unwrap();
    bed.set_endpoints(&target, &[app.address()]).unwrap();
    bed.until_usable(&target, 1).await.unwrap();
    let answer = bed.get(&target, "/here").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "sluice-test-app: GET /here\n"));

    bed.set_endpoints(&target, &[]).unwrap();
    bed.until_usable(&target, 0).await.unwrap();
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 503, "after the endpoint is gone");
}

#[tokio::test]
async fn the_logs_of_gateway_and_app_agree() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).plain().start().await.unwrap();
    let mut app = bed.start_app().await.unwrap();
    bed.set_endpoints(&target, &[app.address()]).unwrap();
    bed.until_usable(&target, 1).await.unwrap();

    let request = Request::post("/digest").header("host", target.host()).header("x-test-id", "one");
    let request = request.body(Full::new(Bytes::from_static(b"abc"))).unwrap();
    let digest: Value = http::request(bed.envoy.address(), request).await.unwrap().json().unwrap();
    assert_eq!(digest["length"], 3);
    // The test vector of FIPS 180-2.
    assert_eq!(digest["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");

    let access = bed.envoy.access("one").await.unwrap();
    let request = app.requests().unwrap().into_iter().find(|request| request.id == "one").unwrap();
    assert_eq!((access.status, request.method.as_str()), (200, "POST"));
    let released = access.released_us.expect("a request that the app has was sent to it");
    assert!(access.start_us <= released && released <= access.first_byte_us.expect("it was answered"));
    assert!(
        access.start_us <= request.at_us,
        "the app cannot have it before the gateway: {access:?} {request:?}"
    );
    app.stop().await.unwrap();
}
