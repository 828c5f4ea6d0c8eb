//! The controllers at work: what they follow, what wakes whom, and the calls that come of it.
//!
//! Everything is followed once, and both controllers read from the same stores. An event wakes the objects that it
//! may matter to; whether it does, the plan says, and it costs no call if it does not.

mod calls;
mod envoy_filters;
mod evidence;
mod failure;
mod gateway;
mod http_scaled_object;
mod index;
mod interceptor_route;
mod limit;
mod routes;
mod status;
#[cfg(test)]
mod tests;
mod upstream;
mod wakes;

use crate::{
    FIELD_MANAGER,
    envoy_filter::Outcome,
    evidence::Evidence,
    lease::Reign,
    metrics::Metrics,
    pace::Pace,
    plan::{ScaledObjects, Scaler, Workload},
    upstream::Gateways,
    watch::{News, State, follow},
};
use failure::Failure;
use futures::{Stream, StreamExt, channel::mpsc};
pub(crate) use gateway::Gateway;
use gateway::{Following, Isolated};
use index::{Index, Indexes, Topic};
use k8s_openapi::api::{
    core::v1::Service,
    discovery::v1::{Endpoint, EndpointSlice},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        controller::{Action, Config, Error, ReconcileRequest, applier},
        events::{Recorder, Reporter},
        reflector::{ObjectRef, Store, store, store::Writer},
        watcher,
    },
};
use limit::Permit;
use serde::de::DeserializeOwned;
use sluice_api::{HttpScaledObject, InterceptorRoute, ScaledObject};
use sluice_core::route::Kind;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Debug,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use wakes::Wakes;

/// How many objects of a kind are in hand at a time.
const CONCURRENCY: u16 = 16;
/// After a write that was not allowed since the reign was over: whether it has become this replica's again.
const REIGN_AGAIN: Duration = Duration::from_secs(1);
/// How soon an object is looked at again of which only what was before a write of ours is known: its event is on its way,
/// and wakes it before that.
const OWN_WORD: Duration = Duration::from_millis(500);
/// Longest wait for what is in hand when the end has come.
const FINISH_PATIENCE: Duration = Duration::from_secs(5);

/// An object, or what is wrong with it: one that does not read harms no other.
type Guarded<K> = DeserializeGuard<K>;

