//! What the add-on's programs read from their environment, and a program of Sluice's does not.

#[cfg(test)]
mod tests;

/// Every variable that a program of the add-on's reads, 0.15 and 0.16. `docs/migrating.md` says of each what there is
/// instead.
const VARIABLES: [&str; 63] = [
    "KEDAHTTP_OPERATOR_EXTERNAL_SCALER_PORT",
    "KEDAHTTP_OPERATOR_EXTERNAL_SCALER_SERVICE",
    "KEDA_CONDITION_WAIT_TIMEOUT",
    "KEDA_HTTP_ADMIN_PORT",
    "KEDA_HTTP_COLD_START_MAX_PENDING_REQUESTS",
    "KEDA_HTTP_CONNECT_TIMEOUT",
    "KEDA_HTTP_DIRECT_POD_ROUTING",
    "KEDA_HTTP_DRAIN_TIMEOUT",
    "KEDA_HTTP_ENABLE_COLD_START_HEADER",
    "KEDA_HTTP_LOG_REQUESTS",
    "KEDA_HTTP_MAX_IDLE_CONNS",
    "KEDA_HTTP_MAX_IDLE_CONNS_PER_HOST",
    "KEDA_HTTP_OPERATOR_EXTERNAL_SCALER_PORT",
    "KEDA_HTTP_OPERATOR_EXTERNAL_SCALER_SERVICE",
    "KEDA_HTTP_OPERATOR_LEADER_ELECTION_LEASE_DURATION",
    "KEDA_HTTP_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE",
    "KEDA_HTTP_OPERATOR_LEADER_ELECTION_RETRY_PERIOD",
    "KEDA_HTTP_OPERATOR_NAMESPACE",
    "KEDA_HTTP_OPERATOR_WATCH_NAMESPACE",
    "KEDA_HTTP_PROXY_PORT",
    "KEDA_HTTP_PROXY_TLS_CERT_PATH",
    "KEDA_HTTP_PROXY_TLS_CERT_STORE_PATHS",
    "KEDA_HTTP_PROXY_TLS_CIPHER_SUITES",
    "KEDA_HTTP_PROXY_TLS_CURVE_PREFERENCES",
    "KEDA_HTTP_PROXY_TLS_ENABLED",
    "KEDA_HTTP_PROXY_TLS_KEY_PATH",
    "KEDA_HTTP_PROXY_TLS_MAX_VERSION",
    "KEDA_HTTP_PROXY_TLS_MIN_VERSION",
    "KEDA_HTTP_PROXY_TLS_PORT",
    "KEDA_HTTP_PROXY_TLS_SKIP_VERIFY",
    "KEDA_HTTP_QUEUE_TICK_DURATION",
    "KEDA_HTTP_READINESS_TIMEOUT",
    "KEDA_HTTP_REQUEST_TIMEOUT",
    "KEDA_HTTP_RESPONSE_HEADER_TIMEOUT",
    "KEDA_HTTP_SCALER_CONFIG_MAP_INFORMER_RSYNC_PERIOD",
    "KEDA_HTTP_SCALER_PORT",
    "KEDA_HTTP_SCALER_STREAM_INTERVAL_MS",
    "KEDA_HTTP_SCALER_TARGET_ADMIN_DEPLOYMENT",
    "KEDA_HTTP_SCALER_TARGET_ADMIN_NAMESPACE",
    "KEDA_HTTP_SCALER_TARGET_ADMIN_PORT",
    "KEDA_HTTP_SCALER_TARGET_ADMIN_SERVICE",
    "KEDA_HTTP_SHUTDOWN_DELAY",
    "KEDA_HTTP_TLS_CA_DIRS",
    "KEDA_HTTP_TLS_CIPHER_SUITES",
    "KEDA_HTTP_TLS_CURVE_PREFERENCES",
    "KEDA_HTTP_TLS_MAX_VERSION",
    "KEDA_HTTP_TLS_MIN_VERSION",
    "KEDA_HTTP_TLS_SKIP_VERIFY",
    "KEDA_HTTP_WATCH_NAMESPACE",
    "KEDA_RESPONSE_HEADER_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_ENABLED",
    "OTEL_EXPORTER_OTLP_TRACES_ENABLED",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_PROM_EXPORTER_ENABLED",
    "OTEL_PROM_EXPORTER_PORT",
    "PROFILING_BIND_ADDRESS",
    // Of the add-on before 0.14 and 0.15: what people have set does not go away by itself.
    "KEDA_HTTP_DIAL_RETRY_TIMEOUT",
    "KEDA_HTTP_DISABLE_KEEP_ALIVES",
    "KEDA_HTTP_EXPECT_CONTINUE_TIMEOUT",
    "KEDA_HTTP_FORCE_HTTP2",
    "KEDA_HTTP_IDLE_CONN_TIMEOUT",
    "KEDA_HTTP_KEEP_ALIVE",
    "KEDA_HTTP_TLS_HANDSHAKE_TIMEOUT",
];

/// What to say of the variables of the add-on's that are set and that the program does not read; nothing where there
/// are none. One that is empty is as good as not set.
pub(crate) fn warning(
    reads: impl Fn(&str) -> bool,
    value: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let is_set = |name: &str| value(name).is_some_and(|value| !value.trim().is_empty());
    let unread: Vec<&str> = VARIABLES.into_iter().filter(|name| is_set(name) && !reads(name)).collect();
    (!unread.is_empty()).then(|| {
        format!(
            "set for KEDA's http-add-on, and changing nothing here: {}. docs/migrating.md says what to set instead",
            unread.join(", ")
        )
    })
}
