//! What every Envoy was told, and is to be told next. Only clusters that somebody asks for are worked out.

use super::{
    REMOVAL_DELAY, REMOVAL_LOOK, REMOVAL_PATIENCE,
    names::{Meaning, Names},
    resource::{Resource, Version},
};
use crate::index::{Index, Name};
use sluice_core::time::Instant;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};
use tokio::sync::Notify;

/// How many clusters one stream may ask for. An Envoy whose clusters share a stream has as many as routes.
const MAX_CLUSTERS: usize = 16_384;
/// How long a cluster's name may be: a Service's, a namespace's and a subset's are 63 bytes each.
const MAX_NAME: usize = 1_024;

/// All clusters and streams.
#[derive(Debug, Default)]
pub(super) struct State {
    names: Names,
    /// The clusters that somebody follows.
    clusters: HashMap<Arc<str>, Cluster>,
    followers: HashMap<u64, Follower>,
    next_follower: u64,
    /// When clusters are told to be empty.
    due: BTreeSet<(Instant, Arc<str>)>,
}

#[derive(Debug)]
struct Cluster {
    /// As it is told.
    resource: Arc<Resource>,
    /// It is empty, which is not told yet.
    removal: Option<Removal>,
    followers: BTreeSet<u64>,
}

/// A cluster's last endpoint is gone.
#[derive(Clone, Copy, Debug)]
struct Removal {
    /// When that is told, unless there is still a link to wait for.
    due: Instant,
    /// Which links are waited for; `None` once the last one has been told.
    links: Option<Links>,
}

/// Links that have to be told "not ready" first.
#[derive(Clone, Copy, Debug)]
struct Links {
    /// The board's version that says so.
    version: u64,
    /// When they are waited for no more.
    latest: Instant,
    /// One of them had not been told when it was looked.
    are_late: bool,
}

/// A stream.
#[derive(Debug)]
struct Follower {
    news: Arc<Notify>,
    /// What it follows, and which version it was told.
    told: BTreeMap<Arc<str>, Option<Version>>,
    /// What may have changed since.
    dirty: BTreeSet<Arc<str>>,
}

/// A cluster that cannot be followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FollowError {
    /// See [`MAX_NAME`].
    #[error(
        "a resource's name is longer than {MAX_NAME} bytes; give the cluster a shorter one, or a service_name"
    )]
    Name,
    /// See [`MAX_CLUSTERS`].
    #[error("more than {MAX_CLUSTERS} resources on one stream; give clusters streams of their own")]
    TooMany,
}

// === impl State ===

impl State {
    /// Takes in which Services changed.
    pub(super) fn touch(&mut self, now: Instant, version: u64, index: &Index, touched: &BTreeSet<Name>) {
        let affected: BTreeSet<Arc<str>> =
            touched.iter().flat_map(|service| self.names.update(index, service)).collect();
        for name in affected {
            if self.clusters.contains_key(&name) {
                let endpoints = self.endpoints(index, &name);
                self.settle(now, version, &name, &endpoints);
            }
        }
    }

    /// When something is to be told that is held back now.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Tells what has been held back for long enough. `told`: the version that all links have been told.
    pub(super) fn tell_due(&mut self, now: Instant, told: u64) {
        while let Some((due, name)) = self.due.pop_first() {
            if due > now {
                self.due.insert((due, name));
                return;
            }
            let Some(cluster) = self.clusters.get_mut(&name) else { continue };
            if let Some(later) = cluster.removal.and_then(|removal| removal.later(now, told)) {
                cluster.removal = Some(later);
                self.due.insert((later.due, name));
            } else {
                cluster.removal = None;
                cluster.tell(Resource::new(name, &BTreeSet::new()), &mut self.followers);
            }
        }
    }

    /// A stream comes. It is notified of news.
    pub(super) fn join(&mut self, news: Arc<Notify>) -> u64 {
        let id = self.next_follower;
        self.next_follower += 1;
        self.followers.insert(id, Follower { news, told: BTreeMap::new(), dirty: BTreeSet::new() });
        id
    }

    /// A stream goes.
    pub(super) fn leave(&mut self, id: u64) {
        let Some(follower) = self.followers.remove(&id) else { return };
        for name in follower.told.keys() {
            self.forget_follower(id, name);
        }
    }

