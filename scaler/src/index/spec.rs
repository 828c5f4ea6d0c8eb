//! What an HTTPScaledObject or InterceptorRoute asks for, checked.

use super::flaw::Flaw;
use kube::core::ObjectMeta;
use sha2::{Digest, Sha256};
use sluice_api::{HeaderMatch, HttpScaledObject, InterceptorRoute};
use sluice_core::{
    metric::RateSpec,
    route::{HeaderRule, HostPattern, Kind, RouteId, Rule},
    time::parse_duration,
};
use std::{num::NonZeroU32, time::Duration};

/// The target value where an object names none, as the add-on has it.
const TARGET_VALUE: u32 = 100;

/// An object, as it is to be acted on.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// `metadata.generation`, 0 where there is none.
    pub generation: u64,
    /// `metadata.creationTimestamp` in seconds since 1970, 0 where there is none.
    pub created: i64,
    /// Any of these selects a request; none: the target's cluster does.
    pub rules: Vec<Rule>,
    /// Where its requests go.
    pub target: Target,
    /// How long a request may be held; `None`: as the scaler's configuration says, zero: without a limit.
    pub hold_timeout: Option<Duration>,
    /// How many requests may be held; `None`: as the scaler's configuration says.
    pub max_held: Option<NonZeroU32>,
    /// What KEDA scales it by.
    pub metrics: Metrics,
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Service, of the object's namespace.
    pub service: String,
    /// Which of its ports.
    pub port: Port,
}

/// Which port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// What KEDA scales an app by: at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Requests under way per replica.
    pub concurrency: Option<u32>,
    /// Requests per granularity and replica.
    pub rate: Option<Rate>,
}

/// Scaling by request rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests per granularity and replica.
    pub target: u32,
    /// Window and granularity.
    pub spec: RateSpec,
}

/// The route's name on the link.
pub fn route_id(kind: Kind, namespace: &str, name: &str) -> RouteId {
    let digest = Sha256::digest(format!("{}/{namespace}/{name}", kind_name(kind)));
    let mut id = [0; 8];
    for (byte, of) in id.iter_mut().zip(digest) {
        *byte = of;
    }
    RouteId(u64::from_be_bytes(id))
}

/// The kind as objects say it.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::HttpScaledObject => "HTTPScaledObject",
        Kind::InterceptorRoute => "InterceptorRoute",
    }
}

/// Reads an object: what it asks for, if anything can be made of it, and all that is wrong with it.
pub(super) trait Read {
    /// Which kind it is.
    const KIND: Kind;

    /// `None` only if one of the flaws is fatal.
    fn read(&self, flaws: &mut Vec<Flaw>) -> Option<Spec>;
}

// === impl Spec ===

impl Read for HttpScaledObject {
    const KIND: Kind = Kind::HttpScaledObject;

    fn read(&self, flaws: &mut Vec<Flaw>) -> Option<Spec> {
        let spec = &self.spec;
        let reference = &spec.scale_target_ref;
        let target = target(
            flaws,
            Fields {
                service: "spec.scaleTargetRef.service",
                parent: "spec.scaleTargetRef",
                port: "spec.scaleTargetRef.port",
            },
            &reference.service,
            reference.port,
            reference.port_name.as_deref(),
        );
        let rule = rule(
            flaws,
            "spec",
            spec.hosts.as_deref(),
            spec.path_prefixes.iter().flatten().map(String::as_str),
            spec.headers.as_deref(),
        );
        let metric = spec.scaling_metric.as_ref();
        let concurrency = metric.and_then(|metric| metric.concurrency.as_ref());
        let rate = metric.and_then(|metric| metric.request_rate.as_ref());
        if concurrency.is_some() && rate.is_some() {
            flaws.push(Flaw::TwoMetrics);
        }
        let metrics = match (concurrency, rate) {
            (None, Some(rate)) => Metrics {
                concurrency: None,
                rate: Some(read_rate(flaws, rate.target_value, &rate.window, &rate.granularity)),
            },
            (Some(concurrency), _) => Metrics {
                concurrency: Some(target_value(
                    flaws,
                    "spec.scalingMetric.concurrency.targetValue",
                    concurrency.target_value,
                )),
                rate: None,
            },
            (None, None) => {
                let pending = spec.target_pending_requests.map_or(TARGET_VALUE.into(), i64::from);
                Metrics {
                    concurrency: Some(target_value(flaws, "spec.targetPendingRequests", pending)),
                    rate: None,
                }
            }
        };
        let wait = spec.timeouts.as_ref().and_then(|timeouts| timeouts.condition_wait.as_deref());
        Some(Spec {
            generation: generation(&self.metadata),
            created: created(&self.metadata),
            rules: rules([rule]),
            target: target?,
            hold_timeout: hold_timeout(flaws, "spec.timeouts.conditionWait", wait),
            max_held: None,
            metrics,
        })
    }
}

