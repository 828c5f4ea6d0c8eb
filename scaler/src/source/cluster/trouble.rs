//! Why a kind cannot be followed, and when to try again.

use super::super::{ObjectKind, Problem};
use kube::{core::Status, runtime::watcher};
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// How soon to try again at first. An API server that restarts is back within seconds, and news wait.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// How long to wait at most.
const LAST_DELAY: Duration = Duration::from_secs(10);
/// How often to look for a kind that is not installed.
const NOT_INSTALLED_DELAY: Duration = Duration::from_secs(5);

/// Why a kind cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The API server does not know the kind.
    NotInstalled,
    /// The scaler has not the right to.
    Denied(String),
    /// The API server does not know, or not any more, what changed since then: only a list tells.
    Expired(String),
    /// Anything else: it is away, the connection broke.
    Away(String),
}

/// When to try again: later every time, and never at the same time as all others.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

// === impl Trouble ===

impl Trouble {
    /// Of an error of the API server's.
    fn of_status(status: &Status) -> Self {
        let message = || match &status.message {
            message if message.is_empty() => format!("status {}", status.code),
            message => message.clone(),
        };
        match status.code {
            401 | 403 => Self::Denied(message()),
            404 => Self::NotInstalled,
            // 400 and 504: a version that the server cannot make sense of, or has not reached, after its data was
            // put back from a backup.
            400 | 410 | 504 => Self::Expired(message()),
            _ => Self::Away(message()),
        }
    }

    /// Of an error of the watcher's.
    pub(super) fn of_watcher(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::of_error(error),
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::NoResourceVersion => Self::Away(error.to_string()),
        }
    }

    /// Of an error of the client's.
    fn of_error(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            error => Self::Away(chain(error)),
        }
    }

    /// What is said of it while it lasts. `is_known`: whether the kind has been listed.
    pub(super) fn problem(&self, kind: ObjectKind, is_known: bool) -> Option<Problem> {
        let state =
            if is_known { "what was known of them stays in force" } else { "nothing is known of them" };
        let name = kind.name();
        let message = match self {
            Self::NotInstalled => format!(
                "the API server does not know {} {name}; install its CRD if you use it. Until then {state}",
                kind.api_version()
            ),
            Self::Denied(error) => format!(
                "{name}s cannot be followed: {error}; give the scaler the rights of install/scaler.yaml. Until then \
                 {state}"
            ),
            Self::Away(error) => format!("{name}s cannot be followed: {error}; {state}, trying again"),
            // The list that follows says all that there is to say.
            Self::Expired(_) => return None,
        };
        Some(Problem { source: format!("watch of {name}"), field: String::new(), message })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled => f.write_str("the API server does not know the kind"),
            Self::Denied(error) | Self::Away(error) | Self::Expired(error) => f.write_str(error),
        }
    }
}

/// An error with its causes, where these say more.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST_DELAY }
    }
}

impl Backoff {
    /// All is well.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// How long to wait because of that.
    pub(super) fn delay(&mut self, trouble: &Trouble) -> Duration {
        let delay = if *trouble == Trouble::NotInstalled {
            // Quiet: a CRD that is not there may never come.
            NOT_INSTALLED_DELAY
        } else {
            let delay = self.next;
            self.next = (delay * 2).min(LAST_DELAY);
            delay
        };
        // Between half of it and all of it. Anything random will do, and this is at hand.
        let share = u32::try_from(RandomState::new().hash_one(()) % 512).unwrap_or_default();
        delay / 2 + delay / 1_024 * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Trouble {
        let error = kube::Error::Api(Status::failure("says why", "Reason").with_code(code).boxed());
        Trouble::of_error(&error)
    }

    #[test]
    fn what_the_api_server_says_is_told_apart() {
        for (code, trouble) in [
            (401, Trouble::Denied("says why".to_owned())),
            (403, Trouble::Denied("says why".to_owned())),
            (404, Trouble::NotInstalled),
            (410, Trouble::Expired("says why".to_owned())),
            (504, Trouble::Expired("says why".to_owned())),
            (429, Trouble::Away("says why".to_owned())),
            (500, Trouble::Away("says why".to_owned())),
            (503, Trouble::Away("says why".to_owned())),
        ] {
            assert_eq!(status(code), trouble, "{code}");
        }
    }

    #[test]
    fn a_problem_names_the_kind_what_to_do_and_what_holds_until_then() {
        let denied = status(403).problem(ObjectKind::Service, false).unwrap();
        assert_eq!(denied.source, "watch of Service");
        assert!(denied.message.contains("says why") && denied.message.contains("install/scaler.yaml"));
        assert!(denied.message.contains("nothing is known"), "{}", denied.message);
        let away = status(503).problem(ObjectKind::EndpointSlice, true).unwrap();
        assert!(away.message.contains("stays in force"), "{}", away.message);
        let missing = status(404).problem(ObjectKind::InterceptorRoute, false).unwrap();
        assert!(missing.message.contains("http.keda.sh/v1beta1 InterceptorRoute"), "{}", missing.message);
        assert_eq!(status(410).problem(ObjectKind::Service, true), None);
    }

    #[test]
    fn delays_grow_to_a_limit_and_start_again() {
        let away = status(503);
        let mut backoff = Backoff::default();
        let first = backoff.delay(&away);
        assert!((FIRST_DELAY / 2..=FIRST_DELAY).contains(&first), "{first:?}");
        let last = (0..20).map(|_| backoff.delay(&away)).last().unwrap();
        assert!((LAST_DELAY / 2..=LAST_DELAY).contains(&last), "{last:?}");
        let quiet = backoff.delay(&Trouble::NotInstalled);
        assert!((NOT_INSTALLED_DELAY / 2..=NOT_INSTALLED_DELAY).contains(&quiet), "{quiet:?}");
        backoff.reset();
        assert!(backoff.delay(&away) <= FIRST_DELAY);
    }
}
