//! The gateway: what it is to have, by the operator's settings and by objects, and who brings it about.

use super::{
    Context, Shared, envoy_filters::Keeper, routes::Followed, start, until, upstream::Rules, wakes::Wakes,
};
use crate::{
    envoy_filter::{EnvoyFilter, Outcome, Part, Wanted, Wants},
    isolation::{self, Isolation, Managed},
    standing::Finding,
    upstream::Gateways,
    watch::State,
};
use kube::{
    Api, ResourceExt,
    runtime::{
        reflector::{Store, store},
        watcher,
    },
};
use sluice_api::{
    spec::{Check, Spec},
    upstream::Upstream,
};
use sluice_envoyfilter::{Manifest, Settings};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

/// What happens in one go, an `apply` of many objects, is to be one change of what is wanted: each is a push of
/// istiod's to every gateway.
const SETTLE: Duration = Duration::from_millis(100);

/// A gateway whose EnvoyFilters are looked after.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    /// How the filter gets there.
    settings: Settings,
    /// The filter itself.
    filter: Option<Wanted>,
    /// How it connects to apps.
    upstream: Gateways,
}

/// What follows a gateway while this replica leads.
pub(super) struct Following {
    gateway: Gateway,
    store: Store<EnvoyFilter>,
    state: watch::Receiver<State>,
    changed: Arc<Notify>,
    /// Something of the objects has changed.
    woken: Arc<Notify>,
    outcomes: watch::Sender<BTreeMap<String, Outcome>>,
    /// What virtual hosts are made of, with isolation.
    routes: Option<Followed>,
    isolation: watch::Sender<Isolation>,
    rules: Rules,
}

/// Where the filter is enabled.
pub(super) struct Isolated {
    /// The EnvoyFilter that says so.
    name: String,
    isolation: watch::Receiver<Isolation>,
}

/// Says what is wanted.
struct Planner {
    gateway: Gateway,
    context: Arc<Context>,
    wants: Wants,
    routes: Option<Followed>,
    isolation: watch::Sender<Isolation>,
}

// === impl Gateway ===

impl Gateway {
    pub(crate) fn new(settings: &Settings, manifest: &Manifest, upstream: &Upstream) -> Self {
        let upstream = Gateways {
            namespace: settings.namespace.clone(),
            binding: settings.binding.clone(),
            cluster_domain: settings.scaler.cluster_domain.clone(),
            defaults: *upstream,
        };
        Self { settings: settings.clone(), filter: Wanted::of_manifest(manifest.value()), upstream }
    }

    /// How it connects to apps.
    pub(super) fn upstream(&self) -> Gateways {
        self.upstream.clone()
    }
}

// === impl Following ===

impl Following {
    /// Follows what is in the gateway's namespace, as one of `tasks`.
    pub(super) fn start(gateway: &Gateway, shared: &Shared, tasks: &mut JoinSet<()>) -> Self {
        let (store, writer) = store();
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let there = Api::namespaced(shared.client.clone(), &gateway.settings.namespace);
        // Managed fields say whose they are.
        let state =
            start(tasks, there, &watcher::Config::default(), |_| {}, writer, move |_| told.notify_one());
        let woken = Arc::new(Notify::new());
        let outcomes = watch::Sender::new(BTreeMap::new());
        let routes = gateway.settings.isolation.then(|| Followed::start(shared, tasks, &woken));
        let isolation = watch::Sender::new(Isolation::Unread);
        let rules = Rules::start(shared, tasks);
        Self { gateway: gateway.clone(), store, state, changed, woken, outcomes, routes, isolation, rules }
    }

    /// DestinationRules for the same Services.
    pub(super) fn rules(&self) -> Rules {
        self.rules.clone()
    }

    /// To be told of what changes in objects.
    pub(super) fn woken(&self) -> Arc<Notify> {
        Arc::clone(&self.woken)
    }

    /// What becomes of EnvoyFilters, by name.
    pub(super) fn outcomes(&self) -> watch::Receiver<BTreeMap<String, Outcome>> {
        self.outcomes.subscribe()
    }

    /// Where the filter is enabled, with isolation.
    pub(super) fn isolated(&self) -> Option<Isolated> {
        let name = isolation::name(&self.gateway.settings);
        self.routes.as_ref().map(|_| Isolated { name, isolation: self.isolation.subscribe() })
    }

