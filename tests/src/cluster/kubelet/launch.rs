//! From a container's spec to what is run: command, arguments, environment, volumes, token.
//!
//! Volumes cannot be mounted where all Pods see one file system, so `secret`, `configMap` and `emptyDir` volumes
//! become folders of the Pod's own, and wherever an argument, a variable or `workingDir` starts with a `mountPath`, the
//! folder's path takes its place (also after a `=`). The service account's token comes as a kubeconfig named by `KUBECONFIG`
//! instead of files in `/var/run/secrets`, with exactly the account's rights.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, ServiceAccount, Volume},
};
use kube::{Api, ResourceExt, api::PostParams};
use serde_json::json;

use super::{
    Kubelet, NODE,
    container::{Launch, Restart},
    probe::Readiness,
};
use crate::cluster::{control_plane, netns};

/// What the containers of one Pod share.
pub(super) struct Launcher<'a> {
    kubelet: &'a Kubelet,
    pod: &'a Pod,
    namespace: String,
    ip: Ipv4Addr,
    dir: PathBuf,
    /// Volume name → folder.
    volumes: BTreeMap<String, PathBuf>,
    kubeconfig: PathBuf,
}

// === impl Launcher ===

impl<'a> Launcher<'a> {
    /// Writes the Pod's volumes and its kubeconfig.
    ///
    /// # Errors
    /// Names the volume, object or key that is missing, and what this stand-in cannot do.
    pub(super) async fn prepare(kubelet: &'a Kubelet, pod: &'a Pod, ip: Ipv4Addr) -> Result<Self> {
        let namespace = pod.namespace().unwrap_or_default();
        let dir = kubelet.dir.join(format!("{namespace}_{}", pod.name_any()));
        fs::create_dir_all(&dir)?;
        let kubeconfig = dir.join("kubeconfig");
        let mut launcher = Self { kubelet, pod, namespace, ip, dir, volumes: BTreeMap::new(), kubeconfig };
        launcher.write_kubeconfig().await?;
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let folder =
                launcher.write_volume(volume).await.with_context(|| format!("volume {:?}", volume.name))?;
            launcher.volumes.insert(volume.name.clone(), folder);
        }
        Ok(launcher)
    }

    /// What to run for one of the Pod's containers.
    ///
    /// # Errors
    /// As [`Launcher::prepare`].
    pub(super) async fn launch(&self, container: &Container) -> Result<Launch> {
        let env = self.environment(container).await?;
        let text = |text: &str| self.relocate(&expand(text, &env), container);
        let mut words = container.command.iter().flatten().chain(container.args.iter().flatten());
        let program = if container.command.as_ref().is_some_and(|command| !command.is_empty()) {
            text(words.next().map_or("", String::as_str))
        } else {
            program_of_image(container.image.as_deref().unwrap_or_default()).to_owned()
        };
        let programs = self.kubelet.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let known = Path::new(&program).file_name().and_then(|name| programs.find(name.to_str()?));
        Ok(Launch {
            program: known.map_or_else(|| PathBuf::from(&program), Path::to_path_buf),
            folder: container.working_dir.as_deref().map(&text),
            args: words.map(|word| text(word)).collect(),
            env: env.iter().map(|(name, value)| (name.clone(), self.relocate(value, container))).collect(),
            readiness: Readiness::of(container, self.ip).map_err(|error| anyhow!(error))?,
            restart: match self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
                Some("Never") => Restart::Never,
                Some("OnFailure") => Restart::OnFailure,
                _ => Restart::Always,
            },
            log: self.dir.join(&container.name).with_extension("log"),
        })
    }

    /// The container's variables in order, with what every process here gets before them.
    async fn environment(&self, container: &Container) -> Result<Vec<(String, String)>> {
        if container.env_from.as_ref().is_some_and(|from| !from.is_empty()) {
            bail!("container {}: the test bed does not know envFrom", container.name);
        }
        let mut env = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
            ("HOSTNAME".to_owned(), self.pod.name_any()),
            ("KUBECONFIG".to_owned(), self.kubeconfig.display().to_string()),
        ];
        for var in container.env.iter().flatten() {
            let value = self.value(var, &env).await.with_context(|| format!("env {}", var.name))?;
            env.extend(value.map(|value| (var.name.clone(), value)));
        }
        Ok(env)
    }

    async fn value(&self, var: &EnvVar, before: &[(String, String)]) -> Result<Option<String>> {
        let Some(from) = &var.value_from else {
            return Ok(Some(expand(var.value.as_deref().unwrap_or_default(), before)));
        };
        let client = self.kubelet.client.clone();
        if let Some(field) = &from.field_ref {
            return self.field(&field.field_path).map(Some);
        }
        if let Some(key) = &from.config_map_key_ref {
            let map = Api::<ConfigMap>::namespaced(client, &self.namespace).get_opt(&key.name).await?;
            let value = map.and_then(|map| map.data?.get(&key.key).cloned());
            return required(value, key.optional, &key.name, &key.key);
        }
        if let Some(key) = &from.secret_key_ref {
            let secret = Api::<Secret>::namespaced(client, &self.namespace).get_opt(&key.name).await?;
            let value =
                secret.and_then(|secret| String::from_utf8(secret.data?.get(&key.key)?.0.clone()).ok());
            return required(value, key.optional, &key.name, &key.key);
        }
        bail!("the test bed knows fieldRef, configMapKeyRef and secretKeyRef")
    }

    fn field(&self, path: &str) -> Result<String> {
        let metadata = &self.pod.metadata;
        let subscript = |name: &str| path.strip_prefix(name)?.strip_prefix("['")?.strip_suffix("']");
        if let Some(key) = subscript("metadata.labels") {
            return Ok(self.pod.labels().get(key).cloned().unwrap_or_default());
        }
        if let Some(key) = subscript("metadata.annotations") {
            return Ok(self.pod.annotations().get(key).cloned().unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => self.pod.name_any(),
            "metadata.namespace" => self.namespace.clone(),
            "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
            "spec.nodeName" => NODE.to_owned(),
            "spec.serviceAccountName" => self.account().to_owned(),
            "status.podIP" | "status.podIPs" => self.ip.to_string(),
            "status.hostIP" => netns::NODE_ADDRESS.to_owned(),
            _ => bail!("the test bed does not know the fieldPath {path:?}"),
        })
    }

    fn account(&self) -> &str {
        let account = self.pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        account.filter(|name| !name.is_empty()).unwrap_or("default")
    }

    async fn write_kubeconfig(&self) -> Result<()> {
        let accounts = Api::<ServiceAccount>::namespaced(self.kubelet.client.clone(), &self.namespace);
        // A day is longer than any bed lives, so that no token has to be renewed.
        let request = json!({"spec": {"expirationSeconds": 86_400, "audiences": []}});
        let request = serde_json::from_value::<TokenRequest>(request)?;
        let token = accounts
            .create_token_request(self.account(), &PostParams::default(), &request)
            .await
            .with_context(|| format!("token of service account {}", self.account()))?;
        let token = token.status.map(|status| status.token).unwrap_or_default();
        control_plane::write_kubeconfig(&self.kubeconfig, &self.kubelet.server, &self.kubelet.ca, &token)
    }

    async fn write_volume(&self, volume: &Volume) -> Result<PathBuf> {
        let folder = self.dir.join("volumes").join(&volume.name);
        fs::create_dir_all(&folder)?;
        let client = self.kubelet.client.clone();
        let mut files = BTreeMap::new();
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let secret = Api::<Secret>::namespaced(client, &self.namespace).get_opt(name).await?;
            match secret {
                Some(secret) => {
                    files.extend(secret.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)));
                }
                None if source.optional == Some(true) => {}
                None => bail!("no Secret {name}"),
            }
        } else if let Some(source) = &volume.config_map {
            let map = Api::<ConfigMap>::namespaced(client, &self.namespace).get_opt(&source.name).await?;
            match map {
                Some(map) => {
                    files.extend(map.data.into_iter().flatten().map(|(key, text)| (key, text.into_bytes())));
                }
                None if source.optional == Some(true) => {}
                None => bail!("no ConfigMap {}", source.name),
            }
        } else if volume.empty_dir.is_none() && volume.projected.is_none() {
            bail!("the test bed knows secret, configMap and emptyDir volumes");
        }
        for (name, content) in files {
            fs::write(folder.join(name), content)?;
        }
        Ok(folder)
    }

    /// Puts a volume's folder in the place of its `mountPath`.
    fn relocate(&self, text: &str, container: &Container) -> String {
        let (option, path) = match text.split_once('=') {
            Some((option, path)) => (format!("{option}="), path),
            None => (String::new(), text),
        };
        for mount in container.volume_mounts.iter().flatten() {
            let inside = path.strip_prefix(&mount.mount_path);
            let inside = inside.filter(|rest| rest.is_empty() || rest.starts_with('/'));
            if let (Some(rest), Some(folder)) = (inside, self.volumes.get(&mount.name)) {
                return format!("{option}{}{rest}", folder.display());
            }
        }
        text.to_owned()
    }
}

