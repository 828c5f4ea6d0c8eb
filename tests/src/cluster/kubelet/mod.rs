//! The only part of the cluster that is not real: a stand-in for scheduler and kubelet.
//!
//! It binds every Pod to the one node, runs each container's command as a process on the Pod's own address, reports
//! status as kubelet does, and ends Pods with SIGTERM, the grace period, then SIGKILL. What differs from kubelet:
//!
//! * There are no images. A container without `command` runs the program whose name is the last part of its image's
//!   (`registry/team/app:1` runs `app`), and a program that the bed knows is found by name ([`Programs`]).
//! * All Pods share one network stack, so a program must bind its own address (`$(POD_IP)` from a `fieldRef`), not
//!   the wildcard, and use no port twice on it. A file system is shared too: see [`launch`] for volumes and tokens.
//! * Readiness probes run every [`probe::PERIOD`], since a test should not wait ten seconds; restarts back off from
//!   [`container::FIRST_BACKOFF`]. Liveness and startup probes, init containers' restarts and resources are not
//!   looked at.

pub(super) mod container;
mod launch;
mod pod;
mod probe;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::sync::watch;

use super::{netns, netns::NetNamespace, programs::Programs};

/// The name of the only node.
pub(super) const NODE: &str = "bed";

/// What every Pod's task needs.
pub(super) struct Kubelet {
    client: Client,
    /// The API server's URL and its authority's certificate (PEM), for the kubeconfigs of Pods.
    server: String,
    ca: String,
    netns: Arc<NetNamespace>,
    programs: Arc<Mutex<Programs>>,
    /// Logs and volumes of Pods.
    dir: PathBuf,
    addresses: Mutex<Addresses>,
}

/// Hands out Pod addresses, the one longest unused first, so that nobody meets a dead Pod's address in a new Pod.
#[derive(Debug)]
struct Addresses {
    used: BTreeSet<Ipv4Addr>,
    last: u16,
}

// === impl Kubelet ===

impl Kubelet {
    /// `dir` takes logs and volumes; `programs` may grow while the cluster runs.
    pub(super) fn new(
        client: Client,
        (server, ca): (String, String),
        netns: Arc<NetNamespace>,
        programs: Arc<Mutex<Programs>>,
        dir: PathBuf,
    ) -> Result<Arc<Self>> {
        std::fs::create_dir_all(&dir)?;
        let addresses = Mutex::new(Addresses { used: BTreeSet::new(), last: 0x0100 });
        Ok(Arc::new(Self { client, server, ca, netns, programs, dir, addresses }))
    }

    /// Registers the node. Its readiness is nobody's business here: the controllers that look at it are off.
    pub(super) async fn register(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        });
        let apply = PatchParams::apply("kubelet").force();
        nodes.patch(NODE, &apply, &Patch::Apply(&node)).await?;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": netns::NODE_ADDRESS}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "TestBed", "message": ""}],
        }});
        nodes.patch_status(NODE, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// Runs every Pod of the cluster until dropped. A watch that breaks is taken up again; processes run on meanwhile.
    pub(super) async fn run(self: Arc<Self>) {
        let mut running = Running::default();
        let pods =
            watcher(Api::<Pod>::all(self.client.clone()), watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(pods);
        loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => running.listed.clear(),
                Ok(Some(watcher::Event::InitApply(pod))) => {
                    running.listed.insert(pod.uid().unwrap_or_default());
                    self.apply(&mut running, pod);
                }
                Ok(Some(watcher::Event::InitDone)) => running.keep_listed(),
                Ok(Some(watcher::Event::Apply(pod))) => self.apply(&mut running, pod),
                Ok(Some(watcher::Event::Delete(pod))) => running.remove(&pod),
                Ok(None) => return,
                // The watcher itself comes back, after its backoff.
                Err(_) => {}
            }
        }
    }

    fn apply(self: &Arc<Self>, running: &mut Running, pod: Pod) {
        let uid = pod.uid().unwrap_or_default();
        let pod = Arc::new(pod);
        if let Some(seen) = running.pods.get(&uid) {
            // A task that has ended has said its last word about the Pod.
            let _ = seen.send(Some(pod));
        } else {
            let (sender, receiver) = watch::channel(Some(pod.clone()));
            running.pods.insert(uid, sender);
            tokio::spawn(pod::run(self.clone(), pod, receiver));
        }
    }

    fn take_address(&self) -> Ipv4Addr {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn release_address(&self, address: Ipv4Addr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).used.remove(&address);
    }
}

// === impl Addresses ===

impl Addresses {
    fn take(&mut self) -> Ipv4Addr {
        loop {
            // Below 0x0100 lies the node.
            self.last = self.last.checked_add(1).unwrap_or(0x0100);
            let [high, low] = self.last.to_be_bytes();
            let address = Ipv4Addr::new(10, 99, high, low);
            if self.used.insert(address) {
                return address;
            }
        }
    }
}

/// The Pods whose tasks run, by uid; `None` in the channel means that the object is gone.
#[derive(Default)]
struct Running {
    pods: BTreeMap<String, watch::Sender<Option<Arc<Pod>>>>,
    listed: BTreeSet<String>,
}

// === impl Running ===

impl Running {
    fn remove(&mut self, pod: &Pod) {
        if let Some(sender) = self.pods.remove(&pod.uid().unwrap_or_default()) {
            let _ = sender.send(None);
        }
    }

    /// After a fresh list: what was not in it was deleted while the watch was away.
    fn keep_listed(&mut self) {
        self.pods.retain(|uid, sender| {
            let kept = self.listed.contains(uid);
            if !kept {
                let _ = sender.send(None);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_not_handed_out_twice_and_not_again_at_once() {
        let mut addresses = Addresses { used: BTreeSet::new(), last: 0xfffd };
        let [first, second] = [addresses.take(), addresses.take()];
        assert_eq!([first, second], [Ipv4Addr::new(10, 99, 255, 254), Ipv4Addr::new(10, 99, 255, 255)]);
        addresses.used.remove(&first);
        assert_eq!(addresses.take(), Ipv4Addr::new(10, 99, 1, 0));
    }
}
