//! The stand-in for kubelet and the networking of the bed do what the tests on top of them take for granted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use sluice_tests::cluster::{self, Cluster};

const LIMIT: Duration = Duration::from_secs(60);

/// What is tested here is the bed itself: a cluster that somebody names has nothing of it.
fn on_the_bed<F>(test: impl FnOnce(Cluster) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    if cluster::passes_over() {
        return;
    }
    cluster::run(test);
}

fn pod(namespace: &str, name: &str, script: &str, more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"containers": [{
            "name": "main",
            "image": "sh",
            "args": ["-c", script],
            "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        }]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        if key == "container" {
            pod["spec"]["containers"][0].as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        } else {
            pod["spec"][key] = value.clone();
        }
    }
    pod
}

async fn log_says(cluster: &Cluster, namespace: &str, pod: &str, text: &str) -> Result<()> {
    let bed = cluster.bed().context("needs the bed")?;
    let wait = async {
        while !bed.pod_log(namespace, pod, "main").contains(text) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let log = || format!("no {text:?} in the log: {}", bed.pod_log(namespace, pod, "main"));
    tokio::time::timeout(LIMIT, wait).await.with_context(log)
}

fn phase(wanted: &'static str) -> impl Fn(Option<&Pod>) -> bool {
    move |pod| pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref()) == Some(wanted)
}

#[test]
fn a_pod_ends_with_sigterm_and_is_gone_after_its_grace_period_at_the_latest() {
    on_the_bed(async |cluster| {
        let namespace = cluster.namespace("end").await?;
        let pods = Api::<Pod>::namespaced(cluster.client(), &namespace);
        let polite = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done";
        let deaf = "trap '' TERM; echo up; while :; do sleep 0.02; done";
        cluster
            .apply(&[
                pod(&namespace, "polite", polite, json!({"terminationGracePeriodSeconds": 3600})),
                pod(&namespace, "deaf", deaf, json!({"terminationGracePeriodSeconds": 1})),
            ])
            .await?;
        for name in ["polite", "deaf"] {
            log_says(&cluster, &namespace, name, "up").await?;
            pods.delete(name, &DeleteParams::default()).await?;
            cluster.wait_for(&pods, name, LIMIT, |pod| pod.is_none()).await?;
        }
        log_says(&cluster, &namespace, "polite", "bye").await?;
        cluster.delete_namespace(&namespace).await
    });
}

#[test]
fn a_crashed_container_is_started_again_in_the_same_pod() {
    on_the_bed(async |cluster| {
        let namespace = cluster.namespace("crash").await?;
        let pods = Api::<Pod>::namespaced(cluster.client(), &namespace);
        cluster.apply(&[pod(&namespace, "again", "echo start; exit 3", json!({}))]).await?;
        let restarted = |pod: Option<&Pod>| {
            let statuses = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref());
            statuses.is_some_and(|statuses| statuses[0].restart_count >= 2)
        };
        let pod_object = cluster.wait_for(&pods, "again", LIMIT, restarted).await?.context("gone")?;
        ensure!(phase("Running")(Some(&pod_object)), "it is {:?}", pod_object.status);
        cluster
            .apply(&[
                pod(&namespace, "once", "exit 0", json!({"restartPolicy": "Never"})),
                pod(&namespace, "failed", "exit 3", json!({"restartPolicy": "Never"})),
            ])
            .await?;
        cluster.wait_for(&pods, "once", LIMIT, phase("Succeeded")).await?;
        cluster.wait_for(&pods, "failed", LIMIT, phase("Failed")).await?;
        cluster.delete_namespace(&namespace).await
    });
}

