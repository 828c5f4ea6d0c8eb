//! What the scaler is told when it starts: [`Args`] as typed, [`Config`] as it is used.
//!
//! Every flag has an environment variable, with the add-on's name where the add-on has one, and an empty value is
//! as good as none: charts set variables that the user has not filled in.

mod args;
#[cfg(test)]
mod tests;

pub use args::Args;

use crate::{
    index::{ClusterTemplate, ClusterTemplateError},
    tls::Files,
};
use sluice_process::{BadValue, log::Log};
use std::{net::IpAddr, num::NonZeroU32, path::PathBuf, time::Duration};

/// The configuration, ready to be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects are read from.
    pub source: Source,
    /// Only objects of this namespace count; `None`: of all.
    pub namespace: Option<String>,
    /// The address of all listeners.
    pub bind: IpAddr,
    /// gRPC: the link, KEDA's external scaler, health, reflection. 0: any free one.
    pub grpc_port: u16,
    /// KEDA's external scaler over TLS, and then only there.
    pub tls: Option<Tls>,
    /// `/livez`, `/readyz`, `/metrics`, `/debug/state`. 0: any free one.
    pub http_port: u16,
    /// Where the ports are written once they listen.
    pub ports_file: Option<PathBuf>,
    /// The replica's name, for people.
    pub name: String,
    /// How a target is named as an Envoy cluster.
    pub cluster_template: ClusterTemplate,
    /// How long a request is held whose object does not say; `None`: as long as the gateway's limit says.
    pub readiness_timeout: Option<Duration>,
    /// How many requests of a route one worker holds whose object does not say; `None`: the gateway's limit.
    pub max_pending: Option<NonZeroU32>,
    /// Whether responses say if they were held.
    pub cold_start_header: bool,
    /// What was said of direct Pod routing, as it was said; it changes nothing.
    pub direct_pod_routing: Option<String>,
    /// How long a request keeps its app active.
    pub activity_window: Duration,
    /// How long a worker that vanished is still counted.
    pub worker_grace: Duration,
    /// How long everything goes on after "not ready" at the end.
    pub shutdown_delay: Duration,
    /// How long calls may take to end after that; `None`: as long as they take.
    pub drain_timeout: Option<Duration>,
    /// Logging.
    pub log: Log,
}

/// KEDA's own listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Its port. 0: any free one.
    pub port: u16,
    /// What it is served with.
    pub files: Files,
}

/// Where objects are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The YAML files of that folder.
    Folder(PathBuf),
    /// The API server of the cluster that the process runs in, or that `KUBECONFIG` names.
    Cluster,
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The folder is none.
    #[error("--config-dir: {}: {error}; name a folder that can be read", path.display())]
    Folder {
        /// What was given.
        path: PathBuf,
        /// What is wrong with it.
        error: std::io::Error,
    },
    /// A value that its flag cannot take.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// A certificate without its key, or the other way round, or an authority without both.
    #[error(
        "--tls-cert (SLUICE_TLS_CERT) and --tls-key (SLUICE_TLS_KEY) go together, and --tls-client-ca \
         (SLUICE_TLS_CLIENT_CA) goes with both; {missing} is missing"
    )]
    Tls {
        /// The flag that is not given.
        missing: &'static str,
    },
    /// The cluster template.
    #[error("--cluster-template (SLUICE_CLUSTER_TEMPLATE): {0}")]
    ClusterTemplate(#[from] ClusterTemplateError),
}
