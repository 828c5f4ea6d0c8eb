//! proxy-wasm ABI 0.2.1 as Envoy implements it, with the two WASI calls that it offers besides.
//!
//! The host hands bytes over by calling [`proxy_on_memory_allocate`] for a place to write them. It does so
//! once per call that gives bytes, and every wrapper here copies them out before it returns: so one
//! buffer serves all of them, and reading a header costs no allocation.
#![allow(
    unsafe_code,
    reason = "the ABI is C functions and raw memory; everything unsafe of the filter is here"
)]

use crate::{
    headers,
    host::{Headers, Host, Level, MetricKind, Reply, StreamToken},
    recall::Shape,
    vm::{Action, Vm},
    wire,
};
use sluice_core::time::Instant;
use std::cell::UnsafeCell;

/// What the buffer keeps after a large message: a route table's piece is 256 KiB, a header a few hundred bytes.
const BUFFER_KEPT: usize = 64 * 1024;
/// The largest configuration or message that is read. Pieces of the route table are 256 KiB at most.
const LARGEST_MESSAGE: usize = 4 * 1024 * 1024;

const OK: u32 = 0;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, len: usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_len: usize,
        value: *mut *const u8,
        len: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, pairs: *mut *const u8, len: *mut usize) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        len: usize,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_len: usize, value: *mut *const u8, len: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_len: usize, value: *const u8, len: usize) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        value: *mut *const u8,
        len: *mut usize,
    ) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_len: usize,
        body: *const u8,
        body_len: usize,
        headers: *const u8,
        headers_len: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_grpc_call(
        service: *const u8,
        service_len: usize,
        service_name: *const u8,
        service_name_len: usize,
        method: *const u8,
        method_len: usize,
        metadata: *const u8,
        metadata_len: usize,
        message: *const u8,
        message_len: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_stream(
        service: *const u8,
        service_len: usize,
        service_name: *const u8,
        service_name_len: usize,
        method: *const u8,
        method_len: usize,
        metadata: *const u8,
        metadata_len: usize,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_send(token: u32, message: *const u8, len: usize, end: u32) -> u32;
    fn proxy_grpc_cancel(token: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, len: usize, metric: *mut u32) -> u32;
    fn proxy_increment_metric(metric: u32, by: i64) -> u32;
    fn proxy_record_metric(metric: u32, value: u64) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn clock_time_get(clock: u32, precision: u64, nanos: *mut u64) -> u32;
    fn random_get(bytes: *mut u8, len: usize) -> u32;
}

/// Something that lives as long as the VM.
struct Global<T>(UnsafeCell<T>);

// SAFETY: a VM has one thread, this target has no others.
unsafe impl<T> Sync for Global<T> {}

static BUFFER: Global<Vec<u8>> = Global(UnsafeCell::new(Vec::new()));
static VM: Global<Option<Vm>> = Global(UnsafeCell::new(None));
static BUSY: Global<bool> = Global(UnsafeCell::new(false));

/// Envoy, through the ABI.
struct Envoy;

// === impl Envoy ===

/// Calls `call` for bytes and appends them to `value`. False if it did not give any.
fn read(value: &mut Vec<u8>, call: impl FnOnce(*mut *const u8, *mut usize) -> u32) -> bool {
    let (mut bytes, mut len) = (std::ptr::null(), 0);
    if call(&mut bytes, &mut len) != OK {
        return false;
    }
    if !bytes.is_null() && len > 0 {
        // SAFETY: the host has written `len` bytes to the place that proxy_on_memory_allocate gave it, and
        // nothing has run since that could move it.
        value.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes, len) });
    }
    true
}

fn read_buffer(buffer: u32, size: usize) -> Option<Vec<u8>> {
    if size > LARGEST_MESSAGE {
        return None;
    }
    let mut value = Vec::with_capacity(size);
    // SAFETY: plain numbers in, and two places of our own for the answer.
    let found = size == 0
        || read(&mut value, |bytes, len| unsafe { proxy_get_buffer_bytes(buffer, 0, size, bytes, len) });
    // SAFETY: no reference into the buffer is alive: every reader copies.
    let kept = unsafe { &mut *BUFFER.0.get() };
    if kept.capacity() > BUFFER_KEPT {
        *kept = Vec::new();
    }
    found.then_some(value)
}

fn number(headers: Headers) -> u32 {
    match headers {
        Headers::Request => 0,
        Headers::Response => 2,
    }
}

