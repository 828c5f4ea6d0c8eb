//! Which Service's port a cluster's name stands for.
//!
//! Names are not taken apart: every Service's clusters are named by the template, and a name is known if it is one
//! of those. So no reading of a name can be wrong, whatever the template.

use crate::index::{Index, Name, Port, Target};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
};

/// What clusters of known Services are called.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By the cluster's name: the Services, each with the numbers of its ports that are called so, in its order.
    /// They are several only where the template leaves out what tells them apart.
    clusters: HashMap<Arc<str>, BTreeMap<Name, Vec<u16>>>,
    services: HashMap<Name, BTreeSet<Arc<str>>>,
}

/// What is behind a name.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// No Service.
    Nothing,
    /// This Service, which can be reached there.
    Service(BTreeSet<SocketAddr>),
    /// Nobody can tell: these are all called so.
    Several(Vec<Name>),
}

// === impl Names ===

impl Names {
    /// Takes in what a Service is now. Returns the clusters whose meaning may be another one.
    pub(super) fn update(&mut self, index: &Index, service: &Name) -> BTreeSet<Arc<str>> {
        let mut affected = self.services.remove(service).unwrap_or_default();
        for cluster in &affected {
            if let Some(services) = self.clusters.get_mut(cluster) {
                services.remove(service);
                if services.is_empty() {
                    self.clusters.remove(cluster);
                }
            }
        }
        let mut named = BTreeSet::new();
        for port in index.service(service).into_iter().flat_map(|service| &service.ports) {
            let cluster = name(index, service, port.number);
            let ports = self.clusters.entry(Arc::clone(&cluster)).or_default();
            let ports = ports.entry(service.clone()).or_default();
            // One number may serve two protocols.
            if !ports.contains(&port.number) {
                ports.push(port.number);
            }
            named.insert(cluster);
        }
        affected.extend(named.iter().cloned());
        if !named.is_empty() {
            self.services.insert(service.clone(), named);
        }
        affected
    }

    /// What a cluster's name stands for.
    pub(super) fn meaning(&self, index: &Index, cluster: &str) -> Meaning {
        let Some(services) = self.clusters.get(cluster) else { return Meaning::Nothing };
        // Where the template leaves something out, objects say which one is meant.
        let mut meant: Vec<_> =
            services.iter().filter(|(service, _)| index.targets(service).next().is_some()).collect();
        if meant.is_empty() {
            meant = services.iter().collect();
        }
        let [(service, ports)] = meant.as_slice() else {
            return Meaning::Several(meant.into_iter().map(|(service, _)| service.clone()).collect());
        };
        let targeted = index
            .targets(service)
            .filter_map(|target| index.port(&service.namespace, target))
            .map(|port| port.number)
            .find(|number| ports.contains(number));
        let port = targeted.or(ports.first().copied()).and_then(|number| {
            let target = Target { service: service.name.clone(), port: Port::Number(number) };
            index.port(&service.namespace, &target)
        });
        Meaning::Service(port.map(|port| index.ready(service, &port.name)).unwrap_or_default())
    }
}

/// A cluster of a Service's port, of no subset: which endpoints a subset has, a Service does not say.
fn name(index: &Index, service: &Name, port: u16) -> Arc<str> {
    let pattern = index.cluster_template().name(&service.name, &service.namespace, port);
    let bytes = [&*pattern.prefix, pattern.suffix.as_deref().unwrap_or_default()].concat();
    // All of these bytes come from text.
    String::from_utf8_lossy(&bytes).into()
}
