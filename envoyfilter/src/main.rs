//! Writes the EnvoyFilter that a user applies.

use anyhow::{Context as _, bail};
use clap::Parser;
use sluice_envoyfilter::{Binding, Limits, Manifest, Scaler, Settings};
use std::{fs, path::PathBuf};

/// Writes the EnvoyFilter that brings Sluice into an Istio gateway, with the module inline.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Args {
    /// The module, as ./wasm-build.sh makes it.
    #[arg(long, value_name = "FILE", default_value = "target/filter/sluice_filter.wasm")]
    module: PathBuf,

    /// Where to write the manifest.
    #[arg(long, value_name = "FILE", default_value = "target/envoyfilter/sluice.yaml")]
    out: PathBuf,

    /// The EnvoyFilter's name.
    #[arg(long, default_value = "sluice")]
    name: String,

    /// The gateway's namespace, or the mesh's root namespace.
    #[arg(long, default_value = "istio-system")]
    namespace: String,

    /// A label of the gateway's Pods; several are all asked for.
    #[arg(long, value_name = "KEY=VALUE", default_value = "istio=ingressgateway")]
    selector: Vec<String>,

    /// Instead of a selector: a Gateway (Gateway API) in the namespace. May be given several times.
    #[arg(long, value_name = "NAME", conflicts_with = "selector")]
    gateway: Vec<String>,

    /// Instead of a selector: every Gateway of this GatewayClass; the namespace must be the root namespace.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["selector", "gateway"])]
    gateway_class: Vec<String>,

    /// The order among EnvoyFilters: the higher, the nearer to the router. Not 0.
    #[arg(long, value_name = "NUMBER", default_value_t = 100, allow_negative_numbers = true)]
    priority: i32,

    /// The scaler's namespace.
    #[arg(long, value_name = "NAMESPACE", default_value = "sluice-system")]
    scaler_namespace: String,

    /// How many replicas the scaler has.
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    scaler_replicas: usize,

    /// The domain of the cluster's Services.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,

    /// How many requests a gateway's worker holds for one object. Not given: the filter's default.
    #[arg(long, value_name = "NUMBER")]
    held_per_route: Option<u32>,

    /// How many requests a gateway's worker holds. Not given: the filter's default.
    #[arg(long, value_name = "NUMBER")]
    held_per_worker: Option<u32>,

    /// How long a request is held at most, whatever the objects say. Not given: the filter's default.
    #[arg(long, value_name = "DURATION")]
    hold_timeout: Option<String>,

    /// Leave the filter disabled where nobody enables it: for an operator that runs with --isolation and is to leave
    /// this EnvoyFilter to you.
    #[arg(long)]
    isolation: bool,

    /// Write a manifest that is too large for plain kubectl apply too.
    #[arg(long)]
    server_side: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let settings = args.settings()?;
    let module = fs::read(&args.module)
        .with_context(|| format!("cannot read {}; ./wasm-build.sh makes it", args.module.display()))?;
    let manifest = Manifest::new(&settings, &module)?;
    if !args.server_side {
        manifest.fits_plain_apply()?;
    }
    let Some(folder) = args.out.parent() else { bail!("{} is not a file", args.out.display()) };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(&args.out, manifest.yaml()).with_context(|| format!("cannot write {}", args.out.display()))?;
    println!("{} {} bytes", args.out.display(), manifest.yaml().len());
    Ok(())
}

// === impl Args ===

impl Args {
    fn settings(&self) -> anyhow::Result<Settings> {
        let binding = if !self.gateway.is_empty() {
            Binding::Gateways(self.gateway.clone())
        } else if !self.gateway_class.is_empty() {
            Binding::GatewayClasses(self.gateway_class.clone())
        } else {
            Binding::selector(self.selector.iter().map(String::as_str))?
        };
        Ok(Settings {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            binding,
            priority: self.priority,
            scaler: Scaler {
                namespace: self.scaler_namespace.clone(),
                replicas: self.scaler_replicas,
                cluster_domain: self.cluster_domain.clone(),
                ..Scaler::default()
            },
            limits: Limits {
                held_per_route: self.held_per_route,
                held_per_worker: self.held_per_worker,
                hold_timeout: self.hold_timeout.clone(),
            },
            isolation: self.isolation,
        })
    }
}
