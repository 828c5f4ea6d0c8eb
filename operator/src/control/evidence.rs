//! Asking the scalers what gateways have shown of objects.
//!
//! All of them are asked, from time to time: each knows what every gateway says, since it started.

use super::{Context, wakes::Wakes};
use crate::{
    evidence::{self, Answer, Concerned, Evidence, MAX_ANSWER},
    standing::Finding,
};
use futures::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::{api::discovery::v1::EndpointSlice, apimachinery::pkg::apis::meta::v1::Condition};
use sluice_core::route::Kind;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::TcpStream, task::JoinSet};

/// Between two rounds: nobody waits for it, and a warning that comes soon after the third wake is soon enough.
const PERIOD: Duration = Duration::from_secs(15);
/// The same while no gateway is known to be linked: that is when somebody installs things, and looks.
const SOON: Duration = Duration::from_secs(5);
/// How long a scaler may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many scalers are asked.
const MAX_SCALERS: usize = 16;
/// The port of the scaler's Service where it answers.
const PORT: &str = "http";
const PATH: &str = "/debug/evidence";

/// Why a scaler has said nothing.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error("{0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    #[error("it answers {0}")]
    Status(StatusCode),
    /// The connection, or [`MAX_ANSWER`].
    #[error("{0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer does not read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("no answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
}

/// Asks from time to time.
pub(super) async fn follow(context: Arc<Context>, wakes: Wakes) {
    let mut is_silent = false;
    loop {
        let silence = context.ask(&wakes).await;
        match &silence {
            Some(why) if !is_silent => tracing::warn!(
                why,
                "cannot ask a scaler what gateways have shown; what objects say of it stays. Trying again"
            ),
            None if is_silent => tracing::info!("all scalers say what gateways have shown"),
            Some(_) | None => {}
        }
        is_silent = silence.is_some();
        tokio::time::sleep(context.pause()).await;
    }
}

// === impl Context ===

impl Context {
    /// What gateways have shown of an object, where it has said `before` until now.
    pub(super) fn shown(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        before: &[Condition],
    ) -> Vec<Finding> {
        self.evidence().findings(&(kind, namespace.to_owned(), name.to_owned()), before)
    }

    fn evidence(&self) -> MutexGuard<'_, Evidence> {
        // What is in it is whole after every call.
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) -> Duration {
        if self.evidence().is_linked() == Some(true) { PERIOD } else { SOON }
    }

    /// Asks every scaler, and wakes the objects of which they say something else than before. Gives why one of them has
    /// said nothing.
    async fn ask(&self, wakes: &Wakes) -> Option<String> {
        let scalers = addresses(&self.stores.endpoints.state());
        let host = format!("{}.{}", self.scaler.service, self.scaler.namespace);
        if scalers.is_empty() && self.scaler_answers() == Ok(true) {
            return Some(format!("the Service {host} has no port {PORT:?}: apply install/scaler.yaml anew"));
        }
        let answers = join_all(scalers.iter().map(|scaler| ask(*scaler, &host))).await;
        let (mut heard, mut silence) = (BTreeMap::new(), None);
        for (scaler, answer) in scalers.iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    heard.insert(*scaler, answer);
                }
                Err(why) => silence = Some(format!("http://{scaler}{PATH}: {why}")),
            }
        }
        let concerned = {
            let mut evidence = self.evidence();
            evidence.retain(&scalers);
            evidence.take(heard, silence.is_none())
        };
        match concerned {
            Concerned::All => wakes.all(),
            Concerned::These(keys) => {
                keys.iter().for_each(|(kind, namespace, name)| wakes.one(*kind, namespace, name));
            }
        }
        silence
    }
}

/// Where the scalers answer that are ready.
fn addresses(slices: &[Arc<EndpointSlice>]) -> BTreeSet<SocketAddr> {
    let of = |slice: &Arc<EndpointSlice>| {
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|it| it.name.as_deref() == Some(PORT)).and_then(|it| it.port);
        let port = port.and_then(|port| u16::try_from(port).ok());
        let ready = slice.endpoints.iter().filter(|it| super::is_ready(it));
        let ips: Vec<IpAddr> = ready.filter_map(|it| it.addresses.first()?.parse().ok()).collect();
        ips.into_iter().filter_map(move |ip| Some(SocketAddr::new(ip, port?)))
    };
    slices.iter().flat_map(of).take(MAX_SCALERS).collect()
}

async fn ask(scaler: SocketAddr, host: &str) -> Result<Answer, Silence> {
    let exchange = async {
        let stream = TcpStream::connect(scaler).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with this function at the latest.
        let mut carrying = JoinSet::new();
        carrying.spawn(connection);
        let request = Request::get(PATH).header(header::HOST, format!("{host}:{}", scaler.port()));
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if response.status() != StatusCode::OK {
            return Err(Silence::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(Silence::Body)?;
        Ok(evidence::read(&body.to_bytes())?)
    };
    tokio::time::timeout(PATIENCE, exchange).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// A scaler that answers so to whatever it is asked.
    async fn scaler(answer: Vec<u8>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1_024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /debug/evidence HTTP/1.1\r\n"));
            // Whoever has heard enough goes.
            let _ = stream.write_all(&answer).await;
        });
        address
    }

    async fn answer(answer: impl Into<Vec<u8>>) -> Result<Answer, Silence> {
        ask(scaler(answer.into()).await, "sluice-scaler.sluice-system").await
    }

    #[tokio::test]
    async fn a_scaler_is_asked_and_believed_within_bounds() {
        let body = r#"{"workers":2,"objects":[{"kind":"HTTPScaledObject","namespace":"a","name":"x","mismatches":1}]}"#;
        let good = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let heard = answer(good).await.unwrap();
        assert_eq!((heard.workers, heard.objects.len()), (2, 1));
        let other = answer("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(other, Err(Silence::Status(StatusCode::NOT_FOUND))), "{other:?}");
        assert!(matches!(answer("SSH-2.0\r\n").await, Err(Silence::Http(_))));
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n[".to_vec();
        endless.resize(2 * MAX_ANSWER, b' ');
        assert!(matches!(answer(endless).await, Err(Silence::Body(_))));
        let short = answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[").await;
        assert!(matches!(short, Err(Silence::Body(_))), "{short:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_scaler_that_says_nothing_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = ask(listener.local_addr().unwrap(), "scaler").await;
        assert!(matches!(silent, Err(Silence::Late(_))), "{silent:?}");
    }

    #[test]
    fn scalers_that_are_ready_are_asked_at_the_port_of_that_name() {
        let slice = |ports| {
            let slice = json!({
                "addressType": "IPv4",
                "ports": ports,
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.3"]},
                ],
            });
            Arc::new(serde_json::from_value(slice).unwrap())
        };
        let grpc = json!({"name": "grpc", "port": 9090});
        let wanted = ["10.0.0.1:8081", "10.0.0.3:8081"].map(|it| it.parse().unwrap());
        let both = slice(json!([grpc, {"name": "http", "port": 8081}]));
        assert_eq!(addresses(&[Arc::clone(&both), both]), wanted.into());
        assert!(addresses(&[slice(json!([grpc]))]).is_empty());
    }
}
