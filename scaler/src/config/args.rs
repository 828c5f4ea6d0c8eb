//! The configuration as typed.

use super::{Config, ConfigError, Source, Tls};
use crate::{index::ClusterTemplate, tls::Files};
use clap::Parser;
use sluice_process::{BadValue, Typed, log, typed};
use std::{net::IpAddr, num::NonZeroU32, path::PathBuf, time::Duration};

/// Sluice's scaler: tells gateways which requests to hold and when to let them go, and KEDA which apps to wake.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-scaler", version, max_term_width = 110, args_override_self = true)]
pub struct Args {
    /// Read HTTPScaledObjects, InterceptorRoutes, Services and EndpointSlices from the YAML files in this folder
    /// and below, and follow their changes. Empty: from the API server of the cluster that this runs in, or that
    /// KUBECONFIG names.
    #[arg(
        long,
        value_name = "DIR",
        env = "SLUICE_CONFIG_DIR",
        default_value = "",
        hide_default_value = true
    )]
    config_dir: String,

    /// Use objects of this namespace only. Empty: of all namespaces.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "KEDA_HTTP_WATCH_NAMESPACE",
        default_value = "",
        hide_default_value = true
    )]
    watch_namespace: String,

    /// Port for gRPC: the gateways' link, KEDA's external scaler, health and reflection. 0: any free port.
    #[arg(long, env = "KEDA_HTTP_SCALER_PORT", default_value = "9090")]
    port: String,

    /// A certificate in PEM, with those between it and an authority. With it, KEDA's external scaler is served over
    /// TLS on a port of its own, and on no other. Read anew for each connection. Empty: without TLS.
    #[arg(long, value_name = "FILE", env = "SLUICE_TLS_CERT", default_value = "", hide_default_value = true)]
    tls_cert: String,

    /// The certificate's private key in PEM.
    #[arg(long, value_name = "FILE", env = "SLUICE_TLS_KEY", default_value = "", hide_default_value = true)]
    tls_key: String,

    /// Authorities in PEM: KEDA has to show a certificate of one of them (mutual TLS). Empty: it needs none.
    #[arg(
        long,
        value_name = "FILE",
        env = "SLUICE_TLS_CLIENT_CA",
        default_value = "",
        hide_default_value = true
    )]
    tls_client_ca: String,

    /// Port for KEDA's external scaler over TLS. 0: any free port.
    #[arg(long, value_name = "PORT", env = "SLUICE_TLS_PORT", default_value = "9443")]
    tls_port: String,

    /// Port for HTTP: /livez, /readyz, /metrics and /debug/state. 0: any free port.
    #[arg(long, value_name = "PORT", env = "SLUICE_HTTP_PORT", default_value = "8080")]
    http_port: String,

    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", env = "SLUICE_BIND", default_value = "0.0.0.0")]
    bind: String,

    /// Write {"grpc":PORT,"http":PORT} ("tls" too where there is one) to this file once all listen.
    #[arg(
        long,
        value_name = "FILE",
        env = "SLUICE_PORTS_FILE",
        default_value = "",
        hide_default_value = true
    )]
    ports_file: String,

    /// This replica's name, shown by gateways and /debug/state.
    #[arg(long, env = "POD_NAME", default_value = "sluice-scaler")]
    name: String,

    /// The name of a target's cluster in the gateway's Envoy. {service}, {namespace} and {port} are the target's;
    /// {subset} is any text without '|'.
    #[arg(
        long,
        value_name = "TEMPLATE",
        env = "SLUICE_CLUSTER_TEMPLATE",
        default_value = ClusterTemplate::ISTIO
    )]
    cluster_template: String,

    /// How long a request waits for its target to become ready, where its object does not say. 0s: as long as the
    /// gateway allows.
    #[arg(long, value_name = "DURATION", env = "KEDA_HTTP_READINESS_TIMEOUT", default_value = "0s")]
    readiness_timeout: String,

    /// The older name of --readiness-timeout, which wins over it when it is more than 0.
    #[arg(
        long,
        value_name = "DURATION",
        env = "KEDA_CONDITION_WAIT_TIMEOUT",
        default_value = "0s",
        hide = true
    )]
    condition_wait_timeout: String,

    /// How many requests of a route each gateway worker holds, where its object does not say. 0: as many as the
    /// gateway allows.
    #[arg(
        long,
        value_name = "NUMBER",
        env = "KEDA_HTTP_COLD_START_MAX_PENDING_REQUESTS",
        default_value = "0"
    )]
    cold_start_max_pending_requests: String,

    /// Whether responses carry X-KEDA-HTTP-Cold-Start.
    #[arg(
        long,
        value_name = "BOOL",
        env = "KEDA_HTTP_ENABLE_COLD_START_HEADER",
        default_value = "true",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    cold_start_header: String,

    /// The add-on's switch for sending requests to Pods instead of to their Service (true, false, disabled,
    /// cold-start-only or always). It is read and changes nothing: a gateway sends requests to Pods, always.
    #[arg(
        long,
        value_name = "MODE",
        env = "KEDA_HTTP_DIRECT_POD_ROUTING",
        default_value = "",
        hide_default_value = true
    )]
    direct_pod_routing: String,

    /// How long a request keeps its app active. At least 1s; make it longer than KEDA's polling interval.
    #[arg(long, value_name = "DURATION", env = "SLUICE_ACTIVITY_WINDOW", default_value = "30s")]
    activity_window: String,

    /// How long a gateway worker that vanished is still counted.
    #[arg(long, value_name = "DURATION", env = "SLUICE_WORKER_GRACE", default_value = "10s")]
    worker_grace: String,

    /// How long to go on after SIGTERM, not ready, before anything is closed.
    #[arg(long, value_name = "DURATION", env = "KEDA_HTTP_SHUTDOWN_DELAY", default_value = "5s")]
    shutdown_delay: String,

    /// How long calls may take to end after that. 0s: as long as they take.
    #[arg(long, value_name = "DURATION", env = "KEDA_HTTP_DRAIN_TIMEOUT", default_value = "30s")]
    drain_timeout: String,

    #[command(flatten)]
    log: log::Args,
}