/// What outlives a reign.
pub(crate) struct Shared {
    pub(crate) client: Client,
    /// Whose EnvoyFilters are looked after.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) scaler: Scaler,
    pub(crate) watch_namespace: Option<String>,
    /// This replica's name.
    pub(crate) name: String,
    pub(crate) reign: watch::Receiver<Reign>,
    /// Set when all is read.
    pub(crate) works: Arc<AtomicBool>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What the controllers have at hand.
struct Context {
    client: Client,
    scaler: Scaler,
    reign: watch::Receiver<Reign>,
    metrics: Arc<Metrics>,
    recorder: Recorder,
    pace: Mutex<Pace<Key>>,
    /// What gateways have shown, as scalers say.
    evidence: Mutex<Evidence>,
    stores: Stores,
    /// Of ScaledObjects: KEDA may not be there.
    keda: watch::Receiver<State>,
    /// Where the filter is enabled, with isolation.
    isolation: Option<Isolated>,
    /// Of the scaler's EndpointSlices.
    endpoints: watch::Receiver<State>,
    /// Whether the kinds that EnvoyFilters follow from have been read: both of ours, and Services.
    read: [watch::Receiver<State>; 3],
    /// Whose connections to apps are looked after.
    upstream: Option<Gateways>,
    /// DestinationRules for the same Services.
    rules: Option<upstream::Rules>,
    /// What became of EnvoyFilters, by name; nothing unless there is a gateway to look after.
    envoy_filters: Option<watch::Receiver<BTreeMap<String, Outcome>>>,
}

/// What is known of the cluster.
#[derive(Clone)]
struct Stores {
    http: Store<Guarded<HttpScaledObject>>,
    routes: Store<Guarded<InterceptorRoute>>,
    scaled_objects: Store<Guarded<ScaledObject>>,
    services: Store<Service>,
    /// The scaler's.
    endpoints: Store<EndpointSlice>,
    index: Indexes,
}

/// An object's kind, namespace and name.
type Key = (&'static str, String, String);

/// Looks after all objects until `end`, and then finishes what is in hand.
pub(crate) async fn run(shared: &Shared, end: impl Future<Output = ()> + Send + 'static) {
    let (http_wakes, http_woken) = mpsc::unbounded();
    let (route_wakes, route_woken) = mpsc::unbounded();
    let mut tasks = JoinSet::new();
    let (http, http_writer) = store();
    let (routes, routes_writer) = store();
    let (scaled_objects, scaled_objects_writer) = store();
    let (services, services_writer) = store();
    let (endpoints, endpoints_writer) = store();
    let stores = Stores::new(http, routes, scaled_objects, services, endpoints);
    let gateway = shared.gateway.as_ref().map(|gateway| Following::start(gateway, shared, &mut tasks));
    let wakes = Wakes {
        http: http_wakes,
        routes: route_wakes,
        gateway: gateway.as_ref().map(Following::woken),
        stores: stores.clone(),
    };
    let namespace = shared.watch_namespace.as_deref();
    let all = watcher::Config::default();

    let mut states = Vec::new();
    let told = wakes.clone();
    let http = start(&mut tasks, scope(shared, namespace), &all, trim, http_writer, move |news| {
        told.http_scaled_object(news);
    });
    states.push(http.clone());
    let told = wakes.clone();
    let routes = start(&mut tasks, scope(shared, namespace), &all, trim, routes_writer, move |news| {
        told.interceptor_route(news);
    });
    states.push(routes.clone());
    let told = wakes.clone();
    // Its managed fields say what of it is ours.
    let keda = start(
        &mut tasks,
        scope(shared, namespace),
        &all,
        |_| {},
        scaled_objects_writer,
        move |news| {
            told.scaled_object(news);
        },
    );
    states.push(keda.clone());
    let told = wakes.clone();
    let services =
        start(&mut tasks, scope(shared, namespace), &all, trim_service, services_writer, move |news| {
            told.service(news);
        });
    states.push(services.clone());
    let of_scaler = all.clone().labels(&format!("kubernetes.io/service-name={}", shared.scaler.service));
    let scalers = Api::namespaced(shared.client.clone(), &shared.scaler.namespace);
    let told = wakes.clone();
    let endpoints =
        start(&mut tasks, scalers, &of_scaler, trim, endpoints_writer, move |_: News<'_, EndpointSlice>| {
            told.scaler();
        });
    states.push(endpoints.clone());

    // Or an operator that starts would say first that nothing of them is lost.
    states.extend(gateway.as_ref().map(|gateway| gateway.rules().state()));

    let mut end = std::pin::pin!(end);
    tokio::select! {
        () = settled(states) => {}
        () = &mut end => return,
    }
    shared.works.store(true, Ordering::Relaxed);
    tracing::info!(
        http_scaled_objects = stores.http.len(),
        interceptor_routes = stores.routes.len(),
        scaled_objects = stores.scaled_objects.len(),
        "all is read"
    );
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(shared.name.clone()) };
    let context = Arc::new(Context {
        client: shared.client.clone(),
        scaler: shared.scaler.clone(),
        reign: shared.reign.clone(),
        metrics: Arc::clone(&shared.metrics),
        recorder: Recorder::new(shared.client.clone(), reporter),
        pace: Mutex::default(),
        evidence: Mutex::default(),
        stores,
        keda,
        endpoints,
        isolation: gateway.as_ref().and_then(Following::isolated),
        read: [http, routes, services],
        upstream: shared.gateway.as_ref().map(Gateway::upstream),
        rules: gateway.as_ref().map(Following::rules),
        envoy_filters: gateway.as_ref().map(Following::outcomes),
    });
    let (stop, stopped) = watch::channel(false);
    let mut controllers = JoinSet::new();
    let http = http_scaled_object::reconcile;
    controllers.spawn(control(
        Arc::clone(&context),
        context.stores.http.clone(),
        http_woken,
        http,
        stopped.clone(),
    ));
    let routes = interceptor_route::reconcile;
    controllers.spawn(control(
        Arc::clone(&context),
        context.stores.routes.clone(),
        route_woken,
        routes,
        stopped.clone(),
    ));
    controllers.spawn(until(&stopped, evidence::follow(Arc::clone(&context), wakes.clone())));
    if let Some(gateway) = gateway {
        gateway.work(&context, &wakes, &mut controllers, &stopped);
    }
    end.await;
    // Nobody receives any more only if both controllers are gone already.
    let _ = stop.send(true);
    let finished = async { while controllers.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH_PATIENCE, finished).await.is_err() {
        tracing::warn!("what was in hand is cut short");
    }
}

