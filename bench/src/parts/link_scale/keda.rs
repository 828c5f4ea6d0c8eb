//! KEDA at work for every object: its streams, and the calls of its scale loop and of the HPA.
//!
//! As KEDA 2.21 does it (`pkg/scalers/external_scaler.go`, `pkg/scaling/scale_handler.go`): one connection for all
//! triggers with the same address; on it two streams for each trigger, StreamIsActive and StreamMetricSpec; and each
//! look at a trigger is GetMetrics and then IsActive. With StreamMetricSpec open it never asks for the metrics' names
//! again.

use super::sleepers::Times;
use anyhow::{Context as _, ensure};
use sluice_core::metric::http_scaled_object_name;
use sluice_proto::keda::{
    GetMetricsRequest, IsActiveResponse, ScaledObjectRef, external_scaler_client::ExternalScalerClient,
};
use sluice_tests::objects::Target;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// How often the scale loop looks at a trigger: `pollingInterval`'s default.
const POLL: Duration = Duration::from_secs(30);
/// How often the HPA of an app that runs asks: `--horizontal-pod-autoscaler-sync-period`'s default.
const HPA: Duration = Duration::from_secs(15);
/// Streams that are being opened at once.
const OPENERS: usize = 100;
/// How close together looks begin that are due in the same moment.
const STEP: Duration = Duration::from_millis(10);

/// KEDA's operator: its connection, and the streams that are open on it.
#[derive(Debug)]
pub(super) struct Keda {
    client: ExternalScalerClient<Channel>,
    address: SocketAddr,
    tasks: JoinSet<anyhow::Result<()>>,
    told: Arc<AtomicU64>,
}

/// The looks at all objects, each in its turn, until they are ended.
#[derive(Debug)]
pub(super) struct Looks {
    pacer: JoinSet<anyhow::Result<()>>,
    /// How long each GetMetrics took.
    pub(super) metrics: Times,
    /// How long each IsActive took.
    pub(super) activity: Times,
}

// === impl Keda ===

