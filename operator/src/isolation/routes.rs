//! The objects that istiod makes virtual hosts of, as far as they say which hosts lead to which Service.

use super::{Domain, Index, Service, Unseen, in_full, is_exported};
use kube::{CustomResource, ResourceExt};
use serde::{Deserialize, Serialize};
use sluice_envoyfilter::{Binding, Settings};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The label that istiod gives to the Pods of a Gateway's own Deployment.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Routes of Istio's own API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "VirtualService",
    namespaced,
    schema = "disabled",
    doc = "Routes of Istio's own API."
)]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// Its hosts; none where another one delegates to it.
    pub hosts: Vec<String>,
    /// The Gateways that it is for, as `name` or `namespace/name`.
    pub gateways: Vec<String>,
    /// The namespaces that see it; none: all.
    pub export_to: Vec<String>,
    /// Its routes.
    pub http: Vec<VirtualServiceRoute>,
}

/// A route of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VirtualServiceRoute {
    /// Where it leads to, by weight.
    pub route: Vec<Weighted>,
    /// Another VirtualService says so instead.
    pub delegate: Option<Delegate>,
}

/// One of a route's destinations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Weighted {
    /// The destination.
    pub destination: Destination,
}

/// A destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Destination {
    /// A Service: `shop`, or in full.
    pub host: String,
}

/// Another VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; empty: the same.
    pub namespace: String,
}

/// A gateway's listeners in Istio's own API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "Gateway",
    root = "IstioGateway",
    namespaced,
    schema = "disabled",
    doc = "A gateway's listeners in Istio's own API."
)]
#[serde(default)]
pub struct IstioGatewaySpec {
    /// The Pods' labels.
    pub selector: BTreeMap<String, String>,
    /// Its listeners.
    pub servers: Vec<Server>,
}

/// A listener of Istio's own API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// `host` or `namespace/host`: whose VirtualServices may have it.
    pub hosts: Vec<String>,
}

/// A gateway of the Gateway API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "Gateway",
    root = "ApiGateway",
    namespaced,
    schema = "disabled",
    doc = "A gateway of the Gateway API."
)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiGatewaySpec {
    /// Its class.
    pub gateway_class_name: String,
    /// Its listeners.
    pub listeners: Vec<Listener>,
}

/// A listener of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// Its host; none: every one.
    pub hostname: Option<String>,
}

/// HTTP routes of the Gateway API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    root = "HttpRoute",
    plural = "httproutes",
    namespaced,
    schema = "disabled",
    doc = "HTTP routes of the Gateway API."
)]
pub struct HttpRouteSpec {
    /// What both kinds of routes have.
    #[serde(flatten)]
    pub route: ApiRoute,
}

/// gRPC routes of the Gateway API.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GRPCRoute",
    root = "GrpcRoute",
    plural = "grpcroutes",
    namespaced,
    schema = "disabled",
    doc = "gRPC routes of the Gateway API."
)]
pub struct GrpcRouteSpec {
    /// What both kinds of routes have.
    #[serde(flatten)]
    pub route: ApiRoute,
}

/// Routes of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiRoute {
    /// The Gateways that it is for.
    pub parent_refs: Vec<Reference>,
    /// Its hosts; none: all of the listener's.
    pub hostnames: Vec<String>,
    /// Its routes.
    pub rules: Vec<Rule>,
}

/// A route of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Where it leads to, by weight.
    pub backend_refs: Vec<Reference>,
}

/// An object by its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reference {
    /// Its group; none: the usual one.
    pub group: Option<String>,
    /// Its kind; none: the usual one.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace; none: the same.
    pub namespace: Option<String>,
}

/// All that is there.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Routes of Istio's own API.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// Gateways of Istio's own API.
    pub istio_gateways: Vec<Arc<IstioGateway>>,
    /// Gateways of the Gateway API.
    pub api_gateways: Vec<Arc<ApiGateway>>,
    /// Namespace and routes, of either kind.
    pub api_routes: Vec<(String, ApiRoute)>,
}

