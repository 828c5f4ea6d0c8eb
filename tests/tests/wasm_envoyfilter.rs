//! The manifest for gateways with the real module in it.

use sluice_envoyfilter::{ANNOTATION_LIMIT, Binding, Manifest, Settings};
use sluice_tests::paths;
use std::fs;

/// Plain `kubectl apply` keeps the object in an annotation, and the API server takes 256 KiB of those.
#[test]
fn the_manifest_fits_plain_kubectl_apply() {
    let module = fs::read(paths::wasm().unwrap()).unwrap();
    for binding in [Settings::default().binding, Binding::Gateways(vec!["edge".to_owned()])] {
        let manifest = Manifest::new(&Settings { binding, ..Settings::default() }, &module).unwrap();
        let size = manifest.annotations();
        assert!(size > module.len() * 4 / 3, "{size} is less than the module");
        assert!(size <= ANNOTATION_LIMIT, "{size} of {ANNOTATION_LIMIT} bytes");
    }
}
