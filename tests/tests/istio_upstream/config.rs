//! What istiod puts into a gateway's clusters, and what is merged into them.

use crate::app::{Watched, cluster};
use anyhow::ensure;
use serde_json::{Value, json};
use sluice_envoyfilter::{Protocol, TcpKeepalive, Upstream};
use sluice_tests::{cluster::istio, wait};
use std::{num::NonZeroU32, time::Duration};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// All but what was asked for stays as istiod says, in the clusters of subsets too, and in those of others everything.
#[test]
fn settings_are_merged_into_what_istiod_says() {
    istio::run("merged", async |world| {
        let shop = Watched::start(&world, "shop", None).await?;
        let other = Watched::start(&world, "other", None).await?;
        let rule = json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": "shop", "namespace": world.namespace},
            "spec": {
                "host": shop.app.service_host(),
                "subsets": [{"name": "v1", "labels": {"app": "shop"}}],
            },
        });
        world.cluster.apply(&[rule]).await?;
        let subset = format!("outbound|80|v1|{}", shop.app.service_host());
        wait::until("the subset", async || {
            cluster(&world, &subset).await.map(drop).map_err(|error| format!("{error:#}"))
        })
        .await?;
        let names = [shop.app.cluster_name(), subset, other.app.cluster_name()];
        let mut before = Vec::new();
        for name in &names {
            before.push(cluster(&world, name).await?);
        }
        // What is restated must be what was there: nothing.
        ensure!(before[0].get("typed_extension_protocol_options").is_none(), "{:#}", before[0]);
        let some = NonZeroU32::new;
        shop.set(
            &world,
            Upstream {
                disable_keep_alives: true,
                connect_timeout: Some(Duration::from_millis(1500)),
                idle_timeout: Some(Duration::from_secs(30)),
                max_connections: some(7),
                tcp_keepalive: TcpKeepalive { time: some(60), interval: some(10), probes: some(3) },
                ..Upstream::default()
            },
        )
        .await?;
        let said = match world.istio.istioctl(&["analyze", "--namespace", istio::NAMESPACE]).await {
            Ok(said) => said,
            Err(error) => format!("{error:#}"),
        };
        // What it says of every EnvoyFilter there is.
        let ours = said.lines().filter(|line| line.contains(&world.namespace) && !line.contains("[IST0133]"));
        let ours =
            ours.filter(|line| line.starts_with("Warning") || line.starts_with("Error")).collect::<Vec<_>>();
        ensure!(ours.is_empty(), "{ours:?}");
        for (name, mut before) in names.iter().zip(before) {
            let mut after = cluster(&world, name).await?;
            if *name == other.app.cluster_name() {
                ensure!(before == after, "of another Service: {before:#}, then {after:#}");
                continue;
            }
            ensure!(after["connect_timeout"] == "1.500s", "{after:#}");
            let thresholds = json!([{"max_connections": 7}]);
            ensure!(after["circuit_breakers"]["per_host_thresholds"] == thresholds, "{after:#}");
            let probes = json!({"keepalive_probes": 3, "keepalive_time": 60, "keepalive_interval": 10});
            ensure!(after["upstream_connection_options"]["tcp_keepalive"] == probes, "{after:#}");
            let options = json!({
                "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
                "common_http_protocol_options": {"idle_timeout": "30s", "max_requests_per_connection": 1},
                "explicit_http_config": {"http_protocol_options": {}},
            });
            ensure!(after["typed_extension_protocol_options"][HTTP_OPTIONS] == options, "{after:#}");
            without_ours(&mut before);
            without_ours(&mut after);
            ensure!(before == after, "{before:#}, then {after:#}");
        }
        Ok(())
    });
}

fn without_ours(cluster: &mut Value) {
    let Some(fields) = cluster.as_object_mut() else { return };
    for field in ["connect_timeout", "upstream_connection_options", "typed_extension_protocol_options"] {
        fields.remove(field);
    }
    if let Some(thresholds) = fields.get_mut("circuit_breakers").and_then(Value::as_object_mut) {
        thresholds.remove("per_host_thresholds");
    }
}

/// HTTP/1.1 or HTTP/2 on a port that is the other one by its Service.
#[test]
fn the_protocol_is_another_where_an_object_says_so() {
    istio::run("forced", async |world| {
        for (name, app_protocol, protocol, version) in [
            ("plain", None, Protocol::Http2, "HTTP/2.0"),
            ("h2c", Some("kubernetes.io/h2c"), Protocol::Http1, "HTTP/1.1"),
        ] {
            let app = Watched::start(&world, name, app_protocol).await?;
            app.set(&world, Upstream { protocol, protocol_is_forced: true, ..Upstream::default() }).await?;
            app.get(&world, "/forced").await?;
            let requests = app.requests_to("/forced")?;
            ensure!(requests.len() == 1 && requests[0].version == version, "{requests:?}");
        }
        Ok(())
    });
}

/// HTTP/2 is istiod's choice by the Service's port; the same is restated where the options are.
#[test]
fn the_protocol_is_istiods() {
    istio::run("protocol", async |world| {
        for (name, app_protocol, protocol) in [
            ("plain", None, Protocol::Http1),
            ("h2c", Some("kubernetes.io/h2c"), Protocol::Http2),
            ("grpc", Some("grpc"), Protocol::Http2),
        ] {
            ensure!(Protocol::of_port(Some("http"), app_protocol) == protocol, "{name}");
            let app = Watched::start(&world, name, app_protocol).await?;
            let of_istiod = cluster(&world, &app.app.cluster_name()).await?;
            let of_istiod = &of_istiod["typed_extension_protocol_options"][HTTP_OPTIONS];
            app.set(
                &world,
                Upstream { protocol, idle_timeout: Some(Duration::from_secs(600)), ..Upstream::default() },
            )
            .await?;
            let mut ours = cluster(&world, &app.app.cluster_name()).await?;
            let ours = &mut ours["typed_extension_protocol_options"][HTTP_OPTIONS];
            if protocol == Protocol::Http2 {
                let added = ours.as_object_mut().and_then(|ours| ours.remove("common_http_protocol_options"));
                ensure!(added == Some(json!({"idle_timeout": "600s"})), "{added:?}");
                ensure!(ours == of_istiod, "{ours:#}, and istiod {of_istiod:#}");
            }
            app.get(&world, "/second").await?;
            let version = if protocol == Protocol::Http2 { "HTTP/2.0" } else { "HTTP/1.1" };
            let requests = app.requests()?;
            ensure!(requests.iter().all(|request| request.version == version), "{name}: {requests:?}");
        }
        Ok(())
    });
}
