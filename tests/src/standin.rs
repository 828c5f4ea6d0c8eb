//! KEDA, kubelet, the EndpointSlice controller and istiod in small, for one app, over public protocols only.
//!
//! ```text
//! scaler ──StreamIsActive, IsActive──▶ KEDA: 0 → 1 at `true`, 1 → 0 after the cooldown
//!                                        │
//!                                        ▼
//!                                      kubelet: starts and ends the process, probes its readiness
//!                                        │
//!                                        ▼
//!            scaler ◀──YAML── EndpointSlice controller ──after a lag──▶ control plane ──EDS──▶ Envoy
//! ```
//!
//! The scaler learns of a ready pod before Envoy does, and of an ending one too: that is the order in a cluster. There
//! may be no control plane: then it is the scaler that tells Envoy.

use crate::{
    app::{App, AppOptions},
    clock,
    eds::EdsFile,
    keda::Keda,
    objects::{Condition, Objects, Target},
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::MissedTickBehavior,
};

/// Before a stream that ended is opened again. KEDA waits 2 s and more after an error; nobody wants to watch that.
const RECONNECT: Duration = Duration::from_millis(200);

/// The stand-in's settings.
#[derive(Clone, Debug)]
pub struct Options {
    /// The app.
    pub target: Target,
    /// The ScaledObject's `pollingInterval`.
    pub polling_interval: Duration,
    /// The ScaledObject's `cooldownPeriod`: so long after it was last active the app ends.
    pub cooldown: Duration,
    /// How the process starts.
    pub app: AppOptions,
    /// From the pod's deletion to SIGTERM: its `preStop`.
    pub termination_delay: Duration,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum What {
    /// KEDA's stream to the scaler is open.
    StreamOpen,
    /// KEDA heard `true` while nothing ran.
    Told,
    /// The app's process was started.
    ProcessStarted {
        /// Its id.
        pid: u32,
        /// Where it writes what arrives.
        requests: PathBuf,
    },
    /// The app passes its readiness probe.
    ProcessReady,
    /// The EndpointSlices were written; the moment is the one just before.
    Slices {
        /// How many endpoints are ready in them.
        ready: usize,
    },
    /// The control plane wrote Envoy's endpoints; the moment is the one just before.
    Endpoints {
        /// How many there are.
        usable: usize,
    },
    /// KEDA scaled to zero.
    ScaledToZero,
    /// The app's process has ended.
    ProcessEnded,
}

/// Where everything lies and whom to tell.
#[derive(Debug)]
pub struct Surroundings {
    /// The scaler's gRPC address.
    pub scaler: SocketAddr,
    /// The folder that the scaler reads.
    pub objects: Objects,
    /// Who tells Envoy the endpoints of the app's cluster, if the scaler does not.
    pub control_plane: Option<ControlPlane>,
    /// Where the app's logs go.
    pub dir: PathBuf,
    /// Who is told what happens.
    pub events: mpsc::UnboundedSender<Event>,
}

/// istiod's part.
#[derive(Debug)]
pub struct ControlPlane {
    /// Envoy's endpoints of the app's cluster.
    pub eds: EdsFile,
    /// From an EndpointSlice to Envoy's endpoints: istiod's debounce and push. 102 ms is what istiod 1.31.1 takes
    /// by default, 2 ms without its debounce.
    pub lag: Duration,
}

/// Runs until `shutdown`, then ends every process that it started.
///
/// # Errors
/// If the app cannot be started or a file not be written.
pub async fn run(
    options: Options,
    surroundings: Surroundings,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let mut standin = Standin::start(options, surroundings, &mut tasks)?;
    tokio::select! {
        ended = standin.scale() => ended,
        Some(ended) = tasks.join_next() => ended.context("a part of the stand-in broke")?,
        () = shutdown => Ok(()),
    }
}

struct Standin {
    options: Options,
    dir: PathBuf,
    keda: Keda,
    cluster: Arc<Cluster>,
    /// Changes whenever `true` comes on the stream; when that was.
    activation: watch::Receiver<u64>,
    /// The processes started so far.
    started: u64,
    terminating: JoinSet<()>,
}

/// The EndpointSlice controller: what endpoints there are, and who is told.
struct Cluster {
    target: Target,
    objects: Objects,
    endpoints: Mutex<Vec<(SocketAddr, Condition)>>,
    /// The ready ones, for the control plane.
    ready: watch::Sender<Vec<SocketAddr>>,
    events: mpsc::UnboundedSender<Event>,
}

// === impl Standin ===

impl Standin {
    fn start(
        options: Options,
        surroundings: Surroundings,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let Surroundings { scaler, objects, control_plane, dir, events } = surroundings;
        let keda = Keda::new(scaler, &options.target)?;
        let (ready, ready_changes) = watch::channel(Vec::new());
        let (activation_sender, activation) = watch::channel(0);
        let cluster = Arc::new(Cluster {
            target: options.target.clone(),
            objects,
            endpoints: Mutex::default(),
            ready,
            events: events.clone(),
        });
        cluster.publish()?;
        tasks.spawn(follow_stream(keda.clone(), activation_sender, events.clone()));
        if let Some(control_plane) = control_plane {
            tasks.spawn(control_plane.run(ready_changes, events));
        }
        Ok(Self { options, dir, keda, cluster, activation, started: 0, terminating: JoinSet::new() })
    }

