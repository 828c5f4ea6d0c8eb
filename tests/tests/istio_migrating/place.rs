//! What moves: four apps behind two gateways, and what routes to them.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use sluice_envoyfilter::{Binding, Manifest, Settings};
use sluice_tests::{
    cluster::{
        Cluster,
        istio::{App, GATEWAY, Gateway, GatewayOptions, Istio, Replica, gateway_object},
    },
    http, paths,
    scaler::State,
    wait,
};
use std::{collections::BTreeSet, fs, net::SocketAddr};
use tokio::task::JoinHandle;

/// The page's namespace.
const NAMESPACE: &str = "demo";
/// Where the add-on's objects have KEDA ask.
pub(crate) const ADD_ONS_SCALER: &str = "keda-add-ons-http-external-scaler.keda:9090";
/// Where Sluice's have.
pub(crate) const SLUICES_SCALER: &str = "sluice-scaler.sluice-system:9090";
/// Where routes lead before.
const INTERCEPTOR: (&str, u16) = ("keda-add-ons-http-interceptor-proxy", 8080);

/// The apps and their surroundings.
pub(crate) struct Place {
    cluster: Cluster,
    gateway: Gateway,
    /// Deployed for a Gateway of the Gateway API.
    edge: Gateway,
    /// Behind a VirtualService.
    pub(crate) shop: App,
    /// Behind an HTTPRoute.
    pub(crate) api: App,
    /// With an InterceptorRoute and a ScaledObject of its user's.
    pub(crate) own: App,
    /// Asleep most of the time.
    pub(crate) night: App,
}

// === impl Place ===

