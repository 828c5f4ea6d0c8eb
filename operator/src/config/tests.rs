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

#[test]
fn no_gateway_is_looked_after_unless_one_is_named() {
    assert_eq!(resolve(&[]).unwrap().gateway, None);
    assert_eq!(resolve(&["--gateway-namespace=", "--hold-timeout=10s"]).unwrap().gateway, None);
    let gateway = resolve(&["--gateway-namespace=istio-system"]).unwrap().gateway.unwrap();
    assert_eq!(gateway.filter, sluice_envoyfilter::Settings::default(), "as the command's");
    assert_eq!(gateway.module.to_str(), Some("/sluice_filter.wasm"));
}

#[test]
fn the_gateways_settings_are_those_of_the_manifest() {
    let gateway = resolve(&[
        "--gateway-namespace=edge",
        "--envoyfilter-name=mine",
        "--selector=istio=edge, tier=public",
        "--priority=-5",
        "--scaler-service=scaler",
        "--scaler-replicas=3",
        "--cluster-domain=x.y",
        "--held-per-route=7",
        "--held-per-worker=8",
        "--hold-timeout=1m30s",
        "--isolation",
        "--module=a.wasm",
    ]);
    let gateway = gateway.unwrap().gateway.unwrap();
    let filter = &gateway.filter;
    assert_eq!((filter.name.as_str(), filter.namespace.as_str(), filter.priority), ("mine", "edge", -5));
    assert_eq!(filter.binding, sluice_envoyfilter::Binding::selector(["istio=edge", "tier=public"]).unwrap());
    assert_eq!(filter.scaler.hosts().last().unwrap(), "scaler-2.sluice-system.svc.x.y");
    let limits = &filter.limits;
    assert_eq!((limits.held_per_route, limits.held_per_worker), (Some(7), Some(8)));
    assert_eq!(limits.hold_timeout.as_deref(), Some("1m30s"));
    assert!(filter.isolation);
    assert_eq!(gateway.module.to_str(), Some("a.wasm"));

    let of = |args: &[&str]| resolve(&[&["--gateway-namespace=edge"], args].concat());
    let binding = |args: &[&str]| of(args).unwrap().gateway.unwrap().filter.binding;
    let names = || vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(binding(&["--gateway=a,b"]), sluice_envoyfilter::Binding::Gateways(names()));
    assert_eq!(binding(&["--gateway-class=a,b"]), sluice_envoyfilter::Binding::GatewayClasses(names()));
    for (args, words) in [
        (vec!["--priority=0"], "priority: 0"),
        (vec!["--priority=high"], "--priority (SLUICE_PRIORITY): \"high\" is not a number"),
        (vec!["--hold-timeout=soon"], "\"soon\""),
        (vec!["--scaler-replicas=9"], "1 to 8"),
        (vec!["--selector=istio"], "\"istio\""),
        (vec!["--gateway=a", "--selector=a=b"], "--gateway (SLUICE_GATEWAY): \"a\" is not the only one"),
        (vec!["--gateway-class=a", "--selector=a=b"], "--gateway-class"),
    ] {
        let error = of(&args).unwrap_err().to_string();
        assert!(error.contains(words), "{args:?}: {error}");
    }
}
