//! KEDA, kubelet and istiod in small, for one app: starts it when the scaler says `true`, ends it when nothing
//! was active for the cooldown. What happens is written to standard output, a line of JSON each.

use anyhow::Context as _;
use clap::Parser;
use sluice_tests::{
    app::AppOptions,
    eds::EdsFile,
    objects::{Objects, Target},
    process,
    standin::{self, ControlPlane, Options, Surroundings},
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::sync::mpsc;

/// A small stand-in for KEDA, kubelet, the EndpointSlice controller and istiod, for one app.
#[derive(Parser)]
struct Args {
    /// The scaler's gRPC address.
    #[arg(long)]
    scaler: SocketAddr,
    /// The folder that the scaler reads; the app's EndpointSlices are written there.
    #[arg(long)]
    objects: PathBuf,
    /// The file that Envoy reads the app's endpoints from (EDS); none where the scaler tells Envoy.
    #[arg(long)]
    eds: Option<PathBuf>,
    /// Where the app writes its logs.
    #[arg(long)]
    logs: PathBuf,
    /// The namespace of the app's Service and HTTPScaledObject.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Their name.
    #[arg(long)]
    name: String,
    /// The Service's port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The ScaledObject's pollingInterval.
    #[arg(long, default_value_t = 1000)]
    polling_interval_ms: u64,
    /// The ScaledObject's cooldownPeriod.
    #[arg(long, default_value_t = 5000)]
    cooldown_ms: u64,
    /// How long the app takes to start.
    #[arg(long, default_value_t = 0)]
    app_start_ms: u64,
    /// From an EndpointSlice to Envoy's endpoints.
    #[arg(long, default_value_t = 100, requires = "eds")]
    endpoint_lag_ms: u64,
    /// From scaling to zero to SIGTERM.
    #[arg(long, default_value_t = 1000)]
    termination_delay_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let target = Target { namespace: args.namespace, name: args.name, port: args.port };
    let cluster = target.cluster();
    let options = Options {
        target,
        polling_interval: Duration::from_millis(args.polling_interval_ms),
        cooldown: Duration::from_millis(args.cooldown_ms),
        app: AppOptions { start_delay: Duration::from_millis(args.app_start_ms) },
        termination_delay: Duration::from_millis(args.termination_delay_ms),
    };
    let lag = Duration::from_millis(args.endpoint_lag_ms);
    let control_plane = match args.eds {
        Some(path) => Some(ControlPlane { eds: EdsFile::open(path, &cluster)?, lag }),
        None => None,
    };
    let (events, mut happened) = mpsc::unbounded_channel();
    let surroundings = Surroundings {
        scaler: args.scaler,
        objects: Objects::new(args.objects)?,
        control_plane,
        dir: args.logs,
        events,
    };
    let shutdown = process::asked_to_end()?;
    let print = async {
        while let Some(event) = happened.recv().await {
            println!("{}", serde_json::to_string(&event)?);
        }
        anyhow::Ok(())
    };
    let (ran, printed) = tokio::join!(standin::run(options, surroundings, shutdown), print);
    printed.context("cannot write to standard output")?;
    ran
}
