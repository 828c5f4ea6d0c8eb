//! An Envoy under test: the test bed's configuration without its access log, whose cost would make everything
//! look alike.

use crate::{bench::Bench, scaler::Scaler, system::Cores};
use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use sluice_tests::{
    eds::EdsFile,
    envoy::{AppCluster, Config, Eds, Filter, LISTENER, Protocol, Route, Upstream},
    http,
    objects::{Condition, Objects, Target},
    process::Process,
    wait,
};
use std::{fs, net::SocketAddr, path::Path, process::Command};

/// What stands between listener and router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Plain,
    /// The filter that does nothing.
    Empty,
    /// Sluice, with a scaler that has so many routes.
    Sluice {
        /// The app's own one among them.
        routes: usize,
    },
    /// Sluice in a gateway where the requests are for a host that is none of its objects'.
    Unmanaged {
        /// The filter is in the chain disabled, and enabled on the virtual hosts of objects only.
        isolated: bool,
    },
    /// Envoy's own fault filter, which delays every request for longer than anybody looks: what holding costs
    /// without Wasm.
    Delay,
}

/// A running gateway, and its scaler if it has one.
#[derive(Debug)]
pub(crate) struct Gateway {
    kind: Kind,
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    scaler: Option<Scaler>,
    objects: Objects,
    /// None where the scaler tells Envoy its endpoints.
    eds: Option<EdsFile>,
    target: Target,
    /// The app of Sluice's where the requests are for another one. It sleeps.
    managed: Option<Target>,
    workers: u32,
}

// === impl Kind ===

