//! The operator in a cluster with Istio, installed from its manifests with the rights that are named there and no
//! others: what the tests of the gateway's EnvoyFilters begin with.

use super::{GATEWAY, GatewayOptions, Istio, LIMIT, NAMESPACE, Sluice, World, gateway_object, rolled_out};
use crate::{
    cluster::{self, Cluster},
    http, paths, wait,
};
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, events::v1::Event};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use std::{fs, net::SocketAddr, path::PathBuf};

/// Where the operator is.
pub const SYSTEM: &str = "sluice-system";
/// What of the operator's manifest is different here: Pods share one network stack, each binds its own address.
const BIND: &str = "            - name: SLUICE_BIND\n              value: 0.0.0.0\n";
/// What a user sets.
const GATEWAY_NAMESPACE: &str = "            - name: SLUICE_GATEWAY_NAMESPACE\n              value: \"\"\n";
const ISOLATION: &str = "            - name: SLUICE_ISOLATION\n              value: \"false\"\n";

/// The operator, installed.
#[derive(Clone)]
pub struct Operator {
    cluster: Cluster,
}

/// What the operator is told beside where the gateway is.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Whether the filter is enabled for managed hosts only.
    pub isolation: bool,
    /// The module; the built one unless it is another.
    pub module: Option<PathBuf>,
}

/// Runs a test where the operator looks after Istio's ingress gateway; nobody has applied the filter.
///
/// # Panics
/// As [`cluster::run`].
pub fn run<F>(name: &'static str, options: Options, test: impl FnOnce(World, Operator) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    if cluster::passes_over() {
        return;
    }
    cluster::run(async move |cluster| {
        let istio = Istio::start(&cluster).await?;
        let sluice = Sluice::install(&istio).await?;
        let gateway = istio.gateway(GatewayOptions::default()).await?;
        cluster.apply_yaml(&read("istio.yaml")?).await?;
        let operator = Operator::install(&cluster, &options).await?;
        let namespace = cluster.namespace(name).await?;
        let selector = json!({"istio": "ingressgateway"});
        cluster.apply(&[gateway_object(GATEWAY, &namespace, &selector)]).await?;
        let world = World { cluster: cluster.clone(), istio, sluice, gateway, namespace: namespace.clone() };
        test(world, operator.clone()).await?;
        operator.was_refused_nothing().await?;
        cluster.delete_namespace(&namespace).await
    });
}

/// A manifest of `install/`.
///
/// # Errors
/// If there is none of that name.
pub fn read(file: &str) -> Result<String> {
    fs::read_to_string(paths::root().join("install").join(file)).with_context(|| file.to_owned())
}

/// EnvoyFilters of a namespace.
pub fn envoy_filters(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("networking.istio.io", "v1alpha3", "EnvoyFilter");
    Api::namespaced_with(
        cluster.client(),
        namespace,
        &ApiResource::from_gvk_with_plural(&kind, "envoyfilters"),
    )
}

// === impl Operator ===

impl Operator {
    /// Applies the operator's manifest with the gateway's settings, and waits until two replicas of it are available.
    ///
    /// # Errors
    /// If they do not become so.
    pub async fn install(cluster: &Cluster, options: &Options) -> Result<Self> {
        let bed = cluster.bed().context("needs the bed")?;
        bed.add_program("sluice-operator", paths::binary("sluice-operator")?);
        let module = match &options.module {
            Some(module) => module.clone(),
            None => paths::wasm()?,
        };
        let mut yaml = read("operator.yaml")?;
        let variable = |name: &str, value: &str| {
            format!("            - name: {name}\n              value: {}\n", json!(value))
        };
        let own =
            "            - name: POD_IP\n              valueFrom: {fieldRef: {fieldPath: status.podIP}}\n";
        for (there, instead) in [
            (
                GATEWAY_NAMESPACE,
                variable("SLUICE_GATEWAY_NAMESPACE", NAMESPACE)
                    + &variable("SLUICE_MODULE", &module.display().to_string()),
            ),
            (ISOLATION, variable("SLUICE_ISOLATION", &options.isolation.to_string())),
            (BIND, own.to_owned() + &variable("SLUICE_BIND", "$(POD_IP)")),
        ] {
            ensure!(yaml.contains(there), "install/operator.yaml has no {there:?} any more");
            yaml = yaml.replace(there, &instead);
        }
        cluster.apply_yaml(&yaml).await?;
        let operator = Self { cluster: cluster.clone() };
        operator.scaled().await?;
        Ok(operator)
    }

