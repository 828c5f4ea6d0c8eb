//! The objects: apps as a cluster has many of them, the EnvoyFilters of Sluice's for them, and one app to look at.

use crate::istio;
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Resource as _,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice_envoyfilter::{
    Binding, ISOLATION_LIMIT, Settings, TcpKeepalive, Upstream, UpstreamFilter, isolation as isolation_filter,
};
use sluice_tests::cluster::{Cluster, istio::gateway_object};
use std::{num::NonZeroU32, ops::Range, path::Path, time::Duration};

/// Where istiod and its gateway are.
pub(super) const ROOT: &str = "istio-system";
/// Namespaces that the apps are spread over.
const NAMESPACES: usize = 10;
/// One app in so many has settings of its own for the way to it.
pub(super) const OWN_SETTINGS: usize = 10;
/// One app in so many is awake. (The bed's stand-in for kube-proxy goes through all slices for each Service.)
const AWAKE: usize = 10;
/// Writes under way at once.
const WRITERS: usize = 48;
/// The Gateway object of all.
const GATEWAY: &str = "public";
/// The app that is looked at: its Service has a Pod, and it is none of Sluice's.
const PROBE: &str = "probe";
const PROBE_PORT: u16 = 8080;
/// The probe's host.
pub(super) const PROBE_HOST: &str = "probe.example.com";
/// An EnvoyFilter that is there in any case, to be changed.
const TOUCHED: &str = "bench-touched";
/// The header of the probe's answers that shows a change of its VirtualService.
pub(super) const ROUTE_HEADER: &str = "x-bench-route";
/// The one that shows a change of the EnvoyFilter.
pub(super) const FILTER_HEADER: &str = "x-bench-filter";
/// What the connections of apps with settings of their own may take, so that they can be told from others.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_210);

/// The apps and their namespaces.
pub(super) struct Apps {
    cluster: Cluster,
    namespaces: Vec<String>,
}

impl Apps {
    /// Makes the namespaces, the Gateway, and the app that is looked at.
    pub(super) async fn new(cluster: &Cluster, log: &Path) -> anyhow::Result<Self> {
        let mut namespaces = Vec::new();
        for _ in 0..NAMESPACES {
            namespaces.push(cluster.namespace("size").await?);
        }
        let this = Self { cluster: cluster.clone(), namespaces };
        let mut gateway = gateway_object(GATEWAY, ROOT, &json!({"istio": "ingressgateway"}));
        gateway["spec"]["servers"][0]["hosts"] = json!(["*"]);
        let app = istio::app(PROBE, ROOT, PROBE_PORT, log);
        let route = virtual_service(PROBE, ROOT, PROBE_HOST);
        cluster.apply(&[gateway, service(PROBE, ROOT), app, route, touched("0")]).await?;
        let (_, ip) = istio::pod_ip(cluster, ROOT, PROBE).await?;
        // Written by hand like all others: always ready, however busy kubelet's stand-in is.
        cluster.apply(&[slice(PROBE, ROOT, &ip)]).await?;
        Ok(this)
    }

    fn place(&self, number: usize) -> (&str, String) {
        (&self.namespaces[number % self.namespaces.len()], format!("app-{number}"))
    }

    /// Makes apps. One in [`AWAKE`] is awake, at an address where nobody is.
    pub(super) async fn fill(&self, numbers: Range<usize>) -> anyhow::Result<()> {
        each(numbers, async |number| {
            let (namespace, name) = self.place(number);
            let mut objects = vec![
                service(&name, namespace),
                virtual_service(&name, namespace, &host(number)),
                http_scaled_object(&name, namespace, &host(number)),
            ];
            if number.is_multiple_of(AWAKE) {
                let address = format!("10.98.{}.{}", number / 250 % 250, number % 250 + 1);
                objects.push(slice(&name, namespace, &address));
            }
            for object in objects {
                create(&self.cluster, &object).await?;
            }
            Ok(())
        })
        .await
    }

    /// The EnvoyFilters of the apps with settings of their own, by the operator's renderer.
    pub(super) fn own_settings(&self, apps: usize) -> anyhow::Result<Vec<Value>> {
        let filters = (0..apps).step_by(OWN_SETTINGS).map(|number| {
            let (namespace, name) = self.place(number);
            let filter = UpstreamFilter {
                name: format!("sluice-{namespace}-{name}"),
                namespace: ROOT.to_owned(),
                binding: Binding::selector(["istio=ingressgateway"])?,
                object: format!("HTTPScaledObject {namespace}/{name}"),
                host: format!("{name}.{namespace}.svc.cluster.local"),
                port: 80,
                upstream: Upstream {
                    disable_keep_alives: true,
                    connect_timeout: Some(CONNECT_TIMEOUT),
                    max_connections: NonZeroU32::new(10),
                    tcp_keepalive: TcpKeepalive { time: NonZeroU32::new(60), ..TcpKeepalive::default() },
                    ..Upstream::default()
                },
            };
            filter.manifest()?.context("nothing to say")
        });
        filters.collect()
    }