/// A serialized `envoy.config.core.v3.GrpcService` with `envoy_grpc.cluster_name` and `.authority`.
///
/// Never the bare name: Envoy first tries to parse the bytes as that message, and a name that happens to parse
/// (`empty` does) leaves its target unset, which aborts the whole process.
fn grpc_service(cluster: &[u8], authority: &[u8]) -> Vec<u8> {
    let size = cluster.len().saturating_add(authority.len()).saturating_add(8);
    let mut envoy_grpc = Vec::with_capacity(size);
    field(&mut envoy_grpc, 1, cluster);
    field(&mut envoy_grpc, 2, authority);
    let mut service = Vec::with_capacity(envoy_grpc.len().saturating_add(8));
    field(&mut service, 1, &envoy_grpc);
    service
}

/// A length-delimited field; its number is below 16.
fn field(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    message.push(number << 3 | 2);
    let mut len = value.len();
    while len >= 0x80 {
        message.push(u8::try_from(len & 0x7f).unwrap_or(0) | 0x80);
        len >>= 7;
    }
    message.push(u8::try_from(len).unwrap_or(0));
    message.extend_from_slice(value);
}

impl Host for Envoy {
    fn now(&mut self) -> Instant {
        let mut nanos = 0;
        // CLOCK_MONOTONIC: the ABI's own call gives the wall clock, which jumps.
        // SAFETY: one place of our own for the answer.
        unsafe { clock_time_get(1, 1, &mut nanos) };
        Instant::from_nanos(nanos)
    }

    fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // SAFETY: eight bytes of our own.
        unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
        u64::from_le_bytes(bytes)
    }

    fn header(&mut self, headers: Headers, name: &[u8], value: &mut Vec<u8>) -> bool {
        // SAFETY: pointers and lengths of live slices, and two places of our own for the answer.
        read(value, |bytes, len| unsafe {
            proxy_get_header_map_value(number(headers), name.as_ptr(), name.len(), bytes, len)
        })
    }

    fn header_map(&mut self, headers: Headers, map: &mut Vec<u8>) -> bool {
        // SAFETY: a number in, and two places of our own for the answer.
        read(map, |bytes, len| unsafe { proxy_get_header_map_pairs(number(headers), bytes, len) })
    }

    fn set_header(&mut self, headers: Headers, name: &[u8], value: &[u8]) {
        // SAFETY: pointers and lengths of live slices.
        unsafe {
            proxy_replace_header_map_value(
                number(headers),
                name.as_ptr(),
                name.len(),
                value.as_ptr(),
                value.len(),
            )
        };
    }

    fn property(&mut self, path: &[u8], value: &mut Vec<u8>) -> bool {
        // SAFETY: a pointer and length of a live slice, and two places of our own for the answer.
        read(value, |bytes, len| unsafe { proxy_get_property(path.as_ptr(), path.len(), bytes, len) })
    }

    fn set_property(&mut self, name: &[u8], value: &[u8]) {
        // SAFETY: pointers and lengths of live slices.
        unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    }

    fn focus(&mut self, context: u32) -> bool {
        // SAFETY: a number.
        unsafe { proxy_set_effective_context(context) == OK }
    }

    fn resume(&mut self) {
        // SAFETY: a number: the request's direction.
        unsafe { proxy_continue_stream(0) };
    }

    fn reply(&mut self, reply: &Reply) {
        let mut map = Vec::new();
        let retry_after = reply.retry_after.map(|seconds| (&b"retry-after"[..], seconds.as_bytes()));
        headers::write(&mut map, retry_after.into_iter());
        // SAFETY: pointers and lengths of live slices.
        unsafe {
            proxy_send_local_response(
                reply.status,
                reply.details.as_ptr(),
                reply.details.len(),
                reply.body.as_ptr(),
                reply.body.len(),
                map.as_ptr(),
                map.len(),
                i32::try_from(reply.grpc_status).unwrap_or(-1),
            )
        };
    }

    fn look(&mut self, cluster: &[u8], host: &[u8]) -> bool {
        const NAME: &str = "sluice.Look";
        let service = grpc_service(cluster, wire::look_authority(cluster, host));
        let metadata = 0u32.to_le_bytes();
        let mut token = 0;
        // SAFETY: pointers and lengths of live slices, and a place of our own for the answer.
        let status = unsafe {
            proxy_grpc_call(
                service.as_ptr(),
                service.len(),
                NAME.as_ptr(),
                NAME.len(),
                NAME.as_ptr(),
                NAME.len(),
                metadata.as_ptr(),
                metadata.len(),
                std::ptr::null(),
                0,
                1_000,
                &mut token,
            )
        };
        if status == OK {
            // In the same breath: where no connection is open, nothing has left the worker.
            // SAFETY: a number.
            unsafe { proxy_grpc_cancel(token) };
        }
        status == OK
    }

    fn open_link(&mut self, cluster: &[u8]) -> Option<StreamToken> {
        const SERVICE: &str = "sluice.link.v1.Link";
        const METHOD: &str = "Connect";
        let service = grpc_service(cluster, wire::authority(cluster));
        let metadata = 0u32.to_le_bytes();
        let mut token = 0;
        // SAFETY: pointers and lengths of live slices, and a place of our own for the answer.
        let status = unsafe {
            proxy_grpc_stream(
                service.as_ptr(),
                service.len(),
                SERVICE.as_ptr(),
                SERVICE.len(),
                METHOD.as_ptr(),
                METHOD.len(),
                metadata.as_ptr(),
                metadata.len(),
                &mut token,
            )
        };
        (status == OK).then_some(StreamToken(token))
    }

    fn send(&mut self, stream: StreamToken, message: &[u8]) -> bool {
        // SAFETY: a pointer and length of a live slice.
        unsafe { proxy_grpc_send(stream.0, message.as_ptr(), message.len(), 0) == OK }
    }

    fn cancel(&mut self, stream: StreamToken) {
        // SAFETY: a number.
        unsafe { proxy_grpc_cancel(stream.0) };
    }

    fn set_tick(&mut self, millis: u32) {
        // SAFETY: a number.
        unsafe { proxy_set_tick_period_milliseconds(millis) };
    }

    fn define_metric(&mut self, kind: MetricKind, name: &str) -> Option<u32> {
        let kind = match kind {
            MetricKind::Counter => 0,
            MetricKind::Gauge => 1,
            MetricKind::Histogram => 2,
        };
        let mut metric = 0;
        // SAFETY: a pointer and length of a live slice, and a place of our own for the answer.
        let status = unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &mut metric) };
        (status == OK).then_some(metric)
    }

    fn add_metric(&mut self, metric: u32, by: i64) {
        // SAFETY: numbers.
        unsafe { proxy_increment_metric(metric, by) };
    }

    fn record_metric(&mut self, metric: u32, value: u64) {
        // SAFETY: numbers.
        unsafe { proxy_record_metric(metric, value) };
    }

    fn log(&mut self, level: Level, message: &str) {
        let level = match level {
            Level::Debug => 1,
            Level::Info => 2,
            Level::Warn => 3,
            Level::Error => 4,
        };
        // SAFETY: a pointer and length of a live slice.
        unsafe { proxy_log(level, message.as_ptr(), message.len()) };
    }
}