    /// A stream wants to know a cluster, and knows that version of it. Asked again it is told again.
    pub(super) fn follow(
        &mut self,
        id: u64,
        index: &Index,
        name: &str,
        known: Option<Version>,
    ) -> Result<(), FollowError> {
        if name.len() > MAX_NAME {
            return Err(FollowError::Name);
        }
        let name =
            self.clusters.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
        let Some(follower) = self.followers.get(&id) else { return Ok(()) };
        if follower.told.len() >= MAX_CLUSTERS && !follower.told.contains_key(&name) {
            return Err(FollowError::TooMany);
        }
        if !self.clusters.contains_key(&name) {
            let endpoints = self.endpoints(index, &name);
            let resource = Arc::new(Resource::new(Arc::clone(&name), &endpoints));
            let cluster = Cluster { resource, removal: None, followers: BTreeSet::new() };
            self.clusters.insert(Arc::clone(&name), cluster);
        }
        if let Some(cluster) = self.clusters.get_mut(&name) {
            cluster.followers.insert(id);
        }
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.told.insert(Arc::clone(&name), known);
            follower.dirty.insert(name);
            follower.news.notify_one();
        }
        Ok(())
    }

    /// A stream wants to know it no more.
    pub(super) fn unfollow(&mut self, id: u64, name: &str) {
        let Some(follower) = self.followers.get_mut(&id) else { return };
        follower.dirty.remove(name);
        if let Some((name, _)) = follower.told.remove_entry(name) {
            self.forget_follower(id, &name);
        }
    }

    /// What a stream follows.
    pub(super) fn followed(&self, id: u64) -> impl Iterator<Item = &Arc<str>> {
        self.followers.get(&id).into_iter().flat_map(|follower| follower.told.keys())
    }

    /// What a stream is to be told next, of at most so many clusters.
    pub(super) fn news(&mut self, id: u64, most: usize) -> Vec<Arc<Resource>> {
        let mut news = Vec::new();
        let Some(follower) = self.followers.get_mut(&id) else { return news };
        while news.len() < most
            && let Some(name) = follower.dirty.pop_first()
        {
            let (Some(cluster), Some(told)) = (self.clusters.get(&name), follower.told.get_mut(&name)) else {
                continue;
            };
            // There and back again is no news.
            if told.replace(cluster.resource.version) != Some(cluster.resource.version) {
                news.push(Arc::clone(&cluster.resource));
            }
        }
        if !follower.dirty.is_empty() {
            follower.news.notify_one();
        }
        news
    }

    /// How many streams there are.
    pub(super) fn streams(&self) -> usize {
        self.followers.len()
    }

    /// How many clusters are followed.
    pub(super) fn clusters(&self) -> usize {
        self.clusters.len()
    }

    fn endpoints(&self, index: &Index, name: &str) -> BTreeSet<SocketAddr> {
        match self.names.meaning(index, name) {
            Meaning::Service(endpoints) => endpoints,
            Meaning::Nothing => {
                tracing::debug!(cluster = name, "no Service's cluster is called so");
                BTreeSet::new()
            }
            Meaning::Several(services) => {
                let services: Vec<String> = services
                    .iter()
                    .map(|service| format!("{}/{}", service.namespace, service.name))
                    .collect();
                let services = services.join(", ");
                tracing::warn!(
                    cluster = name, %services,
                    "clusters of several Services are called so, none of them is told; \
                     put {{service}} and {{namespace}} into --cluster-template"
                );
                BTreeSet::new()
            }
        }
    }

    fn settle(&mut self, now: Instant, version: u64, name: &Arc<str>, endpoints: &BTreeSet<SocketAddr>) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        if endpoints.is_empty() && !cluster.resource.is_empty {
            let removal = cluster.removal.get_or_insert(Removal::new(now, version));
            self.due.insert((removal.due, Arc::clone(name)));
            return;
        }
        if let Some(removal) = cluster.removal.take() {
            self.due.remove(&(removal.due, Arc::clone(name)));
        }
        cluster.tell(Resource::new(Arc::clone(name), endpoints), &mut self.followers);
    }

    fn forget_follower(&mut self, id: u64, name: &Arc<str>) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.followers.remove(&id);
        if cluster.followers.is_empty() {
            if let Some(removal) = cluster.removal {
                self.due.remove(&(removal.due, Arc::clone(name)));
            }
            self.clusters.remove(name);
        }
    }
}

// === impl Removal ===

impl Removal {
    fn new(now: Instant, version: u64) -> Self {
        let links = Links { version, latest: now.after(REMOVAL_PATIENCE), are_late: false };
        Self { due: now.after(REMOVAL_DELAY), links: Some(links) }
    }

    /// It is due: what becomes of it if it is not to be told yet. `told`: the version that all links have been told.
    fn later(self, now: Instant, told: u64) -> Option<Self> {
        let links = self.links.filter(|links| now < links.latest)?;
        if told < links.version {
            let links = Some(Links { are_late: true, ..links });
            return Some(Self { due: now.after(REMOVAL_LOOK), links });
        }
        // The last one has only just been told, and that is still under way.
        links.are_late.then(|| Self { due: now.after(REMOVAL_DELAY), links: None })
    }
}

// === impl Cluster ===

impl Cluster {
    fn tell(&mut self, resource: Resource, followers: &mut HashMap<u64, Follower>) {
        if resource.version == self.resource.version {
            return;
        }
        self.resource = Arc::new(resource);
        for id in &self.followers {
            if let Some(follower) = followers.get_mut(id) {
                follower.dirty.insert(Arc::clone(&self.resource.name));
                follower.news.notify_one();
            }
        }
    }
}
