//! What an HTTPScaledObject or InterceptorRoute asks for, checked.

mod http_scaled_object;
mod interceptor_route;
mod parts;

use crate::Flaw;
use sha2::{Digest, Sha256};
use sluice_core::{
    metric::RateSpec,
    route::{Kind, RouteId, Rule},
};
use std::{num::NonZeroU32, time::Duration};

/// The target value where an object names none, as the add-on has it.
pub const TARGET_VALUE: u32 = 100;
/// The most replicas where an object names none, as KEDA has it.
pub const MAX_REPLICAS: i32 = 100;

/// An object, as it is to be acted on.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// `metadata.generation`, 0 where there is none.
    pub generation: u64,
    /// `metadata.creationTimestamp` in seconds since 1970, 0 where there is none.
    pub created: i64,
    /// Any of these selects a request; none: the target's cluster does.
    pub rules: Vec<Rule>,
    /// Where its requests go.
    pub target: Target,
    /// How long a request may be held; `None`: as the scaler's configuration says, zero: without a limit.
    pub hold_timeout: Option<Duration>,
    /// How many requests may be held; `None`: as the scaler's configuration says.
    pub max_held: Option<NonZeroU32>,
    /// What KEDA scales it by.
    pub metrics: Metrics,
    /// How far and how late KEDA scales it; all left out in an InterceptorRoute, whose user writes the
    /// ScaledObject himself.
    pub scaling: Scaling,
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Service, of the object's namespace.
    pub service: String,
    /// Which of its ports.
    pub port: Port,
}

/// Which port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

/// What KEDA scales an app by: at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// Requests under way per replica.
    pub concurrency: Option<u32>,
    /// Requests per granularity and replica.
    pub rate: Option<Rate>,
}

/// Scaling by request rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests per granularity and replica.
    pub target: u32,
    /// Window and granularity.
    pub spec: RateSpec,
}

/// How far and how late an app is scaled, in the type that the ScaledObject's fields have. KEDA takes all that can
/// be here: nothing is negative, `max` at least 1, `min` at most `max`. What is `None` is KEDA's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scaling {
    /// The fewest replicas.
    pub min: Option<i32>,
    /// The most.
    pub max: Option<i32>,
    /// Seconds without activity before it scales to zero.
    pub cooldown: Option<i32>,
    /// Seconds after its creation in which it does not.
    pub initial_cooldown: Option<i32>,
}

/// The route's name on the link.
pub fn route_id(kind: Kind, namespace: &str, name: &str) -> RouteId {
    let digest = Sha256::digest(format!("{}/{namespace}/{name}", kind_name(kind)));
    let mut id = [0; 8];
    for (byte, of) in id.iter_mut().zip(digest) {
        *byte = of;
    }
    RouteId(u64::from_be_bytes(id))
}

/// The kind as objects say it.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::HttpScaledObject => "HTTPScaledObject",
        Kind::InterceptorRoute => "InterceptorRoute",
    }
}

/// An object that becomes a route once it is checked.
///
/// There is one validator, and this is it: scaler and operator both read objects through it. What the API server
/// checks (the schema) is less, since it cannot say what to do instead, and objects may have been stored before it
/// was there.
pub trait Check {
    /// Which kind it is.
    const KIND: Kind;

    /// What the object asks for, if anything can be made of it, and all that is wrong with it. There is no
    /// [`Spec`] only if one of the flaws is fatal.
    fn check(&self) -> (Option<Spec>, Vec<Flaw>);
}
