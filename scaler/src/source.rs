//! Where objects come from. A source sends [`Batch`]es: what has come, changed and gone, and what is wrong.
//!
//! The index does not know which source there is: a folder, or an API server's watches.

pub mod cluster;
pub mod folder;
mod yaml;

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use sluice_api::{HttpScaledObject, InterceptorRoute, RESPONSE_BODY_LABEL};
use std::fmt;

/// Changes that are to be taken together.
#[derive(Debug, Default)]
pub struct Batch {
    /// What has come, changed and gone.
    pub events: Vec<Event>,
    /// Everything that is wrong with the source's content now, replacing what was said before; `None`: as before.
    pub problems: Option<Vec<Problem>>,
    /// Everything that there is has been told at least once.
    pub synced: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object is there, like this.
    Apply(Object),
    /// It is gone.
    Delete(ObjectRef),
}

/// An object that the scaler wants to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// HTTPScaledObject.
    HttpScaledObject(Box<HttpScaledObject>),
    /// InterceptorRoute.
    InterceptorRoute(Box<InterceptorRoute>),
    /// Service.
    Service(Box<Service>),
    /// EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// ConfigMap whose content may become a response's body.
    ConfigMap(Box<ConfigMap>),
}

/// Which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `HTTPScaledObject.http.keda.sh/v1alpha1`.
    HttpScaledObject,
    /// `InterceptorRoute.http.keda.sh/v1beta1`.
    InterceptorRoute,
    /// `Service/v1`.
    Service,
    /// `EndpointSlice.discovery.k8s.io/v1`.
    EndpointSlice,
    /// `ConfigMap/v1` with the label [`RESPONSE_BODY_LABEL`].
    ConfigMap,
}

/// An object's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace, `default` where it names none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, or the object.
    pub source: String,
    /// The field, as a path; empty where it is not one field's.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

// === impl ObjectKind ===

impl ObjectKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::HttpScaledObject, Self::InterceptorRoute, Self::Service, Self::EndpointSlice, Self::ConfigMap];

    /// Whether objects of that kind are routes.
    pub fn is_route(self) -> bool {
        matches!(self, Self::HttpScaledObject | Self::InterceptorRoute)
    }

    /// As `kind` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpScaledObject => "HTTPScaledObject",
            Self::InterceptorRoute => "InterceptorRoute",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ConfigMap => "ConfigMap",
        }
    }

    /// As `apiVersion` says it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::HttpScaledObject => "http.keda.sh/v1alpha1",
            Self::InterceptorRoute => "http.keda.sh/v1beta1",
            Self::Service | Self::ConfigMap => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
        }
    }
}

// === impl Event ===

impl Event {
    /// Which kind of object it is about; `None` where the object has no name.
    pub fn kind(&self) -> Option<ObjectKind> {
        match self {
            Self::Apply(object) => Some(object.reference()?.kind),
            Self::Delete(reference) => Some(reference.kind),
        }
    }
}

// === impl Object ===

impl Object {
    /// Its name; `None` where it has none.
    pub fn reference(&self) -> Option<ObjectRef> {
        let (kind, meta) = match self {
            Self::HttpScaledObject(object) => (ObjectKind::HttpScaledObject, object.meta()),
            Self::InterceptorRoute(object) => (ObjectKind::InterceptorRoute, object.meta()),
            Self::Service(object) => (ObjectKind::Service, object.meta()),
            Self::EndpointSlice(object) => (ObjectKind::EndpointSlice, object.meta()),
            Self::ConfigMap(object) => (ObjectKind::ConfigMap, object.meta()),
        };
        let name = meta.name.clone().filter(|name| !name.is_empty())?;
        let namespace = meta.namespace.clone().filter(|namespace| !namespace.is_empty());
        Some(ObjectRef { kind, namespace: namespace.unwrap_or_else(|| "default".to_owned()), name })
    }
}

/// Whether a ConfigMap's content may become a response's body. Others hold what is nobody's business.
fn is_body(meta: &ObjectMeta) -> bool {
    let label = meta.labels.as_ref().and_then(|labels| labels.get(RESPONSE_BODY_LABEL));
    label.is_some_and(|value| value == "true")
}

// === impl ObjectRef ===

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}
