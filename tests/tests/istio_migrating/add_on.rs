//! KEDA's http-add-on, the real one: interceptor, operator and scaler, deployed by its own kustomization.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use sluice_tests::cluster::{Cluster, keda::NAMESPACE, programs::Programs};
use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

/// What the bed changes of it.
const OVERLAY: &str = include_str!("overlay.yaml");
/// Its programs, by the last part of their images' names.
const PROGRAMS: [&str; 3] = ["interceptor", "operator", "scaler"];
/// Longest wait for its Pods.
const LIMIT: Duration = Duration::from_secs(120);

/// The add-on, installed.
pub(crate) struct AddOn {
    cluster: Cluster,
    /// Everything that it consists of, as one applies it.
    objects: String,
}

// === impl AddOn ===

impl AddOn {
    /// Installs it, and waits until its Pods are ready.
    pub(crate) async fn install(cluster: &Cluster) -> Result<Self> {
        let bed = cluster.bed().context("needs the bed")?;
        let programs = tokio::task::spawn_blocking(|| Programs::build_parts(&["http-add-on"])).await??;
        for name in PROGRAMS {
            bed.add_program(name, programs.get(&format!("add-on-{name}"))?);
        }
        let folder = bed.folder("add-on")?;
        fs::write(folder.join("kustomization.yaml"), OVERLAY)?;
        symlink(programs.get("add-on-manifests")?, folder.join("add-on"))?;
        let objects = cluster.kubectl(&["kustomize", &text(&folder)]).await?;
        let add_on = Self { cluster: cluster.clone(), objects };
        // Objects of a kind are refused until the API server serves it.
        let (definitions, others) = add_on.parts();
        ensure!(definitions.len() == 2, "{} definitions", definitions.len());
        cluster.apply_yaml(&definitions.join("\n---\n")).await?;
        let crds = ["crd/httpscaledobjects.http.keda.sh", "crd/interceptorroutes.http.keda.sh"];
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", crds[0], crds[1]]).await?;
        cluster.apply_yaml(&others.join("\n---\n")).await?;
        let deployments = Api::<Deployment>::namespaced(cluster.client(), NAMESPACE);
        for name in PROGRAMS {
            let ready = |it: Option<&Deployment>| {
                let status = it.and_then(|it| it.status.as_ref());
                status.and_then(|status| status.ready_replicas) == Some(1)
            };
            let name = format!("keda-add-ons-http-{name}");
            cluster.wait_for(&deployments, &name, LIMIT, ready).await.context("the add-on")?;
        }
        Ok(add_on)
    }

    /// What `helm uninstall` does: all goes but what is annotated to be kept.
    pub(crate) async fn uninstall(&self) -> Result<()> {
        let (_, others) = self.parts();
        for name in ["httpscaledobjects.http.keda.sh", "interceptorroutes.http.keda.sh"] {
            let policy = "jsonpath={.metadata.annotations.helm\\.sh/resource-policy}";
            let policy = self.cluster.kubectl(&["get", "crd", name, "--output", policy]).await?;
            ensure!(policy == "keep", "Helm would take {name} with it");
        }
        let file = self.cluster.bed().context("needs the bed")?.folder("add-on")?.join("others.yaml");
        fs::write(&file, others.join("\n---\n"))?;
        self.cluster.kubectl(&["delete", "--wait=false", "--filename", &text(&file)]).await.map(drop)
    }

    /// The definitions, and the rest.
    fn parts(&self) -> (Vec<&str>, Vec<&str>) {
        self.objects.split("\n---\n").partition(|it| it.contains("\nkind: CustomResourceDefinition\n"))
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
