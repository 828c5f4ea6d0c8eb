//! The code under `src/generated` is what `proto/` says, and this is what makes it.
//!
//! Envoy's protos here are what endpoints need of them, written by hand.
//!
//! Committed, so that nobody needs a protobuf compiler to build; compared, so that it cannot fall behind.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const PROTOS: [&str; 5] = [
    "sluice/link/v1/link.proto",
    "externalscaler.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/service/endpoint/v3/eds.proto",
    "envoy/service/discovery/v3/ads.proto",
];
const MEND: &str = "SLUICE_GENERATE=1 cargo test -p sluice-proto --test generated";

#[test]
fn generated_code_is_what_the_protos_say() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    let fresh = generate();
    if std::env::var_os("SLUICE_GENERATE").is_some() {
        for (name, content) in &fresh {
            fs::write(committed.join(name), content).expect("src/generated can be written");
        }
    }
    let committed = files(&committed);
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&fresh), "other files than the protos give; mend it with: {MEND}");
    for (name, content) in &fresh {
        assert!(committed[name] == *content, "{} is out of date; mend it with: {MEND}", name.display());
    }
}

fn generate() -> BTreeMap<PathBuf, Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let descriptors = protox::compile(PROTOS, [&root]).expect("the protos compile");
    let out = tempfile::tempdir().expect("a folder to generate into");
    // Comments are the protos' own; the descriptors that are served carry none, only the shapes.
    let mut served = descriptors.clone();
    for file in &mut served.file {
        file.source_code_info = None;
    }
    fs::write(out.path().join("descriptors.bin"), prost::Message::encode_to_vec(&served))
        .expect("descriptors can be written");
    tonic_prost_build::configure()
        // Ordered maps: prost's hashed ones need std, and the same message gives the same bytes.
        .btree_map(".")
        // A resource is encoded once, and shared by all streams that it goes to.
        .compile_well_known_types(true)
        .bytes(".google.protobuf.Any")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        // Clients are generic over the transport: who connects brings it.
        .build_transport(false)
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("code can be generated");
    files(out.path())
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder can be listed");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let name = PathBuf::from(path.file_name().expect("a file has a name"));
            (name, fs::read(&path).expect("a file can be read"))
        })
        .collect()
}
