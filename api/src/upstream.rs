//! What an object's annotations say of the connections to its app.
//!
//! An annotation that cannot be used is as if it were not there, and is told: nothing else of the object stops for it.

use crate::Flaw;
use kube::core::ObjectMeta;
use sluice_core::time::parse_duration;
use std::{num::NonZeroU32, str::FromStr, time::Duration};

/// An annotation's name, and where an object has it.
macro_rules! annotation {
    ($name:literal) => {
        Annotation {
            name: concat!("sluice.dev/", $name),
            field: concat!("metadata.annotations[sluice.dev/", $name, "]"),
        }
    };
}

const DISABLE_KEEP_ALIVES: Annotation = annotation!("disable-keep-alives");
const CONNECT_TIMEOUT: Annotation = annotation!("connect-timeout");
const IDLE_TIMEOUT: Annotation = annotation!("idle-timeout");
const MAX_CONNECTIONS: Annotation = annotation!("max-connections");
const TCP_KEEPALIVE_TIME: Annotation = annotation!("tcp-keepalive-time");
const TCP_KEEPALIVE_INTERVAL: Annotation = annotation!("tcp-keepalive-interval");
const TCP_KEEPALIVE_PROBES: Annotation = annotation!("tcp-keepalive-probes");
const HTTP2: Annotation = annotation!("http2");

/// Longer than anybody means, and still something that every part of the way can count.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The most that Linux takes, in seconds, for time and interval.
const MOST_SECONDS: u64 = 32_767;
/// The most probes that Linux takes.
const MOST_PROBES: u32 = 127;

/// What is to be so for the connections to an app. What is `None` is not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// Whether each request has a connection of its own.
    pub disable_keep_alives: Option<bool>,
    /// How long connecting may take: not zero.
    pub connect_timeout: Option<Duration>,
    /// How long a connection without a request stays; zero: for ever.
    pub idle_timeout: Option<Duration>,
    /// How many connections a gateway opens to each Pod.
    pub max_connections: Option<NonZeroU32>,
    /// Seconds of silence before the first TCP keep-alive probe.
    pub tcp_keepalive_time: Option<NonZeroU32>,
    /// Seconds between two probes.
    pub tcp_keepalive_interval: Option<NonZeroU32>,
    /// How many probes go unanswered before the connection is given up.
    pub tcp_keepalive_probes: Option<NonZeroU32>,
    /// Whether HTTP/2 is spoken with the app, whatever its Service's port says.
    pub http2: Option<bool>,
}

#[derive(Clone, Copy)]
struct Annotation {
    name: &'static str,
    field: &'static str,
}

// === impl Upstream ===

impl Upstream {
    /// What an object says, and what is wrong with it.
    pub fn of(metadata: &ObjectMeta) -> (Self, Vec<Flaw>) {
        let mut flaws = Vec::new();
        let upstream = Self {
            disable_keep_alives: boolean(metadata, DISABLE_KEEP_ALIVES, &mut flaws),
            connect_timeout: read(metadata, CONNECT_TIMEOUT, &mut flaws, parse_connect_timeout),
            idle_timeout: read(metadata, IDLE_TIMEOUT, &mut flaws, parse_idle_timeout),
            max_connections: read(metadata, MAX_CONNECTIONS, &mut flaws, |text| {
                NonZeroU32::from_str(text).map_err(|_| "a number, 1 or more")
            }),
            tcp_keepalive_time: read(metadata, TCP_KEEPALIVE_TIME, &mut flaws, parse_seconds),
            tcp_keepalive_interval: read(metadata, TCP_KEEPALIVE_INTERVAL, &mut flaws, parse_seconds),
            tcp_keepalive_probes: read(metadata, TCP_KEEPALIVE_PROBES, &mut flaws, |text| {
                let probes = NonZeroU32::from_str(text).ok().filter(|probes| probes.get() <= MOST_PROBES);
                probes.ok_or("a number, 1 to 127")
            }),
            http2: boolean(metadata, HTTP2, &mut flaws),
        };
        (upstream, flaws)
    }

    /// What is said, and for what is not what `defaults` say.
    #[must_use]
    pub fn or(self, defaults: &Self) -> Self {
        Self {
            disable_keep_alives: self.disable_keep_alives.or(defaults.disable_keep_alives),
            connect_timeout: self.connect_timeout.or(defaults.connect_timeout),
            idle_timeout: self.idle_timeout.or(defaults.idle_timeout),
            max_connections: self.max_connections.or(defaults.max_connections),
            tcp_keepalive_time: self.tcp_keepalive_time.or(defaults.tcp_keepalive_time),
            tcp_keepalive_interval: self.tcp_keepalive_interval.or(defaults.tcp_keepalive_interval),
            tcp_keepalive_probes: self.tcp_keepalive_probes.or(defaults.tcp_keepalive_probes),
            http2: self.http2.or(defaults.http2),
        }
    }
}

/// How long connecting may take.
///
/// # Errors
/// What would do instead.
pub fn parse_connect_timeout(text: &str) -> Result<Duration, &'static str> {
    let timeout = parse_duration(text).filter(|timeout| !timeout.is_zero() && *timeout <= LONGEST);
    timeout.ok_or("a duration such as 500ms or 2s, more than 0 and at most 24h")
}

