//! What crates may depend on, read from `cargo metadata`.

use serde_json::Value;
use sluice_tests::paths;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

/// The arrows of the design: a crate, and which crates of the project it may depend on (tests aside).
const ARROWS: [(&str, &[&str]); 8] = [
    ("sluice-core", &[]),
    ("sluice-proto", &[]),
    ("sluice-api", &["sluice-core"]),
    ("sluice-filter", &["sluice-core", "sluice-proto"]),
    ("sluice-process", &["sluice-core"]),
    ("sluice-scaler", &["sluice-core", "sluice-proto", "sluice-api", "sluice-process"]),
    ("sluice-operator", &["sluice-core", "sluice-api", "sluice-envoyfilter", "sluice-process"]),
    ("sluice-envoyfilter", &["sluice-core"]),
];

/// All that the domain may stand on, directly or not: nothing here opens, waits or asks for the time.
const CORE_MAY_USE: [&str; 8] = [
    // Error types, and what its derive macro is made of (only the compiler runs that).
    "thiserror",
    "thiserror-impl",
    "proc-macro2",
    "quote",
    "syn",
    "unicode-ident",
    // Maps and slabs.
    "hashbrown",
    "slab",
];

/// What must not be in the module that runs in the gateway.
const FILTER_MUST_NOT_USE: [&str; 7] = ["tonic", "tokio", "hyper", "h2", "mio", "socket2", "proxy-wasm"];

struct Graph {
    /// Package id to name.
    names: BTreeMap<String, String>,
    /// Package id to the ids of its dependencies, without those that only its tests or build script have.
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--locked", "--format-version", "1"])
            .current_dir(paths::root())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let packages = metadata["packages"].as_array().unwrap();
        let names = packages.iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
        let edges = metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| {
            let normal = node["deps"].as_array().unwrap().iter().filter(|dependency| {
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null())
            });
            (text(&node["id"]), normal.map(|dependency| text(&dependency["pkg"])).collect())
        });
        Self { names, edges: edges.collect() }
    }

    fn id(&self, name: &str) -> &str {
        let mut ids = self.names.iter().filter(|(_, other)| *other == name).map(|(id, _)| id);
        ids.next().unwrap_or_else(|| panic!("there is no crate {name}"))
    }

    fn direct(&self, name: &str) -> BTreeSet<&str> {
        self.edges[self.id(name)].iter().map(|id| self.names[id].as_str()).collect()
    }

    fn all(&self, name: &str) -> BTreeSet<&str> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![self.id(name)]);
        while let Some(id) = next.pop() {
            if seen.insert(id) {
                next.extend(self.edges[id].iter().map(String::as_str));
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).filter(|other| *other != name).collect()
    }
}

#[test]
fn core_stands_on_nothing_that_does_io() {
    let graph = Graph::read();
    let allowed = BTreeSet::from(CORE_MAY_USE);
    let others: Vec<&str> = graph.all("sluice-core").difference(&allowed).copied().collect();
    assert!(
        others.is_empty(),
        "sluice-core depends on {others:?}; if they do no I/O, name them in CORE_MAY_USE"
    );
}

/// By `cargo tree`, because the metadata has every feature that anybody in the workspace asks for.
#[test]
fn the_filter_carries_no_network_stack() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "sluice-filter", "--edges", "normal", "--prefix", "none"])
        .args(["--target", "wasm32-unknown-unknown"])
        .current_dir(paths::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let all: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(all.contains("sluice-core"), "this is not the filter's tree: {text}");
    let found: Vec<&str> = FILTER_MUST_NOT_USE.into_iter().filter(|name| all.contains(name)).collect();
    assert!(found.is_empty(), "sluice-filter depends on {found:?}");
}

#[test]
fn the_arrows_between_the_crates_are_the_designs() {
    let graph = Graph::read();
    for (name, allowed) in ARROWS {
        let allowed = BTreeSet::from_iter(allowed.iter().copied());
        let direct = graph.direct(name);
        let own = direct.into_iter().filter(|other| other.starts_with("sluice-"));
        let others: Vec<&str> = own.filter(|other| !allowed.contains(other)).collect();
        assert!(others.is_empty(), "{name} depends on {others:?}");
    }
}