/// The kinds of Gateways that a route may be for.
#[derive(Clone, Copy)]
enum Api {
    Istio,
    Gateway,
}

// === impl Routes ===

impl Routes {
    /// Which virtual hosts of our gateway lead to which Service, as far as it can be known.
    pub fn index(&self, settings: &Settings) -> Index {
        let mut index = Index::default();
        for it in &self.virtual_services {
            let namespace = it.namespace().unwrap_or_default();
            let domain = &settings.scaler.cluster_domain;
            let hosts: Vec<String> =
                it.spec.hosts.iter().map(|host| in_full(host, &namespace, domain)).collect();
            let mut domains = BTreeSet::new();
            // Without any it is the mesh's, as is the one of that name.
            for gateway in it.spec.gateways.iter().filter(|gateway| *gateway != "mesh") {
                let (of, name) = gateway.split_once('/').unwrap_or((&namespace, gateway));
                domains.extend(self.domains(Api::Istio, of, name, &namespace, &hosts, settings));
            }
            let services = self.services(it, &namespace, &settings.scaler.cluster_domain);
            if is_exported(&it.spec.export_to, &namespace, &settings.namespace) {
                add(&mut index, &domains, services);
                continue;
            }
            for service in services {
                let unseen = index.unseen.entry(service).or_default();
                unseen.extend(domains.iter().map(|domain| {
                    let of = Unseen {
                        name: format!("{namespace}/{}", it.name_any()),
                        export_to: it.spec.export_to.clone(),
                        from: settings.namespace.clone(),
                    };
                    (domain.clone(), of)
                }));
            }
        }
        for (namespace, it) in &self.api_routes {
            let any = [Domain::ANY.to_owned()];
            let hosts: &[String] = if it.hostnames.is_empty() { &any } else { &it.hostnames };
            let mut domains = BTreeSet::new();
            for parent in &it.parent_refs {
                let of = parent.namespace.as_ref().unwrap_or(namespace);
                let api = match (parent.group.as_deref(), parent.kind.as_deref().unwrap_or("Gateway")) {
                    (Some("networking.istio.io"), "Gateway") => Api::Istio,
                    (_, "Gateway") => Api::Gateway,
                    // The mesh's.
                    (_, "Service" | "ServiceEntry") => continue,
                    // Listeners that are kept elsewhere.
                    _ => {
                        domains.extend(hosts.iter().map(|host| Domain::new(host)));
                        continue;
                    }
                };
                domains.extend(self.domains(api, of, &parent.name, namespace, hosts, settings));
            }
            let is_service = |it: &&Reference| {
                it.group.as_deref().unwrap_or_default().is_empty()
                    && it.kind.as_deref().is_none_or(|kind| kind == "Service")
            };
            let services = it.rules.iter().flat_map(|rule| &rule.backend_refs).filter(is_service);
            let services =
                services.map(|it| (it.namespace.as_ref().unwrap_or(namespace).clone(), it.name.clone()));
            add(&mut index, &domains, services.collect());
        }
        index
    }

    /// A route's hosts as far as this gateway has them.
    fn domains(
        &self,
        api: Api,
        namespace: &str,
        name: &str,
        of_route: &str,
        hosts: &[String],
        settings: &Settings,
    ) -> BTreeSet<Domain> {
        let hosts: Vec<Domain> = hosts.iter().map(|host| Domain::new(host)).collect();
        let listeners = match api {
            Api::Istio => self.istio_gateway(namespace, name, of_route, settings),
            Api::Gateway => self.api_gateway(namespace, name, settings),
        };
        // One that is not there yet, or is read later.
        let Some(listeners) = listeners else { return hosts.into_iter().collect() };
        hosts.iter().flat_map(|host| listeners.iter().filter_map(|it| it.meet(host))).cloned().collect()
    }