/// How long a connection without a request stays.
///
/// # Errors
/// What would do instead.
pub fn parse_idle_timeout(text: &str) -> Result<Duration, &'static str> {
    let timeout = parse_duration(text).filter(|timeout| *timeout <= LONGEST);
    timeout.ok_or("a duration such as 500ms or 1m30s, at most 24h; 0s for ever")
}

/// A number of whole seconds, as the operating system takes them, written as a duration.
///
/// # Errors
/// What would do instead.
pub fn parse_seconds(text: &str) -> Result<NonZeroU32, &'static str> {
    let duration = parse_duration(text).filter(|duration| duration.subsec_nanos() == 0);
    let seconds = duration.map(|duration| duration.as_secs()).filter(|seconds| *seconds <= MOST_SECONDS);
    let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).and_then(NonZeroU32::new);
    seconds.ok_or("a duration of whole seconds such as 60s or 5m, at least 1s and at most 9h")
}

fn read<T>(
    metadata: &ObjectMeta,
    annotation: Annotation,
    flaws: &mut Vec<Flaw>,
    parse: impl FnOnce(&str) -> Result<T, &'static str>,
) -> Option<T> {
    let value = metadata.annotations.as_ref()?.get(annotation.name)?;
    match parse(value.trim()) {
        Ok(value) => Some(value),
        Err(expected) => {
            flaws.push(Flaw::Annotation { field: annotation.field, value: value.clone(), expected });
            None
        }
    }
}

fn boolean(metadata: &ObjectMeta, annotation: Annotation, flaws: &mut Vec<Flaw>) -> Option<bool> {
    read(metadata, annotation, flaws, |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("\"true\" or \"false\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &[(&str, &str)]) -> (Upstream, Vec<String>) {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let metadata = ObjectMeta { annotations: Some(annotations.collect()), ..ObjectMeta::default() };
        let (upstream, flaws) = Upstream::of(&metadata);
        assert!(flaws.iter().all(|flaw| !flaw.is_fatal()));
        (upstream, flaws.iter().map(|flaw| format!("{} {flaw}", flaw.field())).collect())
    }

    #[test]
    fn everything_is_read() {
        let read = of(&[
            ("sluice.dev/disable-keep-alives", "true"),
            ("sluice.dev/connect-timeout", "500ms"),
            ("sluice.dev/idle-timeout", " 1m30s "),
            ("sluice.dev/max-connections", "4"),
            ("sluice.dev/tcp-keepalive-time", "1m"),
            ("sluice.dev/tcp-keepalive-interval", "10s"),
            ("sluice.dev/tcp-keepalive-probes", "3"),
            ("sluice.dev/http2", "false"),
            ("example.com/other", "?"),
        ]);
        let some = NonZeroU32::new;
        let upstream = Upstream {
            disable_keep_alives: Some(true),
            connect_timeout: Some(Duration::from_millis(500)),
            idle_timeout: Some(Duration::from_secs(90)),
            max_connections: some(4),
            tcp_keepalive_time: some(60),
            tcp_keepalive_interval: some(10),
            tcp_keepalive_probes: some(3),
            http2: Some(false),
        };
        assert_eq!(read, (upstream, Vec::new()));
        assert_eq!(of(&[]), (Upstream::default(), Vec::new()));
        assert_eq!(Upstream::of(&ObjectMeta::default()).0, Upstream::default());
    }

    #[test]
    fn what_cannot_be_used_is_told_and_left_out() {
        let wrong = [
            ("disable-keep-alives", "yes"),
            ("http2", ""),
            ("connect-timeout", "0s"),
            ("connect-timeout", "2"),
            ("connect-timeout", "25h"),
            ("idle-timeout", "-1s"),
            ("max-connections", "0"),
            ("max-connections", "many"),
            ("max-connections", "4294967296"),
            ("tcp-keepalive-time", "0s"),
            ("tcp-keepalive-time", "1500ms"),
            ("tcp-keepalive-interval", "10h"),
            ("tcp-keepalive-probes", "128"),
        ];
        for (annotation, value) in wrong {
            let name = format!("sluice.dev/{annotation}");
            let (read, flaws) = of(&[(&name, value)]);
            assert_eq!(read, Upstream::default(), "{annotation}: {value}");
            let [flaw] = &flaws[..] else { panic!("{annotation}: {value}: {flaws:?}") };
            let begins = format!("metadata.annotations[{name}] is {value:?}; write ");
            assert!(flaw.starts_with(&begins), "{flaw}");
        }
        let (read, flaws) = of(&[("sluice.dev/connect-timeout", "soon"), ("sluice.dev/http2", "true")]);
        assert_eq!(read, Upstream { http2: Some(true), ..Upstream::default() });
        let text = "metadata.annotations[sluice.dev/connect-timeout] is \"soon\"; write a duration such as 500ms or 2s, \
                    more than 0 and at most 24h. Until then it is as if it were not there";
        assert_eq!(flaws, [text]);
    }

    #[test]
    fn an_object_goes_before_what_is_said_for_all() {
        let defaults = Upstream {
            disable_keep_alives: Some(true),
            connect_timeout: Some(Duration::from_secs(1)),
            ..Upstream::default()
        };
        let own = Upstream {
            disable_keep_alives: Some(false),
            max_connections: NonZeroU32::new(3),
            ..Upstream::default()
        };
        let both = own.or(&defaults);
        assert_eq!(both.disable_keep_alives, Some(false));
        assert_eq!(both.connect_timeout, Some(Duration::from_secs(1)));
        assert_eq!(both.max_connections, NonZeroU32::new(3));
    }
}
