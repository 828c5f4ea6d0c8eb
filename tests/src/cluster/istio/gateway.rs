//! A gateway: Envoy as a Deployment, with its configuration from istiod.

use super::{
    Istio, LIMIT, NAMESPACE, RELEASE,
    agent::{self, Parts},
    field, rolled_out,
};
use crate::{http, wait};
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr};

/// Envoy's own pages.
const ADMIN_PORT: u16 = 15000;

/// What a gateway is.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Its Deployment and Service.
    pub name: String,
    /// Where they are.
    pub namespace: String,
    /// The Pods' labels beside `app`: what Gateways and EnvoyFilters select by.
    pub labels: BTreeMap<String, String>,
    /// How many Pods. More than one share their listeners' ports on the bed: only for tests to which it does not
    /// matter which one answers.
    pub replicas: u32,
    /// Envoy's workers.
    pub workers: u32,
    /// The Service's ports, and those on which the Pods listen for them.
    pub ports: Vec<(u16, u16)>,
    /// Whether istio-agent starts Envoy and serves it certificates, as in an installation of Istio's. One gateway of the bed
    /// can have it at a time, with one Pod.
    pub agent: bool,
}

/// A running gateway.
#[derive(Clone)]
pub struct Gateway {
    istio: Istio,
    options: GatewayOptions,
}

// === impl GatewayOptions ===

impl Default for GatewayOptions {
    /// Istio's own ingress gateway, with two workers.
    fn default() -> Self {
        Self {
            name: "istio-ingressgateway".to_owned(),
            namespace: NAMESPACE.to_owned(),
            labels: BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())]),
            replicas: 1,
            workers: 2,
            ports: vec![(80, 18080)],
            agent: false,
        }
    }
}

impl GatewayOptions {
    /// What istiod makes of a Gateway of the Gateway API when it deploys one itself: named after it, and found by
    /// what has it in `targetRefs`.
    pub fn of_gateway_api(gateway: &str, namespace: &str, port: u16) -> Self {
        let label = ("gateway.networking.k8s.io/gateway-name".to_owned(), gateway.to_owned());
        Self {
            name: format!("{gateway}-istio"),
            namespace: namespace.to_owned(),
            labels: BTreeMap::from([label]),
            ports: vec![(80, port)],
            ..Self::default()
        }
    }

    pub(super) fn pod_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.insert("app".to_owned(), self.name.clone());
        labels
    }

    fn objects(&self, pod: &Value) -> Vec<Value> {
        let Self { name, namespace, .. } = self;
        let labels = self.pod_labels();
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
        let ports = self.ports.iter().map(
            |(port, target)| json!({"name": format!("http-{port}"), "port": port, "targetPort": target}),
        );
        vec![
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"selector": {"app": name}, "ports": ports.collect::<Value>()},
            }),
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {
                    "replicas": self.replicas,
                    "selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            }),
        ]
    }

    /// The spec of a Pod that is Envoy alone.
    fn pod(&self) -> Value {
        let container = json!({
            "name": "istio-proxy",
            "image": "envoy",
            "args": [
                "--concurrency", self.workers.to_string(),
                "--disable-hot-restart",
                // As istio-agent starts it.
                "--drain-time-s", "45",
                "--drain-strategy", "immediate",
                "--log-level", "info",
                "--config-yaml", self.bootstrap().to_string(),
            ],
            "env": [
                field("POD_IP", "status.podIP"),
                field("POD_NAME", "metadata.name"),
                field("POD_NAMESPACE", "metadata.namespace"),
            ],
            "ports": [{"name": "admin", "containerPort": ADMIN_PORT}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": ADMIN_PORT}},
        });
        json!({
            "serviceAccountName": self.name,
            "terminationGracePeriodSeconds": 2,
            "containers": [container],
        })
    }

    /// What istio-agent writes where it matters: who this is, and where istiod is. `$(…)` is kubelet's to fill in.
    fn bootstrap(&self) -> Value {
        let Self { name, namespace, .. } = self;
        let http2 = json!({
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        });
        json!({
            "node": {
                "id": format!("router~$(POD_IP)~$(POD_NAME).{namespace}~{namespace}.svc.cluster.local"),
                "cluster": format!("{name}.{namespace}"),
                "metadata": {
                    "NAME": "$(POD_NAME)",
                    "NAMESPACE": namespace,
                    "LABELS": self.pod_labels(),
                    "INSTANCE_IPS": "$(POD_IP)",
                    "SERVICE_ACCOUNT": name,
                    "WORKLOAD_NAME": name,
                    // By this istiod knows a proxy from other clients: `istioctl proxy-status` lists it.
                    "PROXY_CONFIG": {},
                    "ISTIO_VERSION": RELEASE,
                    "CLUSTER_ID": "Kubernetes",
                    "MESH_ID": "cluster.local",
                    "PILOT_SAN": ["istiod.istio-system.svc"],
                },
            },
            "admin": {"address": address("$(POD_IP)", ADMIN_PORT)},
            "dynamic_resources": {
                "lds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                "cds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                "ads_config": {
                    "api_type": "GRPC",
                    "set_node_on_first_message_only": true,
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {"clusters": [{
                "name": "xds-grpc",
                "type": "STRICT_DNS",
                "respect_dns_ttl": true,
                "dns_lookup_family": "V4_ONLY",
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {
                    "address": address("istiod.istio-system.svc.cluster.local", 15010),
                }}]}]},
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2,
                },
                "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 300}},
            }]},
        })
    }
}

