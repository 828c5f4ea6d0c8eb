//! Reading an InterceptorRoute.

use super::{
    Check, Metrics, Scaling, Spec, TARGET_VALUE,
    parts::{self, Fields, created, generation, hold_timeout, read_rate, rule, rules, target, target_value},
};
use crate::{ColdStart, Flaw, InterceptorRoute, Overflow, RoutingRule, StaticResponse, StaticRoute};
use sluice_core::route::{Kind, Rule};
use std::num::NonZeroU32;

const TARGET: Fields =
    Fields { parent: "spec.target", service: "spec.target.service", port: "spec.target.port" };
const FALLBACK: Fields = Fields {
    parent: "spec.coldStart.fallback.service",
    service: "spec.coldStart.fallback.service.name",
    port: "spec.coldStart.fallback.service.port",
};

impl Check for InterceptorRoute {
    const KIND: Kind = Kind::InterceptorRoute;

    fn check(&self) -> (Option<Spec>, Vec<Flaw>) {
        let mut flaws = Vec::new();
        let spec = read(self, &mut flaws);
        (spec, flaws)
    }
}

fn read(object: &InterceptorRoute, flaws: &mut Vec<Flaw>) -> Option<Spec> {
    let spec = &object.spec;
    let target =
        target(flaws, TARGET, &spec.target.service, spec.target.port, spec.target.port_name.as_deref());
    let given = spec.rules.iter().flatten().enumerate();
    let given: Vec<Rule> =
        given.map(|(number, given)| routing_rule(flaws, &format!("spec.rules[{number}]"), given)).collect();
    let metric = &spec.scaling_metric;
    let concurrency = metric.concurrency.as_ref().map(|concurrency| {
        let value = concurrency.target_value.into();
        target_value(flaws, "spec.scalingMetric.concurrency.targetValue", value)
    });
    let rate = metric
        .request_rate
        .as_ref()
        .map(|rate| read_rate(flaws, rate.target_value.into(), &rate.window, &rate.granularity));
    let metrics = if concurrency.is_none() && rate.is_none() {
        flaws.push(Flaw::NoMetric);
        Metrics { concurrency: Some(TARGET_VALUE), rate: None }
    } else {
        Metrics { concurrency, rate }
    };
    let max_held = spec.cold_start.as_ref().and_then(|cold_start| cold_start_limit(flaws, cold_start));
    for (number, route) in spec.static_routes.iter().flatten().enumerate() {
        static_route(flaws, number, route);
    }
    let timeouts = spec.timeouts.as_ref();
    let request = timeouts.and_then(|timeouts| timeouts.request.as_deref());
    parts::unused_duration(flaws, "spec.timeouts.request", request);
    let response_header = timeouts.and_then(|timeouts| timeouts.response_header.as_deref());
    parts::unused_duration(flaws, "spec.timeouts.responseHeader", response_header);
    let wait = timeouts.and_then(|timeouts| timeouts.readiness.as_deref());
    Some(Spec {
        generation: generation(&object.metadata),
        created: created(&object.metadata),
        rules: rules(given),
        target: target?,
        hold_timeout: hold_timeout(flaws, "spec.timeouts.readiness", wait),
        max_held,
        metrics,
        scaling: Scaling::default(),
    })
}

fn routing_rule(flaws: &mut Vec<Flaw>, field: &str, given: &RoutingRule) -> Rule {
    let paths = given.paths.iter().flatten().map(|path| path.value.as_str());
    let path_field = |number| format!("paths[{number}].value");
    rule(flaws, field, given.hosts.as_deref(), paths, path_field, given.headers.as_deref())
}

/// How many requests may be held; the rest of what `spec.coldStart` says is only looked at.
fn cold_start_limit(flaws: &mut Vec<Flaw>, cold_start: &ColdStart) -> Option<NonZeroU32> {
    let ColdStart { fallback, placeholder, max_pending_requests, overflow } = cold_start;
    if fallback.is_none() && placeholder.is_none() && max_pending_requests.is_none() {
        flaws.push(Flaw::EmptyColdStart);
    }
    if *overflow == Some(Overflow::Placeholder) && placeholder.is_none() {
        flaws.push(Flaw::NoPlaceholder);
    }
    if let Some(fallback) = fallback {
        let service = &fallback.service;
        parts::fallback(flaws, FALLBACK, &service.name, service.port, service.port_name.as_deref());
    }
    if let Some(placeholder) = placeholder {
        response(flaws, "spec.coldStart.placeholder.response", &placeholder.response);
    }
    max_pending_requests.and_then(|value| {
        let most = u32::try_from(value).ok().and_then(NonZeroU32::new);
        if most.is_none() {
            flaws.push(Flaw::MaxPending { value });
        }
        most
    })
}

fn static_route(flaws: &mut Vec<Flaw>, number: usize, route: &StaticRoute) {
    let field = format!("spec.staticRoutes[{number}]");
    if route.rules.is_empty() {
        flaws.push(Flaw::NoRules { field: format!("{field}.rules") });
    }
    for (number, given) in route.rules.iter().enumerate() {
        routing_rule(flaws, &format!("{field}.rules[{number}]"), given);
    }
    response(flaws, &format!("{field}.response"), &route.response);
}

fn response(flaws: &mut Vec<Flaw>, field: &str, response: &StaticResponse) {
    if let Some(value) = response.status_code.filter(|code| !(100..=599).contains(code)) {
        flaws.push(Flaw::StatusCode { field: format!("{field}.statusCode"), value });
    }
    if response.body.is_some() && response.body_from_config_map.is_some() {
        flaws.push(Flaw::TwoBodies { field: field.to_owned() });
    }
    if response.body_from_config_map.as_ref().is_some_and(|reference| reference.name.is_empty()) {
        flaws.push(Flaw::NoConfigMap { field: format!("{field}.bodyFromConfigMap.name") });
    }
    for (name, value) in response.headers.iter().flatten() {
        parts::header_name(flaws, || format!("{field}.headers"), name);
        if value.chars().any(|char| char.is_control() && char != '\t') {
            flaws.push(Flaw::HeaderValue { field: format!("{field}.headers[{name}]") });
        }
    }
}
