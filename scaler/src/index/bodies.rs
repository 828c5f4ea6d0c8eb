//! Bodies that InterceptorRoutes take from ConfigMaps: which there are, and which are missing.

use super::Name;
use k8s_openapi::api::core::v1::ConfigMap;
use sluice_api::{InterceptorRoute, RESPONSE_BODY_LABEL, StaticResponse};
use std::collections::{BTreeSet, HashMap};

/// A body that an object takes from a ConfigMap of its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyRef {
    /// The field that says so.
    pub field: String,
    /// The ConfigMap.
    pub map: String,
    /// The key in it; `None`: the request's path says.
    pub key: Option<String>,
}

/// A body that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissingBody {
    /// No ConfigMap of that name carries the label.
    ConfigMap(BodyRef),
    /// The ConfigMap is there and has no such key.
    Key(BodyRef),
}

/// ConfigMaps with bodies. Only their keys: what is in them is for whoever answers with it.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    keys: HashMap<Name, BTreeSet<String>>,
}

// === impl BodyRef ===

impl BodyRef {
    /// What an object takes from ConfigMaps.
    pub(super) fn of(object: &InterceptorRoute) -> Vec<Self> {
        let placeholder = object.spec.cold_start.as_ref().and_then(|cold| cold.placeholder.as_ref());
        let placeholder =
            placeholder.map(|it| ("spec.coldStart.placeholder.response".to_owned(), &it.response));
        let routes = object.spec.static_routes.iter().flatten().enumerate();
        let routes = routes.map(|(at, route)| (format!("spec.staticRoutes[{at}].response"), &route.response));
        let reference = |(field, response): (String, &StaticResponse)| {
            let from = response.body_from_config_map.as_ref()?;
            let field = format!("{field}.bodyFromConfigMap");
            Some(Self { field, map: from.name.clone(), key: from.key.clone().filter(|key| !key.is_empty()) })
        };
        placeholder.into_iter().chain(routes).filter_map(reference).collect()
    }
}

// === impl MissingBody ===

impl MissingBody {
    /// Why, in one word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::ConfigMap(_) => "ConfigMapNotFound",
            Self::Key(_) => "KeyNotFound",
        }
    }

    /// What is missing, and how to mend it.
    pub(super) fn message(&self, namespace: &str) -> String {
        match self {
            Self::ConfigMap(BodyRef { field, map, .. }) => format!(
                "{field}: the ConfigMap {namespace}/{map} is not known; create it with the label \
                 {RESPONSE_BODY_LABEL}: \"true\", or correct the name"
            ),
            Self::Key(BodyRef { field, map, key }) => format!(
                "{field}: the ConfigMap {namespace}/{map} has no key {:?}; add it or correct the object",
                key.as_deref().unwrap_or_default()
            ),
        }
    }
}

// === impl Bodies ===

impl Bodies {
    pub(super) fn apply(&mut self, name: Name, map: &ConfigMap) {
        let text = map.data.iter().flat_map(|data| data.keys());
        let binary = map.binary_data.iter().flat_map(|data| data.keys());
        self.keys.insert(name, text.chain(binary).cloned().collect());
    }

    pub(super) fn delete(&mut self, name: &Name) {
        self.keys.remove(name);
    }

    /// Which of these are not there.
    pub(super) fn missing(&self, namespace: &str, bodies: &[BodyRef]) -> Vec<MissingBody> {
        let missing = |body: &BodyRef| {
            let name = Name { namespace: namespace.to_owned(), name: body.map.clone() };
            match (self.keys.get(&name), &body.key) {
                (None, _) => Some(MissingBody::ConfigMap(body.clone())),
                (Some(keys), Some(key)) if !keys.contains(key) => Some(MissingBody::Key(body.clone())),
                // Without a key any path may be asked for, and one that is not there has an empty body.
                (Some(_), _) => None,
            }
        };
        bodies.iter().filter_map(missing).collect()
    }
}