    /// KEDA's loop over its one ScaledObject.
    async fn scale(&mut self) -> anyhow::Result<()> {
        let mut poll = tokio::time::interval(self.options.polling_interval);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.activated(&mut poll).await;
            let app = self.scale_up().await?;
            self.deactivated(&mut poll).await;
            self.scale_down(app)?;
        }
    }

    /// Waits for `true`, pushed or polled.
    async fn activated(&mut self, poll: &mut tokio::time::Interval) {
        loop {
            let told_us = tokio::select! {
                Ok(()) = self.activation.changed() => Some(*self.activation.borrow_and_update()),
                _ = poll.tick() => self.polled_active().await.then(clock::now_us),
            };
            if let Some(at_us) = told_us {
                self.cluster.say_at(at_us, What::Told);
                return;
            }
        }
    }

    /// Waits until nothing was active for the cooldown. Only a poll ends an app: so does KEDA.
    async fn deactivated(&mut self, poll: &mut tokio::time::Interval) {
        let mut last_active = Instant::now();
        loop {
            tokio::select! {
                Ok(()) = self.activation.changed() => {
                    self.activation.borrow_and_update();
                    last_active = Instant::now();
                }
                _ = poll.tick() => {
                    if self.polled_active().await {
                        last_active = Instant::now();
                    } else if last_active.elapsed() >= self.options.cooldown {
                        return;
                    }
                }
            }
        }
    }

    /// A scaler that does not answer is no reason to start or end anything.
    async fn polled_active(&mut self) -> bool {
        self.keda.is_active().await.unwrap_or(false)
    }

    async fn scale_up(&mut self) -> anyhow::Result<App> {
        self.started += 1;
        let starting = App::spawn(&format!("app-{}", self.started), &self.options.app, &self.dir)?;
        self.cluster
            .say(What::ProcessStarted { pid: starting.id(), requests: starting.requests().to_owned() });
        let app = starting.ready().await?;
        self.cluster.say(What::ProcessReady);
        self.cluster.set(app.address(), Some(Condition::Ready))?;
        Ok(app)
    }

    fn scale_down(&mut self, mut app: App) -> anyhow::Result<()> {
        self.cluster.say(What::ScaledToZero);
        self.cluster.set(app.address(), Some(Condition::Terminating))?;
        let cluster = Arc::clone(&self.cluster);
        let delay = self.options.termination_delay;
        // Beside the loop: KEDA may scale up again while the old pod is still ending.
        self.terminating.spawn(async move {
            tokio::time::sleep(delay).await;
            let ended = app.stop().await.and_then(|()| cluster.set(app.address(), None));
            match ended {
                Ok(()) => cluster.say(What::ProcessEnded),
                Err(error) => eprintln!("ending the app: {error:#}"),
            }
        });
        Ok(())
    }
}

// === impl Cluster ===

impl Cluster {
    /// Changes one endpoint (`None`: it is gone) and tells everybody.
    fn set(&self, address: SocketAddr, condition: Option<Condition>) -> anyhow::Result<()> {
        {
            let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            endpoints.retain(|(other, _)| *other != address);
            endpoints.extend(condition.map(|condition| (address, condition)));
        }
        self.publish()
    }

    fn publish(&self) -> anyhow::Result<()> {
        // Held while writing, so that the last change is the last one written.
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let before = clock::now_us();
        self.objects.endpoints(&self.target, &endpoints)?;
        let ready: Vec<SocketAddr> = endpoints
            .iter()
            .filter(|(_, condition)| *condition == Condition::Ready)
            .map(|(address, _)| *address)
            .collect();
        self.say_at(before, What::Slices { ready: ready.len() });
        self.ready.send_if_modified(|before| {
            let changed = *before != ready;
            *before = ready;
            changed
        });
        Ok(())
    }

    fn say(&self, what: What) {
        self.say_at(clock::now_us(), what);
    }

    fn say_at(&self, at_us: u64, what: What) {
        // Nobody listening is no reason to stop.
        _ = self.events.send(Event { at_us, what });
    }
}

/// KEDA's push: opens the stream again whenever it ends.
async fn follow_stream(
    mut keda: Keda,
    activation: watch::Sender<u64>,
    events: mpsc::UnboundedSender<Event>,
) -> anyhow::Result<()> {
    loop {
        if let Ok(mut stream) = keda.stream_is_active().await {
            _ = events.send(Event { at_us: clock::now_us(), what: What::StreamOpen });
            while let Ok(Some(active)) = stream.message().await {
                // KEDA ignores `false` on the stream.
                if active.result {
                    activation.send_replace(clock::now_us());
                }
            }
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

// === impl ControlPlane ===

impl ControlPlane {
    /// What is ready becomes Envoy's endpoints, some time later.
    async fn run(
        self,
        mut ready: watch::Receiver<Vec<SocketAddr>>,
        events: mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<()> {
        while ready.changed().await.is_ok() {
            tokio::time::sleep(self.lag).await;
            let endpoints = ready.borrow_and_update().clone();
            let at_us = self.eds.set(&endpoints)?;
            _ = events.send(Event { at_us, what: What::Endpoints { usable: endpoints.len() } });
        }
        Ok(())
    }
}
