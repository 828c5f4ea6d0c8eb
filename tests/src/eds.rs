//! The control plane's part: the endpoints that Envoy has for a cluster, as EDS in a file.

use crate::{clock, envoy::socket_address, paths};
use serde_json::json;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The EDS file of one cluster. Every writing is a rename, which is what Envoy watches for.
#[derive(Debug)]
pub struct EdsFile {
    path: PathBuf,
    cluster: String,
    version: AtomicU64,
}

// === impl EdsFile ===

impl EdsFile {
    /// The file of `cluster` in a folder of its own under `dir`, without endpoints at first.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(dir: &Path, cluster: &str) -> anyhow::Result<Self> {
        // A cluster's name has characters ('|') that only trouble people in a path.
        let folder: String =
            cluster.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        let dir = dir.join(folder);
        std::fs::create_dir_all(&dir)?;
        Self::open(dir.join("eds.json"), cluster)
    }

    /// A file at a path of its own; its folder has to be there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn open(path: PathBuf, cluster: &str) -> anyhow::Result<Self> {
        let file = Self { path, cluster: cluster.to_owned(), version: AtomicU64::new(0) };
        file.set(&[])?;
        Ok(file)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Gives the cluster these endpoints and no others. Returns the moment (microseconds since 1970) just before
    /// the rename that makes them known to Envoy.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self, endpoints: &[SocketAddr]) -> anyhow::Result<u64> {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|address| json!({"endpoint": {"address": socket_address(*address)}}))
            .collect();
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        let response = json!({
            "version_info": version.to_string(),
            "resources": [{
                "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": self.cluster,
                "endpoints": [{"lb_endpoints": endpoints}],
            }],
        });
        let before = clock::now_us();
        paths::write_atomically(&self.path, &response.to_string())?;
        Ok(before)
    }
}
