//! A real Kubernetes with the real KEDA, for tests and for the demo.
//!
//! ```ignore
//! #[test]
//! fn a_shop_opens() {
//!     cluster::run(async |cluster| {
//!         let namespace = cluster.namespace("shop").await?;
//!         cluster.apply_yaml(&include_str!("shop.yaml").replace("NAMESPACE", &namespace)).await?;
//!         cluster.delete_namespace(&namespace).await
//!     });
//! }
//! ```
//!
//! Layout: [`programs`] builds the programs · [`netns`] the network they live in · [`certs`] · `process` ·
//! `control_plane` etcd, API server, controllers · `kubelet` the stand-in that runs Pods as processes ·
//! `services`, `dns` in the place of kube-proxy and CoreDNS · [`keda`] · [`sluice`] what the tests of the whole
//! install besides · [`bed`] all of it · [`Cluster`] what a test holds. With [`KUBECONFIG_VARIABLE`] set, the tests use that cluster (with KEDA in it) instead, and those
//! that need the bed itself are passed over.

pub mod bed;
pub mod certs;
mod control_plane;
mod dns;
pub mod istio;
pub mod keda;
mod kubelet;
pub mod netns;
mod process;
pub mod programs;
mod services;
pub mod sluice;

use std::{
    fmt::Write as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    runtime::wait::await_condition,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use bed::Bed;
pub use control_plane::Guard;

/// The environment variable that names the kubeconfig of a cluster to use instead of the bed. Not `KUBECONFIG`
/// itself: tests that make and delete namespaces should run against a cluster only when somebody means it.
pub const KUBECONFIG_VARIABLE: &str = "SLUICE_TEST_KUBECONFIG";

/// Whether the test is to return at once: it takes the bed, and [`KUBECONFIG_VARIABLE`] names another cluster.
pub fn passes_over() -> bool {
    let is_named = std::env::var_os(KUBECONFIG_VARIABLE).is_some();
    if is_named {
        crate::pass_over(&format!("{KUBECONFIG_VARIABLE} names another cluster than the bed"));
    }
    is_named
}

/// A cluster as a test sees it. Its client belongs to the runtime of the test.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    kubeconfig: PathBuf,
    bed: Option<Arc<Bed>>,
}

/// The bed of this test binary: the first test starts it, all share it, one at a time.
static SHARED: Mutex<Option<Arc<Bed>>> = Mutex::new(None);

/// Runs one test against the cluster: the bed of this test binary, or the one that [`KUBECONFIG_VARIABLE`] names.
/// Tests take turns, since they share two cores and a KEDA.
///
/// # Panics
/// When the test fails, after the state of all Pods, the latest events and the ends of all logs have been printed.
pub fn run<F>(test: impl FnOnce(Cluster) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    run_with(Guard::default(), test);
}

