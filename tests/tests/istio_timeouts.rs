//! What may end a request that is held, or one that takes long, and what may not.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};
use sluice_envoyfilter::{Binding, TcpKeepalive, Upstream, UpstreamFilter};
use sluice_tests::{
    cluster::istio::{self, App, GATEWAY, Istio, Options, World},
    http::{Answer, Http1},
    wait,
};
use std::{convert::Infallible, num::NonZeroU32, time::Duration};
use tokio::task::JoinHandle;

/// The EnvoyFilter with which a test changes the gateway's connection manager.
const CHANGE: &str = "timeouts";

/// The gateway's connection manager, as its Envoy runs it.
async fn manager(world: &World) -> Result<Value> {
    let listeners = world.gateway.config("ListenersConfigDump").await?;
    let manager = "/dynamic_listeners/0/active_state/listener/filter_chains/0/filters/0/typed_config";
    listeners.pointer(manager).cloned().with_context(|| format!("no connection manager in {listeners}"))
}

async fn manager_is(world: &World, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
    wait::until(format!("the connection manager to have {what}"), async || match manager(world).await {
        Ok(now) if is(&now) => Ok(()),
        Ok(now) => Err(format!("{now:.2000}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

/// Merges fields into the connection manager, and waits until the gateway has them.
async fn change(world: &World, fields: Value) -> Result<()> {
    let name = "envoy.filters.network.http_connection_manager";
    let kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let mut config = fields.clone();
    config["@type"] = json!(kind);
    let filter = json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": CHANGE, "namespace": istio::NAMESPACE},
        "spec": {
            "workloadSelector": {"labels": {"istio": "ingressgateway"}},
            "configPatches": [{
                "applyTo": "NETWORK_FILTER",
                "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {"name": name}}}},
                "patch": {"operation": "MERGE", "value": {"name": name, "typed_config": config}},
            }],
        },
    });
    world.cluster.apply(&[filter]).await?;
    manager_is(world, &fields.to_string(), |now| holds(now, &fields)).await
}

/// Takes it back.
async fn restore(world: &World, before: &Value) -> Result<()> {
    world.cluster.kubectl(&["delete", "envoyfilter", CHANGE, "--namespace", istio::NAMESPACE]).await?;
    manager_is(world, "what it had", |now| now == before).await
}

/// Whether everything in `part` is in `whole`.
fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part)))
        }
        (whole, part) => whole == part,
    }
}

/// A POST whose body does not come, under way.
async fn unfinished_upload(world: &World, app: &App) -> Result<JoinHandle<Result<Answer>>> {
    let body = StreamBody::new(Box::pin(stream::pending::<Result<Frame<Bytes>, Infallible>>()));
    let request = hyper::Request::post("/upload")
        .header("host", app.host())
        .header("content-length", "10")
        .body(body)?;
    let address = world.address().await?;
    Ok(tokio::spawn(async move { Http1::connect(address).await?.send(request).await }))
}

