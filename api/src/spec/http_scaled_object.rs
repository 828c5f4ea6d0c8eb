//! Reading an HTTPScaledObject.

use super::{
    Check, MAX_REPLICAS, Metrics, Scaling, Spec, TARGET_VALUE,
    parts::{self, Fields, created, generation, hold_timeout, read_rate, rule, rules, target, target_value},
};
use crate::{Flaw, HttpScaledObject, HttpScaledObjectSpec};
use sluice_core::route::Kind;

const TARGET: Fields = Fields {
    parent: "spec.scaleTargetRef",
    service: "spec.scaleTargetRef.service",
    port: "spec.scaleTargetRef.port",
};
const FAILOVER: Fields = Fields {
    parent: "spec.coldStartTimeoutFailoverRef",
    service: "spec.coldStartTimeoutFailoverRef.service",
    port: "spec.coldStartTimeoutFailoverRef.port",
};

impl Check for HttpScaledObject {
    const KIND: Kind = Kind::HttpScaledObject;

    fn check(&self) -> (Option<Spec>, Vec<Flaw>) {
        let mut flaws = Vec::new();
        let spec = read(self, &mut flaws);
        (spec, flaws)
    }
}

fn read(object: &HttpScaledObject, flaws: &mut Vec<Flaw>) -> Option<Spec> {
    let spec = &object.spec;
    let reference = &spec.scale_target_ref;
    let target = target(flaws, TARGET, &reference.service, reference.port, reference.port_name.as_deref());
    let rule = rule(
        flaws,
        "spec",
        spec.hosts.as_deref(),
        spec.path_prefixes.iter().flatten().map(String::as_str),
        |number| format!("pathPrefixes[{number}]"),
        spec.headers.as_deref(),
    );
    let metric = spec.scaling_metric.as_ref();
    let concurrency = metric.and_then(|metric| metric.concurrency.as_ref());
    let rate = metric.and_then(|metric| metric.request_rate.as_ref());
    if concurrency.is_some() && rate.is_some() {
        flaws.push(Flaw::TwoMetrics);
    }
    let metrics = match (concurrency, rate) {
        (None, Some(rate)) => Metrics {
            concurrency: None,
            rate: Some(read_rate(flaws, rate.target_value, &rate.window, &rate.granularity)),
        },
        (Some(concurrency), _) => Metrics {
            concurrency: Some(target_value(
                flaws,
                "spec.scalingMetric.concurrency.targetValue",
                concurrency.target_value,
            )),
            rate: None,
        },
        (None, None) => {
            let pending = spec.target_pending_requests.map_or(TARGET_VALUE.into(), i64::from);
            Metrics {
                concurrency: Some(target_value(flaws, "spec.targetPendingRequests", pending)),
                rate: None,
            }
        }
    };
    if let Some(failover) = &spec.cold_start_timeout_failover_ref {
        parts::fallback(flaws, FAILOVER, &failover.service, failover.port, failover.port_name.as_deref());
        let field = "spec.coldStartTimeoutFailoverRef.timeoutSeconds";
        parts::seconds(flaws, field, Some(failover.timeout_seconds), "the default of 30 applies");
    }
    let response_header = spec.timeouts.as_ref().and_then(|timeouts| timeouts.response_header.as_deref());
    parts::unused_duration(flaws, "spec.timeouts.responseHeader", response_header);
    let wait = spec.timeouts.as_ref().and_then(|timeouts| timeouts.condition_wait.as_deref());
    Some(Spec {
        generation: generation(&object.metadata),
        created: created(&object.metadata),
        rules: rules([rule]),
        target: target?,
        hold_timeout: hold_timeout(flaws, "spec.timeouts.conditionWait", wait),
        max_held: None,
        metrics,
        scaling: scaling(flaws, spec),
    })
}

/// Bounds that KEDA takes. It refuses a ScaledObject with others, and an app that is not scaled at all for a typing
/// mistake is worse than one that is scaled within the bounds that are left.
fn scaling(flaws: &mut Vec<Flaw>, spec: &HttpScaledObjectSpec) -> Scaling {
    let default = "KEDA's default applies";
    let replicas = spec.replicas.clone().unwrap_or_default();
    let mut at_least = |field, value: Option<i32>, least| {
        let value = value?;
        if value < least {
            flaws.push(Flaw::Replicas { field, value, least });
        }
        Some(value.max(least))
    };
    let mut min = at_least("spec.replicas.min", replicas.min, 0);
    let max = at_least("spec.replicas.max", replicas.max, 1);
    let most = max.unwrap_or(MAX_REPLICAS);
    if let Some(fewest) = min.filter(|min| *min > most) {
        flaws.push(Flaw::ReplicaBounds { min: fewest, max: most });
        min = Some(most);
    }
    Scaling {
        min,
        max,
        cooldown: parts::seconds(flaws, "spec.scaledownPeriod", spec.scaledown_period, default),
        initial_cooldown: parts::seconds(
            flaws,
            "spec.initialCooldownPeriod",
            spec.initial_cooldown_period,
            default,
        ),
    }
}
