//! What access logs can say of a request: `%FILTER_STATE(wasm.sluice:PLAIN)%`.

use crate::host::Host;
use sluice_core::{route::RouteSpec, time::Instant};
use std::fmt::Write as _;

/// Envoy puts `wasm.` before it.
const NAME: &[u8] = b"sluice";

/// The longest namespace and name of Kubernetes, and the slash between them.
const LONGEST_ROUTE: usize = 63 + 1 + 253;

/// What became of a request so far. A request that is forwarded at once has none: to say it is a host call, and most
/// requests are such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It waits. That stays where the client leaves before the wait is over.
    Held,
    /// It has waited, and goes on to the app.
    Released,
    /// It has waited, and turned out to be none of ours.
    Passed,
    /// It has waited until its deadline.
    Expired,
    /// A limit was full.
    Refused,
    /// It goes on, since the gateway sends it elsewhere than to the target of the route that it matches.
    Mismatch,
}

impl Verdict {
    /// Tells it of the effective request: `NAMESPACE/NAME VERDICT`, and the time held. `story` is the request's route
    /// and when it arrived; what has none is `-`.
    pub(crate) fn tell(self, now: Instant, story: Option<(&RouteSpec, Instant)>, host: &mut impl Host) {
        let mut line = String::new();
        match story {
            Some((route, _)) => {
                let route = [&*route.namespace, "/", &*route.name].into_iter().flat_map(str::chars);
                line.extend(route.take(LONGEST_ROUTE));
            }
            None => line.push('-'),
        }
        line.push_str(self.word());
        if let Some((_, arrived)) = story.filter(|_| self.is_an_end_of_a_wait()) {
            // Writing to a String cannot fail.
            let _ = write!(line, " {}ms", now.since(arrived).as_millis());
        }
        host.set_property(NAME, line.as_bytes());
    }

    fn word(self) -> &'static str {
        match self {
            Self::Held => " held",
            Self::Released => " released",
            Self::Passed => " passed",
            Self::Expired => " expired",
            Self::Refused => " refused",
            Self::Mismatch => " mismatch",
        }
    }

    fn is_an_end_of_a_wait(self) -> bool {
        matches!(self, Self::Released | Self::Passed | Self::Expired)
    }
}
