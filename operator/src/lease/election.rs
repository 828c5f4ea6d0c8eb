//! The election's calls.

use super::{Candidate, LEASE, Step};
use futures::StreamExt;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::PostParams,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use std::{
    pin::pin,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Whether this replica may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reign {
    /// Nothing is known of the Lease yet.
    Unasked,
    /// Another one may.
    No,
    /// Until then, unless it is renewed.
    Until(Instant),
    /// There is no election.
    Always,
}

impl Reign {
    /// Whether a write may begin now.
    pub fn holds(self, now: Instant) -> bool {
        match self {
            Self::Unasked | Self::No => false,
            Self::Until(end) => now < end,
            Self::Always => true,
        }
    }

    /// Whether this replica is the one, as far as it knows.
    pub fn leads(self) -> bool {
        matches!(self, Self::Until(_) | Self::Always)
    }
}

/// Takes part in the election until dropped, and keeps `reign` at what came of it.
pub async fn run(leases: Api<Lease>, mut candidate: Candidate, reign: watch::Sender<Reign>) {
    let timing = candidate.timing();
    let mut ticks = tokio::time::interval(timing.retry_period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A Lease that is handed back is taken at once, not at the next tick. Without the right to watch it, or while the
    // watch is broken, ticks do.
    let mut changes = pin!(watch_object(leases.clone(), LEASE).default_backoff());
    loop {
        loop {
            tokio::select! {
                _ = ticks.tick() => break,
                Some(change) = changes.next() => match change {
                    Ok(lease) if !candidate.is_held(lease.as_ref()) => break,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, lease = LEASE, "the Lease cannot be watched"),
                },
            }
        }
        // The end of a reign is reckoned from before the call: the API server may have taken it at once.
        let begun = Instant::now();
        let attempt = tokio::time::timeout(patience(timing.renew_deadline), attempt(&leases, &mut candidate));
        let outcome = match attempt.await {
            Ok(Ok(outcome)) => Some(outcome),
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = LEASE, "the Lease can be neither read nor written");
                None
            }
            Err(_) => {
                tracing::warn!(lease = LEASE, "no answer about the Lease");
                None
            }
        };
        let next = match outcome {
            Some(Outcome::Held) => Reign::Until(begun + timing.renew_deadline),
            Some(Outcome::Another) => Reign::No,
            // Not renewed: a reign goes on to its own end.
            None => match *reign.borrow() {
                Reign::Until(end) if Instant::now() >= end => Reign::No,
                reign => reign,
            },
        };
        reign.send_if_modified(|reign| {
            let has = next.leads();
            if reign.leads() != has {
                tracing::info!(name = candidate.name(), leads = has, "leadership changed");
            }
            std::mem::replace(reign, next) != next
        });
    }
}

/// Hands the Lease back, if it is this replica's.
///
/// # Errors
/// In the API server's words; the Lease expires by itself then.
pub async fn release(leases: &Api<Lease>, candidate: &Candidate) -> kube::Result<()> {
    // A renewal that was under way when the election ended may come in between, once.
    let mut again = true;
    loop {
        let Some(lease) = leases.get_opt(LEASE).await? else { return Ok(()) };
        let Some(lease) = candidate.hand_back(&lease, Timestamp::now()) else { return Ok(()) };
        match leases.replace(LEASE, &PostParams::default(), &lease).await {
            Ok(_) => {
                tracing::info!(lease = LEASE, "handed the Lease back");
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 && again => again = false,
            Err(error) => return Err(error),
        }
    }
}

/// A call that takes longer has no place before the deadline.
fn patience(renew_deadline: Duration) -> Duration {
    renew_deadline / 2
}

enum Outcome {
    Held,
    Another,
}

async fn attempt(leases: &Api<Lease>, candidate: &mut Candidate) -> kube::Result<Outcome> {
    let lease = leases.get_opt(LEASE).await?;
    let written = match candidate.look(lease.as_ref(), Instant::now(), Timestamp::now()) {
        Step::Wait { holder } => {
            tracing::debug!(holder, "standing by");
            return Ok(Outcome::Another);
        }
        Step::Create(lease) => leases.create(&PostParams::default(), &lease).await,
        Step::Replace(lease) => leases.replace(LEASE, &PostParams::default(), &lease).await,
    };
    match written {
        Ok(_) => Ok(Outcome::Held),
        // Somebody was faster. If that was this replica itself (an answer that was lost), the next look shows it.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Another),
        Err(error) => Err(error),
    }
}
