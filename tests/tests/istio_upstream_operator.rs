//! What objects say of the connections to their apps, by the operator's hand: in the gateway, and gone again.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_api::{HttpScaledObject, InterceptorRoute};
use sluice_tests::{
    cluster::istio::{
        self, App, World,
        operator::{self, Operator, Options, SYSTEM, envoy_filters},
    },
    wait,
};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

fn objects(world: &World) -> Api<HttpScaledObject> {
    Api::namespaced(world.cluster.client(), &world.namespace)
}

/// A cluster as the gateway's Envoy runs it.
async fn cluster(world: &World, app: &App) -> Result<Value> {
    let dump = world.gateway.config("ClustersConfigDump").await?;
    let clusters = dump["dynamic_active_clusters"].as_array().into_iter().flatten();
    let mut clusters = clusters.map(|it| &it["cluster"]).filter(|it| it["name"] == app.cluster_name());
    clusters.next().cloned().with_context(|| format!("no cluster {}", app.cluster_name()))
}

async fn cluster_is(world: &World, app: &App, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
    wait::until(format!("the cluster of {} to be {what}", app.name), async || {
        match cluster(world, app).await {
            Ok(now) if is(&now) => Ok(()),
            Ok(now) => Err(now.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

/// Waits until a condition of an HTTPScaledObject has this status and reason (`None`: is not there); its message.
async fn condition_is(world: &World, name: &str, kind: &str, wanted: Option<(&str, &str)>) -> Result<String> {
    wait::until(format!("{kind} of {name} to be {wanted:?}"), async || {
        let object = objects(world).get(name).await.map_err(|error| error.to_string())?;
        let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
        let condition = conditions.iter().find(|it| it.type_ == kind);
        match condition.map(|it| (it.status.as_str(), it.reason.as_str())) {
            is if is == wanted => Ok(condition.map(|it| it.message.clone()).unwrap_or_default()),
            _ => Err(format!("{conditions:?}")),
        }
    })
    .await
}

/// The specs of the EnvoyFilters that there are for objects of the test.
async fn filters(world: &World) -> Result<Vec<Value>> {
    let filters = envoy_filters(&world.cluster, istio::NAMESPACE);
    let ours = ListParams::default().labels("sluice.dev/part=upstream");
    let all = filters.list(&ours).await?.into_iter();
    let of_test = format!(" {}/", world.namespace);
    let is = |it: &kube::api::DynamicObject| {
        it.annotations().get("sluice.dev/object").is_some_and(|object| object.contains(&of_test))
    };
    Ok(all.filter(is).map(|it| it.data["spec"].clone()).collect())
}

async fn filters_are(world: &World, count: usize) -> Result<()> {
    wait::until(format!("{count} EnvoyFilters"), async || match filters(world).await {
        Ok(filters) if filters.len() == count => Ok(()),
        Ok(filters) => Err(format!("{filters:?}")),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}

async fn annotate(world: &World, name: &str, annotations: Value) -> Result<()> {
    let patch = json!({"metadata": {"annotations": annotations}});
    world.cluster.merge(&objects(world), name, &patch).await.map(drop)
}

/// Connections that the gateway has opened to an app.
async fn opened(world: &World, app: &App) -> Result<u64> {
    world.gateway.stat(&format!("cluster.{};.upstream_cx_total", app.cluster_name())).await
}

#[test]
fn an_annotation_reaches_the_gateway_and_goes_with_it() {
    operator::run("upstream", Options::default(), async |world, _| {
        let (shop, other) = (world.app("shop").await?, world.app("other").await?);
        for app in [&shop, &other] {
            app.scale(1).await?;
            app.awake().await?;
            ensure!(world.get(&app.host(), "/").await?.status == 200, "{}", app.name);
        }
        let before = (cluster(&world, &shop).await?, cluster(&world, &other).await?);
        ensure!(filters(&world).await?.is_empty(), "there is one without a reason");

        annotate(
            &world,
            "shop",
            json!({"sluice.dev/disable-keep-alives": "true", "sluice.dev/connect-timeout": "2s"}),
        )
        .await?;
        let words = condition_is(&world, "shop", "UpstreamApplied", Some(("True", "Applied"))).await?;
        ensure!(words.contains("EnvoyFilter sluice-upstream-"), "{words}");
        cluster_is(&world, &shop, "as annotated", |now| {
            now["connect_timeout"] == "2s"
                && now["typed_extension_protocol_options"][HTTP_OPTIONS]["common_http_protocol_options"]
                    ["max_requests_per_connection"]
                    == 1
        })
        .await?;
        let (start, count) = (opened(&world, &shop).await?, 10);
        for _ in 0..count {
            ensure!(world.get(&shop.host(), "/").await?.status == 200, "with its own connection");
        }
        let used = opened(&world, &shop).await? - start;
        ensure!(used == count, "{used} connections for {count} requests");
        ensure!(cluster(&world, &other).await? == before.1, "another app's cluster is another");
        filters_are(&world, 1).await?;

        annotate(
            &world,
            "shop",
            json!({"sluice.dev/disable-keep-alives": null, "sluice.dev/connect-timeout": null}),
        )
        .await?;
        cluster_is(&world, &shop, "as before", |now| *now == before.0).await?;
        condition_is(&world, "shop", "UpstreamApplied", None).await?;
        filters_are(&world, 0).await?;

        // And with the object itself.
        annotate(&world, "shop", json!({"sluice.dev/max-connections": "5"})).await?;
        condition_is(&world, "shop", "UpstreamApplied", Some(("True", "Applied"))).await?;
        objects(&world).delete("shop", &DeleteParams::default()).await?;
        filters_are(&world, 0).await?;
        cluster_is(&world, &shop, "as before", |now| *now == before.0).await
    });
}

#[test]
fn a_wrong_annotation_is_told_and_stops_nothing_else() {
    operator::run("wrong", Options::default(), async |world, _| {
        let app = world.app("shop").await?;
        annotate(
            &world,
            "shop",
            json!({"sluice.dev/connect-timeout": "soon", "sluice.dev/max-connections": "5"}),
        )
        .await?;
        let words = condition_is(&world, "shop", "Ready", Some(("False", "InvalidSpec"))).await?;
        let wanted = "metadata.annotations[sluice.dev/connect-timeout] is \"soon\"; write a duration such as";
        ensure!(words.starts_with(wanted), "{words}");
        condition_is(&world, "shop", "UpstreamApplied", Some(("True", "Applied"))).await?;
        cluster_is(&world, &app, "limited", |now| {
            now["circuit_breakers"]["per_host_thresholds"][0]["max_connections"] == 5
                && now["connect_timeout"] == "10s"
        })
        .await?;
        // KEDA wakes it by the ScaledObject that the operator has made.
        let answer = world.get(&app.host(), "/").await?;
        let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
        ensure!(said == (200, "true"), "{answer:?}");
        annotate(&world, "shop", json!({"sluice.dev/connect-timeout": "3s"})).await?;
        condition_is(&world, "shop", "Accepted", Some(("True", "Valid"))).await?;
        cluster_is(&world, &app, "mended", |now| now["connect_timeout"] == "3s").await
    });
}

/// The protocol is the Service's to say, and followed; a rival says that it is one.
#[test]
fn a_service_is_followed_and_has_one_setting() {
    operator::run("rivals", Options::default(), async |world, _| {
        let app = world.app("shop").await?;
        annotate(&world, "shop", json!({"sluice.dev/idle-timeout": "1m"})).await?;
        let protocol = |now: &Value, field: &str| {
            now["typed_extension_protocol_options"][HTTP_OPTIONS]["explicit_http_config"].get(field).is_some()
        };
        cluster_is(&world, &app, "of HTTP/1.1", |now| protocol(now, "http_protocol_options")).await?;
        let services = Api::<Service>::namespaced(world.cluster.client(), &world.namespace);
        let ports =
            json!([{"name": "http", "port": 80, "targetPort": "web", "appProtocol": "kubernetes.io/h2c"}]);
        world.cluster.merge(&services, "shop", &json!({"spec": {"ports": ports}})).await?;
        let is_ours = |now: &Value| {
            let common =
                &now["typed_extension_protocol_options"][HTTP_OPTIONS]["common_http_protocol_options"];
            common["idle_timeout"] == "60s"
        };
        cluster_is(&world, &app, "of HTTP/2", |now| protocol(now, "http2_protocol_options") && is_ours(now))
            .await?;

        // The same target under another host, younger by a second: times of creation are whole seconds.
        let created = objects(&world).get("shop").await?.creation_timestamp().context("no time")?;
        wait::until("the second to be over", async || {
            let now = k8s_openapi::jiff::Timestamp::now();
            if now.as_second() > created.0.as_second() { Ok(()) } else { Err(now.to_string()) }
        })
        .await?;
        let routes = Api::<InterceptorRoute>::namespaced(world.cluster.client(), &world.namespace);
        world
            .cluster
            .apply(&[json!({
                "apiVersion": "http.keda.sh/v1beta1",
                "kind": "InterceptorRoute",
                "metadata": {
                    "name": "second", "namespace": world.namespace,
                    "annotations": {"sluice.dev/idle-timeout": "2m"},
                },
                "spec": {
                    "target": {"service": "shop", "port": 80},
                    "rules": [{"hosts": [format!("second.{}.example.com", world.namespace)]}],
                    "scalingMetric": {"concurrency": {"targetValue": 10}},
                },
            })])
            .await?;
        let said = async |wanted: (&str, &str), words: String| {
            wait::until(format!("the route to say {wanted:?}: {words}"), async || {
                let route = routes.get("second").await.map_err(|error| error.to_string())?;
                let conditions = route.status.map(|status| status.conditions).unwrap_or_default();
                let said = conditions.iter().any(|it| {
                    it.type_ == "UpstreamApplied"
                        && (it.status.as_str(), it.reason.as_str()) == wanted
                        && it.message.contains(&words)
                });
                if said { Ok(()) } else { Err(format!("{conditions:?}")) }
            })
            .await
        };
        let first = format!("HTTPScaledObject {}/shop", world.namespace);
        said(("False", "Conflicted"), format!("{first} is older")).await?;
        filters_are(&world, 1).await?;
        // The same is no conflict; and what the older one says no more, the younger one may say.
        annotate(&world, "shop", json!({"sluice.dev/idle-timeout": "2m"})).await?;
        said(("True", "Applied"), format!("as {first} says, which says the same")).await?;
        annotate(&world, "shop", json!({"sluice.dev/idle-timeout": null})).await?;
        said(("True", "Applied"), "as this object says".to_owned()).await?;
        filters_are(&world, 1).await
    });
}

/// The add-on's names, on the operator, hold for all objects that do not say otherwise.
#[test]
fn the_operators_environment_says_it_for_all() {
    operator::run("environment", Options::default(), async |world, operator: Operator| {
        let (shop, own) = (world.app("shop").await?, world.app("own").await?);
        annotate(&world, "own", json!({"sluice.dev/connect-timeout": "3s"})).await?;
        cluster_is(&world, &own, "as annotated", |now| now["connect_timeout"] == "3s").await?;
        let environment = async |values: [Value; 2]| -> Result<()> {
            let names = ["KEDA_HTTP_CONNECT_TIMEOUT", "KEDA_HTTP_KEEP_ALIVE"];
            let env = names.iter().zip(values).map(|(name, value)| json!({"name": name, "value": value}));
            let container = json!({"name": "operator", "env": env.collect::<Value>()});
            let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
            let deployments = Api::<Deployment>::namespaced(world.cluster.client(), SYSTEM);
            deployments.patch("sluice-operator", &PatchParams::default(), &Patch::Strategic(&patch)).await?;
            operator.scale(2).await
        };
        environment([json!("700ms"), json!("15s")]).await?;
        let probes = json!({"keepalive_time": 15, "keepalive_interval": 15});
        for (app, timeout) in [(&shop, "0.700s"), (&own, "3s")] {
            cluster_is(&world, app, timeout, |now| {
                now["connect_timeout"] == timeout
                    && now["upstream_connection_options"]["tcp_keepalive"] == probes
            })
            .await?;
        }
        environment([json!(""), json!("")]).await?;
        cluster_is(&world, &shop, "as istiod says", |now| now["connect_timeout"] == "10s").await?;
        filters_are(&world, 1).await?;
        Ok(())
    });
}

/// The HTTP options of a cluster are replaced as a whole. What a DestinationRule has put there and is lost by it is
/// said where the user looks, and comes back with the annotation's end.
#[test]
fn what_a_destination_rule_loses_is_told() {
    operator::run("rules", Options::default(), async |world, _| {
        let app = world.app("shop").await?;
        let rule = |http: Value| {
            json!({
                "apiVersion": "networking.istio.io/v1",
                "kind": "DestinationRule",
                "metadata": {"name": "shop", "namespace": world.namespace},
                "spec": {"host": "shop", "trafficPolicy": {"connectionPool": {
                    "http": http,
                    "tcp": {"maxConnectionDuration": "1h", "connectTimeout": "4s"},
                }}},
            })
        };
        world
            .cluster
            .apply(&[rule(json!({"idleTimeout": "30s", "maxRequestsPerConnection": 5, "maxRetries": 4}))])
            .await?;
        let common = |now: &Value| {
            now["typed_extension_protocol_options"][HTTP_OPTIONS]["common_http_protocol_options"].clone()
        };
        let ruled = json!({
            "idle_timeout": "30s", "max_requests_per_connection": 5, "max_connection_duration": "3600s",
        });
        cluster_is(&world, &app, "as the rule says", |now| common(now) == ruled).await?;

        // Field by field: nothing is lost, and nothing said of it.
        annotate(&world, "shop", json!({"sluice.dev/connect-timeout": "2s"})).await?;
        cluster_is(&world, &app, "merged", |now| now["connect_timeout"] == "2s" && common(now) == ruled)
            .await?;
        condition_is(&world, "shop", "UpstreamApplied", Some(("True", "Applied"))).await?;

        annotate(&world, "shop", json!({"sluice.dev/idle-timeout": "1m"})).await?;
        let ours = json!({"idle_timeout": "60s"});
        cluster_is(&world, &app, "without what the rule says", |now| common(now) == ours).await?;
        let words = condition_is(&world, "shop", "UpstreamApplied", Some(("True", "RuleOverridden"))).await?;
        let at = "spec.trafficPolicy.connectionPool";
        let lost = format!(
            "{at}.http.maxRequestsPerConnection, {at}.tcp.maxConnectionDuration of the DestinationRule {}/shop",
            world.namespace
        );
        ensure!(words.contains(&lost), "{words}");
        let events = Api::<Event>::namespaced(world.cluster.client(), &world.namespace);
        wait::until("a Warning of it", async || {
            let all = events.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let is = |it: &Event| {
                (it.reason.as_deref(), it.type_.as_deref()) == (Some("RuleOverridden"), Some("Warning"))
                    && it.note.as_ref().is_some_and(|note| note.contains(&lost))
            };
            let said = all.iter().any(is);
            if said { Ok(()) } else { Err(format!("{:?}", all.items)) }
        })
        .await?;

        // The rule says it no more; then it says it again, and the object does not.
        world.cluster.apply(&[rule(json!({"idleTimeout": "30s", "maxRetries": 4}))]).await?;
        wait::until("only the other field to be named", async || {
            let object = objects(&world).get("shop").await.map_err(|error| error.to_string())?;
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            let said = conditions.iter().any(|it| {
                it.reason == "RuleOverridden"
                    && it.message.contains("tcp.maxConnectionDuration")
                    && !it.message.contains("maxRequestsPerConnection")
            });
            if said { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await?;
        annotate(&world, "shop", json!({"sluice.dev/idle-timeout": null})).await?;
        condition_is(&world, "shop", "UpstreamApplied", Some(("True", "Applied"))).await?;
        let ruled = json!({"idle_timeout": "30s", "max_connection_duration": "3600s"});
        cluster_is(&world, &app, "as the rule says", |now| common(now) == ruled).await
    });
}
