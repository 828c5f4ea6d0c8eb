//! The link's messages, parsed into core's types and made from them.

use prost::Message;
use sluice_core::{
    count::{Counts, Method},
    gate::Hint,
    route::{ClusterPattern, HeaderRule, HostPattern, Kind, RouteId, RouteSpec, Rule},
    time::Instant,
};
use sluice_proto::link;
use std::time::Duration;

/// The version of the link protocol that this filter speaks.
pub const PROTOCOL: u32 = link::PROTOCOL;

/// What is wrong with a route that a scaler sent. The rest of the table is not touched by it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteError {
    /// Neither an HTTPScaledObject nor an InterceptorRoute.
    #[error("kind {0} is not known: the scaler is newer than this filter")]
    Kind(i32),
    /// No cluster.
    #[error("it has no cluster")]
    NoCluster,
}

/// What the link to a cluster gives as `:authority`. Envoy's own choice would be the cluster's name, and istiod's names
/// have `|` in them, for which HTTP/2 servers reset the stream. The host at their end is a name for sure.
pub fn authority(cluster: &[u8]) -> &[u8] {
    let host = cluster.rsplit(|byte| *byte == b'|').next().unwrap_or_default();
    if is_host(host) { host } else { b"sluice" }
}

/// A request's authority, for looks to give as theirs; empty if it is not what an authority looks like.
pub fn host(authority: &[u8]) -> &[u8] {
    if is_host(authority) { authority } else { b"" }
}

/// What a look at a cluster gives as `:authority`.
///
/// Where a cluster's SNI is the request's host, Envoy reads it from here: so the connection that a look opens is
/// one for requests. Over one that is open already a look leaves, and that has to be a proper request with a reset
/// behind it: an Envoy at the other end (a sidecar) takes an authority with `|` for reason to end the HTTP/2
/// connection, with all that is on it.
pub fn look_authority<'a>(cluster: &'a [u8], host: &'a [u8]) -> &'a [u8] {
    if host.is_empty() { authority(cluster) } else { host }
}

fn is_host(host: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    // DNS names end at 253 bytes, and ports at six.
    (1..=259).contains(&host.len()) && host.iter().all(allowed)
}

/// A hello of a worker that began to count `age` ago.
pub fn hello(gateway: &str, instance: u64, age: Duration) -> Vec<u8> {
    let hello = link::Hello {
        protocol: PROTOCOL,
        gateway: gateway.to_owned(),
        instance,
        filter_version: env!("CARGO_PKG_VERSION").to_owned(),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
    };
    link::FromWorker { message: Some(link::from_worker::Message::Hello(hello)) }.encode_to_vec()
}

/// A report of these routes' counts.
pub fn report<'a>(
    now: Instant,
    sequence: u64,
    complete: bool,
    counts: impl Iterator<Item = (RouteId, &'a Counts)>,
) -> Vec<u8> {
    let routes = counts.map(|(id, counts)| route_counts(now, id, counts));
    // A complete report leaves out what is all zero: that is what not being named means.
    let routes =
        routes.filter(|it| !complete || *it != link::RouteCounts { route: it.route, ..Default::default() });
    let report = link::Report { sequence, complete, routes: routes.collect() };
    link::FromWorker { message: Some(link::from_worker::Message::Report(report)) }.encode_to_vec()
}

fn route_counts(now: Instant, id: RouteId, counts: &Counts) -> link::RouteCounts {
    let completions = counts.completions().map(|(completion, durations)| link::Completions {
        method: method(completion.method).into(),
        code: completion.code.into(),
        count: durations.count(),
        duration_buckets: durations.counts().collect(),
        duration_us: durations.sum_us(),
    });
    let holds = counts.holds.count() > 0;
    let lags = counts.lags.count() > 0;
    link::RouteCounts {
        route: id.0,
        in_flight: counts.in_flight(),
        held: counts.held(),
        arrivals: counts.arrivals(),
        concurrency_us: counts.concurrency_us(now),
        cold_starts: counts.cold_starts,
        rejections: counts.rejections,
        expirations: counts.expirations,
        mismatches: counts.mismatches,
        hold_buckets: if holds { counts.holds.counts().collect() } else { Vec::new() },
        hold_us: counts.holds.sum_us(),
        lag_buckets: if lags { counts.lags.counts().collect() } else { Vec::new() },
        lag_us: counts.lags.sum_us(),
        completions: completions.collect(),
    }
}