impl Place {
    pub(crate) async fn create(cluster: &Cluster) -> Result<Self> {
        let bed = cluster.bed().context("needs the bed")?;
        for program in ["sluice-test-app", "sluice-scaler", "sluice-operator"] {
            bed.add_program(program, paths::binary(program)?);
        }
        let istio = Istio::start(cluster).await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        cluster.apply(&[namespace]).await?;
        let gateway = istio.gateway(GatewayOptions::default()).await?;
        let options = GatewayOptions::of_gateway_api("edge", NAMESPACE, 18081);
        let address = format!("{}.{NAMESPACE}.svc.cluster.local", options.name);
        cluster
            .apply(&[
                gateway_object(GATEWAY, NAMESPACE, &json!({"istio": "ingressgateway"})),
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "metadata": {"name": "edge", "namespace": NAMESPACE},
                    "spec": {
                        "gatewayClassName": "istio",
                        "addresses": [{"type": "Hostname", "value": address}],
                        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                    },
                }),
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1beta1",
                    "kind": "ReferenceGrant",
                    "metadata": {"name": "interceptor", "namespace": "keda"},
                    "spec": {
                        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": NAMESPACE}],
                        "to": [{"group": "", "kind": "Service"}],
                    },
                }),
            ])
            .await?;
        let edge = istio.gateway(options).await?;
        let app = async |name: &str| App::create(&istio, NAMESPACE, name).await;
        let (shop, api, own, night) =
            (app("shop").await?, app("api").await?, app("own").await?, app("night").await?);
        let place = Self { cluster: cluster.clone(), gateway, edge, shop, api, own, night };
        place.objects().await?;
        Ok(place)
    }

    async fn objects(&self) -> Result<()> {
        let object = |app: &App| app.scaled_object(&[&app.host()], &[]);
        let mut night = object(&self.night);
        night["spec"]["scaledownPeriod"] = json!(2);
        let mut scaled = self.own.keda_scaled_object();
        scaled["spec"]["cooldownPeriod"] = json!(300);
        scaled["spec"]["triggers"][0]["metadata"] =
            json!({"scalerAddress": ADD_ONS_SCALER, "interceptorRoute": self.own.name});
        let route = json!({
            "apiVersion": "http.keda.sh/v1beta1",
            "kind": "InterceptorRoute",
            "metadata": {"name": self.own.name, "namespace": NAMESPACE},
            "spec": {
                "target": {"service": self.own.name, "port": 80},
                "rules": [{"hosts": [self.own.host()]}],
                "scalingMetric": {"concurrency": {"targetValue": 100}},
            },
        });
        self.cluster.apply(&[object(&self.shop), object(&self.api), night, route, scaled]).await?;
        self.asked_at(ADD_ONS_SCALER).await
    }

    /// Whether the scalers say that one of the add-on's settings, which they were given, changes nothing.
    pub(crate) fn said_what_changes_nothing(&self) -> Result<()> {
        let bed = self.cluster.bed().context("needs the bed")?;
        for pod in ["sluice-scaler-0", "sluice-scaler-1"] {
            let log = bed.pod_log("sluice-system", pod, "scaler");
            let said = log.contains("KEDA_HTTP_DIRECT_POD_ROUTING changes nothing")
                && log.contains("cold-start-only");
            ensure!(said, "{pod}: {log}");
            let unread = "nothing here: KEDA_HTTP_LOG_REQUESTS, KEDA_HTTP_RESPONSE_HEADER_TIMEOUT. ";
            let warnings = log.lines().filter(|line| line.contains("WARN") && line.contains(unread)).count();
            ensure!(warnings == 1, "{pod}: {log}");
        }
        Ok(())
    }

    /// Where a client finds the gateway that is in front of an app.
    pub(crate) async fn gateway_of(&self, app: &App) -> Result<SocketAddr> {
        if app.name == self.api.name { self.edge.address(80).await } else { self.gateway.address(80).await }
    }

    fn apps(&self) -> [&App; 4] {
        [&self.shop, &self.api, &self.own, &self.night]
    }

    /// Points every route at the interceptor, and waits until the gateways do so.
    pub(crate) async fn all_to_the_interceptor(&self) -> Result<()> {
        let (service, port) = INTERCEPTOR;
        let host = format!("{service}.keda.svc.cluster.local");
        let routes = json!([{"route": [{"destination": {"host": host, "port": {"number": port}}}]}]);
        let mut objects: Vec<_> = [&self.shop, &self.own, &self.night]
            .map(|app| app.virtual_service(GATEWAY, routes.clone()))
            .to_vec();
        objects.push(json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": self.api.name, "namespace": NAMESPACE},
            "spec": {
                "parentRefs": [{"name": "edge"}],
                "hostnames": [self.api.host()],
                "rules": [{"backendRefs": [{"name": service, "namespace": "keda", "port": port}]}],
            },
        }));
        self.cluster.apply(&objects).await?;
        let cluster = format!("outbound|{port}||{host}");
        self.routed(|_| cluster.clone()).await
    }

    /// Points an app's VirtualService at the app.
    pub(crate) async fn to_the_app(&self, app: &App) -> Result<()> {
        self.cluster.apply(&[app.virtual_service(GATEWAY, app.route())]).await
    }

    /// Waits until the gateways lead every host to its app.
    pub(crate) async fn routed_to_the_apps(&self) -> Result<()> {
        self.routed(App::cluster_name).await
    }

    async fn routed(&self, wanted: impl Fn(&App) -> String) -> Result<()> {
        for app in self.apps() {
            let gateway = if app.name == self.api.name { &self.edge } else { &self.gateway };
            let (host, cluster) = (app.host(), wanted(app));
            wait::until(format!("{host} to lead to {cluster}"), async || {
                let routes =
                    gateway.config("RoutesConfigDump").await.map_err(|error| format!("{error:#}"))?;
                let found = clusters_of(&routes, &host);
                if found == BTreeSet::from([cluster.clone()]) { Ok(()) } else { Err(format!("{found:?}")) }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until both gateways have the filter and each worker's link all four routes. The second gateway's
    /// EnvoyFilter is one of its own.
    pub(crate) async fn filtered(&self) -> Result<()> {
        let binding = Binding::Gateways(vec!["edge".to_owned()]);
        let settings = Settings { namespace: NAMESPACE.to_owned(), binding, ..Settings::default() };
        let manifest = Manifest::new(&settings, &fs::read(paths::wasm()?)?)?;
        self.cluster.apply_plainly(manifest.yaml()).await?;
        let wanted = self.gateway.vms() + self.edge.vms();
        wait::until(format!("{wanted} workers with four routes"), async || {
            for state in self.states().await.map_err(|error| format!("{error:#}"))? {
                if state.routes.len() != 4 || state.connected(4) != wanted {
                    return Err(format!("{:?} {:?} {:?}", state.routes, state.problems, state.gateways));
                }
            }
            Ok(())
        })
        .await
    }

    async fn states(&self) -> Result<Vec<State>> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), "sluice-system");
        let mut states = Vec::new();
        for pod in pods.list(&ListParams::default().labels("app.kubernetes.io/name=sluice-scaler")).await? {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("no address")?;
            states.push(Replica { number: 0, ip: ip.parse()? }.state().await.context(pod.name_any())?);
        }
        ensure!(states.len() == 2, "{} scalers", states.len());
        Ok(states)
    }

    /// Waits until every app's ScaledObject has KEDA ask there.
    pub(crate) async fn asked_at(&self, wanted: &str) -> Result<()> {
        for app in self.apps() {
            wait::until(format!("{}'s ScaledObject to be asked for at {wanted}", app.name), async || {
                let path = "jsonpath={.spec.triggers[0].metadata.scalerAddress} {.status.conditions[?(@.type==\"Ready\")].status}";
                let get = ["get", "scaledobject", &app.name, "--namespace", NAMESPACE, "--output", path];
                let found = self.cluster.kubectl(&get).await.map_err(|error| format!("{error:#}"))?;
                if found == format!("{wanted} True") { Ok(()) } else { Err(found) }
            })
            .await?;
        }
        Ok(())
    }

    /// A GET; status, and whether the answer says that it was cold.
    pub(crate) async fn ask(&self, app: &App) -> Result<(u16, bool)> {
        ask(self.gateway_of(app).await?, app.host()).await
    }

    /// A GET for an app that is asleep, seen held by Sluice.
    pub(crate) async fn hold(&self, app: &App) -> Result<JoinHandle<Result<(u16, bool)>>> {
        app.asleep().await?;
        let request = tokio::spawn(ask(self.gateway_of(app).await?, app.host()));
        wait::until(format!("a request for {} to be held", app.name), async || {
            if request.is_finished() {
                return Ok(());
            }
            for state in self.states().await.map_err(|error| format!("{error:#}"))? {
                match state.route(NAMESPACE, &app.name).map(|route| route.held) {
                    Some(1) => {}
                    other => return Err(format!("{other:?}")),
                }
            }
            Ok(())
        })
        .await?;
        if request.is_finished() {
            bail!("{} answered without an app: {:?}", app.name, request.await?);
        }
        Ok(request)
    }

    /// An app goes to sleep by itself, and a request wakes it.
    pub(crate) async fn cycle(&self, app: &App) -> Result<()> {
        app.asleep().await?;
        let answer = self.ask(app).await?;
        ensure!(answer == (200, true), "{answer:?}");
        Ok(())
    }

    /// Waits until nothing of the add-on runs, and its definitions' objects are all there.
    pub(crate) async fn without_the_add_on(&self) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), "keda");
        wait::until("the add-on's Pods to be gone", async || {
            let left = pods.list(&ListParams::default().labels("app.kubernetes.io/part-of=keda")).await;
            match left
                .map_err(|error| error.to_string())?
                .iter()
                .map(ResourceExt::name_any)
                .collect::<Vec<_>>()
            {
                left if left.is_empty() => Ok(()),
                left => Err(format!("{left:?}")),
            }
        })
        .await?;
        let all = ["get", "httpscaledobjects,interceptorroutes", "--all-namespaces", "--output", "name"];
        let left = self.cluster.kubectl(&all).await?;
        ensure!(left.lines().count() == 4, "{left}");
        self.asked_at(SLUICES_SCALER).await
    }

    /// Deletes the HTTPScaledObjects, and waits until they and their ScaledObjects are gone.
    pub(crate) async fn delete_all(&self) -> Result<()> {
        let delete = ["delete", "httpscaledobjects", "--all", "--namespace", NAMESPACE, "--timeout=60s"];
        self.cluster.kubectl(&delete).await?;
        wait::until("only the user's ScaledObject to be left", async || {
            let get = ["get", "scaledobjects", "--namespace", NAMESPACE, "--output", "name"];
            let left = self.cluster.kubectl(&get).await.map_err(|error| format!("{error:#}"))?;
            if left.trim() == "scaledobject.keda.sh/own" { Ok(()) } else { Err(left) }
        })
        .await
    }
}

async fn ask(address: SocketAddr, host: String) -> Result<(u16, bool)> {
    let answer = http::request(address, http::get_request(&host, "/")?).await?;
    Ok((answer.status.as_u16(), answer.header("x-keda-http-cold-start") == "true"))
}

/// The clusters that a gateway's routes lead a host to.
fn clusters_of(routes: &Value, host: &str) -> BTreeSet<String> {
    let configs = routes["dynamic_route_configs"].as_array().into_iter().flatten();
    let hosts = configs.flat_map(|it| it["route_config"]["virtual_hosts"].as_array().into_iter().flatten());
    let of_host =
        hosts.filter(|it| it["domains"].as_array().is_some_and(|all| all.iter().any(|it| it == host)));
    let routes = of_host.flat_map(|it| it["routes"].as_array().into_iter().flatten());
    routes.filter_map(|it| it["route"]["cluster"].as_str().map(str::to_owned)).collect()
}
