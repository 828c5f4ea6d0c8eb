//! How the gateway connects to apps: which object says it for a Service's port, the EnvoyFilter that comes of it, and
//! what is to be said on the object. No I/O.
//!
//! ```text
//!  object ─┬─ says nothing, or is not in force ─▶ none
//!          ├─ its Service or port is not there ─▶ none, as long as that is so
//!          ├─ an older one says otherwise ──────▶ none: one Service's port has one setting
//!          └─ else ─────────────────────────────▶ an EnvoyFilter of its name
//! ```

mod rules;
#[cfg(test)]
mod tests;

pub use rules::{DestinationRule, DestinationRuleSpec, Lost, lost};

use crate::{
    envoy_filter::{Outcome, Wanted},
    standing::{Finding, UPSTREAM_APPLIED},
};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use sluice_api::{
    HttpScaledObject, InterceptorRoute,
    spec::{Check, Port, Target, kind_name, route_id},
    upstream::Upstream,
};
use sluice_core::route::Kind;
use sluice_envoyfilter as envoyfilter;
use std::{cmp::Ordering, collections::BTreeMap};

/// What is said of an object's settings that are in force at the cost of a DestinationRule's.
pub const RULE_OVERRIDDEN: &str = "RuleOverridden";
/// The longest name that an object can have.
const MAX_NAME: usize = 253;

/// An object that is in force, and how its target is to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The object.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// What it is about.
    pub target: Target,
    /// What it says, or the operator's own settings say for all.
    pub upstream: Upstream,
}

/// The gateways that connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// Where EnvoyFilters for them are.
    pub namespace: String,
    /// How they are chosen.
    pub binding: envoyfilter::Binding,
    /// What the names of Services end with, after `.svc.`.
    pub cluster_domain: String,
    /// What holds for objects that do not say otherwise.
    pub defaults: Upstream,
}

/// Whether and where a claim is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Its EnvoyFilter has this name.
    InForce(String),
    /// This other one goes before it, and says otherwise.
    Yields(&'a Claim),
    /// This other one says the same.
    Same(&'a Claim),
    /// There is no such Service, or it has no such port.
    Unresolved,
}

// === impl Claim ===

impl Claim {
    /// What an HTTPScaledObject claims. One whose requests an InterceptorRoute takes claims nothing.
    pub fn of_http(object: &HttpScaledObject, is_overridden: bool, defaults: &Upstream) -> Option<Self> {
        if is_overridden || object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Self::of(object, defaults)
    }

    /// What an InterceptorRoute claims.
    pub fn of_route(object: &InterceptorRoute, defaults: &Upstream) -> Option<Self> {
        if object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Self::of(object, defaults)
    }

    fn of<K>(object: &K, defaults: &Upstream) -> Option<Self>
    where
        K: Check + ResourceExt,
    {
        let upstream = Upstream::of(object.meta()).0.or(defaults);
        if upstream == Upstream::default() {
            return None;
        }
        let spec = object.check().0?;
        Some(Self {
            kind: K::KIND,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            created: spec.created,
            target: spec.target,
            upstream,
        })
    }

    /// The EnvoyFilter's name. Namespaces and names may be joined in several ways to the same text; their digest
    /// keeps them apart.
    pub fn filter_name(&self) -> String {
        let digest = route_id(self.kind, &self.namespace, &self.name).0;
        let name = format!("sluice-upstream-{}-{}", self.namespace, self.name);
        let name: String = name.chars().take(MAX_NAME - 17).collect();
        format!("{}-{digest:016x}", name.trim_end_matches(['-', '.']))
    }

    /// The Service in full.
    fn host(&self, gateways: &Gateways) -> String {
        format!("{}.{}.svc.{}", self.target.service, self.namespace, gateways.cluster_domain)
    }

    fn text(&self) -> String {
        format!("{} {}/{}", kind_name(self.kind), self.namespace, self.name)
    }

    /// The older one goes first, as it does among rules for the same requests.
    fn order(&self, other: &Self) -> Ordering {
        let key = |it: &Self| (it.created, it.kind, it.name.clone());
        key(self).cmp(&key(other))
    }

    /// The target's port, and what istiod speaks with it.
    fn port(&self, service: Option<&Service>) -> Option<(u16, envoyfilter::Protocol)> {
        let ports = service?.spec.as_ref()?.ports.as_deref().unwrap_or_default();
        // Where a Service has a number twice, for HTTP/3, only the one of the two is a gateway's target.
        let mut tcp = ports.iter().filter(|port| port.protocol.as_deref().is_none_or(|it| it == "TCP"));
        let port = tcp.find(|port| match &self.target.port {
            Port::Number(number) => port.port == i32::from(*number),
            Port::Name(name) => port.name.as_deref() == Some(name),
        })?;
        let protocol = envoyfilter::Protocol::of_port(port.name.as_deref(), port.app_protocol.as_deref());
        Some((u16::try_from(port.port).ok()?, protocol))
    }

    fn filter(&self, gateways: &Gateways, service: &Service) -> Option<Wanted> {
        let (port, protocol) = self.port(Some(service))?;
        let filter = envoyfilter::UpstreamFilter {
            name: self.filter_name(),
            namespace: gateways.namespace.clone(),
            binding: gateways.binding.clone(),
            object: self.text(),
            host: self.host(gateways),
            port,
            upstream: settings(&self.upstream, protocol),
        };
        // An error would be about names, which are Kubernetes' own, or the binding, which was checked at the start.
        Wanted::of_manifest(&filter.manifest().ok()??)
    }
}

/// What an object says, to a port with which istiod speaks `natural`.
fn settings(said: &Upstream, natural: envoyfilter::Protocol) -> envoyfilter::Upstream {
    let disable_keep_alives = said.disable_keep_alives.unwrap_or(false);
    let protocol = match said.http2 {
        // Who wants a connection for each request gains nothing from a protocol that is there to share them. A port
        // that is HTTP/2 by its Service stays so: what listens there may know nothing else.
        Some(true) if disable_keep_alives => natural,
        Some(true) => envoyfilter::Protocol::Http2,
        Some(false) => envoyfilter::Protocol::Http1,
        None => natural,
    };
    envoyfilter::Upstream {
        protocol,
        protocol_is_forced: protocol != natural,
        disable_keep_alives,
        connect_timeout: said.connect_timeout,
        idle_timeout: said.idle_timeout,
        max_connections: said.max_connections,
        tcp_keepalive: envoyfilter::TcpKeepalive {
            time: said.tcp_keepalive_time,
            interval: said.tcp_keepalive_interval,
            probes: said.tcp_keepalive_probes,
        },
    }
}

/// How a claim stands among `all` of its namespace, itself possibly among them.
pub fn stands<'a>(
    claim: &Claim,
    all: impl IntoIterator<Item = &'a Claim>,
    service: Option<&Service>,
) -> Standing<'a> {
    let Some((port, _)) = claim.port(service) else { return Standing::Unresolved };
    let is_rival = |it: &&Claim| {
        it.namespace == claim.namespace
            && it.target.service == claim.target.service
            && it.port(service).is_some_and(|(other, _)| other == port)
            && it.order(claim) == Ordering::Less
    };
    match all.into_iter().filter(is_rival).min_by(|a, b| a.order(b)) {
        None => Standing::InForce(claim.filter_name()),
        Some(first) if first.upstream == claim.upstream => Standing::Same(first),
        Some(first) => Standing::Yields(first),
    }
}

