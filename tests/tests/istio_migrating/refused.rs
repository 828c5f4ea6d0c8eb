//! The page's table of what is refused, against both definitions: it names each field of which ours refuse what the
//! add-on's take, and no other.

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_api::{HttpScaledObject, InterceptorRoute};
use sluice_tests::{
    cluster::{Cluster, programs::Programs},
    objects::changed,
    wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// What ours refuse; that they do, a test of the layer `cluster` shows.
const MISTAKES: &str = include_str!("../../../api/tests/mistakes.yaml");
const PAGE: &str = include_str!("../../../docs/migrating.md");

#[derive(Deserialize)]
struct Mistake {
    change: Value,
    field: String,
}

pub(crate) async fn the_table_is_right(cluster: &Cluster) -> Result<()> {
    let programs = tokio::task::spawn_blocking(|| Programs::build_parts(&["http-add-on"])).await??;
    let folder = programs.get("add-on-manifests")?.join("crd/bases");
    for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        cluster.apply_yaml(&fs::read_to_string(file?.path())?).await?;
    }
    // What ours would refuse.
    let zero = changed(base("HTTPScaledObject"), &json!({"replicas": {"max": 0}}));
    let short = json!({"scalingMetric": {"requestRate": {"targetValue": 1, "granularity": "1ms"}}});
    let short = changed(base("InterceptorRoute"), &short);
    wait::until("the add-on's definitions to be in force", async || {
        takes(cluster, "HTTPScaledObject", &zero).await?;
        takes(cluster, "InterceptorRoute", &short).await
    })
    .await?;
    let mut stricter = BTreeSet::new();
    let mistakes: BTreeMap<String, Vec<Mistake>> = serde_saphyr::from_str(MISTAKES)?;
    for (kind, mistakes) in &mistakes {
        for Mistake { change, field } in mistakes {
            if takes(cluster, kind, &changed(base(kind), change)).await.is_ok() {
                stricter.insert(plain(field));
            }
        }
    }
    let table = table();
    let unsaid: Vec<_> = stricter.difference(&table).collect();
    let untrue: Vec<_> = table.difference(&stricter).collect();
    ensure!(
        unsaid.is_empty() && untrue.is_empty(),
        "not in the table: {unsaid:?}; nothing of it: {untrue:?}"
    );
    Ok(())
}

/// An object without a mistake.
fn base(kind: &str) -> Value {
    match kind {
        "HTTPScaledObject" => json!({"scaleTargetRef": {"name": "a", "service": "a", "port": 80}}),
        _ => {
            json!({"target": {"service": "a", "port": 80}, "scalingMetric": {"concurrency": {"targetValue": 10}}})
        }
    }
}

/// Whether the API server takes an object, without storing it. Fields that the add-on's do not have, it does not.
async fn takes(cluster: &Cluster, kind: &str, spec: &Value) -> Result<(), String> {
    let resource = match kind {
        "HTTPScaledObject" => ApiResource::erase::<HttpScaledObject>(&()),
        _ => ApiResource::erase::<InterceptorRoute>(&()),
    };
    let object = DynamicObject::new("a", &resource).data(json!({"spec": spec}));
    let objects: Api<DynamicObject> = Api::namespaced_with(cluster.client(), "default", &resource);
    let dry = PatchParams { dry_run: true, ..PatchParams::apply("test").validation_strict() };
    objects.patch("a", &dry, &Patch::Apply(&object)).await.map(drop).map_err(|error| error.to_string())
}

/// `spec.headers[0].name` as the table has it.
fn plain(field: &str) -> String {
    let pieces = field.trim_start_matches("spec.").split('[');
    pieces.map(|piece| piece.split_once(']').map_or(piece, |(_, rest)| rest)).collect()
}

/// The fields in the table's first column.
fn table() -> BTreeSet<String> {
    let (_, part) = PAGE.split_once("\n## What is refused\n").unwrap_or_default();
    let rows = part.split("\n## ").next().unwrap_or_default().lines().filter(|line| line.starts_with("| "));
    let first = rows.skip(1).filter_map(|row| row.split('|').nth(1));
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}
