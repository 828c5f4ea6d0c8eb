use super::*;
use clap::{CommandFactory, Parser};
use std::time::Duration;

fn resolve(args: &[&str]) -> Result<Config, ConfigError> {
    let args = ["sluice-operator"].into_iter().chain(args.iter().copied());
    Args::try_parse_from(args).unwrap().resolve()
}

fn error(args: &[&str]) -> String {
    resolve(args).unwrap_err().to_string()
}

#[test]
fn defaults_are_the_contracts() {
    let config = resolve(&[]).unwrap();
    assert_eq!((config.scaler_service.as_str(), config.scaler_port), ("sluice-scaler", 9090));
    assert_eq!((config.namespace, config.watch_namespace, config.scaler_authentication), (None, None, None));
    assert_eq!(config.http_port, 8080);
    let timing = Timing {
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };
    assert_eq!(config.election, Some(timing));
}

#[test]
fn an_empty_value_is_as_good_as_none() {
    let config = resolve(&[
        "--scaler-service=",
        "--scaler-port=",
        "--leader-elect=",
        "--leader-election-retry-period=",
        "--name=",
        "--log-level=",
    ])
    .unwrap();
    assert_eq!((config.scaler_service.as_str(), config.scaler_port), ("sluice-scaler", 9090));
    assert!(config.election.is_some());
    assert!(config.name.starts_with("sluice-operator-"), "{}", config.name);
    assert_ne!(config.name, resolve(&["--name="]).unwrap().name, "two replicas must not share a name");
}

#[test]
fn the_election_can_be_off() {
    assert_eq!(resolve(&["--leader-elect=false"]).unwrap().election, None);
}

#[test]
fn what_cannot_work_names_flag_and_variable() {
    assert_eq!(
        error(&["--scaler-port=0"]),
        "--scaler-port (KEDA_HTTP_OPERATOR_EXTERNAL_SCALER_PORT): \"0\" is not a port, 1 to 65535"
    );
    assert_eq!(
        error(&["--leader-election-renew-deadline=soon"]),
        "--leader-election-renew-deadline (KEDA_HTTP_OPERATOR_LEADER_ELECTION_RENEW_DEADLINE): \"soon\" is not a \
         duration like 500ms, 30s or 1m30s"
    );
    assert!(error(&["--leader-election-lease-duration=1500ms"]).contains("whole seconds"));
    let error = error(&["--leader-election-lease-duration=10s"]);
    assert!(error.contains("10s > 10s > 2s"), "{error}");
}

#[test]
fn every_flag_has_a_variable() {
    for argument in Args::command().get_arguments() {
        let id = argument.get_id().as_str();
        assert!(argument.get_env().is_some() || ["help", "version"].contains(&id), "--{id} has none");
    }
}

/// Names that a user of the add-on has in his manifests.
#[test]
fn the_add_ons_names_are_understood() {
    let command = Args::command();
    let known: Vec<&str> =
        command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    for name in [
        "EXTERNAL_SCALER_SERVICE",
        "EXTERNAL_SCALER_PORT",
        "NAMESPACE",
        "WATCH_NAMESPACE",
        "LEADER_ELECTION_LEASE_DURATION",
        "LEADER_ELECTION_RENEW_DEADLINE",
        "LEADER_ELECTION_RETRY_PERIOD",
    ] {
        let name = format!("KEDA_HTTP_OPERATOR_{name}");
        assert!(known.contains(&name.as_str()), "{name}");
    }
}