    /// Sets to work: `controllers` end after `stopped`.
    pub(super) fn work(
        self,
        context: &Arc<Context>,
        wakes: &Wakes,
        controllers: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
    ) {
        let (wants, wanted) = Wants::new();
        let Self { gateway, store, state, changed, woken, outcomes, routes, isolation, rules } = self;
        controllers.spawn(until(stopped, rules.tell(wakes.clone())));
        controllers.spawn(until(stopped, tell(outcomes.subscribe(), wakes.clone())));
        controllers.spawn(until(stopped, tell(isolation.subscribe(), wakes.clone())));
        for state in routes.iter().flat_map(Followed::states) {
            controllers.spawn(until(stopped, wake(state, Arc::clone(&woken))));
        }
        let namespace = gateway.settings.namespace.clone();
        let planner = Planner { gateway, context: Arc::clone(context), wants, routes, isolation };
        controllers.spawn(until(stopped, planner.run(woken)));
        let keeper = Keeper {
            context: Arc::clone(context),
            namespace,
            store,
            state,
            changed,
            wants: wanted,
            outcomes,
        };
        controllers.spawn(keeper.run(stopped.clone()));
    }
}

// === impl Planner ===

impl Planner {
    /// Says it now and whenever objects change.
    async fn run(self, woken: Arc<Notify>) {
        loop {
            self.plan();
            woken.notified().await;
            tokio::time::sleep(SETTLE).await;
        }
    }

    fn plan(&self) {
        if let Some(filters) = self.context.upstream_filters(&self.gateway.upstream) {
            self.wants.set(Part::Upstream, filters);
        }
        let filter = || self.gateway.filter.iter().cloned().collect();
        let Some(routes) = &self.routes else {
            // In this order, and deletions come last: what says where the filter works goes after it works everywhere.
            self.wants.set(Part::Filter, filter());
            self.wants.set(Part::Isolation, Vec::new());
            return;
        };
        // What is there stays until it is known what has to be there, the filter included: it is off wherever
        // nothing says that it is on.
        let isolation = match routes.read() {
            Ok(_) if !self.context.is_read() => Isolation::Unread,
            Ok(None) => Isolation::Unread,
            Err(why) => Isolation::Unreadable(why),
            Ok(Some(routes)) => {
                let index = routes.index(&self.gateway.settings);
                let domains = index.all(&self.managed());
                match isolation::wanted(&self.gateway.settings, &domains) {
                    Ok(wanted) => {
                        self.wants.set(Part::Isolation, wanted.into_iter().collect());
                        self.wants.set(Part::Filter, filter());
                        Isolation::Known(Arc::new(index))
                    }
                    Err(error) => Isolation::TooMany(error.to_string()),
                }
            }
        };
        if let Isolation::Unreadable(why) | Isolation::TooMany(why) = &isolation
            && *self.isolation.borrow() != isolation
        {
            tracing::warn!(why, "isolation: the gateway's EnvoyFilters are left as they are");
        }
        self.isolation.send_if_modified(|before| {
            let is_other = *before != isolation;
            *before = isolation;
            is_other
        });
    }

    /// All objects of ours. One that does not read is none.
    fn managed(&self) -> Vec<Managed> {
        let stores = &self.context.stores;
        let http = stores.http.state();
        let http = http.iter().filter_map(|it| it.0.as_ref().ok()).map(|it| {
            let (namespace, service) =
                (it.namespace().unwrap_or_default(), &it.spec.scale_target_ref.service);
            Managed::new(&namespace, service, it.check().0.as_ref())
        });
        let routes = stores.routes.state();
        let routes = routes.iter().filter_map(|it| it.0.as_ref().ok()).map(|it| {
            let namespace = it.namespace().unwrap_or_default();
            Managed::new(&namespace, &it.spec.target.service, it.check().0.as_ref())
        });
        http.chain(routes).collect()
    }
}

// === impl Context ===

impl Context {
    /// Whether all has been read that EnvoyFilters follow from: what is not read yet is not gone.
    pub(super) fn is_read(&self) -> bool {
        self.read.iter().all(|it| {
            let state = it.borrow();
            state.is_known || state.is_missing
        })
    }

    /// Whether the filter is enabled where an object's requests come; nothing without isolation.
    pub(super) fn isolated(&self, namespace: &str, service: &str, spec: Option<&Spec>) -> Option<Finding> {
        let Isolated { name, isolation } = self.isolation.as_ref()?;
        let outcome = self.envoy_filters.as_ref().and_then(|it| it.borrow().get(name).cloned());
        let managed = Managed::new(namespace, service, spec);
        Some(isolation::finding(&isolation.borrow(), &managed, outcome.as_ref()))
    }
}

/// What becomes of EnvoyFilters, and where the filter is enabled, is in objects' status.
async fn tell<T>(mut news: watch::Receiver<T>, wakes: Wakes) {
    while news.changed().await.is_ok() {
        wakes.all();
    }
}

async fn wake(mut state: watch::Receiver<State>, woken: Arc<Notify>) {
    while state.changed().await.is_ok() {
        woken.notify_one();
    }
}