// === impl Args ===

impl Args {
    /// What was typed, as it is used.
    ///
    /// # Errors
    /// The first value that cannot work, by flag and variable.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let source = path(self.config_dir).map_or(Source::Cluster, Source::Folder);
        if let Source::Folder(path) = &source
            && let Err(error) = std::fs::read_dir(path)
        {
            return Err(ConfigError::Folder { path: path.clone(), error });
        }
        let readiness_timeout = match typed(
            "--condition-wait-timeout",
            "KEDA_CONDITION_WAIT_TIMEOUT",
            &self.condition_wait_timeout,
            "0s",
        )
        .duration()?
        {
            Duration::ZERO => {
                typed("--readiness-timeout", "KEDA_HTTP_READINESS_TIMEOUT", &self.readiness_timeout, "0s")
                    .duration()?
            }
            older => older,
        };
        let activity = typed("--activity-window", "SLUICE_ACTIVITY_WINDOW", &self.activity_window, "30s");
        let activity_window = activity.duration()?;
        if activity_window < Duration::from_secs(1) {
            return Err(activity.error("at least 1s").into());
        }
        let drain_timeout =
            typed("--drain-timeout", "KEDA_HTTP_DRAIN_TIMEOUT", &self.drain_timeout, "30s").duration()?;
        let template = Some(self.cluster_template.as_str()).filter(|template| !template.is_empty());
        let tls = match (path(self.tls_cert), path(self.tls_key), path(self.tls_client_ca)) {
            (None, None, None) => None,
            (None, _, _) => return Err(ConfigError::Tls { missing: "--tls-cert" }),
            (_, None, _) => return Err(ConfigError::Tls { missing: "--tls-key" }),
            (Some(cert), Some(key), client_ca) => Some(Tls {
                port: typed("--tls-port", "SLUICE_TLS_PORT", &self.tls_port, "9443").port()?,
                files: Files { cert, key, client_ca },
            }),
        };
        Ok(Config {
            source,
            namespace: Some(self.watch_namespace).filter(|namespace| !namespace.is_empty()),
            bind: typed("--bind", "SLUICE_BIND", &self.bind, "0.0.0.0").parse::<IpAddr>("an IP address")?,
            grpc_port: typed("--port", "KEDA_HTTP_SCALER_PORT", &self.port, "9090").port()?,
            tls,
            http_port: typed("--http-port", "SLUICE_HTTP_PORT", &self.http_port, "8080").port()?,
            ports_file: path(self.ports_file),
            name: Some(self.name)
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "sluice-scaler".to_owned()),
            cluster_template: template.unwrap_or(ClusterTemplate::ISTIO).parse()?,
            readiness_timeout: Some(readiness_timeout).filter(|timeout| !timeout.is_zero()),
            max_pending: NonZeroU32::new(
                typed(
                    "--cold-start-max-pending-requests",
                    "KEDA_HTTP_COLD_START_MAX_PENDING_REQUESTS",
                    &self.cold_start_max_pending_requests,
                    "0",
                )
                .parse("a number from 0 on")?,
            ),
            cold_start_header: typed(
                "--cold-start-header",
                "KEDA_HTTP_ENABLE_COLD_START_HEADER",
                &self.cold_start_header,
                "true",
            )
            .boolean()?,
            direct_pod_routing: direct_pod_routing(typed(
                "--direct-pod-routing",
                "KEDA_HTTP_DIRECT_POD_ROUTING",
                &self.direct_pod_routing,
                "",
            ))?,
            activity_window,
            worker_grace: typed("--worker-grace", "SLUICE_WORKER_GRACE", &self.worker_grace, "10s")
                .duration()?,
            shutdown_delay: typed("--shutdown-delay", "KEDA_HTTP_SHUTDOWN_DELAY", &self.shutdown_delay, "5s")
                .duration()?,
            drain_timeout: Some(drain_timeout).filter(|timeout| !timeout.is_zero()),
            log: self.log.resolve()?,
        })
    }
}

fn path(typed: String) -> Option<PathBuf> {
    Some(typed).filter(|typed| !typed.is_empty()).map(PathBuf::from)
}

/// As the add-on's releases write it: first as a mode, then as a boolean. What was said, if something was.
fn direct_pod_routing(typed: Typed<'_>) -> Result<Option<String>, BadValue> {
    match typed.text() {
        "" => Ok(None),
        said @ ("disabled" | "cold-start-only" | "always") => Ok(Some(said.to_owned())),
        said if typed.boolean().is_ok() => Ok(Some(said.to_owned())),
        _ => Err(typed.error("true, false, disabled, cold-start-only or always")),
    }
}
