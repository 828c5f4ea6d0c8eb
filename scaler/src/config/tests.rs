use super::*;
use clap::{CommandFactory, Parser};

fn resolve(args: &[&str]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    let args = ["sluice-scaler", "--config-dir", dir].into_iter().chain(args.iter().copied());
    Args::try_parse_from(args).unwrap().resolve()
}

fn error(args: &[&str]) -> String {
    resolve(args).unwrap_err().to_string()
}

#[test]
fn defaults_are_the_add_ons_where_it_has_one() {
    let config = resolve(&[]).unwrap();
    assert_eq!((config.grpc_port, config.http_port), (9090, 8080));
    assert_eq!(config.bind.to_string(), "0.0.0.0");
    assert_eq!(config.namespace, None);
    assert_eq!(config.readiness_timeout, None);
    assert_eq!(config.max_pending, None);
    assert!(config.cold_start_header);
    assert_eq!(config.activity_window, Duration::from_secs(30));
    assert_eq!(config.worker_grace, Duration::from_secs(10));
    assert_eq!(config.shutdown_delay, Duration::from_secs(5));
    assert_eq!(config.drain_timeout, Some(Duration::from_secs(30)));
    assert!(!config.log.json);
    assert_eq!(config.cluster_template, ClusterTemplate::ISTIO.parse().unwrap());
}

#[test]
fn values_are_read_as_go_reads_them() {
    let config = resolve(&[
        "--readiness-timeout=1m30s",
        "--cold-start-max-pending-requests=20",
        "--cold-start-header=F",
        "--drain-timeout=0",
        "--watch-namespace=shop",
        "--log-format=json",
        "--bind=127.0.0.1",
    ])
    .unwrap();
    assert_eq!(config.readiness_timeout, Some(Duration::from_secs(90)));
    assert_eq!(config.max_pending, NonZeroU32::new(20));
    assert!(!config.cold_start_header);
    assert_eq!(config.drain_timeout, None);
    assert_eq!(config.namespace.as_deref(), Some("shop"));
    assert!(config.log.json);
}

#[test]
fn an_empty_value_is_as_good_as_none() {
    let config =
        resolve(&["--port=", "--readiness-timeout=", "--cold-start-header=", "--cluster-template="]).unwrap();
    assert_eq!(config.grpc_port, 9090);
    assert!(config.cold_start_header);
    assert_eq!(config.cluster_template, ClusterTemplate::ISTIO.parse().unwrap());
}

#[test]
fn direct_pod_routing_is_read_in_each_of_the_add_ons_ways() {
    let said = |value: &str| resolve(&[&format!("--direct-pod-routing={value}")]).unwrap().direct_pod_routing;
    for value in ["true", "false", "1", "F", "disabled", "cold-start-only", "always"] {
        assert_eq!(said(value).as_deref(), Some(value));
    }
    assert_eq!(said(""), None);
}

#[test]
fn the_older_name_wins_when_it_is_more_than_zero() {
    let timeout = |args: &[&str]| resolve(args).unwrap().readiness_timeout;
    assert_eq!(
        timeout(&["--readiness-timeout=10s", "--condition-wait-timeout=20s"]),
        Some(Duration::from_secs(20))
    );
    assert_eq!(
        timeout(&["--readiness-timeout=10s", "--condition-wait-timeout=0s"]),
        Some(Duration::from_secs(10))
    );
}

#[test]
fn what_cannot_work_is_named_with_flag_variable_and_value() {
    for (arg, says) in [
        ("--port=http", "--port (KEDA_HTTP_SCALER_PORT): \"http\" is not a port, 0 to 65535"),
        (
            "--readiness-timeout=10",
            "--readiness-timeout (KEDA_HTTP_READINESS_TIMEOUT): \"10\" is not a duration",
        ),
        ("--condition-wait-timeout=x", "KEDA_CONDITION_WAIT_TIMEOUT"),
        ("--activity-window=10ms", "\"10ms\" is not at least 1s"),
        ("--cold-start-header=maybe", "\"maybe\" is not true or false"),
        ("--cold-start-max-pending-requests=-1", "\"-1\" is not a number from 0 on"),
        ("--direct-pod-routing=never", "\"never\" is not true, false, disabled, cold-start-only or always"),
        ("--bind=localhost", "is not an IP address"),
        ("--log-format=xml", "is not text or json"),
        ("--log-level=a=b=c", "is not a level, or levels by module"),
        ("--cluster-template={svc}", "{svc} is not known"),
    ] {
        let error = error(&[arg]);
        assert!(error.contains(says), "{arg}: {error}");
    }
    let missing = Args::try_parse_from(["sluice-scaler", "--config-dir=/does/not/exist"]).unwrap().resolve();
    assert!(missing.unwrap_err().to_string().contains("/does/not/exist"));
}

#[test]
fn certificate_and_key_go_together() {
    let missing = |args: &[&str]| error(args).split("both; ").nth(1).unwrap().to_owned();
    assert_eq!(missing(&["--tls-cert=a"]), "--tls-key is missing");
    assert_eq!(missing(&["--tls-key=a"]), "--tls-cert is missing");
    assert_eq!(missing(&["--tls-client-ca=a"]), "--tls-cert is missing");
    assert!(error(&["--tls-cert=a", "--tls-key=b", "--tls-port=x"]).contains("SLUICE_TLS_PORT"));
    let tls = resolve(&["--tls-cert=a", "--tls-key=b"]).unwrap().tls.unwrap();
    assert_eq!((tls.port, tls.files.client_ca), (9443, None));
    assert!(resolve(&["--tls-cert=", "--tls-key="]).unwrap().tls.is_none());
}

#[test]
fn objects_come_from_the_folder_or_else_from_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let flag = format!("--config-dir={}", dir.path().display());
    let source = |args: &[&str]| Args::try_parse_from(args).unwrap().resolve().unwrap().source;
    assert_eq!(source(&["sluice-scaler", &flag]), Source::Folder(dir.path().to_owned()));
    assert_eq!(source(&["sluice-scaler"]), Source::Cluster);
    assert_eq!(source(&["sluice-scaler", "--config-dir="]), Source::Cluster);
}

#[test]
fn every_flag_has_help_and_a_variable() {
    let command = Args::command();
    command.clone().debug_assert();
    let flags: Vec<_> =
        command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")).collect();
    assert!(flags.len() > 15);
    for flag in flags {
        assert!(flag.get_help().is_some(), "{}", flag.get_id());
        assert!(flag.get_env().is_some(), "{}", flag.get_id());
    }
}