/// Follows a kind as one of `tasks`.
fn start<K>(
    tasks: &mut JoinSet<()>,
    api: Api<K>,
    config: &watcher::Config,
    trim: fn(&mut K),
    writer: Writer<K>,
    tell: impl FnMut(News<'_, K>) + Send + 'static,
) -> watch::Receiver<State>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (state, states) = watch::channel(State::default());
    tasks.spawn(follow(api, config.clone(), trim, writer, state, tell));
    states
}

/// All objects of a kind that are to be looked after.
fn scope<K>(shared: &Shared, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(shared.client.clone(), namespace),
        None => Api::all(shared.client.clone()),
    }
}

/// Waits until each kind has been read, or cannot be: what is not there must not be in the way of what is.
async fn settled(states: Vec<watch::Receiver<State>>) {
    for mut state in states {
        // A task that has ended tells nothing any more.
        let _ = state.wait_for(|state| state.is_known || state.trouble.is_some()).await;
    }
}

/// One kind's controller, until `stop`, and then until nothing is in hand.
async fn control<K, F>(
    context: Arc<Context>,
    store: Store<Guarded<K>>,
    woken: impl Stream<Item = ReconcileRequest<Guarded<K>>> + Send + 'static,
    reconcile: impl Fn(Arc<Guarded<K>>, Arc<Context>) -> F + Copy + Send + 'static,
    mut stop: watch::Receiver<bool>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    F: Future<Output = Result<Action, Failure>> + Send,
{
    let stopped = async move {
        // A sender that is gone means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let woken = woken.map(Ok::<_, Infallible>).take_until(Box::pin(stopped));
    let config = Config::default().concurrency(CONCURRENCY);
    let told = Arc::clone(&context);
    let done = applier(
        move |object, context| Box::pin(paced(object, context, reconcile)),
        |object: Arc<Guarded<K>>, failure, context: Arc<Context>| context.failed(&*object, failure),
        context,
        store,
        woken,
        config,
    );
    // Failures have been told where they were met.
    done.for_each(async |outcome| {
        if let Err(Error::ObjectNotFound(gone)) = outcome {
            let key = (kind::<K>(), gone.namespace.unwrap_or_default(), gone.name);
            told.pace().forget(&key);
        }
    })
    .await;
}

/// Reconciles unless it is somebody else's turn, or too soon.
async fn paced<K, F>(
    object: Arc<Guarded<K>>,
    context: Arc<Context>,
    reconcile: impl Fn(Arc<Guarded<K>>, Arc<Context>) -> F,
) -> Result<Action, Failure>
where
    K: Resource<DynamicType = ()>,
    F: Future<Output = Result<Action, Failure>>,
{
    let key = key(&*object);
    let now = Instant::now();
    let pause = context.pace().pause(&key, now);
    if let Some(pause) = pause {
        tracing::warn!(
            kind = key.0,
            namespace = key.1,
            name = key.2,
            ?pause,
            "written again and again: somebody else undoes it. Waiting before the next write"
        );
        return Ok(Action::requeue(pause));
    }
    let version = object.resource_version().unwrap_or_default();
    let is_superseded = context.pace().is_superseded(&key, &version);
    if is_superseded {
        return Ok(Action::requeue(OWN_WORD));
    }
    let action = reconcile(object, Arc::clone(&context)).await?;
    context.pace().succeeded(&key);
    context.metrics.reconciled(key.0, "ok");
    Ok(action)
}

fn key<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> Key {
    (kind::<K>(), object.namespace().unwrap_or_default(), object.name_any())
}

/// The kind of ours that it is.
fn kind<K: Resource<DynamicType = ()>>() -> &'static str {
    match &*K::kind(&()) {
        "HTTPScaledObject" => "HTTPScaledObject",
        "InterceptorRoute" => "InterceptorRoute",
        _ => "other",
    }
}

fn trim<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// Of all the cluster's Services only the ports matter, and whether they need any.
fn trim_service(service: &mut Service) {
    trim(service);
    service.metadata.annotations = None;
    service.metadata.labels = None;
    service.status = None;
    if let Some(spec) = &mut service.spec {
        *spec = k8s_openapi::api::core::v1::ServiceSpec {
            ports: spec.ports.take(),
            type_: spec.type_.take(),
            ..Default::default()
        };
    }
}

// === impl Stores ===

impl Stores {
    fn new(
        http: Store<Guarded<HttpScaledObject>>,
        routes: Store<Guarded<InterceptorRoute>>,
        scaled_objects: Store<Guarded<ScaledObject>>,
        services: Store<Service>,
        endpoints: Store<EndpointSlice>,
    ) -> Self {
        let index = Indexes {
            http: Index::new(http.clone()),
            routes: Index::new(routes.clone()),
            scaled_objects: Index::new(scaled_objects.clone()),
        };
        Self { http, routes, scaled_objects, services, endpoints, index }
    }
}

// === impl Context ===

impl Context {
    fn pace(&self) -> std::sync::MutexGuard<'_, Pace<Key>> {
        // What is in it is whole after every call.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a write may begin.
    fn may_write(&self) -> Result<Permit, Failure> {
        Permit::of(*self.reign.borrow(), Instant::now()).ok_or(Failure::Deposed)
    }

    /// Something went wrong: when to try again.
    fn failed<K: Resource<DynamicType = ()>>(&self, object: &Guarded<K>, failure: &Failure) -> Action {
        let key = key(object);
        let (kind, namespace, name) = (key.0, key.1.clone(), key.2.clone());
        match failure {
            Failure::Leaving => return Action::await_change(),
            // Mostly it ends with the next reign; but a renewal that comes late goes on with this one.
            Failure::Deposed => return Action::requeue(REIGN_AGAIN),
            // Somebody was faster; what he wrote comes with the next event, or has come already.
            Failure::Outdated => {
                self.metrics.reconciled(kind, "outdated");
                tracing::debug!(kind, namespace, name, "written meanwhile");
            }
            Failure::Refused { .. } | Failure::Call { .. } => {
                self.metrics.reconciled(kind, "error");
                tracing::warn!(kind, namespace, name, error = %failure, "cannot reconcile; trying again");
            }
        }
        Action::requeue(self.pace().failed(key))
    }

    /// The Service that an object names.
    ///
    /// # Errors
    /// Why Services cannot be read.
    fn service(&self, namespace: &str, name: &str) -> Result<Option<Arc<Service>>, String> {
        let [_, _, services] = &self.read;
        services.borrow().known()?;
        Ok(self.stores.services.get(&ObjectRef::new(name).within(namespace)))
    }

    /// Those that an object of this kind, name and workload has to do with.
    fn scaled_objects(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        workload: Option<&Workload>,
    ) -> ScaledObjects {
        if let Err(why) = self.keda.borrow().known() {
            return ScaledObjects::Unreadable(why);
        }
        let topics = [Topic::Object(kind, name.to_owned())].into_iter().chain(workload.map(Topic::workload));
        // By name: a status must not change with the order.
        let all = self.stores.index.scaled_objects.about(namespace, &topics.collect());
        let read = all.iter().filter_map(|it| it.0.as_ref().ok().cloned().map(Arc::new));
        ScaledObjects::Known(read.collect())
    }

    /// Whether one of the scaler's Pods can answer KEDA.
    ///
    /// # Errors
    /// Why EndpointSlices cannot be read.
    fn scaler_answers(&self) -> Result<bool, String> {
        self.endpoints.borrow().known()?;
        Ok(self.stores.endpoints.find(|slice: &EndpointSlice| has_ready(slice)).is_some())
    }
}

/// Works until `stopped`: nothing that is begun here has to be ended.
fn until(
    stopped: &watch::Receiver<bool>,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let mut stopped = stopped.clone();
    async move {
        tokio::select! {
            // A sender that is gone means the same.
            _ = stopped.wait_for(|stop| *stop) => {}
            () = work => {}
        }
    }
}

fn has_ready(slice: &EndpointSlice) -> bool {
    slice.endpoints.iter().any(is_ready)
}

/// `ready` that is not set counts as ready, as the API says.
fn is_ready(endpoint: &Endpoint) -> bool {
    let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
    ready.unwrap_or(true) && !endpoint.addresses.is_empty()
}
