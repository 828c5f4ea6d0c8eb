//! How an object fares, and what of it its status says.
//!
//! A status is written only if it says something else than before, and a condition's time is that of its change.

#[cfg(test)]
mod tests;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde_json::{Value, json};

/// The condition that sums up all others.
pub const READY: &str = "Ready";
/// Whether the object itself can be acted on.
pub const ACCEPTED: &str = "Accepted";
/// Whether what the object names is there: its Service and the Service's port.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Whether a ScaledObject scales the app on this object's requests, and KEDA says that it can.
pub const SCALED_OBJECT_READY: &str = "ScaledObjectReady";

/// With isolation: whether the filter is enabled where the object's requests come.
pub const FILTER_ENABLED: &str = "FilterEnabled";

/// Where an object says how the gateway connects to the app: whether the gateway does so.
pub const UPSTREAM_APPLIED: &str = "UpstreamApplied";

/// Of an app that has woken some times: whether the gateway heard of it soon enough. A request waits longer where it
/// does not, and that is all: [`READY`] is none the less.
pub const ENDPOINTS_PROMPT: &str = "EndpointsPrompt";

/// Whether a gateway is linked to a scaler: without one nothing is counted or held. Not there before scalers were asked.
pub const GATEWAY_LINKED: &str = "GatewayLinked";

/// There while requests meet the object's rules and go to another cluster than its target.
pub const TARGET_MISMATCH: &str = "TargetMismatch";

/// There while an older object asks for the same requests to the same target, and so has them.
pub const CONFLICTED: &str = "Conflicted";

/// What [`READY`] says first when all is well.
pub const COUNTED: &str = "requests through linked gateways are counted and held";

/// Conditions of ours that not every object has: one that an object has no more goes.
const SOMETIMES: [&str; 6] =
    [FILTER_ENABLED, UPSTREAM_APPLIED, ENDPOINTS_PROMPT, GATEWAY_LINKED, TARGET_MISMATCH, CONFLICTED];

/// What gateways have shown: no reason not to be ready, see [`crate::evidence`].
const SHOWN: [&str; 4] = [ENDPOINTS_PROMPT, GATEWAY_LINKED, TARGET_MISMATCH, CONFLICTED];

/// What is said instead of [`COUNTED`] where one of these is so: the first of them.
const DOUBTS: [(&str, Truth, &str); 3] = [
    (
        GATEWAY_LINKED,
        Truth::False,
        "requests are neither counted nor held, since no gateway is linked (see GatewayLinked)",
    ),
    (
        CONFLICTED,
        Truth::True,
        "requests are counted and held but for those that an older object has (see Conflicted)",
    ),
    (
        TARGET_MISMATCH,
        Truth::True,
        "requests are counted and held but for those that go elsewhere (see TargetMismatch)",
    ),
];

/// Longest message that a condition's schema takes.
const MAX_MESSAGE: usize = 32_768;

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It is.
    True,
    /// It is not, and somebody has to do something.
    False,
    /// It is not known yet.
    Unknown,
}

/// One thing that is so or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type.
    pub type_: &'static str,
    /// Whether it is so.
    pub truth: Truth,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, and how to mend it.
    pub message: String,
}

/// All that an object's status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The object's generation that this is about.
    pub generation: Option<i64>,
    /// The conditions but [`READY`], the one to mend first coming first.
    pub findings: Vec<Finding>,
    /// What [`READY`] says when all is well.
    pub well: String,
    /// `status.targetWorkload`, where the kind has it.
    pub target_workload: Option<String>,
    /// `status.targetService`, where the kind has it.
    pub target_service: Option<String>,
}

/// A status as the API server has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written<'a> {
    /// `status.observedGeneration`.
    pub generation: Option<i64>,
    /// `status.conditions`.
    pub conditions: &'a [Condition],
    /// `status.targetWorkload`.
    pub target_workload: Option<&'a str>,
    /// `status.targetService`.
    pub target_service: Option<&'a str>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The status, as a merge patch of it.
    pub status: Value,
    /// [`READY`], if people have to hear of it: it is new, or it says something else than before.
    pub news: Option<Finding>,
}

// === impl Truth ===

