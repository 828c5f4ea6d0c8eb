//! Which objects an event may matter to.

use super::{Guarded, Stores};
use crate::{
    plan::{self, Workload},
    watch::News,
};
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Resource, ResourceExt,
    runtime::{
        controller::ReconcileRequest,
        reflector::{ObjectRef, Store},
    },
};
use sluice_api::{HttpScaledObject, InterceptorRoute, ScaledObject};
use sluice_core::route::Kind;
use std::sync::Arc;
use tokio::sync::Notify;

/// Wakes objects. What is woken several times before its turn gets one turn.
#[derive(Clone)]
pub(super) struct Wakes {
    pub(super) http: UnboundedSender<ReconcileRequest<Guarded<HttpScaledObject>>>,
    pub(super) routes: UnboundedSender<ReconcileRequest<Guarded<InterceptorRoute>>>,
    /// What the gateway is to have follows from objects, too.
    pub(super) gateway: Option<Arc<Notify>>,
    pub(super) stores: Stores,
}

impl Wakes {
    pub(super) fn http_scaled_object(&self, news: News<'_, Guarded<HttpScaledObject>>) {
        self.gateway();
        match news {
            // One that is gone has its turn, too: what is remembered of it goes.
            News::One(old, new) => {
                new.or(old).into_iter().for_each(|it| wake(&self.http, ObjectRef::from_obj(it)));
                self.rivals(old, new, |it| it.0.as_ref().ok().map(|it| &it.spec.scale_target_ref.service));
            }
            News::All => self.all(),
        }
    }

    pub(super) fn interceptor_route(&self, news: News<'_, Guarded<InterceptorRoute>>) {
        self.gateway();
        let (old, new) = match news {
            News::One(old, new) => (old, new),
            News::All => return self.all(),
        };
        new.or(old).into_iter().for_each(|it| wake(&self.routes, ObjectRef::from_obj(it)));
        self.rivals(old, new, |it| it.0.as_ref().ok().map(|it| &it.spec.target.service));
        // It takes the place of the HTTPScaledObject of its name, or gives it back.
        if old.is_none() != new.is_none()
            && let Some(it) = new.or(old)
        {
            wake(&self.http, ObjectRef::new(&it.name_any()).within(&it.namespace().unwrap_or_default()));
        }
    }

    pub(super) fn scaled_object(&self, news: News<'_, Guarded<ScaledObject>>) {
        let (old, new) = match news {
            News::One(old, new) => (old, new),
            News::All => return self.all(),
        };
        // KEDA writes when an app was last active every few seconds: that is nobody's news.
        if let (Some(old), Some(new)) = (old, new)
            && is_same(old, new)
        {
            return;
        }
        for it in old.into_iter().chain(new) {
            let namespace = it.namespace().unwrap_or_default();
            match &it.0 {
                Err(_) => wake(&self.http, ObjectRef::new(&it.name_any()).within(&namespace)),
                Ok(it) => {
                    self.wake_http(&namespace, |object| {
                        let workload = Workload::of(&object.spec.scale_target_ref);
                        plan::concerns(it, Kind::HttpScaledObject, &object.name_any(), Some(&workload))
                    });
                    self.wake_routes(&namespace, |object| {
                        plan::concerns(it, Kind::InterceptorRoute, &object.name_any(), None)
                    });
                }
            }
        }
    }

    pub(super) fn service(&self, news: News<'_, Service>) {
        let (old, new) = match news {
            News::One(old, new) => (old, new),
            News::All => {
                self.gateway();
                return self.all();
            }
        };
        let ports = |service: &Service| service.spec.as_ref().and_then(|spec| spec.ports.clone());
        if let (Some(old), Some(new)) = (old, new)
            && ports(old) == ports(new)
        {
            return;
        }
        self.gateway();
        let Some(service) = new.or(old) else { return };
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        self.wake_http(&namespace, |object| object.spec.scale_target_ref.service == name);
        self.wake_routes(&namespace, |object| object.spec.target.service == name);
    }

    /// The scaler has come or gone: only HTTPScaledObjects wait for it.
    pub(super) fn scaler(&self) {
        wake_all(&self.http, &self.stores.http, |_| true);
    }

    /// Something is known of an object that the API server does not tell.
    pub(super) fn one(&self, kind: Kind, namespace: &str, name: &str) {
        fn one<K>(queue: &UnboundedSender<ReconcileRequest<K>>, store: &Store<K>, object: ObjectRef<K>)
        where
            K: Resource<DynamicType = ()> + Clone + 'static,
        {
            // Of a namespace that is looked after.
            if store.get(&object).is_some() {
                wake(queue, object);
            }
        }
        match kind {
            Kind::HttpScaledObject => {
                one(&self.http, &self.stores.http, ObjectRef::new(name).within(namespace));
            }
            Kind::InterceptorRoute => {
                one(&self.routes, &self.stores.routes, ObjectRef::new(name).within(namespace));
            }
        }
    }

    fn gateway(&self) {
        if let Some(gateway) = &self.gateway {
            gateway.notify_one();
        }
    }

    pub(super) fn all(&self) {
        wake_all(&self.http, &self.stores.http, |_| true);
        wake_all(&self.routes, &self.stores.routes, |_| true);
    }

    /// What one object says of the connections to a Service matters to others with the same.
    fn rivals<K: ResourceExt>(
        &self,
        old: Option<&K>,
        new: Option<&K>,
        service: impl Fn(&K) -> Option<&String>,
    ) {
        let said = |it: Option<&K>| it.map(|it| (it.annotations().clone(), service(it).cloned()));
        if said(old) == said(new) {
            return;
        }
        for it in old.into_iter().chain(new) {
            let (namespace, Some(service)) = (it.namespace().unwrap_or_default(), service(it)) else {
                continue;
            };
            self.wake_http(&namespace, |object| object.spec.scale_target_ref.service == *service);
            self.wake_routes(&namespace, |object| object.spec.target.service == *service);
        }
    }

    fn wake_http(&self, namespace: &str, wanted: impl Fn(&HttpScaledObject) -> bool) {
        wake_all(&self.http, &self.stores.http, |it| {
            it.meta().namespace.as_deref() == Some(namespace) && it.0.as_ref().is_ok_and(&wanted)
        });
    }

    fn wake_routes(&self, namespace: &str, wanted: impl Fn(&InterceptorRoute) -> bool) {
        wake_all(&self.routes, &self.stores.routes, |it| {
            it.meta().namespace.as_deref() == Some(namespace) && it.0.as_ref().is_ok_and(&wanted)
        });
    }
}

/// Whether nothing has changed that somebody here looks at.
fn is_same(old: &Guarded<ScaledObject>, new: &Guarded<ScaledObject>) -> bool {
    let (Ok(old), Ok(new)) = (&old.0, &new.0) else { return false };
    let conditions = |it: &ScaledObject| it.status.as_ref().map(|status| status.conditions.clone());
    old.spec == new.spec
        && old.metadata.uid == new.metadata.uid
        && old.metadata.generation == new.metadata.generation
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
        && old.metadata.owner_references == new.metadata.owner_references
        && conditions(old) == conditions(new)
}

fn wake_all<K>(queue: &UnboundedSender<ReconcileRequest<K>>, store: &Store<K>, wanted: impl Fn(&K) -> bool)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    for object in store.state_filter(wanted) {
        wake(queue, ObjectRef::from_obj(&*object));
    }
}

fn wake<K: Resource<DynamicType = ()>>(queue: &UnboundedSender<ReconcileRequest<K>>, object: ObjectRef<K>) {
    // Nobody listens any more only at the end.
    let _ = queue.unbounded_send(object.into());
}
