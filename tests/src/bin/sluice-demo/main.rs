//! The product's main job, to be watched: an app that is not running gets a request, and answers it.
//!
//! Real: Envoy with the filter, the scaler, the app's process. Stood in for, over public protocols only: KEDA,
//! kubelet and istiod (`sluice-standin`). With `--cluster` KEDA and Kubernetes are real too.

mod cluster;
mod show;
mod timeline;
mod world;

use clap::Parser;
use sluice_tests::process;
use std::{net::SocketAddr, process::ExitCode};
use world::World;

/// Shows a scale from zero and back on the real Envoy.
#[derive(Clone, Parser, Debug)]
#[command(name = "./demo.sh")]
struct Args {
    /// One cold start, then exit.
    #[arg(long)]
    once: bool,
    /// On a real Kubernetes with the real KEDA, to be looked at with kubectl. Needs root.
    #[arg(long, conflicts_with = "endpoint_lag_ms")]
    cluster: bool,
    /// The gateway's port. 8080 if not said; with --once any free one.
    #[arg(long)]
    port: Option<u16>,
    /// How many workers Envoy has.
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// How long the app takes to start, in milliseconds.
    #[arg(long, default_value_t = 250)]
    app_start_ms: u64,
    /// Have a control plane tell Envoy its endpoints, so many milliseconds after Kubernetes has them: 102 is istiod
    /// by default, 2 without its debounce. Not said: the scaler tells Envoy.
    #[arg(long)]
    endpoint_lag_ms: Option<u64>,
    /// After how long without a request KEDA scales to zero, in milliseconds.
    #[arg(long, default_value_t = 3000)]
    cooldown_ms: u64,
}

impl Args {
    fn listener(&self) -> SocketAddr {
        let port = self.port.unwrap_or(if self.once { 0 } else { 8080 });
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.cluster { cluster::run(&args) } else { here(&args) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn here(args: &Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let asked_to_end = process::asked_to_end()?;
    let mut world = World::new()?;
    let shown = tokio::select! {
        shown = show(args, &mut world) => shown,
        () = asked_to_end => {
            println!("\nending everything");
            Ok(())
        }
    };
    world.end(shown).await
}

async fn show(args: &Args, world: &mut World) -> anyhow::Result<()> {
    world.start(args).await?;
    show::surroundings(args, world)?;
    let summary = show::cold_start(world).await?;
    if args.once {
        println!("{summary}");
        return Ok(());
    }
    show::warm_request(world).await?;
    show::back_to_zero(world).await?;
    show::follow(world).await
}
