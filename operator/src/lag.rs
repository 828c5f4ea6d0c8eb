//! Whether a gateway hears soon enough that an app is ready: what scalers have measured, and what an object says of it.
//!
//! It says something only after some wakes, and goes on saying it until the next wakes say otherwise: neither a scaler
//! that does not answer nor one that has just started knows better.

#[cfg(test)]
mod tests;

use crate::{
    evidence::{Key, kept},
    standing::{ENDPOINTS_PROMPT, Finding, Truth},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
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

/// Upper bounds of what a message tells apart: it is written anew only when an object goes from one to another.
const WORDS: [(u64, &str); 5] = [
    (LATE_US, "up to 50 ms"),
    (200_000, "50 to 200 ms"),
    (1_000_000, "200 ms to 1 s"),
    (5_000_000, "1 to 5 s"),
    (u64::MAX, "more than 5 s"),
];

/// What was measured, by object.
pub type Lags = BTreeMap<Key, Lag>;

/// An object's last wakes, as a scaler has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    /// How many.
    pub wakes: u64,
    /// From "ready" to the gateway's endpoints usable, in microseconds: the median.
    pub lag_us: u64,
    /// How long requests were held, in microseconds: the mean; `None` if none was released.
    pub hold_us: Option<u64>,
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
    if let Some(lag) = lag.filter(|lag| lag.wakes >= ENOUGH) {
        let is_late = |it: &Condition| it.type_ == ENDPOINTS_PROMPT && it.status == Truth::False.as_str();
        return Some(lag.finding(before.iter().any(is_late)));
    }
    kept(before, ENDPOINTS_PROMPT, Truth::True, "Prompt")
        .or_else(|| kept(before, ENDPOINTS_PROMPT, Truth::False, "Late"))
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
