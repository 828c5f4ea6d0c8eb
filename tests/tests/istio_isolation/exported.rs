//! VirtualServices that the gateway's namespace does not see make no virtual host there.

use crate::{enabled, isolated, says, virtual_hosts};
use anyhow::ensure;
use serde_json::json;
use sluice_tests::cluster::istio::{
    self, App, GATEWAY,
    operator::{self, Operator},
};

#[test]
fn a_route_that_the_gateway_does_not_see_is_said_in_status() {
    operator::run("exported", isolated(), async |world, _operator: Operator| {
        let app = App::create(&world.istio, &world.namespace, "shop").await?;
        let other = App::create(&world.istio, &world.namespace, "other").await?;
        let exported = |to: &[&str]| {
            let mut service = app.virtual_service(GATEWAY, app.route());
            service["spec"]["exportTo"] = json!(to);
            service
        };
        world
            .cluster
            .apply(&[
                exported(&["."]),
                app.scaled_object(&[&app.host()], &[]),
                other.virtual_service(GATEWAY, other.route()),
            ])
            .await?;
        let message = says(&world, "shop", "False", "NotExported").await?;
        let begins = format!(
            "{} is in the VirtualService {}/shop, which is exported to . and not to {}:",
            app.host(),
            world.namespace,
            istio::NAMESPACE
        );
        ensure!(message.starts_with(&begins), "{message}");
        // The gateway has what was applied with it, and nothing of this one.
        world.routed(&other.host()).await?;
        let hosts = virtual_hosts(&world).await?;
        ensure!(!hosts.contains_key(&app.host()), "{hosts:?}");
        let answer = world.get(&app.host(), "/").await?;
        ensure!(answer.status == 404, "{answer:?}");

        // As the message says.
        world.cluster.apply(&[exported(&[".", istio::NAMESPACE])]).await?;
        says(&world, "shop", "True", "Enabled").await?;
        enabled(&world, &[&app.host()]).await?;
        world.matched(&app).await?;
        let answer = world.get(&app.host(), "/").await?;
        let said = (answer.status.as_u16(), answer.header("x-keda-http-cold-start"));
        ensure!(said == (200, "true"), "{answer:?}");
        Ok(())
    });
}
