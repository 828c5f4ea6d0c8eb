//! What the filter asks of Envoy.

use sluice_core::time::Instant;

/// Which headers are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

/// A kind of Envoy metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Is what it is.
    Gauge,
    /// Values in buckets.
    Histogram,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// Normal events.
    Info,
    /// Something is off and being dealt with.
    Warn,
    /// Something does not work.
    Error,
}

/// An answer that the filter gives itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u32,
    /// Shown as `%RESPONSE_CODE_DETAILS%` in access logs.
    pub details: &'static str,
    /// Plain text, as the add-on's answers.
    pub body: &'static str,
    /// `Retry-After` in seconds.
    pub retry_after: Option<&'static str>,
    /// The status that a gRPC client sees instead (`grpc-status`).
    pub grpc_status: u32,
}

/// An open gRPC stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamToken(pub u32);

/// Envoy, as far as the filter needs it. Calls about a request act on the *effective* one: inside a request's
/// own callback that request, elsewhere what [`Host::focus`] has set.
///
/// Nothing here panics and every failure is a value: an unexpected status of a host call is the host's way to
/// say no.
pub trait Host {
    /// The monotonic clock.
    fn now(&mut self) -> Instant;

    /// 64 random bits, from the host's own generator.
    fn random(&mut self) -> u64;

    /// Appends the header's first value to `value`; false if the header is not there.
    fn header(&mut self, headers: Headers, name: &[u8], value: &mut Vec<u8>) -> bool;

    /// Appends all headers to `map`, as the ABI writes them (see [`crate::headers`]). Costs about as much as three
    /// single ones (`bench/README.md`): what is dear is that the host asks for a place to put what it gives.
    fn header_map(&mut self, headers: Headers, map: &mut Vec<u8>) -> bool;

    /// Sets the header, in place of all values that it has.
    fn set_header(&mut self, headers: Headers, name: &[u8], value: &[u8]);

    /// Appends the property's bytes to `value`; false if it is not there. Segments are separated by NUL.
    fn property(&mut self, path: &[u8], value: &mut Vec<u8>) -> bool;

    /// Sets a value of the request's filter state, `wasm.` and this name to Envoy: what access logs can print.
    fn set_property(&mut self, name: &[u8], value: &[u8]);

    /// Makes `context` the one that calls act on. False if it is not there any more.
    fn focus(&mut self, context: u32) -> bool;

    /// Lets a paused request go on.
    fn resume(&mut self);

    /// Answers a request.
    fn reply(&mut self, reply: &Reply);

    /// Whether a request to `cluster` would find a host, now, on this worker. Should it have to open a connection,
    /// that is one for requests that ask for `host` (see [`crate::wire::look_authority`]).
    fn look(&mut self, cluster: &[u8], host: &[u8]) -> bool;

    /// Opens a stream of `sluice.link.v1.Link/Connect` to a cluster.
    fn open_link(&mut self, cluster: &[u8]) -> Option<StreamToken>;

    /// Sends a message on a stream. False if it is not there any more.
    fn send(&mut self, stream: StreamToken, message: &[u8]) -> bool;

    /// Ends a stream, and gives back what the host keeps of it: also due when the peer has ended it.
    fn cancel(&mut self, stream: StreamToken);

    /// Calls the plugin's tick every so many milliseconds; 0 stops it.
    fn set_tick(&mut self, millis: u32);

    /// Defines a metric; `None` if the host does not want it.
    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Option<u32>;

    /// Adds to a counter or gauge.
    fn add_metric(&mut self, metric: u32, by: i64);

    /// Sets a gauge, or adds a value to a histogram.
    fn record_metric(&mut self, metric: u32, value: u64);

    /// Writes to Envoy's log.
    fn log(&mut self, level: Level, message: &str);
}
