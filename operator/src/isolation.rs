//! With isolation the filter is enabled on the virtual hosts that send requests to managed objects' Services: which
//! those are, from the routes that istiod makes them of. No I/O.
//!
//! A request is an object's only if its route leads to the object's Service, so the virtual hosts of such routes are
//! all that there can be: for an object with hosts those that have one of them, for one without all. A route's
//! virtual hosts are its hosts as far as its gateway has them. Where a gateway is not known, or may be another one
//! than ours, its hosts count: to enable a virtual host that the gateway does not have does nothing. So do those of a
//! VirtualService that is not exported to the gateway's namespace, since an EnvoyFilter of the mesh's root namespace is
//! for gateways in any; but it is said of them that they are not seen.

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
pub struct Index {
    /// Those that a gateway in the gateway's namespace has.
    pub seen: BTreeMap<Service, BTreeSet<Domain>>,
    /// Those of VirtualServices that are not exported to it, with one that has it each.
    pub unseen: BTreeMap<Service, BTreeMap<Domain, Unseen>>,
}

/// A VirtualService that the gateway's namespace does not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// It, as `namespace/name`.
    pub name: String,
    /// The namespaces that see it, as it says it.
    pub export_to: Vec<String>,
    /// The one that does not.
    pub from: String,
}

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
    /// These would, or would lead to the object without hosts that has no virtual host else.
    pub unseen: BTreeMap<Domain, Unseen>,
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
        let all = self.seen.get(&managed.service).into_iter().flatten();
        let unseen = self.unseen.get(&managed.service).into_iter().flatten();
        let unseen = unseen.map(|(domain, of)| (domain.clone(), of.clone()));
        if managed.hosts.is_empty() {
            let domains = all.cloned().collect::<BTreeSet<_>>();
            let unseen = unseen.filter(|_| domains.is_empty()).collect();
            return Enabled { domains, unmatched: Vec::new(), unseen };
        }
        let has_one = |domain: &&Domain| managed.hosts.iter().any(|host| domain.meet(host).is_some());
        let domains = all.filter(has_one).cloned().collect::<BTreeSet<_>>();
        let is_unmatched = |host: &&Domain| domains.iter().all(|domain| domain.meet(host).is_none());
        let unmatched: Vec<Domain> = managed.hosts.iter().filter(is_unmatched).cloned().collect();
        let would_have =
            |(domain, _): &(Domain, Unseen)| unmatched.iter().any(|it| it.meet(domain).is_some());
        Enabled { unseen: unseen.filter(would_have).collect(), domains, unmatched }
    }

    /// For all objects together, the virtual hosts included that may be of no gateway.
    pub fn all<'a>(&self, managed: impl IntoIterator<Item = &'a Managed>) -> BTreeSet<Domain> {
        let mut all = BTreeSet::new();
        for managed in managed {
            all.extend(self.enabled(managed).domains);
            let has_one = |domain: &&Domain| {
                managed.hosts.is_empty() || managed.hosts.iter().any(|host| domain.meet(host).is_some())
            };
            let unseen = self.unseen.get(&managed.service).into_iter().flat_map(BTreeMap::keys);
            all.extend(unseen.filter(has_one).cloned());
        }
        all
    }
}

/// A host that an object of Istio's in `namespace` names: a Service's bare name is one of that namespace.
pub fn in_full(host: &str, namespace: &str, cluster_domain: &str) -> String {
    match host.contains(['.', '*']) {
        true => host.to_owned(),
        false => format!("{host}.{namespace}.svc.{cluster_domain}"),
    }
}

/// Whether an object of Istio's that is in `own` may be seen from `from`, by its `exportTo`.
pub fn is_exported(export_to: &[String], own: &str, from: &str) -> bool {
    // Left out: as the mesh says, which is to all unless it says otherwise.
    export_to.is_empty() || export_to.iter().any(|to| to == "*" || to == from || (to == "." && own == from))
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
    let Enabled { domains, unmatched, unseen } = index.enabled(managed);
    if let Some((_, Unseen { name: of, export_to, from })) = unseen.first_key_value() {
        let message = format!(
            "{} is in the VirtualService {of}, which is exported to {} and not to {from}: a gateway there has no virtual \
             host of it. Add {from} to its exportTo; or, if the gateway is in another namespace, make that one \
             SLUICE_GATEWAY_NAMESPACE",
            said(unseen.keys()),
            export_to.join(", "),
        );
        return Finding::no(FILTER_ENABLED, "NotExported", message);
    }
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
