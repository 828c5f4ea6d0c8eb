//! What a user chooses.

use crate::Error;
use serde_json::{Map, Value, json};
use sluice_core::{gate::MAX_LINKS, time::parse_duration};
use std::collections::BTreeMap;

/// Where the filter goes and whom it talks to. The default fits Istio's default ingress gateway and Sluice's default
/// installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The EnvoyFilter's name.
    pub name: String,
    /// Its namespace: the gateway's, or the mesh's root namespace.
    pub namespace: String,
    /// The gateways that it is for.
    pub binding: Binding,
    /// The order among EnvoyFilters, not 0: the higher, the nearer to the router.
    pub priority: i32,
    /// The scaler that the gateways talk to.
    pub scaler: Scaler,
    /// What bounds the holds.
    pub limits: Limits,
    /// Whether the filter is at work only where somebody enables it: the operator does so on the virtual hosts of
    /// managed objects.
    pub isolation: bool,
}

/// How an EnvoyFilter says which gateways it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The Pods with these labels.
    Selector(BTreeMap<String, String>),
    /// The Gateways (Gateway API) of these names in the EnvoyFilter's namespace.
    Gateways(Vec<String>),
    /// Every Gateway of these GatewayClasses (Gateway API); the EnvoyFilter is in the root namespace then.
    GatewayClasses(Vec<String>),
}

/// The scaler's installation: each replica has a Service of its own, `NAME-0`, `NAME-1`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaler {
    /// The StatefulSet's name, with which those of the Services begin.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// How many replicas there are.
    pub replicas: usize,
    /// The port of the link.
    pub port: u16,
    /// What the names of Services end with, after `.svc.`.
    pub cluster_domain: String,
}

/// What bounds the holds of a worker. What is not set is left to the filter's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests held at once for one object.
    pub held_per_route: Option<u32>,
    /// Requests held at once.
    pub held_per_worker: Option<u32>,
    /// How long one may be held, as Go writes durations.
    pub hold_timeout: Option<String>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "sluice".to_owned(),
            namespace: "istio-system".to_owned(),
            binding: Binding::Selector(BTreeMap::from([("istio".to_owned(), "ingressgateway".to_owned())])),
            // After the usual 1 to 10 of other people's filters.
            priority: 100,
            scaler: Scaler::default(),
            limits: Limits::default(),
            isolation: false,
        }
    }
}

