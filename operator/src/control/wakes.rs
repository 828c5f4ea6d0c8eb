//! Which objects an event may matter to.

use super::{
    Guarded, Stores,
    index::{Topic, Topics},
    interceptor_route::overrides,
};
use crate::{plan, watch::News};
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
use std::{collections::BTreeSet, sync::Arc};
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
        self.stores.index.http.hear(&news);
        self.gateway();
        match news {
            // One that is gone has its turn, too: what is remembered of it goes.
            News::One(old, new) => {
                new.or(old).into_iter().for_each(|it| wake(&self.http, ObjectRef::from_obj(it)));
                self.rivals(old, new, |it| it.0.as_ref().ok().map(|it| &it.spec.scale_target_ref.service));
                self.claimants(old, new);
            }
            News::All => self.all(),
        }
    }

    pub(super) fn interceptor_route(&self, news: News<'_, Guarded<InterceptorRoute>>) {
        self.stores.index.routes.hear(&news);
        self.gateway();
        let (old, new) = match news {
            News::One(old, new) => (old, new),
            News::All => return self.all(),
        };
        new.or(old).into_iter().for_each(|it| wake(&self.routes, ObjectRef::from_obj(it)));
        self.rivals(old, new, |it| it.0.as_ref().ok().map(|it| &it.spec.target.service));
        // It takes the place of the HTTPScaledObject of its name, or gives it back.
        if old.is_some_and(overrides) != new.is_some_and(overrides)
            && let Some(it) = new.or(old)
        {
            wake(&self.http, ObjectRef::new(&it.name_any()).within(&it.namespace().unwrap_or_default()));
        }
    }

    pub(super) fn scaled_object(&self, news: News<'_, Guarded<ScaledObject>>) {
        self.stores.index.scaled_objects.hear(&news);
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
            it.topics().into_iter().for_each(|topic| self.about(&namespace, topic));
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
        let ports =
            |service: &Service| service.spec.as_ref().map(|spec| (spec.type_.clone(), spec.ports.clone()));
        if let (Some(old), Some(new)) = (old, new)
            && ports(old) == ports(new)
        {
            return;
        }
        self.gateway();
        let Some(service) = new.or(old) else { return };
        self.about(&service.namespace().unwrap_or_default(), Topic::Service(service.name_any()));
    }

    /// The scaler has come or gone: only HTTPScaledObjects wait for it.
    pub(super) fn scaler(&self) {
        wake_all(&self.http, &self.stores.http);
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
        wake_all(&self.http, &self.stores.http);
        wake_all(&self.routes, &self.stores.routes);
    }

    /// One that comes to have a workload scaled, or does so no more, matters to others with the same workload.
    fn claimants(&self, old: Option<&Guarded<HttpScaledObject>>, new: Option<&Guarded<HttpScaledObject>>) {
        let claimed = |it: Option<&Guarded<HttpScaledObject>>| {
            let object = it?.0.as_ref().ok()?;
            Some((object.namespace().unwrap_or_default(), plan::claimed(object)?))
        };
        let (old, new) = (claimed(old), claimed(new));
        if old == new {
            return;
        }
        for (namespace, workload) in old.into_iter().chain(new) {
            self.about(&namespace, Topic::workload(&workload));
        }
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
            if let Some(service) = service(it) {
                self.about(&it.namespace().unwrap_or_default(), Topic::Service(service.clone()));
            }
        }
    }

    /// What has happened to this matters to the objects of its namespace that have to do with it.
    fn about(&self, namespace: &str, topic: Topic) {
        if let Topic::Object(kind, name) = topic {
            return self.one(kind, namespace, &name);
        }
        let topics = BTreeSet::from([topic]);
        for it in self.stores.index.http.about(namespace, &topics) {
            wake(&self.http, ObjectRef::from_obj(&*it));
        }
        for it in self.stores.index.routes.about(namespace, &topics) {
            wake(&self.routes, ObjectRef::from_obj(&*it));
        }
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

fn wake_all<K>(queue: &UnboundedSender<ReconcileRequest<K>>, store: &Store<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    for object in store.state() {
        wake(queue, ObjectRef::from_obj(&*object));
    }
}

fn wake<K: Resource<DynamicType = ()>>(queue: &UnboundedSender<ReconcileRequest<K>>, object: ObjectRef<K>) {
    // Nobody listens any more only at the end.
    let _ = queue.unbounded_send(object.into());
}
