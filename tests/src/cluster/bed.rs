//! The cluster that runs on this machine: control plane, kubelet's stand-in, Services, DNS.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use anyhow::{Context, Result, anyhow};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle},
    sync::oneshot,
};

use super::{
    certs::Authority,
    control_plane::{self, ADMIN_TOKEN, API_PORT, ControlPlane, Guard},
    dns,
    kubelet::Kubelet,
    netns::{NODE_ADDRESS, NetNamespace},
    process,
    programs::Programs,
    services,
};

/// A running cluster. Dropping it ends every process of it.
pub struct Bed {
    dir: PathBuf,
    netns: Arc<NetNamespace>,
    programs: Arc<Mutex<Programs>>,
    authority: Authority,
    control_plane: Arc<tokio::sync::Mutex<ControlPlane>>,
    inside: Kubeconfig,
    outside: Kubeconfig,
    /// The thread that all of the bed runs on, and which starts its processes: they die with it.
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Kubeconfig = PathBuf;

// === impl Bed ===

impl Bed {
    /// Builds what is not built, and starts a cluster whose files are kept in `dir` (made new).
    ///
    /// # Errors
    /// With the end of the log of whatever did not start.
    pub fn start(dir: &Path, guard: Guard) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let dir = dir.canonicalize()?;
        let programs = Programs::build()?;
        let authority = Authority::new()?;
        authority.write_control_plane(&dir, NODE_ADDRESS)?;
        let netns = NetNamespace::create(&dir)?;
        // Bound by this thread, which is outside; see `open_outside`.
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let outside = dir.join("kubeconfig-outside");
        let server = format!("https://127.0.0.1:{port}");
        control_plane::write_kubeconfig(&outside, &server, &authority.cert(), ADMIN_TOKEN)?;

        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let thread = {
            let (netns, programs, dir, ca) = (netns.clone(), programs.clone(), dir.clone(), authority.cert());
            std::thread::Builder::new().name("bed".into()).spawn(move || {
                let run = || {
                    netns.enter()?;
                    let runtime = Builder::new_current_thread().enable_all().build()?;
                    let parts = runtime.block_on(start(&netns, &programs, &dir, ca, listener, guard))?;
                    anyhow::Ok((runtime, parts))
                };
                match run() {
                    Ok((runtime, parts)) => {
                        let _ = ready.send(Ok((runtime.handle().clone(), parts)));
                        // An error means that the bed was dropped: the same.
                        let _ = runtime.block_on(stopped);
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })?
        };
        let (runtime, parts) = started.recv().context("the bed's thread has panicked")??;
        let Parts { control_plane, programs } = parts;
        let inside = dir.join("kubeconfig");
        let control_plane = Arc::new(tokio::sync::Mutex::new(control_plane));
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { dir, netns, programs, authority, control_plane, inside, outside, runtime, stop, thread })
    }

    /// The admin's kubeconfig for processes and threads inside the namespace.
    pub fn kubeconfig(&self) -> &Path {
        &self.inside
    }

    /// The admin's kubeconfig for everybody else on this machine, by way of a port on 127.0.0.1.
    pub fn kubeconfig_outside(&self) -> &Path {
        &self.outside
    }

    /// The namespace, to enter it or to start a program in it.
    pub fn netns(&self) -> &Arc<NetNamespace> {
        &self.netns
    }

    /// Signs what Pods want signed.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The path of a program or folder of manifests by name.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(Path::to_owned)
    }

    /// Lets Pods run a program by name: as `command`, or as the last part of an image's name.
    pub fn add_program(&self, name: &str, path: impl Into<PathBuf>) {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner).add(name, path);
    }

    /// Kills the API server. Every watch breaks; etcd keeps the objects.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn stop_api_server(&self) -> Result<()> {
        let control_plane = self.control_plane.clone();
        self.on_thread(async move { control_plane.lock().await.stop_api_server().await }).await
    }

    /// Starts the API server again and waits until it is ready.
    ///
    /// # Errors
    /// With the end of its log.
    pub async fn start_api_server(&self) -> Result<()> {
        let control_plane = self.control_plane.clone();
        self.on_thread(async move { control_plane.lock().await.start_api_server().await }).await
    }

    /// The last `lines` lines of the logs of the control plane and of the containers that wrote last, also those of
    /// Pods that are gone.
    pub fn logs(&self, lines: usize) -> String {
        /// A hundred apps would bury what one looks for.
        const MOST: usize = 16;
        let mut text = String::new();
        let mut paths = Vec::new();
        for folder in [self.dir.clone()].into_iter().chain(folders(&self.dir.join("pods"))) {
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
            paths.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "log")));
        }
        paths.sort_by_key(|path| path.metadata().and_then(|file| file.modified()).ok());
        for path in paths.split_off(paths.len().saturating_sub(MOST)) {
            let name = path.strip_prefix(&self.dir).unwrap_or(&path).display();
            text += &format!("--- {name}\n{}\n", process::tail(&path, lines));
        }
        text
    }

    /// The log of a Pod's container, from its first start on; empty when it has none.
    pub fn pod_log(&self, namespace: &str, pod: &str, container: &str) -> String {
        let file = self.dir.join("pods").join(format!("{namespace}_{pod}")).join(format!("{container}.log"));
        process::tail(&file, usize::MAX)
    }

    /// Where the API server writes down what KEDA writes and who scales what.
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join(control_plane::AUDIT_LOG)
    }

    /// A folder for processes that are not Pods; their `*.log` files are among [`Self::logs`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.dir.join("pods").join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Processes must be started by the bed's thread, since they die with the thread that started them.
    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.runtime.spawn(work).await.map_err(|error| anyhow!("the bed's thread: {error}"))?
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has panicked, or it ends now; its processes die with it in either case.
            let _ = thread.join();
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

struct Parts {
    control_plane: ControlPlane,
    programs: Arc<Mutex<Programs>>,
}

/// On the bed's thread: starts everything, and leaves tasks behind that keep it going.
async fn start(
    netns: &Arc<NetNamespace>,
    programs: &Programs,
    dir: &Path,
    ca: String,
    listener: std::net::TcpListener,
    guard: Guard,
) -> Result<Parts> {
    let control_plane = ControlPlane::start(netns, programs, dir, guard).await?;
    let client = control_plane::client(control_plane.kubeconfig()).await?;
    let programs = Arc::new(Mutex::new(programs.clone()));

    let names = dns::Names::default();
    tokio::spawn(dns::serve(names.clone()).await?);
    tokio::spawn(services::run(client.clone(), names));

    let server = (control_plane::server(), ca);
    let kubelet = Kubelet::new(client, server, netns.clone(), programs.clone(), dir.join("pods"))?;
    kubelet.register().await?;
    tokio::spawn(kubelet.run());

    tokio::spawn(open_outside(TcpListener::from_std(listener)?));
    Ok(Parts { control_plane, programs })
}

/// Makes the API server reachable from outside the namespace. A socket stays in the namespace that it was made in:
/// this listener is outside, the connections onwards are inside.
async fn open_outside(listener: TcpListener) {
    let api_server = SocketAddr::new(NODE_ADDRESS.parse().unwrap_or([127, 0, 0, 1].into()), API_PORT);
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(services::relay(client, api_server));
    }
}
