//! The plugin's configuration: what has to hold without a scaler. All that changes comes over the link.

use serde::Deserialize;
use sluice_core::{
    gate::{Limits, MAX_LINKS},
    time::parse_duration,
};
use std::time::Duration;

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The Envoy clusters of the scalers, one link each.
    pub scalers: Vec<String>,
    /// What bounds the holds.
    pub limits: Limits,
    /// Between two reports, urgent ones aside.
    pub report_interval: Duration,
    /// Whether the methods and statuses of busy routes are sampled: see [`crate::recall`].
    pub sample_labels: bool,
}

/// What is wrong with a configuration: names the field and the mend.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Not JSON, or a field that is not known or of the wrong kind.
    #[error("the plugin configuration is not valid: {0}")]
    Syntax(String),
    /// A duration that cannot be read, or out of bounds.
    #[error(
        "{field}: {value:?} is not a duration between {least} and {most}; write it like \"250ms\", \"10s\" or \"1h30m\""
    )]
    Duration {
        /// The field.
        field: &'static str,
        /// What it says.
        value: String,
        /// The smallest that is allowed.
        least: &'static str,
        /// The largest that is allowed.
        most: &'static str,
    },
    /// Too many scalers.
    #[error("scalers: {0} clusters are named, {MAX_LINKS} are possible")]
    TooManyScalers(usize),
    /// A scaler without a name, or named twice.
    #[error("scalers[{0}]: is empty or named before; name each scaler's Envoy cluster once")]
    Scaler(usize),
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Raw {
    scalers: Vec<String>,
    limits: RawLimits,
    quiet: Option<String>,
    distrust_after: Option<String>,
    report_interval: Option<String>,
    sample_labels: bool,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct RawLimits {
    held_per_route: Option<u32>,
    held_per_worker: Option<u32>,
    hold_timeout: Option<String>,
}

impl Config {
    /// Reads a configuration. An empty one is the default: no scaler.
    ///
    /// # Errors
    /// If it is not JSON of the right shape, or a value is out of bounds.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let raw: Raw = if json.is_empty() {
            Raw::default()
        } else {
            serde_json::from_slice(json).map_err(|error| ConfigError::Syntax(error.to_string()))?
        };
        if raw.scalers.len() > MAX_LINKS {
            return Err(ConfigError::TooManyScalers(raw.scalers.len()));
        }
        for (index, scaler) in raw.scalers.iter().enumerate() {
            if scaler.is_empty() || raw.scalers.iter().take(index).any(|other| other == scaler) {
                return Err(ConfigError::Scaler(index));
            }
        }
        let limits = Limits {
            // A held request is about 20 KB of Envoy: these make 200 MB at most of the 1 GiB that Istio's
            // gateway has by default.
            held_per_route: raw.limits.held_per_route.unwrap_or(5_000),
            held_per_worker: raw.limits.held_per_worker.unwrap_or(10_000),
            hold_timeout: duration("limits.holdTimeout", raw.limits.hold_timeout, 600_000, ("1ms", "24h"))?,
            // A look is 10 to 50 µs, and ends an idle connection of HTTP/1.1: not before every request.
            quiet: duration("quiet", raw.quiet, 1_000, ("0s", "1h"))?,
            distrust_after: duration("distrustAfter", raw.distrust_after, 10_000, ("0s", "24h"))?,
        };
        let report_interval = duration("reportInterval", raw.report_interval, 250, ("10ms", "10s"))?;
        Ok(Self { scalers: raw.scalers, limits, report_interval, sample_labels: raw.sample_labels })
    }
}

fn duration(
    field: &'static str,
    value: Option<String>,
    default_ms: u64,
    (least, most): (&'static str, &'static str),
) -> Result<Duration, ConfigError> {
    let Some(value) = value else { return Ok(Duration::from_millis(default_ms)) };
    let bound = |bound| parse_duration(bound).unwrap_or_default();
    parse_duration(&value)
        .filter(|duration| (bound(least)..=bound(most)).contains(duration))
        .ok_or(ConfigError::Duration { field, value, least, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_default() {
        let config = Config::parse(b"").unwrap();
        assert_eq!(config, Config::parse(b"{}").unwrap());
        assert!(config.scalers.is_empty());
        assert_eq!(config.limits.hold_timeout, Duration::from_secs(600));
    }

    #[test]
    fn every_field_is_read() {
        let config = Config::parse(
            br#"{"scalers": ["a", "b"], "quiet": "1s", "distrustAfter": "2s", "reportInterval": "1s", "sampleLabels": true,
                "limits": {"heldPerRoute": 1, "heldPerWorker": 2, "holdTimeout": "1m30s"}}"#,
        )
        .unwrap();
        let limits = Limits {
            held_per_route: 1,
            held_per_worker: 2,
            hold_timeout: Duration::from_secs(90),
            quiet: Duration::from_secs(1),
            distrust_after: Duration::from_secs(2),
        };
        let scalers = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            config,
            Config { scalers, limits, report_interval: Duration::from_secs(1), sample_labels: true }
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |json: &str| Config::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error("{").contains("not valid"));
        assert!(error(r#"{"scaler": []}"#).contains("unknown field `scaler`"));
        assert!(error(r#"{"quiet": "soon"}"#).starts_with(r#"quiet: "soon" is not a duration"#));
        assert!(error(r#"{"limits": {"holdTimeout": "0s"}}"#).starts_with("limits.holdTimeout"));
        assert!(error(r#"{"limits": {"holdTimeout": "-1s"}}"#).starts_with("limits.holdTimeout"));
        assert!(error(r#"{"scalers": ["a", "a"]}"#).starts_with("scalers[1]"));
        assert!(error(r#"{"scalers": ["1","2","3","4","5","6","7","8","9"]}"#).contains("9 clusters"));
    }
}