/// The EnvoyFilters of all claims, by name.
pub fn wanted<S>(
    claims: &[Claim],
    gateways: &Gateways,
    service: impl Fn(&str, &str) -> Option<S>,
) -> Vec<Wanted>
where
    S: AsRef<Service>,
{
    let mut first: BTreeMap<(&str, &str, u16), (&Claim, S)> = BTreeMap::new();
    for claim in claims {
        let Some(found) = service(&claim.namespace, &claim.target.service) else { continue };
        let Some((port, _)) = claim.port(Some(found.as_ref())) else { continue };
        let key = (claim.namespace.as_str(), claim.target.service.as_str(), port);
        if first.get(&key).is_none_or(|(other, _)| claim.order(other) == Ordering::Less) {
            first.insert(key, (claim, found));
        }
    }
    let filters = first.into_values().filter_map(|(claim, service)| claim.filter(gateways, service.as_ref()));
    let mut filters: Vec<Wanted> = filters.collect();
    filters.sort_by(|a, b| a.name.cmp(&b.name));
    filters
}

/// What is to be said on an object. `outcome` is what became of its EnvoyFilter, if that is known; `lost`, what of
/// DestinationRules is without effect by it.
pub fn finding(
    standing: &Standing<'_>,
    target: &Target,
    outcome: Option<&Outcome>,
    lost: &[Lost],
) -> Finding {
    let Target { service, .. } = target;
    match (standing, outcome) {
        (Standing::Unresolved, _) => {
            let message =
                format!("the Service {service} or its port is not there yet; the settings come with it");
            Finding::pending(UPSTREAM_APPLIED, "Unresolved", message)
        }
        (Standing::Same(other), _) => {
            let message =
                format!("the gateway connects to {service} as {} says, which says the same", other.text());
            Finding::yes(UPSTREAM_APPLIED, "Applied", message)
        }
        (Standing::Yields(other), _) => {
            let message = format!(
                "{} is older, has the same target, and says otherwise: the gateway connects to {service} as that one \
                 says. Have both say the same, or take the settings off one of them",
                other.text()
            );
            Finding::no(UPSTREAM_APPLIED, "Conflicted", message)
        }
        (Standing::InForce(name), Some(Outcome::Applied)) => {
            let message =
                format!("the gateway connects to {service} as this object says: EnvoyFilter {name}");
            if lost.is_empty() {
                return Finding::yes(UPSTREAM_APPLIED, "Applied", message);
            }
            let lost: Vec<String> = lost.iter().map(Lost::to_string).collect();
            let message = format!(
                "{message}. It replaces all HTTP options of the Service's clusters, so that this is without effect: \
                 {}. To have it, say all in the DestinationRule, and leave sluice.dev/disable-keep-alives, \
                 sluice.dev/idle-timeout and sluice.dev/http2 out",
                lost.join("; ")
            );
            Finding::yes(UPSTREAM_APPLIED, RULE_OVERRIDDEN, message)
        }
        (Standing::InForce(_), Some(Outcome::Foreign(why))) => {
            Finding::no(UPSTREAM_APPLIED, "NotOurs", why.clone())
        }
        (Standing::InForce(name), Some(Outcome::Failed(why))) => {
            let message = format!("the EnvoyFilter {name} cannot be applied, and is tried again: {why}");
            Finding::no(UPSTREAM_APPLIED, "Failed", message)
        }
        (Standing::InForce(name), None) => {
            Finding::pending(UPSTREAM_APPLIED, "Pending", format!("the EnvoyFilter {name} is being applied"))
        }
    }
}

/// What is to be said where the operator looks after no gateway.
pub fn no_gateway() -> Finding {
    let message = "this object says how the gateway is to connect to the app, and the operator looks after no gateway, \
                   so nothing comes of it: give it --gateway-namespace (SLUICE_GATEWAY_NAMESPACE), or take the \
                   settings off";
    Finding::no(UPSTREAM_APPLIED, "NoGateway", message)
}
