//! `docs/migrating.md`, whose commands the test runs and whose manifests it applies, in the page's order.

use anyhow::{Context as _, Result, bail, ensure};
use sluice_envoyfilter::{Manifest, Settings};
use sluice_tests::{cluster::Cluster, paths};
use std::{collections::VecDeque, env, fs, path::PathBuf};

const PAGE: &str = "docs/migrating.md";
/// Pods share one network stack on the bed: each binds its own address.
const BIND: &str = "              value: 0.0.0.0\n";
const OWN_BIND: &str = "              valueFrom: {fieldRef: {fieldPath: status.podIP}}\n";

/// Settings of the add-on's that its user has brought along.
const CARRIED_OVER: &str = "            - {name: KEDA_HTTP_DIRECT_POD_ROUTING, value: cold-start-only}\n            \
     - {name: KEDA_HTTP_RESPONSE_HEADER_TIMEOUT, value: 300s}\n            \
     - {name: KEDA_HTTP_LOG_REQUESTS, value: 'true'}\n";

/// What is left of the page.
pub(crate) struct Page {
    cluster: Cluster,
    folder: PathBuf,
    blocks: VecDeque<(String, String)>,
}

// === impl Page ===

impl Page {
    /// Reads its part under a heading, and puts the files that it names into a folder, as the bed needs them.
    pub(crate) fn read(cluster: &Cluster, heading: &str) -> Result<Self> {
        let folder = cluster.bed().context("needs the bed")?.folder("migrating")?;
        let install = paths::root().join("install");
        for name in ["namespace.yaml", "scaler.yaml", "operator.yaml"] {
            let yaml = fs::read_to_string(install.join(name))?;
            ensure!(name == "namespace.yaml" || yaml.contains(BIND), "install/{name} binds otherwise");
            let own_bind =
                if name == "scaler.yaml" { format!("{OWN_BIND}{CARRIED_OVER}") } else { OWN_BIND.to_owned() };
            fs::write(folder.join(name), yaml.replace(BIND, &own_bind))?;
        }
        let manifest = Manifest::new(&Settings::default(), &fs::read(paths::wasm()?)?)?;
        fs::write(folder.join("sluice.yaml"), manifest.yaml())?;
        let page = fs::read_to_string(paths::root().join(PAGE))?;
        let (_, part) =
            page.split_once(&format!("\n## {heading}\n")).with_context(|| format!("no {heading:?}"))?;
        let part = part.split("\n## ").next().unwrap_or_default();
        let mut blocks = VecDeque::new();
        // They are parts of a list's items.
        for block in part.split("\n   ```").skip(1).step_by(2) {
            let (language, text) = block.split_once('\n').context("a block without a language")?;
            let text = text.lines().map(|line| line.strip_prefix("   ").unwrap_or(line));
            blocks.push_back((language.to_owned(), text.collect::<Vec<_>>().join("\n")));
        }
        Ok(Self { cluster: cluster.clone(), folder, blocks })
    }

    /// Runs the commands of the page's next block; `Err` if that is no block of commands or one fails. What is
    /// printed comes back.
    pub(crate) async fn run(&mut self) -> Result<String> {
        let text = self.next("console")?;
        let mut printed = String::new();
        for line in text.lines() {
            let command = line.strip_prefix("$ ").with_context(|| format!("{line:?} is no command"))?;
            printed += &self.shell(command).await?;
        }
        Ok(printed)
    }

    /// The page's next block, which is to be a manifest; applies it.
    pub(crate) async fn apply(&mut self) -> Result<()> {
        let yaml = self.next("yaml")?;
        self.cluster.apply_plainly(&yaml).await
    }

    /// The page's next block, which is to be the one command of a program that the bed does not have.
    pub(crate) fn only(&mut self, command: &str) -> Result<()> {
        let text = self.next("console")?;
        ensure!(text.trim() == format!("$ {command}"), "the page has {text:?} where {command:?} should be");
        Ok(())
    }

    /// Whether all of it was tried.
    pub(crate) fn ends(&self) -> Result<()> {
        ensure!(self.blocks.is_empty(), "{PAGE} has more than was tried: {:?}", self.blocks);
        Ok(())
    }

    fn next(&mut self, wanted: &str) -> Result<String> {
        match self.blocks.pop_front() {
            Some((language, text)) if language == wanted => Ok(text),
            other => bail!("{PAGE} has {other:?} where a block of {wanted} should be"),
        }
    }

    async fn shell(&self, command: &str) -> Result<String> {
        let bed = self.cluster.bed().context("needs the bed")?;
        let here = |name: &str| self.folder.join(name).display().to_string();
        let mut line = command.replace("target/envoyfilter/sluice.yaml", &here("sluice.yaml"));
        for name in ["namespace.yaml", "scaler.yaml", "operator.yaml"] {
            line = line.replace(&format!("install/{name}"), &here(name));
        }
        let kubectl = bed.program("kubectl")?;
        let kubectl = kubectl.parent().context("kubectl is nowhere")?;
        let path = format!("{}:{}", kubectl.display(), env::var("PATH").unwrap_or_default());
        let mut shell = tokio::process::Command::from(bed.netns().command("bash"));
        shell.arg("-c").arg(format!("cd '{}' && {line}", paths::root().display()));
        shell.env("PATH", path).env("KUBECONFIG", bed.kubeconfig());
        let output = shell.output().await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{command}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(said)
    }
}
