//! Which objects have to do with a Service, a workload, another object: found without a look at all of them.
//!
//! With ten thousand objects, a look at all for each is a hundred million looks whenever everything is read anew.

use super::Guarded;
use crate::{
    plan::{self, Workload},
    watch::News,
};
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use sluice_api::{HttpScaledObject, InterceptorRoute, ScaledObject};
use sluice_core::route::Kind;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
};

/// What objects of the same namespace can have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// Where requests go.
    Service(String),
    /// What is scaled, by group, kind and name.
    Workload([String; 3]),
    /// One of our objects.
    Object(Kind, String),
}

/// What an object has to do with.
pub(super) trait Topics: Resource<DynamicType = ()> + Clone + 'static {
    /// One that does not read has to do with what its name says.
    fn topics(&self) -> BTreeSet<Topic>;
}

/// Finds the objects of a store.
#[derive(Clone)]
pub(super) struct Index<K: Topics> {
    store: Store<K>,
    names: Arc<RwLock<Names>>,
}

/// For each kind that others have to do with.
#[derive(Clone)]
pub(super) struct Indexes {
    pub(super) http: Index<Guarded<HttpScaledObject>>,
    pub(super) routes: Index<Guarded<InterceptorRoute>>,
    pub(super) scaled_objects: Index<Guarded<ScaledObject>>,
}

/// The names of objects, by their namespace and what they have to do with.
type Names = BTreeMap<(String, Topic), BTreeSet<String>>;

// === impl Topic ===

impl Topic {
    pub(super) fn workload(workload: &Workload) -> Self {
        Self::Workload(workload.key().map(str::to_owned))
    }
}

// === impl Topics ===

impl Topics for Guarded<HttpScaledObject> {
    fn topics(&self) -> BTreeSet<Topic> {
        let Ok(it) = &self.0 else { return BTreeSet::new() };
        let target = &it.spec.scale_target_ref;
        [Topic::Service(target.service.clone()), Topic::workload(&Workload::of(target))].into()
    }
}

impl Topics for Guarded<InterceptorRoute> {
    fn topics(&self) -> BTreeSet<Topic> {
        let Ok(it) = &self.0 else { return BTreeSet::new() };
        [Topic::Service(it.spec.target.service.clone())].into()
    }
}

impl Topics for Guarded<ScaledObject> {
    fn topics(&self) -> BTreeSet<Topic> {
        let mut topics = BTreeSet::from([Topic::Object(Kind::HttpScaledObject, self.name_any())]);
        if let Ok(it) = &self.0 {
            topics.insert(Topic::workload(&Workload::of_target(&it.spec.scale_target_ref)));
            topics.extend(plan::references(it).map(|it| Topic::Object(it.kind, it.name)));
        }
        topics
    }
}

// === impl Index ===

impl<K: Topics> Index<K> {
    pub(super) fn new(store: Store<K>) -> Self {
        Self { store, names: Arc::default() }
    }

    /// Keeps up with the store, which has the news already.
    pub(super) fn hear(&self, news: &News<'_, K>) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        match news {
            News::One(old, new) => {
                old.iter().for_each(|it| remove(&mut names, *it));
                new.iter().for_each(|it| insert(&mut names, *it));
            }
            News::All => {
                names.clear();
                self.store.state().iter().for_each(|it| insert(&mut names, &**it));
            }
        }
    }

    /// The objects of a namespace that have to do with one of these, by name.
    pub(super) fn about(&self, namespace: &str, topics: &BTreeSet<Topic>) -> Vec<Arc<K>> {
        let mut found = BTreeSet::new();
        {
            let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
            for topic in topics {
                let names = names.get(&(namespace.to_owned(), topic.clone()));
                found.extend(names.into_iter().flatten().cloned());
            }
        }
        let objects = found.iter().filter_map(|name| self.store.get(&ObjectRef::new(name).within(namespace)));
        // The store may be ahead of the index.
        objects.filter(|it| !it.topics().is_disjoint(topics)).collect()
    }
}

