//! How the filter gets into gateways, and how a changed one does.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sluice_envoyfilter::{Limits, Manifest, Settings};
use sluice_tests::{
    cluster::istio::{self, World},
    paths,
};

/// The HTTP filters of the gateway's listener, in order.
async fn filters(world: &World) -> Result<Vec<String>> {
    let listeners = world.gateway.config("ListenersConfigDump").await?;
    let chain = listeners
        .pointer(
            "/dynamic_listeners/0/active_state/listener/filter_chains/0/filters/0/typed_config/http_filters",
        )
        .and_then(Value::as_array)
        .with_context(|| format!("no filters in {listeners}"))?;
    Ok(chain.iter().filter_map(|filter| Some(filter["name"].as_str()?.to_owned())).collect())
}

/// Waits until every VM of the gateway was made of this manifest.
async fn delivered(world: &World, manifest: &Manifest) -> Result<()> {
    let wanted = &manifest.value()["spec"]["configPatches"][0]["patch"]["value"]["typed_config"]["config"];
    let part = |config: &Value| {
        let code = config["vm_config"]["code"]["local"]["inline_bytes"].clone();
        (code, config["configuration"]["value"].clone())
    };
    let wanted = part(wanted);
    world
        .gateway
        .says("/config_dump?resource=ecds_filters", "the new filter", |page| {
            let dump = serde_json::from_str::<Value>(page).unwrap_or_default();
            let configs = dump["configs"].as_array().into_iter().flatten();
            configs.into_iter().any(|it| part(&it["ecds_filter"]["typed_config"]["config"]) == wanted)
        })
        .await
}

#[test]
fn the_filter_is_just_before_the_router_and_after_everything_else() {
    istio::run("place", async |world| {
        let app = world.app("shop").await?;
        let filters = filters(&world).await?;
        ensure!(
            filters.ends_with(&["sluice".to_owned(), "envoy.filters.http.router".to_owned()]),
            "{filters:?}"
        );
        ensure!(filters.iter().filter(|name| *name == "sluice").count() == 1, "{filters:?}");
        // Or a Pod that becomes ready within a second after it was listed would be waited for until that is over.
        let clusters = world.gateway.config("ClustersConfigDump").await?;
        let clusters = clusters["dynamic_active_clusters"].as_array().context("no clusters")?;
        let app = clusters.iter().find(|it| it["cluster"]["name"] == *app.cluster_name());
        let window = app.and_then(|it| it.pointer("/cluster/common_lb_config/update_merge_window"));
        ensure!(window == Some(&Value::from("0s")), "{app:?}");
        Ok(())
    });
}

/// A new module, or a new setting: requests that the old one holds are released by it, later ones are the new one's,
/// and no listener or filter chain is replaced, which is what would cut them.
#[test]
fn a_change_of_the_filter_cuts_no_held_request() {
    istio::run("change", async |world| {
        let app = world.app("shop").await?;
        let mut held = vec![world.send(&app.host(), "/0")];
        world.held(&app, 1).await?;

        let limits = Limits { hold_timeout: Some("9m".to_owned()), ..Limits::default() };
        let settings = Settings { limits, ..Settings::default() };
        let new_setting = world.sluice.manifest(&settings)?;
        world.sluice.apply(&new_setting).await?;
        delivered(&world, &new_setting).await?;
        held.push(world.send(&app.host(), "/1"));
        world.held(&app, 2).await?;

        // An empty custom section with a name: another module that does the same.
        let module = [&std::fs::read(paths::wasm()?)?[..], b"\x00\x05\x04next"].concat();
        let new_module = Manifest::new(&settings, &module)?;
        world.sluice.apply(&new_module).await?;
        delivered(&world, &new_module).await?;
        held.push(world.send(&app.host(), "/2"));
        world.held(&app, 3).await?;

        for stat in ["listener_modified", "listener_in_place_updated", "total_filter_chains_draining"] {
            let count = world.gateway.stat(&format!("listener_manager.{stat}")).await?;
            ensure!(count == 0, "{stat} is {count}");
        }
        app.scale(1).await?;
        for (number, request) in held.into_iter().enumerate() {
            let answer = request.await??;
            ensure!(answer.status == 200, "{number}: {answer:?}");
            ensure!(answer.header("x-keda-http-cold-start") == "true", "{number}: {answer:?}");
        }
        world.held(&app, 0).await
    });
}

/// The words of a warning that no EnvoyFilter is without.
const ANY: &str = "EnvoyFilter exposes internal implementation details that may change at any time";

#[test]
fn istioctl_finds_nothing_to_mend() {
    istio::run("analyze", async |world| {
        let app = world.app("shop").await?;
        for namespace in [istio::NAMESPACE, "sluice-system", &app.namespace] {
            // Its exit status is another one when it finds anything, the objects of others included.
            let said = match world.istio.istioctl(&["analyze", "--namespace", namespace]).await {
                Ok(said) => said,
                Err(error) => format!("{error:#}"),
            };
            // Its hints ("Info") are a matter of taste.
            let found = |line: &&str| line.starts_with("Warning [IST") || line.starts_with("Error [IST");
            let ours = said.lines().filter(found).filter(|line| line.contains("sluice"));
            // What it says of every EnvoyFilter there is.
            let ours = ours.filter(|line| !line.contains("[IST0133] (EnvoyFilter") || !line.contains(ANY));
            let ours = ours.collect::<Vec<_>>();
            ensure!(ours.is_empty(), "{ours:?}");
        }
        Ok(())
    });
}
