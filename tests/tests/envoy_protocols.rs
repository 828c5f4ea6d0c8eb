//! What else than a plain HTTP/1.1 request is held and released.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use sluice_tests::{
    bed::Bed,
    envoy::{LISTENER, Upstream},
    http::{self, Http2},
    objects::Target,
};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use tonic::codegen::tokio_stream::wrappers::UnboundedReceiverStream;
use tonic_prost::ProstCodec;

const COLD_START: &str = "x-keda-http-cold-start";
const ECHO: &str = "/test.Echo/Echo";

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn text(text: &str) -> Text {
    Text { text: text.to_owned() }
}

#[tokio::test]
async fn http2_streams_of_one_connection_are_held_and_released() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let connection = Http2::connect(bed.envoy.address()).await.unwrap();
    let held: Vec<_> = (0..20)
        .map(|number| {
            let connection = connection.clone();
            let request = http::get_request_http2(&target.host(), &format!("/{number}")).unwrap();
            tokio::spawn(async move { connection.send(request).await })
        })
        .collect();
    bed.until_held(&target, 20).await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    for (number, answer) in held.into_iter().enumerate() {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
        assert_eq!(answer.text(), format!("sluice-test-app: GET /{number}\n"));
    }
}

#[tokio::test]
async fn a_unary_grpc_call_is_held_and_released() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let mut client = http::grpc_client(bed.envoy.address(), &target.host()).await.unwrap();
    let call = tokio::spawn(async move {
        let codec = ProstCodec::<Text, Text>::default();
        client.unary(tonic::Request::new(text("hello")), ECHO.parse().unwrap(), codec).await
    });
    bed.until_held(&target, 1).await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    let answer = call.await.unwrap().expect("the call's status is OK");
    assert_eq!(answer.metadata().get(COLD_START).unwrap(), "true");
    assert_eq!(answer.into_inner(), text("hello"));
}

#[tokio::test]
async fn a_streaming_grpc_call_is_held_and_released() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let mut client = http::grpc_client(bed.envoy.address(), &target.host()).await.unwrap();
    let (up, messages) = mpsc::unbounded_channel();
    // While it is held the first message already waits behind it.
    up.send(text("first")).unwrap();
    let call = tokio::spawn(async move {
        let codec = ProstCodec::<Text, Text>::default();
        let messages = tonic::Request::new(UnboundedReceiverStream::new(messages));
        client.streaming(messages, ECHO.parse().unwrap(), codec).await
    });
    bed.until_held(&target, 1).await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    let mut down = call.await.unwrap().expect("the call begins").into_inner();
    assert_eq!(down.message().await.unwrap(), Some(text("first")));
    up.send(text("second")).unwrap();
    assert_eq!(down.message().await.unwrap(), Some(text("second")));
    bed.until_route(&target, "one in flight, none held", |route| (route.in_flight, route.held) == (1, 0))
        .await
        .unwrap();
    drop(up);
    assert_eq!(down.message().await.expect("the stream ends with OK"), None);
    bed.until_route(&target, "nothing in flight", |route| route.in_flight == 0).await.unwrap();
}

#[tokio::test]
async fn a_websocket_is_held_and_released() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let stream = TcpStream::connect(bed.envoy.address()).await.unwrap();
    let request = format!("ws://{}/ws", target.host()).into_client_request().unwrap();
    let upgrade = tokio::spawn(tokio_tungstenite::client_async(request, stream));
    bed.until_held(&target, 1).await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    let (mut socket, answer) = upgrade.await.unwrap().expect("the upgrade succeeds");
    assert_eq!(
        (answer.status().as_u16(), answer.headers().get(COLD_START).unwrap().as_bytes()),
        (101, &b"true"[..])
    );
    for message in ["one", "two"] {
        socket.send(Message::text(message)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(message));
    }
    bed.until_route(&target, "one in flight, none held", |route| (route.in_flight, route.held) == (1, 0))
        .await
        .unwrap();
    socket.close(None).await.unwrap();
    bed.until_route(&target, "nothing in flight", |route| route.in_flight == 0).await.unwrap();
}

/// A sidecar is an Envoy as well, and one on whose HTTP/2 connection something comes that is no proper request ends the
/// connection, and with it the request that follows the look.
#[tokio::test]
async fn looks_leave_an_http2_connection_to_another_envoy_alone() {
    const LOOKS: u64 = 50;
    const REQUESTS: u64 = 100 * LOOKS;
    let target = Target::new("app");
    let sidecar = Bed::of(std::slice::from_ref(&target)).plain().start().await.unwrap();
    let app = sidecar.start_app().await.unwrap();
    sidecar.set_endpoints(&target, &[app.address()]).unwrap();
    sidecar.until_usable(&target, 1).await.unwrap();
    // Looks are all there is without a scaler.
    let bed = Bed::of(std::slice::from_ref(&target)).scalers(0).plugin("quiet", json!("1ms"));
    let bed = bed.upstream(Upstream::Http2).start().await.unwrap();
    bed.set_endpoints(&target, &[sidecar.envoy.address()]).unwrap();
    bed.until_usable(&target, 1).await.unwrap();
    let (mut requests, mut looks) = (0, 0);
    // Which of them have a millisecond of quiet before them is the machine's to say.
    while looks < LOOKS {
        let answer = bed.get(&target, "/").await.unwrap();
        requests += 1;
        assert_eq!(answer.status, 200, "request {requests}: {}", answer.text());
        looks = bed.envoy.stat("wasmcustom.sluice_looks_total").await.unwrap();
        assert!(requests < REQUESTS, "{looks} looks in {requests} requests");
    }
    let connections = format!("http.{LISTENER}.downstream_cx_total");
    assert_eq!(sidecar.envoy.stat(&connections).await.unwrap(), 1);
}
