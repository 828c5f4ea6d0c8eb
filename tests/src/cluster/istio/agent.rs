//! A gateway's Pod as an installation of Istio has it: istio-agent (`pilot-agent`), which writes Envoy's bootstrap
//! from Istio's own template, starts Envoy, hands its xDS through, and serves it certificates (SDS).
//!
//! Only Envoy is not Istio's, and istiod is spoken to without TLS, as by the other gateways. There is no CA either: the
//! agent serves what lies in files, for example the authority that a DestinationRule names by `caCertificates`.
//!
//! It binds 127.0.0.1:15000 (Envoy's own pages), and the ports 15020, 15021 and 15090 of all addresses: there can be one
//! such Pod in the bed at a time.

use super::{GatewayOptions, RELEASE, field};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

/// Where Envoy's own pages are.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// Where readiness is asked for: Envoy passes it on to the agent.
const STATUS_PORT: u16 = 15021;

/// What the Pod has to be made of.
pub(super) struct Parts<'a> {
    /// Envoy itself.
    pub(super) envoy: &'a Path,
    /// Istio's template of Envoy's bootstrap.
    pub(super) template: &'a Path,
}

/// The spec of the Pod.
pub(super) fn pod(options: &GatewayOptions, parts: &Parts<'_>) -> Result<Value> {
    let GatewayOptions { name, namespace, .. } = options;
    let proxy_config = json!({
        "binaryPath": parts.envoy,
        "proxyBootstrapTemplatePath": parts.template,
        "configPath": "./etc/istio/proxy",
        "discoveryAddress": "istiod.istio-system.svc.cluster.local:15010",
        "controlPlaneAuthPolicy": "NONE",
        "concurrency": options.workers,
        "statusPort": 15020,
        "terminationDrainDuration": "1s",
        // Tests ask for more than Istio counts by default.
        "proxyStatsMatcher": {"inclusionRegexps": [".*"]},
    });
    let env = [
        ("PROXY_CONFIG", proxy_config.to_string()),
        // There is no CA to ask for certificates of the gateway's own.
        ("FILE_MOUNTED_CERTS", "true".to_owned()),
        // It would ask the addresses at which clouds say which one this is.
        ("CLOUD_PLATFORM", "none".to_owned()),
        ("SERVICE_ACCOUNT", name.clone()),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes".to_owned()),
        ("ISTIO_META_MESH_ID", "cluster.local".to_owned()),
        ("ISTIO_META_ISTIO_VERSION", RELEASE.to_owned()),
        ("ISTIO_META_WORKLOAD_NAME", name.clone()),
        ("ISTIO_METAJSON_LABELS", serde_json::to_string(&options.pod_labels())?),
    ];
    let mut variables = vec![
        field("INSTANCE_IP", "status.podIP"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
    ];
    variables.extend(env.map(|(name, value)| json!({"name": name, "value": value})));
    let container = json!({
        "name": "istio-proxy",
        "image": "pilot-agent",
        "args": ["proxy", "router", "--domain", format!("{namespace}.svc.cluster.local"), "--proxyLogLevel", "info"],
        "env": variables,
        // Its sockets are in folders below the one that it is started in.
        "workingDir": "/istio",
        "volumeMounts": [{"name": "istio", "mountPath": "/istio"}],
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": STATUS_PORT}},
    });
    Ok(json!({
        "serviceAccountName": name,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [{"name": "istio", "emptyDir": {}}],
    }))
}
