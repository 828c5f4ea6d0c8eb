//! `/debug/endpoint-lag`: how long the last wakes waited for the gateways' endpoints, for the operator and for people.

use crate::{
    hub::Hub,
    index::{Standing, kind_name},
};
use serde::Serialize;
use sluice_core::time::micros;

/// How many objects are listed at most, those that waited longest: whoever reads this can say how long it may be.
const MAX_OBJECTS: usize = 16_384;

/// An object's last wakes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointLag {
    /// Its kind.
    kind: &'static str,
    /// Its namespace.
    namespace: String,
    /// Its name.
    name: String,
    /// How many of its wakes this is about.
    wakes: usize,
    /// The median over them of what a gateway's worker waited for its endpoints after the scaler's "ready".
    lag_us: u64,
    /// How long requests were held in them, on average; null: none was released.
    hold_us: Option<u64>,
}

/// All that have woken, the one that waited longest first.
pub(super) fn all(hub: &Hub) -> Vec<EndpointLag> {
    let index = hub.index();
    let routed = index.entries().filter(|(_, _, entry)| matches!(entry.standing, Standing::Routed { .. }));
    let mut all: Vec<EndpointLag> = routed
        .filter_map(|(kind, name, entry)| {
            let lag = hub.ledger.find(entry.id)?.lag()?;
            Some(EndpointLag {
                kind: kind_name(kind),
                namespace: name.namespace.clone(),
                name: name.name.clone(),
                wakes: lag.wakes,
                lag_us: micros(lag.lag),
                hold_us: lag.hold.map(micros),
            })
        })
        .collect();
    drop(index);
    all.sort_by_key(|it| std::cmp::Reverse(it.lag_us));
    all.truncate(MAX_OBJECTS);
    all
}