    /// Sets how many replicas there are, and waits until there are.
    ///
    /// # Errors
    /// If that does not come, with what is there instead.
    pub async fn scale(&self, replicas: i32) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.cluster.client(), SYSTEM);
        let patch = json!({"spec": {"replicas": replicas}});
        self.cluster.merge(&deployments, "sluice-operator", &patch).await?;
        self.scaled().await?;
        if replicas == 0 {
            wait::until("the operator's Pods to be gone", async || {
                let pods = self.pods().await.map_err(|error| format!("{error:#}"))?;
                if pods.is_empty() { Ok(()) } else { Err(format!("{pods:?}")) }
            })
            .await?;
        }
        Ok(())
    }

    async fn scaled(&self) -> Result<()> {
        let deployments = Api::<Deployment>::namespaced(self.cluster.client(), SYSTEM);
        self.cluster.wait_for(&deployments, "sluice-operator", LIMIT, rolled_out).await.map(drop)
    }

    /// Its Pods: name and address.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn pods(&self) -> Result<Vec<(String, Option<String>)>> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), SYSTEM);
        let ours = ListParams::default().labels("app.kubernetes.io/name=sluice-operator");
        let pods = pods.list(&ours).await?.into_iter();
        let named = |pod: Pod| Some((pod.metadata.name?, pod.status.and_then(|status| status.pod_ip)));
        Ok(pods.filter_map(named).collect())
    }

    /// What each replica's `/metrics` says.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn metrics(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (name, ip) in self.pods().await? {
            let ip = ip.with_context(|| format!("{name} has no address"))?;
            let answer = http::get(SocketAddr::new(ip.parse()?, 8080), "/metrics").await?;
            all.push(answer.text());
        }
        Ok(all)
    }

    /// Waits until one of the replicas, the leader, counts this, and no other does.
    ///
    /// # Errors
    /// If that does not come, with what is there instead.
    pub async fn counts(&self, line: &str) -> Result<()> {
        wait::until(format!("the leader's metrics to say {line}"), async || {
            let all = self.metrics().await.map_err(|error| format!("{error:#}"))?;
            let saying = all.iter().filter(|text| text.lines().any(|it| it == line)).count();
            let leading =
                all.iter().filter(|text| text.lines().any(|it| it == "sluice_operator_leader 1")).count();
            if (saying, leading) == (1, 1) { Ok(()) } else { Err(all.join("\n---\n")) }
        })
        .await
    }

    /// Waits for an Event of the operator's about an EnvoyFilter.
    ///
    /// # Errors
    /// If that does not come, with what is there instead.
    pub async fn event(&self, name: &str, reason: &str) -> Result<()> {
        let events = Api::<Event>::namespaced(self.cluster.client(), NAMESPACE);
        wait::until(format!("an Event {reason} about {name}"), async || {
            let all =
                events.list(&ListParams::default()).await.map_err(|error| error.to_string())?.into_iter();
            let ours = all.filter(|it| it.reporting_controller.as_deref() == Some("sluice-operator"));
            let of = |it: &Event| {
                let regarding = it.regarding.as_ref().and_then(|it| it.name.clone());
                (regarding.unwrap_or_default(), it.reason.clone().unwrap_or_default())
            };
            let seen = ours.map(|it| of(&it)).collect::<Vec<_>>();
            if seen.contains(&(name.to_owned(), reason.to_owned())) {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
    }

    /// The logs of all replicas.
    ///
    /// # Errors
    /// In the API server's words.
    pub async fn logs(&self) -> Result<String> {
        let bed = self.cluster.bed().context("needs the bed")?;
        Ok(self.pods().await?.iter().map(|(pod, _)| bed.pod_log(SYSTEM, pod, "operator")).collect())
    }

    /// Its rights are enough.
    async fn was_refused_nothing(&self) -> Result<()> {
        let logs = self.logs().await?;
        // What KEDA was refused in a namespace that is going is in a status, and so in the log.
        let is = |line: &&str| line.contains("forbidden") && !line.contains("is being terminated");
        match logs.lines().find(is) {
            Some(line) => bail!("the operator was refused something: {line}"),
            None => Ok(()),
        }
    }
}

/// The spec of an EnvoyFilter once it is as `is` wants it.
///
/// # Errors
/// If that does not come, with what is there instead.
pub async fn spec_when(
    filters: &Api<DynamicObject>,
    name: &str,
    what: &str,
    is: impl Fn(&DynamicObject) -> bool,
) -> Result<Value> {
    wait::until(format!("the EnvoyFilter {name} to be {what}"), async || {
        match filters.get_opt(name).await.map_err(|error| error.to_string())? {
            Some(there) if is(&there) => Ok(there.data["spec"].clone()),
            Some(there) => Err(format!("{:?}", there.metadata)),
            None => Err("there is none".to_owned()),
        }
    })
    .await
}