    /// The hosts that a gateway has for routes of a namespace; none where it is another gateway than ours.
    fn istio_gateway(
        &self,
        namespace: &str,
        name: &str,
        of_route: &str,
        settings: &Settings,
    ) -> Option<Vec<Domain>> {
        let is = |it: &&Arc<IstioGateway>| {
            it.namespace().as_deref() == Some(namespace) && it.metadata.name.as_deref() == Some(name)
        };
        let gateway = self.istio_gateways.iter().find(is)?;
        let is_another = match &settings.binding {
            // The same label cannot have two values.
            Binding::Selector(labels) => {
                gateway.spec.selector.iter().any(|(key, value)| labels.get(key).is_some_and(|it| it != value))
            }
            Binding::Gateways(names) => {
                gateway.spec.selector.get(GATEWAY_NAME).is_some_and(|it| !names.contains(it))
            }
            Binding::GatewayClasses(_) => false,
        };
        if is_another {
            return Some(Vec::new());
        }
        let hosts = gateway.spec.servers.iter().flat_map(|server| &server.hosts);
        let visible = hosts.filter_map(|host| match host.split_once('/') {
            None => Some(host.as_str()),
            Some(("*", host)) => Some(host),
            Some((".", host)) => (of_route == namespace).then_some(host),
            Some((only, host)) => (of_route == only).then_some(host),
        });
        Some(visible.map(Domain::new).collect())
    }

    fn api_gateway(&self, namespace: &str, name: &str, settings: &Settings) -> Option<Vec<Domain>> {
        if let Binding::Gateways(names) = &settings.binding
            && (namespace != settings.namespace || !names.iter().any(|it| it == name))
        {
            return Some(Vec::new());
        }
        let is = |it: &&Arc<ApiGateway>| {
            it.namespace().as_deref() == Some(namespace) && it.metadata.name.as_deref() == Some(name)
        };
        let gateway = self.api_gateways.iter().find(is)?;
        if let Binding::GatewayClasses(names) = &settings.binding
            && !names.contains(&gateway.spec.gateway_class_name)
        {
            return Some(Vec::new());
        }
        let listeners = gateway.spec.listeners.iter();
        Some(listeners.map(|it| Domain::new(it.hostname.as_deref().unwrap_or_default())).collect())
    }

    /// Where a VirtualService leads to.
    fn services(&self, it: &VirtualService, namespace: &str, domain: &str) -> Vec<Service> {
        let mut services = Vec::new();
        for route in &it.spec.http {
            let own = route.route.iter().map(|it| &it.destination.host);
            services.extend(own.filter_map(|host| service(host, namespace, domain)));
            // One that is delegated to delegates no further.
            let Some(delegate) = &route.delegate else { continue };
            let of = if delegate.namespace.is_empty() { namespace } else { delegate.namespace.as_str() };
            let is = |it: &&Arc<VirtualService>| {
                it.namespace().as_deref() == Some(of)
                    && it.metadata.name.as_deref() == Some(&*delegate.name)
                    && is_exported(&it.spec.export_to, of, namespace)
            };
            let routes = self.virtual_services.iter().filter(is).flat_map(|it| &it.spec.http);
            let hosts = routes.flat_map(|route| &route.route).map(|it| &it.destination.host);
            services.extend(hosts.filter_map(|host| service(host, of, domain)));
        }
        services
    }
}

fn add(index: &mut Index, domains: &BTreeSet<Domain>, services: Vec<Service>) {
    if domains.is_empty() {
        return;
    }
    for service in services {
        index.seen.entry(service).or_default().extend(domains.iter().cloned());
    }
}

/// The Service that a destination names from a namespace, if it can be one.
fn service(host: &str, namespace: &str, domain: &str) -> Option<Service> {
    let host = host.trim_end_matches('.');
    let host = host.strip_suffix(domain).and_then(|host| host.strip_suffix('.')).unwrap_or(host);
    let host = host.strip_suffix(".svc").unwrap_or(host);
    match host.split_once('.') {
        None => Some((namespace.to_owned(), host.to_owned())),
        Some((name, namespace)) if !namespace.contains('.') => Some((namespace.to_owned(), name.to_owned())),
        Some(_) => None,
    }
}