impl Keda {
    /// Connects.
    ///
    /// # Errors
    /// If nobody answers.
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let client = ExternalScalerClient::new(channel);
        Ok(Self { client, address, tasks: JoinSet::new(), told: Arc::default() })
    }

    /// Opens a stream of an object's activity, for somebody who reads it.
    ///
    /// # Errors
    /// The scaler's status.
    pub(super) async fn activity(&self, target: &Target) -> anyhow::Result<Streaming<IsActiveResponse>> {
        let stream = self.client.clone().stream_is_active(self.reference(target)).await;
        Ok(stream.context("StreamIsActive")?.into_inner())
    }

    /// Opens what is not open yet of the streams of all objects: of each StreamMetricSpec, and of `quiet` ones
    /// StreamIsActive too. Returns once each has said its first word.
    ///
    /// # Errors
    /// If one cannot be opened, or says nothing.
    pub(super) async fn open(&mut self, all: &[Target], quiet: &[Target]) -> anyhow::Result<()> {
        let mut opening = JoinSet::new();
        let told = Arc::clone(&self.told);
        for target in quiet {
            let (mut client, reference) = (self.client.clone(), self.reference(target));
            while opening.len() >= OPENERS {
                self.keep(opening.join_next().await)?;
            }
            let told = Arc::clone(&told);
            opening.spawn(async move {
                let mut stream =
                    client.stream_is_active(reference).await.context("StreamIsActive")?.into_inner();
                stream.message().await?.context("StreamIsActive ended")?;
                Ok(Open::Activity(stream, told))
            });
        }
        for target in all {
            let (mut client, reference) = (self.client.clone(), self.reference(target));
            while opening.len() >= OPENERS {
                self.keep(opening.join_next().await)?;
            }
            opening.spawn(async move {
                let mut stream =
                    client.stream_metric_spec(reference).await.context("StreamMetricSpec")?.into_inner();
                stream.message().await?.context("StreamMetricSpec ended")?;
                Ok(Open::Specs(stream))
            });
        }
        while let Some(opened) = opening.join_next().await {
            self.keep(Some(opened))?;
        }
        Ok(())
    }

    /// Reads what comes on a stream that has just been opened, for as long as there is a run.
    fn keep(
        &mut self,
        opened: Option<Result<anyhow::Result<Open>, tokio::task::JoinError>>,
    ) -> anyhow::Result<()> {
        let Some(opened) = opened else { return Ok(()) };
        let opened = opened??;
        self.tasks.spawn(async move {
            match opened {
                Open::Activity(mut stream, told) => {
                    while stream.message().await?.is_some() {
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Open::Specs(mut stream) => while stream.message().await?.is_some() {},
            }
            anyhow::bail!("one of KEDA's streams ended")
        });
        Ok(())
    }

    /// Begins to look at all of these, as often as KEDA does at apps that run: each by the scale loop and by the HPA.
    pub(super) fn look_at(&self, targets: &[Target]) -> Looks {
        let (metrics, activity) = (Times::default(), Times::default());
        let requests: Vec<_> = targets
            .iter()
            .map(|target| GetMetricsRequest {
                scaled_object_ref: Some(self.reference(target)),
                metric_name: http_scaled_object_name(&target.namespace, &target.name),
            })
            .collect();
        let mut pacer = JoinSet::new();
        let (client, times) = (self.client.clone(), (metrics.clone(), activity.clone()));
        pacer.spawn(async move {
            let rate = looks_per_second(requests.len());
            let (begun, mut made) = (Instant::now(), 0);
            let mut clock = tokio::time::interval(STEP);
            let mut looks: JoinSet<anyhow::Result<()>> = JoinSet::new();
            let mut next = requests.iter().cycle();
            loop {
                clock.tick().await;
                let due = (begun.elapsed().as_secs_f64() * rate) as usize;
                while made < due {
                    made += 1;
                    let request = next.next().context("nothing to look at")?.clone();
                    looks.spawn(look(client.clone(), request, times.clone()));
                }
                while let Some(ended) = looks.try_join_next() {
                    ended??;
                }
            }
        });
        Looks { pacer, metrics, activity }
    }

    /// How often `true` or `false` was told on streams that nobody waits at.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Fails if one of the streams has ended.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?,
        }
    }

    /// What KEDA says of a trigger: with all of its metadata, as the operator writes it.
    fn reference(&self, target: &Target) -> ScaledObjectRef {
        let metadata = [
            ("httpScaledObject".to_owned(), target.name.clone()),
            ("scalerAddress".to_owned(), self.address.to_string()),
        ];
        ScaledObjectRef {
            name: target.name.clone(),
            namespace: target.namespace.clone(),
            scaler_metadata: metadata.into(),
        }
    }
}

/// A stream that has said its first word.
enum Open {
    Activity(Streaming<IsActiveResponse>, Arc<AtomicU64>),
    Specs(Streaming<sluice_proto::keda::GetMetricSpecResponse>),
}

async fn look(
    mut client: ExternalScalerClient<Channel>,
    request: GetMetricsRequest,
    (metrics, activity): (Times, Times),
) -> anyhow::Result<()> {
    let reference = request.scaled_object_ref.clone().context("no reference")?;
    let begun = Instant::now();
    let values = client.get_metrics(request).await.context("GetMetrics")?.into_inner().metric_values;
    metrics.add(begun.elapsed());
    ensure!(values.len() == 1, "GetMetrics gave {} values", values.len());
    let begun = Instant::now();
    client.is_active(reference).await.context("IsActive")?;
    activity.add(begun.elapsed());
    Ok(())
}

/// How many looks there are in a second at so many apps that run.
fn looks_per_second(apps: usize) -> f64 {
    apps as f64 * (1.0 / POLL.as_secs_f64() + 1.0 / HPA.as_secs_f64())
}

// === impl Looks ===

impl Looks {
    /// Fails if a call has.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.pacer.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.context("one of KEDA's calls"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_runs_is_looked_at_three_times_in_thirty_seconds() {
        assert!((looks_per_second(10_000) - 1_000.0).abs() < 1e-6);
        assert!((looks_per_second(1) - 0.1).abs() < 1e-9);
    }
}
