//! What the operator is told when it starts: [`Args`] as typed, [`Config`] as it is used.
//!
//! Every flag has an environment variable, with the add-on's name where the add-on has one, and an empty value is
//! as good as none: charts set variables that the user has not filled in.

mod args;
mod gateway;
#[cfg(test)]
mod tests;
mod upstream;

pub use args::Args;
pub use gateway::Gateway;

use crate::lease::Timing;
use sluice_api::upstream::Upstream;
use sluice_process::{BadValue, log::Log};
use std::{net::IpAddr, path::PathBuf};

/// The configuration, ready to be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Only objects of this namespace are looked at; `None`: of all.
    pub watch_namespace: Option<String>,
    /// Where the operator, its Lease and the scaler live; `None`: as the kubeconfig or the Pod's own account says.
    pub namespace: Option<String>,
    /// The scaler's Service, in the operator's namespace.
    pub scaler_service: String,
    /// The Service's port that KEDA calls.
    pub scaler_port: u16,
    /// The ClusterTriggerAuthentication that KEDA's calls are made with, over TLS; `None`: plaintext.
    pub scaler_authentication: Option<String>,
    /// Whether to lead only with the Lease; `None`: always lead.
    pub election: Option<Timing>,
    /// The gateway whose EnvoyFilters are looked after; `None`: somebody else does.
    pub gateway: Option<Gateway>,
    /// How the gateway connects to apps whose objects do not say.
    pub upstream: Upstream,
    /// This replica's name: the Lease's holder, and the events' reporter.
    pub name: String,
    /// The address of the HTTP listener.
    pub bind: IpAddr,
    /// `/livez`, `/readyz`, `/metrics`. 0: any free one.
    pub http_port: u16,
    /// Where the port is written once it listens.
    pub ports_file: Option<PathBuf>,
    /// Logging.
    pub log: Log,
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value that its flag cannot take.
    #[error(transparent)]
    Value(#[from] BadValue),
    /// What the gateway's EnvoyFilter cannot be made of.
    #[error("the gateway's EnvoyFilter: {0}")]
    Gateway(#[from] sluice_envoyfilter::Error),
    /// Durations that do not go together: whoever leads has to stop before anybody else may begin.
    #[error(
        "the leader election's durations have to be lease duration > renew deadline > retry period, and are \
         {} > {} > {}; correct --leader-election-lease-duration, --leader-election-renew-deadline or \
         --leader-election-retry-period",
        .0[0], .0[1], .0[2]
    )]
    Election([String; 3]),
}
