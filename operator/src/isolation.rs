//! With isolation the filter is enabled on the virtual hosts that send requests to managed objects' Services: which
//! those are, from the routes that istiod makes them of. No I/O.
//!
//! A request is an object's only if its route leads to the object's Service, so the virtual hosts of such routes are
//! all that there can be: for an object with hosts those that have one of them, for one without all. A route's
//! virtual hosts are its hosts as far as its gateway has them. Where a gateway is not known, or may be another one
//! than ours, its hosts count: to enable a virtual host that the gateway does not have does nothing.

mod domain;
mod routes;
#[cfg(test)]
mod tests;

pub use domain::Domain;
pub use routes::{
    ApiGateway, ApiRoute, GrpcRoute, HttpRoute, IstioGateway, Routes, VirtualService, VirtualServiceSpec,
};

use crate::{
    envoy_filter::{Outcome, Wanted},
    standing::{FILTER_ENABLED, Finding},
};
use sluice_api::spec::Spec;
use sluice_envoyfilter::Settings;
use std::collections::{BTreeMap, BTreeSet};

/// A Service: namespace and name.
pub type Service = (String, String);

/// The virtual hosts that lead to each Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index(pub BTreeMap<Service, BTreeSet<Domain>>);

/// What is known of virtual hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Isolation {
    /// Nothing yet.
    #[default]
    Unread,
    /// The routes cannot be read, for this reason. What is enabled stays.
    Unreadable(String),
    /// All of it.
    Known(std::sync::Arc<Index>),
    /// All of it, and more than can be enabled.
    TooMany(String),
}

/// An object of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its Service.
    pub service: Service,
    /// Its hosts; none: every one.
    pub hosts: Vec<Domain>,
}

/// Where the filter is enabled for an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enabled {
    /// On these virtual hosts.
    pub domains: BTreeSet<Domain>,
    /// No virtual host has these hosts of the object's.
    pub unmatched: Vec<Domain>,
}

// === impl Managed ===

impl Managed {
    /// An object of a namespace. One that is not valid has all hosts: an earlier version of it may be in force.
    pub fn new(namespace: &str, service: &str, spec: Option<&Spec>) -> Self {
        let rules = spec.map(|spec| spec.rules.as_slice()).unwrap_or_default();
        let hosts = if rules.iter().any(|rule| rule.hosts.is_empty()) {
            Vec::new()
        } else {
            rules.iter().flat_map(|rule| &rule.hosts).map(Domain::from).collect()
        };
        Self { service: (namespace.to_owned(), service.to_owned()), hosts }
    }
}

// === impl Index ===

impl Index {
    /// Where the filter has to be enabled for an object.
    pub fn enabled(&self, managed: &Managed) -> Enabled {
        let all = self.0.get(&managed.service).into_iter().flatten();
        if managed.hosts.is_empty() {
            return Enabled { domains: all.cloned().collect(), unmatched: Vec::new() };
        }
        let has_one = |domain: &&Domain| managed.hosts.iter().any(|host| domain.meet(host).is_some());
        let domains = all.filter(has_one).cloned().collect::<BTreeSet<_>>();
        let is_unmatched = |host: &&Domain| domains.iter().all(|domain| domain.meet(host).is_none());
        let unmatched = managed.hosts.iter().filter(is_unmatched).cloned().collect();
        Enabled { domains, unmatched }
    }

    /// For all objects together.
    pub fn all<'a>(&self, managed: impl IntoIterator<Item = &'a Managed>) -> BTreeSet<Domain> {
        managed.into_iter().flat_map(|managed| self.enabled(managed).domains).collect()
    }
}

/// The name of the EnvoyFilter that enables the filter.
pub fn name(settings: &Settings) -> String {
    format!("{}-isolation", settings.name)
}

/// The EnvoyFilter that enables the filter on these virtual hosts; nothing where there are none.
///
/// # Errors
/// If there are more than one EnvoyFilter takes.
pub fn wanted(
    settings: &Settings,
    domains: &BTreeSet<Domain>,
) -> Result<Option<Wanted>, sluice_envoyfilter::Error> {
    let manifest = sluice_envoyfilter::isolation(settings, domains.iter().map(Domain::as_str))?;
    Ok(Wanted::of_manifest(&manifest).filter(|_| !domains.is_empty()))
}

/// What an object's status says of it; `outcome` is what became of the EnvoyFilter.
pub fn finding(isolation: &Isolation, managed: &Managed, outcome: Option<&Outcome>) -> Finding {
    let index = match isolation {
        Isolation::Unread => {
            return Finding::pending(
                FILTER_ENABLED,
                "RoutesUnread",
                "the gateway's routes are still being read",
            );
        }
        Isolation::Unreadable(why) => return Finding::no(FILTER_ENABLED, "RoutesUnreadable", why.clone()),
        Isolation::TooMany(why) => return Finding::no(FILTER_ENABLED, "TooManyHosts", why.clone()),
        Isolation::Known(index) => index,
    };
    let (namespace, name) = &managed.service;
    let Enabled { domains, unmatched } = index.enabled(managed);
    if domains.is_empty() {
        let hosts =
            if managed.hosts.is_empty() { String::new() } else { format!(" for {}", said(&managed.hosts)) };
        let message = format!(
            "no VirtualService, HTTPRoute or GRPCRoute of a gateway sends requests{hosts} to the Service \
             {namespace}/{name}, so that there is no virtual host to enable the filter on; with isolation it sees \
             only requests of such routes"
        );
        return Finding::no(FILTER_ENABLED, "NoVirtualHost", message);
    }
    if !unmatched.is_empty() {
        let message = format!(
            "no route to the Service {namespace}/{name} has {}: the filter does not see requests for it; it is \
             enabled on {}. Correct the route's hosts or the object's",
            said(&unmatched),
            said(&domains)
        );
        return Finding::no(FILTER_ENABLED, "HostUnmatched", message);
    }
    match outcome {
        Some(Outcome::Applied) => {
            Finding::yes(FILTER_ENABLED, "Enabled", format!("on the virtual hosts {}", said(&domains)))
        }
        Some(Outcome::Foreign(why) | Outcome::Failed(why)) => {
            Finding::no(FILTER_ENABLED, "NotApplied", why.clone())
        }
        None => Finding::pending(FILTER_ENABLED, "NotApplied", "the EnvoyFilter is still to be applied"),
    }
}

fn said<'a>(domains: impl IntoIterator<Item = &'a Domain>) -> String {
    let texts: Vec<&str> = domains.into_iter().map(Domain::as_str).collect();
    texts.join(", ")
}
