//! How much of everything is measured.

use std::time::Duration;

/// The extent of a run. More rounds make the medians steadier, longer ones make each sample steadier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How the run is called.
    pub(crate) name: &'static str,
    /// Rounds of load; in each one every way gets its turn.
    pub(crate) load_rounds: usize,
    /// How long a turn is.
    pub(crate) load_turn: Duration,
    /// Rounds at one connection.
    pub(crate) latency_rounds: usize,
    /// Requests in a turn of one connection.
    pub(crate) latency_requests: usize,
    /// Apps that are woken, one after the other.
    pub(crate) wakes: usize,
    /// Requests that are held while memory is looked at, one connection each.
    pub(crate) held_connections: usize,
    /// How often that is repeated, with new processes.
    pub(crate) held_rounds: usize,
    /// Requests that are held at once and then released.
    pub(crate) held_at_once: usize,
    /// The larger number of routes.
    pub(crate) routes: usize,
    /// How long nothing is to happen.
    pub(crate) idle: Duration,
    /// Gateway workers that are linked to one scaler.
    pub(crate) links: usize,
    /// How long they report: at four reports a second of one route in a hundred, each route is named every 25 s.
    pub(crate) link_time: Duration,
    /// Apps behind a gateway of Istio's, one number after the other.
    pub(crate) apps: &'static [usize],
    /// How often a gateway is started with each.
    pub(crate) gateway_starts: usize,
    /// How often istiod's configuration is changed with each.
    pub(crate) changes: usize,
}

// === impl Plan ===

impl Plan {
    /// For figures that are kept: some nine minutes.
    pub(crate) const FULL: Self = Self {
        name: "full",
        load_rounds: 11,
        load_turn: Duration::from_secs(3),
        latency_rounds: 31,
        latency_requests: 4_000,
        wakes: 500,
        held_connections: 5_000,
        held_rounds: 3,
        held_at_once: 20_000,
        routes: 10_000,
        idle: Duration::from_secs(20),
        links: 2_000,
        link_time: Duration::from_secs(40),
        apps: &[100, 300, 1_000],
        gateway_starts: 5,
        changes: 10,
    };

    /// For work on the filter: some two minutes, and every goal still has its line.
    pub(crate) const QUICK: Self = Self {
        name: "quick",
        load_rounds: 5,
        load_turn: Duration::from_secs(1),
        latency_rounds: 11,
        latency_requests: 2_000,
        wakes: 200,
        held_connections: 3_000,
        held_rounds: 1,
        held_at_once: 20_000,
        routes: 10_000,
        idle: Duration::from_secs(4),
        links: 500,
        link_time: Duration::from_secs(28),
        apps: &[100, 300, 1_000],
        gateway_starts: 3,
        changes: 5,
    };

    /// For the tests: does every part still work?
    pub(crate) const SMOKE: Self = Self {
        name: "smoke",
        load_rounds: 1,
        // wrk takes whole seconds.
        load_turn: Duration::from_secs(1),
        latency_rounds: 1,
        latency_requests: 200,
        wakes: 10,
        held_connections: 200,
        held_rounds: 1,
        held_at_once: 1_000,
        routes: 500,
        idle: Duration::from_secs(1),
        links: 20,
        link_time: Duration::from_secs(2),
        apps: &[20, 40],
        gateway_starts: 1,
        changes: 2,
    };
}
