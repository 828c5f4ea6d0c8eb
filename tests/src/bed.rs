//! Everything that one test needs, started in order and ended with the test.

use crate::{
    app::{App, AppOptions},
    eds::EdsFile,
    envoy::{self, AppCluster, Config, Eds, Envoy, Filter, Protocol, Route, Upstream},
    http::{self, Answer},
    logs::LogDir,
    objects::{Condition, Objects, Target},
    paths,
    scaler::{RouteState, Scaler, State},
    wait,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::task::JoinHandle;

/// A running gateway with its scalers, and the files that stand in for the cluster.
#[derive(Debug)]
pub struct Bed {
    /// The gateway.
    pub envoy: Envoy,
    /// The scalers. Those that a test was told to do without are not there.
    pub scalers: Vec<Scaler>,
    /// The API server's objects.
    pub objects: Objects,
    /// None where the scalers tell Envoy its endpoints.
    eds: Vec<(Target, EdsFile)>,
    apps: AtomicU64,
    // Last: it is dropped after the processes, when their logs are whole.
    logs: LogDir,
}

/// What a bed is to have.
#[derive(Clone, Debug)]
pub struct Builder {
    targets: Vec<Target>,
    workers: u32,
    envoy_version: Option<String>,
    filter: bool,
    scalers: usize,
    missing_scalers: usize,
    scaler_args: Vec<String>,
    plugin: Value,
    upstream: Upstream,
    unrouted: Vec<Target>,
    unknown: Vec<Target>,
    eds: Option<Protocol>,
}

// === impl Builder ===

impl Builder {
    /// How many workers Envoy has; 1 if not said.
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// Which Envoy; the pinned one if not said.
    pub fn envoy_version(mut self, version: &str) -> Self {
        self.envoy_version = Some(version.to_owned());
        self
    }

    /// Without the filter, and so without a scaler.
    pub fn plain(mut self) -> Self {
        self.filter = false;
        self.scalers = 0;
        self
    }

    /// How many scalers run; 1 if not said.
    pub fn scalers(mut self, scalers: usize) -> Self {
        self.scalers = scalers;
        self
    }

    /// Names scalers to the filter of which none runs: their addresses refuse connections.
    pub fn missing_scalers(mut self, scalers: usize) -> Self {
        self.missing_scalers = scalers;
        self
    }

    /// Further flags for the scalers.
    pub fn scaler_args(mut self, args: &[&str]) -> Self {
        self.scaler_args = args.iter().map(ToString::to_string).collect();
        self
    }

    /// A field of the plugin configuration.
    pub fn plugin(mut self, field: &str, value: Value) -> Self {
        self.plugin[field] = value;
        self
    }

    /// How Envoy talks to the apps; as the client does if not said.
    pub fn upstream(mut self, upstream: Upstream) -> Self {
        self.upstream = upstream;
        self
    }

    /// Apps that the gateway has clusters and routes for, and of which there is no object yet.
    pub fn unknown(mut self, targets: Vec<Target>) -> Self {
        self.unknown = targets;
        self
    }

    /// How Envoy asks the scalers for endpoints; state of the world if not said.
    pub fn eds(mut self, protocol: Protocol) -> Self {
        self.eds = Some(protocol);
        self
    }

    /// Envoy has its endpoints from a control plane of its own, as an Istio gateway has: the test says when
    /// ([`Bed::set_endpoints`]). It is so too where there is no scaler.
    pub fn control_plane(mut self) -> Self {
        self.eds = None;
        self
    }

    /// Objects that the scaler has and the gateway has no route for.
    pub fn unrouted(mut self, targets: Vec<Target>) -> Self {
        self.unrouted = targets;
        self
    }

    /// Starts it all, and waits until every worker has the whole route table from every scaler.
    ///
    /// # Errors
    /// If something does not start.
    pub async fn start(self) -> anyhow::Result<Bed> {
        let mut logs = LogDir::of_this_test()?;
        let started = self.start_in(logs.path()).await;
        let (envoy, scalers, objects, eds) = match started {
            Ok(parts) => parts,
            Err(error) => {
                logs.keep();
                bail!("{error:#}\n(all logs of this test are in {})", logs.path().display());
            }
        };
        Ok(Bed { envoy, scalers, objects, eds, apps: AtomicU64::new(0), logs })
    }

    async fn start_in(
        &self,
        dir: &Path,
    ) -> anyhow::Result<(Envoy, Vec<Scaler>, Objects, Vec<(Target, EdsFile)>)> {
        let objects = Objects::new(dir.join("objects"))?;
        for target in &self.targets {
            objects.add(target)?;
        }
        if !self.unrouted.is_empty() {
            let documents: Vec<Value> =
                self.unrouted.iter().flat_map(|target| [target.service(), target.scaled_object()]).collect();
            objects.write("unrouted.yaml", &documents)?;
        }
        let mut scalers = Vec::new();
        for index in 0..self.scalers {
            let name = format!("scaler-{index}");
            scalers.push(Scaler::start(&name, objects.dir(), &self.scaler_args, dir).await?);
        }
        let mut eds = Vec::new();
        if self.protocol().is_none() {
            for target in self.clusters() {
                eds.push((target.clone(), EdsFile::create(&dir.join("eds"), &target.cluster())?));
            }
        }
        let config = self.envoy_config(dir, &scalers, &eds)?;
        let binary = envoy::envoy(self.envoy_version.as_deref())?;
        let envoy = Envoy::start(&binary, self.workers, &config, dir).await?;
        let routes = self.targets.len() + self.unrouted.len();
        for scaler in &scalers {
            wait_for_links(scaler, self.workers, routes).await?;
        }
        Ok((envoy, scalers, objects, eds))
    }

    /// How Envoy asks the scalers for endpoints, if it does.
    fn protocol(&self) -> Option<Protocol> {
        self.eds.filter(|_| self.scalers > 0)
    }

    /// What the gateway has clusters for.
    fn clusters(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().chain(&self.unknown)
    }

    fn app_cluster(&self, name: String, eds: Eds) -> AppCluster {
        AppCluster { name, eds, upstream: self.upstream }
    }

    fn envoy_config(
        &self,
        dir: &Path,
        scalers: &[Scaler],
        eds: &[(Target, EdsFile)],
    ) -> anyhow::Result<Config> {
        let mut addresses: Vec<SocketAddr> = scalers.iter().map(Scaler::grpc).collect();
        // Port 1 on loopback: nothing listens there, and connecting is refused at once.
        addresses.extend((0..self.missing_scalers).map(|_| SocketAddr::from(([127, 0, 0, 1], 1))));
        let clusters: Vec<(String, SocketAddr)> = addresses
            .into_iter()
            .enumerate()
            .map(|(index, address)| (format!("sluice-scaler-{index}"), address))
            .collect();
        let filter = if self.filter {
            let mut config = self.plugin.clone();
            config["scalers"] = clusters.iter().map(|(name, _)| json!(name)).collect();
            Some(Filter { wasm: paths::wasm()?, config })
        } else {
            None
        };
        Ok(Config {
            listener: SocketAddr::from(([127, 0, 0, 1], 0)),
            filter,
            scalers: clusters,
            routes: self
                .clusters()
                .map(|target| Route { domains: vec![target.host()], cluster: target.cluster() })
                .collect(),
            apps: match self.protocol() {
                Some(protocol) => self
                    .clusters()
                    .map(|target| self.app_cluster(target.cluster(), Eds::Scalers(protocol)))
                    .collect(),
                None => eds
                    .iter()
                    .map(|(target, file)| {
                        self.app_cluster(target.cluster(), Eds::File(file.path().to_owned()))
                    })
                    .collect(),
            },
            access_log: dir.join("access.log"),
        })
    }
}

/// Waits until every worker's VM, and the main thread's, has the route table.
async fn wait_for_links(scaler: &Scaler, workers: u32, routes: usize) -> anyhow::Result<()> {
    let wanted = workers as usize + 1;
    wait::until(format!("{wanted} links with {routes} routes at {}", scaler.http()), async || {
        let state = scaler.state().await.map_err(|error| format!("{error:#}"))?;
        let connected = state.connected(routes);
        if connected == wanted { Ok(()) } else { Err(format!("{connected} of them: {:?}", state.gateways)) }
    })
    .await
}

// === impl Bed ===

impl Bed {
    /// A bed for one app or several, each behind a host of its own.
    pub fn of(targets: &[Target]) -> Builder {
        Builder {
            targets: targets.to_vec(),
            workers: 1,
            envoy_version: None,
            filter: true,
            scalers: 1,
            missing_scalers: 0,
            scaler_args: Vec::new(),
            plugin: json!({}),
            upstream: Upstream::AsDownstream,
            unrouted: Vec::new(),
            unknown: Vec::new(),
            eds: Some(Protocol::StateOfTheWorld),
        }
    }

    /// The folder of this test's files.
    pub fn dir(&self) -> &Path {
        self.logs.path()
    }

    /// Starts an app process; nobody is told of it yet.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_app(&self) -> anyhow::Result<App> {
        let number = self.apps.fetch_add(1, Ordering::Relaxed);
        App::start(&format!("app-{number}"), &AppOptions::default(), self.dir()).await
    }

    /// The file of the app's endpoints in Envoy, for somebody else to write; the bed has to write it no more.
    ///
    /// # Errors
    /// If there is no such app.
    pub fn eds(&self, target: &Target) -> anyhow::Result<EdsFile> {
        let file = self.eds_file(target)?;
        EdsFile::open(file.path().to_owned(), file.cluster())
    }

    fn eds_file(&self, target: &Target) -> anyhow::Result<&EdsFile> {
        let found = self.eds.iter().find(|(other, _)| other == target);
        let found = found.with_context(|| format!("this bed has no file of endpoints for {}", target.name));
        Ok(&found?.1)
    }

    /// The EndpointSlice controller's word to the scaler: these and no others are ready.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn say_ready(&self, target: &Target, endpoints: &[SocketAddr]) -> anyhow::Result<()> {
        let endpoints: Vec<_> = endpoints.iter().map(|address| (*address, Condition::Ready)).collect();
        self.objects.endpoints(target, &endpoints)
    }

    /// The control plane's word to Envoy: these and no others are the cluster's endpoints.
    ///
    /// # Errors
    /// If the scalers tell Envoy its endpoints, there is no such app, or the file cannot be written.
    pub fn set_endpoints(&self, target: &Target, endpoints: &[SocketAddr]) -> anyhow::Result<()> {
        self.eds_file(target)?.set(endpoints)?;
        Ok(())
    }

    /// Tells the scaler, then Envoy (if the scaler does not), as it happens in a cluster.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn wake(&self, target: &Target, endpoints: &[SocketAddr]) -> anyhow::Result<()> {
        self.say_ready(target, endpoints)?;
        if self.eds.is_empty() { Ok(()) } else { self.set_endpoints(target, endpoints) }
    }

    /// Takes the app's endpoints away from both, and waits until Envoy's main thread has seen it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub async fn sleep(&self, target: &Target) -> anyhow::Result<()> {
        self.wake(target, &[])?;
        self.until_usable(target, 0).await
    }

    /// Waits until Envoy's main thread knows so many endpoints of the app.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn until_usable(&self, target: &Target, endpoints: u64) -> anyhow::Result<()> {
        let cluster = target.cluster();
        wait::until(format!("{endpoints} endpoints of {cluster} in Envoy"), async || {
            match self.envoy.usable_endpoints(&cluster).await {
                Ok(usable) if usable == endpoints => Ok(()),
                Ok(usable) => Err(format!("{usable}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// GET through the gateway on a connection of its own.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, target: &Target, path: &str) -> anyhow::Result<Answer> {
        http::request(self.envoy.address(), http::get_request(&target.host(), path)?).await
    }

    /// As [`Self::get`], beside the test. The answer has to be waited for.
    pub fn spawn_get(&self, target: &Target, path: &str) -> JoinHandle<anyhow::Result<Answer>> {
        let (address, host, path) = (self.envoy.address(), target.host(), path.to_owned());
        tokio::spawn(async move { http::request(address, http::get_request(&host, &path)?).await })
    }

    /// What the first scaler knows of an app.
    ///
    /// # Errors
    /// If it does not answer or has no such route.
    pub async fn route(&self, target: &Target) -> anyhow::Result<RouteState> {
        let scaler = self.scalers.first().context("this bed has no scaler")?;
        route_of(&scaler.state().await?, target)
    }

    /// Waits until what the scaler at `index` knows of an app fulfils a condition.
    ///
    /// # Errors
    /// If it does not.
    pub async fn until_route_at(
        &self,
        index: usize,
        target: &Target,
        what: &str,
        condition: impl Fn(&RouteState) -> bool,
    ) -> anyhow::Result<RouteState> {
        let scaler = self.scalers.get(index).with_context(|| format!("this bed has no scaler {index}"))?;
        wait::until(format!("{what} at scaler {index}"), async || {
            let state = scaler.state().await.map_err(|error| format!("{error:#}"))?;
            let route = route_of(&state, target).map_err(|error| format!("{error:#}"))?;
            if condition(&route) { Ok(route) } else { Err(format!("{route:?}")) }
        })
        .await
    }

    /// As [`Self::until_route_at`] with the first scaler.
    ///
    /// # Errors
    /// If it does not.
    pub async fn until_route(
        &self,
        target: &Target,
        what: &str,
        condition: impl Fn(&RouteState) -> bool,
    ) -> anyhow::Result<RouteState> {
        self.until_route_at(0, target, what, condition).await
    }

    /// Waits until so many requests are held, as the scaler counts them.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn until_held(&self, target: &Target, held: u64) -> anyhow::Result<RouteState> {
        self.until_route(target, &format!("{held} held"), |route| route.held == held).await
    }

    /// Waits until so many requests are held, as the filter counts them in Envoy's stats: known without a scaler.
    ///
    /// # Errors
    /// If it does not come to that.
    pub async fn until_filter_holds(&self, held: u64) -> anyhow::Result<()> {
        wait::until(format!("{held} held by the filter"), async || {
            match self.envoy.stat("wasmcustom.sluice_held").await {
                Ok(seen) if seen == held => Ok(()),
                Ok(seen) => Err(format!("{seen}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }
}

fn route_of(state: &State, target: &Target) -> anyhow::Result<RouteState> {
    state.route(&target.namespace, &target.name).cloned().with_context(|| {
        format!("no route {}/{}; problems: {:?}", target.namespace, target.name, state.problems)
    })
}
