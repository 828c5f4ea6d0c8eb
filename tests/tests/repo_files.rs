//! The repository itself: nothing that is never compiled, nothing that is named and not there.

use sluice_tests::paths;
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

/// A file longer than this is two files.
const MAX_LINES: usize = 600;

/// Files that git has or would take, relative to the root.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(paths::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let files = text.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from);
    files.filter(|path| paths::root().join(path).is_file()).collect()
}

fn with_ending(ending: &str) -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|other| other == ending)).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(paths::root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `a/./b/../c` is `a/c`.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, component| {
        match component {
            Component::ParentDir => _ = normal.pop(),
            Component::CurDir => {}
            other => normal.push(other),
        }
        normal
    })
}

/// The files that a source file pulls in: `mod name;`, `#[path = "…"] mod name;` and `include!("…")`.
fn linked_by(file: &Path) -> Vec<PathBuf> {
    let text = read(file);
    let dir = file.parent().unwrap();
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let is_root = matches!(stem, "lib" | "main" | "mod") || !dir.ends_with("src") && is_target(file);
    let children = if is_root { dir.to_owned() } else { dir.join(stem) };
    let mut linked = Vec::new();
    let mut explicit = None;
    for line in text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.split('"').next()) {
            explicit = Some(dir.join(path));
        } else if let Some(path) = line.split("include!(\"").nth(1).and_then(|rest| rest.split('"').next()) {
            linked.push(dir.join(path));
        } else if let Some(name) = line.strip_suffix(';').and_then(module_name) {
            linked.extend(explicit.take());
            linked.push(children.join(format!("{name}.rs")));
            linked.push(children.join(name).join("mod.rs"));
        }
    }
    linked.iter().map(|path| normal(path)).collect()
}

fn module_name(line: &str) -> Option<&str> {
    let (before, name) = line.rsplit_once("mod ")?;
    let before = before.trim();
    let is_declaration = before.is_empty() || before == "pub" || before.starts_with("pub(");
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_declaration && is_name).then_some(name)
}

/// Whether cargo compiles the file as a target of its own.
fn is_target(file: &Path) -> bool {
    let dirs: Vec<&str> = file.parent().unwrap().iter().filter_map(|part| part.to_str()).collect();
    let name = file.file_name().unwrap().to_str().unwrap();
    match dirs.as_slice() {
        [.., "src"] => matches!(name, "lib.rs" | "main.rs"),
        [.., "src", "bin"] => true,
        [.., "src", "bin", _] => name == "main.rs",
        [.., "tests" | "benches" | "examples"] => true,
        [.., "tests" | "benches" | "examples", _] => name == "main.rs",
        _ => name == "build.rs",
    }
}

#[test]
fn every_source_file_is_compiled() {
    let all: BTreeSet<PathBuf> = with_ending("rs").into_iter().collect();
    let mut seen = BTreeSet::new();
    let mut next: Vec<PathBuf> = all.iter().filter(|file| is_target(file)).cloned().collect();
    assert!(next.len() > 5, "no targets found: {next:?}");
    while let Some(file) = next.pop() {
        if all.contains(&file) && seen.insert(file.clone()) {
            next.extend(linked_by(&file));
        }
    }
    let unlinked: Vec<&PathBuf> = all.difference(&seen).collect();
    assert!(unlinked.is_empty(), "no target leads to these files, so nothing compiles them: {unlinked:#?}");
}

#[test]
fn no_file_is_longer_than_one_can_read() {
    let sources = ["rs", "sh", "md"].into_iter().flat_map(with_ending);
    let long: Vec<String> = sources
        .filter(|file| !file.iter().any(|part| part == "generated"))
        .map(|file| (read(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, file)| format!("{}: {lines} lines", file.display()))
        .collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:#?}");
}

/// What a document names as a path of the project: link targets, and code in backquotes that begins with one of
/// the project's own folders or ends like a file.
fn named_paths(text: &str) -> Vec<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let links = links.filter(|link| !link.is_empty() && !link.contains(':'));
    // Every second piece is between backquotes, once the blocks are taken out.
    let prose: String = text.split("```").step_by(2).collect();
    let code: Vec<String> = prose.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let code = code.into_iter().filter(|code| looks_like_a_path(code));
    links.map(str::to_owned).chain(code).collect()
}

fn looks_like_a_path(code: &str) -> bool {
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let first = code.trim_start_matches("./").split('/').next().unwrap_or_default();
    let is_ours = code.contains('/') && !first.is_empty() && paths::root().join(first).exists();
    let has_ending =
        [".rs", ".sh", ".md", ".toml", ".proto", ".env"].iter().any(|ending| code.ends_with(ending));
    // "/metrics" is no file; what is built is not there before it is built.
    let may_be_one = plain && !code.starts_with('/') && !code.starts_with("..") && first != "target";
    may_be_one && (is_ours || has_ending)
}

#[test]
fn documents_name_files_that_exist() {
    let mut missing = Vec::new();
    for document in with_ending("md") {
        let dir = document.parent().unwrap();
        for path in named_paths(&read(&document)) {
            let from_root = paths::root().join(&path);
            let from_document = paths::root().join(dir).join(&path);
            if !from_root.exists() && !from_document.exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "these are named and not there: {missing:#?}");
}

#[test]
fn paths_in_documents_are_recognized() {
    let named =
        named_paths("See [it](docs/a.md#b), `core/src/x.rs`, `a b`, `/metrics`, `x.md` and `target/a.rs`.");
    assert_eq!(named, ["docs/a.md", "core/src/x.rs", "x.md"]);
    assert_eq!(named_paths("```\n`core/none.rs`\n```\n`./test.sh`"), ["./test.sh"]);
}
