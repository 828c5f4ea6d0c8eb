//! Which Envoys there are, and where.

use crate::paths;
use anyhow::{Context as _, bail};
use std::{path::PathBuf, process::Command};

const VERSIONS: &str = include_str!("../../versions.env");

/// The version that runs where nothing else is said.
///
/// # Errors
/// If `tests/versions.env` does not say.
pub fn pinned_version() -> anyhow::Result<&'static str> {
    variable("ENVOY_VERSION")
}

/// One version of each Envoy line that is tested.
///
/// # Errors
/// If `tests/versions.env` does not say.
pub fn tested_versions() -> anyhow::Result<Vec<&'static str>> {
    Ok(variable("ENVOY_LINES")?.split_whitespace().collect())
}

/// The binary of a version, or (`None`) the pinned one or the one that `SLUICE_ENVOY` names. Fetches it if it is
/// not there.
///
/// # Errors
/// If it can be neither found nor fetched; with the installer's own words.
pub fn envoy(version: Option<&str>) -> anyhow::Result<PathBuf> {
    let script = paths::root().join("tests/envoy-install.sh");
    let output = Command::new("bash")
        .arg(&script)
        .args(version)
        .output()
        .with_context(|| format!("cannot run bash {}", script.display()))?;
    if !output.status.success() {
        bail!("no Envoy: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn variable(name: &str) -> anyhow::Result<&'static str> {
    VERSIONS
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"'))
        .with_context(|| format!("tests/versions.env: {name} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_is_one_of_the_tested_lines() {
        let pinned = pinned_version().unwrap();
        assert!(tested_versions().unwrap().contains(&pinned), "{pinned}");
    }

    #[test]
    fn a_line_is_tested_once() {
        let mut lines: Vec<_> =
            tested_versions().unwrap().iter().map(|version| version.rsplit_once('.').unwrap().0).collect();
        lines.dedup();
        assert_eq!(lines, ["1.36", "1.37", "1.38", "1.39", "1.40"]);
    }
}