impl Settings {
    /// Whether they can work.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), Error> {
        domain("name", &self.name)?;
        name("namespace", &self.namespace)?;
        self.binding.check()?;
        self.scaler.check()?;
        if self.priority == 0 {
            return Err(Error::Priority);
        }
        match &self.limits.hold_timeout {
            Some(text) if parse_duration(text).is_none_or(|duration| duration.is_zero()) => {
                Err(Error::Duration { field: "hold timeout", value: text.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The plugin's configuration, as the filter reads it.
    pub(crate) fn configuration(&self) -> Value {
        let mut configuration = json!({"scalers": self.scaler.clusters()});
        let mut limits = Map::new();
        let Limits { held_per_route, held_per_worker, hold_timeout } = &self.limits;
        limits.extend(held_per_route.map(|most| ("heldPerRoute".to_owned(), json!(most))));
        limits.extend(held_per_worker.map(|most| ("heldPerWorker".to_owned(), json!(most))));
        limits.extend(hold_timeout.as_ref().map(|longest| ("holdTimeout".to_owned(), json!(longest))));
        if !limits.is_empty() {
            configuration["limits"] = Value::Object(limits);
        }
        configuration
    }
}

// === impl Binding ===

impl Binding {
    /// A selector of labels written like `istio=ingressgateway`.
    ///
    /// # Errors
    /// If one of them is no label.
    pub fn selector<'a>(labels: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let labels = labels.into_iter().map(|label| match label.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::Label { field: "selector", value: label.to_owned() }),
        });
        Ok(Self::Selector(labels.collect::<Result<_, _>>()?))
    }

    /// The field of the EnvoyFilter's spec, and its value.
    pub fn field(&self) -> (&'static str, Value) {
        let references = |kind: &str, names: &[String]| {
            let reference = |name| json!({"group": "gateway.networking.k8s.io", "kind": kind, "name": name});
            names.iter().map(reference).collect::<Value>()
        };
        match self {
            Self::Selector(labels) => ("workloadSelector", json!({"labels": labels})),
            Self::Gateways(names) => ("targetRefs", references("Gateway", names)),
            Self::GatewayClasses(names) => ("targetRefs", references("GatewayClass", names)),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        match self {
            Self::Selector(labels) if labels.is_empty() => Err(Error::NoSelector),
            Self::Selector(labels) => match labels.iter().find(|(key, value)| !is_label(key, value)) {
                Some((key, value)) => {
                    Err(Error::Label { field: "selector", value: format!("{key}={value}") })
                }
                None => Ok(()),
            },
            Self::Gateways(names) => names.iter().try_for_each(|it| domain("gateway", it)),
            Self::GatewayClasses(names) => names.iter().try_for_each(|it| domain("gateway class", it)),
        }
    }
}

// === impl Scaler ===

impl Default for Scaler {
    fn default() -> Self {
        Self {
            name: "sluice-scaler".to_owned(),
            namespace: "sluice-system".to_owned(),
            replicas: 2,
            port: 9090,
            cluster_domain: "cluster.local".to_owned(),
        }
    }
}

impl Scaler {
    /// The hosts of the replicas' Services.
    pub fn hosts(&self) -> impl Iterator<Item = String> {
        let Self { name, namespace, replicas, cluster_domain, .. } = self;
        (0..*replicas).map(move |replica| format!("{name}-{replica}.{namespace}.svc.{cluster_domain}"))
    }

    /// The Envoy clusters that istiod makes for them.
    pub fn clusters(&self) -> Vec<String> {
        self.hosts().map(|host| format!("outbound|{}||{host}", self.port)).collect()
    }

    fn check(&self) -> Result<(), Error> {
        name("scaler name", &self.name)?;
        name("scaler namespace", &self.namespace)?;
        domain("cluster domain", &self.cluster_domain)?;
        match self.replicas {
            1..=MAX_LINKS => Ok(()),
            replicas => Err(Error::Replicas(replicas)),
        }
    }
}

fn name(field: &'static str, value: &str) -> Result<(), Error> {
    if is_name(value) { Ok(()) } else { Err(Error::Name { field, value: value.to_owned(), dots: "" }) }
}

fn domain(field: &'static str, value: &str) -> Result<(), Error> {
    if value.split('.').all(is_name) {
        return Ok(());
    }
    Err(Error::Name { field, value: value.to_owned(), dots: "; several may be joined by '.'" })
}

/// A DNS label (RFC 1123), as Kubernetes takes it.
pub(crate) fn is_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A label's key (with an optional domain before a slash) and value.
fn is_label(key: &str, value: &str) -> bool {
    let word = |text: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
        text.len() <= 63 && text.bytes().all(inside) && edge(text.bytes().next()) && edge(text.bytes().last())
    };
    let (prefix, rest) = key.split_once('/').map_or((None, key), |(prefix, rest)| (Some(prefix), rest));
    prefix.is_none_or(|prefix| prefix.split('.').all(is_name))
        && !rest.is_empty()
        && word(rest)
        && word(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut Settings)) -> String {
        let mut settings = Settings::default();
        change(&mut settings);
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn the_default_is_valid() {
        Settings::default().check().unwrap();
    }

    #[test]
    fn replicas_are_named_as_istiod_names_their_clusters() {
        let scaler =
            Scaler { namespace: "x".to_owned(), cluster_domain: "y.z".to_owned(), ..Scaler::default() };
        let clusters =
            ["outbound|9090||sluice-scaler-0.x.svc.y.z", "outbound|9090||sluice-scaler-1.x.svc.y.z"];
        assert_eq!(scaler.clusters(), clusters);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(error(|it| it.namespace = "Istio".to_owned()).starts_with("namespace: \"Istio\""));
        assert!(error(|it| it.namespace = "a.b".to_owned()).starts_with("namespace"));
        assert!(error(|it| it.name = "-".to_owned()).starts_with("name: "));
        assert!(error(|it| it.priority = 0).contains("priority"));
        assert!(error(|it| it.scaler.replicas = 0).contains("1 to 8"));
        assert!(error(|it| it.scaler.replicas = 9).contains("1 to 8"));
        assert!(error(|it| it.limits.hold_timeout = Some("soon".to_owned())).contains("\"soon\""));
        assert!(error(|it| it.binding = Binding::Selector(BTreeMap::new())).contains("istio=ingressgateway"));
        assert!(error(|it| it.binding = Binding::Gateways(vec!["A".to_owned()])).starts_with("gateway: "));
    }

    #[test]
    fn labels_are_read() {
        let labels = ["istio=ingressgateway", "app.kubernetes.io/name=gw", "empty="];
        let settings = Settings { binding: Binding::selector(labels).unwrap(), ..Settings::default() };
        settings.check().unwrap();
        assert!(Binding::selector(["istio"]).unwrap_err().to_string().contains("\"istio\""));
        for label in ["=x", "a b=x", "a=b=c", "x.Y/a=b", "a=-b"] {
            let binding = Binding::selector([label]).unwrap();
            assert!(error(|it| it.binding = binding).contains(label), "{label}");
        }
    }
}
