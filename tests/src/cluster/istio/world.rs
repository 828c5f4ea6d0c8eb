//! Cluster, Istio, Sluice and Istio's ingress gateway with the filter: what a test of the main job begins with.

use super::{App, Gateway, GatewayOptions, Istio, Sluice};
use crate::{
    cluster::{self, Cluster},
    http::{self, Answer},
};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_envoyfilter::Settings;
use std::net::SocketAddr;
use tokio::task::JoinHandle;

/// The Gateway object of a test's namespace.
pub const GATEWAY: &str = "public";

/// A test's surroundings.
#[derive(Clone)]
pub struct World {
    /// The cluster.
    pub cluster: Cluster,
    /// istiod.
    pub istio: Istio,
    /// The scaler.
    pub sluice: Sluice,
    /// Istio's ingress gateway, two workers.
    pub gateway: Gateway,
    /// The test's own namespace, with a Gateway named [`GATEWAY`] for `*.NAMESPACE.example.com`.
    pub namespace: String,
}

/// Runs a test on the bed with Istio in it.
///
/// A cluster that somebody names is passed over: its Istio and its gateway are not the bed's.
///
/// # Panics
/// As [`cluster::run`].
pub fn run<F>(name: &'static str, test: impl FnOnce(World) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    run_behind(GatewayOptions::default(), name, test);
}

/// As [`run`], behind a gateway with options; it has to have the labels of Istio's ingress gateway.
///
/// # Panics
/// As [`run`].
pub fn run_behind<F>(
    gateway: GatewayOptions,
    name: &'static str,
    test: impl FnOnce(World) -> F + Send + 'static,
) where
    F: Future<Output = Result<()>>,
{
    if cluster::passes_over() {
        return;
    }
    cluster::run(async move |cluster| {
        let world = World::start(cluster.clone(), gateway, name).await?;
        let namespace = world.namespace.clone();
        test(world).await?;
        cluster.delete_namespace(&namespace).await
    });
}

// === impl World ===

impl World {
    async fn start(cluster: Cluster, gateway: GatewayOptions, name: &str) -> Result<Self> {
        let istio = Istio::start(&cluster).await?;
        let sluice = Sluice::install(&istio).await?;
        let gateway = istio.gateway(gateway).await?;
        sluice.apply(&sluice.manifest(&Settings::default())?).await?;
        let namespace = cluster.namespace(name).await?;
        let selector = json!({"istio": "ingressgateway"});
        cluster.apply(&[gateway_object(GATEWAY, &namespace, &selector)]).await?;
        Ok(Self { cluster, istio, sluice, gateway, namespace })
    }

    /// An app that is asleep, known to Sluice by its host, and routed to without ado.
    ///
    /// # Errors
    /// If it does not become known.
    pub async fn app(&self, name: &str) -> Result<App> {
        let app = App::create(&self.istio, &self.namespace, name).await?;
        self.cluster
            .apply(&[app.virtual_service(GATEWAY, app.route()), app.scaled_object(&[&app.host()], &[])])
            .await?;
        self.known(&app).await?;
        Ok(app)
    }

    /// Waits until the gateway routes the app's host, and each of its workers has the routes of every scaler, the
    /// app's among them.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn known(&self, app: &App) -> Result<()> {
        self.routed(&app.host()).await?;
        self.matched(app).await
    }

    /// Waits until the gateway's configuration speaks of `text` in its routes.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn routed(&self, text: &str) -> Result<()> {
        self.gateway.routes(text).await
    }

    /// Waits until each of the gateway's workers has the routes of every scaler, the app's among them.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn matched(&self, app: &App) -> Result<()> {
        self.sluice
            .until(&app.name, |state| match state.route(&app.namespace, &app.name) {
                Some(_) => Ok(()),
                None => Err(format!("{:?} {:?}", state.routes, state.problems)),
            })
            .await?;
        self.sluice.linked(&[&self.gateway]).await
    }

    /// Where the gateway's HTTP port is.
    ///
    /// # Errors
    /// If it has no Pod.
    pub async fn address(&self) -> Result<SocketAddr> {
        self.gateway.address(80).await
    }

    /// A GET through the gateway.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, host: &str, path: &str) -> Result<Answer> {
        http::request(self.address().await?, http::get_request(host, path)?).await
    }

    /// As [`Self::get`], under way while the test goes on.
    pub fn send(&self, host: &str, path: &str) -> JoinHandle<Result<Answer>> {
        let (world, host, path) = (self.clone(), host.to_owned(), path.to_owned());
        tokio::spawn(async move { world.get(&host, &path).await })
    }

    /// Waits until so many requests are held for the app, by every scaler's account.
    ///
    /// # Errors
    /// If that does not come.
    pub async fn held(&self, app: &App, wanted: u64) -> Result<()> {
        self.sluice
            .until(&format!("{wanted} held requests"), |state| {
                match state.route(&app.namespace, &app.name).map(|route| route.held) {
                    Some(held) if held == wanted => Ok(()),
                    held => Err(format!("{held:?} held")),
                }
            })
            .await
    }

    /// Sends a GET to an app that is asleep, sees it held, wakes the app, and gives the answer, which must be 200 and
    /// say that it was cold.
    ///
    /// # Errors
    /// If anything else happens.
    pub async fn wake(&self, app: &App, host: &str, path: &str) -> Result<Answer> {
        let request = self.send(host, path);
        self.held(app, 1).await?;
        app.scale(1).await?;
        let answer = request.await??;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        ensure!(answer.header("x-keda-http-cold-start") == "true", "{:?}", answer.headers);
        self.held(app, 0).await?;
        Ok(answer)
    }
}

/// A Gateway (Istio's API) for all hosts of a namespace.
pub fn gateway_object(name: &str, namespace: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": selector,
            "servers": [{
                "port": {"number": 80, "name": "http", "protocol": "HTTP"},
                "hosts": [format!("*.{namespace}.example.com")],
            }],
        },
    })
}
