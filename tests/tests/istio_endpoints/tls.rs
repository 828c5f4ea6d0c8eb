//! TLS to the Pods, as DestinationRules ask for it; and targets that are another's stay what the route says.

use crate::pod::{Backend, Pod};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluice_tests::{
    cluster::istio::{self, World},
    http,
};
use std::collections::BTreeSet;

/// A DestinationRule for TLS to a host.
pub(crate) fn tls(world: &World, name: &str, host: &str, tls: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": name, "namespace": world.namespace},
        "spec": {"host": host, "trafficPolicy": {"tls": tls}},
    })
}

#[test]
fn a_backend_with_tls_is_asked_for_the_name_that_its_rule_says() {
    istio::run("sni", async |world| {
        let authority = world.cluster.bed().context("needs the bed")?.authority();
        let identity = authority.identity("shop", &["shop.internal"])?;
        let backend = Backend::create(&world, "shop", json!([{"name": "https", "port": 443}])).await?;
        let pod = Pod::start_tls("10.99.250.1:9443", &identity).await?;
        // There is no istio-agent here that would serve authorities to the gateway.
        let settings = json!({"mode": "SIMPLE", "sni": "shop.internal", "insecureSkipVerify": true});
        world.cluster.apply(&[tls(&world, "shop", &backend.service_host(), settings)]).await?;
        backend.route("shop", 443, json!({"portName": "https"})).await?;
        let slice = backend.slice("a", json!([{"name": "https", "port": 9443}]), &["10.99.250.1"]);
        let cold = backend.wake("shop", 443, &[slice]).await?;
        let warm = world.get(&backend.host(443), "/").await?;
        for answer in [&cold, &warm] {
            ensure!(pod.said(answer) && answer.header("x-server-name") == "shop.internal", "{answer:?}");
        }
        ensure!(pod.names() == BTreeSet::from(["shop.internal".to_owned()]), "{:?}", pod.names());
        Ok(())
    });
}

/// Where the rule says no name, Istio has Envoy ask for the request's own host.
#[test]
fn without_a_name_in_the_rule_a_backend_is_asked_for_the_requests_host() {
    istio::run("autosni", async |world| {
        let authority = world.cluster.bed().context("needs the bed")?.authority();
        let identity = authority.identity("shop", &["shop.internal"])?;
        let backend = Backend::create(&world, "shop", json!([{"name": "https", "port": 443}])).await?;
        let pod = Pod::start_tls("10.99.250.1:9443", &identity).await?;
        let settings = json!({"mode": "SIMPLE", "insecureSkipVerify": true});
        world.cluster.apply(&[tls(&world, "shop", &backend.service_host(), settings)]).await?;
        backend.route("shop", 443, json!({"portName": "https"})).await?;
        let slice = backend.slice("a", json!([{"name": "https", "port": 9443}]), &["10.99.250.1"]);
        let cold = backend.wake("shop", 443, &[slice]).await?;
        let handshakes = pod.handshakes();
        // What the look before the release opened is what the request went over: no second connection, no other name.
        ensure!(handshakes == [backend.host(443)], "{handshakes:?}");
        let warm = world.get(&backend.host(443), "/").await?;
        for answer in [&cold, &warm] {
            ensure!(pod.said(answer) && answer.header("x-server-name") == backend.host(443), "{answer:?}");
        }
        ensure!(pod.names() == BTreeSet::from([backend.host(443)]), "{:?}", pod.handshakes());
        Ok(())
    });
}

/// The seed's fallback: a request that the route sends elsewhere goes there, with the server name of there, whatever
/// state the object's own target is in.
#[test]
fn a_target_that_the_route_chose_is_never_overwritten() {
    istio::run("fallback", async |world| {
        let authority = world.cluster.bed().context("needs the bed")?.authority();
        let (shop, other) = (
            authority.identity("shop", &["shop.internal"])?,
            authority.identity("other", &["other.example.org"])?,
        );
        let backend = Backend::create(&world, "shop", json!([{"name": "https", "port": 443}])).await?;
        let pod = Pod::start_tls("10.99.250.1:9443", &shop).await?;
        let fallback = Pod::start_tls("10.99.250.9:9443", &other).await?;
        let outside = format!("other.{}.example.org", world.namespace);
        let settings = |name: &str| json!({"mode": "SIMPLE", "sni": name, "insecureSkipVerify": true});
        world
            .cluster
            .apply(&[
                json!({
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "ServiceEntry",
                    "metadata": {"name": "other", "namespace": world.namespace},
                    "spec": {
                        "hosts": [outside],
                        "location": "MESH_EXTERNAL",
                        "resolution": "STATIC",
                        "ports": [{"number": 443, "name": "https", "protocol": "HTTP", "targetPort": 9443}],
                        "endpoints": [{"address": "10.99.250.9"}],
                    },
                }),
                tls(&world, "shop", &backend.service_host(), settings("shop.internal")),
                tls(&world, "other", &outside, settings("other.example.org")),
            ])
            .await?;
        let to = |host: &str| json!([{"destination": {"host": host, "port": {"number": 443}}}]);
        let routes = json!([
            {"match": [{"headers": {"x-fallback": {"exact": "yes"}}}], "route": to(&outside)},
            {"route": to(&backend.service_host())},
        ]);
        backend.route_by("shop", 443, json!({"portName": "https"}), routes).await?;

        let elsewhere = async |when: &str| -> Result<()> {
            let mut request = http::get_request(&backend.host(443), "/")?;
            request.headers_mut().insert("x-fallback", "yes".parse()?);
            let answer = http::request(world.address().await?, request).await?;
            let name = answer.header("x-server-name");
            ensure!(fallback.said(&answer) && name == "other.example.org", "{when}: {answer:?}");
            ensure!(answer.header("x-keda-http-cold-start").is_empty(), "{when}: not Sluice's: {answer:?}");
            Ok(())
        };
        elsewhere("asleep").await?;
        let held = world.send(&backend.host(443), "/");
        backend.held("shop", 1).await?;
        elsewhere("while another waits").await?;
        let slice = backend.slice("a", json!([{"name": "https", "port": 9443}]), &["10.99.250.1"]);
        world.cluster.apply(&[slice]).await?;
        let answer = held.await??;
        ensure!(pod.said(&answer) && answer.header("x-server-name") == "shop.internal", "{answer:?}");
        for _ in 0..10 {
            elsewhere("awake").await?;
        }
        ensure!(
            fallback.names() == BTreeSet::from(["other.example.org".to_owned()]),
            "{:?}",
            fallback.names()
        );
        Ok(())
    });
}