    /// Writes objects that are not there.
    pub(super) async fn create(&self, objects: &[Value]) -> anyhow::Result<()> {
        each(0..objects.len(), async |index| create(&self.cluster, &objects[index]).await).await
    }

    /// Takes them away again.
    pub(super) async fn delete(&self, objects: &[Value]) -> anyhow::Result<()> {
        each(0..objects.len(), async |index| {
            let (api, name) = api(&self.cluster, &objects[index])?;
            api.delete(&name, &DeleteParams::default()).await?;
            Ok(())
        })
        .await
    }

    /// Changes the probe's VirtualService: its answers have this in [`ROUTE_HEADER`].
    pub(super) async fn change_route(&self, value: &str) -> anyhow::Result<()> {
        let mut object = virtual_service(PROBE, ROOT, PROBE_HOST);
        object["spec"]["http"][0]["headers"] = json!({"response": {"set": {ROUTE_HEADER: value}}});
        self.replace(&object).await
    }

    /// Changes an EnvoyFilter: the probe's answers have this in [`FILTER_HEADER`].
    pub(super) async fn change_filter(&self, value: &str) -> anyhow::Result<()> {
        self.replace(&touched(value)).await
    }

    async fn replace(&self, object: &Value) -> anyhow::Result<()> {
        let (api, name) = api(&self.cluster, object)?;
        let patch = json!({"spec": object["spec"]});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}

/// The EnvoyFilters that enable the filter on the virtual hosts of the apps, by the operator's renderer. The operator
/// makes one, which ends at a number of hosts; further ones show what more would cost.
pub(super) fn isolation(apps: usize) -> anyhow::Result<Vec<Value>> {
    let hosts = (0..apps).map(host).collect::<Vec<_>>();
    let filters = hosts.chunks(ISOLATION_LIMIT).enumerate().map(|(number, hosts)| {
        let settings = Settings { name: format!("sluice-{number}"), ..Settings::default() };
        Ok(isolation_filter(&settings, hosts.iter().map(String::as_str))?)
    });
    filters.collect()
}

fn host(number: usize) -> String {
    format!("app-{number}.example.com")
}

fn service(name: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn slice(name: &str, namespace: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "sluice-bench",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
        }],
    })
}

fn virtual_service(name: &str, namespace: &str, host: &str) -> Value {
    let service = format!("{name}.{namespace}.svc.cluster.local");
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "hosts": [host],
            "gateways": [format!("{ROOT}/{GATEWAY}")],
            "http": [{"route": [{"destination": {"host": service, "port": {"number": 80}}}]}],
        },
    })
}

fn http_scaled_object(name: &str, namespace: &str, host: &str) -> Value {
    json!({
        "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "hosts": [host],
            "scaleTargetRef": {
                "name": name, "kind": "Deployment", "apiVersion": "apps/v1", "service": name, "port": 80,
            },
            "replicas": {"min": 0, "max": 10},
        },
    })
}

fn touched(value: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": TOUCHED, "namespace": ROOT},
        "spec": {
            "priority": 1,
            "workloadSelector": {"labels": {"istio": "ingressgateway"}},
            "configPatches": [{
                "applyTo": "VIRTUAL_HOST",
                "match": {
                    "context": "GATEWAY",
                    "routeConfiguration": {"vhost": {"domainName": PROBE_HOST}},
                },
                "patch": {"operation": "MERGE", "value": {"response_headers_to_add": [{
                    "header": {"key": FILTER_HEADER, "value": value},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }]}},
            }],
        },
    })
}

async fn each(numbers: Range<usize>, work: impl AsyncFn(usize) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let numbers = futures::stream::iter(numbers).map(anyhow::Ok);
    numbers.try_for_each_concurrent(WRITERS, async |number| work(number).await).await
}

async fn create(cluster: &Cluster, object: &Value) -> anyhow::Result<()> {
    let (api, name) = api(cluster, object)?;
    let created = api.create(&PostParams::default(), &serde_json::from_value(object.clone())?).await;
    created.with_context(|| format!("{} {name}", object["kind"]))?;
    Ok(())
}

fn api(cluster: &Cluster, object: &Value) -> anyhow::Result<(Api<DynamicObject>, String)> {
    let dynamic: DynamicObject = serde_json::from_value(object.clone())?;
    let kind = GroupVersionKind::try_from(dynamic.types.as_ref().context("an object without a kind")?)?;
    let (namespace, name) = (dynamic.meta().namespace.as_deref(), dynamic.meta().name.clone());
    let resource = ApiResource::from_gvk(&kind);
    let api = Api::namespaced_with(cluster.client(), namespace.context("no namespace")?, &resource);
    Ok((api, name.context("no name")?))
}