fn required(value: Option<String>, optional: Option<bool>, name: &str, key: &str) -> Result<Option<String>> {
    match value {
        None if optional != Some(true) => bail!("no key {key:?} in {name:?}, or no such object"),
        value => Ok(value),
    }
}

/// `$(NAME)` becomes the variable's value; an unknown one stays as it is, and `$$` is a dollar sign.
fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let reference = after.strip_prefix('(').and_then(|name| name.split_once(')'));
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = reference {
            // The last one wins, as it does in a process's environment.
            match env.iter().rfind(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

/// `registry:5000/team/app:1@sha256:…` → `app`.
fn program_of_image(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split(['@', ':']).next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let env =
            [("IP", "old"), ("IP", "10.99.1.1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        for (text, expanded) in [
            ("--bind=$(IP):80", "--bind=10.99.1.1:80"),
            ("$$(IP)", "$(IP)"),
            ("$(NONE)$(IP)", "$(NONE)10.99.1.1"),
            ("5$ $(IP", "5$ $(IP"),
        ] {
            assert_eq!(expand(text, &env), expanded, "{text}");
        }
    }

    #[test]
    fn an_image_names_a_program() {
        for image in ["app", "app:1", "registry:5000/team/app", "a/app:1@sha256:00"] {
            assert_eq!(program_of_image(image), "app", "{image}");
        }
    }
}
