//! To switch isolation on or off is a change of the gateway's listeners: what is held meanwhile.

use crate::{enabled, isolated};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sluice_tests::{
    cluster::istio::{
        App, GATEWAY, World,
        operator::{self, Operator, Options},
    },
    wait,
};

/// An app that nobody wakes but the test.
async fn app(world: &World, name: &str) -> Result<App> {
    let app = App::create(&world.istio, &world.namespace, name).await?;
    let mut object = app.scaled_object(&[&app.host()], &[]);
    object["metadata"]["annotations"] =
        json!({"httpscaledobject.keda.sh/skip-scaledobject-creation": "true"});
    world.cluster.apply(&[app.virtual_service(GATEWAY, app.route()), object]).await?;
    world.known(&app).await?;
    Ok(app)
}

/// Waits until new requests find the filter switched off, or on, by the listener.
async fn listens(world: &World, is_off: bool) -> Result<()> {
    wait::until(format!("the listener's filter to be off: {is_off}"), async || {
        let listeners =
            world.gateway.config("ListenersConfigDump").await.map_err(|error| format!("{error:#}"))?;
        let path = "/active_state/listener/filter_chains/0/filters/0/typed_config/http_filters";
        let all = listeners["dynamic_listeners"].as_array().into_iter().flatten();
        let chain = all.filter_map(|it| it.pointer(path)?.as_array()).flatten();
        let ours =
            chain.filter(|it| it["name"] == "sluice").map(|it| it["disabled"] == true).collect::<Vec<_>>();
        if ours == [is_off] { Ok(()) } else { Err(format!("{ours:?}")) }
    })
    .await
}

async fn listener_stat(world: &World, name: &str) -> Result<u64> {
    world.gateway.stat(&format!("listener_manager.{name}")).await
}

/// How often a listener was replaced, as a whole or its filter chains.
async fn replaced(world: &World) -> Result<u64> {
    let mut count = 0;
    for stat in ["listener_modified", "listener_in_place_updated"] {
        count += listener_stat(world, stat).await?;
    }
    Ok(count)
}

#[test]
fn what_is_held_while_isolation_is_switched_is_answered() {
    operator::run("switch", Options::default(), async |world, _operator: Operator| {
        let app = app(&world, "shop").await?;
        // The first round finds no isolation, and the operator may still be at what the test before has left.
        listens(&world, false).await?;
        for (is_on, options) in [(true, isolated()), (false, Options::default())] {
            let before = replaced(&world).await?;
            let old = world.send(&app.host(), "/old");
            world.held(&app, 1).await?;
            Operator::install(&world.cluster, &options).await?;
            listens(&world, is_on).await?;
            if is_on {
                enabled(&world, &[&app.host()]).await?;
            }
            ensure!(replaced(&world).await? > before, "no listener was replaced");
            // It is the old filter chain that holds the one, and the new one that holds the other.
            world.held(&app, 1).await?;
            let new = world.send(&app.host(), "/new");
            world.held(&app, 2).await?;
            app.scale(1).await?;
            for (which, request) in [("old", old), ("new", new)] {
                let answer = request.await?.with_context(|| format!("{which}, isolation {is_on}"))?;
                let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
                ensure!(said == (200, "true"), "{which}, isolation {is_on}: {answer:?}");
            }
            world.held(&app, 0).await?;
            app.scale(0).await?;
            app.asleep().await?;
        }
        Ok(())
    });
}

/// What is held for longer than the old filter chain drains: the client hears of it, and nothing of it stays.
#[test]
fn what_is_held_longer_than_the_listener_drains_ends_with_its_connection() {
    operator::run("drain", Options::default(), async |world, _operator: Operator| {
        let app = app(&world, "shop").await?;
        listens(&world, false).await?;
        let old = world.send(&app.host(), "/old");
        world.held(&app, 1).await?;
        Operator::install(&world.cluster, &isolated()).await?;
        listens(&world, true).await?;
        enabled(&world, &[&app.host()]).await?;
        let new = world.send(&app.host(), "/new");
        world.held(&app, 2).await?;
        wait::until("the old filter chains to have drained", async || {
            match listener_stat(&world, "total_filter_chains_draining").await {
                Ok(0) => Ok(()),
                Ok(count) => Err(format!("{count} drain")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        // Not an answer of anybody's: the connection is closed.
        let end = old.await?;
        ensure!(end.is_err(), "{end:?}");
        world.held(&app, 1).await?;
        app.scale(1).await?;
        let answer = new.await??;
        let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
        ensure!(said == (200, "true"), "{answer:?}");
        world.held(&app, 0).await
    });
}
