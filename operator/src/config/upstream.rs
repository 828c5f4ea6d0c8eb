//! How the gateway connects to apps whose objects do not say: by the add-on's names, where they mean something for a
//! gateway.

use super::ConfigError;
use sluice_api::upstream::{Upstream, parse_connect_timeout, parse_idle_timeout};
use sluice_core::time::parse_duration;
use sluice_process::typed;
use std::num::NonZeroU32;

/// The most that Linux takes, in seconds.
const MOST_SECONDS: u64 = 32_767;

/// As typed.
#[derive(Clone, Debug, clap::Args)]
// Otherwise it would be a group of the name that the other arguments' group has.
#[group(skip)]
#[command(next_help_heading = "How the gateway connects to apps whose objects do not say (docs/upstream.md)")]
pub(super) struct Args {
    /// How long connecting to an app may take. Empty: as istiod says.
    #[arg(
        long,
        value_name = "DURATION",
        env = "KEDA_HTTP_CONNECT_TIMEOUT",
        default_value = "",
        hide_default_value = true
    )]
    connect_timeout: String,

    /// How long a connection without a request stays, 0s: for ever. Empty: as istiod says.
    #[arg(
        long,
        value_name = "DURATION",
        env = "KEDA_HTTP_IDLE_CONN_TIMEOUT",
        default_value = "",
        hide_default_value = true
    )]
    idle_timeout: String,

    /// After how much silence TCP probes a connection, and how often; rounded up to seconds. Empty: as istiod says.
    #[arg(
        long,
        value_name = "DURATION",
        env = "KEDA_HTTP_KEEP_ALIVE",
        default_value = "",
        hide_default_value = true
    )]
    tcp_keepalive: String,

    /// Whether each request has a connection of its own.
    #[arg(
        long,
        value_name = "BOOL",
        env = "KEDA_HTTP_DISABLE_KEEP_ALIVES",
        default_value = "false",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    disable_keep_alives: String,
}

// === impl Args ===

impl Args {
    /// As it is used.
    pub(super) fn resolve(&self) -> Result<Upstream, ConfigError> {
        let connect = typed("--connect-timeout", "KEDA_HTTP_CONNECT_TIMEOUT", &self.connect_timeout, "");
        let idle = typed("--idle-timeout", "KEDA_HTTP_IDLE_CONN_TIMEOUT", &self.idle_timeout, "");
        let probes = typed("--tcp-keepalive", "KEDA_HTTP_KEEP_ALIVE", &self.tcp_keepalive, "");
        let disable = typed(
            "--disable-keep-alives",
            "KEDA_HTTP_DISABLE_KEEP_ALIVES",
            &self.disable_keep_alives,
            "false",
        );
        let mut defaults = Upstream::default();
        if !connect.text().is_empty() {
            let timeout =
                parse_connect_timeout(connect.text()).map_err(|expected| connect.error(expected))?;
            defaults.connect_timeout = Some(timeout);
        }
        if !idle.text().is_empty() {
            let timeout = parse_idle_timeout(idle.text()).map_err(|expected| idle.error(expected))?;
            defaults.idle_timeout = Some(timeout);
        }
        if !probes.text().is_empty() {
            let seconds = whole_seconds(probes.text())
                .ok_or_else(|| probes.error("a duration such as 15s or 1m, more than 0 and at most 9h"))?;
            defaults.tcp_keepalive_time = Some(seconds);
            defaults.tcp_keepalive_interval = Some(seconds);
        }
        // Not to have it is what is so anyway.
        defaults.disable_keep_alives = disable.boolean()?.then_some(true);
        Ok(defaults)
    }
}

/// As Go gives them to the operating system: the part of a second that is left over counts as one.
fn whole_seconds(text: &str) -> Option<NonZeroU32> {
    let duration = parse_duration(text)?;
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    NonZeroU32::new(u32::try_from(seconds).ok()?).filter(|_| seconds <= MOST_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn args(connect: &str, idle: &str, probes: &str, disable: &str) -> Result<Upstream, String> {
        let [connect_timeout, idle_timeout, tcp_keepalive, disable_keep_alives] =
            [connect, idle, probes, disable].map(str::to_owned);
        let args = Args { connect_timeout, idle_timeout, tcp_keepalive, disable_keep_alives };
        args.resolve().map_err(|error| error.to_string())
    }

    #[test]
    fn the_add_ons_values_are_taken() {
        let seconds = NonZeroU32::new;
        let upstream = Upstream {
            connect_timeout: Some(Duration::from_millis(500)),
            idle_timeout: Some(Duration::from_secs(90)),
            tcp_keepalive_time: seconds(1),
            tcp_keepalive_interval: seconds(1),
            disable_keep_alives: Some(true),
            ..Upstream::default()
        };
        assert_eq!(args("500ms", "90s", "1s", "true"), Ok(upstream));
        assert_eq!(args("", " ", "", ""), Ok(Upstream::default()));
        assert_eq!(args("", "", "", "false"), Ok(Upstream::default()));
        assert_eq!(args("", "", "1500ms", "").unwrap().tcp_keepalive_time, seconds(2));
    }

    #[test]
    fn the_add_ons_names_are_understood() {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("sluice-operator"));
        let known: Vec<&str> = command.get_arguments().filter_map(|it| it.get_env()?.to_str()).collect();
        for name in ["CONNECT_TIMEOUT", "IDLE_CONN_TIMEOUT", "KEEP_ALIVE", "DISABLE_KEEP_ALIVES"] {
            let name = format!("KEDA_HTTP_{name}");
            assert!(known.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn what_cannot_work_names_flag_and_variable() {
        for (args, words) in [
            (args("0s", "", "", ""), "--connect-timeout (KEDA_HTTP_CONNECT_TIMEOUT): \"0s\" is not"),
            (args("", "-1s", "", ""), "--idle-timeout (KEDA_HTTP_IDLE_CONN_TIMEOUT): \"-1s\" is not"),
            (args("", "", "0s", ""), "--tcp-keepalive (KEDA_HTTP_KEEP_ALIVE): \"0s\" is not"),
            (args("", "", "10h", ""), "at most 9h"),
            (
                args("", "", "", "maybe"),
                "--disable-keep-alives (KEDA_HTTP_DISABLE_KEEP_ALIVES): \"maybe\" is not",
            ),
        ] {
            let error = args.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
