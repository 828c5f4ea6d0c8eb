//! A client that says when a watch has begun.
//!
//! kube's `watcher` passes on what a watch says, and not that there is one: after an error, that it works again
//! would be known from the next change only.

use http::{Request, Response};
use kube::{Client, client::Body};
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};
use tower::service_fn;

/// How long to wait for a watch to begin. The API server answers before anything has changed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says when a watch has begun.
pub(super) type Begun = mpsc::Receiver<()>;

/// That client, and what says when a watch of it has begun: before the client's user knows it.
pub(super) fn noting(client: Client) -> (Client, Begun) {
    // One is enough: a watch has begun since it was last asked.
    let (sender, begun) = mpsc::channel(1);
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request| send(client.clone(), sender.clone(), request));
    (Client::new(service, namespace), begun)
}

async fn send(
    client: Client,
    begun: mpsc::Sender<()>,
    request: Request<Body>,
) -> Result<Response<Body>, kube::Error> {
    if !is_watch(&request) {
        return client.send(request).await;
    }
    let late = |_| kube::Error::Service(format!("no watch within {PATIENCE:?}").into());
    let response = timeout(PATIENCE, client.send(request)).await.map_err(late)??;
    if response.status().is_success() {
        let _ = begun.try_send(());
    }
    Ok(response)
}

fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|parameter| parameter == "watch=true")
}
