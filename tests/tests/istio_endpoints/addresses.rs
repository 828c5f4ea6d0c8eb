//! Addresses: in several slices, twice, and of the other family.

use crate::{
    pod::{Backend, Pod},
    ports::all_answer,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use sluice_tests::cluster::istio::{self, World};

/// Addresses for Pods over IPv6, given to the bed's network by [`give`].
const SIX: [&str; 2] = ["fd99::1", "fd99::2"];

#[test]
fn several_slices_are_one_target_and_an_address_twice_is_one_pod() {
    istio::run("slices", async |world| {
        let backend = Backend::create(&world, "shop", json!([{"name": "web", "port": 80}])).await?;
        let pods = [
            Pod::start("10.99.250.1:9001").await?,
            Pod::start("10.99.250.2:9001").await?,
            Pod::start("10.99.250.3:9001").await?,
        ];
        backend.route("shop", 80, json!({"portName": "web"})).await?;
        let port = || json!([{"name": "web", "port": 9001}]);
        let cold = backend
            .wake(
                "shop",
                80,
                &[
                    // One without endpoints, as controllers leave them.
                    backend.slice("empty", port(), &[]),
                    backend.slice("a", port(), &["10.99.250.1", "10.99.250.2"]),
                    backend.slice("b", port(), &["10.99.250.2", "10.99.250.3"]),
                ],
            )
            .await?;
        ensure!(pods.iter().any(|pod| pod.said(&cold)), "{cold:?}");
        all_answer(&world, &backend.host(80), &pods).await?;
        let members = format!("cluster.outbound|80||{};.membership_total", backend.service_host());
        ensure!(world.gateway.stat(&members).await? == 3, "an address is there twice");

        // What one slice loses is still there by the other; with the last one the target is asleep.
        world.cluster.apply(&[backend.slice("a", port(), &[])]).await?;
        world.gateway.says("/clusters", "two Pods", |page| !page.contains("10.99.250.1:9001")).await?;
        all_answer(&world, &backend.host(80), &pods[1..]).await?;
        world.cluster.apply(&[backend.slice("b", port(), &[])]).await?;
        world.gateway.says("/clusters", "no Pod", |page| !page.contains("10.99.250.3:9001")).await?;
        let again = backend.wake("shop", 80, &[backend.slice("a", port(), &["10.99.250.1"])]).await?;
        ensure!(pods[0].said(&again), "{again:?}");
        Ok(())
    });
}

#[test]
fn pods_with_addresses_of_ipv6_are_reached_alone_and_beside_ipv4() {
    istio::run("ipv6", async |world| {
        give(&world).await?;
        let port = || json!([{"name": "web", "port": 9001}]);
        let six = Backend::create(&world, "six", json!([{"name": "web", "port": 80}])).await?;
        let pod = Pod::start("[fd99::1]:9001").await?;
        six.route("six", 80, json!({"portName": "web"})).await?;
        let answer = six.wake("six", 80, &[six.slice("six", port(), &SIX[..1])]).await?;
        ensure!(pod.said(&answer), "{answer:?}");

        let dual = Backend::create(&world, "dual", json!([{"name": "web", "port": 80}])).await?;
        let pods = [Pod::start("10.99.250.1:9001").await?, Pod::start("[fd99::2]:9001").await?];
        dual.route("dual", 80, json!({"portName": "web"})).await?;
        let slices = [dual.slice("four", port(), &["10.99.250.1"]), dual.slice("six", port(), &SIX[1..])];
        let answer = dual.wake("dual", 80, &slices).await?;
        ensure!(pods.iter().any(|pod| pod.said(&answer)), "{answer:?}");
        all_answer(&world, &dual.host(80), &pods).await
    });
}

/// Adds [`SIX`] to the bed's network. (Of IPv6, other than of IPv4, only addresses that are configured can be bound.)
async fn give(world: &World) -> Result<()> {
    let bed = world.cluster.bed().context("needs the bed")?.clone();
    for address in SIX {
        let mut command = tokio::process::Command::from(bed.netns().command("ip"));
        // `replace` for a second time on the same bed.
        let done = command.args(["-6", "addr", "replace", &format!("{address}/128"), "dev", "lo", "nodad"]);
        let done = done.output().await?;
        ensure!(done.status.success(), "ip: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
