//! TCP keep-alive: a connection that says nothing for long is not silent.

use crate::app::Watched;
use anyhow::{Context as _, Result, ensure};
use sluice_envoyfilter::{TcpKeepalive, Upstream};
use sluice_tests::{
    cluster::istio::{self, World},
    wait,
};
use std::num::NonZeroU32;

/// How long the app says nothing, in ms: far longer than the time after which the gateway begins to probe.
const SILENCE: &str = "6000";
/// Another time, for whoever has it: the ten minutes of which people tell are 600000.
const SILENCE_VARIABLE: &str = "SLUICE_SILENCE_MS";

/// The gateway's sockets to an app, as `ss` shows them: timers, and times in ms since something came or went.
async fn sockets(world: &World, app: &Watched) -> Result<Vec<String>> {
    let pods = app.app.pods().await?;
    let ip = pods.first().and_then(|pod| pod.status.as_ref()?.pod_ip.clone()).context("no address")?;
    let bed = world.cluster.bed().context("needs the bed")?;
    // One line for each socket.
    let arguments = ["-tnoiOH", "state", "established", "dst", &format!("{ip}:8080")];
    let mut command = tokio::process::Command::from(bed.netns().command("ss"));
    let output = command.args(arguments).output().await.context("ss (package iproute2)")?;
    ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// A field of `ss -i` such as `lastsnd:1234`.
fn field(socket: &str, name: &str) -> Option<u64> {
    socket.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':')?.parse().ok())
}

/// The probes are the kernel's own, with the times that were asked for, and they are answered while the request lasts.
#[test]
fn a_silent_connection_is_probed_while_its_request_lasts() {
    istio::run("silent", async |world| {
        let app = Watched::start(&world, "shop", None).await?;
        let probed = |socket: &String| socket.contains("timer:(keepalive,");
        let before = sockets(&world, &app).await?;
        ensure!(!before.iter().any(probed), "probed without being asked to: {before:?}");

        let second = NonZeroU32::new(1);
        let tcp_keepalive = TcpKeepalive { time: second, interval: second, probes: NonZeroU32::new(3) };
        app.set(&world, Upstream { tcp_keepalive, ..Upstream::default() }).await?;
        let silence = std::env::var(SILENCE_VARIABLE).unwrap_or_else(|_| SILENCE.to_owned());
        let request = world.send(&app.app.host(), &format!("/slow?ms={silence}"));
        let seen = wait::until("an answered probe of a silent connection", async || {
            let sockets = sockets(&world, &app).await.map_err(|error| format!("{error:#}"))?;
            let silent = |socket: &&String| {
                let (Some(sent), Some(acknowledged)) = (field(socket, "lastsnd"), field(socket, "lastack"))
                else {
                    return false;
                };
                // The request went long ago, and something came that is no answer.
                probed(socket) && sent > 2_500 && acknowledged < 1_500
            };
            if request.is_finished() {
                return Err("the request is answered already".to_owned());
            }
            sockets.iter().find(silent).cloned().ok_or_else(|| format!("{sockets:?}"))
        })
        .await?;
        println!("{seen}");
        let answer = request.await??;
        ensure!(answer.status == 200 && answer.text() == format!("after {silence} ms\n"), "{answer:?}");
        Ok(())
    });
}
