//! The parts of a run. Each starts what it needs, measures, and ends all of it again: what one part leaves
//! running would be in the next one's figures.

mod cluster_source;
mod held;
mod idle;
mod isolation;
mod istio_endpoints;
mod istio_size;
mod keda;
mod latency;
mod link_scale;
mod operator_size;
mod routes;
mod wake;
mod warm;

use crate::{bench::Bench, report::Report};
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Part {
    /// Throughput and CPU of an app that is awake.
    Warm,
    /// What one connection feels.
    Latency,
    /// The edges of a cold start.
    Wake,
    /// What requests that wait cost.
    Held,
    /// Many objects against one.
    Routes,
    /// Throughput of a host that is none of Sluice's.
    Isolation,
    /// Nothing going on.
    Idle,
    /// A scaler that follows an API server.
    #[value(name = "cluster-source")]
    ClusterSource,
    /// Wakes by the real KEDA.
    Keda,
    /// A wake's last stretch, through the real istiod.
    #[value(name = "istio-endpoints")]
    IstioEndpoints,
    /// Many apps behind the real Istio.
    #[value(name = "istio-size")]
    IstioSize,
    /// Thousands of gateway workers at one scaler.
    #[value(name = "link-scale")]
    LinkScale,
    /// The operator with many objects.
    #[value(name = "operator-size")]
    OperatorSize,
}

/// All of them, in the order in which they run.
pub(crate) const ALL: [Part; 13] = [
    Part::Warm,
    Part::Latency,
    Part::Wake,
    Part::Held,
    Part::Routes,
    Part::Isolation,
    Part::Idle,
    Part::ClusterSource,
    Part::Keda,
    Part::IstioEndpoints,
    Part::IstioSize,
    Part::LinkScale,
    Part::OperatorSize,
];

// === impl Part ===

impl Part {
    /// What it measures, for people who wait for it.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Warm => "throughput and CPU per request with one worker and with two",
            Self::Latency => "added latency at one connection",
            Self::Wake => "arrival to `true` on StreamIsActive, endpoint usable to request at the app",
            Self::Held => "memory per held request, and thousands released at once",
            Self::Routes => "throughput and memory with many routes",
            Self::Isolation => {
                "throughput of a host that is none of Sluice's, with the filter disabled for it"
            }
            Self::Idle => "CPU with nothing going on",
            Self::ClusterSource => "a scaler that follows a real API server with many objects",
            Self::Keda => "arrival to the write of the scale, by the real KEDA",
            Self::IstioEndpoints => {
                "an EndpointSlice that says ready to the first byte at the app, through istiod"
            }
            Self::IstioSize => "many apps behind a gateway of Istio's, with and without Sluice",
            Self::LinkScale => "thousands of gateway workers that report to one scaler",
            Self::OperatorSize => "the operator on a real API server with many objects",
        }
    }

    /// Whether it runs only where it is asked for: it needs the programs of the cluster bed and root, or gigabytes
    /// of memory and minutes.
    pub(crate) fn is_extra(self) -> bool {
        matches!(
            self,
            Self::ClusterSource
                | Self::Keda
                | Self::IstioEndpoints
                | Self::IstioSize
                | Self::LinkScale
                | Self::OperatorSize
        )
    }

    /// Measures it.
    ///
    /// # Errors
    /// If something does not start or does not answer as it should.
    pub(crate) async fn run(self, bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
        match self {
            Self::Warm => warm::run(bench, report).await,
            Self::Latency => latency::run(bench, report).await,
            Self::Wake => wake::run(bench, report).await,
            Self::Held => held::run(bench, report).await,
            Self::Routes => routes::run(bench, report).await,
            Self::Isolation => isolation::run(bench, report).await,
            Self::Idle => idle::run(bench, report).await,
            Self::ClusterSource => cluster_source::run(bench, report).await,
            Self::Keda => keda::run(bench, report).await,
            Self::IstioEndpoints => istio_endpoints::run(bench, report).await,
            Self::IstioSize => istio_size::run(bench, report).await,
            Self::LinkScale => link_scale::run(bench, report).await,
            Self::OperatorSize => operator_size::run(bench, report).await,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warm => "warm",
            Self::Latency => "latency",
            Self::Wake => "wake",
            Self::Held => "held",
            Self::Routes => "routes",
            Self::Isolation => "isolation",
            Self::Idle => "idle",
            Self::ClusterSource => "cluster-source",
            Self::Keda => "keda",
            Self::IstioEndpoints => "istio-endpoints",
            Self::IstioSize => "istio-size",
            Self::LinkScale => "link-scale",
            Self::OperatorSize => "operator-size",
        })
    }
}
