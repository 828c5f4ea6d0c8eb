//! In the place of kube-proxy: Service addresses, TCP only, and the names that [`super::dns`] answers for.
//!
//! Each port of a Service that has a ready endpoint is a listener on the Service's address; each connection goes to
//! one of the endpoints, in turn. A port without ready endpoints refuses connections, as kube-proxy has it. What is
//! connected stays so when its endpoint goes out of the list.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{StreamExt, stream::select};
use k8s_openapi::api::{
    core::v1::{Service, ServicePort},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, reflector, watcher},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::dns::Names;

/// The label that names an EndpointSlice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

type Backends = BTreeMap<SocketAddr, Vec<SocketAddr>>;

/// Follows all Services and their endpoints until dropped.
pub(super) async fn run(client: Client, names: Names) {
    let (services, services_writer) = reflector::store::<Service>();
    let (slices, slices_writer) = reflector::store::<EndpointSlice>();
    let config = watcher::Config::default;
    let services_watch = watcher(Api::all(client.clone()), config()).default_backoff();
    let slices_watch = watcher(Api::all(client), config()).default_backoff();
    let mut changes = select(
        services_watch.reflect(services_writer).touched_objects().map(drop).boxed(),
        slices_watch.reflect(slices_writer).touched_objects().map(drop).boxed(),
    );
    let mut listeners = Listeners::default();
    while changes.next().await.is_some() {
        let (services, slices) = (services.state(), slices.state());
        *names.write().unwrap_or_else(PoisonError::into_inner) = all_names(&services, &slices);
        listeners.set(all_backends(&services, &slices)).await;
    }
}

fn all_names(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> BTreeMap<String, Vec<Ipv4Addr>> {
    let addresses = |service: &Service| match cluster_ip(service) {
        Some(IpAddr::V4(address)) => vec![address],
        Some(IpAddr::V6(_)) => Vec::new(),
        // Headless: the endpoints themselves.
        None => {
            let endpoints = slices_of(service, slices).flat_map(|slice| &slice.endpoints);
            let ready = endpoints.filter(|endpoint| is_ready(endpoint));
            ready
                .flat_map(|endpoint| &endpoint.addresses)
                .filter_map(|address| address.parse().ok())
                .collect()
        }
    };
    let name = |service: &Service| {
        format!("{}.{}.svc.cluster.local", service.name_any(), service.namespace().unwrap_or_default())
    };
    services.iter().map(|service| (name(service), addresses(service))).collect()
}

fn all_backends(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Backends {
    let mut backends = Backends::new();
    for service in services {
        let Some(ip) = cluster_ip(service) else { continue };
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let Ok(number) = u16::try_from(port.port) else { continue };
            let endpoints = slices_of(service, slices).flat_map(|slice| endpoints_of(slice, port));
            let mut endpoints = endpoints.collect::<Vec<_>>();
            endpoints.sort_unstable();
            endpoints.dedup();
            if !endpoints.is_empty() && port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP") {
                backends.insert(SocketAddr::new(ip, number), endpoints);
            }
        }
    }
    backends
}

/// The Service's own address; a headless one, or one of type ExternalName, has none.
fn cluster_ip(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

fn slices_of<'a>(
    service: &'a Service,
    slices: &'a [Arc<EndpointSlice>],
) -> impl Iterator<Item = &'a EndpointSlice> {
    slices.iter().map(Arc::as_ref).filter(|slice| {
        slice.namespace() == service.namespace()
            && slice.labels().get(SERVICE_NAME).map(String::as_str) == service.metadata.name.as_deref()
    })
}

fn endpoints_of<'a>(
    slice: &'a EndpointSlice,
    port: &'a ServicePort,
) -> impl Iterator<Item = SocketAddr> + 'a {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let ports =
        slice.ports.iter().flatten().filter(move |candidate| name(&candidate.name) == name(&port.name));
    let numbers = ports.filter_map(|port| u16::try_from(port.port?).ok());
    numbers.flat_map(|number| {
        let ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
        let addresses = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok());
        addresses.map(move |address| SocketAddr::new(address, number))
    })
}

/// `ready` that is not said counts as true.
fn is_ready(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The open ports.
#[derive(Default)]
struct Listeners(BTreeMap<SocketAddr, Listener>);

struct Listener {
    backends: Arc<RwLock<Vec<SocketAddr>>>,
    task: AbortHandle,
}

// === impl Listeners ===

impl Listeners {
    async fn set(&mut self, mut wanted: Backends) {
        self.0.retain(|address, listener| match wanted.remove(address) {
            Some(backends) => {
                *listener.backends.write().unwrap_or_else(PoisonError::into_inner) = backends;
                true
            }
            None => {
                listener.task.abort();
                false
            }
        });
        for (address, backends) in wanted {
            // A port that something else holds (a Pod bound to the wildcard) is tried again at the next change.
            let Ok(socket) = TcpListener::bind(address).await else { continue };
            let backends = Arc::new(RwLock::new(backends));
            let task = tokio::spawn(accept(socket, backends.clone())).abort_handle();
            self.0.insert(address, Listener { backends, task });
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(socket: TcpListener, backends: Arc<RwLock<Vec<SocketAddr>>>) {
    let turn = AtomicUsize::new(0);
    loop {
        let Ok((client, _)) = socket.accept().await else { continue };
        let backend = {
            let backends = backends.read().unwrap_or_else(PoisonError::into_inner);
            backends.get(turn.fetch_add(1, Ordering::Relaxed) % backends.len().max(1)).copied()
        };
        if let Some(backend) = backend {
            tokio::spawn(relay(client, backend));
        }
    }
}

/// Carries one connection; either side's end ends it.
pub(super) async fn relay(mut client: TcpStream, backend: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(backend).await {
        // What is carried is small and waited for.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(cluster_ip: &str) -> Arc<Service> {
        let service = json!({
            "metadata": {"name": "app", "namespace": "shop"},
            "spec": {"clusterIP": cluster_ip, "ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]},
        });
        Arc::new(serde_json::from_value(service).unwrap())
    }

    fn slice(address: &str, ready: Option<bool>) -> Arc<EndpointSlice> {
        let slice = json!({
            "metadata": {"name": address, "namespace": "shop", "labels": {SERVICE_NAME: "app"}},
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": 8080}],
            "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn a_service_port_leads_to_the_ready_endpoints_of_its_name() {
        let slices =
            [slice("10.99.1.1", Some(true)), slice("10.99.1.2", Some(false)), slice("10.99.1.3", None)];
        let backends = all_backends(&[service("10.96.0.7")], &slices);
        let endpoints = ["10.99.1.1:8080", "10.99.1.3:8080"].map(|address| address.parse().unwrap()).to_vec();
        assert_eq!(backends, Backends::from([("10.96.0.7:80".parse().unwrap(), endpoints)]));
    }

    #[test]
    fn a_headless_service_is_named_by_its_endpoints() {
        let slices = [slice("10.99.1.1", Some(true)), slice("10.99.1.2", Some(false))];
        let of = |ip| all_names(&[service(ip)], &slices).remove("app.shop.svc.cluster.local").unwrap();
        assert_eq!(of("None"), [Ipv4Addr::new(10, 99, 1, 1)]);
        assert_eq!(of("10.96.0.7"), [Ipv4Addr::new(10, 96, 0, 7)]);
    }
}
