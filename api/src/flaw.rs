//! What can be wrong with an object, one variant for each way.

use sluice_core::metric::{RateSpec, RateSpecError};

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
    #[error(
        "is {host:?}, which no request's host is; write one such as a.example.com, *.example.com (a '*' can only be \
         the first label) or *"
    )]
    Host {
        /// Where.
        field: String,
        /// The host.
        host: String,
    },
    /// A path that nothing matches.
    #[error("is {path:?}, which no request's path is; write one such as /api, without a query or fragment")]
    Path {
        /// Where.
        field: String,
        /// The path.
        path: String,
    },
    /// A name that no header has.
    #[error("is {name:?}, which no header is called; write a header's name, such as x-tenant")]
    Header {
        /// Where.
        field: String,
        /// The name.
        name: String,
    },
    /// A value that no header can have.
    #[error("has a line break or another control character; write it without")]
    HeaderValue {
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
    #[error("{}. Until then a window of {:?} in units of {:?} is used", rate(.error), .used.window(), .used.granularity())]
    Rate {
        /// What is wrong.
        error: RateSpecError,
        /// What is used: the nearest that is possible.
        used: RateSpec,
    },
    /// A target value that nothing can be scaled by.
    #[error("is {value}; make it {}. Until then {instead} is used", if *.value < 1 { "1 or more" } else { "4294967295 or less" })]
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
    /// Fewer replicas than there can be.
    #[error("is {value}; make it {least} or more. Until then {least} is used")]
    Replicas {
        /// Where.
        field: &'static str,
        /// What is there.
        value: i32,
        /// The fewest that KEDA takes.
        least: i32,
    },
    /// More replicas at least than at most.
    #[error(
        "has a min of {min} above the max of {max} (100 where none is set); lower min or raise max. Until then min \
         is {max}"
    )]
    ReplicaBounds {
        /// The fewest.
        min: i32,
        /// The most.
        max: i32,
    },
    /// A negative number of seconds.
    #[error("is {value}; make it 0 or more. Until then {instead}")]
    Seconds {
        /// Where.
        field: &'static str,
        /// What is there.
        value: i32,
        /// What is used.
        instead: &'static str,
    },
    /// Something is wrong with the target that requests go to when theirs does not become ready.
    #[error("{flaw}. Until then there is no fallback")]
    Fallback {
        /// What.
        flaw: Box<Flaw>,
    },
    /// A cold start that asks for nothing.
    #[error("says nothing; set fallback, placeholder or maxPendingRequests, or leave it out")]
    EmptyColdStart,
    /// A placeholder is to be used that is not there.
    #[error("is Placeholder, but there is no placeholder; set placeholder too. Until then Reject is used")]
    NoPlaceholder,
    /// A static route that answers nothing.
    #[error("is empty, which no request matches; add a rule ({{}} matches every request)")]
    NoRules {
        /// Where.
        field: String,
    },
    /// A number that is no HTTP status.
    #[error("is {value}; HTTP statuses are 100 to 599. Until then the default is used")]
    StatusCode {
        /// Where.
        field: String,
        /// What is there.
        value: i32,
    },
    /// More bodies than a response can have.
    #[error("has body and bodyFromConfigMap; keep one of them. Until then body is used")]
    TwoBodies {
        /// Where.
        field: String,
    },
    /// A body from nowhere.
    #[error("is empty; name the ConfigMap that has the body")]
    NoConfigMap {
        /// Where.
        field: String,
    },
    /// An annotation of ours that says nothing that can be done.
    #[error("is {value:?}; write {expected}. Until then it is as if it were not there")]
    Annotation {
        /// Where.
        field: &'static str,
        /// What is there.
        value: String,
        /// What would do.
        expected: &'static str,
    },
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
            | Self::Path { .. }
            | Self::Header { .. }
            | Self::HeaderValue { .. }
            | Self::Duration { .. }
            | Self::Rate { .. }
            | Self::TargetValue { .. }
            | Self::TwoMetrics
            | Self::NoMetric
            | Self::Replicas { .. }
            | Self::ReplicaBounds { .. }
            | Self::Seconds { .. }
            | Self::Fallback { .. }
            | Self::EmptyColdStart
            | Self::NoPlaceholder
            | Self::NoRules { .. }
            | Self::StatusCode { .. }
            | Self::TwoBodies { .. }
            | Self::NoConfigMap { .. }
            | Self::Annotation { .. }
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
            | Self::TargetValue { field, .. }
            | Self::Replicas { field, .. }
            | Self::Annotation { field, .. }
            | Self::Seconds { field, .. } => field,
            Self::Host { field, .. }
            | Self::Path { field, .. }
            | Self::Header { field, .. }
            | Self::HeaderValue { field }
            | Self::NoConfigMap { field }
            | Self::NoRules { field }
            | Self::StatusCode { field, .. }
            | Self::TwoBodies { field } => field,
            Self::Fallback { flaw } => flaw.field(),
            Self::ReplicaBounds { .. } => "spec.replicas",
            Self::EmptyColdStart => "spec.coldStart",
            Self::NoPlaceholder => "spec.coldStart.overflow",
            Self::Rate { error: RateSpecError::Granularity(_), .. } => {
                "spec.scalingMetric.requestRate.granularity"
            }
            Self::Rate { error: RateSpecError::Window { .. } | RateSpecError::TooLong(_), .. } => {
                "spec.scalingMetric.requestRate.window"
            }
            Self::TwoMetrics | Self::NoMetric => "spec.scalingMetric",
            Self::MaxPending { .. } => "spec.coldStart.maxPendingRequests",
        }
    }
}

/// Without the field's name, which a flaw's reader has already.
fn rate(error: &RateSpecError) -> String {
    match error {
        RateSpecError::Granularity(granularity) => format!("is {granularity:?}; make it 1s or longer"),
        RateSpecError::Window { window, granularity } => {
            format!("is {window:?}, shorter than the granularity {granularity:?}; make it at least as long")
        }
        RateSpecError::TooLong(window) => format!("is {window:?}; make it 24h or shorter"),
    }
}
