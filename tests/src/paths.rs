//! Where the project's parts lie: the module, the binaries, the folder for logs.

use anyhow::{Context as _, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The folder that cargo builds into.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A binary of the workspace, of the same profile as the running program.
///
/// # Errors
/// If it is not built; says how to build it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let current = std::env::current_exe().context("the running program's own path")?;
    // A test runs from target/PROFILE/deps, a binary from target/PROFILE.
    let dir = current.parent().context("the running program has no folder")?;
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    let path = dir.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let release = if dir.ends_with("release") { " --release" } else { "" };
    bail!(
        "{} is not built; run: cargo build{release} -p sluice-scaler -p sluice-tests --bins",
        path.display()
    )
}

/// The filter's module.
///
/// # Errors
/// If it is not built, or older than its sources: a test of an old module proves nothing.
/// `SLUICE_WASM` names another module, which is taken as it is.
pub fn wasm() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("SLUICE_WASM") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("SLUICE_WASM names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    let path = root().join("target/filter/sluice_filter.wasm");
    let built =
        modified(&path).with_context(|| format!("{} is not built; run ./wasm-build.sh", path.display()))?;
    for source in ["core/src", "filter/src", "proto/src", "proto/proto/sluice"] {
        if let Some(newer) = newer_than(&root().join(source), built)? {
            bail!("{} is older than {}; run ./wasm-build.sh", path.display(), newer.display());
        }
    }
    Ok(path)
}

fn modified(path: &Path) -> std::io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

fn newer_than(dir: &Path, moment: SystemTime) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(newer) = newer_than(&path, moment)? {
                return Ok(Some(newer));
            }
        } else if modified(&path)? > moment {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Writes a file in one step: whoever reads it sees the old or the new one, never half of one.
///
/// # Errors
/// If it cannot be written; names the file.
pub fn write_atomically(path: &Path, content: &str) -> anyhow::Result<()> {
    let dir = path.parent().with_context(|| format!("{} has no folder", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A leading dot and another ending: the scaler's watch of *.yaml does not take it for an object.
    let draft = dir.join(format!(".{name}.draft"));
    fs::write(&draft, content).with_context(|| format!("cannot write {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("cannot rename to {}", path.display()))
}
