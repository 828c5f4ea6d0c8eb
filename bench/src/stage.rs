//! Several ways to one app, side by side.

use crate::{
    args::OtherPath,
    bench::Bench,
    gateway::{Gateway, Kind},
    system::Cores,
    upstream::Upstream,
};
use std::net::SocketAddr;

/// The ways, and what they stand on.
#[derive(Debug)]
pub(crate) struct Stage {
    /// In the order in which they were asked for, those of somebody else last.
    pub(crate) ways: Vec<Way>,
    /// The gateways of our own, in the same order.
    pub(crate) gateways: Vec<Gateway>,
    /// Who runs where.
    pub(crate) cores: Cores,
    _upstream: Upstream,
}

/// One way to the app.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// How it is called.
    pub(crate) name: String,
    /// Where its requests go.
    pub(crate) address: SocketAddr,
    /// What they have as `Host`.
    pub(crate) host: String,
    /// What they ask for.
    pub(crate) path: String,
    /// The processes that every request passes. None: not known.
    pub(crate) pids: Vec<u32>,
    /// Those that work for it beside the request's way.
    pub(crate) helpers: Vec<u32>,
}

// === impl Stage ===

impl Stage {
    /// Starts gateways of these kinds with the app awake.
    ///
    /// # Errors
    /// If something does not start.
    pub(crate) async fn warm(
        bench: &Bench,
        kinds: &[Kind],
        workers: u32,
        cores: Cores,
    ) -> anyhow::Result<Self> {
        let upstream = Upstream::fast(bench, &cores).await?;
        let mut gateways = Vec::new();
        let mut ways = Vec::new();
        for kind in kinds {
            let gateway = Gateway::start(bench, *kind, workers, &cores).await?;
            gateway.wake(upstream.address()).await?;
            ways.push(Way::of_gateway(kind.name(), &gateway));
            gateways.push(gateway);
        }
        Ok(Self { ways, gateways, cores, _upstream: upstream })
    }

    /// Adds the ways that were given on the command line.
    pub(crate) fn and_others(mut self, bench: &Bench) -> Self {
        self.ways.extend(bench.others.iter().map(Way::of_other));
        self
    }

    /// Whose turn it is, in each round another one first: what a turn leaves behind does not always meet the
    /// same one.
    pub(crate) fn turns(&self, round: usize) -> impl Iterator<Item = (usize, &Way)> {
        let count = self.ways.len();
        self.ways.iter().enumerate().cycle().skip(round % count.max(1)).take(count)
    }
}

// === impl Way ===

impl Way {
    fn of_gateway(name: &str, gateway: &Gateway) -> Self {
        Self {
            name: name.to_owned(),
            address: gateway.address(),
            host: gateway.host(),
            path: "/".to_owned(),
            pids: vec![gateway.id()],
            helpers: gateway.scaler().map(|scaler| scaler.id()).into_iter().collect(),
        }
    }

    fn of_other(other: &OtherPath) -> Self {
        Self {
            name: other.name.clone(),
            address: other.address,
            host: other.host.clone(),
            path: other.path.clone(),
            pids: other.pids.clone(),
            helpers: Vec::new(),
        }
    }
}