/// As [`run`] on a bed with this guard, which all tests of a binary have to want alike.
///
/// # Panics
/// As [`run`].
pub fn run_with<F>(guard: Guard, test: impl FnOnce(Cluster) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    // A test that has failed has not harmed the bed.
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = match std::env::var_os(KUBECONFIG_VARIABLE) {
        Some(kubeconfig) => on_thread(None, PathBuf::from(kubeconfig), test),
        None => {
            let bed = match shared.as_ref() {
                Some(bed) => bed.clone(),
                None => start_shared(guard)
                    .unwrap_or_else(|error| panic!("the test bed does not start: {error:#}")),
            };
            *shared = Some(bed.clone());
            inside(&bed, test)
        }
    };
    drop(shared);
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

/// Starts the bed in a folder that names this process, and removes the folders of processes that are gone: the
/// logs of a run stay until the next.
fn start_shared(guard: Guard) -> Result<Arc<Bed>> {
    const PREFIX: &str = "sluice-cluster-";
    let temp = std::env::temp_dir();
    for entry in std::fs::read_dir(&temp)?.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Another user's, perhaps: not in the way.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    start_guarded(&temp.join(format!("{PREFIX}{}", std::process::id())), guard)
}

/// Starts a bed with KEDA for something else than tests; its files, logs among them, are kept in `dir`.
///
/// # Errors
/// With the end of the log of whatever did not start.
pub fn start(dir: &Path) -> Result<Arc<Bed>> {
    start_guarded(dir, Guard::default())
}

fn start_guarded(dir: &Path, guard: Guard) -> Result<Arc<Bed>> {
    let bed = Arc::new(Bed::start(dir, guard)?);
    let keda = bed.clone();
    inside(&bed, async move |cluster: Cluster| keda::install(&cluster, &keda).await)?;
    Ok(bed)
}

/// Runs `work` on a thread inside a bed's namespace and waits for its end.
///
/// # Errors
/// Those of `work`, after the state of the cluster has been printed.
pub fn inside<F>(bed: &Arc<Bed>, work: impl FnOnce(Cluster) -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    on_thread(Some(bed.clone()), bed.kubeconfig().to_owned(), work)
}

/// Runs the test on a thread inside the bed's namespace; the threads of its runtime are born there too.
fn on_thread<F>(
    bed: Option<Arc<Bed>>,
    kubeconfig: PathBuf,
    test: impl FnOnce(Cluster) -> F + Send + 'static,
) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let work = move || {
        if let Some(bed) = &bed {
            bed.netns().enter()?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let cluster = Cluster::connect(&kubeconfig, bed).await?;
            let outcome = AssertUnwindSafe(test(cluster.clone())).catch_unwind().await;
            if !matches!(outcome, Ok(Ok(()))) {
                eprintln!("{}", cluster.diagnosis().await);
            }
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let thread = std::thread::Builder::new().name(test).spawn(work)?;
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

// === impl Cluster ===

impl Cluster {
    /// A client of the cluster behind a kubeconfig. For a bed, call it on a thread inside its namespace.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn connect(kubeconfig: &Path, bed: Option<Arc<Bed>>) -> Result<Self> {
        let client = control_plane::client(kubeconfig).await?;
        Ok(Self { client, kubeconfig: kubeconfig.to_owned(), bed })
    }

    /// The admin's client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The bed, unless the tests run against somebody's cluster.
    pub fn bed(&self) -> Option<&Arc<Bed>> {
        self.bed.as_ref()
    }

    /// Makes a namespace whose name starts with `prefix` and is new.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})]).await?;
        Ok(name)
    }

    /// Deletes a namespace and all that is in it, without waiting for the end of it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        Api::<Namespace>::all(self.client()).delete(name, &DeleteParams::background()).await?;
        Ok(())
    }

    /// Applies objects of any kind (server-side).
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.apply_yaml(&list.to_string()).await
    }

    /// Applies YAML documents (server-side).
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--filename", "-"];
        self.run_kubectl(&arguments, yaml).await.map(drop)
    }

    /// Applies YAML documents as `kubectl apply -f` does where nothing else is said: by a merge that it makes itself.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn apply_plainly(&self, yaml: &str) -> Result<()> {
        self.run_kubectl(&["apply", "--filename", "-"], yaml).await.map(drop)
    }

    /// Runs kubectl as admin; what it prints.
    ///
    /// # Errors
    /// With what it said when it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.run_kubectl(arguments, "").await
    }

    async fn run_kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.run_program_with("kubectl", arguments, input).await
    }

    /// Runs a program that takes `--kubeconfig`, as admin; what it prints.
    ///
    /// # Errors
    /// With what it said when it fails.
    pub async fn run_program(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run_program_with(program, arguments, "").await
    }

    async fn run_program_with(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let command = match &self.bed {
            Some(bed) => bed.netns().command(bed.program(program)?),
            None => std::process::Command::new(program),
        };
        let mut command = tokio::process::Command::from(command);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that stops reading says why on its standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {}: {}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until an object (`None` when there is none of that name) is as wanted, and returns it.
    ///
    /// # Errors
    /// After `limit`, with the object as it is then.
    pub async fn wait_for<K>(
        &self,
        api: &Api<K>,
        name: &str,
        limit: Duration,
        wanted: impl Fn(Option<&K>) -> bool,
    ) -> Result<Option<K>>
    where
        K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    {
        let condition = await_condition(api.clone(), name, |object: Option<&K>| wanted(object));
        match tokio::time::timeout(limit, condition).await {
            Ok(object) => Ok(object?),
            Err(_) => {
                let now = api.get_opt(name).await;
                bail!("{name} is not as wanted after {limit:?}; it is {now:#?}")
            }
        }
    }

    /// Merges into one object, for example its annotations or `spec.replicas`.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn merge<K>(&self, api: &Api<K>, name: &str, patch: &Value) -> Result<K>
    where
        K: Clone + std::fmt::Debug + DeserializeOwned,
    {
        Ok(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// What one wants to see when a test has failed: all Pods, the latest events, the ends of all logs.
    pub async fn diagnosis(&self) -> String {
        let mut text = String::from("\n=== pods\n");
        match Api::<Pod>::all(self.client()).list(&ListParams::default()).await {
            Ok(pods) => pods.iter().for_each(|pod| describe(&mut text, pod)),
            Err(error) => text += &format!("{error}\n"),
        }
        text += "=== events\n";
        let events = Api::<Event>::all(self.client()).list(&ListParams::default()).await;
        for event in events.iter().flatten() {
            let object = &event.involved_object;
            let [kind, namespace, name, reason, message] =
                [&object.kind, &object.namespace, &object.name, &event.reason, &event.message]
                    .map(|text| text.as_deref().unwrap_or("?"));
            let _ = writeln!(text, "{kind} {namespace}/{name}: {reason}: {message}");
        }
        if let Some(bed) = &self.bed {
            text += "=== logs\n";
            text += &bed.logs(30);
        }
        text
    }
}

fn describe(text: &mut String, pod: &Pod) {
    let status = pod.status.clone().unwrap_or_default();
    let ip = status.pod_ip.unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let _ = writeln!(text, "{}/{} {phase} {ip}", pod.namespace().unwrap_or_default(), pod.name_any());
    for container in status.container_statuses.into_iter().flatten() {
        let (ready, restarts) = (container.ready, container.restart_count);
        let state = serde_json::to_string(&container.state).unwrap_or_default();
        let _ = writeln!(text, "  {}: ready {ready}, restarts {restarts}, {state}", container.name);
    }
}
