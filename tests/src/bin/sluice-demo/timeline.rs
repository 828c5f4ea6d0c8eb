//! One cold start, put together from what the gateway, the stand-in and the app wrote down.

use anyhow::{Context as _, ensure};
use sluice_tests::{
    app::AppRequest,
    clock::ms_between,
    envoy::Access,
    standin::{Event, What},
};
use std::{fmt, path::PathBuf};

/// What the stand-in did for one wake, so far. All moments in microseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wake {
    told_us: Option<u64>,
    started: Option<(u64, u32)>,
    ready_us: Option<u64>,
    slice_us: Option<u64>,
    usable_us: Option<u64>,
    requests: Option<PathBuf>,
}

/// A cold start from its first request's side. All moments in microseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    status: u16,
    arrived_us: u64,
    told_us: u64,
    started_us: u64,
    pid: u32,
    ready_us: u64,
    slice_us: u64,
    /// None where the scaler tells Envoy its endpoints: it does as soon as it knows.
    usable_us: Option<u64>,
    released_us: u64,
    at_app_us: u64,
    first_byte_us: u64,
}

// === impl Wake ===

impl Wake {
    /// Takes an event in; one that begins another wake starts anew.
    pub(crate) fn add(&mut self, event: &Event) {
        match &event.what {
            What::Told => *self = Self { told_us: Some(event.at_us), ..Self::default() },
            What::ProcessStarted { pid, requests } => {
                self.started = Some((event.at_us, *pid));
                self.requests = Some(requests.clone());
            }
            What::ProcessReady => self.ready_us = Some(event.at_us),
            What::Slices { ready } if *ready > 0 => self.slice_us = Some(event.at_us),
            What::Endpoints { usable } if *usable > 0 => self.usable_us = Some(event.at_us),
            _ => {}
        }
    }

    /// Whether nothing more is to come. `has_control_plane`: one of its own tells Envoy the endpoint.
    pub(crate) fn is_done(&self, has_control_plane: bool) -> bool {
        if has_control_plane { self.usable_us.is_some() } else { self.slice_us.is_some() }
    }

    /// Where the app that was started writes its requests.
    pub(crate) fn requests(&self) -> Option<&PathBuf> {
        self.requests.as_ref()
    }

    /// Whether a request that arrived then can have caused this wake.
    pub(crate) fn was_caused_by(&self, access: &Access) -> bool {
        self.told_us.is_some_and(|told_us| access.start_us <= told_us)
            && access.released_us.zip(self.slice_us).is_some_and(|(released, slice)| released >= slice)
            && self.usable_us.is_none_or(|usable| access.released_us >= Some(usable))
    }
}

// === impl Timeline ===

impl Timeline {
    /// Puts the three views together.
    ///
    /// # Errors
    /// If one of them misses a step.
    pub(crate) fn new(access: &Access, wake: &Wake, at_app: &AppRequest) -> anyhow::Result<Self> {
        ensure!(access.status == 200, "the request was answered {} ({})", access.status, access.details);
        let (started_us, pid) = wake.started.context("no process was started")?;
        Ok(Self {
            status: access.status,
            arrived_us: access.start_us,
            told_us: wake.told_us.context("KEDA was not told")?,
            started_us,
            pid,
            ready_us: wake.ready_us.context("the app did not become ready")?,
            slice_us: wake.slice_us.context("the endpoint did not become ready")?,
            usable_us: wake.usable_us,
            released_us: access.released_us.context("the request was never sent to the app")?,
            at_app_us: at_app.at_us,
            first_byte_us: access.first_byte_us.context("the answer never began")?,
        })
    }

    /// The one line for machines. told: arrival to `true` on the stream; release: endpoint known to whoever tells
    /// Envoy (the scaler, by the EndpointSlice; or a control plane that now writes it) to request at the app.
    pub(crate) fn summary(&self) -> String {
        format!(
            "cold-start status={} held_ms={:.1} told_ms={:.2} release_ms={:.2}",
            self.status,
            ms_between(self.arrived_us, self.released_us),
            ms_between(self.arrived_us, self.told_us),
            ms_between(self.usable_us.unwrap_or(self.slice_us), self.at_app_us),
        )
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = format!("the app's process is started (pid {})", self.pid);
        let endpoint = match self.usable_us {
            Some(usable_us) => (usable_us, "the endpoint becomes usable: Envoy gets it by EDS"),
            None => (
                self.slice_us,
                "its EndpointSlice is written; Envoy gets the endpoint from the scaler, by EDS",
            ),
        };
        let steps = [
            (self.arrived_us, "the request arrives at the gateway and is held"),
            (self.told_us, "KEDA is told: true on StreamIsActive"),
            (self.started_us, started.as_str()),
            (self.ready_us, "it passes its readiness probe"),
            endpoint,
            (self.released_us, "the gateway releases the request"),
            (self.at_app_us, "it is at the app"),
            (self.first_byte_us, "first byte of the answer"),
        ];
        for (at_us, step) in steps {
            writeln!(f, "   +{:8.2} ms  {step}", ms_between(self.arrived_us, at_us))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_us: u64, what: What) -> Event {
        Event { at_us, what }
    }

    fn access() -> Access {
        Access {
            start_us: 1_000_000,
            released_us: Some(1_300_000),
            first_byte_us: Some(1_301_000),
            status: 200,
            details: String::new(),
            authority: String::new(),
            id: "a".to_owned(),
            sluice: None,
        }
    }

    fn at_app() -> AppRequest {
        AppRequest {
            at_us: 1_300_400,
            sequence: 0,
            connection: 1,
            version: String::new(),
            method: String::new(),
            path: String::new(),
            id: "a".to_owned(),
        }
    }

    fn wake() -> Wake {
        let mut wake = Wake::default();
        for event in [
            event(1_000_700, What::Told),
            event(1_001_000, What::ProcessStarted { pid: 7, requests: PathBuf::from("log") }),
            event(1_200_000, What::ProcessReady),
            event(1_200_100, What::Slices { ready: 1 }),
            event(1_299_900, What::Endpoints { usable: 1 }),
        ] {
            wake.add(&event);
        }
        wake
    }

    #[test]
    fn the_summary_says_held_told_and_release() {
        let timeline = Timeline::new(&access(), &wake(), &at_app()).unwrap();
        assert_eq!(timeline.summary(), "cold-start status=200 held_ms=300.0 told_ms=0.70 release_ms=0.50");
    }

    #[test]
    fn without_a_control_plane_the_slice_is_what_the_release_waits_for() {
        let wake = Wake { usable_us: None, ..wake() };
        assert!(wake.is_done(false) && !wake.is_done(true) && wake.was_caused_by(&access()));
        let summary = Timeline::new(&access(), &wake, &at_app()).unwrap().summary();
        assert_eq!(summary, "cold-start status=200 held_ms=300.0 told_ms=0.70 release_ms=100.30");
    }

    #[test]
    fn a_second_wake_forgets_the_first() {
        let mut wake = wake();
        assert!(wake.is_done(true) && wake.was_caused_by(&access()));
        wake.add(&event(2_000_000, What::Told));
        assert!(!wake.is_done(true) && !wake.is_done(false) && !wake.was_caused_by(&access()));
    }

    #[test]
    fn a_failed_request_has_no_timeline() {
        let failed = Access { status: 504, ..access() };
        let error = Timeline::new(&failed, &wake(), &at_app()).unwrap_err().to_string();
        assert!(error.contains("504"), "{error}");
    }
}