impl Kind {
    /// What it is called in the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Empty => "empty",
            Self::Sluice { .. } => "Sluice",
            Self::Unmanaged { isolated: true } => "isolated",
            Self::Unmanaged { isolated: false } => "not isolated",
            Self::Delay => "Envoy's own delay",
        }
    }

    fn routes(self) -> usize {
        match self {
            Self::Sluice { routes } => routes,
            Self::Unmanaged { .. } => 1,
            Self::Plain | Self::Empty | Self::Delay => 0,
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Starts a gateway whose app is asleep. A Sluice is linked to its scaler and has the whole table.
    ///
    /// # Errors
    /// If something does not start.
    pub(crate) async fn start(
        bench: &Bench,
        kind: Kind,
        workers: u32,
        cores: &Cores,
    ) -> anyhow::Result<Self> {
        let dir = bench.dir(kind.name())?;
        let target = Target::new("app");
        let managed = matches!(kind, Kind::Unmanaged { .. }).then(|| Target::new("managed"));
        let objects = Objects::new(dir.join("objects"))?;
        objects.add(managed.as_ref().unwrap_or(&target))?;
        let others: Vec<Value> = (1..kind.routes())
            .map(|number| Target::new(&format!("other-{number}")))
            .flat_map(|other| [other.service(), other.scaled_object()])
            .collect();
        if !others.is_empty() {
            objects.write("others.yaml", &others)?;
        }
        let scaler = match kind {
            Kind::Sluice { .. } | Kind::Unmanaged { .. } => Some(Scaler::start(&objects, cores, &dir).await?),
            Kind::Plain | Kind::Empty | Kind::Delay => None,
        };
        let eds = match kind {
            Kind::Sluice { .. } => None,
            _ => Some(EdsFile::create(&dir.join("eds"), &target.cluster())?),
        };
        let apps = [Some(&target), managed.as_ref()].into_iter().flatten().collect::<Vec<_>>();
        let bootstrap = bootstrap(bench, kind, &apps, scaler.as_ref(), eds.as_ref(), &dir)?;
        let (process, address, admin) = start_envoy(bench, &bootstrap, workers, cores, &dir).await?;
        let gateway = Self { kind, process, address, admin, scaler, objects, eds, target, managed, workers };
        if let Some(scaler) = &gateway.scaler {
            scaler.until_linked(gateway.vms(), kind.routes()).await?;
        }
        Ok(gateway)
    }

    /// Where requests go.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What requests have as `Host`.
    pub(crate) fn host(&self) -> String {
        self.target.host()
    }

    /// Envoy's process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The scaler, if there is one.
    pub(crate) fn scaler(&self) -> Option<&Scaler> {
        self.scaler.as_ref()
    }

    /// How many VMs a filter has: one in each worker, and the main thread's.
    pub(crate) fn vms(&self) -> usize {
        self.workers as usize + 1
    }

    /// Gives the app an endpoint, and waits until a request gets there.
    ///
    /// # Errors
    /// If none does.
    pub(crate) async fn wake(&self, endpoint: SocketAddr) -> anyhow::Result<()> {
        if let (Some(scaler), None) = (&self.scaler, &self.managed) {
            self.objects.endpoints(&self.target, &[(endpoint, Condition::Ready)])?;
            scaler.until_ready(&self.target).await?;
        }
        self.set_endpoint(endpoint).await?;
        wait::until("a request to reach the app", async || {
            let request = http::get_request(&self.host(), "/").map_err(|error| error.to_string())?;
            match http::request(self.address, request).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.status.to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Gives the app's cluster an endpoint (where there is a scaler, it does that), and waits until Envoy has it.
    ///
    /// # Errors
    /// If it does not come to that.
    pub(crate) async fn set_endpoint(&self, endpoint: SocketAddr) -> anyhow::Result<()> {
        if let Some(eds) = &self.eds {
            eds.set(&[endpoint])?;
        }
        self.until_stat(&format!("cluster.{}.membership_healthy", self.target.cluster()), 1).await
    }

    /// Sends a request to the managed app, which sleeps, and sees it held: the filter is at work for that one. Then
    /// leaves.
    ///
    /// # Errors
    /// If it is not held, or there is no such app.
    pub(crate) async fn holds_for_managed(&self) -> anyhow::Result<()> {
        let managed = self.managed.as_ref().context("a gateway without an app of Sluice's")?;
        let request = http::get_request(&managed.host(), "/")?;
        tokio::select! {
            answer = http::request(self.address, request) => bail!("it was answered: {:?}", answer?),
            held = self.until_stat("wasmcustom.sluice_held", 1) => held?,
        }
        self.until_stat("wasmcustom.sluice_held", 0).await
    }

    /// Waits until so many requests wait where this kind of gateway has them wait.
    ///
    /// # Errors
    /// If it does not come to that.
    pub(crate) async fn until_waiting(&self, requests: u64) -> anyhow::Result<()> {
        self.until_stat(&format!("http.{LISTENER}.downstream_rq_active"), requests).await?;
        match self.kind {
            Kind::Sluice { .. } => self.until_stat("wasmcustom.sluice_held", requests).await,
            Kind::Delay => self.until_stat(&format!("http.{LISTENER}.fault.active_faults"), requests).await,
            Kind::Plain | Kind::Empty | Kind::Unmanaged { .. } => {
                let at_the_app = format!("cluster.{}.upstream_rq_active", self.target.cluster());
                self.until_stat(&at_the_app, requests).await
            }
        }
    }

    async fn until_stat(&self, name: &str, wanted: u64) -> anyhow::Result<()> {
        wait::until(format!("{name} to be {wanted}"), async || {
            let stats =
                http::get(self.admin, "/stats?type=Gauges").await.map_err(|error| error.to_string())?.text();
            let seen = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let seen = seen.ok_or("Envoy has no such gauge")?;
            if seen.parse() == Ok(wanted) { Ok(()) } else { Err(seen.to_owned()) }
        })
        .await
    }
}

fn bootstrap(
    bench: &Bench,
    kind: Kind,
    targets: &[&Target],
    scaler: Option<&Scaler>,
    eds: Option<&EdsFile>,
    dir: &Path,
) -> anyhow::Result<Value> {
    let filter = match kind {
        Kind::Plain | Kind::Delay => None,
        Kind::Empty => Some(Filter { wasm: bench.empty_filter.clone(), config: json!({}) }),
        Kind::Sluice { .. } | Kind::Unmanaged { .. } => Some(Filter {
            wasm: bench.filter.clone(),
            config: json!({
                "scalers": ["sluice-scaler-0"],
                "limits": {"heldPerRoute": 100_000, "heldPerWorker": 100_000},
            }),
        }),
    };
    let config = Config {
        listener: SocketAddr::from(([127, 0, 0, 1], 0)),
        filter,
        scalers: scaler.map(|scaler| ("sluice-scaler-0".to_owned(), scaler.grpc())).into_iter().collect(),
        routes: targets
            .iter()
            .map(|target| Route { domains: vec![target.host()], cluster: target.cluster() })
            .collect(),
        apps: targets
            .iter()
            .enumerate()
            .map(|(index, target)| AppCluster {
                name: target.cluster(),
                eds: match eds {
                    Some(file) if index == 0 => Eds::File(file.path().to_owned()),
                    _ => Eds::Scalers(Protocol::StateOfTheWorld),
                },
                upstream: Upstream::AsDownstream,
            })
            .collect(),
        access_log: dir.join("access.log"),
    };
    let mut bootstrap = config.bootstrap();
    let manager = bootstrap
        .pointer_mut("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config")
        .and_then(Value::as_object_mut)
        .context("the test bed's configuration has no connection manager where the bench looks for it")?;
    manager
        .remove("access_log")
        .context("the test bed's configuration has no access log to be taken away")?;
    match kind {
        Kind::Delay => {
            let filters = manager.get_mut("http_filters").and_then(Value::as_array_mut);
            filters.context("the test bed's configuration has no filters")?.insert(0, delay());
        }
        Kind::Unmanaged { isolated: true } => isolate(manager)?,
        _ => {}
    }
    Ok(bootstrap)
}

/// Disables the filter, which is the first one, and enables it on the last virtual host, which is the managed one.
fn isolate(manager: &mut Map<String, Value>) -> anyhow::Result<()> {
    let filter = manager.get_mut("http_filters").and_then(|filters| filters.get_mut(0));
    let filter = filter.context("the test bed's configuration has no filters")?;
    filter["disabled"] = json!(true);
    let name = filter["name"].as_str().context("a filter without a name")?.to_owned();
    let hosts = manager.get_mut("route_config").and_then(|routes| routes["virtual_hosts"].as_array_mut());
    let host = hosts.and_then(|hosts| hosts.last_mut());
    let host = host.context("the test bed's configuration has no virtual hosts")?;
    host["typed_per_filter_config"] = json!({name: enabled()});
    Ok(())
}

/// What enables, on a virtual host, a filter that is disabled otherwise. It takes a configuration, which the Wasm
/// filter has none of per host: hence optional. Envoy would take an empty one too, but istiod refuses that.
fn enabled() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "is_optional": true,
        "config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"},
    })
}

