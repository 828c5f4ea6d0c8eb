//! An API server that answers as the test says, call by call.

use super::super::client;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{StatusCode, Uri},
    response::Response,
};
use kube::Client;
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;

/// No call, no news: the test has failed. Longer than a watch waits for anything.
pub(super) const LIMIT: Duration = Duration::from_secs(90);

/// The API server.
pub(super) struct Server {
    calls: mpsc::Receiver<Call>,
}

/// A call that waits for its answer.
pub(super) struct Call {
    pub(super) path: String,
    pub(super) query: HashMap<String, String>,
    answer: oneshot::Sender<Response>,
}

/// A watch under way; it ends when this is dropped.
pub(super) struct Stream(mpsc::Sender<Result<Bytes, Torn>>);

/// The connection breaks.
#[derive(Debug, thiserror::Error)]
#[error("torn")]
struct Torn;

// === impl Server ===

impl Server {
    pub(super) async fn start() -> (Self, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (server, router) = Self::new();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (server, client(kube::Config::new(uri)).unwrap())
    }

    /// Without a network: for tests of what time does.
    pub(super) fn near() -> (Self, Client) {
        let (server, router) = Self::new();
        (server, Client::new(router, "default"))
    }

    fn new() -> (Self, Router) {
        let (sender, calls) = mpsc::channel(16);
        (Self { calls }, Router::new().fallback(take).with_state(sender))
    }

    async fn call(&mut self) -> Call {
        tokio::time::timeout(LIMIT, self.calls.recv()).await.expect("a call").expect("the server lives")
    }

    /// The next call, which has to be a list.
    pub(super) async fn list(&mut self) -> Call {
        let call = self.call().await;
        assert!(!call.query.contains_key("watch"), "no list: {:?}", call.query);
        call
    }

    /// The next call, which has to be a watch from that version.
    pub(super) async fn watch(&mut self, version: &str) -> Call {
        let call = self.call().await;
        assert_eq!(call.query.get("watch").map(String::as_str), Some("true"), "{:?}", call.query);
        assert_eq!(call.query["resourceVersion"], version);
        call
    }
}

async fn take(
    State(calls): State<mpsc::Sender<Call>>,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let (answer, answered) = oneshot::channel();
    let unanswered = || {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    };
    match calls.send(Call { path: uri.path().to_owned(), query, answer }).await {
        Ok(()) => answered.await.unwrap_or_else(|_| unanswered()),
        Err(_) => unanswered(),
    }
}

// === impl Call ===

impl Call {
    /// A list's page; `next` asks for the next one.
    pub(super) fn page(self, version: &str, next: &str, items: &[Value]) {
        let page = json!({
            "kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": version, "continue": next}, "items": items,
        });
        self.answer(Body::from(page.to_string()), StatusCode::OK);
    }

    /// The API server's error.
    pub(super) fn fail(self, code: u16) {
        let body = Body::from(status(code).to_string());
        self.answer(body, StatusCode::from_u16(code).unwrap());
    }

    /// A watch begins.
    pub(super) fn stream(self) -> Stream {
        let (lines, stream) = mpsc::channel(16);
        self.answer(Body::from_stream(ReceiverStream::new(stream)), StatusCode::OK);
        Stream(lines)
    }

    fn answer(self, body: Body, status: StatusCode) {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let _ = self.answer.send(response);
    }
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "says why", "reason": "R", "code": code})
}

// === impl Stream ===

impl Stream {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) async fn send(&self, what: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": what, "object": object}));
        self.0.send(Ok(line.into())).await.expect("somebody watches");
    }

    pub(super) async fn bookmark(&self, version: &str) {
        let object = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"resourceVersion": version}});
        self.send("BOOKMARK", &object).await;
    }

    /// The connection breaks in the middle of a line.
    pub(super) async fn tear(self) {
        for part in [Ok("{\"type\": \"MOD".into()), Err(Torn)] {
            self.0.send(part).await.expect("somebody watches");
        }
    }

    pub(super) async fn error(&self, code: u16) {
        self.send("ERROR", &status(code)).await;
    }
}
