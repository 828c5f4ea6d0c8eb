//! With isolation the filter is at work on the virtual hosts of managed apps, and nowhere else.

#[path = "istio_isolation/exported.rs"]
mod exported;
#[path = "istio_isolation/switch.rs"]
mod switch;
#[path = "istio_isolation/trap.rs"]
mod trap;

use anyhow::{Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use serde_json::{Value, json};
use sluice_api::HttpScaledObject;
use sluice_tests::{
    cluster::istio::{
        self, App, GATEWAY, World,
        operator::{self, Operator, Options, envoy_filters},
    },
    wait,
};
use std::collections::{BTreeMap, BTreeSet};

fn isolated() -> Options {
    Options { isolation: true, ..Options::default() }
}

/// The domains of the gateway's virtual hosts, and whether the filter is enabled on each.
async fn virtual_hosts(world: &World) -> Result<BTreeMap<String, bool>> {
    let dump = world.gateway.config("RoutesConfigDump").await?;
    let configs = dump["dynamic_route_configs"].as_array().into_iter().flatten();
    let hosts = configs.filter_map(|it| it["route_config"]["virtual_hosts"].as_array()).flatten();
    let mut domains = BTreeMap::new();
    for host in hosts {
        let is_enabled = !host["typed_per_filter_config"]["sluice"].is_null();
        for domain in host["domains"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            domains.insert(domain.to_owned(), is_enabled);
        }
    }
    Ok(domains)
}

/// Waits until the filter is enabled on the virtual hosts of these domains.
async fn enabled(world: &World, wanted: &[&str]) -> Result<()> {
    wait::until(format!("the filter to be enabled on {wanted:?}"), async || {
        let hosts = virtual_hosts(world).await.map_err(|error| format!("{error:#}"))?;
        if wanted.iter().all(|host| hosts.get(*host) == Some(&true)) {
            Ok(())
        } else {
            Err(format!("{hosts:?}"))
        }
    })
    .await
}

/// Waits until an HTTPScaledObject's condition says so; its message.
async fn says(world: &World, name: &str, status: &str, reason: &str) -> Result<String> {
    let objects = Api::<HttpScaledObject>::namespaced(world.cluster.client(), &world.namespace);
    let conditions = |it: HttpScaledObject| it.status.map(|status| status.conditions).unwrap_or_default();
    wait::until(format!("FilterEnabled of {name} to be {status}, {reason}"), async || {
        let conditions = conditions(objects.get(name).await.map_err(|error| error.to_string())?);
        let is = |it: &&Condition| it.type_ == "FilterEnabled" && it.status == status && it.reason == reason;
        conditions.iter().find(is).map(|it| it.message.clone()).ok_or_else(|| format!("{conditions:?}"))
    })
    .await
}

/// What a gateway says to a GET.
async fn status(world: &World, host: &str) -> Result<u16> {
    Ok(world.get(host, "/").await?.status.as_u16())
}

/// The proof that nothing of the others' traffic enters the VM: nothing that does would survive it.
#[test]
fn a_filter_that_traps_on_every_request_leaves_other_hosts_untouched() {
    let options = Options { module: Some(trap::write().expect("the module")), ..isolated() };
    operator::run("trap", options, async |world, _operator: Operator| {
        let managed = world_app(&world, "managed").await?;
        let other = App::create(&world.istio, &world.namespace, "other").await?;
        world.cluster.apply(&[other.virtual_service(GATEWAY, other.route())]).await?;
        for app in [&managed, &other] {
            app.scale(1).await?;
            app.awake().await?;
            world.routed(&app.host()).await?;
        }
        enabled(&world, &[&managed.host()]).await?;
        wait::until("the managed host to show the failure", async || {
            match status(&world, &managed.host()).await.map_err(|error| format!("{error:#}"))? {
                503 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await?;
        wait::until("the other host to answer", async || {
            match status(&world, &other.host()).await.map_err(|error| format!("{error:#}"))? {
                200 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await?;
        for _ in 0..50 {
            ensure!(status(&world, &other.host()).await? == 200);
            ensure!(status(&world, &managed.host()).await? == 503);
        }
        let failures = world.gateway.stat("wasm.envoy.wasm.runtime.v8.active").await?;
        ensure!(failures > 0, "no VM runs: the filter was never there");
        Ok(())
    });
}

/// An app with route and HTTPScaledObject, of which no scaler's word is awaited.
async fn world_app(world: &World, name: &str) -> Result<App> {
    let app = App::create(&world.istio, &world.namespace, name).await?;
    world
        .cluster
        .apply(&[app.virtual_service(GATEWAY, app.route()), app.scaled_object(&[&app.host()], &[])])
        .await?;
    Ok(app)
}

#[test]
fn exact_and_wildcard_hosts_of_virtual_services_are_held_and_others_are_not_looked_at() {
    operator::run("hosts", isolated(), async |world, operator: Operator| {
        let namespace = world.namespace.clone();
        let exact = world_app(&world, "exact").await?;
        // A wildcard on both sides; one only of the route's; none of the object's.
        let (wild, below, chosen) = (
            App::create(&world.istio, &namespace, "wild").await?,
            App::create(&world.istio, &namespace, "below").await?,
            App::create(&world.istio, &namespace, "chosen").await?,
        );
        let other = App::create(&world.istio, &namespace, "other").await?;
        let routed = |app: &App, host: &str| {
            let mut service = app.virtual_service(GATEWAY, app.route());
            service["spec"]["hosts"] = json!([host]);
            service
        };
        let (wild_host, below_host) =
            (format!("*.wild.{namespace}.example.com"), format!("*.below.{namespace}.example.com"));
        let below_one = format!("a.below.{namespace}.example.com");
        world
            .cluster
            .apply(&[
                routed(&wild, &wild_host),
                wild.scaled_object(&[&wild_host], &[]),
                routed(&below, &below_host),
                below.scaled_object(&[&below_one], &[]),
                chosen.virtual_service(GATEWAY, chosen.route()),
                chosen.scaled_object(&[], &[]),
                other.virtual_service(GATEWAY, other.route()),
            ])
            .await?;
        let managed = [exact.host(), wild_host, below_host, chosen.host()];
        let managed = managed.each_ref().map(String::as_str);
        enabled(&world, &managed).await?;
        world.routed(&other.host()).await?;
        let hosts = virtual_hosts(&world).await?;
        // Those of the test before may be going still.
        let own = format!(".{namespace}.example.com");
        let on = hosts.iter().filter(|(_, on)| **on).map(|(host, _)| host.trim_end_matches(":*"));
        let on = on.filter(|host| host.ends_with(&own)).collect::<BTreeSet<_>>();
        ensure!(on == managed.into_iter().collect(), "enabled on {on:?}");
        ensure!(hosts.get(&other.host()) == Some(&false), "{hosts:?}");

        for (app, host) in [
            (&exact, exact.host()),
            (&wild, format!("b.wild.{namespace}.example.com")),
            (&below, below_one),
            (&chosen, chosen.host()),
        ] {
            says(&world, &app.name, "True", "Enabled").await?;
            world.matched(app).await?;
            // KEDA wakes it.
            let answer = world.get(&host, "/").await?;
            ensure!(answer.status == 200, "{host}: {answer:?}");
            ensure!(answer.header("x-keda-http-cold-start") == "true", "{host}: {answer:?}");
        }
        // Nobody holds for it: it is Envoy's own answer.
        let answer = world.get(&other.host(), "/").await?;
        ensure!(answer.status == 503 && answer.text().contains("no healthy upstream"), "{answer:?}");

        // What is not managed any more is off again. That is a change of routes: no listener is replaced, which is
        // what would cut requests.
        let listeners = async || -> Result<Vec<u64>> {
            let mut counts = Vec::new();
            for stat in ["listener_modified", "listener_in_place_updated", "total_filter_chains_draining"] {
                counts.push(world.gateway.stat(&format!("listener_manager.{stat}")).await?);
            }
            Ok(counts)
        };
        let before = listeners().await?;
        let objects = ["delete", "httpscaledobject", "exact", "--namespace", &namespace];
        world.cluster.kubectl(&objects).await?;
        wait::until("the filter to be off where nothing is managed", async || {
            let hosts = virtual_hosts(&world).await.map_err(|error| format!("{error:#}"))?;
            if hosts.get(&exact.host()) == Some(&false) { Ok(()) } else { Err(format!("{hosts:?}")) }
        })
        .await?;
        let after = listeners().await?;
        ensure!(after == before, "{before:?}, then {after:?}");
        operator.counts("sluice_operator_envoy_filters{state=\"applied\"} 2").await
    });
}

#[test]
fn routes_of_the_gateway_api_are_known_too() {
    operator::run("api", isolated(), async |world, _operator: Operator| {
        let namespace = world.namespace.clone();
        let service = format!("istio-ingressgateway.{}.svc.cluster.local", istio::NAMESPACE);
        let gateway = format!("api-{namespace}");
        let (exact, wild) = (
            App::create(&world.istio, &namespace, "exact").await?,
            App::create(&world.istio, &namespace, "wild").await?,
        );
        let wild_host = format!("*.wild.{namespace}.example.org");
        let exact_host = format!("exact.{namespace}.example.org");
        let route = |app: &App, host: &str| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": app.name, "namespace": namespace},
                "spec": {
                    "parentRefs": [{"name": gateway, "namespace": istio::NAMESPACE}],
                    "hostnames": [host],
                    "rules": [{"backendRefs": [{"name": app.name, "port": 80}]}],
                },
            })
        };
        world
            .cluster
            .apply(&[
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "metadata": {"name": gateway, "namespace": istio::NAMESPACE},
                    "spec": {
                        "gatewayClassName": "istio",
                        // istiod deploys nothing then, and takes what is behind this Service.
                        "addresses": [{"type": "Hostname", "value": service}],
                        "listeners": [{
                            "name": "http", "port": 80, "protocol": "HTTP",
                            "hostname": format!("*.{namespace}.example.org"),
                            "allowedRoutes": {"namespaces": {"from": "All"}},
                        }],
                    },
                }),
                route(&exact, &exact_host),
                exact.scaled_object(&[&exact_host], &[]),
                route(&wild, &wild_host),
                wild.scaled_object(&[&wild_host], &[]),
            ])
            .await?;
        enabled(&world, &[&exact_host, &wild_host]).await?;
        for (app, host) in [(&exact, exact_host), (&wild, format!("a.wild.{namespace}.example.org"))] {
            says(&world, &app.name, "True", "Enabled").await?;
            world.matched(app).await?;
            let answer = world.get(&host, "/").await?;
            ensure!(answer.status == 200, "{host}: {answer:?}");
            ensure!(answer.header("x-keda-http-cold-start") == "true", "{host}: {answer:?}");
        }
        let gateway =
            ["delete", "gateways.gateway.networking.k8s.io", &gateway, "--namespace", istio::NAMESPACE];
        world.cluster.kubectl(&gateway).await.map(drop)
    });
}

#[test]
fn a_host_that_no_virtual_host_has_is_said_in_status() {
    operator::run("status", isolated(), async |world, operator: Operator| {
        let app = App::create(&world.istio, &world.namespace, "shop").await?;
        let second = format!("second.{}.example.com", world.namespace);
        world.cluster.apply(&[app.scaled_object(&[&app.host(), &second], &[])]).await?;
        let message = says(&world, "shop", "False", "NoVirtualHost").await?;
        ensure!(message.contains(&format!("{}/shop", world.namespace)), "{message}");

        world.cluster.apply(&[app.virtual_service(GATEWAY, app.route())]).await?;
        let message = says(&world, "shop", "False", "HostUnmatched").await?;
        ensure!(message.contains(&format!("has {second}:")), "{message}");

        let mut service = app.virtual_service(GATEWAY, app.route());
        service["spec"]["hosts"] = json!([app.host(), second]);
        world.cluster.apply(&[service]).await?;
        let message = says(&world, "shop", "True", "Enabled").await?;
        ensure!(message.contains(&second) && message.contains(&app.host()), "{message}");
        enabled(&world, &[&second]).await?;

        // Without isolation nothing of it is left, and the filter is at work on all.
        Operator::install(&world.cluster, &Options::default()).await?;
        let filters = envoy_filters(&world.cluster, istio::NAMESPACE);
        wait::until("nothing of isolation to be left", async || {
            let there = filters.get_opt("sluice-isolation").await.map_err(|error| error.to_string())?;
            let objects = Api::<HttpScaledObject>::namespaced(world.cluster.client(), &world.namespace);
            let object = objects.get("shop").await.map_err(|error| error.to_string())?;
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            let is_said = conditions.iter().any(|it| it.type_ == "FilterEnabled");
            if there.is_none() && !is_said { Ok(()) } else { Err(format!("{there:?}, {conditions:?}")) }
        })
        .await?;
        let answer = world.get(&app.host(), "/").await?;
        ensure!(answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
        operator.counts("sluice_operator_envoy_filters{state=\"applied\"} 1").await
    });
}