impl Read for InterceptorRoute {
    const KIND: Kind = Kind::InterceptorRoute;

    fn read(&self, flaws: &mut Vec<Flaw>) -> Option<Spec> {
        let spec = &self.spec;
        let target = target(
            flaws,
            Fields { service: "spec.target.service", parent: "spec.target", port: "spec.target.port" },
            &spec.target.service,
            spec.target.port,
            spec.target.port_name.as_deref(),
        );
        let given = spec.rules.iter().flatten().enumerate();
        let given: Vec<Rule> = given
            .map(|(number, given)| {
                let paths = given.paths.iter().flatten().map(|path| path.value.as_str());
                let field = format!("spec.rules[{number}]");
                rule(flaws, &field, given.hosts.as_deref(), paths, given.headers.as_deref())
            })
            .collect();
        let metric = &spec.scaling_metric;
        let concurrency = metric.concurrency.as_ref().map(|concurrency| {
            let value = concurrency.target_value.into();
            target_value(flaws, "spec.scalingMetric.concurrency.targetValue", value)
        });
        let rate = metric
            .request_rate
            .as_ref()
            .map(|rate| read_rate(flaws, rate.target_value.into(), &rate.window, &rate.granularity));
        let metrics = if concurrency.is_none() && rate.is_none() {
            flaws.push(Flaw::NoMetric);
            Metrics { concurrency: Some(TARGET_VALUE), rate: None }
        } else {
            Metrics { concurrency, rate }
        };
        let max_held =
            spec.cold_start.as_ref().and_then(|cold| cold.max_pending_requests).and_then(|value| {
                let most = u32::try_from(value).ok().and_then(NonZeroU32::new);
                if most.is_none() {
                    flaws.push(Flaw::MaxPending { value });
                }
                most
            });
        let wait = spec.timeouts.as_ref().and_then(|timeouts| timeouts.readiness.as_deref());
        Some(Spec {
            generation: generation(&self.metadata),
            created: created(&self.metadata),
            rules: rules(given),
            target: target?,
            hold_timeout: hold_timeout(flaws, "spec.timeouts.readiness", wait),
            max_held,
            metrics,
        })
    }
}

// === parts ===

/// Where a target's fields are.
struct Fields {
    parent: &'static str,
    service: &'static str,
    port: &'static str,
}

fn target(
    flaws: &mut Vec<Flaw>,
    fields: Fields,
    service: &str,
    port: Option<i32>,
    port_name: Option<&str>,
) -> Option<Target> {
    if service.is_empty() {
        flaws.push(Flaw::NoService { field: fields.service });
    }
    // Where a number may be left out, the add-on takes 0 and "" for left out, and so do its stored objects.
    let port = match (port.filter(|port| *port != 0), port_name.filter(|name| !name.is_empty())) {
        (None, None) => Err(Flaw::NoPort { field: fields.parent }),
        (Some(_), Some(_)) => Err(Flaw::TwoPorts { field: fields.parent }),
        (None, Some(name)) => Ok(Port::Name(name.to_owned())),
        (Some(port), None) => match u16::try_from(port) {
            Ok(number) => Ok(Port::Number(number)),
            Err(_) => Err(Flaw::Port { field: fields.port, port }),
        },
    };
    let port = port.map_err(|flaw| flaws.push(flaw)).ok()?;
    Some(Target { service: service.to_owned(), port }).filter(|target| !target.service.is_empty())
}

