//! The main job in Istio's ingress gateway: hold, wake, release.

use anyhow::{Result, ensure};
use sluice_tests::cluster::istio::{self, App, GATEWAY};

#[test]
fn a_request_waits_for_its_app_and_gets_its_answer() {
    istio::run("hold", async |world| {
        let app = world.app("shop").await?;
        let answer = world.wake(&app, &app.host(), "/a").await?;
        ensure!(answer.text() == "sluice-test-app: GET /a\n", "{}", answer.text());
        let warm = world.get(&app.host(), "/b").await?;
        ensure!((warm.status.as_u16(), warm.header("x-keda-http-cold-start")) == (200, "false"), "{warm:?}");
        Ok(())
    });
}

#[test]
fn keda_wakes_the_app_and_puts_it_to_sleep() {
    istio::run("keda", async |world| {
        let app = world.app("shop").await?;
        world.cluster.apply(&[app.keda_scaled_object()]).await?;
        for _ in 0..2 {
            let answer = world.get(&app.host(), "/").await?;
            let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
            ensure!(said == (200, "true"), "{answer:?}");
            app.asleep().await?;
        }
        Ok(())
    });
}

#[test]
fn apps_are_told_apart_by_path_under_one_host() {
    istio::run("paths", async |world| {
        let (host, mut apps) = (format!("both.{}.example.com", world.namespace), Vec::new());
        for (name, path) in [("front", "/"), ("api", "/api")] {
            let app = App::create(&world.istio, &world.namespace, name).await?;
            world.cluster.apply(&[app.scaled_object(&[&host], &[path])]).await?;
            apps.push(app);
        }
        let [front, api] = &apps[..] else { unreachable!() };
        let mut service = front.virtual_service(
            GATEWAY,
            serde_json::json!([
                {"match": [{"uri": {"prefix": "/api"}}], "route": [api.destination()]},
                {"route": [front.destination()]},
            ]),
        );
        service["spec"]["hosts"] = serde_json::json!([host]);
        world.cluster.apply(&[service]).await?;
        world.routed(&host).await?;
        for app in [front, api] {
            world.matched(app).await?;
        }
        world.wake(api, &host, "/api/x").await?;
        ensure!(front.pods().await?.is_empty(), "a request to /api woke the front");
        world.wake(front, &host, "/x").await?;
        Ok(())
    });
}

/// Without hosts and paths, the Envoy cluster that the gateway's own routes choose decides.
#[test]
fn an_app_is_found_by_the_cluster_that_the_route_chose() {
    istio::run("chosen", async |world| {
        let app = App::create(&world.istio, &world.namespace, "shop").await?;
        let object = app.scaled_object(&[], &[]);
        world.cluster.apply(&[app.virtual_service(GATEWAY, app.route()), object]).await?;
        world.known(&app).await?;
        world.wake(&app, &app.host(), "/").await?;
        Ok(())
    });
}

/// istiod sends a Pod that is not ready yet as an endpoint that is not healthy: nothing may go there.
#[test]
fn nothing_is_released_to_a_pod_that_is_not_ready() {
    istio::run("unready", async |world| {
        let app = world.app("shop").await?;
        app.start_after(u32::MAX).await?;
        let request = world.send(&app.host(), "/");
        world.held(&app, 1).await?;
        app.scale(1).await?;
        let unhealthy = format!("{}::", app.cluster_name());
        world
            .gateway
            .says("/clusters", "an endpoint that is not healthy", |page| {
                let mut lines = page.lines().filter(|line| line.starts_with(&unhealthy));
                lines.any(|line| line.contains("health_flags::/failed_eds_health"))
            })
            .await?;
        ensure!(!request.is_finished(), "answered by {:?}", request.await);
        app.start_after(0).await?;
        let answer: Result<_> = request.await?;
        ensure!(answer.as_ref().is_ok_and(|answer| answer.status == 200), "{answer:?}");
        Ok(())
    });
}
