//! etcd, kube-apiserver and kube-controller-manager.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::json;
use tokio::net::TcpStream;

use super::{
    netns::{NODE_ADDRESS, NetNamespace, SERVICE_PREFIX},
    process::Process,
    programs::Programs,
    sluice::audit::OPERATOR,
};

/// Longest wait for one of the three; they take 0.1, 3 and 0.5 s on two idle cores.
const LIMIT: Duration = Duration::from_secs(120);
/// The bearer token of `admin`, who is in `system:masters`. The bed is not reachable from outside the machine.
pub(super) const ADMIN_TOKEN: &str = "bed-admin";
/// The API server's port.
pub(super) const API_PORT: u16 = 6443;

/// The API server's policy of what it writes to [`AUDIT_LOG`].
const AUDIT_POLICY: &str = "audit-policy.json";
/// The API server's audit log, one JSON object a line.
pub(super) const AUDIT_LOG: &str = "audit.jsonl";

/// The controllers that a Deployment, its Pods, Services and autoscaling need. Those that look at nodes stay off:
/// nobody sends the heartbeats of the only one.
const CONTROLLERS: &str = "clusterrole-aggregation-controller,deployment-controller,endpointslice-controller,\
    garbage-collector-controller,horizontal-pod-autoscaler-controller,job-controller,namespace-controller,\
    replicaset-controller,root-ca-certificate-publisher-controller,serviceaccount-controller,statefulset-controller";

/// Whether it takes a right to make an object's owner wait for it. By default it does not, and in many a cluster it does.
///
/// Where it does, the API server refuses every such owner of a kind that it does not know yet: for up to half a minute
/// after the kind's definition has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// Anybody may.
    #[default]
    None,
    /// The admission plugin `OwnerReferencesPermissionEnforcement` asks for the right.
    Owners,
}

/// The three processes, and what is needed to start one of them again.
#[derive(Debug)]
pub(super) struct ControlPlane {
    netns: Arc<NetNamespace>,
    dir: PathBuf,
    programs: [PathBuf; 3],
    /// The admin's kubeconfig inside the namespace.
    kubeconfig: PathBuf,
    guard: Guard,
    _etcd: Process,
    api_server: Option<Process>,
    _controllers: Process,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Starts everything in `dir`, which holds the certificates; ends when the first service account exists, so
    /// that Pods can be made in `default`.
    pub(super) async fn start(
        netns: &Arc<NetNamespace>,
        programs: &Programs,
        dir: &Path,
        guard: Guard,
    ) -> Result<Self> {
        let [etcd, api_server, controllers] = ["etcd", "kube-apiserver", "kube-controller-manager"]
            .map(|name| programs.get(name).map(Path::to_owned));
        let programs = [etcd?, api_server?, controllers?];
        let kubeconfig = dir.join("kubeconfig");
        let ca = fs::read_to_string(dir.join("ca.crt"))?;
        write_kubeconfig(&kubeconfig, &server(), &ca, ADMIN_TOKEN)?;
        fs::write(dir.join(AUDIT_POLICY), audit_policy().to_string())?;
        fs::write(dir.join("tokens.csv"), format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"))?;

        let mut etcd = Process::spawn("etcd", etcd_command(netns, &programs[0], dir), &dir.join("etcd.log"))?;
        etcd.until(LIMIT, || TcpStream::connect((NODE_ADDRESS, 2379)).map(|stream| stream.is_ok())).await?;
        let api_server = start_api_server(netns, &programs[1], dir, &kubeconfig, guard).await?;
        let command = controllers_command(netns, &programs[2], dir, &kubeconfig);
        let mut controllers =
            Process::spawn("kube-controller-manager", command, &dir.join("kube-controller-manager.log"))?;
        let accounts = Api::<ServiceAccount>::namespaced(client(&kubeconfig).await?, "default");
        controllers.until(LIMIT, || accounts.get("default").map(|account| account.is_ok())).await?;
        Ok(Self {
            netns: netns.clone(),
            dir: dir.to_owned(),
            programs,
            kubeconfig,
            guard,
            _etcd: etcd,
            api_server: Some(api_server),
            _controllers: controllers,
        })
    }

    /// The admin's kubeconfig inside the namespace.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Kills the API server, as a crash would. etcd keeps its objects.
    pub(super) async fn stop_api_server(&mut self) -> Result<()> {
        match self.api_server.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Starts the API server again and waits until it is ready.
    pub(super) async fn start_api_server(&mut self) -> Result<()> {
        if self.api_server.is_none() {
            let program = &self.programs[1];
            let started =
                start_api_server(&self.netns, program, &self.dir, &self.kubeconfig, self.guard).await?;
            self.api_server = Some(started);
        }
        Ok(())
    }
}

async fn start_api_server(
    netns: &NetNamespace,
    program: &Path,
    dir: &Path,
    kubeconfig: &Path,
    guard: Guard,
) -> Result<Process> {
    let mut command = api_server_command(netns, program, dir);
    if guard == Guard::Owners {
        command.arg("--enable-admission-plugins=OwnerReferencesPermissionEnforcement");
    }
    let mut process = Process::spawn("kube-apiserver", command, &dir.join("kube-apiserver.log"))?;
    let client = client(kubeconfig).await?;
    process.until(LIMIT, || client.request_text(readyz()).map(|answer| answer.is_ok())).await?;
    Ok(process)
}

fn readyz() -> http::Request<Vec<u8>> {
    let mut request = http::Request::default();
    *request.uri_mut() = http::Uri::from_static("/readyz");
    request
}

fn etcd_command(netns: &NetNamespace, program: &Path, dir: &Path) -> Command {
    let mut command = netns.command(program);
    let client = format!("http://{NODE_ADDRESS}:2379");
    let peer = format!("http://{NODE_ADDRESS}:2380");
    command.arg("--data-dir").arg(dir.join("etcd"));
    command.arg(format!("--listen-client-urls={client}")).arg(format!("--advertise-client-urls={client}"));
    command.arg(format!("--listen-peer-urls={peer}")).arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--initial-cluster=default={peer}"));
    // Nobody will read this data after a power cut.
    command.args(["--unsafe-no-fsync", "--log-level=warn"]);
    command
}

fn api_server_command(netns: &NetNamespace, program: &Path, dir: &Path) -> Command {
    let mut command = netns.command(program);
    command.arg(format!("--etcd-servers=http://{NODE_ADDRESS}:2379"));
    command.arg(format!("--bind-address={NODE_ADDRESS}")).arg(format!("--advertise-address={NODE_ADDRESS}"));
    command
        .arg(format!("--secure-port={API_PORT}"))
        .arg(format!("--service-cluster-ip-range={SERVICE_PREFIX}"));
    for (flag, file) in [
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("client-ca-file", "ca.crt"),
        ("token-auth-file", "tokens.csv"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        // The aggregation layer, through which KEDA's metrics adapter is reached.
        ("requestheader-client-ca-file", "ca.crt"),
        ("proxy-client-cert-file", "front-proxy.crt"),
        ("proxy-client-key-file", "front-proxy.key"),
    ] {
        command.arg(format!("--{flag}={}", dir.join(file).display()));
    }
    command.arg(format!("--audit-policy-file={}", dir.join(AUDIT_POLICY).display()));
    command.arg(format!("--audit-log-path={}", dir.join(AUDIT_LOG).display()));
    command.args([
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        // To the endpoints of an APIService's Service, not to its address.
        "--enable-aggregator-routing=true",
        "--profiling=false",
    ]);
    command
}

/// What is written down: all that Sluice's operator asks for; what KEDA writes, with the text of what it says of a
/// ScaledObject, when it reads a scale, and who sets how many Pods a workload has.
fn audit_policy() -> serde_json::Value {
    let writes = ["create", "update", "patch", "delete"];
    let keda = ["system:serviceaccount:keda:keda-operator"];
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "users": [OPERATOR]},
            {"level": "None", "resources": [{"group": "coordination.k8s.io"}]},
            {"level": "Request", "users": keda, "verbs": writes, "resources": [
                {"group": "keda.sh", "resources": ["scaledobjects/status"]},
            ]},
            {"level": "Metadata", "users": keda, "verbs": writes},
            {"level": "Metadata", "users": keda, "verbs": ["get"], "resources": [
                {"group": "apps", "resources": ["deployments/scale"]},
            ]},
            {"level": "Metadata", "verbs": writes, "resources": [
                {"group": "apps", "resources": ["deployments/scale", "statefulsets/scale"]},
            ]},
            {"level": "None"},
        ],
    })
}

