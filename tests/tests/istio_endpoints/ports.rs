//! Ports: with and without names, by number through the Service, and different numbers behind one name.

use crate::pod::{Backend, Pod};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_tests::{
    cluster::istio::{self, World},
    wait,
};
use std::collections::BTreeSet;

#[test]
fn a_services_only_port_needs_no_name_and_may_have_one() {
    istio::run("oneport", async |world| {
        let unnamed = Backend::create(&world, "unnamed", json!([{"port": 80}])).await?;
        let pod = Pod::start("10.99.250.1:9001").await?;
        unnamed.route("unnamed", 80, json!({"port": 80})).await?;
        let slice = unnamed.slice("a", json!([{"port": 9001}]), &["10.99.250.1"]);
        let answer = unnamed.wake("unnamed", 80, &[slice]).await?;
        ensure!(pod.said(&answer), "{answer:?}");

        // The object says the Service's port by its number, or by its name.
        for (name, target) in [("bynumber", json!({"port": 80})), ("byname", json!({"portName": "web"}))] {
            let named = Backend::create(&world, name, json!([{"name": "web", "port": 80}])).await?;
            let pod = Pod::start("10.99.250.2:9002").await?;
            named.route(name, 80, target).await?;
            let slice = named.slice("a", json!([{"name": "web", "port": 9002}]), &["10.99.250.2"]);
            let answer = named.wake(name, 80, &[slice]).await?;
            ensure!(pod.said(&answer), "{name}: {answer:?}");
        }
        Ok(())
    });
}

/// The Pods serve one of the ports before the other: a request for the other waits for it.
#[test]
fn the_ports_of_one_service_are_told_apart() {
    istio::run("ports", async |world| {
        let ports = json!([{"name": "web", "port": 80}, {"name": "admin", "port": 81}]);
        let both = Backend::create(&world, "both", ports).await?;
        let (web, admin) = (Pod::start("10.99.250.1:9001").await?, Pod::start("10.99.250.1:9002").await?);
        both.route("web", 80, json!({"portName": "web"})).await?;
        both.route("admin", 81, json!({"port": 81})).await?;
        let waits = world.send(&both.host(81), "/");
        both.held("admin", 1).await?;
        let web_only = both.slice("a", json!([{"name": "web", "port": 9001}]), &["10.99.250.1"]);
        let answer = both.wake("web", 80, &[web_only]).await?;
        ensure!(web.said(&answer), "{answer:?}");
        ensure!(!waits.is_finished(), "the port that no Pod serves: {:?}", waits.await);
        both.held("admin", 1).await?;
        let ports = json!([{"name": "web", "port": 9001}, {"name": "admin", "port": 9002}]);
        world.cluster.apply(&[both.slice("a", ports, &["10.99.250.1"])]).await?;
        let answer = waits.await??;
        ensure!(admin.said(&answer) && answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
        Ok(())
    });
}

/// As while a new version with another port rolls out: each address goes with the number of its own slice.
#[test]
fn different_numbers_behind_one_name_go_with_their_own_addresses() {
    istio::run("numbers", async |world| {
        let backend = Backend::create(&world, "shop", json!([{"name": "web", "port": 80}])).await?;
        let pods = [Pod::start("10.99.250.1:9001").await?, Pod::start("10.99.250.2:9002").await?];
        backend.route("shop", 80, json!({"portName": "web"})).await?;
        let slice = |name: &str, number: u16, address: &str| {
            backend.slice(name, json!([{"name": "web", "port": number}]), &[address])
        };
        let slices = [slice("old", 9001, "10.99.250.1"), slice("new", 9002, "10.99.250.2")];
        let cold = backend.wake("shop", 80, &slices).await?;
        ensure!(pods.iter().any(|pod| pod.said(&cold)), "{cold:?}");
        all_answer(&world, &backend.host(80), &pods).await
    });
}

/// The same with Deployments: the endpoint controller writes a slice for each number, and a `targetPort` may be a
/// number, too.
#[test]
fn deployments_that_call_different_ports_by_one_name_wake_alike() {
    istio::run("controller", async |world| {
        let namespace = world.namespace.clone();
        let service = |name: &str, target: Value| {
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "selector": {"group": "shop"},
                    "ports": [{"name": "web", "port": 80, "targetPort": target}],
                },
            })
        };
        world
            .cluster
            .apply(&[deployment(&namespace, "old", 9001, 0), deployment(&namespace, "new", 9002, 0)])
            .await?;
        let named = Backend::create(&world, "named", json!([{"name": "web", "port": 80}])).await?;
        let number = Backend::create(&world, "number", json!([{"name": "web", "port": 80}])).await?;
        world.cluster.apply(&[service("named", json!("web")), service("number", json!(9001))]).await?;
        named.route("named", 80, json!({"portName": "web"})).await?;
        number.route("number", 80, json!({"port": 80})).await?;

        let by_name = world.send(&named.host(80), "/");
        named.held("named", 1).await?;
        let answer = number.wake("number", 80, &[deployment(&namespace, "old", 9001, 1)]).await?;
        ensure!(answer.status == 200, "{answer:?}");
        ensure!(by_name.await??.status == 200, "through the named port");
        world.cluster.apply(&[deployment(&namespace, "new", 9002, 1)]).await?;
        let cluster = format!("outbound|80||{}::", named.service_host());
        world
            .gateway
            .says("/clusters", "both numbers, healthy", |page| {
                let healthy = page.lines().filter(|line| line.starts_with(&cluster));
                let healthy = healthy.filter(|line| line.ends_with("health_flags::healthy"));
                let numbers = [":9001::", ":9002::"];
                let healthy = healthy.collect::<Vec<_>>();
                numbers.iter().all(|number| healthy.iter().any(|line| line.contains(number)))
            })
            .await?;
        for _ in 0..20 {
            let answer = world.get(&named.host(80), "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        Ok(())
    });
}

fn deployment(namespace: &str, name: &str, port: u16, replicas: u32) -> Value {
    let labels = json!({"group": "shop", "version": name});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{
                        "name": "app",
                        "image": "sluice-test-app",
                        "args": ["--listen", format!("$(POD_IP):{port}")],
                        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                        "ports": [{"name": "web", "containerPort": port}],
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "web"}},
                    }],
                },
            },
        },
    })
}

/// Asks until each of the Pods has answered; nothing else may.
pub(crate) async fn all_answer(world: &World, host: &str, pods: &[Pod]) -> Result<()> {
    let wanted = pods.iter().map(|pod| pod.address.to_string()).collect::<BTreeSet<_>>();
    let mut seen = BTreeSet::new();
    wait::until("each Pod to answer", async || {
        let answer = world.get(host, "/").await.map_err(|error| format!("{error:#}"))?;
        seen.insert((answer.status.as_u16(), answer.text()));
        let answered = seen.iter().map(|(_, text)| text.clone()).collect::<BTreeSet<_>>();
        if answered == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await?;
    ensure!(seen.iter().all(|(status, _)| *status == 200), "{seen:?}");
    Ok(())
}
