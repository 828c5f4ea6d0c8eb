//! One Pod, from its binding to its removal.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Result;
use futures::future::join_all;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};

use super::{
    Kubelet, NODE,
    container::{self, Launch, Reporter},
    launch::Launcher,
    status::{self, Report},
};

/// The wait before a call to the API server, or the setting up of a Pod, is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// `terminationGracePeriodSeconds` where nothing else is said.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The object as last seen; `None` once it is gone.
type Seen = watch::Receiver<Option<Arc<Pod>>>;

/// Runs a Pod until its object is gone.
pub(super) async fn run(kubelet: Arc<Kubelet>, pod: Arc<Pod>, mut seen: Seen) {
    // Somebody else's, or done before this stand-in started.
    if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| node != NODE)
        || done(&pod)
    {
        return;
    }
    let ip = kubelet.take_address();
    let worker = Worker {
        api: Api::namespaced(kubelet.client.clone(), &pod.namespace().unwrap_or_default()),
        ip,
        pod,
    };
    worker.run(&kubelet, &mut seen).await;
    kubelet.release_address(ip);
}

fn done(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

struct Worker {
    api: Api<Pod>,
    ip: Ipv4Addr,
    pod: Arc<Pod>,
}

// === impl Worker ===

impl Worker {
    async fn run(&self, kubelet: &Arc<Kubelet>, seen: &mut Seen) {
        let launches = tokio::select! {
            launches = self.set_up(kubelet) => launches,
            () = ending(seen) => return self.end(seen, Vec::new(), &watch::channel(None).0).await,
        };
        let (reports, mut reported) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(None);
        let mut containers = Vec::new();
        let mut latest = vec![Report::waiting("ContainerCreating", "", 0); launches.len()];
        for (index, launch) in launches.into_iter().enumerate() {
            let reporter = Reporter { index, reports: reports.clone() };
            let (kubelet, stopping) = (kubelet.clone(), stopping.clone());
            containers.push(tokio::spawn(async move {
                container::supervise(launch, &kubelet.netns, reporter, stopping).await;
            }));
        }
        drop(reports);
        let mut ready_since = Timestamp::now();
        loop {
            tokio::select! {
                // Reports first: what ended is said before the object is taken away.
                biased;
                Some((index, report)) = reported.recv() => {
                    let ready = |reports: &[Report]| reports.iter().all(|report| report.ready);
                    let was = ready(&latest);
                    latest[index] = report;
                    // Whatever else has come in meanwhile goes into the same patch.
                    while let Ok((index, report)) = reported.try_recv() {
                        latest[index] = report;
                    }
                    if was != ready(&latest) {
                        ready_since = Timestamp::now();
                    }
                    let patch = status::status(&self.pod, self.ip, &latest, ready_since);
                    tokio::select! {
                        () = self.report(&patch) => {}
                        () = ending(seen) => break,
                    }
                }
                () = ending(seen) => break,
            }
        }
        self.end(seen, containers, &stop).await;
    }

    /// Binds the Pod and prepares its containers; tries again until it can, with the reason in the Pod's status.
    async fn set_up(&self, kubelet: &Kubelet) -> Vec<Launch> {
        loop {
            match self.try_set_up(kubelet).await {
                Ok(launches) => return launches,
                Err(error) => {
                    let containers = self.pod.spec.iter().flat_map(|spec| &spec.containers);
                    let reports = containers
                        .map(|_| Report::waiting("CreateContainerConfigError", format!("{error:#}"), 0))
                        .collect::<Vec<_>>();
                    let patch = status::status(&self.pod, self.ip, &reports, Timestamp::now());
                    // Said once a try; a missing API server is the likeliest reason both here and above.
                    let _ = self.patch(&patch).await;
                    sleep(RETRY).await;
                }
            }
        }
    }

    async fn try_set_up(&self, kubelet: &Kubelet) -> Result<Vec<Launch>> {
        let name = self.pod.name_any();
        if self.api.get(&name).await?.spec.is_some_and(|spec| spec.node_name.is_none()) {
            let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}});
            let post = PostParams::default();
            // The API server answers with a Status, not with the Binding.
            let _: Value = self.api.create_subresource("binding", &name, &post, &binding).await?;
        }
        let launcher = Launcher::prepare(kubelet, &self.pod, self.ip).await?;
        let mut launches = Vec::new();
        for container in self.pod.spec.iter().flat_map(|spec| &spec.containers) {
            launches.push(launcher.launch(container).await?);
        }
        Ok(launches)
    }

    /// Stops the containers, then takes the object away, as kubelet does when the last process is gone.
    async fn end(
        &self,
        seen: &mut Seen,
        containers: Vec<JoinHandle<()>>,
        stop: &watch::Sender<Option<Duration>>,
    ) {
        let grace = seen.borrow().as_ref().map_or(Duration::ZERO, |pod| grace(pod));
        let _ = stop.send(Some(grace));
        join_all(containers).await;
        let remove = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: self.pod.uid(), resource_version: None });
        while seen.borrow().is_some() {
            match self.api.delete(&self.pod.name_any(), &remove).await {
                Ok(_) => return,
                // Gone (404), or another Pod of the same name (409).
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Writes the status; tries again while the API server is away.
    async fn report(&self, patch: &Value) {
        while let Err(error) = self.patch(patch).await {
            if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                return;
            }
            sleep(RETRY).await;
        }
    }

    async fn patch(&self, patch: &Value) -> kube::Result<Pod> {
        self.api.patch_status(&self.pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await
    }
}

/// Ends when the object is being deleted, or gone.
async fn ending(seen: &mut Seen) {
    let ends =
        |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    // An error means that the watch has ended for good: so has the Pod.
    let _ = seen.wait_for(ends).await;
}

fn grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DEFAULT_GRACE, Duration::from_secs)
}
