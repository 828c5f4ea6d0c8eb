//! The filter's module as a file.

use sha2::{Digest as _, Sha256};
use sluice_tests::paths;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// base64 of this, inline in an EnvoyFilter, still fits the 256 KiB annotation of plain `kubectl apply`.
const MAX_BYTES: u64 = 180_000;

fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_module_is_small_enough_to_be_inline_in_an_envoyfilter() {
    let bytes = fs::metadata(paths::wasm().unwrap()).unwrap().len();
    assert!(bytes < MAX_BYTES, "{bytes} bytes, {MAX_BYTES} are allowed");
}

/// Removes what an earlier run of this test copied and is no longer there.
fn remove_others(root: &Path, dir: &Path, files: &BTreeSet<&Path>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap();
        if path.is_dir() && name != Path::new("target") {
            remove_others(root, &path, files);
        } else if path.is_file() && !files.contains(name) {
            fs::remove_file(&path).unwrap();
        }
    }
}

/// A copy of the sources in another folder, with a path of another length, builds to the same bytes.
#[test]
fn two_folders_give_the_same_module() {
    let copy = paths::target().join("wasm-reproducible/in/another/folder");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(paths::root())
        .output()
        .unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: BTreeSet<&Path> = listed.split('\0').filter(|file| !file.is_empty()).map(Path::new).collect();
    remove_others(&copy, &copy, &files);
    for file in files {
        let (from, to) = (paths::root().join(file), copy.join(file));
        let Ok(content) = fs::read(&from) else { continue };
        // What is unchanged keeps its time, so that a second run of this test builds little.
        if fs::read(&to).is_ok_and(|before| before == content) {
            continue;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(&to, content).unwrap();
        fs::set_permissions(&to, fs::metadata(&from).unwrap().permissions()).unwrap();
    }
    let built = Command::new("bash")
        .arg("wasm-build.sh")
        .current_dir(&copy)
        .env_remove("SLUICE_WASM_OUT")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let there = copy.join("target/filter/sluice_filter.wasm");
    assert_eq!(sha256(&paths::wasm().unwrap()), sha256(&there), "compare with {}", there.display());
}