async fn wakes(world: &World, app: &App, held: JoinHandle<Result<Answer>>) -> Result<()> {
    ensure!(!held.is_finished(), "it was cut: {:?}", held.await);
    app.scale(1).await?;
    let answer = held.await??;
    ensure!(answer.status == 200 && answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
    world.held(app, 0).await
}

/// Nothing that Istio sets by default ends a request that is held or takes long.
#[test]
fn istios_defaults_have_no_timeout_for_a_request() {
    istio::run("defaults", async |world| {
        let app = world.app("shop").await?;
        let manager = manager(&world).await?;
        ensure!(manager["stream_idle_timeout"] == "0s", "{manager:#}");
        for field in ["request_timeout", "common_http_protocol_options"] {
            ensure!(manager.get(field).is_none(), "{field}: {manager:#}");
        }
        let routes = world.gateway.config("RoutesConfigDump").await?;
        let hosts = routes["dynamic_route_configs"].as_array().into_iter().flatten();
        let hosts = hosts.filter_map(|it| it["route_config"]["virtual_hosts"].as_array()).flatten();
        let domain = json!(app.host());
        let ours = hosts.filter(|it| it["domains"].as_array().is_some_and(|all| all.contains(&domain)));
        let actions = ours.filter_map(|it| it["routes"].as_array()).flatten().map(|it| &it["route"]);
        let actions = actions.collect::<Vec<_>>();
        ensure!(!actions.is_empty(), "no route for {domain}: {routes}");
        for action in actions {
            ensure!(action["timeout"] == "0s", "{action:#}");
            for field in ["idle_timeout", "max_stream_duration"] {
                let own = action.get(field).filter(|it| it["max_stream_duration"] != "0s");
                ensure!(own.is_none(), "{field}: {action:#}");
            }
        }
        Ok(())
    });
}

/// The route's own timeout does not run while a request is held.
#[test]
fn a_routes_timeout_begins_at_the_release() {
    istio::run("route", async |world| {
        let (shop, clock) = (world.app("shop").await?, world.app("clock").await?);
        for app in [&shop, &clock] {
            let mut routes = app.route();
            routes[0]["timeout"] = json!("1s");
            world.cluster.apply(&[app.virtual_service(GATEWAY, routes)]).await?;
        }
        wait::until("both routes to have it", async || {
            let routes =
                world.gateway.config("RoutesConfigDump").await.map_err(|error| format!("{error:#}"))?;
            match routes.to_string().matches("\"timeout\":\"1s\"").count() {
                2 => Ok(()),
                _ => Err(routes.to_string()),
            }
        })
        .await?;
        clock.scale(1).await?;
        clock.awake().await?;
        ensure!(world.get(&clock.host(), "/").await?.status == 200, "the clock");
        let held = world.send(&shop.host(), "/");
        world.held(&shop, 1).await?;
        // Sent later, and to an app that is up: when its time is over, so is the other's.
        let over = world.get(&clock.host(), "/slow?ms=60000").await?;
        ensure!(over.status == 504, "{over:?}");
        wakes(&world, &shop, held).await
    });
}

/// As the table in docs/istio.md says it.
#[test]
fn what_ends_a_held_request() {
    istio::run("manager", async |world| {
        let app = world.app("shop").await?;
        let before = manager(&world).await?;

        change(&world, json!({"stream_idle_timeout": "1s"})).await?;
        let answer = world.get(&app.host(), "/").await?;
        ensure!((answer.status.as_u16(), answer.text().as_str()) == (504, "stream timeout"), "{answer:?}");
        restore(&world, &before).await?;

        // Its clock stops when the request has passed all filters, the held one's never does.
        change(&world, json!({"request_timeout": "1s"})).await?;
        let answer = world.get(&app.host(), "/").await?;
        ensure!((answer.status.as_u16(), answer.text().as_str()) == (504, "request timeout"), "{answer:?}");
        let answer = unfinished_upload(&world, &app).await?.await??;
        ensure!((answer.status.as_u16(), answer.text().as_str()) == (408, "request timeout"), "{answer:?}");
        restore(&world, &before).await?;

        change(&world, json!({"common_http_protocol_options": {"max_stream_duration": "1s"}})).await?;
        let answer = world.get(&app.host(), "/").await?;
        ensure!(
            (answer.status.as_u16(), answer.text().as_str()) == (504, "downstream duration timeout"),
            "{answer:?}"
        );
        restore(&world, &before).await?;
        world.held(&app, 0).await?;
        ensure!(app.pods().await?.is_empty(), "somebody woke it");

        // These are about connections, and wait for what is under way.
        let connections = json!({"idle_timeout": "1s", "max_connection_duration": "1s"});
        change(&world, json!({"common_http_protocol_options": connections, "drain_timeout": "0.100s"}))
            .await?;
        let address = world.address().await?;
        let held = world.send(&app.host(), "/");
        world.held(&app, 1).await?;
        // A connection that is made later, and has nothing to do, shows that the time is over.
        let idle = tokio::net::TcpStream::connect(address).await?;
        idle.readable().await?;
        let mut byte = [0];
        ensure!(idle.try_read(&mut byte)? == 0, "it was not closed");
        wakes(&world, &app, held).await?;
        restore(&world, &before).await
    });
}

/// Istio 1.31's profile for gateways at the edge, and what takes its two timeouts back.
#[test]
fn the_edge_profile_ends_held_requests_unless_it_is_told_not_to() {
    istio::run("edge", async |world| {
        let app = world.app("shop").await?;
        let with = async |settings: Value| {
            let mesh = json!({"defaultConfig": {"connectionSettings": settings}});
            Istio::start_with(&world.cluster, &Options { mesh, ..Options::default() }).await.map(drop)
        };
        with(json!({"profile": "EDGE"})).await?;
        let five_minutes = json!({"stream_idle_timeout": "300s", "request_timeout": "300s"});
        manager_is(&world, "the profile's timeouts", |now| holds(now, &five_minutes)).await?;

        // Five minutes are too long for a test: the same setting, shorter.
        with(json!({"profile": "EDGE", "httpStreamIdleTimeout": "1s"})).await?;
        manager_is(&world, "a short timeout", |now| now["stream_idle_timeout"] == "1s").await?;
        let answer = world.get(&app.host(), "/").await?;
        ensure!((answer.status.as_u16(), answer.text().as_str()) == (504, "stream timeout"), "{answer:?}");

        let without = json!({"profile": "EDGE", "httpStreamIdleTimeout": "0s", "httpRequestTimeout": "0s"});
        with(without).await?;
        manager_is(&world, "no timeout", |now| {
            now["stream_idle_timeout"] == "0s" && now.get("request_timeout").is_none_or(|it| it == "0s")
        })
        .await?;
        world.wake(&app, &app.host(), "/").await.map(drop)
    });
}

/// What an object may say of connections is about connections, not about how long a request takes.
#[test]
fn an_objects_own_settings_end_no_long_request() {
    istio::run("long", async |world| {
        let app = world.app("shop").await?;
        let second = Some(Duration::from_secs(1));
        let one = NonZeroU32::new(1);
        let upstream = Upstream {
            disable_keep_alives: true,
            connect_timeout: second,
            idle_timeout: second,
            max_connections: one,
            tcp_keepalive: TcpKeepalive { time: one, interval: one, probes: one },
            ..Upstream::default()
        };
        let filter = UpstreamFilter {
            name: format!("sluice-{}", world.namespace),
            namespace: istio::NAMESPACE.to_owned(),
            binding: Binding::selector(["istio=ingressgateway"])?,
            object: "shop".to_owned(),
            host: app.service_host(),
            port: 80,
            upstream,
        };
        world.cluster.apply(&[filter.manifest()?.context("nothing to set")?]).await?;
        world
            .gateway
            .says("/config_dump?resource=dynamic_active_clusters", "the settings", |page| {
                page.contains("\"max_requests_per_connection\": 1")
            })
            .await?;
        let held = world.send(&app.host(), "/slow?ms=3500");
        world.held(&app, 1).await?;
        app.scale(1).await?;
        let answer = held.await??;
        ensure!(answer.status == 200 && answer.text() == "after 3500 ms\n", "{answer:?}");
        Ok(())
    });
}
