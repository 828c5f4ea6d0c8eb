//! The operator's rights: each of them is needed, and it has no other. That they are enough, every test shows: at its
//! end nothing was refused.

use crate::bench::{Bench, LIMIT, http_scaled_object, on_the_bench};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{authorization::v1::SubjectAccessReview, rbac::v1::ClusterRole};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sluice_api::{HttpScaledObject, ScaledObject};
use sluice_tests::{
    cluster::sluice::audit::{self, OPERATOR},
    paths, wait,
};
use std::{collections::BTreeSet, fs};

/// What is asked for beside a request's own verb, and in what words it is refused: by server-side apply where there is
/// nothing yet, and by the admission plugin `OwnerReferencesPermissionEnforcement`.
const UNSEEN: [(&str, &str); 2] = [
    ("create keda.sh/scaledobjects", "cannot create resource \"scaledobjects\""),
    ("update http.keda.sh/httpscaledobjects/finalizers", "you can't set finalizers on"),
];

/// The rights that the manifest gives.
fn granted() -> Result<BTreeSet<String>> {
    let yaml = fs::read_to_string(paths::root().join("install/operator.yaml"))?;
    let mut rights = BTreeSet::new();
    for document in yaml.split("\n---\n") {
        let document: Value = serde_saphyr::from_str(document)?;
        for rule in document["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    rights.extend(texts(&rule["verbs"]).map(|verb| format!("{verb} {group}/{resource}")));
                }
            }
        }
    }
    Ok(rights)
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Has definitions take whatever a `spec` says, or what they took before.
struct Loose {
    definitions: Api<DynamicObject>,
    before: Vec<(&'static str, Value)>,
}

impl Loose {
    async fn set(bench: &Bench) -> Result<Self> {
        let resource = ApiResource::erase::<
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
        >(&());
        let definitions: Api<DynamicObject> = Api::all_with(bench.cluster.client(), &resource);
        let mut loose = Self { definitions, before: Vec::new() };
        for name in ["httpscaledobjects.http.keda.sh", "interceptorroutes.http.keda.sh"] {
            let versions = loose.definitions.get(name).await?.data["spec"]["versions"].clone();
            let mut loosened = versions.clone();
            loosened[0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            loose.write(name, &loosened).await?;
            loose.before.push((name, versions));
        }
        Ok(loose)
    }

    async fn undo(self) -> Result<()> {
        for (name, versions) in &self.before {
            self.write(name, versions).await?;
        }
        Ok(())
    }

    async fn write(&self, name: &str, versions: &Value) -> Result<()> {
        let patch = json!({"spec": {"versions": versions}});
        self.definitions.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }
}

#[test]
fn each_right_is_used_and_there_is_no_other() {
    on_the_bench(async |bench| {
        let namespace = bench.app("rights").await?;
        // An object that comes from the add-on, goes for a while, and comes back: the same Event, twice.
        let mut object = http_scaled_object(&namespace, "rights");
        object["metadata"]["finalizers"] = json!(["httpscaledobject.http.keda.sh"]);
        bench.cluster.apply(&[object]).await?;
        bench.ready::<HttpScaledObject>(&namespace, "rights", "True", "Reconciled").await?;
        let scaled_objects: Api<ScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        let annotation = "httpscaledobject.keda.sh/skip-scaledobject-creation";
        bench.annotate(&namespace, "rights", annotation, Some("true")).await?;
        bench.cluster.wait_for(&scaled_objects, "rights", LIMIT, |it| it.is_none()).await?;
        bench.annotate(&namespace, "rights", annotation, None).await?;
        bench.ready::<HttpScaledObject>(&namespace, "rights", "True", "Reconciled").await?;
        // Workloads that are missing.
        let mut ghosts = Vec::new();
        for kind in ["Deployment", "StatefulSet"] {
            let mut ghost = http_scaled_object(&namespace, &format!("ghost-{}", kind.to_lowercase()));
            ghost["spec"]["scaleTargetRef"] =
                json!({"name": "ghost", "kind": kind, "service": "rights", "portName": "http"});
            ghosts.push(ghost);
        }
        bench.cluster.apply(&ghosts).await?;
        for kind in ["deployment", "statefulset"] {
            let name = format!("ghost-{kind}");
            bench.ready::<HttpScaledObject>(&namespace, &name, "False", "WorkloadNotFound").await?;
        }
        // The add-on's finalizer goes when its object does.
        let objects: Api<HttpScaledObject> = Api::namespaced(bench.cluster.client(), &namespace);
        objects.delete("rights", &DeleteParams::default()).await?;
        bench.cluster.wait_for(&objects, "rights", LIMIT, |it| it.is_none()).await?;
        // Objects that do not read.
        let loose = Loose::set(&bench).await?;
        let bad = |kind: &str, version: &str, spec: Value| {
            json!({"apiVersion": format!("http.keda.sh/{version}"), "kind": kind,
                "metadata": {"name": "bad", "namespace": namespace}, "spec": spec})
        };
        let bad = [
            bad("HTTPScaledObject", "v1alpha1", json!({"scaleTargetRef": "rights"})),
            bad("InterceptorRoute", "v1beta1", json!({"target": "rights"})),
        ];
        wait::until("objects that do not read to be taken", async || {
            bench.cluster.apply(&bad).await.map_err(|error| error.to_string())
        })
        .await?;

        let granted = granted()?;
        ensure!(granted.len() > 20, "{granted:?}");
        let bed = bench.cluster.bed().context("needs the bed")?;
        let unseen: BTreeSet<String> = UNSEEN.map(|(right, _)| right.to_owned()).into();
        let used = wait::until("each right to be used", async || {
            let asked = audit::operators(bed).map_err(|error| format!("{error:#}"))?;
            let used: BTreeSet<String> = asked.iter().map(audit::Request::right).collect();
            let idle: Vec<&String> = granted.difference(&used).filter(|it| !unseen.contains(*it)).collect();
            if idle.is_empty() { Ok(used) } else { Err(format!("these are not: {idle:?}")) }
        })
        .await?;
        let beyond: Vec<&String> = used.difference(&granted).collect();
        ensure!(beyond.is_empty(), "asked for, and in no rule: {beyond:?}");

        for resource in ["httpscaledobject.http.keda.sh/bad", "interceptorroute.http.keda.sh/bad"] {
            bench.cluster.kubectl(&["--namespace", &namespace, "delete", resource]).await?;
        }
        loose.undo().await?;
        bench.end(&namespace).await
    });
}

/// Waits until the API server goes by what the roles say now.
async fn may(bench: &Bench, right: &str, wanted: bool) -> Result<()> {
    let (verb, resource) = right.split_once(' ').context("a verb")?;
    let mut parts = resource.split('/');
    let review = json!({"metadata": {}, "spec": {"user": OPERATOR, "resourceAttributes": {
        "verb": verb, "group": parts.next(), "resource": parts.next(), "subresource": parts.next().unwrap_or_default(),
    }}});
    let review: SubjectAccessReview = serde_json::from_value(review)?;
    let reviews = Api::<SubjectAccessReview>::all(bench.cluster.client());
    wait::until(format!("the operator's right to {right} to be {wanted}"), async || {
        let answer =
            reviews.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
        match answer.status {
            Some(status) if status.allowed == wanted => Ok(()),
            status => Err(format!("{status:?}")),
        }
    })
    .await
}

#[test]
fn a_right_that_is_taken_away_is_missed_and_named() {
    on_the_bench(async |bench| {
        let roles: Api<ClusterRole> = Api::all(bench.cluster.client());
        let name = "sluice-operator";
        let whole = serde_json::to_value(roles.get(name).await?.rules)?;
        for (right, words) in UNSEEN {
            let namespace = bench.app("missed").await?;
            let mut rules = whole.clone();
            for rule in rules.as_array_mut().context("rules")? {
                let gives = |verb: &str| {
                    texts(&rule["apiGroups"])
                        .zip(texts(&rule["resources"]))
                        .any(|(group, resource)| right == format!("{verb} {group}/{resource}"))
                };
                let verbs: Vec<&str> = texts(&rule["verbs"]).filter(|verb| !gives(verb)).collect();
                let verbs = json!(verbs);
                rule["verbs"] = verbs;
            }
            // A rule without verbs is none.
            let rules: Vec<Value> = rules.as_array().into_iter().flatten().cloned().collect();
            let rules: Vec<&Value> = rules.iter().filter(|rule| rule["verbs"] != json!([])).collect();
            let set = async |rules: Value| -> Result<()> {
                let patch = json!({"rules": rules});
                roles.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
                Ok(())
            };
            set(json!(rules)).await?;
            may(&bench, right, false).await?;
            bench.cluster.apply(&[http_scaled_object(&namespace, "missed")]).await?;
            let object = bench.ready::<HttpScaledObject>(&namespace, "missed", "False", "Refused").await?;
            let conditions = object.status.context("no status")?.conditions;
            ensure!(conditions[0].message.contains(words), "without the right to {right}: {conditions:?}");
            set(whole.clone()).await?;
            may(&bench, right, true).await?;
            bench.ready::<HttpScaledObject>(&namespace, "missed", "True", "Reconciled").await?;
            // Not the bench's end: something was refused.
            bench.cluster.delete_namespace(&namespace).await?;
        }
        Ok(())
    });
}