fn method(method: Method) -> link::Method {
    match method {
        Method::Other => link::Method::Other,
        Method::Get => link::Method::Get,
        Method::Head => link::Method::Head,
        Method::Post => link::Method::Post,
        Method::Put => link::Method::Put,
        Method::Delete => link::Method::Delete,
        Method::Connect => link::Method::Connect,
        Method::Options => link::Method::Options,
        Method::Trace => link::Method::Trace,
        Method::Patch => link::Method::Patch,
    }
}

/// A route and what the scaler knows of its target.
///
/// # Errors
/// If it is of a kind that is not known here, or has no cluster.
pub fn route(route: link::Route) -> Result<(RouteSpec, Hint), RouteError> {
    let kind = match route.kind() {
        link::Kind::HttpScaledObject => Kind::HttpScaledObject,
        link::Kind::InterceptorRoute => Kind::InterceptorRoute,
        link::Kind::Unspecified => return Err(RouteError::Kind(route.kind)),
    };
    let hint = hint(route.hint());
    let cluster = route.cluster.ok_or(RouteError::NoCluster)?;
    let cluster = ClusterPattern {
        prefix: cluster.prefix.into_bytes().into(),
        suffix: cluster.suffix.map(|suffix| suffix.into_bytes().into()),
    };
    let spec = RouteSpec {
        id: RouteId(route.id),
        kind,
        namespace: route.namespace.into(),
        name: route.name.into(),
        generation: route.generation,
        created: route.created,
        rules: route.rules.into_iter().map(rule).collect(),
        cluster,
        hold_timeout: (route.hold_timeout_ms > 0).then(|| Duration::from_millis(route.hold_timeout_ms)),
        max_held: (route.max_held > 0).then_some(route.max_held),
    };
    Ok((spec, hint))
}

fn rule(rule: link::Rule) -> Rule {
    let header = |header: link::HeaderMatch| HeaderRule {
        name: header.name.to_ascii_lowercase().into_bytes().into(),
        value: header.value.map(|value| value.into_bytes().into()),
    };
    Rule {
        hosts: rule.hosts.iter().map(|host| HostPattern::parse(host)).collect(),
        paths: rule.paths.into_iter().map(|path| path.into_bytes().into()).collect(),
        headers: rule.headers.into_iter().map(header).collect(),
    }
}

/// What a hint means.
pub fn hint(hint: link::Hint) -> Hint {
    match hint {
        link::Hint::Unknown => Hint::Unknown,
        link::Hint::Ready => Hint::Ready,
        link::Hint::NotReady => Hint::NotReady,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_is_one_whatever_the_cluster_is_called() {
        let istios = b"outbound|9090||sluice-scaler-0.sluice-system.svc.cluster.local";
        assert_eq!(authority(istios), b"sluice-scaler-0.sluice-system.svc.cluster.local");
        assert_eq!(authority(b"sluice-scaler-0"), b"sluice-scaler-0");
        for none in [&b""[..], b"a|", b"my scaler", b"a/b", b"\xff"] {
            assert_eq!(authority(none), b"sluice");
        }
    }

    #[test]
    fn a_look_asks_for_the_requests_host_if_that_is_one() {
        let longest = [b'a'; 259];
        for authority in [
            &b"shop.example.com"[..],
            b"Shop.Example.COM:8443",
            b"my_shop",
            b"[::1]:80",
            b"10.0.0.1",
            &longest,
        ] {
            assert_eq!(host(authority), authority);
        }
        let too_long = [b'a'; 260];
        for none in [&b""[..], b"a b", b"a\r\nb", b"a\0", b"user@shop", b"a|b", b"a/b", b"\xff", &too_long] {
            assert_eq!(host(none), b"", "{}", none.escape_ascii());
        }
        let istios = b"outbound|80||shop.shop.svc.cluster.local";
        assert_eq!(look_authority(istios, b"shop.example.com:80"), b"shop.example.com:80");
        assert_eq!(look_authority(istios, b""), b"shop.shop.svc.cluster.local");
        assert_eq!(look_authority(b"a b", b""), b"sluice");
    }
}
