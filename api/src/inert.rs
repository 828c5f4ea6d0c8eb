//! Fields that an object may have, and on which nothing acts: who sets one has to be told.

use crate::{HttpScaledObjectSpec, InterceptorRouteSpec, Overflow};
use std::fmt;

/// A field that is set and has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inert {
    /// Its path.
    pub field: &'static str,
    /// What happens instead.
    pub instead: &'static str,
}

const NOT_READY_IN_TIME: &str = "a request whose app is not ready in time is answered 504";
const TIMEOUT: &str = "the timeout of the gateway's route applies";

impl fmt::Display for Inert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.field, self.instead)
    }
}

impl HttpScaledObjectSpec {
    /// The fields that are set and have no effect.
    pub fn inert(&self) -> Vec<Inert> {
        let timeouts = self.timeouts.as_ref();
        set([
            (
                self.cold_start_timeout_failover_ref.is_some(),
                "spec.coldStartTimeoutFailoverRef",
                NOT_READY_IN_TIME,
            ),
            (
                timeouts.is_some_and(|it| it.response_header.is_some()),
                "spec.timeouts.responseHeader",
                TIMEOUT,
            ),
        ])
    }
}

impl InterceptorRouteSpec {
    /// The fields that are set and have no effect.
    pub fn inert(&self) -> Vec<Inert> {
        let cold_start = self.cold_start.as_ref();
        let timeouts = self.timeouts.as_ref();
        set([
            (
                cold_start.is_some_and(|it| it.fallback.is_some()),
                "spec.coldStart.fallback",
                NOT_READY_IN_TIME,
            ),
            (
                cold_start.is_some_and(|it| it.placeholder.is_some()),
                "spec.coldStart.placeholder",
                "requests are held",
            ),
            (
                cold_start.is_some_and(|it| it.overflow == Some(Overflow::Placeholder)),
                "spec.coldStart.overflow",
                "requests for which there is no room are answered 503",
            ),
            (timeouts.is_some_and(|it| it.request.is_some()), "spec.timeouts.request", TIMEOUT),
            (
                timeouts.is_some_and(|it| it.response_header.is_some()),
                "spec.timeouts.responseHeader",
                TIMEOUT,
            ),
            (
                self.static_routes.as_ref().is_some_and(|routes| !routes.is_empty()),
                "spec.staticRoutes",
                "their requests are treated like any other",
            ),
        ])
    }
}

fn set<const N: usize>(fields: [(bool, &'static str, &'static str); N]) -> Vec<Inert> {
    let set = fields.into_iter().filter(|(is_set, ..)| *is_set);
    set.map(|(_, field, instead)| Inert { field, instead }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fields(inert: &[Inert]) -> Vec<&str> {
        inert.iter().map(|inert| inert.field).collect()
    }

    fn http(mut more: Value) -> HttpScaledObjectSpec {
        more["scaleTargetRef"] = json!({"name": "shop", "service": "shop", "port": 80});
        serde_json::from_value(more).unwrap()
    }

    fn route(mut more: Value) -> InterceptorRouteSpec {
        more["target"] = json!({"service": "shop", "port": 80});
        more["scalingMetric"] = json!({"concurrency": {"targetValue": 1}});
        serde_json::from_value(more).unwrap()
    }

    #[test]
    fn what_nothing_acts_on_is_named() {
        let all = http(json!({
            "coldStartTimeoutFailoverRef": {"service": "away", "port": 80},
            "timeouts": {"conditionWait": "3s", "responseHeader": "1s"},
        }));
        let failover = ["spec.coldStartTimeoutFailoverRef", "spec.timeouts.responseHeader"];
        assert_eq!(fields(&all.inert()), failover);
        assert_eq!(
            all.inert()[1].to_string(),
            "spec.timeouts.responseHeader (the timeout of the gateway's route applies)"
        );
        let all = route(json!({
            "coldStart": {
                "fallback": {"service": {"name": "away", "port": 80}},
                "placeholder": {"response": {"body": "soon"}},
                "maxPendingRequests": 3,
                "overflow": "Placeholder",
            },
            "timeouts": {"readiness": "3s", "request": "2s", "responseHeader": "1s"},
            "staticRoutes": [{"rules": [{}], "response": {"body": "x"}}],
        }));
        let named = [
            "spec.coldStart.fallback",
            "spec.coldStart.placeholder",
            "spec.coldStart.overflow",
            "spec.timeouts.request",
            "spec.timeouts.responseHeader",
            "spec.staticRoutes",
        ];
        assert_eq!(fields(&all.inert()), named);
    }

    #[test]
    fn what_is_acted_on_is_not() {
        let used = http(json!({
            "hosts": ["shop.example.com"], "pathPrefixes": ["/"], "headers": [{"name": "x-a"}],
            "replicas": {"min": 0, "max": 3}, "targetPendingRequests": 3, "scaledownPeriod": 3,
            "initialCooldownPeriod": 3, "scalingMetric": {"requestRate": {}}, "timeouts": {"conditionWait": "3s"},
        }));
        assert_eq!(used.inert(), []);
        let used = route(json!({
            "rules": [{"hosts": ["shop.example.com"]}], "coldStart": {"maxPendingRequests": 3, "overflow": "Reject"},
            "timeouts": {"readiness": "3s"}, "staticRoutes": [],
        }));
        assert_eq!(used.inert(), []);
    }
}
