//! The names that a backend's certificate has to have, as DestinationRules ask for them (`subjectAltNames`). The gateway has
//! the authority from istio-agent, as in an installation.

use crate::{
    pod::{Backend, Pod},
    tls::tls,
};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::{Value, json};
use sluice_tests::{
    cluster::istio::{self, GATEWAY, GatewayOptions, World},
    http, wait,
};
use std::{collections::BTreeSet, fs, net::SocketAddr};

/// What a line of the access log has to say here: whose it is, and why there was no answer from the app.
const FORMAT: &str = "[%START_TIME%] %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
                      sluice=\"%FILTER_STATE(wasm.sluice:PLAIN)%\" \
                      tls=\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\"\n";

/// Runs a test behind a gateway whose Envoy istio-agent has started.
fn run<F>(name: &'static str, test: impl FnOnce(World) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    istio::run_behind(GatewayOptions { agent: true, ..GatewayOptions::default() }, name, test);
}

/// What a DestinationRule says of a backend whose certificate the bed's authority has signed: `fields`, and where the
/// gateway finds the authority.
fn checked(world: &World, mut fields: Value) -> Result<Value> {
    let bed = world.cluster.bed().context("needs the bed")?;
    let file = bed.folder("authorities")?.join("ca.pem");
    fs::write(&file, bed.authority().cert())?;
    fields["mode"] = json!("SIMPLE");
    fields["caCertificates"] = json!(file);
    Ok(fields)
}

/// A Service with a Pod behind TLS, which nothing leads to yet.
async fn backend<'a>(world: &'a World, names: &[&str]) -> Result<(Backend<'a>, Pod)> {
    let identity = world.cluster.bed().context("needs the bed")?.authority().identity("shop", names)?;
    let backend = Backend::create(world, "shop", json!([{"name": "https", "port": 443}])).await?;
    Ok((backend, Pod::start_tls("10.99.250.1:9443", &identity).await?))
}

/// What wakes it.
fn slice(backend: &Backend<'_>) -> Value {
    backend.slice("a", json!([{"name": "https", "port": 9443}]), &["10.99.250.1"])
}

/// Has the gateway take this rule over, by which it connects with a name of its own.
async fn rule(world: &World, backend: &Backend<'_>, fields: Value) -> Result<()> {
    world.cluster.apply(&[tls(world, "shop", &backend.service_host(), checked(world, fields)?)]).await
}

