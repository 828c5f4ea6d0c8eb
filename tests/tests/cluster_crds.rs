//! A real API server takes our definitions, and objects under them as it should: what was written for the add-on
//! unchanged, defaults filled in, mistakes refused with a word on how to mend them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Resource,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DeserializeGuard},
};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_api::{
    HttpScaledObject, InterceptorRoute, ScaledObject, ScaledObjectSpec,
    scaled_object::{Advanced, AuthenticationRef, EXTERNAL_PUSH, ScaleTarget, Trigger},
    spec::Check,
};
use sluice_tests::{
    cluster::{self, Cluster},
    objects::changed,
};
use std::{collections::BTreeMap, fs, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

/// As the add-on's pages have them, each kind in the shapes that they show.
const SAMPLES: &str = include_str!("cluster_crds/samples.yaml");

/// What can be wrong, for schema and code alike.
const MISTAKES: &str = include_str!("../../api/tests/mistakes.yaml");

/// A definition that checks nothing.
const LAX: &str = include_str!("cluster_crds/lax.yaml");

fn installed() -> Vec<String> {
    let folder = sluice_tests::paths::root().join("install/crds");
    let files = fs::read_dir(folder).expect("the folder is there");
    files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

/// Applies the definitions as they are installed, and waits until the API server goes by them.
async fn install(cluster: &Cluster) -> Result<()> {
    for definition in installed() {
        cluster.apply_yaml(&definition).await?;
    }
    let in_force = async {
        // What every version of these definitions refuses, and only ours in these words.
        while !refusal(cluster, "HTTPScaledObject", &json!({"scaleTargetRef": {"service": "a"}}))
            .await
            .contains("set exactly one of")
            || !refusal(
                cluster,
                "InterceptorRoute",
                &json!({"target": {"service": "a"}, "scalingMetric": {}}),
            )
            .await
            .contains("set exactly one of")
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, in_force).await.context("the definitions do not come into force")
}

/// What the API server says to an object, without storing it; nothing if it would.
async fn refusal(cluster: &Cluster, kind: &str, spec: &Value) -> String {
    let (objects, object) = object(cluster, kind, "default", "a", spec);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    objects.create(&dry, &object).await.err().map_or_else(String::new, |error| error.to_string())
}

fn object(
    cluster: &Cluster,
    kind: &str,
    namespace: &str,
    name: &str,
    spec: &Value,
) -> (Api<DynamicObject>, DynamicObject) {
    let resource = match kind {
        "HTTPScaledObject" => ApiResource::erase::<HttpScaledObject>(&()),
        "InterceptorRoute" => ApiResource::erase::<InterceptorRoute>(&()),
        _ => unreachable!("{kind}"),
    };
    let object = DynamicObject::new(name, &resource).data(json!({"spec": spec}));
    (Api::namespaced_with(cluster.client(), namespace, &resource), object)
}

#[test]
fn the_definitions_come_into_force_with_all_that_kubectl_shows() {
    cluster::run(async |cluster| {
        install(&cluster).await?;
        let definitions = Api::<CustomResourceDefinition>::all(cluster.client());
        for name in ["httpscaledobjects.http.keda.sh", "interceptorroutes.http.keda.sh"] {
            let established = |definition: Option<&CustomResourceDefinition>| {
                let conditions = definition.and_then(|it| it.status.as_ref()?.conditions.as_ref());
                let is = |kind: &str, status: &str| {
                    conditions.is_some_and(|all| all.iter().any(|it| it.type_ == kind && it.status == status))
                };
                // A schema that is not structural is said in a condition, and not refused.
                is("Established", "True") && is("NamesAccepted", "True") && !is("NonStructuralSchema", "True")
            };
            cluster.wait_for(&definitions, name, LIMIT, established).await?;
        }
        let namespace = cluster.namespace("columns").await?;
        cluster.apply_yaml(&SAMPLES.replace("NAMESPACE", &namespace)).await?;
        let objects = Api::<HttpScaledObject>::namespaced(cluster.client(), &namespace);
        let status = json!({"status": {
            "targetWorkload": "apps/v1/Deployment/shop",
            "targetService": "shop:8080",
            "observedGeneration": 1,
            "conditions": [{"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": "no",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-02T03:04:05Z"}],
        }});
        objects.patch_status("shop", &PatchParams::default(), &Patch::Merge(&status)).await?;
        let table = cluster.kubectl(&["--namespace", &namespace, "get", "httpso", "shop"]).await?;
        for text in ["TARGETWORKLOAD", "apps/v1/Deployment/shop", "shop:8080", "False", "InvalidSpec"] {
            ensure!(table.contains(text), "no {text} in {table}");
        }
        let both = cluster.kubectl(&["--namespace", &namespace, "get", "keda-http", "-o", "name"]).await?;
        ensure!(both.contains("httpscaledobject.http.keda.sh/shop"), "{both}");
        ensure!(both.contains("interceptorroute.http.keda.sh/shop"), "{both}");
        cluster.delete_namespace(&namespace).await
    });
}

#[test]
fn what_was_written_for_the_add_on_applies_unchanged_and_has_no_flaw() {
    cluster::run(async |cluster| {
        install(&cluster).await?;
        let namespace = cluster.namespace("samples").await?;
        cluster.apply_yaml(&SAMPLES.replace("NAMESPACE", &namespace)).await?;
        // A second time, since users do.
        cluster.apply_yaml(&SAMPLES.replace("NAMESPACE", &namespace)).await?;
        let count = SAMPLES.matches("\nkind: HTTPScaledObject\n").count();
        ensure!(count > 2 && flawless::<HttpScaledObject>(&cluster, &namespace).await? == count);
        let count = SAMPLES.matches("\nkind: InterceptorRoute\n").count();
        ensure!(count > 5 && flawless::<InterceptorRoute>(&cluster, &namespace).await? == count);
        cluster.delete_namespace(&namespace).await
    });
}

/// How many objects there are, all of them without a flaw.
async fn flawless<K>(cluster: &Cluster, namespace: &str) -> Result<usize>
where
    K: Check + Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone,
    K: std::fmt::Debug + serde::de::DeserializeOwned,
{
    let objects = Api::<K>::namespaced(cluster.client(), namespace).list(&ListParams::default()).await?;
    for object in &objects {
        let (spec, flaws) = object.check();
        ensure!(spec.is_some() && flaws.is_empty(), "{:?}: {flaws:?}", object.meta().name);
    }
    Ok(objects.items.len())
}

#[test]
fn what_is_left_out_is_filled_in_as_the_add_on_does() {
    cluster::run(async |cluster| {
        install(&cluster).await?;
        let namespace = cluster.namespace("defaults").await?;
        let spec = json!({
            "scaleTargetRef": {"service": "a", "port": 80},
            "scalingMetric": {"requestRate": {}},
            "coldStartTimeoutFailoverRef": {"service": "b", "port": 80},
            // As Go writes what is not set.
            "hosts": null,
            "replicas": null,
        });
        let (objects, object) = object(&cluster, "HTTPScaledObject", &namespace, "a", &spec);
        let stored = objects.create(&PostParams::default(), &object).await?;
        let wanted = json!({
            "scaleTargetRef": {"service": "a", "port": 80},
            "scalingMetric": {"requestRate": {"targetValue": 100, "window": "1m", "granularity": "1s"}},
            "coldStartTimeoutFailoverRef": {"service": "b", "port": 80, "timeoutSeconds": 30},
        });
        ensure!(stored.data["spec"] == wanted, "{}", stored.data["spec"]);
        let spec = json!({
            "target": {"service": "a", "port": 80, "portName": null},
            "scalingMetric": {"requestRate": {"targetValue": 7}},
            "staticRoutes": [{"rules": [{}], "response": {}}],
        });
        let (objects, object) = self::object(&cluster, "InterceptorRoute", &namespace, "a", &spec);
        let stored = objects.create(&PostParams::default(), &object).await?;
        let wanted = json!({
            "target": {"service": "a", "port": 80},
            "scalingMetric": {"requestRate": {"targetValue": 7, "window": "1m", "granularity": "1s"}},
            "staticRoutes": [{"rules": [{}], "response": {}, "responseMode": "WhenUnavailable"}],
        });
        ensure!(stored.data["spec"] == wanted, "{}", stored.data["spec"]);
        cluster.delete_namespace(&namespace).await
    });
}

/// A mistake, and what the API server says to it.
#[derive(Deserialize)]
struct Mistake {
    change: Value,
    field: String,
    refused: String,
}

#[test]
fn a_mistake_is_refused_with_field_and_mend() {
    cluster::run(async |cluster| {
        install(&cluster).await?;
        let mistakes: BTreeMap<String, Vec<Mistake>> = serde_saphyr::from_str(MISTAKES)?;
        for (kind, mistakes) in &mistakes {
            let base = match kind.as_str() {
                "HTTPScaledObject" => json!({"scaleTargetRef": {"name": "a", "service": "a", "port": 80}}),
                _ => json!({
                    "target": {"service": "a", "port": 80},
                    "scalingMetric": {"concurrency": {"targetValue": 10}},
                }),
            };
            let whole = refusal(&cluster, kind, &base).await;
            ensure!(whole.is_empty(), "without a mistake: {whole}");
            for Mistake { change, field, refused } in mistakes {
                let answer = refusal(&cluster, kind, &changed(base.clone(), change)).await;
                ensure!(
                    answer.contains(&format!("{field}: ")) && answer.contains(refused),
                    "{kind} with {change}: wanted {field} and {refused:?}, got {answer:?}"
                );
            }
        }
        Ok(())
    });
}

#[test]
fn a_scaled_object_is_written_in_terms_that_keda_knows() {
    cluster::run(async |cluster| {
        let objects = Api::<ScaledObject>::namespaced(cluster.client(), "default");
        let trigger = Trigger {
            type_: EXTERNAL_PUSH.to_owned(),
            name: Some("http".to_owned()),
            metadata: [("scalerAddress".to_owned(), "sluice-scaler.sluice-system:9090".to_owned())].into(),
            authentication_ref: Some(AuthenticationRef {
                name: "mtls".to_owned(),
                kind: Some("TriggerAuthentication".to_owned()),
            }),
        };
        let spec = ScaledObjectSpec {
            scale_target_ref: ScaleTarget {
                api_version: Some("apps/v1".to_owned()),
                kind: Some("Deployment".to_owned()),
                name: "a".to_owned(),
            },
            polling_interval: Some(15),
            cooldown_period: Some(300),
            initial_cooldown_period: Some(0),
            min_replica_count: Some(0),
            max_replica_count: Some(100),
            advanced: Some(Advanced { restore_to_original_replica_count: Some(true) }),
            triggers: vec![trigger],
        };
        let wanted = ScaledObject::new("a", spec);
        // Fields that the definition has not are refused, instead of dropped.
        let params = PatchParams { dry_run: true, ..PatchParams::apply("test").validation_strict() };
        let stored = objects.patch("a", &params, &Patch::Apply(&wanted)).await?;
        ensure!(stored.spec == wanted.spec, "{:?}", stored.spec);
        Ok(())
    });
}

/// What a definition lets past that checks nothing, as those before ours did for the most part.
fn lax_objects(namespace: &str) -> Vec<Value> {
    let target = json!({"service": "a", "port": 80});
    let http = [
        ("whole", json!({"scaleTargetRef": target, "hosts": null})),
        ("two-ports", json!({"scaleTargetRef": {"service": "a", "port": 80, "portName": "http"}})),
        ("no-service", json!({"scaleTargetRef": {"service": "", "port": 80}})),
        (
            "two-metrics",
            json!({"scaleTargetRef": target, "scalingMetric": {"concurrency": {}, "requestRate": {}}}),
        ),
        (
            "crash",
            json!({"scaleTargetRef": target, "scalingMetric": {"requestRate": {"granularity": "100ms"}}}),
        ),
        (
            "numbers",
            json!({
                "scaleTargetRef": target,
                "replicas": {"min": 5, "max": 2},
                "targetPendingRequests": -1,
                "scaledownPeriod": -1,
                "initialCooldownPeriod": -1,
            }),
        ),
        (
            "words",
            json!({
                "scaleTargetRef": target,
                "hosts": ["a.*.com"],
                "headers": [{"name": ""}],
                "timeouts": {"conditionWait": "a while", "responseHeader": "-1s"},
            }),
        ),
        ("nothing", Value::Null),
    ];
    http.into_iter()
        .map(|(name, spec)| {
            let mut object = json!({
                "apiVersion": "http.keda.sh/v1alpha1",
                "kind": "HTTPScaledObject",
                "metadata": {"name": name, "namespace": namespace},
            });
            if !spec.is_null() {
                object["spec"] = spec;
            }
            object
        })
        .collect()
}

#[test]
fn what_was_stored_under_another_definition_is_read_and_its_status_can_be_written() {
    // The definitions of somebody's cluster are not to be loosened.
    if cluster::passes_over() {
        return;
    }
    cluster::run(async |cluster| {
        install(&cluster).await?;
        let namespace = cluster.namespace("lax").await?;
        cluster.apply_yaml(LAX).await?;
        let objects = lax_objects(&namespace);
        let stored = async {
            // Until the other definition is in force, ours refuses some.
            while let Err(error) = cluster.apply(&objects).await {
                println!("not yet: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LIMIT, stored).await.context("the objects cannot be stored")?;
        read_lax(&cluster, &namespace).await.context("under the definition that they were stored under")?;
        install(&cluster).await?;
        read_lax(&cluster, &namespace).await.context("under ours")?;
        // What an operator does with them, none of which mends them.
        let objects = Api::<HttpScaledObject>::namespaced(cluster.client(), &namespace);
        let params = PatchParams::apply("test");
        for name in ["two-ports", "no-service", "two-metrics", "crash", "numbers", "words"] {
            let status = json!({
                "apiVersion": "http.keda.sh/v1alpha1",
                "kind": "HTTPScaledObject",
                "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False",
                    "reason": "InvalidSpec", "message": "", "lastTransitionTime": "2026-01-02T03:04:05Z"}]},
            });
            objects.patch_status(name, &params, &Patch::Apply(&status)).await.context(name)?;
            let label = json!({"metadata": {"labels": {"seen": "yes"}}});
            objects.patch(name, &PatchParams::default(), &Patch::Merge(&label)).await.context(name)?;
        }
        cluster.delete_namespace(&namespace).await
    });
}

/// Reads all of them as whoever watches does, and says what is wrong with each.
async fn read_lax(cluster: &Cluster, namespace: &str) -> Result<()> {
    let objects = Api::<DeserializeGuard<HttpScaledObject>>::namespaced(cluster.client(), namespace);
    let mut seen = 0;
    for object in objects.list(&ListParams::default()).await? {
        let name = object.meta().name.clone().unwrap_or_default();
        let object = match object.0 {
            Ok(object) => object,
            Err(error) => {
                ensure!(name == "nothing" && error.error.contains("spec"), "{name}: {error:?}");
                seen += 1;
                continue;
            }
        };
        let (spec, flaws) = object.check();
        let fields: Vec<&str> = flaws.iter().map(sluice_api::Flaw::field).collect();
        let metric = "spec.scalingMetric";
        let (usable, wanted): (bool, &[&str]) = match name.as_str() {
            "whole" => (true, &[]),
            "two-ports" => (false, &["spec.scaleTargetRef"]),
            "no-service" => (false, &["spec.scaleTargetRef.service"]),
            "two-metrics" => (true, &[metric]),
            "crash" => (true, &["spec.scalingMetric.requestRate.granularity"]),
            "numbers" => (
                true,
                &[
                    "spec.targetPendingRequests",
                    "spec.replicas",
                    "spec.scaledownPeriod",
                    "spec.initialCooldownPeriod",
                ],
            ),
            "words" => (
                true,
                &[
                    "spec.hosts[0]",
                    "spec.headers[0].name",
                    "spec.timeouts.responseHeader",
                    "spec.timeouts.conditionWait",
                ],
            ),
            _ => (false, &[]),
        };
        ensure!(spec.is_some() == usable && fields == wanted, "{name}: {flaws:?}");
        seen += 1;
    }
    ensure!(seen == lax_objects(namespace).len(), "only {seen} objects");
    Ok(())
}
