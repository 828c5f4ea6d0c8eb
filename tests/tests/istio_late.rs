//! An operator that is to look after a gateway before Istio is there, or without the rights for it: it says so, does
//! the rest of its work, and begins when it can.

use anyhow::{Result, ensure};
use kube::Api;
use serde_json::json;
use sluice_api::{HttpScaledObject, ScaledObject};
use sluice_tests::{
    cluster::{
        self,
        istio::{
            self,
            operator::{Operator, Options, envoy_filters, read, spec_when},
        },
        programs::Programs,
    },
    paths, wait,
};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

async fn says(operator: &Operator, words: &str) -> Result<()> {
    wait::until(format!("the log to say {words:?}"), async || {
        let logs = operator.logs().await.map_err(|error| format!("{error:#}"))?;
        if logs.lines().any(|line| line.contains(words)) { Ok(()) } else { Err(logs) }
    })
    .await
}

#[test]
fn the_operator_waits_for_istio_and_for_its_rights() {
    if cluster::passes_over() {
        return;
    }
    cluster::run(async |cluster| {
        let crds = paths::root().join("install/crds").display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--filename", &crds]).await?;
        cluster
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &crds])
            .await?;
        cluster.apply_yaml(&read("namespace.yaml")?).await?;
        let operator = Operator::install(&cluster, &Options::default()).await?;
        // Without rights the API server does not say whether there are EnvoyFilters at all.
        says(&operator, "install/istio.yaml").await?;
        says(&operator, "EnvoyFilters of istio-system cannot be read").await?;
        operator.counts("sluice_operator_envoy_filters{state=\"failed\"} 1").await?;

        let namespace = cluster.namespace("late").await?;
        cluster
            .apply(&[
                json!({
                    "apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": "shop", "namespace": namespace},
                    "spec": {"ports": [{"name": "http", "port": 80}]},
                }),
                json!({
                    "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject",
                    "metadata": {"name": "shop", "namespace": namespace},
                    "spec": {"scaleTargetRef": {"name": "shop", "service": "shop", "port": 80}},
                }),
            ])
            .await?;
        let objects = Api::<HttpScaledObject>::namespaced(cluster.client(), &namespace);
        let told = |it: Option<&HttpScaledObject>| it.is_some_and(|it| it.status.is_some());
        cluster.wait_for(&objects, "shop", LIMIT, told).await?;

        let json = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": istio::NAMESPACE}});
        cluster.apply(&[json]).await?;
        cluster.apply_yaml(&read("istio.yaml")?).await?;
        says(&operator, "the cluster has no envoyfilters.networking.istio.io").await?;
        let programs = tokio::task::spawn_blocking(|| Programs::build_parts(&["istio"])).await??;
        let manifests = programs.get("istio-manifests")?.display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--filename", &manifests]).await?;
        let filters = envoy_filters(&cluster, istio::NAMESPACE);
        spec_when(&filters, "sluice", "there", |_| true).await?;
        operator.counts("sluice_operator_envoy_filters{state=\"applied\"} 1").await?;
        let scaled_objects = Api::<ScaledObject>::namespaced(cluster.client(), &namespace);
        ensure!(scaled_objects.get_opt("shop").await?.is_none(), "no scaler is there that could answer KEDA");
        cluster.delete_namespace(&namespace).await
    });
}
