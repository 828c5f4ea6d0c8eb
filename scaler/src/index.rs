//! What is known: objects, Services, endpoints, and what follows from them for each route.
//!
//! Plain state, changed by [`Index::apply`] and [`Index::delete`], with no I/O and no clock. Objects are checked
//! once, when they come; only what passed is kept. An object that turns bad keeps what it said before, and says
//! what is wrong with it: an edit that cannot work must not take an app's traffic away.

mod bodies;
mod claims;
mod cluster;
mod condition;
mod endpoints;
#[cfg(test)]
mod tests;

pub use bodies::{BodyRef, MissingBody};
pub use claims::Shadow;
pub use cluster::{ClusterTemplate, ClusterTemplateError};
pub use condition::Condition;
pub use endpoints::{SERVICE_NAME_LABEL, ServicePort, ServiceSpec, SliceSpec};
pub use sluice_api::{
    Flaw,
    spec::{Metrics, Port, Rate, Spec, Target, kind_name, route_id},
};

use crate::source::{Event, Object, ObjectKind, ObjectRef};
use bodies::Bodies;
use claims::Claims;
use sluice_api::spec::Check;
use sluice_core::{
    gate::Hint,
    route::{Kind, RouteId, RouteSpec},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

/// What the scaler's configuration says for objects that do not.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// How targets are named as clusters.
    pub cluster_template: ClusterTemplate,
    /// How long a request may be held; `None`: as the gateway says.
    pub hold_timeout: Option<Duration>,
    /// How many requests may be held; `None`: as the gateway says.
    pub max_held: Option<NonZeroU32>,
}

/// A namespace and a name in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// A route as gateways are to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// What selects its requests, and where they go.
    pub spec: Arc<RouteSpec>,
    /// What is known of its target.
    pub hint: Hint,
    /// What KEDA scales it by.
    pub metrics: Metrics,
}

/// Routes that have changed, as they are now; `None`: gone.
pub type Changes = BTreeMap<RouteId, Option<Published>>;

/// An object, with what has become of it.
#[derive(Debug)]
pub struct Entry {
    /// Its name on the link.
    pub id: RouteId,
    /// What it asks for, by the last version of it that could be used.
    pub spec: Option<Spec>,
    /// What is wrong with the last version of it.
    pub flaws: Vec<Flaw>,
    /// What has become of it.
    pub standing: Standing,
    /// Bodies that it takes from ConfigMaps and that are not there.
    pub missing_bodies: Vec<MissingBody>,
    bodies: Vec<BodyRef>,
    /// The number that its port's name stood for when that was last known: a Service that is gone for a moment
    /// must not take the route with it.
    number: Option<u16>,
}

/// What has become of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Standing {
    /// Nothing can be done with it: see its flaws.
    #[default]
    Invalid,
    /// An InterceptorRoute of the same name is used instead.
    Overridden,
    /// Its cluster is not known, since its port is not.
    Unresolved {
        /// What is missing.
        missing: Missing,
    },
    /// Gateways know it.
    Routed {
        /// How.
        route: Published,
        /// How many endpoints are ready.
        ready_endpoints: usize,
        /// What is missing nevertheless.
        missing: Option<Missing>,
    },
}

/// What a target lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Its Service.
    Service,
    /// Its port, in a Service that is there.
    Port,
}

/// Everything that is known.
#[derive(Debug)]
pub struct Index {
    defaults: Defaults,
    entries: BTreeMap<(Kind, Name), Entry>,
    services: HashMap<Name, ServiceSpec>,
    /// By Service, then by the slice's name.
    slices: HashMap<Name, HashMap<String, SliceSpec>>,
    /// Which Service a slice belongs to.
    slice_services: HashMap<Name, Name>,
    /// Which objects have a Service for their target.
    users: HashMap<Name, BTreeSet<(Kind, Name)>>,
    bodies: Bodies,
    claims: Claims,
    /// What [`Index::take_touched`] gives next.
    touched: BTreeSet<Name>,
}

// === impl Index ===

