//! What gateways have shown of objects, as scalers tell it, and what an object's status says of it.
//!
//! Every gateway tells every scaler the same, since that scaler started. So the operator, too, knows nothing when it
//! starts: until scalers have answered, an object goes on saying what it has said.
//!
//! Nothing of this makes an object not ready ([`crate::standing::READY`]): that would stop a delivery pipeline that
//! waits for objects where gateways come later, and would go to and fro with every gateway that restarts, or with a
//! canary that is no object's target on purpose. The message of `Ready` says it, and a condition of its own.

#[cfg(test)]
mod tests;

use crate::{
    lag::{self, Lag, Lags},
    standing::{CONFLICTED, Finding, GATEWAY_LINKED, TARGET_MISMATCH, Truth},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use sluice_core::route::Kind;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// How long an answer of a scaler's may be: more than it lists at most.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// In how many rounds one after the other nobody may be linked before objects say so: a gateway that restarts is back
/// sooner.
const ALONE: u32 = 3;
/// For how many rounds an object says that requests went elsewhere, after the last that did.
const QUIET: u64 = 20;

/// An object's kind, namespace and name.
pub type Key = (Kind, String, String);

/// A scaler's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How many workers of gateways are linked to it.
    pub workers: u64,
    /// What it knows of objects.
    pub objects: BTreeMap<Key, Seen>,
}

/// What a scaler knows of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its last wakes, if there were any.
    pub lag: Option<Lag>,
    /// How many requests met its rules and went elsewhere.
    pub mismatches: u64,
    /// Which older object has its requests, and how to mend it.
    pub conflict: Option<String>,
}

/// Whom a round concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// Every object.
    All,
    /// These.
    These(BTreeSet<Key>),
}

/// What all scalers have said, round by round.
#[derive(Debug, Default)]
pub struct Evidence {
    /// How many rounds there were in which one answered.
    rounds: u64,
    /// Whether a gateway is linked; `None`: it cannot be said yet.
    linked: Option<bool>,
    /// In how many rounds until now nobody was linked.
    alone: u32,
    lags: Lags,
    conflicts: BTreeMap<Key, String>,
    /// How many requests went elsewhere, as each scaler said last.
    counted: BTreeMap<SocketAddr, BTreeMap<Key, u64>>,
    /// The last round in which more of them had done so.
    astray: BTreeMap<Key, u64>,
}

/// A scaler's `/debug/evidence`.
#[derive(Debug, Deserialize)]
struct Said {
    workers: u64,
    objects: Vec<Entry>,
}

/// One entry of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    namespace: String,
    name: String,
    endpoint_lag: Option<Lag>,
    #[serde(default)]
    mismatches: u64,
    conflict: Option<String>,
}

/// What a scaler says.
///
/// # Errors
/// If it does not read.
pub fn read(answer: &[u8]) -> Result<Answer, serde_json::Error> {
    let said: Said = serde_json::from_slice(answer)?;
    let objects = said.objects.into_iter().filter_map(|it| {
        let kind = match it.kind.as_str() {
            "HTTPScaledObject" => Kind::HttpScaledObject,
            "InterceptorRoute" => Kind::InterceptorRoute,
            _ => return None,
        };
        let seen = Seen { lag: it.endpoint_lag, mismatches: it.mismatches, conflict: it.conflict };
        Some(((kind, it.namespace, it.name), seen))
    });
    Ok(Answer { workers: said.workers, objects: objects.collect() })
}

// === impl Evidence ===

impl Evidence {
    /// Whether a gateway is linked, as far as that is known.
    pub fn is_linked(&self) -> Option<bool> {
        self.linked
    }

    /// Takes in what was answered in one round; `is_all`: everybody that was asked has answered.
    pub fn take(&mut self, answers: BTreeMap<SocketAddr, Answer>, is_all: bool) -> Concerned {
        if answers.is_empty() {
            return Concerned::These(BTreeSet::new());
        }
        self.rounds = self.rounds.saturating_add(1);
        let had = self.linked;
        self.link(&answers, is_all);
        let mut concerned = self.stray(&answers);
        let conflicts = answers.values().flat_map(|answer| {
            answer.objects.iter().filter_map(|(key, seen)| Some((key.clone(), seen.conflict.clone()?)))
        });
        let conflicts: BTreeMap<Key, String> = conflicts.collect();
        let lags = answers.into_values().map(|answer| {
            let lags = answer.objects.into_iter().filter_map(|(key, seen)| Some((key, seen.lag?)));
            lags.collect::<Lags>()
        });
        let lags = lag::together(lags);
        differing(&mut concerned, &self.lags, &lags);
        differing(&mut concerned, &self.conflicts, &conflicts);
        (self.lags, self.conflicts) = (lags, conflicts);
        // What an object goes on saying since nobody knew better ends with these.
        if self.linked != had || self.rounds == 1 || self.rounds == QUIET {
            return Concerned::All;
        }
        Concerned::These(concerned)
    }

