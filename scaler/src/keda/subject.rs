//! Which object KEDA asks about, from its trigger's metadata.

use crate::{
    hub::Hub,
    index::{kind_name, route_id},
    ledger::Route,
};
use sluice_core::route::Kind;
use sluice_proto::keda::ScaledObjectRef;
use std::{fmt, sync::Arc};

/// The trigger's keys.
const INTERCEPTOR_ROUTE: &str = "interceptorRoute";
const HTTP_SCALED_OBJECT: &str = "httpScaledObject";
/// The add-on's, for scaling its own interceptors.
const INTERCEPTOR: &str = "interceptorTargetPendingRequests";

/// An object that KEDA asks about, there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What is wrong with a trigger.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubjectError {
    /// It names no object.
    #[error(
        "the trigger's metadata of ScaledObject {0} has neither interceptorRoute nor httpScaledObject; add the \
         name of an InterceptorRoute or HTTPScaledObject of its namespace"
    )]
    Neither(String),
    /// It names two.
    #[error(
        "the trigger's metadata of ScaledObject {0} has interceptorRoute and httpScaledObject; keep one of them"
    )]
    Both(String),
    /// It is about something that Sluice does not have.
    #[error(
        "the trigger of ScaledObject {0} scales the add-on's interceptors, and there are none: the gateway does \
         their work; delete that ScaledObject"
    )]
    Interceptor(String),
}

// === impl Subject ===

impl Subject {
    pub(super) fn read(reference: &ScaledObjectRef) -> Result<Self, SubjectError> {
        let value = |key: &str| reference.scaler_metadata.get(key).filter(|value| !value.is_empty());
        let scaled_object = || format!("{}/{}", reference.namespace, reference.name);
        let (kind, name) = match (value(INTERCEPTOR_ROUTE), value(HTTP_SCALED_OBJECT)) {
            (Some(_), Some(_)) => return Err(SubjectError::Both(scaled_object())),
            (Some(name), None) => (Kind::InterceptorRoute, name),
            (None, Some(name)) => (Kind::HttpScaledObject, name),
            (None, None) if value(INTERCEPTOR).is_some() => {
                return Err(SubjectError::Interceptor(scaled_object()));
            }
            (None, None) => return Err(SubjectError::Neither(scaled_object())),
        };
        Ok(Self { kind, namespace: reference.namespace.clone(), name: name.clone() })
    }

    /// Where its requests are counted. Those of an HTTPScaledObject that an InterceptorRoute of the same name has
    /// taken the place of are counted there: whoever moves from one to the other is not to lose his app meanwhile.
    pub(super) fn routes(&self, hub: &Hub) -> Vec<Arc<Route>> {
        let kinds: &[Kind] = match self.kind {
            Kind::HttpScaledObject => &[Kind::HttpScaledObject, Kind::InterceptorRoute],
            Kind::InterceptorRoute => &[Kind::InterceptorRoute],
        };
        let now = hub.clock.now();
        let id = |kind: &Kind| route_id(*kind, &self.namespace, &self.name);
        kinds.iter().map(|kind| hub.ledger.route(now, id(kind))).collect()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", kind_name(self.kind), self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metadata: &[(&str, &str)]) -> Result<Subject, SubjectError> {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Subject::read(&ScaledObjectRef {
            name: "so".to_owned(),
            namespace: "ns".to_owned(),
            scaler_metadata: metadata.collect(),
        })
    }

    fn subject(kind: Kind) -> Subject {
        Subject { kind, namespace: "ns".to_owned(), name: "app".to_owned() }
    }

    #[test]
    fn either_key_names_an_object_of_the_scaled_objects_namespace() {
        assert_eq!(read(&[("interceptorRoute", "app")]), Ok(subject(Kind::InterceptorRoute)));
        assert_eq!(
            read(&[("httpScaledObject", "app"), ("scalerAddress", "x:9090")]),
            Ok(subject(Kind::HttpScaledObject))
        );
        assert_eq!(
            read(&[("httpScaledObject", "app"), ("interceptorRoute", "")]),
            Ok(subject(Kind::HttpScaledObject)),
            "an empty value names nothing"
        );
    }

    #[test]
    fn what_is_wrong_names_the_scaled_object() {
        let so = "ns/so".to_owned();
        assert_eq!(read(&[]), Err(SubjectError::Neither(so.clone())));
        let both = [("httpScaledObject", "a"), ("interceptorRoute", "b")];
        assert_eq!(read(&both), Err(SubjectError::Both(so.clone())));
        assert_eq!(read(&[("interceptorTargetPendingRequests", "200")]), Err(SubjectError::Interceptor(so)));
    }
}
