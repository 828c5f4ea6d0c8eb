//! What KEDA is told of a route: concurrency, request rate, whether it is active; and the metrics' names.
//!
//! Values keep the add-on's units, so that a user's targets keep their meaning. They are computed from what
//! was counted, not sampled: a request shorter than any tick is in all of them.

mod activity;
mod concurrency;
mod name;
mod rate;

pub use self::{
    activity::Activity,
    concurrency::{ConcurrencyWindow, Share},
    name::{concurrency_name, http_scaled_object_name, rate_name},
    rate::{RateSpec, RateSpecError, RateWindow},
};

/// A value for the deprecated integer field of KEDA's protocol: rounded up, so that what is not nothing is
/// never told as nothing.
pub fn as_integer(value: f64) -> i64 {
    // The cast saturates, and gives 0 for what is no number.
    value.ceil() as i64
}
