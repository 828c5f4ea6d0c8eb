//! An object's conditions: what is so, why, and what to do about it.

use super::{Entry, Missing, Name, Port, Shadow, Standing};
use sluice_core::route::Kind;

/// A condition, as Kubernetes objects carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type.
    pub type_: &'static str,
    /// Whether it is so.
    pub status: bool,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, and how to mend it.
    pub message: String,
}

impl Entry {
    /// The object's conditions. `mismatches`: how many requests met its rules and went elsewhere; `shadow`: who else
    /// has its requests, see [`super::Index::shadow`].
    pub fn conditions(
        &self,
        kind: Kind,
        name: &Name,
        mismatches: u64,
        shadow: Option<&Shadow>,
    ) -> Vec<Condition> {
        let mut conditions = vec![self.ready(kind, name)];
        if let Some(shadow) = shadow {
            conditions.push(Condition {
                type_: "Conflicted",
                status: true,
                reason: "ShadowedBy",
                message: shadow.message(),
            });
        }
        if mismatches > 0 {
            let message = format!(
                "{mismatches} requests met this object's rules, but the gateway's route sent them to another \
                 cluster than this object's target; they were neither counted nor held. Point the route of these \
                 hosts and paths at the target, or narrow the rules"
            );
            conditions.push(Condition {
                type_: "TargetMismatch",
                status: true,
                reason: "RoutedElsewhere",
                message,
            });
        }
        if let Some(first) = self.missing_bodies.first() {
            let messages: Vec<String> =
                self.missing_bodies.iter().map(|missing| missing.message(&name.namespace)).collect();
            conditions.push(Condition {
                type_: "ResponseBodies",
                status: false,
                reason: first.reason(),
                message: messages.join("; "),
            });
        }
        conditions
    }

    fn ready(&self, kind: Kind, name: &Name) -> Condition {
        let not = |reason, message| Condition { type_: "Ready", status: false, reason, message };
        if !self.flaws.is_empty() {
            let flaws: Vec<String> =
                self.flaws.iter().map(|flaw| format!("{} {flaw}", flaw.field())).collect();
            let mut message = flaws.join("; ");
            if self.flaws.iter().any(super::Flaw::is_fatal) {
                message.push_str(match self.spec {
                    Some(_) => ". Until then the version before it stays in force",
                    None => ". Until then its requests are neither counted nor held",
                });
            }
            return not("InvalidSpec", message);
        }
        let target = self.spec.as_ref().map(|spec| &spec.target);
        let service = target.map_or("", |target| target.service.as_str());
        let missing = match &self.standing {
            Standing::Invalid => return not("InvalidSpec", "nothing usable is known of it".to_owned()),
            Standing::Overridden => {
                let message = format!(
                    "the InterceptorRoute {}/{} is used instead; delete one of the two objects",
                    name.namespace, name.name
                );
                return not("Overridden", message);
            }
            Standing::Unresolved { missing } => Some((*missing, "its requests are neither counted nor held")),
            Standing::Routed { missing, .. } => {
                missing.map(|missing| (missing, "only the gateway knows whether it is up"))
            }
        };
        match missing {
            None => Condition {
                type_: "Ready",
                status: true,
                reason: "Reconciled",
                message: format!(
                    "requests for this {} through linked gateways are counted and held",
                    super::kind_name(kind)
                ),
            },
            Some((Missing::Service, meanwhile)) => not(
                "ServiceNotFound",
                format!(
                    "the Service {}/{service} is not known; create it or correct the name. Until then {meanwhile}",
                    name.namespace
                ),
            ),
            Some((Missing::Port, meanwhile)) => {
                let port = match target.map(|target| &target.port) {
                    Some(Port::Number(number)) => number.to_string(),
                    Some(Port::Name(name)) => format!("{name:?}"),
                    None => String::new(),
                };
                not(
                    "PortNotFound",
                    format!(
                        "the Service {}/{service} has no port {port}; add it or correct the object. Until then \
                         {meanwhile}",
                        name.namespace
                    ),
                )
            }
        }
    }
}