/// Waits until the gateway's cluster of the backend speaks of `text`.
async fn took_over(world: &World, backend: &Backend<'_>, text: &str) -> Result<()> {
    let name = format!("outbound|443||{}", backend.service_host());
    wait::until(format!("{name} to speak of {text}"), async || {
        let dump = world.gateway.config("ClustersConfigDump").await.map_err(|error| format!("{error:#}"))?;
        let clusters = dump["dynamic_active_clusters"].as_array().into_iter().flatten();
        let cluster = clusters.map(|it| &it["cluster"]).find(|it| it["name"] == name.as_str());
        match cluster.map(ToString::to_string) {
            Some(cluster) if cluster.contains(text) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[test]
fn a_backend_is_woken_whose_certificate_has_the_name_that_its_rule_says() {
    run("san", async |world| {
        let (backend, pod) = backend(&world, &["shop.internal"]).await?;
        let names = json!({"sni": "sni.internal", "subjectAltNames": ["shop.internal"]});
        rule(&world, &backend, names).await?;
        backend.route("shop", 443, json!({"portName": "https"})).await?;
        took_over(&world, &backend, "\"shop.internal\"").await?;
        let cold = backend.wake("shop", 443, &[slice(&backend)]).await?;
        let handshakes = pod.handshakes();
        // What the look before the release opened is what the request went over.
        ensure!(handshakes == ["sni.internal"], "{handshakes:?}");
        let warm = world.get(&backend.host(443), "/").await?;
        for answer in [&cold, &warm] {
            ensure!(pod.said(answer), "{answer:?}");
        }
        ensure!(pod.names() == BTreeSet::from(["sni.internal".to_owned()]), "{:?}", pod.handshakes());
        Ok(())
    });
}

/// Where the rule says no names, Istio has Envoy ask for the request's own host, and insist on it.
#[test]
fn without_names_in_the_rule_a_backends_certificate_has_to_have_the_requests_host() {
    run("autosan", async |world| {
        let host = format!("shop-443.{}.example.com", world.namespace);
        let (backend, pod) = backend(&world, &[&host]).await?;
        rule(&world, &backend, json!({})).await?;
        backend.route("shop", 443, json!({"portName": "https"})).await?;
        took_over(&world, &backend, "auto_san_validation").await?;
        let cold = backend.wake("shop", 443, &[slice(&backend)]).await?;
        ensure!(pod.said(&cold), "{cold:?}");
        ensure!(pod.handshakes() == [host.clone()], "{:?}", pod.handshakes());
        Ok(())
    });
}

/// A host that leads to the backend and that no object of Sluice's has.
async fn plain_host(world: &World, backend: &Backend<'_>) -> Result<String> {
    let host = format!("plain.{}.example.com", world.namespace);
    let route = json!({"destination": {"host": backend.service_host(), "port": {"number": 443}}});
    world
        .cluster
        .apply(&[json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "plain", "namespace": world.namespace},
            "spec": {"hosts": [host], "gateways": [GATEWAY], "http": [{"route": [route]}]},
        })])
        .await?;
    world.routed(&host).await?;
    Ok(host)
}

/// Has the gateway write [`FORMAT`].
async fn access_logs(world: &World) -> Result<()> {
    let maps = Api::<ConfigMap>::namespaced(world.cluster.client(), istio::NAMESPACE);
    let before = maps.get("istio").await?.data.unwrap_or_default();
    let mut mesh: Value = serde_json::from_str(before.get("mesh").context("no mesh")?)?;
    mesh["accessLogFormat"] = json!(FORMAT);
    world.cluster.merge(&maps, "istio", &json!({"data": {"mesh": mesh.to_string()}})).await?;
    world
        .gateway
        .says("/config_dump?resource=dynamic_listeners", "the format", |page| page.contains("wasm.sluice"))
        .await
}

/// Waits for a line of the access log of a request to the host, and gives it.
async fn logged(world: &World, host: &str, wanted: &str) -> Result<String> {
    let bed = world.cluster.bed().context("needs the bed")?.clone();
    let (gateway, _) = world.gateway.pods().await?.pop().context("no gateway")?;
    wait::until(format!("the access log to say {wanted} of {host}"), async || {
        let log = bed.pod_log(istio::NAMESPACE, &gateway, "istio-proxy");
        let mut lines = log.lines().filter(|line| line.contains(&format!(" {host} ")));
        lines.find(|line| line.contains(wanted)).map(str::to_owned).ok_or(log.clone())
    })
    .await
}

/// Waits until the first scaler's metrics count so many answers with this code of the test's object.
async fn counted(world: &World, code: u16, wanted: u64) -> Result<()> {
    let replica = world.sluice.replicas().await?.into_iter().next().context("no scaler")?;
    let (namespace, code) = (format!("route_namespace=\"{}\"", world.namespace), format!("code=\"{code}\""));
    wait::until(format!("{wanted} answers with {code}"), async || {
        let page = http::get(SocketAddr::new(replica.ip, 8080), "/metrics").await;
        let page = page.map_err(|error| format!("{error:#}"))?.text();
        let own = page.lines().filter(|line| line.starts_with("interceptor_request_count_total{"));
        let own = own.filter(|line| line.contains(&namespace)).collect::<Vec<_>>();
        let counts = own.iter().filter(|line| line.contains(&code)).filter_map(|line| line.rsplit_once(' '));
        let sum = counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum::<u64>();
        if sum == wanted { Ok(()) } else { Err(format!("{own:?}")) }
    })
    .await
}

/// What is held is released as soon as there is an endpoint; that nobody can speak to it is Envoy's to say, in the words
/// that it has without Sluice too.
#[test]
fn a_backend_with_another_name_is_refused_as_without_sluice_until_that_is_mended() {
    run("othersan", async |world| {
        let (backend, pod) = backend(&world, &["shop.internal"]).await?;
        let names = |name: &str| json!({"sni": "shop.internal", "subjectAltNames": [name]});
        rule(&world, &backend, names("other.internal")).await?;
        backend.route("shop", 443, json!({"portName": "https"})).await?;
        let plain = plain_host(&world, &backend).await?;
        access_logs(&world).await?;
        took_over(&world, &backend, "\"other.internal\"").await?;

        let cold = backend.wake("shop", 443, &[slice(&backend)]).await?;
        backend.held("shop", 0).await?;
        let warm = world.get(&backend.host(443), "/").await?;
        let without = world.get(&plain, "/").await?;
        ensure!(without.header("x-keda-http-cold-start").is_empty(), "not Sluice's: {without:?}");
        for answer in [&cold, &warm, &without] {
            ensure!(answer.status == 503 && answer.text() == without.text(), "{answer:?} {without:?}");
        }
        let handshakes = pod.handshakes();
        ensure!(
            !handshakes.is_empty() && handshakes.iter().all(|it| it.starts_with("failed: ")),
            "{handshakes:?}"
        );
        let failed = format!("cluster.outbound|443||{};.ssl.fail_verify_san", backend.service_host());
        ensure!(world.gateway.stat(&failed).await? > 0, "{failed}");
        let released = format!("sluice=\"{}/shop released ", world.namespace);
        let own = logged(&world, &backend.host(443), &released).await?;
        let other = logged(&world, &plain, " 503 ").await?;
        for line in [&own, &other] {
            ensure!(line.contains(" 503 URX,UF ") && line.contains("CERTIFICATE_VERIFY_FAILED"), "{line}");
        }
        counted(&world, 503, 2).await?;

        // Neither anybody's restart nor a new wake is needed.
        rule(&world, &backend, names("shop.internal")).await?;
        for host in [&backend.host(443), &plain] {
            wait::until(format!("{host} to have the mended rule"), async || {
                match world.get(host, "/").await.map_err(|error| format!("{error:#}"))? {
                    answer if pod.said(&answer) => Ok(()),
                    answer => Err(format!("{answer:?}")),
                }
            })
            .await?;
        }
        counted(&world, 200, 1).await?;
        Ok(())
    });
}

/// A rule that is mended while requests wait is the one that they go by.
#[test]
fn what_waits_goes_by_the_rule_as_it_is_when_the_backend_wakes() {
    run("mended", async |world| {
        let (backend, pod) = backend(&world, &["shop.internal"]).await?;
        let names = |name: &str| json!({"sni": "sni.internal", "subjectAltNames": [name]});
        rule(&world, &backend, names("other.internal")).await?;
        backend.route("shop", 443, json!({"portName": "https"})).await?;
        took_over(&world, &backend, "\"other.internal\"").await?;
        let request = world.send(&backend.host(443), "/");
        backend.held("shop", 1).await?;
        rule(&world, &backend, names("shop.internal")).await?;
        took_over(&world, &backend, "\"shop.internal\"").await?;
        world.cluster.apply(&[slice(&backend)]).await?;
        let answer = request.await??;
        ensure!(pod.said(&answer) && answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
        ensure!(pod.handshakes() == ["sni.internal"], "{:?}", pod.handshakes());
        Ok(())
    });
}
