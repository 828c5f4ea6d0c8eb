//! Reading what both objects have.

use super::{Port, Rate, TARGET_VALUE, Target};
use crate::{Flaw, HeaderMatch};
use kube::core::ObjectMeta;
use sluice_core::{
    metric::RateSpec,
    route::{HeaderRule, HostPattern, Rule},
    time::parse_duration,
};
use std::time::Duration;

/// Where a target's fields are.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    /// The object that has them.
    pub(super) parent: &'static str,
    /// The Service's name.
    pub(super) service: &'static str,
    /// The port by number.
    pub(super) port: &'static str,
}

pub(super) fn target(
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

/// Looks at another target, without which the object is still good for something.
pub(super) fn fallback(
    flaws: &mut Vec<Flaw>,
    fields: Fields,
    service: &str,
    port: Option<i32>,
    port_name: Option<&str>,
) {
    let mut found = Vec::new();
    target(&mut found, fields, service, port, port_name);
    flaws.extend(found.into_iter().map(|flaw| Flaw::Fallback { flaw: Box::new(flaw) }));
}

/// A rule; `path_field` is where a path is, by its number, below `field`.
pub(super) fn rule<'a>(
    flaws: &mut Vec<Flaw>,
    field: &str,
    hosts: Option<&[String]>,
    paths: impl Iterator<Item = &'a str>,
    path_field: fn(usize) -> String,
    headers: Option<&[HeaderMatch]>,
) -> Rule {
    let hosts = hosts.unwrap_or_default().iter().enumerate().map(|(number, host)| {
        let pattern = HostPattern::parse(host);
        let (HostPattern::Exact(fixed) | HostPattern::Wildcard(fixed)) = &pattern else { return pattern };
        // Whatever else a client may send, an authority ends at these.
        let is_never_sent = |byte: &u8| matches!(byte, b'*' | b'/' | b'?' | b'#' | b'@' | 0..=b' ' | 0x7f);
        if fixed.is_empty() || fixed.iter().any(is_never_sent) {
            flaws.push(Flaw::Host { field: format!("{field}.hosts[{number}]"), host: host.clone() });
        }
        pattern
    });
    let hosts = hosts.collect();
    let paths = paths.enumerate().map(|(number, path)| {
        if path.contains(['?', '#']) {
            let field = format!("{field}.{}", path_field(number));
            flaws.push(Flaw::Path { field, path: path.to_owned() });
        }
        path.as_bytes().into()
    });
    let paths = paths.collect();
    let headers = headers.unwrap_or_default().iter().enumerate().map(|(number, header)| {
        header_name(flaws, || format!("{field}.headers[{number}].name"), &header.name);
        HeaderRule {
            name: header.name.to_ascii_lowercase().into_bytes().into(),
            value: header.value.as_ref().map(|value| value.as_bytes().into()),
        }
    });
    let headers = headers.collect();
    Rule { hosts, paths, headers }
}

/// Looks at a header's name: a token of RFC 9110, as [`crate::rules::HEADER_NAME`] says it to the API server.
pub(super) fn header_name(flaws: &mut Vec<Flaw>, field: impl FnOnce() -> String, name: &str) {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        flaws.push(Flaw::Header { field: field(), name: name.to_owned() });
    }
}

/// A rule that every request meets says nothing that the target's cluster does not say better: with it, requests
/// that go elsewhere are none of the object's, and not mistaken for its.
pub(super) fn rules(given: impl IntoIterator<Item = Rule>) -> Vec<Rule> {
    let given: Vec<Rule> = given.into_iter().collect();
    let is_any = |rule: &Rule| {
        let any_host = rule.hosts.is_empty() || rule.hosts.contains(&HostPattern::Any);
        let any_path =
            rule.paths.is_empty() || rule.paths.iter().any(|path| path.iter().all(|byte| *byte == b'/'));
        any_host && any_path && rule.headers.is_empty()
    };
    if given.iter().any(is_any) { Vec::new() } else { given }
}

pub(super) fn hold_timeout(
    flaws: &mut Vec<Flaw>,
    field: &'static str,
    value: Option<&str>,
) -> Option<Duration> {
    let value = value?;
    let timeout = parse_duration(value);
    if timeout.is_none() {
        let instead = "the scaler's --readiness-timeout applies";
        flaws.push(Flaw::Duration { field, value: value.to_owned(), instead });
    }
    timeout
}

/// Looks at a duration that nothing here acts on.
pub(super) fn unused_duration(flaws: &mut Vec<Flaw>, field: &'static str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| parse_duration(value).is_none()) {
        let instead = "it is as if it were not set";
        flaws.push(Flaw::Duration { field, value: value.to_owned(), instead });
    }
}

/// A number of seconds; `None` if there is none, or a negative one.
pub(super) fn seconds(
    flaws: &mut Vec<Flaw>,
    field: &'static str,
    value: Option<i32>,
    instead: &'static str,
) -> Option<i32> {
    let value = value?;
    if value < 0 {
        flaws.push(Flaw::Seconds { field, value, instead });
    }
    Some(value).filter(|value| *value >= 0)
}

pub(super) fn target_value(flaws: &mut Vec<Flaw>, field: &'static str, value: i64) -> u32 {
    u32::try_from(value).ok().filter(|value| *value > 0).unwrap_or_else(|| {
        let instead = if value > 0 { u32::MAX } else { TARGET_VALUE };
        flaws.push(Flaw::TargetValue { field, value, instead });
        instead
    })
}

pub(super) fn read_rate(flaws: &mut Vec<Flaw>, target: i64, window: &str, granularity: &str) -> Rate {
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
        let used = nearest(window, granularity);
        flaws.push(Flaw::Rate { error, used });
        used
    });
    Rate { target, spec }
}

/// What comes nearest to a window and granularity that cannot be. The granularity is kept where it can be: the target
/// value counts requests in it.
fn nearest(window: Duration, granularity: Duration) -> RateSpec {
    let granularity = granularity.clamp(RateSpec::default().granularity(), RateSpec::LONGEST);
    let window = window.clamp(granularity, RateSpec::LONGEST);
    RateSpec::new(window, granularity).unwrap_or_default()
}

pub(super) fn generation(meta: &ObjectMeta) -> u64 {
    meta.generation.and_then(|generation| u64::try_from(generation).ok()).unwrap_or(0)
}

pub(super) fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}
