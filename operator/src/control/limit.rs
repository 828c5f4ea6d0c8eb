//! How long the API server is waited for.
//!
//! A connection that dies without a word keeps its call for ever, and with a few such calls nothing is in hand any
//! more but them. So every call has an end. A write has to be over, besides, before another replica may lead, and is by
//! the end of the reign under which it began, whatever came of it:
//!
//! ```text
//!  0 s   the last renewal that succeeds is sent: the reign lasts for the renew deadline from here, however long the
//!        answer takes
//!  5 s   a write that begins until here has its whole CALL_LIMIT, a later one has what is left of the reign
//! 10 s   renew deadline: no write begins, and none is out any more
//! 15 s   lease duration, and later, since the others reckon from when they saw the renewal: one of them leads
//! ```
//!
//! That the renew deadline is less than the lease duration is checked with the settings. At a graceful end the Lease is
//! renewed until what was in hand is over or dropped, and handed back after that.

use crate::lease::Reign;
use std::time::{Duration, Instant};

/// Longest wait for one answer.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(5);

// At a graceful end a call that nobody answers is over before what is in hand is cut short.
const _: () = assert!(CALL_LIMIT.as_millis() <= super::FINISH_PATIENCE.as_millis());

/// Nobody has answered.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct Late(Duration);

/// Leave to write, as long as it lasts.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    end: Instant,
}

// === impl Permit ===

impl Permit {
    /// What a reign permits that lasts now.
    pub(super) fn of(reign: Reign, now: Instant) -> Option<Self> {
        let most = now + CALL_LIMIT;
        match reign {
            Reign::Until(end) if now < end => Some(Self { end: end.min(most) }),
            Reign::Always => Some(Self { end: most }),
            Reign::Until(_) | Reign::No | Reign::Unasked => None,
        }
    }

    /// Waits for a write that it permits; several writes share the time.
    pub(super) async fn call<T>(self, write: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        within(self.end.saturating_duration_since(Instant::now()), write).await
    }
}

/// Waits for a call that changes nothing of ours.
pub(super) async fn answer<T>(call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    within(CALL_LIMIT, call).await
}

async fn within<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome,
        // To the tenth, for people.
        Err(_) => {
            let tenths = u64::try_from(limit.as_millis().div_ceil(100)).unwrap_or(u64::MAX);
            Err(kube::Error::Service(Box::new(Late(Duration::from_millis(tenths.saturating_mul(100))))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Timing;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_write_is_over_before_another_may_lead() {
        let timing =
            Timing { lease_duration: 15 * SECOND, renew_deadline: 10 * SECOND, retry_period: 2 * SECOND };
        let renewed = Instant::now();
        let reign = Reign::Until(renewed + timing.renew_deadline);
        for millisecond in 0..20_000 {
            let now = renewed + Duration::from_millis(millisecond);
            let Some(permit) = Permit::of(reign, now) else {
                assert!(now >= renewed + timing.renew_deadline);
                continue;
            };
            assert!(permit.end <= now + CALL_LIMIT);
            assert!(permit.end < renewed + timing.lease_duration);
        }
        assert!(Permit::of(Reign::No, renewed).is_none());
        assert!(Permit::of(Reign::Unasked, renewed).is_none());
        assert_eq!(Permit::of(Reign::Always, renewed).unwrap().end, renewed + CALL_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_says_so() {
        let never = std::future::pending::<kube::Result<()>>;
        let error = answer(never()).await.unwrap_err().to_string();
        assert!(error.contains("no answer within 5s"), "{error}");
        let permit = Permit { end: Instant::now() + SECOND };
        let error = permit.call(never()).await.unwrap_err().to_string();
        assert!(error.contains("no answer within 1s"), "{error}");
        assert!(answer(async { Ok(()) }).await.is_ok());
    }
}