#[test]
fn readiness_follows_the_probe_and_reaches_the_endpoint_slice_and_the_service() {
    on_the_bed(async |cluster| {
        let namespace = cluster.namespace("ready").await?;
        let web = "cd $DIR && echo ok > index.html && exec python3 -m http.server --bind $POD_IP 8080";
        cluster
            .apply(&[
                json!({
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "web", "namespace": namespace},
                    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
                }),
                pod(
                    &namespace,
                    "web",
                    web,
                    json!({
                        "volumes": [{"name": "www", "emptyDir": {}}],
                        "terminationGracePeriodSeconds": 1,
                        "container": {
                            "env": [
                                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                                {"name": "DIR", "value": "/www"},
                            ],
                            "volumeMounts": [{"name": "www", "mountPath": "/www"}],
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
                        },
                    }),
                ),
            ])
            .await?;
        let bed = cluster.bed().context("needs the bed")?;
        let slices = Api::<EndpointSlice>::namespaced(cluster.client(), &namespace);
        let ready = async |wanted: bool| -> Result<()> {
            let wait = async {
                loop {
                    let list = slices.list(&ListParams::default()).await?;
                    let all = list.iter().flat_map(|slice| &slice.endpoints).collect::<Vec<_>>();
                    let is = |e: &&k8s_openapi::api::discovery::v1::Endpoint| {
                        e.conditions.as_ref().unwrap().ready == Some(wanted)
                    };
                    if all.len() == 1 && all.iter().all(is) {
                        return anyhow::Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(LIMIT, wait).await.with_context(|| format!("ready is not {wanted}"))?
        };
        ready(false).await?;
        let dir = std::path::Path::new(bed.kubeconfig())
            .parent()
            .unwrap()
            .join(format!("pods/{namespace}_web/volumes/www"));
        std::fs::write(dir.join("ready"), "")?;
        ready(true).await?;
        let get = |url: &str| {
            let output = bed.netns().command("curl").args(["-sS", "--max-time", "5", url]).output();
            output
                .map(|output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        let body = get(&format!("http://web.{namespace}/"))?;
        ensure!(body.trim() == "ok", "through the Service: {body}");
        std::fs::remove_file(dir.join("ready"))?;
        ready(false).await?;
        // The Service follows the EndpointSlice a moment later.
        let refused = async {
            while get(&format!("http://web.{namespace}/"))?.contains("ok") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LIMIT, refused).await.context("the Service still leads to the Pod")??;
        cluster.delete_namespace(&namespace).await
    });
}

#[test]
fn a_pod_has_the_rights_of_its_service_account_and_the_files_of_its_volumes() {
    on_the_bed(async |cluster| {
        let namespace = cluster.namespace("rights").await?;
        let script =
            "cat /etc/app/greeting; echo; kubectl get configmaps; kubectl get secrets; echo done; sleep 3600";
        cluster
            .apply(&[
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader", "namespace": namespace}}),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "greeting", "namespace": namespace}, "data": {"greeting": "hello"}}),
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader", "namespace": namespace},
                    "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]}),
                json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "reader", "namespace": namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
                    "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}]}),
            ])
            .await?;
        let bed = cluster.bed().context("needs the bed")?;
        let kubectl = bed.program("kubectl")?;
        let script = script
            .replace("kubectl", &format!("{} -n {namespace}", kubectl.display()))
            .replace("cat /etc/app/greeting", "cat $FILE");
        cluster
            .apply(&[pod(
                &namespace,
                "reader",
                &script,
                json!({
                    "serviceAccountName": "reader",
                    "terminationGracePeriodSeconds": 0,
                    "volumes": [{"name": "greeting", "configMap": {"name": "greeting"}}],
                    "container": {
                        "env": [{"name": "FILE", "value": "/etc/app/greeting"}],
                        "volumeMounts": [{"name": "greeting", "mountPath": "/etc/app"}],
                    },
                }),
            )])
            .await?;
        log_says(&cluster, &namespace, "reader", "done").await?;
        let log = bed.pod_log(&namespace, "reader", "main");
        ensure!(
            log.contains("hello") && log.contains("kube-root-ca.crt") && log.contains("forbidden"),
            "{log}"
        );
        cluster.delete_namespace(&namespace).await
    });
}

#[test]
fn a_hundred_deployments_come_up() {
    on_the_bed(async |cluster| {
        let namespace = cluster.namespace("hundred").await?;
        let objects = (0..100).map(|n| json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("app-{n}"), "namespace": namespace},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": format!("app-{n}")}}, "template": {
                "metadata": {"labels": {"app": format!("app-{n}")}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "sleep", "args": ["3600"]}]}}},
        })).collect::<Vec<_>>();
        cluster.apply(&objects).await?;
        let deployments = Api::<Deployment>::namespaced(cluster.client(), &namespace);
        for n in 0..100 {
            cluster
                .wait_for(&deployments, &format!("app-{n}"), LIMIT, |d| {
                    d.is_some_and(|d| d.status.as_ref().is_some_and(|s| s.ready_replicas == Some(1)))
                })
                .await?;
        }
        cluster.delete_namespace(&namespace).await
    });
}