fn controllers_command(netns: &NetNamespace, program: &Path, dir: &Path, kubeconfig: &Path) -> Command {
    let mut command = netns.command(program);
    for (flag, file) in [("service-account-private-key-file", "sa.key"), ("root-ca-file", "ca.crt")] {
        command.arg(format!("--{flag}={}", dir.join(file).display()));
    }
    for flag in ["--kubeconfig", "--authentication-kubeconfig", "--authorization-kubeconfig"] {
        command.arg(flag).arg(kubeconfig);
    }
    command.arg(format!("--bind-address={NODE_ADDRESS}")).arg(format!("--controllers={CONTROLLERS}"));
    command.args([
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        // The default of 15 s is a matter of load, not of behaviour; a test should not wait for it.
        "--horizontal-pod-autoscaler-sync-period=1s",
        // A hundred Deployments woken in one second are a test of Sluice and KEDA, not of this client's throttle.
        "--kube-api-qps=1000",
        "--kube-api-burst=2000",
    ]);
    command
}

/// The API server's URL inside the namespace.
pub(super) fn server() -> String {
    format!("https://{NODE_ADDRESS}:{API_PORT}")
}

/// A client of the cluster behind a kubeconfig; it belongs to the runtime that it is made in.
pub(super) async fn client(kubeconfig: &Path) -> Result<Client> {
    let text = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(text, &KubeConfigOptions::default()).await?)?)
}

/// Writes a kubeconfig with a bearer token. JSON is YAML.
pub(super) fn write_kubeconfig(path: &Path, server: &str, ca: &str, token: &str) -> Result<()> {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bed", "cluster": {
            "server": server,
            "certificate-authority-data": k8s_openapi::ByteString(ca.as_bytes().to_vec()),
        }}],
        "users": [{"name": "bed", "user": {"token": token}}],
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": "bed"}}],
        "current-context": "bed",
    });
    fs::write(path, kubeconfig.to_string()).with_context(|| format!("cannot write {}", path.display()))
}
