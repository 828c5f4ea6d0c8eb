//! What the API server checks beyond types: rules in CEL, with texts that say how to mend it.
//!
//! They stand on single fields and small objects, never on the elements of a list without a bound: the API server
//! refuses a definition whose rules may cost too much. What is in such lists has patterns, or is checked here alone
//! ([`crate::spec::Check`]), and the object's status says it.

use kube::core::Rule;

/// A name that an HTTP header can have (a token of RFC 9110).
pub(crate) const HEADER_NAME: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

/// A duration as Go reads it, and not a negative one.
const DURATION: &str = "^[+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";

/// Of two ways to name a port, one.
pub(crate) fn one_port() -> Rule {
    Rule::new("has(self.port) != has(self.portName)").message("set exactly one of 'port' and 'portName'")
}

/// A duration.
pub(crate) fn duration() -> Rule {
    // Comparing makes an error, and with it a refusal, of what is longer than Go's 292 years.
    let rule = format!("{} && duration(self) >= duration('0s')", is_duration("self"));
    Rule::new(rule).message("write a duration such as 500ms, 30s or 1m30s")
}

/// A unit of time in which a rate makes sense.
pub(crate) fn granularity() -> Rule {
    let rule = format!("!({}) || duration(self) >= duration('1s')", is_duration("self"));
    Rule::new(rule).message("make it 1s or longer")
}

/// A time over which a rate makes sense.
pub(crate) fn window() -> Rule {
    let rule = format!("!({}) || duration(self) <= duration('24h')", is_duration("self"));
    Rule::new(rule).message("make it 24h or shorter")
}

/// A window that has room for the unit of time.
pub(crate) fn window_holds_granularity() -> Rule {
    let both = ["window", "granularity"].map(|field| {
        let value = format!("self.{field}");
        format!("!has({value}) || !({})", is_duration(&value))
    });
    let rule = format!("{} || {} || duration(self.window) >= duration(self.granularity)", both[0], both[1]);
    Rule::new(rule).message("make 'window' at least as long as 'granularity'")
}

/// Not more replicas at least than at most.
pub(crate) fn replica_bounds() -> Rule {
    Rule::new("!has(self.min) || self.min <= (has(self.max) ? self.max : 100)")
        .message("make 'min' at most 'max' (100 where 'max' is left out)")
}

fn is_duration(value: &str) -> String {
    format!("{value}.matches('{DURATION}')")
}
