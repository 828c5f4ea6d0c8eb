//! What can be wrong with an object, one variant for each way.

use sluice_core::metric::RateSpecError;

/// Something that is wrong with an object. The text says how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The target's Service has no name.
    #[error("is empty; name the Service that requests go to")]
    NoService {
        /// Where.
        field: &'static str,
    },
    /// Neither port nor name of one.
    #[error("names no port; set either port or portName")]
    NoPort {
        /// Where.
        field: &'static str,
    },
    /// Both port and name of one.
    #[error("names a port twice; set either port or portName, not both")]
    TwoPorts {
        /// Where.
        field: &'static str,
    },
    /// A number that no port has.
    #[error("is {port}; ports are 1 to 65535")]
    Port {
        /// Where.
        field: &'static str,
        /// The number.
        port: i32,
    },
    /// A host that nothing matches.
    #[error("has {host:?}, which no request matches; a '*' can only be the first label, or stand alone")]
    Host {
        /// Where.
        field: String,
        /// The host.
        host: String,
    },
    /// A header without a name.
    #[error("is empty, which no request matches; name the header")]
    Header {
        /// Where.
        field: String,
    },
    /// A duration that is none.
    #[error("is {value:?}, which is no duration; write it like 500ms, 30s or 1m30s. Until then {instead}")]
    Duration {
        /// Where.
        field: &'static str,
        /// What is there.
        value: String,
        /// What is used.
        instead: &'static str,
    },
    /// A window and granularity that do not go together.
    #[error("{error}. Until then a window of 1m in units of 1s is used")]
    Rate {
        /// What is wrong.
        error: RateSpecError,
    },
    /// A target value that nothing can be scaled by.
    #[error("is {value}; make it 1 or more. Until then {instead} is used")]
    TargetValue {
        /// Where.
        field: &'static str,
        /// What is there.
        value: i64,
        /// What is used.
        instead: u32,
    },
    /// More metrics than the object can have.
    #[error("has concurrency and requestRate; keep one of them. Until then concurrency is used")]
    TwoMetrics,
    /// No metric where there has to be one.
    #[error("has neither concurrency nor requestRate; set one. Until then a concurrency of 100 is used")]
    NoMetric,
    /// A limit that lets nothing wait.
    #[error("is {value}; make it 1 or more. Until then the default applies")]
    MaxPending {
        /// What is there.
        value: i32,
    },
}

// === impl Flaw ===

impl Flaw {
    /// Whether nothing can be done with the object because of it. What is not fatal is worked around.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::NoService { .. } | Self::NoPort { .. } | Self::TwoPorts { .. } | Self::Port { .. } => true,
            Self::Host { .. }
            | Self::Header { .. }
            | Self::Duration { .. }
            | Self::Rate { .. }
            | Self::TargetValue { .. }
            | Self::TwoMetrics
            | Self::NoMetric
            | Self::MaxPending { .. } => false,
        }
    }

    /// The field's path.
    pub fn field(&self) -> &str {
        match self {
            Self::NoService { field }
            | Self::NoPort { field }
            | Self::TwoPorts { field }
            | Self::Port { field, .. }
            | Self::Duration { field, .. }
            | Self::TargetValue { field, .. } => field,
            Self::Host { field, .. } | Self::Header { field } => field,
            Self::Rate { .. } => "spec.scalingMetric.requestRate",
            Self::TwoMetrics | Self::NoMetric => "spec.scalingMetric",
            Self::MaxPending { .. } => "spec.coldStart.maxPendingRequests",
        }
    }
}