impl Index {
    /// Nothing is known.
    pub fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            entries: BTreeMap::new(),
            services: HashMap::new(),
            slices: HashMap::new(),
            slice_services: HashMap::new(),
            users: HashMap::new(),
            bodies: Bodies::default(),
            claims: Claims::default(),
            touched: BTreeSet::new(),
        }
    }

    /// Takes events in; the routes that changed are added to `changes`.
    pub fn take(&mut self, events: Vec<Event>, changes: &mut Changes) {
        for event in events {
            match event {
                Event::Apply(object) => self.apply(&object, changes),
                Event::Delete(reference) => self.delete(&reference, changes),
            }
        }
    }

    /// An object is there, like this.
    pub fn apply(&mut self, object: &Object, changes: &mut Changes) {
        let Some(reference) = object.reference() else { return };
        let name = Name { namespace: reference.namespace, name: reference.name };
        match object {
            Object::HttpScaledObject(object) => self.apply_route(name, &**object, changes),
            Object::InterceptorRoute(object) => {
                self.apply_route(name.clone(), &**object, changes);
                let bodies = BodyRef::of(object);
                let missing = self.bodies.missing(&name.namespace, &bodies);
                if let Some(entry) = self.entries.get_mut(&(Kind::InterceptorRoute, name)) {
                    (entry.bodies, entry.missing_bodies) = (bodies, missing);
                }
            }
            Object::Service(service) => {
                self.services.insert(name.clone(), ServiceSpec::from(&**service));
                self.target_changed(&name, changes);
            }
            Object::EndpointSlice(slice) => self.apply_slice(name, SliceSpec::read(slice), changes),
            Object::ConfigMap(map) => {
                self.bodies.apply(name.clone(), map);
                self.bodies_changed(&name);
            }
        }
    }

    /// An object is gone.
    pub fn delete(&mut self, reference: &ObjectRef, changes: &mut Changes) {
        let name = Name { namespace: reference.namespace.clone(), name: reference.name.clone() };
        match reference.kind {
            ObjectKind::HttpScaledObject => self.delete_route((Kind::HttpScaledObject, name), changes),
            ObjectKind::InterceptorRoute => self.delete_route((Kind::InterceptorRoute, name), changes),
            ObjectKind::Service => {
                self.services.remove(&name);
                self.target_changed(&name, changes);
            }
            ObjectKind::EndpointSlice => self.apply_slice(name, None, changes),
            ObjectKind::ConfigMap => {
                self.bodies.delete(&name);
                self.bodies_changed(&name);
            }
        }
    }

    /// An object.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Entry> {
        let name = Name { namespace: namespace.to_owned(), name: name.to_owned() };
        self.entries.get(&(kind, name))
    }

    /// All objects, by kind, namespace and name.
    pub fn entries(&self) -> impl Iterator<Item = (Kind, &Name, &Entry)> {
        self.entries.iter().map(|((kind, name), entry)| (*kind, name, entry))
    }

    /// The port of a target, as its Service has it.
    pub fn port(&self, namespace: &str, target: &Target) -> Option<&ServicePort> {
        let name = Name { namespace: namespace.to_owned(), name: target.service.clone() };
        self.services.get(&name)?.port(&target.port)
    }

    /// What casts a shadow on an object: an older one that asks for the same requests to the same target.
    pub fn shadow(&self, entry: &Entry) -> Option<Shadow> {
        match &entry.standing {
            Standing::Routed { route, .. } => self.claims.shadow(&route.spec),
            Standing::Invalid | Standing::Overridden | Standing::Unresolved { .. } => None,
        }
    }

    /// Services of which the ports, the endpoints or the objects that target them may have changed since this was
    /// asked for the last time.
    pub fn take_touched(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.touched)
    }

    /// A Service.
    pub fn service(&self, name: &Name) -> Option<&ServiceSpec> {
        self.services.get(name)
    }

    /// Where a Service's port of that name can be reached.
    pub fn ready(&self, service: &Name, port: &str) -> BTreeSet<SocketAddr> {
        let slices = self.slices.get(service).into_iter().flat_map(HashMap::values);
        endpoints::ready(slices, port)
    }

    /// What objects say of a Service that they have for their target.
    pub fn targets(&self, service: &Name) -> impl Iterator<Item = &Target> {
        let users = self.users.get(service).into_iter().flatten();
        let entries = users.filter_map(|user| self.entries.get(user));
        let counting = entries.filter(|entry| entry.standing != Standing::Overridden);
        counting.filter_map(|entry| entry.spec.as_ref()).map(|spec| &spec.target)
    }

    /// How targets are named as clusters.
    pub fn cluster_template(&self) -> &ClusterTemplate {
        &self.defaults.cluster_template
    }

    fn apply_route<T: Check>(&mut self, name: Name, object: &T, changes: &mut Changes) {
        let (spec, flaws) = object.check();
        let key = (T::KIND, name);
        let id = route_id(T::KIND, &key.1.namespace, &key.1.name);
        let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry {
            id,
            spec: None,
            flaws: Vec::new(),
            standing: Standing::Invalid,
            missing_bodies: Vec::new(),
            bodies: Vec::new(),
            number: None,
        });
        entry.flaws = flaws;
        if let Some(spec) = spec {
            let old = entry.spec.replace(spec).map(|old| old.target);
            let new = entry.spec.as_ref().map(|spec| &spec.target);
            if old.as_ref() != new {
                entry.number = None;
                let service = new.map(|target| target.service.clone());
                self.forget_user(&key, old.as_ref());
                if let Some(service) = service {
                    let service = Name { namespace: key.1.namespace.clone(), name: service };
                    self.touched.insert(service.clone());
                    self.users.entry(service).or_default().insert(key.clone());
                }
            }
        }
        self.settle(&key, changes);
        self.settle_rival(&key, changes);
    }

    fn delete_route(&mut self, key: (Kind, Name), changes: &mut Changes) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.forget_user(&key, entry.spec.as_ref().map(|spec| &spec.target));
        if let Standing::Routed { route, .. } = &entry.standing {
            self.claims.remove(&route.spec);
            changes.insert(entry.id, None);
        }
        self.settle_rival(&key, changes);
    }

    fn forget_user(&mut self, key: &(Kind, Name), target: Option<&Target>) {
        let Some(target) = target else { return };
        let service = Name { namespace: key.1.namespace.clone(), name: target.service.clone() };
        if let Some(users) = self.users.get_mut(&service) {
            users.remove(key);
            if users.is_empty() {
                self.users.remove(&service);
            }
        }
        self.touched.insert(service);
    }

    fn apply_slice(&mut self, name: Name, spec: Option<SliceSpec>, changes: &mut Changes) {
        let service =
            spec.as_ref().map(|spec| Name { namespace: name.namespace.clone(), name: spec.service.clone() });
        let old = match &service {
            Some(service) => self.slice_services.insert(name.clone(), service.clone()),
            None => self.slice_services.remove(&name),
        };
        if let Some(old) = old.filter(|old| Some(old) != service.as_ref()) {
            if let Some(slices) = self.slices.get_mut(&old) {
                slices.remove(&name.name);
                if slices.is_empty() {
                    self.slices.remove(&old);
                }
            }
            self.target_changed(&old, changes);
        }
        if let (Some(service), Some(spec)) = (service, spec) {
            self.slices.entry(service.clone()).or_default().insert(name.name, spec);
            self.target_changed(&service, changes);
        }
    }

    /// There are few such ConfigMaps, and they change rarely: all objects of the namespace are looked at.
    fn bodies_changed(&mut self, map: &Name) {
        let Self { entries, bodies, .. } = self;
        let first = Name { namespace: map.namespace.clone(), name: String::new() };
        let all = entries.range_mut((Kind::InterceptorRoute, first)..);
        let near = all.take_while(|((kind, name), _)| {
            *kind == Kind::InterceptorRoute && name.namespace == map.namespace
        });
        for (_, entry) in near.filter(|(_, entry)| entry.bodies.iter().any(|body| body.map == map.name)) {
            entry.missing_bodies = bodies.missing(&map.namespace, &entry.bodies);
        }
    }

    fn target_changed(&mut self, service: &Name, changes: &mut Changes) {
        self.touched.insert(service.clone());
        let users: Vec<(Kind, Name)> = self.users.get(service).into_iter().flatten().cloned().collect();
        for user in users {
            self.settle(&user, changes);
        }
    }

    /// An HTTPScaledObject depends on whether an InterceptorRoute of its name is there.
    fn settle_rival(&mut self, key: &(Kind, Name), changes: &mut Changes) {
        if key.0 == Kind::InterceptorRoute {
            self.settle(&(Kind::HttpScaledObject, key.1.clone()), changes);
        }
    }

    /// Works out an object's standing anew.
    fn settle(&mut self, key: &(Kind, Name), changes: &mut Changes) {
        let Some(entry) = self.entries.get(key) else { return };
        let rival = (Kind::InterceptorRoute, key.1.clone());
        let is_overridden = key.0 == Kind::HttpScaledObject
            && self.entries.get(&rival).is_some_and(|rival| rival.spec.is_some());
        let (standing, number) = match &entry.spec {
            None => (Standing::Invalid, None),
            Some(_) if is_overridden => (Standing::Overridden, entry.number),
            Some(spec) => self.stand(key, entry, spec),
        };
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.number = number;
        let old = std::mem::replace(&mut entry.standing, standing);
        let route = |standing: &Standing| match standing {
            Standing::Routed { route, .. } => Some(route.clone()),
            Standing::Invalid | Standing::Overridden | Standing::Unresolved { .. } => None,
        };
        let (old, new) = (route(&old), route(&entry.standing));
        if old == new {
            return;
        }
        let spec = |route: &Option<Published>| route.as_ref().map(|route| Arc::clone(&route.spec));
        if spec(&old) != spec(&new) {
            spec(&old).iter().for_each(|spec| self.claims.remove(spec));
            spec(&new).iter().for_each(|spec| self.claims.insert(spec));
        }
        changes.insert(entry.id, new);
    }

    fn stand(&self, key: &(Kind, Name), entry: &Entry, spec: &Spec) -> (Standing, Option<u16>) {
        let (kind, Name { namespace, name }) = key;
        let target = Name { namespace: namespace.clone(), name: spec.target.service.clone() };
        let service = self.services.get(&target);
        let port = service.and_then(|service| service.port(&spec.target.port));
        let missing = match (service, port) {
            (None, _) => Some(Missing::Service),
            // What is outside needs no ports to be reached.
            (Some(service), None) if service.is_external => None,
            (Some(_), None) => Some(Missing::Port),
            (Some(_), Some(_)) => None,
        };
        let number = match &spec.target.port {
            Port::Number(number) => Some(*number),
            Port::Name(_) => port.map(|port| port.number).or(entry.number),
        };
        let template = &self.defaults.cluster_template;
        let cluster = match number {
            Some(number) => template.name(&spec.target.service, namespace, number),
            None if !template.needs_port() => template.name(&spec.target.service, namespace, 0),
            None => {
                let missing = missing.unwrap_or(Missing::Port);
                return (Standing::Unresolved { missing }, None);
            }
        };
        let ready = port.map(|port| self.ready(&target, &port.name)).unwrap_or_default();
        let ready_endpoints = ready.len();
        let hint = match port {
            // Without a Service, or with one that has no endpoints of its own, nobody but the gateway knows.
            None => Hint::Unknown,
            Some(_) if service.is_some_and(|service| service.is_external) => Hint::Unknown,
            Some(_) if ready_endpoints > 0 => Hint::Ready,
            Some(_) => Hint::NotReady,
        };
        let hold_timeout = spec.hold_timeout.or(self.defaults.hold_timeout);
        let route = RouteSpec {
            id: entry.id,
            kind: *kind,
            namespace: namespace.as_str().into(),
            name: name.as_str().into(),
            generation: spec.generation,
            created: spec.created,
            rules: spec.rules.clone(),
            cluster,
            hold_timeout: hold_timeout.filter(|timeout| !timeout.is_zero()),
            max_held: spec.max_held.or(self.defaults.max_held).map(NonZeroU32::get),
        };
        // The same as before: share it, so that whoever compares has little to do.
        let spec_before = match &entry.standing {
            Standing::Routed { route: before, .. } if *before.spec == route => Some(&before.spec),
            _ => None,
        };
        let published = Published {
            spec: spec_before.map_or_else(|| Arc::new(route), Arc::clone),
            hint,
            metrics: spec.metrics,
        };
        (Standing::Routed { route: published, ready_endpoints, missing }, number)
    }
}

impl ServiceSpec {
    fn port(&self, port: &Port) -> Option<&ServicePort> {
        self.ports.iter().find(|it| match port {
            Port::Number(number) => it.number == *number,
            Port::Name(name) => it.name == *name,
        })
    }
}