fn rule<'a>(
    flaws: &mut Vec<Flaw>,
    field: &str,
    hosts: Option<&[String]>,
    paths: impl Iterator<Item = &'a str>,
    headers: Option<&[HeaderMatch]>,
) -> Rule {
    let hosts = hosts.unwrap_or_default().iter().enumerate().map(|(number, host)| {
        let pattern = HostPattern::parse(host);
        let (HostPattern::Exact(fixed) | HostPattern::Wildcard(fixed)) = &pattern else { return pattern };
        if fixed.contains(&b'*') {
            flaws.push(Flaw::Host { field: format!("{field}.hosts[{number}]"), host: host.clone() });
        }
        pattern
    });
    let hosts = hosts.collect();
    let headers = headers.unwrap_or_default().iter().enumerate().map(|(number, header)| {
        if header.name.is_empty() {
            flaws.push(Flaw::Header { field: format!("{field}.headers[{number}].name") });
        }
        HeaderRule {
            name: header.name.to_ascii_lowercase().into_bytes().into(),
            value: header.value.as_ref().map(|value| value.as_bytes().into()),
        }
    });
    let headers = headers.collect();
    Rule { hosts, paths: paths.map(|path| path.as_bytes().into()).collect(), headers }
}

/// A rule that every request meets says nothing that the target's cluster does not say better: with it, requests
/// that go elsewhere are none of the object's, and not mistaken for its.
fn rules(given: impl IntoIterator<Item = Rule>) -> Vec<Rule> {
    let given: Vec<Rule> = given.into_iter().collect();
    let is_any = |rule: &Rule| {
        let any_host = rule.hosts.is_empty() || rule.hosts.contains(&HostPattern::Any);
        let any_path =
            rule.paths.is_empty() || rule.paths.iter().any(|path| path.iter().all(|byte| *byte == b'/'));
        any_host && any_path && rule.headers.is_empty()
    };
    if given.iter().any(is_any) { Vec::new() } else { given }
}

fn hold_timeout(flaws: &mut Vec<Flaw>, field: &'static str, value: Option<&str>) -> Option<Duration> {
    let value = value?;
    let timeout = parse_duration(value);
    if timeout.is_none() {
        let instead = "the scaler's --readiness-timeout applies";
        flaws.push(Flaw::Duration { field, value: value.to_owned(), instead });
    }
    timeout
}

fn target_value(flaws: &mut Vec<Flaw>, field: &'static str, value: i64) -> u32 {
    u32::try_from(value).ok().filter(|value| *value > 0).unwrap_or_else(|| {
        flaws.push(Flaw::TargetValue { field, value, instead: TARGET_VALUE });
        TARGET_VALUE
    })
}

fn read_rate(flaws: &mut Vec<Flaw>, target: i64, window: &str, granularity: &str) -> Rate {
    let target = target_value(flaws, "spec.scalingMetric.requestRate.targetValue", target);
    let mut duration = |field, value: &str, instead, default| {
        parse_duration(value).unwrap_or_else(|| {
            flaws.push(Flaw::Duration { field, value: value.to_owned(), instead });
            default
        })
    };
    let default = RateSpec::default();
    let window = duration("spec.scalingMetric.requestRate.window", window, "1m is used", default.window());
    let granularity = duration(
        "spec.scalingMetric.requestRate.granularity",
        granularity,
        "1s is used",
        default.granularity(),
    );
    let spec = RateSpec::new(window, granularity).unwrap_or_else(|error| {
        flaws.push(Flaw::Rate { error });
        default
    });
    Rate { target, spec }
}

fn generation(meta: &ObjectMeta) -> u64 {
    meta.generation.and_then(|generation| u64::try_from(generation).ok()).unwrap_or(0)
}

fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}
