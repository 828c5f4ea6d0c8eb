//! Readiness probes: `httpGet` (plain HTTP), `tcpSocket`, and `grpc` as a TCP connection.

use std::{net::Ipv4Addr, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How often a Pod is probed, whatever its `periodSeconds`.
pub(super) const PERIOD: Duration = Duration::from_millis(25);

/// A readiness probe that is ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    check: Check,
    /// `timeoutSeconds`, 1 s by default.
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Check {
    Http { address: String, path: String },
    Tcp { address: String },
}

// === impl Readiness ===

impl Readiness {
    /// The container's probe; `None` when it has none, which means ready as soon as it runs.
    ///
    /// # Errors
    /// Names what this stand-in cannot do (`exec`, HTTPS) or a port that the container does not have.
    pub(super) fn of(container: &Container, ip: Ipv4Addr) -> Result<Option<Self>, String> {
        let Some(probe) = &container.readiness_probe else { return Ok(None) };
        let timeout = Duration::from_secs(probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs().into());
        Ok(Some(Self { check: Check::of(probe, container, ip)?, timeout }))
    }

    /// Asks once.
    pub(super) async fn ready(&self) -> bool {
        matches!(timeout(self.timeout, self.check.passes()).await, Ok(Ok(true)))
    }
}

// === impl Check ===

impl Check {
    fn of(probe: &Probe, container: &Container, ip: Ipv4Addr) -> Result<Self, String> {
        if let Some(http) = &probe.http_get {
            if http.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
                return Err("readinessProbe.httpGet.scheme: the test bed knows only HTTP".into());
            }
            let address = format!("{ip}:{}", port(&http.port, container)?);
            return Ok(Self::Http { address, path: http.path.clone().unwrap_or_else(|| "/".into()) });
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Ok(Self::Tcp { address: format!("{ip}:{}", port(&tcp.port, container)?) });
        }
        if let Some(grpc) = &probe.grpc {
            return Ok(Self::Tcp { address: format!("{ip}:{}", grpc.port) });
        }
        Err("readinessProbe: the test bed knows httpGet, tcpSocket and grpc".into())
    }

    async fn passes(&self) -> std::io::Result<bool> {
        match self {
            Self::Tcp { address } => TcpStream::connect(address).await.map(|_| true),
            Self::Http { address, path } => {
                let mut stream = TcpStream::connect(address).await?;
                let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                // "HTTP/1.1 2": kubelet takes 200 to 399 for a yes.
                let mut status = [0; 10];
                stream.read_exact(&mut status).await?;
                Ok(matches!(status[9], b'2' | b'3'))
            }
        }
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<i32, String> {
    match port {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_ref() == Some(name))
            .map(|port| port.container_port)
            .ok_or_else(|| {
                format!("readinessProbe: container {} has no port named {name:?}", container.name)
            }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(probe: serde_json::Value) -> Result<Option<Readiness>, String> {
        let container = json!({
            "name": "app",
            "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": probe,
        });
        Readiness::of(&serde_json::from_value(container).unwrap(), Ipv4Addr::new(10, 99, 1, 1))
    }

    #[test]
    fn named_ports_are_looked_up() {
        let readiness = check(json!({"httpGet": {"path": "/readyz", "port": "web"}, "timeoutSeconds": 3}));
        let check = Check::Http { address: "10.99.1.1:8080".into(), path: "/readyz".into() };
        assert_eq!(readiness, Ok(Some(Readiness { check, timeout: Duration::from_secs(3) })));
    }

    #[test]
    fn what_cannot_be_probed_is_said() {
        assert!(check(json!({"exec": {"command": ["true"]}})).unwrap_err().contains("readinessProbe"));
        assert!(check(json!({"tcpSocket": {"port": "grpc"}})).unwrap_err().contains("\"grpc\""));
    }
}
