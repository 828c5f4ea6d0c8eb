//! An app whose connections a test counts, and the EnvoyFilter for it.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_envoyfilter::{Binding, Upstream, UpstreamFilter};
use sluice_tests::{
    app::{AppRequest, read_requests},
    cluster::istio::{self, App, GATEWAY, Gateway, World},
    http, wait,
};
use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// An app that is awake, known to Sluice and routed to, and writes down what arrives on which connection.
pub(crate) struct Watched {
    pub(crate) app: App,
    log: PathBuf,
}

impl Watched {
    /// `app_protocol` is that of its Service's port.
    pub(crate) async fn start(world: &World, name: &str, app_protocol: Option<&str>) -> Result<Self> {
        let app = world.app(name).await?;
        if let Some(protocol) = app_protocol {
            let ports = json!([{"name": "http", "port": 80, "targetPort": "web", "appProtocol": protocol}]);
            let services = Api::<Service>::namespaced(world.cluster.client(), &app.namespace);
            world.cluster.merge(&services, &app.name, &json!({"spec": {"ports": ports}})).await?;
        }
        let log = world
            .cluster
            .bed()
            .context("needs the bed")?
            .folder(&app.namespace)?
            .join(format!("{name}.jsonl"));
        let deployments = Api::<Deployment>::namespaced(world.cluster.client(), &app.namespace);
        let add = json!([
            {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--request-log"},
            {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": log.display().to_string()},
            {"op": "replace", "path": "/spec/replicas", "value": 1},
        ]);
        let patch = Patch::Json::<()>(serde_json::from_value(add)?);
        deployments.patch(name, &PatchParams::default(), &patch).await?;
        app.awake().await?;
        let watched = Self { app, log };
        let answer = watched.get(world, "/first").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(watched)
    }

    pub(crate) async fn get(&self, world: &World, path: &str) -> Result<http::Answer> {
        world.get(&self.app.host(), path).await
    }

    /// What has arrived at the app so far.
    pub(crate) fn requests(&self) -> Result<Vec<AppRequest>> {
        read_requests(&self.log)
    }

    /// Those whose path begins so.
    pub(crate) fn requests_to(&self, path: &str) -> Result<Vec<AppRequest>> {
        let all = self.requests()?.into_iter();
        Ok(all.filter(|request| request.path.starts_with(path)).collect())
    }

    /// Sets how the gateway connects to it, as the operator does, and waits until the gateway does so.
    pub(crate) async fn set(&self, world: &World, upstream: Upstream) -> Result<()> {
        set(world, &self.app, upstream).await
    }
}

/// Sets how the gateway connects to an app, as the operator does, and waits until the gateway does so.
pub(crate) async fn set(world: &World, app: &App, upstream: Upstream) -> Result<()> {
    let before = cluster(world, &app.cluster_name()).await?;
    world.cluster.apply(&[filter(app, upstream)?.context("nothing to set")?]).await?;
    wait::until("the gateway to connect otherwise", async || {
        match cluster(world, &app.cluster_name()).await {
            Ok(now) if now != before => Ok(()),
            Ok(now) => Err(now.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

/// An app that listens and never takes a connection, with as many waiting as there is room for: whoever connects gets
/// no answer from the kernel either. It is one to Istio and none to Sluice.
pub(crate) struct Deaf {
    pub(crate) app: App,
    listener: TcpListener,
    _waiting: TcpStream,
}

impl Deaf {
    /// Takes the connection that has been waiting, and then the gateway's, for which there is room now.
    pub(crate) async fn accept(&self) -> Result<TcpStream> {
        self.listener.accept().await?;
        let accepted = tokio::time::timeout(wait::PATIENCE, self.listener.accept()).await;
        Ok(accepted.context("the gateway does not connect")??.0)
    }

    pub(crate) async fn start(world: &World, name: &str) -> Result<Self> {
        static NUMBER: AtomicU8 = AtomicU8::new(1);
        let app = App::create(&world.istio, &world.namespace, name).await?;
        // Pods of the bed have lower addresses.
        let ip = Ipv4Addr::new(10, 99, 200, NUMBER.fetch_add(1, Ordering::Relaxed));
        let socket = TcpSocket::new_v4()?;
        socket.bind((ip, 8080).into())?;
        let listener = socket.listen(0)?;
        let waiting = TcpStream::connect((ip, 8080)).await?;
        let services = Api::<Service>::namespaced(world.cluster.client(), &app.namespace);
        world.cluster.merge(&services, name, &json!({"spec": {"selector": null}})).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": app.namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": [ip.to_string()], "conditions": {"ready": true}}],
        });
        world.cluster.apply(&[slice, app.virtual_service(GATEWAY, app.route())]).await?;
        world.routed(&app.host()).await?;
        let endpoint = format!("{}::{ip}:8080::health_flags::healthy", app.cluster_name());
        world.gateway.says("/clusters", &endpoint, |page| page.contains(&endpoint)).await?;
        Ok(Self { app, listener, _waiting: waiting })
    }
}

/// The EnvoyFilter of an app, for Istio's ingress gateway.
pub(crate) fn filter(app: &App, upstream: Upstream) -> Result<Option<Value>> {
    let filter = UpstreamFilter {
        name: format!("sluice-{}-{}", app.namespace, app.name),
        namespace: istio::NAMESPACE.to_owned(),
        binding: Binding::selector(["istio=ingressgateway"])?,
        object: format!("HTTPScaledObject {}/{}", app.namespace, app.name),
        host: app.service_host(),
        port: 80,
        upstream,
    };
    Ok(filter.manifest()?)
}

/// A cluster as the gateway's Envoy runs it.
pub(crate) async fn cluster(world: &World, name: &str) -> Result<Value> {
    let dump = world.gateway.config("ClustersConfigDump").await?;
    let clusters = dump["dynamic_active_clusters"].as_array().into_iter().flatten();
    let mut clusters = clusters.map(|it| &it["cluster"]).filter(|it| it["name"] == name);
    clusters.next().cloned().with_context(|| format!("no cluster {name}"))
}

/// A counter or gauge of an app's cluster.
pub(crate) async fn stat(gateway: &Gateway, app: &App, name: &str) -> Result<u64> {
    gateway.stat(&format!("cluster.{};.{name}", app.cluster_name())).await
}
