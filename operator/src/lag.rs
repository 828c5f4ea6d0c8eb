//! Whether a gateway hears soon enough that an app is ready: what scalers have measured, and what an object says of it.
//!
//! It says something only after some wakes, and goes on saying it until the next wakes say otherwise: neither a scaler
//! that does not answer nor one that has just started knows better.

#[cfg(test)]
mod tests;

use crate::standing::{ENDPOINTS_PROMPT, Finding, Truth};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use sluice_core::route::Kind;
use std::collections::BTreeMap;

/// How many wakes it takes to say something.
const ENOUGH: u64 = 3;
/// From here on endpoints are late: half of istiod's debounce of 100 ms. Without the debounce they are there after some
/// 10 ms, also where the machine is busy; with it never before 100 ms.
const LATE_US: u64 = 50_000;
/// Endpoints that were late are prompt again below this.
const PROMPT_US: u64 = 25_000;
/// A shorter part of the time that requests are held is nobody's trouble: with an app that takes half a minute to start
/// istiod's 100 ms are not seen. What was seen has to become half of that.
const SEEN_OF_HOLD: u64 = 20;
/// How long an answer of a scaler's may be: more than it lists at most.
pub const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Upper bounds of what a message tells apart: it is written anew only when an object goes from one to another.
const WORDS: [(u64, &str); 5] = [
    (LATE_US, "up to 50 ms"),
    (200_000, "50 to 200 ms"),
    (1_000_000, "200 ms to 1 s"),
    (5_000_000, "1 to 5 s"),
    (u64::MAX, "more than 5 s"),
];

/// An object's kind, namespace and name.
pub type Key = (Kind, String, String);

/// What was measured, by object.
pub type Lags = BTreeMap<Key, Lag>;

/// An object's last wakes, as a scaler has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// How many.
    pub wakes: u64,
    /// From "ready" to the gateway's endpoints usable, in microseconds: the median.
    pub lag_us: u64,
    /// How long requests were held, in microseconds: the mean; `None` if none was released.
    pub hold_us: Option<u64>,
}

/// One entry of a scaler's `/debug/endpoint-lag`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    namespace: String,
    name: String,
    wakes: u64,
    lag_us: u64,
    hold_us: Option<u64>,
}

/// What a scaler says.
///
/// # Errors
/// If it does not read.
pub fn read(answer: &[u8]) -> Result<Lags, serde_json::Error> {
    let entries: Vec<Entry> = serde_json::from_slice(answer)?;
    let lags = entries.into_iter().filter_map(|it| {
        let kind = match it.kind.as_str() {
            "HTTPScaledObject" => Kind::HttpScaledObject,
            "InterceptorRoute" => Kind::InterceptorRoute,
            _ => return None,
        };
        let lag = Lag { wakes: it.wakes, lag_us: it.lag_us, hold_us: it.hold_us };
        Some(((kind, it.namespace, it.name), lag))
    });
    Ok(lags.collect())
}

/// What several scalers say: every gateway tells all of them the same, and one that has started since knows less.
pub fn together(all: impl IntoIterator<Item = Lags>) -> Lags {
    let mut together = Lags::new();
    for (key, lag) in all.into_iter().flatten() {
        let known = together.entry(key).or_insert(lag);
        // The order in which they answer must not matter.
        if (lag.wakes, lag.lag_us) > (known.wakes, known.lag_us) {
            *known = lag;
        }
    }
    together
}

/// What an object's status is to say, where it has said `before` until now.
pub fn finding(lag: Option<Lag>, before: &[Condition]) -> Option<Finding> {
    let before = before.iter().find(|it| it.type_ == ENDPOINTS_PROMPT);
    match lag.filter(|lag| lag.wakes >= ENOUGH) {
        Some(lag) => Some(lag.finding(before.is_some_and(|it| it.status == Truth::False.as_str()))),
        None => before.and_then(kept),
    }
}

/// The same as before; nothing of what is not the operator's own words.
fn kept(before: &Condition) -> Option<Finding> {
    let (truth, reason) = [(Truth::True, "Prompt"), (Truth::False, "Late")]
        .into_iter()
        .find(|(truth, reason)| truth.as_str() == before.status && *reason == before.reason)?;
    Some(Finding { type_: ENDPOINTS_PROMPT, truth, reason, message: before.message.clone() })
}

// === impl Lag ===

impl Lag {
    fn finding(self, was_late: bool) -> Finding {
        if !self.is_late(was_late) {
            let message = "after the last Pods were ready, requests hardly waited any longer for the gateway to hear of it";
            return Finding::yes(ENDPOINTS_PROMPT, "Prompt", message);
        }
        let words = WORDS.iter().find(|(bound, _)| self.lag_us <= *bound).map_or("long", |(_, words)| words);
        let message = format!(
            "in the last {} wakes, requests went on waiting for {words} (the median) after the app was ready, until the \
             gateway had its endpoints. istiod keeps changes for 100 ms or longer before it sends them: set \
             PILOT_ENABLE_EDS_DEBOUNCE=false on istiod, and it does not do so with endpoints. Where that is set, istiod \
             or the gateway is short of CPU",
            self.wakes
        );
        Finding::no(ENDPOINTS_PROMPT, "Late", message)
    }

    fn is_late(self, was_late: bool) -> bool {
        let (limit, of_hold) = if was_late { (PROMPT_US, 2 * SEEN_OF_HOLD) } else { (LATE_US, SEEN_OF_HOLD) };
        let is_seen = self.hold_us.is_none_or(|hold| self.lag_us.saturating_mul(of_hold) >= hold);
        self.lag_us > limit && is_seen
    }
}
