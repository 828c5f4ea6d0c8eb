//! Where the programs of the bed are: `tests/cluster/build.sh` builds what is missing and prints the paths.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Programs (and folders of manifests) by name, as `build.sh` prints them, and whatever a test adds.
#[derive(Clone, Debug, Default)]
pub struct Programs(BTreeMap<String, PathBuf>);

impl Programs {
    /// Builds what is not built yet, which takes a quarter of an hour the first time; progress goes to stderr.
    ///
    /// # Errors
    /// When the script fails; its own words are on stderr then.
    pub fn build() -> Result<Self> {
        Self::build_parts(&[])
    }

    /// As [`Self::build`], parts that the bed itself does not need: `istio`.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn build_parts(parts: &[&str]) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/build.sh");
        let output = Command::new(&script)
            .args(parts)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        if !output.status.success() {
            bail!("{} ended with {}: see its messages above", script.display(), output.status);
        }
        Self::parse(&String::from_utf8(output.stdout)?)
    }

    /// Reads lines of the form `NAME=PATH`.
    fn parse(lines: &str) -> Result<Self> {
        lines
            .lines()
            .map(|line| match line.split_once('=') {
                Some((name, path)) => Ok((name.to_owned(), PathBuf::from(path))),
                None => bail!("build.sh printed {line:?}, which is not NAME=PATH"),
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Adds a program under the name by which a container's `command` calls it.
    pub fn add(&mut self, name: &str, path: impl Into<PathBuf>) {
        self.0.insert(name.to_owned(), path.into());
    }

    /// The path behind a name.
    ///
    /// # Errors
    /// When neither `build.sh` nor a test has named it.
    pub fn get(&self, name: &str) -> Result<&Path> {
        self.find(name).with_context(|| format!("no program {name:?} in the test bed"))
    }

    /// The path behind a name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_paths() {
        let mut programs = Programs::parse("etcd=/a/etcd\nkeda-crds=/b=c/crds\n").unwrap();
        assert_eq!(programs.get("etcd").unwrap(), Path::new("/a/etcd"));
        assert_eq!(programs.find("keda-crds"), Some(Path::new("/b=c/crds")));
        programs.add("app", "/x");
        assert_eq!(programs.find("app"), Some(Path::new("/x")));
        assert!(programs.get("kubelet").unwrap_err().to_string().contains("kubelet"));
    }

    #[test]
    fn another_line_is_an_error() {
        assert!(Programs::parse("done").unwrap_err().to_string().contains("done"));
    }
}
