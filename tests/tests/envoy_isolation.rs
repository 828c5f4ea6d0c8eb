//! What enables the filter on a virtual host while it is disabled in the chain is understood by every tested Envoy,
//! and keeps every other host's requests out of the VM.

#[path = "istio_isolation/trap.rs"]
mod trap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluice_envoyfilter::{Manifest, Settings, isolation};
use sluice_tests::{
    envoy::{Config, Envoy, Filter, Route, envoy, tested_versions},
    http, paths,
};
use std::{fs, net::SocketAddr, path::Path};

const MANAGED: &str = "managed.example.com";
const OTHER: &str = "other.example.com";

/// As istiod has a gateway have it: the module comes as a resource of its own.
fn bootstrap(dir: &Path) -> Result<Value> {
    let settings = Settings { isolation: true, ..Settings::default() };
    let filter = Manifest::new(&settings, &fs::read(trap::write()?)?)?.value().clone();
    let mut resource = filter["spec"]["configPatches"][0]["patch"]["value"].clone();
    resource["@type"] = json!("type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig");
    let resources = dir.join("ecds.json");
    fs::write(&resources, json!({"resources": [resource]}).to_string())?;
    let mut chained = filter["spec"]["configPatches"][1]["patch"]["value"].clone();
    let source = chained.pointer_mut("/config_discovery/config_source").context("no source")?;
    source.as_object_mut().context("no source")?.remove("ads");
    source["path_config_source"] = json!({"path": resources});
    let enabled = isolation(&settings, [MANAGED])?["spec"]["configPatches"][0]["patch"]["value"].clone();

    let route = |host: &str| Route { domains: vec![host.to_owned()], cluster: "none".to_owned() };
    let config = Config {
        listener: SocketAddr::from(([127, 0, 0, 1], 0)),
        filter: Some(Filter { wasm: trap::write()?, config: json!({}) }),
        scalers: Vec::new(),
        routes: vec![route(MANAGED), route(OTHER)],
        apps: Vec::new(),
        access_log: dir.join("access.log"),
    };
    let mut bootstrap = config.bootstrap();
    let manager = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
    let manager = bootstrap.pointer_mut(manager).context("no connection manager")?;
    manager["http_filters"][0] = chained;
    let hosts = manager["route_config"]["virtual_hosts"].as_array_mut().context("no virtual hosts")?;
    for host in hosts {
        host["routes"] = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]);
        if host["domains"][0] == MANAGED {
            host["typed_per_filter_config"] = enabled["typed_per_filter_config"].clone();
        }
    }
    Ok(bootstrap)
}

#[tokio::test]
async fn every_tested_envoy_keeps_other_hosts_out_of_the_vm() -> Result<()> {
    for version in tested_versions()? {
        let dir = paths::target().join("envoy-isolation").join(version);
        fs::create_dir_all(&dir)?;
        let file = dir.join("bootstrap.json");
        fs::write(&file, bootstrap(&dir)?.to_string())?;
        let envoy = Envoy::run(&envoy(Some(version))?, 1, &file, &dir.join("access.log"), &dir).await?;
        for _ in 0..20 {
            for (host, wanted) in [(MANAGED, 503), (OTHER, 200)] {
                let answer = http::request(envoy.address(), http::get_request(host, "/")?).await?;
                ensure!(answer.status == wanted, "Envoy {version}, {host}: {answer:?}");
            }
        }
    }
    Ok(())
}