fn insert<K: Topics>(names: &mut Names, object: &K) {
    for topic in object.topics() {
        let key = (object.namespace().unwrap_or_default(), topic);
        names.entry(key).or_default().insert(object.name_any());
    }
}

fn remove<K: Topics>(names: &mut Names, object: &K) {
    for topic in object.topics() {
        let key = (object.namespace().unwrap_or_default(), topic);
        if let Some(all) = names.get_mut(&key) {
            all.remove(&object.name_any());
            if all.is_empty() {
                names.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::{
        reflector::{store, store::Writer},
        watcher::Event,
    };
    use serde_json::json;

    type Object = Guarded<ScaledObject>;

    fn object(namespace: &str, name: &str, workload: &str, route: &str) -> Object {
        let object = json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"scaleTargetRef": {"name": workload}, "triggers": [
                {"type": "external-push", "metadata": {"interceptorRoute": route}},
            ]},
        });
        serde_json::from_value(object).unwrap()
    }

    /// As a watch does it.
    fn apply(writer: &mut Writer<Object>, index: &Index<Object>, new: &Object) {
        let old = index.store.get(&ObjectRef::from_obj(new));
        writer.apply_watcher_event(&Event::Apply(new.clone()));
        index.hear(&News::One(old.as_deref(), Some(new)));
    }

    fn named(index: &Index<Object>, namespace: &str, topics: &[Topic]) -> Vec<String> {
        let found = index.about(namespace, &topics.iter().cloned().collect());
        found.iter().map(|it| it.name_any()).collect()
    }

    fn workload(name: &str) -> Topic {
        Topic::Workload(["apps", "Deployment", name].map(str::to_owned))
    }

    fn route(name: &str) -> Topic {
        Topic::Object(Kind::InterceptorRoute, name.to_owned())
    }

    #[test]
    fn what_has_to_do_with_something_is_found_as_long_as_it_has() {
        let (store, mut writer) = store();
        let index = Index::new(store);
        for it in [object("a", "x", "app", "r"), object("a", "w", "app", "q"), object("b", "x", "app", "r")] {
            apply(&mut writer, &index, &it);
        }
        assert_eq!(named(&index, "a", &[workload("app")]), ["w", "x"]);
        assert_eq!(named(&index, "a", &[workload("app"), route("q")]), ["w", "x"], "each once");
        assert_eq!(named(&index, "b", &[route("r")]), ["x"]);
        assert_eq!(named(&index, "a", &[Topic::Object(Kind::HttpScaledObject, "x".to_owned())]), ["x"]);
        assert!(named(&index, "c", &[workload("app")]).is_empty());
        let other_version = Workload {
            api_version: "apps/v1beta1".to_owned(),
            kind: "Deployment".to_owned(),
            name: "app".to_owned(),
        };
        assert_eq!(named(&index, "b", &[Topic::workload(&other_version)]), ["x"]);

        apply(&mut writer, &index, &object("a", "x", "other", "q"));
        assert_eq!(named(&index, "a", &[workload("app")]), ["w"]);
        assert_eq!(named(&index, "a", &[workload("other"), route("r")]), ["x"]);

        let gone = object("a", "w", "app", "q");
        writer.apply_watcher_event(&Event::Delete(gone.clone()));
        index.hear(&News::One(Some(&gone), None));
        assert!(named(&index, "a", &[workload("app")]).is_empty());
        assert_eq!(index.names.read().unwrap().len(), 6, "nothing is kept of what is gone");

        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(object("c", "z", "app", "r")));
        writer.apply_watcher_event(&Event::InitDone);
        assert!(named(&index, "b", &[workload("app")]).is_empty(), "the store is ahead");
        index.hear(&News::All);
        assert_eq!(named(&index, "c", &[workload("app")]), ["z"]);
        assert_eq!(index.names.read().unwrap().len(), 3);
    }
}
