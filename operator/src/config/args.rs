//! The configuration as typed.

use super::{Config, ConfigError};
use crate::lease::Timing;
use clap::Parser;
use sluice_process::{log, text, typed};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

/// Sluice's operator: makes ScaledObjects of HTTPScaledObjects, and says on every object how it fares.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-operator", version, max_term_width = 110, args_override_self = true)]
pub struct Args {
    /// Look at objects of this namespace only. Empty: of all namespaces.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "KEDA_HTTP_OPERATOR_WATCH_NAMESPACE",
        default_value = "",
        hide_default_value = true
    )]
    watch_namespace: String,

    /// The namespace of the operator, its Lease and the scaler. Empty: the one of the Pod's service account, or of
    /// the kubeconfig.
    #[arg(long, env = "KEDA_HTTP_OPERATOR_NAMESPACE", default_value = "", hide_default_value = true)]
    namespace: String,

    /// The scaler's Service.
    #[arg(
        long,
        value_name = "SERVICE",
        env = "KEDA_HTTP_OPERATOR_EXTERNAL_SCALER_SERVICE",
        default_value = "sluice-scaler"
    )]
    scaler_service: String,

    /// The port of the scaler's Service that KEDA calls.
    #[arg(
        long,
        value_name = "PORT",
        env = "KEDA_HTTP_OPERATOR_EXTERNAL_SCALER_PORT",
        default_value = "9090"
    )]
    scaler_port: String,

    /// Have KEDA call the scaler over TLS, with what this ClusterTriggerAuthentication gives (caCert, and for mutual
    /// TLS tlsClientCert and tlsClientKey). Empty: without TLS.
    #[arg(
        long,
        value_name = "NAME",
        env = "SLUICE_SCALER_TRIGGER_AUTHENTICATION",
        default_value = "",
        hide_default_value = true
    )]
    scaler_trigger_authentication: String,

    /// Whether to work only while holding the Lease "sluice-operator". Without it there must be one replica.
    #[arg(
        long,
        value_name = "BOOL",
        env = "SLUICE_LEADER_ELECT",
        default_value = "true",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    leader_elect: String,

    /// How long a leader that says nothing is waited for.
    #[arg(
        long,
        value_name = "DURATION",
        env = "KEDA_HTTP_OPERATOR_LEADER_ELECTION_LEASE_DURATION",
        default_value = "15s"
    )]
    leader_election_lease_duration: String,

    /// How long a leader that cannot renew its Lease goes on. Less than the lease duration.
    #[arg(
        long,
        value_name = "DURATION",
        env = "KEDA_HTTP_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE",
        default_value = "10s"
    )]
    leader_election_renew_deadline: String,

    /// How often the Lease is renewed, or looked at.
    #[arg(
        long,
        value_name = "DURATION",
        env = "KEDA_HTTP_OPERATOR_LEADER_ELECTION_RETRY_PERIOD",
        default_value = "2s"
    )]
    leader_election_retry_period: String,

    #[command(flatten)]
    gateway: super::gateway::Args,

    #[command(flatten)]
    upstream: super::upstream::Args,

    /// This replica's name, as the Lease and events give it. No two replicas may have the same. Empty: made up.
    #[arg(long, env = "POD_NAME", default_value = "", hide_default_value = true)]
    name: String,

    /// Port for HTTP: /livez, /readyz and /metrics. 0: any free port.
    #[arg(long, value_name = "PORT", env = "SLUICE_HTTP_PORT", default_value = "8080")]
    http_port: String,

    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", env = "SLUICE_BIND", default_value = "0.0.0.0")]
    bind: String,

    /// Write {"http":PORT} to this file once it listens.
    #[arg(
        long,
        value_name = "FILE",
        env = "SLUICE_PORTS_FILE",
        default_value = "",
        hide_default_value = true
    )]
    ports_file: String,

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
        let election =
            typed("--leader-elect", "SLUICE_LEADER_ELECT", &self.leader_elect, "true").boolean()?;
        let timing = self.timing()?;
        let or = |value: &str, default: &str| text(value).unwrap_or_else(|| default.to_owned());
        let port =
            typed("--scaler-port", "KEDA_HTTP_OPERATOR_EXTERNAL_SCALER_PORT", &self.scaler_port, "9090");
        Ok(Config {
            watch_namespace: text(&self.watch_namespace),
            namespace: text(&self.namespace),
            scaler_service: or(&self.scaler_service, "sluice-scaler"),
            scaler_port: match port.port()? {
                0 => return Err(port.error("a port, 1 to 65535").into()),
                port => port,
            },
            scaler_authentication: text(&self.scaler_trigger_authentication),
            upstream: self.upstream.resolve()?,
            gateway: self.gateway.resolve(&or(&self.scaler_service, "sluice-scaler"))?,
            election: election.then_some(timing),
            name: text(&self.name).unwrap_or_else(made_up_name),
            bind: typed("--bind", "SLUICE_BIND", &self.bind, "0.0.0.0").parse::<IpAddr>("an IP address")?,
            http_port: typed("--http-port", "SLUICE_HTTP_PORT", &self.http_port, "8080").port()?,
            ports_file: text(&self.ports_file).map(PathBuf::from),
            log: self.log.resolve()?,
        })
    }

    fn timing(&self) -> Result<Timing, ConfigError> {
        let [duration, deadline, retry] = [
            typed(
                "--leader-election-lease-duration",
                "KEDA_HTTP_OPERATOR_LEADER_ELECTION_LEASE_DURATION",
                &self.leader_election_lease_duration,
                "15s",
            ),
            typed(
                "--leader-election-renew-deadline",
                "KEDA_HTTP_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE",
                &self.leader_election_renew_deadline,
                "10s",
            ),
            typed(
                "--leader-election-retry-period",
                "KEDA_HTTP_OPERATOR_LEADER_ELECTION_RETRY_PERIOD",
                &self.leader_election_retry_period,
                "2s",
            ),
        ];
        let timing = Timing {
            lease_duration: duration.duration()?,
            renew_deadline: deadline.duration()?,
            retry_period: retry.duration()?,
        };
        // Leases are told in whole seconds.
        if timing.lease_duration < Duration::from_secs(1) || timing.lease_duration.subsec_nanos() != 0 {
            return Err(duration.error("whole seconds, at least one").into());
        }
        let is_ordered = timing.lease_duration > timing.renew_deadline
            && timing.renew_deadline > timing.retry_period
            && !timing.retry_period.is_zero();
        if !is_ordered {
            return Err(ConfigError::Election([duration, deadline, retry].map(|it| it.text().to_owned())));
        }
        Ok(timing)
    }
}

/// Two processes that both believe to hold the Lease would be two writers: the process id alone is not enough on
/// two machines.
fn made_up_name() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("sluice-operator-{}-{random:x}", std::process::id())
}