fn delay() -> Value {
    json!({"name": "delay", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay": {"fixed_delay": "3600s", "percentage": {"numerator": 100}},
    }})
}

async fn start_envoy(
    bench: &Bench,
    bootstrap: &Value,
    workers: u32,
    cores: &Cores,
    dir: &Path,
) -> anyhow::Result<(Process, SocketAddr, SocketAddr)> {
    let file = dir.join("envoy.json");
    fs::write(&file, serde_json::to_vec_pretty(bootstrap)?)?;
    let (admin_file, log) = (dir.join("envoy-admin.txt"), dir.join("envoy.log"));
    let mut command = Command::new(&bench.envoy);
    command
        .args(["--concurrency", &workers.to_string(), "--disable-hot-restart", "--log-level", "warn"])
        .arg("--admin-address-path")
        .arg(&admin_file)
        .arg("-c")
        .arg(&file);
    let mut process = cores.gateway(|| Process::spawn("envoy", &mut command, &log))?;
    let started = wait::until("Envoy to listen", async || {
        // An Envoy that ended is no reason to wait longer: the Ok carries the error out.
        if let Err(ended) = process.must_run() {
            return Ok(Err(ended));
        }
        let admin = fs::read_to_string(&admin_file).map_err(|_| "no admin address")?;
        let admin: SocketAddr = admin.trim().parse().map_err(|_| "half an admin address")?;
        let ready = http::get(admin, "/ready").await.map_err(|error| error.to_string())?;
        if ready.text().trim() != "LIVE" {
            return Err(format!("it is {}", ready.text().trim()));
        }
        let address = listener(admin).await.map_err(|error| error.to_string())?;
        Ok(Ok((address, admin)))
    })
    .await
    .and_then(|started| started);
    match started {
        Ok((address, admin)) => Ok((process, address, admin)),
        Err(error) => bail!("{error:#}\n{}", fs::read_to_string(&log).unwrap_or_default()),
    }
}

async fn listener(admin: SocketAddr) -> anyhow::Result<SocketAddr> {
    let listeners: Value = http::get(admin, "/listeners?format=json").await?.json()?;
    let port = &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
    let port = port.as_u64().context("Envoy has no listener yet")?;
    Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
}