impl Truth {
    /// As conditions say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

// === impl Finding ===

impl Finding {
    /// It is so.
    pub fn yes(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, truth: Truth::True, reason, message: message.into() }
    }

    /// It is not so.
    pub fn no(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, truth: Truth::False, reason, message: message.into() }
    }

    /// It is not known yet.
    pub fn pending(type_: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { type_, truth: Truth::Unknown, reason, message: message.into() }
    }

    fn condition(&self, generation: Option<i64>, before: &[Condition], now: Timestamp) -> Condition {
        let same = before.iter().find(|it| it.type_ == self.type_ && it.status == self.truth.as_str());
        let mut message = self.message.clone();
        if message.len() > MAX_MESSAGE {
            // Where a character ends: `truncate` panics in the middle of one.
            let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
        }
        Condition {
            type_: self.type_.to_owned(),
            status: self.truth.as_str().to_owned(),
            reason: self.reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: same.map_or(Time(now), |same| same.last_transition_time.clone()),
        }
    }
}

// === impl Standing ===

impl Standing {
    /// The sum of all findings: the first that is false, or else the first that is not known.
    pub fn ready(&self) -> Finding {
        let counts = |finding: &&Finding| !SHOWN.contains(&finding.type_);
        let first = |truth| self.findings.iter().filter(counts).find(|finding| finding.truth == truth);
        match first(Truth::False).or_else(|| first(Truth::Unknown)) {
            Some(finding) => Finding { type_: READY, ..finding.clone() },
            // The add-on's reason.
            None => Finding::yes(READY, "Reconciled", self.well()),
        }
    }

    fn well(&self) -> String {
        let is = |(type_, truth, _): &&(&str, Truth, &str)| {
            self.findings.iter().any(|finding| finding.type_ == *type_ && finding.truth == *truth)
        };
        match DOUBTS.iter().find(is) {
            Some((_, _, instead)) => self.well.replacen(COUNTED, instead, 1),
            None => self.well.clone(),
        }
    }

    /// What to write over `before`; `None` if that says it already. Conditions of other types, somebody else's, stay.
    pub fn update(&self, before: Written<'_>, now: Timestamp) -> Option<Update> {
        let ready = self.ready();
        let ours: Vec<Condition> = [&ready]
            .into_iter()
            .chain(&self.findings)
            .map(|finding| finding.condition(self.generation, before.conditions, now))
            .collect();
        let is_others = |it: &&Condition| {
            !SOMETIMES.contains(&it.type_.as_str()) && ours.iter().all(|ours| ours.type_ != it.type_)
        };
        let others = before.conditions.iter().filter(is_others);
        let conditions: Vec<Condition> = ours.iter().chain(others).cloned().collect();
        let said = before.conditions.iter().find(|it| it.type_ == READY);
        // The add-on's definition has no `observedGeneration` but those of conditions, so that none is kept.
        let generation = before.generation.or_else(|| said?.observed_generation);
        let same = Written {
            generation: self.generation,
            conditions: &conditions,
            target_workload: self.target_workload.as_deref(),
            target_service: self.target_service.as_deref(),
        };
        if same.is(Written { generation, ..before }) {
            return None;
        }
        let is_said = |it: &Condition| {
            let said = (it.status.as_str(), it.reason.as_str(), it.message.as_str());
            said == (ready.truth.as_str(), ready.reason, ready.message.as_str())
        };
        let news = if said.is_some_and(is_said) { None } else { Some(ready) };
        let mut status = json!({"observedGeneration": self.generation, "conditions": conditions});
        // Only where there is or was one: an InterceptorRoute has neither field.
        let texts = [
            ("targetWorkload", &self.target_workload, before.target_workload),
            ("targetService", &self.target_service, before.target_service),
        ];
        for (field, text, before) in texts {
            if text.is_some() || before.is_some() {
                status[field] = json!(text);
            }
        }
        Some(Update { status, news })
    }
}

// === impl Written ===

impl Written<'_> {
    fn is(self, other: Written<'_>) -> bool {
        self.generation == other.generation
            && self.conditions == other.conditions
            && self.target_workload == other.target_workload
            && self.target_service == other.target_service
    }
}