fn address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

// === impl Istio ===

impl Istio {
    /// Runs a gateway and waits until it has its configuration. It listens once a Gateway object selects it.
    ///
    /// # Errors
    /// If its Pods do not become ready.
    pub async fn gateway(&self, options: GatewayOptions) -> Result<Gateway> {
        let cluster = self.cluster();
        let pod = if options.agent {
            let bed = cluster.bed().context("needs the bed")?;
            let (envoy, template) = (bed.program("envoy")?, bed.program("istio-bootstrap")?);
            agent::pod(&options, &Parts { envoy: &envoy, template: &template })?
        } else {
            options.pod()
        };
        cluster.apply(&options.objects(&pod)).await?;
        let deployments = Api::<Deployment>::namespaced(cluster.client(), &options.namespace);
        cluster
            .wait_for(&deployments, &options.name, LIMIT, rolled_out)
            .await
            .with_context(|| format!("the gateway {}", options.name))?;
        Ok(Gateway { istio: self.clone(), options })
    }
}

// === impl Gateway ===

impl Gateway {
    /// What it was made of.
    pub fn options(&self) -> &GatewayOptions {
        &self.options
    }

    /// How many of the filter's VMs it has: one for each worker and the main thread.
    pub fn vms(&self) -> usize {
        self.options.replicas as usize * (self.options.workers as usize + 1)
    }

    /// The names and addresses of its Pods that are not ending.
    ///
    /// # Errors
    /// If the API server does not say.
    pub async fn pods(&self) -> Result<Vec<(String, std::net::IpAddr)>> {
        let pods = Api::<Pod>::namespaced(self.istio.cluster().client(), &self.options.namespace);
        let list = pods.list(&ListParams::default().labels(&format!("app={}", self.options.name))).await?;
        let mut found = Vec::new();
        for pod in list.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            let ip = ip.with_context(|| format!("{} has no address", pod.name_any()))?.parse()?;
            found.push((pod.name_any(), ip));
        }
        Ok(found)
    }

    /// Where a port of its Service ends: on its first Pod.
    ///
    /// # Errors
    /// If it has no such port or no Pod.
    pub async fn address(&self, port: u16) -> Result<SocketAddr> {
        let target = self.options.ports.iter().find(|(outside, _)| *outside == port);
        let (_, target) = target.with_context(|| format!("{} has no port {port}", self.options.name))?;
        Ok(SocketAddr::new(self.pod().await?.1, *target))
    }

    async fn pod(&self) -> Result<(String, std::net::IpAddr)> {
        self.pods().await?.into_iter().next().with_context(|| format!("{} has no Pod", self.options.name))
    }

    /// One of Envoy's own pages, of its first Pod.
    ///
    /// # Errors
    /// If it does not answer with 200.
    pub async fn admin(&self, path: &str) -> Result<String> {
        let address =
            if self.options.agent { agent::ADMIN } else { SocketAddr::new(self.pod().await?.1, ADMIN_PORT) };
        let answer = http::get(address, path).await?;
        if answer.status != 200 {
            bail!("{path}: {} {}", answer.status, answer.text());
        }
        Ok(answer.text())
    }

    /// A part of Envoy's configuration as it runs, by the section's type, for example `EcdsConfigDump`; EDS included.
    ///
    /// # Errors
    /// If there is none of that type.
    pub async fn config(&self, section: &str) -> Result<Value> {
        let dump: Value = serde_json::from_str(&self.admin("/config_dump?include_eds").await?)?;
        let sections = dump["configs"].as_array().cloned().unwrap_or_default();
        let suffix = format!(".{section}");
        let of_type = |config: &Value| config["@type"].as_str().is_some_and(|kind| kind.ends_with(&suffix));
        sections.into_iter().find(of_type).with_context(|| format!("no {section} in the configuration"))
    }

    /// Waits until one of Envoy's own pages is as wanted.
    ///
    /// # Errors
    /// If that does not come, with the page as it is.
    pub async fn says(&self, path: &str, what: &str, is: impl Fn(&str) -> bool) -> Result<()> {
        wait::until(format!("{path} to show {what}"), async || {
            let page = self.admin(path).await.map_err(|error| format!("{error:#}"))?;
            if is(&page) { Ok(()) } else { Err(page) }
        })
        .await
    }

    /// Waits until the routes speak of `text`.
    ///
    /// # Errors
    /// If that does not come, with the routes as they are.
    pub async fn routes(&self, text: &str) -> Result<()> {
        wait::until(format!("the gateway's routes to speak of {text}"), async || {
            let routes = self.config("RoutesConfigDump").await.map_err(|error| format!("{error:#}"))?;
            if routes.to_string().contains(text) { Ok(()) } else { Err(routes.to_string()) }
        })
        .await
    }

    /// A counter or gauge of Envoy's.
    ///
    /// # Errors
    /// If Envoy does not answer or has none of that name.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        // All of them are many, and tests ask often. The filter is a regular expression in a query.
        let pattern = name.replace('.', "[.]").replace('|', "%5B%7C%5D").replace(';', "%3B");
        let text = self.admin(&format!("/stats?filter=^{pattern}$&format=json")).await?;
        let all: Value = serde_json::from_str(&text)?;
        let stat = all["stats"].as_array().into_iter().flatten().find(|stat| stat["name"] == name);
        stat.and_then(|stat| stat["value"].as_u64()).with_context(|| format!("no {name} among {all}"))
    }
}