/// Runs a callback on the VM's state. Should the host ever call back while a callback runs, the inner one
/// does nothing and says `otherwise`: less than it hoped for, and no trap.
fn with_vm<T>(otherwise: T, run: impl FnOnce(&mut Vm, &mut Envoy) -> T) -> T {
    // SAFETY: one thread, and the references end with each statement.
    if std::mem::replace(unsafe { &mut *BUSY.0.get() }, true) {
        return otherwise;
    }
    // SAFETY: one thread, and BUSY keeps a second reference from being made while this one lives.
    let vm = unsafe { &mut *VM.0.get() };
    let result = run(vm.get_or_insert_default(), &mut Envoy);
    // SAFETY: as above.
    unsafe { *BUSY.0.get() = false };
    result
}

// === what the host calls ===

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    std::panic::set_hook(Box::new(|info| Envoy.log(Level::Error, &info.to_string())));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    // SAFETY: no reference into the buffer is alive: every reader copies before it returns.
    let buffer = unsafe { &mut *BUFFER.0.get() };
    buffer.clear();
    buffer.reserve(size);
    buffer.as_mut_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, size: usize) -> u32 {
    let config = read_buffer(7, size);
    u32::from(with_vm(false, |vm, host| vm.configure(root, config.as_deref().unwrap_or_default(), host)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    with_vm((), |vm, _| vm.create(context, parent));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, headers: u32, end: u32) -> u32 {
    let shape = Shape { headers, ends: end != 0 };
    match with_vm(Action::Continue, |vm, host| vm.request_headers(context, shape, host)) {
        Action::Continue => 0,
        Action::Pause => 1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, headers: u32, end: u32) -> u32 {
    let shape = Shape { headers, ends: end != 0 };
    with_vm((), |vm, host| vm.response_headers(context, shape, host));
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    with_vm((), |vm, host| vm.delete(context, host));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    with_vm((), |vm, host| vm.tick(root, host));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive(root: u32, token: u32, size: usize) {
    let message = read_buffer(5, size);
    with_vm((), |vm, host| vm.link_message(root, StreamToken(token), message.as_deref(), host));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_close(root: u32, token: u32, status: u32) {
    with_vm((), |vm, host| vm.link_closed(root, StreamToken(token), status, host));
}