    /// What an object's status is to say, where it has said `before` until now.
    pub fn findings(&self, key: &Key, before: &[Condition]) -> Vec<Finding> {
        let kept = |type_, truth, reason| kept(before, type_, truth, reason);
        let linked = match self.linked {
            Some(true) => {
                Some(Finding::yes(GATEWAY_LINKED, "Linked", "a gateway is linked to Sluice's scaler"))
            }
            Some(false) => Some(Finding::no(GATEWAY_LINKED, "NoGateway", NO_GATEWAY)),
            None => kept(GATEWAY_LINKED, Truth::True, "Linked")
                .or_else(|| kept(GATEWAY_LINKED, Truth::False, "NoGateway")),
        };
        let conflict = match self.conflicts.get(key) {
            Some(message) => Some(Finding::yes(CONFLICTED, "ShadowedBy", message.clone())),
            None if self.rounds == 0 => kept(CONFLICTED, Truth::True, "ShadowedBy"),
            None => None,
        };
        let astray = match self.astray.contains_key(key) {
            true => Some(Finding::yes(TARGET_MISMATCH, "RoutedElsewhere", ASTRAY)),
            // It cannot be known yet that it is over.
            false if self.rounds < QUIET => kept(TARGET_MISMATCH, Truth::True, "RoutedElsewhere"),
            false => None,
        };
        let prompt = lag::finding(self.lags.get(key).copied(), before);
        [linked, conflict, astray, prompt].into_iter().flatten().collect()
    }

    fn link(&mut self, answers: &BTreeMap<SocketAddr, Answer>, is_all: bool) {
        if answers.values().any(|answer| answer.workers > 0) {
            (self.linked, self.alone) = (Some(true), 0);
        } else if is_all {
            self.alone = self.alone.saturating_add(1);
            if self.alone >= ALONE {
                self.linked = Some(false);
            }
        }
    }

    /// Whose requests have begun to go elsewhere, and whose do so no more.
    fn stray(&mut self, answers: &BTreeMap<SocketAddr, Answer>) -> BTreeSet<Key> {
        let before: BTreeSet<Key> = self.astray.keys().cloned().collect();
        for (scaler, answer) in answers {
            let some = answer.objects.iter().filter(|(_, seen)| seen.mismatches > 0);
            let now: BTreeMap<Key, u64> = some.map(|(key, seen)| (key.clone(), seen.mismatches)).collect();
            let last = self.counted.insert(*scaler, now.clone());
            // What one says first may have been long ago.
            let Some(last) = last else { continue };
            let more = now.into_iter().filter(|(key, count)| *count > last.get(key).copied().unwrap_or(0));
            self.astray.extend(more.map(|(key, _)| (key, self.rounds)));
        }
        self.astray.retain(|_, round| self.rounds.saturating_sub(*round) < QUIET);
        let now: BTreeSet<Key> = self.astray.keys().cloned().collect();
        before.symmetric_difference(&now).cloned().collect()
    }

    /// These are the scalers that there are.
    pub fn retain(&mut self, scalers: &BTreeSet<SocketAddr>) {
        self.counted.retain(|scaler, _| scalers.contains(scaler));
    }
}

const NO_GATEWAY: &str = "no gateway is linked to Sluice's scaler, so requests are neither counted nor held. Apply the \
    EnvoyFilter to the gateway, and see that the gateway reaches the scaler's Service: its statistics sluice_links_up and \
    sluice_link_failures_total say whether it does";

const ASTRAY: &str = "in the last minutes, requests met this object's rules, but the gateway's route sent them to another \
    cluster than this object's target; they were neither counted nor held. Point the route of these hosts and paths at \
    the target, or narrow the rules";

/// The keys of which `now` says something else than `before`.
fn differing<T: PartialEq>(keys: &mut BTreeSet<Key>, before: &BTreeMap<Key, T>, now: &BTreeMap<Key, T>) {
    let new = now.iter().filter(|(key, it)| before.get(*key) != Some(it)).map(|(key, _)| key);
    let gone = before.keys().filter(|key| !now.contains_key(*key));
    keys.extend(new.chain(gone).cloned());
}

/// The same as before; nothing of what is not the operator's own words.
pub(crate) fn kept(
    before: &[Condition],
    type_: &'static str,
    truth: Truth,
    reason: &'static str,
) -> Option<Finding> {
    let before = before.iter().find(|it| it.type_ == type_)?;
    let is_ours = before.status == truth.as_str() && before.reason == reason;
    is_ours.then(|| Finding { type_, truth, reason, message: before.message.clone() })
}
