//! `/debug/evidence`: what gateways have shown of objects, for the operator and for people. A part of `/debug/state` that
//! has a limit, with how long the last wakes waited for the gateways' endpoints.

use crate::{
    hub::Hub,
    index::{Entry, Index, Name, Standing, kind_name},
};
use serde::Serialize;
use sluice_core::{route::Kind, time::micros};
use std::cmp::Reverse;

/// How many objects are listed at most: whoever reads this can say how long it may be.
const MAX_OBJECTS: usize = 16_384;
/// How many of them say who has their requests: that takes words.
const MAX_SHADOWED: usize = 1_024;

/// What gateways have shown.
#[derive(Debug, Serialize)]
pub(super) struct Evidence {
    /// How many of the gateways' workers are linked now.
    workers: usize,
    /// Objects of which there is something to say: first those that another has the requests of, then those of which
    /// requests go elsewhere, then those that waited longest for endpoints.
    objects: Vec<Object>,
}

/// What they have shown of one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    /// Its kind.
    kind: &'static str,
    /// Its namespace.
    namespace: String,
    /// Its name.
    name: String,
    /// Its last wakes; left out if it had none.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_lag: Option<EndpointLag>,
    /// How many requests met its rules and went elsewhere; left out if none did.
    #[serde(skip_serializing_if = "is_zero")]
    mismatches: u64,
    /// Which older object has its requests, and how to mend it; left out if none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
}

/// An object's last wakes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointLag {
    /// How many of its wakes this is about.
    wakes: usize,
    /// The median over them of what a gateway's worker waited for its endpoints after the scaler's "ready".
    lag_us: u64,
    /// How long requests were held in them, on average; null: none was released.
    hold_us: Option<u64>,
}

// === impl Evidence ===

impl Evidence {
    /// What is known now.
    pub(super) fn of(hub: &Hub) -> Self {
        let index = hub.index();
        let routed =
            index.entries().filter(|(_, _, entry)| matches!(entry.standing, Standing::Routed { .. }));
        let all = routed.filter_map(|(kind, name, entry)| Object::of(hub, &index, kind, name, entry));
        let mut objects: Vec<Object> = all.collect();
        drop(index);
        objects.sort_by_key(|it| {
            let lag = it.endpoint_lag.as_ref().map(|it| it.lag_us);
            Reverse((it.conflict.is_some(), it.mismatches > 0, lag))
        });
        objects.truncate(MAX_OBJECTS);
        objects.iter_mut().skip(MAX_SHADOWED).for_each(|it| it.conflict = None);
        let (workers, _) = hub.ledger.count_workers();
        Self { workers, objects }
    }
}

// === impl Object ===

impl Object {
    /// `None`: there is nothing to say.
    fn of(hub: &Hub, index: &Index, kind: Kind, name: &Name, entry: &Entry) -> Option<Self> {
        let counted = hub.ledger.find(entry.id);
        let lag = counted.as_ref().and_then(|route| route.lag());
        let mismatches = counted.map_or(0, |route| route.mismatches());
        let conflict = index.shadow(entry).map(|shadow| shadow.message());
        if lag.is_none() && mismatches == 0 && conflict.is_none() {
            return None;
        }
        Some(Self {
            kind: kind_name(kind),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            endpoint_lag: lag.map(|lag| EndpointLag {
                wakes: lag.wakes,
                lag_us: micros(lag.lag),
                hold_us: lag.hold.map(micros),
            }),
            mismatches,
            conflict,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
