//! The routes that istiod makes virtual hosts of, followed where isolation needs to know them.

use super::{Guarded, Shared, start};
use crate::{
    isolation::{ApiGateway, GrpcRoute, HttpRoute, IstioGateway, Routes, VirtualService},
    watch::State,
};
use kube::{
    Api, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        reflector::{Store, store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, sync::Arc};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

/// All of them, in all namespaces: an app's routes need not be where the app is.
pub(super) struct Followed {
    virtual_services: Store<Guarded<VirtualService>>,
    istio_gateways: Store<Guarded<IstioGateway>>,
    api_gateways: Store<Guarded<ApiGateway>>,
    http_routes: Store<Guarded<HttpRoute>>,
    grpc_routes: Store<Guarded<GrpcRoute>>,
    states: Vec<(&'static str, watch::Receiver<State>)>,
}

// === impl Followed ===

impl Followed {
    /// Follows them as some of `tasks`, and wakes somebody when anything has changed.
    pub(super) fn start(shared: &Shared, tasks: &mut JoinSet<()>, woken: &Arc<Notify>) -> Self {
        let mut states = Vec::new();
        Self {
            virtual_services: follow("VirtualServices", shared, tasks, woken, &mut states),
            istio_gateways: follow("Istio's Gateways", shared, tasks, woken, &mut states),
            api_gateways: follow("Gateways", shared, tasks, woken, &mut states),
            http_routes: follow("HTTPRoutes", shared, tasks, woken, &mut states),
            grpc_routes: follow("GRPCRoutes", shared, tasks, woken, &mut states),
            states,
        }
    }

    /// What there is; nothing while it is still being read. A kind that is not installed has no objects.
    ///
    /// # Errors
    /// In words, if a kind cannot be read.
    pub(super) fn read(&self) -> Result<Option<Routes>, String> {
        for (kind, state) in &self.states {
            let State { is_known, trouble, is_missing } = state.borrow().clone();
            match trouble {
                _ if is_known || is_missing => {}
                None => return Ok(None),
                Some(trouble) => {
                    return Err(format!(
                        "{kind} cannot be read ({trouble}); give the operator the rights of install/istio.yaml"
                    ));
                }
            }
        }
        let http =
            read(&self.http_routes).map(|it| (it.namespace().unwrap_or_default(), it.spec.route.clone()));
        let grpc =
            read(&self.grpc_routes).map(|it| (it.namespace().unwrap_or_default(), it.spec.route.clone()));
        Ok(Some(Routes {
            virtual_services: read(&self.virtual_services).collect(),
            istio_gateways: read(&self.istio_gateways).collect(),
            api_gateways: read(&self.api_gateways).collect(),
            api_routes: http.chain(grpc).collect(),
        }))
    }

    /// When the way that the reading of a kind fares has changed.
    pub(super) fn states(&self) -> Vec<watch::Receiver<State>> {
        self.states.iter().map(|(_, state)| state.clone()).collect()
    }
}

fn follow<K>(
    kind: &'static str,
    shared: &Shared,
    tasks: &mut JoinSet<()>,
    woken: &Arc<Notify>,
    states: &mut Vec<(&'static str, watch::Receiver<State>)>,
) -> Store<Guarded<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = store();
    let woken = Arc::clone(woken);
    let all = Api::<Guarded<K>>::all(shared.client.clone());
    let tell = move |_: crate::watch::News<'_, Guarded<K>>| woken.notify_one();
    states.push((kind, start(tasks, all, &watcher::Config::default(), trim, writer, tell)));
    store
}

/// Those that read: one that does not harms no other.
fn read<K: Clone + Resource<DynamicType = ()> + 'static>(
    store: &Store<Guarded<K>>,
) -> impl Iterator<Item = Arc<K>> {
    let all = store.state();
    all.into_iter().filter_map(|it| it.0.as_ref().ok().cloned().map(Arc::new))
}

/// What nobody here looks at.
pub(super) fn trim<K: Resource>(object: &mut K) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    // kubectl keeps the whole object in there once more.
    metadata.annotations = None;
}
