//! The scaler, a folder of objects, and both kinds of peers.

use clap::Parser;
use sluice_proto::{
    keda::{ScaledObjectRef, external_scaler_client::ExternalScalerClient},
    link::{
        FromWorker, Hello, PROTOCOL, Report, RouteCounts, ToWorker, from_worker, link_client::LinkClient,
        to_worker,
    },
};
use sluice_scaler::{
    config::Args,
    hub::Hub,
    index::route_id,
    run::{Listeners, RunError, serve},
};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

/// How long anything may take before it is taken for lost. Not what is measured.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running scaler.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), RunError>>,
}

/// A gateway worker's end of a link.
pub(crate) struct Worker {
    reports: mpsc::Sender<FromWorker>,
    answers: Streaming<ToWorker>,
    sequence: u64,
}

// === impl Bed ===

impl Bed {
    /// A scaler without objects.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A scaler with these flags besides.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let args = [
            "sluice-scaler",
            "--config-dir",
            dir.path().to_str().unwrap(),
            "--bind=127.0.0.1",
            "--port=0",
            "--http-port=0",
            "--shutdown-delay=0s",
            "--name=replica-7",
        ];
        let config =
            Args::try_parse_from(args.into_iter().chain(flags.iter().copied())).unwrap().resolve().unwrap();
        let listeners = Listeners::open(&config).await.unwrap();
        let (grpc, http) = (listeners.grpc.local_addr().unwrap(), listeners.http.local_addr().unwrap());
        let hub = Arc::new(Hub::new(&config));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(config, hub, listeners, async {
            let _ = stopped.await;
        }));
        Self { dir, grpc, http, stop: Some(stop), serving }
    }

    /// Writes a file of objects, whole.
    pub(crate) fn write(&self, file: &str, yaml: &str) {
        let path = self.dir.path().join(file);
        std::fs::write(path.with_extension("new"), yaml).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }

    /// Tells it to end.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> Result<(), RunError> {
        within(self.serving).await.unwrap()
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        within(endpoint.connect()).await.unwrap()
    }

    pub(crate) async fn keda(&self) -> ExternalScalerClient<Channel> {
        ExternalScalerClient::new(self.channel().await)
    }

    /// A worker that has said hello and heard a whole table.
    pub(crate) async fn worker(&self, instance: u64) -> Worker {
        let mut worker = Worker::connect(self.channel().await, hello(instance)).await.unwrap();
        while !matches!(worker.hear().await, to_worker::Message::Table(table) if table.complete) {}
        worker
    }

    /// `GET`s a path; gives the status and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: scaler\r\nconnection: close\r\n\r\n");
        let exchange = async {
            let mut stream = TcpStream::connect(self.http).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = within(exchange).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// `/debug/state`.
    pub(crate) async fn state(&self) -> serde_json::Value {
        let (status, body) = self.get("/debug/state").await;
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until `/debug/state` is as wanted, and gives it.
    pub(crate) async fn until(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        within(async {
            loop {
                let state = self.state().await;
                if wanted(&state) {
                    return state;
                }
            }
        })
        .await
    }
}

// === impl Worker ===

impl Worker {
    /// Opens a link and sends `first`.
    pub(crate) async fn connect(channel: Channel, first: FromWorker) -> Result<Self, Status> {
        let (reports, outgoing) = mpsc::channel(16);
        reports.send(first).await.unwrap();
        let mut client = LinkClient::new(channel);
        let answers = within(client.connect(ReceiverStream::new(outgoing))).await?.into_inner();
        Ok(Self { reports, answers, sequence: 0 })
    }

    /// What the scaler says next; the end of the stream is none.
    pub(crate) async fn next(&mut self) -> Result<Option<to_worker::Message>, Status> {
        let message = within(self.answers.message()).await?;
        Ok(message.map(|message| message.message.unwrap()))
    }

    /// What the scaler says next.
    pub(crate) async fn hear(&mut self) -> to_worker::Message {
        self.next().await.unwrap().unwrap()
    }

    /// Sends a message that may be anything.
    pub(crate) async fn send(&self, message: FromWorker) {
        within(self.reports.send(message)).await.unwrap();
    }

    /// Reports, and waits for the acknowledgement. The first report of a stream is complete.
    pub(crate) async fn report(&mut self, routes: Vec<RouteCounts>) {
        self.sequence += 1;
        let sequence = self.sequence;
        let report = Report { sequence, complete: sequence == 1, routes };
        self.send(FromWorker { message: Some(from_worker::Message::Report(report)) }).await;
        loop {
            if let to_worker::Message::Ack(ack) = self.hear().await {
                assert_eq!(ack.sequence, sequence);
                return;
            }
        }
    }
}

/// A worker's hello.
pub(crate) fn hello(instance: u64) -> FromWorker {
    let hello = Hello {
        protocol: PROTOCOL,
        gateway: "router~10.0.0.1~gw-1.istio-system".to_owned(),
        instance,
        filter_version: "0.1.0".to_owned(),
        // An old one, as a scaler that starts meets them.
        age_ms: 1_000_000_000,
    };
    FromWorker { message: Some(from_worker::Message::Hello(hello)) }
}

/// Counts of the HTTPScaledObject ns/app.
pub(crate) fn counts(in_flight: u32, held: u32, arrivals: u64) -> RouteCounts {
    let route = route_id(sluice_core::route::Kind::HttpScaledObject, "ns", "app").0;
    RouteCounts { route, in_flight, held, arrivals, ..RouteCounts::default() }
}

/// KEDA's reference to what a trigger's metadata names.
pub(crate) fn reference(key: &str, name: &str) -> ScaledObjectRef {
    ScaledObjectRef {
        name: "so".to_owned(),
        namespace: "ns".to_owned(),
        scaler_metadata: [(key.to_owned(), name.to_owned())].into(),
    }
}

/// KEDA's reference to the HTTPScaledObject ns/app.
pub(crate) fn app() -> ScaledObjectRef {
    reference("httpScaledObject", "app")
}

/// The HTTPScaledObject ns/app with its Service.
pub(crate) const APP: &str = "
apiVersion: http.keda.sh/v1alpha1
kind: HTTPScaledObject
metadata: {name: app, namespace: ns}
spec:
  hosts: [app.example.com]
  scaleTargetRef: {name: app, service: app, port: 80}
---
apiVersion: v1
kind: Service
metadata: {name: app, namespace: ns}
spec: {ports: [{port: 80, name: http}]}
";

/// An endpoint of that Service.
pub(crate) fn slice(ready: bool) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: app-1, namespace: ns, labels: {{kubernetes.io/service-name: app}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.0.0.1], conditions: {{ready: {ready}}}}}]
"
    )
}

/// Waits for something that has to come.
pub(crate) async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes in time")
}
