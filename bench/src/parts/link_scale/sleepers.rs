//! Apps that sleep, and KEDA's streams that wait for somebody to want them.

use super::{keda::Keda, worker::Urgent};
use anyhow::Context as _;
use sluice_proto::keda::IsActiveResponse;
use sluice_tests::objects::Target;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::Streaming;

/// How long the scaler calls an app active after its last request: the least that it takes.
pub(super) const ACTIVITY_WINDOW: &str = "1s";
/// How often each of them is woken. Long enough that it sleeps again.
const EVERY: Duration = Duration::from_secs(4);

/// The times from an arrival to `true`, in ms.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Arc<Mutex<Vec<f64>>>);

/// Wakes them in turns, until it is dropped.
#[derive(Debug)]
pub(super) struct Sleepers {
    tasks: JoinSet<anyhow::Result<()>>,
    pub(super) times: Times,
}

// === impl Times ===

impl Times {
    /// What has come since the last time.
    pub(super) fn take(&self) -> Vec<f64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(&self, time: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(time.as_secs_f64() * 1_000.0);
    }
}

// === impl Sleepers ===

impl Sleepers {
    /// Opens a stream for each of them, and begins. Requests come to any of the workers.
    ///
    /// # Errors
    /// If a stream cannot be opened.
    pub(super) async fn start(
        keda: &Keda,
        sleepers: &[(Target, u64)],
        workers: &[mpsc::UnboundedSender<Urgent>],
    ) -> anyhow::Result<Self> {
        let (mut tasks, times) = (JoinSet::new(), Times::default());
        for (number, (target, route)) in sleepers.iter().enumerate() {
            let mut stream = keda.activity(target).await?;
            let (workers, times, route) = (workers.to_vec(), times.clone(), *route);
            let first = EVERY * number as u32 / sleepers.len() as u32;
            tasks.spawn(async move {
                until(&mut stream, false).await?;
                let mut turns = tokio::time::interval_at(tokio::time::Instant::now() + first, EVERY);
                // Another worker each time, none of them much more often than others.
                for worker in (0..workers.len()).cycle().skip(number * 37 % workers.len()).step_by(101) {
                    turns.tick().await;
                    let worker = workers.get(worker).context("no such worker")?;
                    let arrived = Instant::now();
                    worker.send((route, 1)).context("the worker is gone")?;
                    until(&mut stream, true).await?;
                    times.add(arrived.elapsed());
                    worker.send((route, 0)).context("the worker is gone")?;
                    until(&mut stream, false).await?;
                }
                Ok(())
            });
        }
        Ok(Self { tasks, times })
    }

    /// Fails if one of them has.
    pub(super) fn must_run(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.context("one that waits for `true`"),
        }
    }
}

async fn until(stream: &mut Streaming<IsActiveResponse>, wanted: bool) -> anyhow::Result<()> {
    while stream.message().await?.context("KEDA's stream ended")?.result != wanted {}
    Ok(())
}
