//! Hosts as virtual hosts have them.

use sluice_core::route::HostPattern;
use std::fmt;

/// `shop.example.com`, `*.example.com` (any number of labels in front, at least one) or `*`. Lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

// === impl Domain ===

impl Domain {
    /// Every host.
    pub const ANY: &'static str = "*";

    /// Reads one. Empty: every host.
    pub fn new(text: &str) -> Self {
        let text = text.trim().trim_end_matches('.');
        Self(if text.is_empty() { Self::ANY.to_owned() } else { text.to_ascii_lowercase() })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hosts that both have.
    pub fn meet<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        if self.covers(other) {
            Some(other)
        } else if other.covers(self) {
            Some(self)
        } else {
            None
        }
    }

    /// Whether it has all hosts of another one.
    fn covers(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            Some("") => true,
            // A host, or a wildcard without its asterisk, which needs no label in front.
            Some(suffix) => match other.0.strip_prefix('*') {
                Some(rest) => rest.ends_with(suffix),
                None => other.0.len() > suffix.len() && other.0.ends_with(suffix),
            },
            None => self == other,
        }
    }
}

impl From<&HostPattern> for Domain {
    fn from(host: &HostPattern) -> Self {
        match host {
            HostPattern::Exact(name) => Self::new(&String::from_utf8_lossy(name)),
            HostPattern::Wildcard(apex) => Self::new(&format!("*.{}", String::from_utf8_lossy(apex))),
            HostPattern::Any => Self::new(Self::ANY),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
