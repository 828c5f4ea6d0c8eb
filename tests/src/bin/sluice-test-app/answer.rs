//! What the app answers.

use crate::log::RequestLog;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

pub(crate) async fn answer(request: Request<Incoming>, connection: u64, log: &RequestLog) -> Response<Body> {
    if request.uri().path() == "/healthz" {
        return text("ok\n".to_owned());
    }
    log.write(&request, connection);
    if header(&request, &CONTENT_TYPE).starts_with("application/grpc") {
        return grpc_echo(request);
    }
    match request.uri().path() {
        "/digest" => digest(request).await,
        "/echo" => Response::new(request.into_body().boxed_unsync()),
        "/headers" => headers(&request),
        "/slow" => slow(&request).await,
        "/ws" => websocket_echo(request),
        path => text(format!("sluice-test-app: {} {path}\n", request.method())),
    }
}

async fn digest(request: Request<Incoming>) -> Response<Body> {
    match request.into_body().collect().await {
        Ok(body) => {
            let body = body.to_bytes();
            let hash: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
            text(json!({"length": body.len(), "sha256": hash}).to_string())
        }
        Err(error) => status(StatusCode::BAD_REQUEST, format!("the body broke off: {error}\n")),
    }
}

fn headers(request: &Request<Incoming>) -> Response<Body> {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    text(json!(headers).to_string())
}

async fn slow(request: &Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let Some(Ok(ms)) = query.split('&').find_map(|pair| pair.strip_prefix("ms=")).map(str::parse) else {
        return status(StatusCode::BAD_REQUEST, "write /slow?ms=250\n".to_owned());
    };
    tokio::time::sleep(Duration::from_millis(ms)).await;
    text(format!("after {ms} ms\n"))
}

/// Every message comes back as it is, framing included, so this is any service's echo, unary or streaming.
fn grpc_echo(request: Request<Incoming>) -> Response<Body> {
    let data =
        request.into_body().into_data_stream().map_ok(Frame::data).chain(futures::stream::once(async {
            let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
            Ok(Frame::trailers(HeaderMap::from_iter([status])))
        }));
    let mut response = Response::new(StreamBody::new(data).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn websocket_echo(mut request: Request<Incoming>) -> Response<Body> {
    let key = header(&request, &HeaderName::from_static("sec-websocket-key")).to_owned();
    if key.is_empty() {
        return status(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket\n".to_owned());
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => echo_messages(TokioIo::new(upgraded)).await,
            Err(error) => eprintln!("upgrade: {error}"),
        }
    });
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS, String::new());
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert("sec-websocket-accept", accept);
    }
    response
}

async fn echo_messages(io: TokioIo<hyper::upgrade::Upgraded>) {
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
        if let Err(error) = socket.send(message).await {
            eprintln!("websocket: {error}");
            break;
        }
    }
}

fn header<'a>(request: &'a Request<Incoming>, name: &HeaderName) -> &'a str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn text(text: String) -> Response<Body> {
    status(StatusCode::OK, text)
}

fn status(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
