//! A network of the bed's own: no packet leaves it, no port is taken in it, nothing of it is left behind.
//!
//! The namespace has no name. A small holder process keeps it alive until its standard input closes, which happens
//! even when the test run is killed; then the holder kills whatever is left in the namespace. Threads of the test's own process enter it too (a socket belongs to the namespace
//! of the thread that made it), so tests speak to Pods and Services directly.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader},
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Addresses of the control plane and of Pods. All of the prefix is local (`ip route add local`), so that any
/// address in it can be bound without being configured first. Loopback addresses would not do: the API server
/// refuses them in EndpointSlices.
pub const POD_PREFIX: &str = "10.99.0.0/16";
/// Addresses of Services (`--service-cluster-ip-range`), served by [`super::services`].
pub const SERVICE_PREFIX: &str = "10.96.0.0/16";
/// Where etcd, the API server and the controller manager listen; also the address of the only node.
pub const NODE_ADDRESS: &str = "10.99.0.1";
/// Where the cluster's DNS is served, as in most real clusters.
pub const DNS_ADDRESS: &str = "10.96.0.10";

/// A network namespace, with a mount namespace that gives its processes their own `/etc/resolv.conf`.
#[derive(Debug)]
pub struct NetNamespace {
    holder: Child,
    net: File,
}

impl NetNamespace {
    /// Makes a namespace; `dir` takes the `resolv.conf`.
    ///
    /// # Errors
    /// When the user may not make namespaces: root may, and so may anybody inside `unshare -Urm`.
    pub fn create(dir: &Path) -> Result<Arc<Self>> {
        let resolv = dir.join("resolv.conf");
        // With ndots:5, as kubelet writes it, `app.shop` and `app.shop.svc` are looked up as names of Services.
        let search = "svc.cluster.local cluster.local";
        std::fs::write(&resolv, format!("nameserver {DNS_ADDRESS}\nsearch {search}\noptions ndots:5\n"))?;
        // The processes started by the bed die with it by themselves, but not what those have started. Only process
        // leaders are compared: a thread of the test run in the namespace does not make the run a victim.
        let script = format!(
            "set -e\n\
             mount --bind \"$1\" /etc/resolv.conf\n\
             ip link set lo up\n\
             ip route add local {POD_PREFIX} dev lo\n\
             ip route add local {SERVICE_PREFIX} dev lo\n\
             echo ready\n\
             cat\n\
             set +e\n\
             left=yes\n\
             while [ $left ]; do\n\
               left=\n\
               for process in /proc/[0-9]*; do\n\
                 id=${{process#/proc/}}\n\
                 if [ $id != $$ ] && [ $process/ns/net -ef /proc/$$/ns/net ]; then kill -KILL $id && left=yes; fi\n\
               done\n\
             done 2> /dev/null"
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--", "sh", "-c", &script, "holder"])
            .arg(&resolv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // An interrupt from the terminal is not meant for it.
            .process_group(0)
            .spawn()
            .context("cannot run unshare (package util-linux)")?;
        let mut said = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        if said.trim() != "ready" {
            let output = holder.wait_with_output()?;
            bail!(
                "cannot make a network namespace: {} (needs root, or a shell inside `unshare -Urm`, and iproute2)",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let net = File::open(format!("/proc/{}/ns/net", holder.id()))?;
        Ok(Arc::new(Self { holder, net }))
    }

    /// A command that runs `program` inside. It gets SIGKILL when the thread that spawns it ends, so that a test
    /// run that is killed leaves no process behind; spawn from a thread that lives as long as the process should.
    /// Its working directory is `/`, whatever one sets: entering a mount namespace does that. Give absolute paths.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        // Both exec in place: the process id that spawn returns is the program's.
        command.arg("--target").arg(self.holder.id().to_string()).args(["--net", "--mount"]);
        command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When the kernel refuses (not root).
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the network namespace")
    }
}

impl Drop for NetNamespace {
    fn drop(&mut self) {
        // Closes the pipe that `cat` reads; then waits for the sweep.
        drop(self.holder.stdin.take());
        // Nothing can be done about an error here, and the kernel takes the namespace with its last process.
        let _ = self.holder.wait();
    }
}
