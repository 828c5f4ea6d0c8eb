//! Who of the replicas writes: the one that holds the Lease.
//!
//! As client-go's leader election: the Lease is renewed every retry period; a holder that has not managed to for the
//! renew deadline stops writing; the others wait for the lease duration, which is longer. A holder that ends hands
//! the Lease back, so that nobody waits.
//!
//! It is written here since what is on crates.io does not keep two writers apart, or needs another kube:
//! `kube-leader-election` (kube 4) patches without a resource version, so two candidates can both win;
//! `kube-lease-manager` judges another's Lease by comparing wall clocks; `kube-coordinate` needs kube 2, `kubert` 1.1. Here a write
//! carries the resource version that was read, and a Lease has expired only when this replica has not seen it change
//! for its duration, by its own monotonic clock.

mod election;
#[cfg(test)]
mod tests;

pub use election::{Reign, release, run};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use std::time::{Duration, Instant};

/// The Lease's name.
pub const LEASE: &str = "sluice-operator";

/// The durations of the election, longest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long the others wait for a holder that says nothing.
    pub lease_duration: Duration,
    /// How long a holder that cannot renew goes on.
    pub renew_deadline: Duration,
    /// How often the Lease is looked at or renewed.
    pub retry_period: Duration,
}

/// One replica's view of the Lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    name: String,
    timing: Timing,
    /// The Lease's version that was seen last, and when it was seen first.
    seen: Option<(String, Instant)>,
}

/// What to do with the Lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make it. If somebody was faster, that fails.
    Create(Box<Lease>),
    /// Write it. If somebody has written it since it was read, that fails.
    Replace(Box<Lease>),
    /// Somebody else holds it.
    Wait {
        /// Who.
        holder: String,
    },
}

// === impl Candidate ===

impl Candidate {
    /// A candidate of this name, which no other one has.
    pub fn new(name: String, timing: Timing) -> Self {
        Self { name, timing, seen: None }
    }

    /// The election's durations.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether somebody holds the Lease, this replica or another one.
    pub fn is_held(&self, lease: Option<&Lease>) -> bool {
        let holder = lease.and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty())
    }

    /// What to do about the Lease as it was just read. `time` is what the Lease says for people; nothing is decided
    /// by it.
    pub fn look(&mut self, lease: Option<&Lease>, now: Instant, time: Timestamp) -> Step {
        let Some(lease) = lease else {
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            let spec = self.claim(None, time);
            return Step::Create(Box::new(Lease { metadata, spec: Some(spec) }));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => now,
        };
        self.seen = Some((version, since));
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.name {
            let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let patience = seconds.map_or(self.timing.lease_duration, Duration::from_secs);
            if now.saturating_duration_since(since) < patience {
                return Step::Wait { holder: holder.to_owned() };
            }
        }
        let spec = self.claim(Some(&spec), time);
        Step::Replace(Box::new(Lease { metadata: lease.metadata.clone(), spec: Some(spec) }))
    }

    /// The Lease as it is handed back: `None` if it is not this replica's to give.
    pub fn hand_back(&self, lease: &Lease, time: Timestamp) -> Option<Lease> {
        let spec = lease.spec.clone().filter(|spec| spec.holder_identity.as_deref() == Some(&self.name))?;
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            // What client-go leaves behind; zero is not a valid duration.
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(time)),
            ..spec
        };
        Some(Lease { metadata: lease.metadata.clone(), spec: Some(spec) })
    }

    fn claim(&self, before: Option<&LeaseSpec>, time: Timestamp) -> LeaseSpec {
        let is_renewal = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.name));
        let transitions = before.map_or(0, |spec| spec.lease_transitions.unwrap_or(0).saturating_add(1));
        let spec = before.cloned().unwrap_or_default();
        let (acquire_time, lease_transitions) = if is_renewal {
            (spec.acquire_time.clone(), spec.lease_transitions)
        } else {
            (Some(MicroTime(time)), Some(transitions))
        };
        LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: Some(
                i32::try_from(self.timing.lease_duration.as_secs()).unwrap_or(i32::MAX),
            ),
            acquire_time,
            renew_time: Some(MicroTime(time)),
            lease_transitions,
            ..spec
        }
    }
}
