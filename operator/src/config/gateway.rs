//! The gateway's EnvoyFilter: the same settings as `sluice-envoyfilter` has, where that command writes a file.

use super::ConfigError;
use sluice_envoyfilter::{Binding, Limits, Scaler, Settings};
use sluice_process::{text, typed};
use std::path::PathBuf;

/// A gateway whose EnvoyFilters are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// What the filter is to be. The scaler's namespace is not known before the operator's own is.
    pub filter: Settings,
    /// The module.
    pub module: PathBuf,
}

/// As typed.
#[derive(Clone, Debug, clap::Args)]
// Otherwise it would be a group of the name that the other arguments' group has.
#[group(skip)]
#[command(next_help_heading = "The gateway's EnvoyFilter")]
pub(super) struct Args {
    /// Apply the EnvoyFilter that brings the filter into a gateway, in this namespace: the gateway's, or the mesh's
    /// root namespace. Empty: apply none.
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "SLUICE_GATEWAY_NAMESPACE",
        default_value = "",
        hide_default_value = true
    )]
    gateway_namespace: String,

    /// The EnvoyFilter's name.
    #[arg(long, value_name = "NAME", env = "SLUICE_ENVOYFILTER_NAME", default_value = "sluice")]
    envoyfilter_name: String,

    /// Labels of the gateway's Pods, separated by commas.
    #[arg(
        long,
        value_name = "KEY=VALUE,…",
        env = "SLUICE_SELECTOR",
        default_value = "",
        help = "Labels of the gateway's Pods, separated by commas [default: istio=ingressgateway]",
        hide_default_value = true
    )]
    selector: String,

    /// Instead of a selector: Gateways (Gateway API) in that namespace, separated by commas.
    #[arg(
        long,
        value_name = "NAME,…",
        env = "SLUICE_GATEWAY",
        default_value = "",
        hide_default_value = true
    )]
    gateway: String,

    /// Instead of a selector: every Gateway of these GatewayClasses, separated by commas; the namespace must be the
    /// root namespace.
    #[arg(
        long,
        value_name = "NAME,…",
        env = "SLUICE_GATEWAY_CLASS",
        default_value = "",
        hide_default_value = true
    )]
    gateway_class: String,

    /// The order among EnvoyFilters: the higher, the nearer to the router. Not 0.
    #[arg(
        long,
        value_name = "NUMBER",
        env = "SLUICE_PRIORITY",
        default_value = "100",
        allow_hyphen_values = true
    )]
    priority: String,

    /// How many replicas the scaler has.
    #[arg(long, value_name = "NUMBER", env = "SLUICE_SCALER_REPLICAS", default_value = "2")]
    scaler_replicas: String,

    /// The domain of the cluster's Services.
    #[arg(long, value_name = "DOMAIN", env = "SLUICE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,

    /// How many requests a gateway's worker holds for one object. Empty: the filter's default.
    #[arg(
        long,
        value_name = "NUMBER",
        env = "SLUICE_HELD_PER_ROUTE",
        default_value = "",
        hide_default_value = true
    )]
    held_per_route: String,

    /// How many requests a gateway's worker holds. Empty: the filter's default.
    #[arg(
        long,
        value_name = "NUMBER",
        env = "SLUICE_HELD_PER_WORKER",
        default_value = "",
        hide_default_value = true
    )]
    held_per_worker: String,

    /// How long a request is held at most, whatever the objects say. Empty: the filter's default.
    #[arg(
        long,
        value_name = "DURATION",
        env = "SLUICE_HOLD_TIMEOUT",
        default_value = "",
        hide_default_value = true
    )]
    hold_timeout: String,

    /// Enable the filter only on the virtual hosts that lead to managed apps: other hosts' requests never enter the
    /// VM.
    #[arg(
        long,
        value_name = "BOOL",
        env = "SLUICE_ISOLATION",
        default_value = "false",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    isolation: String,

    /// The module, as ./wasm-build.sh makes it.
    #[arg(long, value_name = "FILE", env = "SLUICE_MODULE", default_value = "/sluice_filter.wasm")]
    module: String,
}

// === impl Args ===

impl Args {
    /// As it is used; nothing where there is no namespace.
    pub(super) fn resolve(&self, scaler: &str) -> Result<Option<Gateway>, ConfigError> {
        let Some(namespace) = text(&self.gateway_namespace) else { return Ok(None) };
        let or = |value: &str, default: &str| text(value).unwrap_or_else(|| default.to_owned());
        let limit = |flag, env, value: &str| match value.trim() {
            "" => Ok(None),
            value => typed(flag, env, value, "").parse("a number").map(Some),
        };
        let limits = Limits {
            held_per_route: limit("--held-per-route", "SLUICE_HELD_PER_ROUTE", &self.held_per_route)?,
            held_per_worker: limit("--held-per-worker", "SLUICE_HELD_PER_WORKER", &self.held_per_worker)?,
            hold_timeout: text(&self.hold_timeout),
        };
        let priority = typed("--priority", "SLUICE_PRIORITY", &self.priority, "100");
        let replicas = typed("--scaler-replicas", "SLUICE_SCALER_REPLICAS", &self.scaler_replicas, "2");
        let filter = Settings {
            name: or(&self.envoyfilter_name, "sluice"),
            namespace,
            binding: self.binding()?,
            priority: priority.parse("a number")?,
            scaler: Scaler {
                name: scaler.to_owned(),
                replicas: replicas.parse("a number")?,
                cluster_domain: or(&self.cluster_domain, "cluster.local"),
                ..Scaler::default()
            },
            limits,
            isolation: typed("--isolation", "SLUICE_ISOLATION", &self.isolation, "false").boolean()?,
        };
        filter.check()?;
        let module = PathBuf::from(or(&self.module, "/sluice_filter.wasm"));
        Ok(Some(Gateway { filter, module }))
    }

    fn binding(&self) -> Result<Binding, ConfigError> {
        let names = |text: &str| list(text).map(str::to_owned).collect::<Vec<_>>();
        let (labels, gateways, classes) =
            (names(&self.selector), names(&self.gateway), names(&self.gateway_class));
        match (labels.as_slice(), gateways.as_slice(), classes.as_slice()) {
            ([], [], []) => Ok(Settings::default().binding),
            (labels, [], []) => Ok(Binding::selector(labels.iter().map(String::as_str))?),
            ([], [_, ..], []) => Ok(Binding::Gateways(gateways)),
            ([], [], [_, ..]) => Ok(Binding::GatewayClasses(classes)),
            (_, [], _) => Err(typed("--gateway-class", "SLUICE_GATEWAY_CLASS", &self.gateway_class, "")
                .error(ONE)
                .into()),
            _ => Err(typed("--gateway", "SLUICE_GATEWAY", &self.gateway, "").error(ONE).into()),
        }
    }
}

/// What a binding that goes with another one should have been.
const ONE: &str = "the only one of --selector, --gateway and --gateway-class: leave the others out";

/// What stands between commas.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
