//! Pods of a test's own making: servers on addresses of the bed's network, and the objects that lead to them.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use sluice_tests::{
    cluster::{certs::Identity, istio::World},
    http::Answer,
};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// A server that answers with its own address. It listens until it is dropped.
pub(crate) struct Pod {
    pub(crate) address: SocketAddr,
    handshakes: Handshakes,
    server: JoinHandle<()>,
}

/// The server names that clients asked for, over TLS, and how what was no handshake failed: one for each connection.
type Handshakes = Arc<Mutex<Vec<String>>>;

/// A Service without a selector, whose endpoints the test writes.
pub(crate) struct Backend<'a> {
    world: &'a World,
    pub(crate) name: String,
}

// === impl Pod ===

impl Pod {
    pub(crate) async fn start(address: &str) -> Result<Self> {
        Self::listen(address, None).await
    }

    /// Over TLS, with a certificate of its own.
    pub(crate) async fn start_tls(address: &str, identity: &Identity) -> Result<Self> {
        let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).context("certificate")?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).context("key")?;
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self::listen(address, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(address: &str, tls: Option<TlsAcceptor>) -> Result<Self> {
        let address: SocketAddr = address.parse()?;
        let listener = TcpListener::bind(address).await.with_context(|| format!("bind {address}"))?;
        let handshakes = Handshakes::default();
        let seen = Arc::clone(&handshakes);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, tls.clone(), address, Arc::clone(&seen)));
            }
        });
        Ok(Self { address, handshakes, server })
    }

    /// The server name of each connection so far, and of what was no handshake how it failed.
    pub(crate) fn handshakes(&self) -> Vec<String> {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that [`Self::handshakes`] has.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.handshakes().into_iter().collect()
    }

    /// Whether the answer is this one's.
    pub(crate) fn said(&self, answer: &Answer) -> bool {
        answer.status == 200 && answer.text() == self.address.to_string()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    handshakes: Handshakes,
) {
    let Some(tls) = tls else { return serve(stream, address, String::new()).await };
    let accepted = tls.accept(stream).await;
    let name = match &accepted {
        Ok(stream) => stream.get_ref().1.server_name().unwrap_or("none").to_owned(),
        Err(error) => format!("failed: {error}"),
    };
    handshakes.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
    if let Ok(stream) = accepted {
        serve(stream, address, name).await;
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, address: SocketAddr, name: String) {
    let service = service_fn(|_: Request<Incoming>| {
        let name = name.clone();
        async move {
            let answer = Response::builder().header("x-server-name", name);
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(address.to_string()))).unwrap_or_default())
        }
    });
    // A connection that the gateway drops is none of the test's business.
    _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

// === impl Backend ===

impl<'a> Backend<'a> {
    /// Makes the Service, its `ports` being those of its spec.
    pub(crate) async fn create(world: &'a World, name: &str, ports: Value) -> Result<Self> {
        let backend = Self { world, name: name.to_owned() };
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": world.namespace},
            "spec": {"ports": ports},
        });
        world.cluster.apply(&[service]).await?;
        Ok(backend)
    }

    /// The host whose requests go to one of its ports.
    pub(crate) fn host(&self, port: u16) -> String {
        format!("{}-{port}.{}.example.com", self.name, self.world.namespace)
    }

    /// The Service's name in full.
    pub(crate) fn service_host(&self) -> String {
        format!("{}.{}.svc.cluster.local", self.name, self.world.namespace)
    }

    /// Sends the host's requests to the port, and has Sluice hold them, by an InterceptorRoute `name` whose target
    /// says the port as `target` does.
    pub(crate) async fn route(&self, name: &str, port: u16, target: Value) -> Result<()> {
        let destination = json!({"host": self.service_host(), "port": {"number": port}});
        let rules = json!([{"route": [{"destination": destination}]}]);
        self.route_by(name, port, target, rules).await
    }

    /// As [`Self::route`], with the routes of the VirtualService.
    pub(crate) async fn route_by(&self, name: &str, port: u16, target: Value, routes: Value) -> Result<()> {
        let (host, world) = (self.host(port), self.world);
        let metadata = json!({"name": name, "namespace": world.namespace});
        let mut target = target;
        target["service"] = json!(self.name);
        world
            .cluster
            .apply(&[
                json!({
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "VirtualService",
                    "metadata": metadata,
                    "spec": {
                        "hosts": [host], "gateways": [sluice_tests::cluster::istio::GATEWAY], "http": routes,
                    },
                }),
                json!({
                    "apiVersion": "http.keda.sh/v1beta1",
                    "kind": "InterceptorRoute",
                    "metadata": metadata,
                    "spec": {
                        "target": target,
                        "rules": [{"hosts": [host]}],
                        "scalingMetric": {"concurrency": {"targetValue": 100}},
                    },
                }),
            ])
            .await?;
        world.routed(&host).await?;
        world
            .sluice
            .until(name, |state| match state.route(&world.namespace, name) {
                Some(_) => Ok(()),
                None => Err(format!("{:?} {:?}", state.routes, state.problems)),
            })
            .await?;
        world.sluice.linked(&[&world.gateway]).await
    }

    /// Waits until so many requests are held for an object.
    pub(crate) async fn held(&self, name: &str, wanted: u64) -> Result<()> {
        let world = self.world;
        world
            .sluice
            .until(&format!("{wanted} held requests"), |state| {
                match state.route(&world.namespace, name).map(|route| route.held) {
                    Some(held) if held == wanted => Ok(()),
                    held => Err(format!("{held:?} held")),
                }
            })
            .await
    }

    /// An EndpointSlice of the Service.
    pub(crate) fn slice(&self, name: &str, ports: Value, addresses: &[&str]) -> Value {
        let family = if addresses.iter().any(|address| address.contains(':')) { "IPv6" } else { "IPv4" };
        let endpoints = addresses
            .iter()
            .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
            .collect::<Value>();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{name}", self.name),
                "namespace": self.world.namespace,
                "labels": {
                    "kubernetes.io/service-name": self.name,
                    "endpointslice.kubernetes.io/managed-by": "sluice-tests",
                },
            },
            "addressType": family,
            "ports": ports,
            "endpoints": endpoints,
        })
    }

    /// Sends a GET that has to wait, applies what wakes its target, and gives the answer, which must say that it was
    /// cold.
    pub(crate) async fn wake(&self, name: &str, port: u16, wake: &[Value]) -> Result<Answer> {
        let request = self.world.send(&self.host(port), "/");
        self.held(name, 1).await?;
        self.world.cluster.apply(wake).await?;
        let answer = request.await??;
        anyhow::ensure!(answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
        Ok(answer)
    }
}
