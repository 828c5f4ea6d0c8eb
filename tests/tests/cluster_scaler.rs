//! The scaler in a cluster, from `install/scaler.yaml` and with exactly its rights.

#[path = "cluster_scaler/one_namespace.rs"]
mod one_namespace;

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{authorization::v1::SubjectAccessReview, core::v1::Pod, discovery::v1::EndpointSlice},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use sluice_tests::{
    cluster::{self, Cluster},
    http, paths,
    wait::{PATIENCE, until},
};

const REPLICAS: [&str; 2] = ["sluice-scaler-0", "sluice-scaler-1"];
const HTTP_SCALED_OBJECTS: &str = "httpscaledobjects.http.keda.sh";
const INTERCEPTOR_ROUTES: &str = "interceptorroutes.http.keda.sh";

/// The tests run the scaler from its binary, install CRDs and take them away: not in somebody's cluster.
fn on_the_bed<F>(test: impl FnOnce(Cluster) -> F + Send + 'static)
where
    F: Future<Output = Result<()>>,
{
    if !cluster::passes_over() {
        cluster::run(test);
    }
}

/// Sluice's scaler, installed.
struct Scaler {
    cluster: Cluster,
    namespace: String,
}

impl Scaler {
    /// Installs it as `install/` says, in a namespace of its own, and waits until both replicas are ready.
    async fn install(cluster: &Cluster) -> Result<Self> {
        install_crds(cluster).await?;
        let scaler = Self::apply(cluster, Ok).await?;
        scaler.ready().await?;
        Ok(scaler)
    }

    /// Applies `install/scaler.yaml` after `change`, without waiting for anything.
    async fn apply(cluster: &Cluster, change: impl FnOnce(String) -> Result<String>) -> Result<Self> {
        let bed = cluster.bed().context("needs the bed")?;
        bed.add_program("sluice-scaler", paths::binary("sluice-scaler")?);
        let namespace = cluster.namespace("sluice").await?;
        cluster.apply_yaml(&manifest("namespace.yaml", &namespace)?).await?;
        let scaler = Self { cluster: cluster.clone(), namespace };
        cluster.apply_yaml(&change(scaler.own_addresses("scaler.yaml")?)?).await?;
        Ok(scaler)
    }

    /// A manifest of `install/` for this namespace. All Pods of the bed share a network stack, so that each replica
    /// has to listen on its own address.
    fn own_addresses(&self, file: &str) -> Result<String> {
        let own_address = "valueFrom: {fieldRef: {fieldPath: status.podIP}}";
        replace(&manifest(file, &self.namespace)?, "value: 0.0.0.0", own_address)
    }

    async fn ready(&self) -> Result<()> {
        for replica in REPLICAS {
            until(format!("{replica} to be ready"), async || match self.get(replica, "/readyz").await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await?;
        }
        Ok(())
    }

    /// The replica's answer.
    async fn get(&self, replica: &str, path: &str) -> Result<(u16, String)> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), &self.namespace);
        // Asked for every time; an API server that is away is asked for nothing.
        let ip =
            pods.get(replica).await?.status.and_then(|status| status.pod_ip).context("no address yet")?;
        get(SocketAddr::new(ip.parse()?, 8080), path).await
    }

    async fn address(&self, replica: &str) -> Result<SocketAddr> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), &self.namespace);
        let ip =
            pods.get(replica).await?.status.and_then(|status| status.pod_ip).context("no address yet")?;
        Ok(SocketAddr::new(ip.parse()?, 8080))
    }

    async fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(REPLICAS[0], "/debug/state").await?.1)?)
    }

    /// Waits until the first replica's state is as wanted.
    async fn until_state(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        until(what, async || {
            let state = self.state().await.map_err(|error| format!("{error:#}"))?;
            if wanted(&state) { Ok(state) } else { Err(format!("{state:#}")) }
        })
        .await
    }

    /// Waits until the route of that name has that hint.
    async fn until_hint(&self, name: &str, hint: &str) -> Result<Value> {
        let wanted = |state: &Value| route(state, name).is_some_and(|route| route["hint"] == hint);
        let state = self.until_state(&format!("{name} to be {hint}"), wanted).await?;
        Ok(route(&state, name).cloned().unwrap_or_default())
    }

    async fn uninstall(self) -> Result<()> {
        self.cluster.delete_namespace(&self.namespace).await
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let answer = http::get(address, path).await?;
    Ok((answer.status.as_u16(), answer.text()))
}

fn manifest(file: &str, namespace: &str) -> Result<String> {
    let yaml = std::fs::read_to_string(paths::root().join("install").join(file))?;
    replace(&yaml, "sluice-system", namespace)
}

/// What is not there to be replaced has changed its name.
fn replace(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "no {from:?} in the manifest");
    Ok(text.replace(from, to))
}

fn crd_yaml(name: &str) -> Result<String> {
    let plural = name.split('.').next().unwrap_or_default();
    Ok(std::fs::read_to_string(paths::root().join(format!("install/crds/http.keda.sh_{plural}.yaml")))?)
}

async fn install_crds(cluster: &Cluster) -> Result<()> {
    for name in [HTTP_SCALED_OBJECTS, INTERCEPTOR_ROUTES] {
        cluster.apply_yaml(&crd_yaml(name)?).await?;
        established(cluster, name).await?;
    }
    Ok(())
}

async fn established(cluster: &Cluster, name: &str) -> Result<()> {
    let crds = Api::<CustomResourceDefinition>::all(cluster.client());
    let is_established = |crd: Option<&CustomResourceDefinition>| {
        let conditions = crd.and_then(|crd| crd.status.as_ref()?.conditions.as_ref());
        conditions.into_iter().flatten().any(|it| it.type_ == "Established" && it.status == "True")
    };
    cluster.wait_for(&crds, name, PATIENCE, is_established).await.map(drop)
}

fn route<'a>(state: &'a Value, name: &str) -> Option<&'a Value> {
    state["routes"].as_array()?.iter().find(|route| route["name"] == name)
}

fn watch<'a>(state: &'a Value, kind: &str) -> &'a Value {
    let watches = state["watches"].as_array().map_or(&[][..], Vec::as_slice);
    watches.iter().find(|watch| watch["kind"] == kind).unwrap_or(&Value::Null)
}

fn all_watching(state: &Value) -> bool {
    let watches = state["watches"].as_array().map_or(&[][..], Vec::as_slice);
    watches.len() == 5 && watches.iter().all(|watch| watch["state"] == "watching")
}

fn problem<'a>(state: &'a Value, source: &str) -> Option<&'a Value> {
    state["problems"].as_array()?.iter().find(|problem| problem["source"] == source)
}

fn http_scaled_object(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "http.keda.sh/v1alpha1", "kind": "HTTPScaledObject",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "hosts": [format!("{name}.example.com")],
            "scaleTargetRef": {"name": name, "kind": "Deployment", "apiVersion": "apps/v1", "service": name, "port": 80},
        },
    })
}

fn interceptor_route(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "http.keda.sh/v1beta1", "kind": "InterceptorRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "target": {"service": name, "portName": "http"},
            "scalingMetric": {"concurrency": {"targetValue": 10}},
            "rules": [{"hosts": [format!("{name}.example.com")]}],
        },
    })
}

/// A Service whose endpoints are nobody's business but the test's.
fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]},
    })
}

fn slice(namespace: &str, service: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": ["10.99.0.1"], "conditions": {"ready": ready}}],
    })
}

#[test]
fn objects_become_routes_and_endpoints_their_readiness() {
    on_the_bed(async |cluster| {
        let scaler = Scaler::install(&cluster).await?;
        let namespace = cluster.namespace("apps").await?;
        cluster
            .apply(&[
                http_scaled_object(&namespace, "shop"),
                interceptor_route(&namespace, "blog"),
                service(&namespace, "shop"),
                service(&namespace, "blog"),
                slice(&namespace, "shop", false),
            ])
            .await?;
        let shop = scaler.until_hint("shop", "notReady").await?;
        let cluster_name = format!("outbound|80|*|shop.{namespace}.svc.cluster.local");
        ensure!(shop["target"]["cluster"] == *cluster_name, "{shop:#}");
        scaler.until_hint("blog", "notReady").await?;
        cluster.apply(&[slice(&namespace, "shop", true)]).await?;
        let shop = scaler.until_hint("shop", "ready").await?;
        ensure!(shop["readyEndpoints"] == 1, "{shop:#}");
        cluster.apply(&[slice(&namespace, "shop", false)]).await?;
        scaler.until_hint("shop", "notReady").await?;
        let routes = ["httpscaledobject/shop", "interceptorroute/blog"];
        cluster.kubectl(&["delete", "--namespace", &namespace, routes[0], routes[1]]).await?;
        scaler.until_state("no routes", |state| state["routes"] == json!([])).await?;
        cluster.delete_namespace(&namespace).await?;
        scaler.uninstall().await
    });
}

#[test]
fn only_config_maps_with_the_label_are_read() {
    on_the_bed(async |cluster| {
        let scaler = Scaler::install(&cluster).await?;
        let namespace = cluster.namespace("apps").await?;
        let map = |name: &str, label: &str| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace, "labels": {"http.keda.sh/response-body": label}},
                "data": {"index.html": "wait"},
            })
        };
        cluster.apply(&[map("page", "true"), map("other", "false")]).await?;
        scaler.until_state("a ConfigMap", |state| watch(state, "ConfigMap")["objects"] == 1).await?;
        cluster.apply(&[map("other", "true"), map("page", "false")]).await?;
        cluster.apply(&[map("third", "true")]).await?;
        let state =
            scaler.until_state("the other two", |state| watch(state, "ConfigMap")["objects"] == 2).await?;
        ensure!(watch(&state, "ConfigMap")["lists"] == 1, "{state:#}");
        cluster.delete_namespace(&namespace).await?;
        scaler.uninstall().await
    });
}

#[test]
fn each_service_leads_where_it_should() {
    on_the_bed(async |cluster| {
        let scaler = Scaler::install(&cluster).await?;
        let slices = Api::<EndpointSlice>::namespaced(cluster.client(), &scaler.namespace);
        let addresses = async |service: &str| -> Result<Vec<String>, String> {
            let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
            let list = slices.list(&of_service).await.map_err(|error| error.to_string())?;
            let mut all: Vec<String> =
                list.iter().flat_map(|slice| &slice.endpoints).flat_map(|it| it.addresses.clone()).collect();
            all.sort();
            Ok(all)
        };
        let mut replicas = Vec::new();
        for replica in REPLICAS {
            replicas.push(scaler.address(replica).await?.ip().to_string());
        }
        let (zero, one) = (vec![replicas[0].clone()], vec![replicas[1].clone()]);
        replicas.sort();
        for (service, wanted) in [
            ("sluice-scaler", &replicas),
            ("sluice-scaler-replicas", &replicas),
            ("sluice-scaler-0", &zero),
            ("sluice-scaler-1", &one),
        ] {
            until(format!("{service} to lead to {wanted:?}"), async || match addresses(service).await? {
                found if found == *wanted => Ok(()),
                found => Err(format!("{found:?}")),
            })
            .await?;
        }
        scaler.uninstall().await
    });
}

#[test]
fn an_api_server_that_restarts_changes_nothing() {
    on_the_bed(async |cluster| {
        let scaler = Scaler::install(&cluster).await?;
        let namespace = cluster.namespace("apps").await?;
        cluster
            .apply(&[
                http_scaled_object(&namespace, "shop"),
                service(&namespace, "shop"),
                slice(&namespace, "shop", true),
                http_scaled_object(&namespace, "blog"),
                service(&namespace, "blog"),
            ])
            .await?;
        scaler.until_hint("shop", "ready").await?;
        let before = scaler.until_hint("blog", "notReady").await?;
        let address = scaler.address(REPLICAS[0]).await?;
        let state = async || -> Result<Value, String> {
            let (_, text) = get(address, "/debug/state").await.map_err(|error| format!("{error:#}"))?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        };
        let bed = cluster.bed().context("needs the bed")?;
        bed.stop_api_server().await?;
        let lost = until("every watch to be lost", async || {
            let state = state().await?;
            let lost = |watch: &Value| watch["state"] == "lost";
            let all = state["watches"].as_array().is_some_and(|watches| watches.iter().all(lost));
            if all { Ok(state) } else { Err(format!("{:#}", state["watches"])) }
        })
        .await?;
        let hint = |name: &str| route(&lost, name).map(|route| route["hint"].clone());
        ensure!(hint("shop") == Some("ready".into()) && hint("blog") == Some("notReady".into()), "{lost:#}");
        let said = problem(&lost, "watch of EndpointSlice").context("nothing is said of it")?;
        ensure!(said["message"].as_str().is_some_and(|it| it.contains("stays in force")), "{said:#}");
        ensure!(get(address, "/readyz").await?.0 == 200, "what was known is still good");
        let metrics = get(address, "/metrics").await?.1;
        ensure!(metrics.contains("sluice_watch_up{kind=\"EndpointSlice\"} 0"), "{metrics}");
        bed.start_api_server().await?;
        let back = scaler.until_state("every watch to be back", all_watching).await?;
        ensure!(route(&back, "blog").map(|route| &route["hint"]) == Some(&before["hint"]), "{back:#}");
        ensure!(problem(&back, "watch of EndpointSlice").is_none(), "{back:#}");
        ensure!(watch(&back, "EndpointSlice")["errors"].as_u64() > Some(0), "{back:#}");
        cluster.apply(&[slice(&namespace, "blog", true), slice(&namespace, "shop", false)]).await?;
        scaler.until_hint("blog", "ready").await?;
        scaler.until_hint("shop", "notReady").await?;
        cluster.delete_namespace(&namespace).await?;
        scaler.uninstall().await
    });
}

#[test]
fn an_object_that_does_not_read_is_said_and_harms_nobody() {
    on_the_bed(async |cluster| {
        let scaler = Scaler::install(&cluster).await?;
        let namespace = cluster.namespace("apps").await?;
        cluster
            .apply(&[
                http_scaled_object(&namespace, "good"),
                service(&namespace, "good"),
                slice(&namespace, "good", true),
            ])
            .await?;
        scaler.until_hint("good", "ready").await?;
        // As one is found that was stored before the schema was there.
        let crds = Api::<CustomResourceDefinition>::all(cluster.client());
        let mut crd = serde_json::to_value(crds.get(HTTP_SCALED_OBJECTS).await?)?;
        crd["metadata"] = json!({"name": HTTP_SCALED_OBJECTS});
        crd["apiVersion"] = json!("apiextensions.k8s.io/v1");
        crd["kind"] = json!("CustomResourceDefinition");
        crd.as_object_mut().context("a CRD")?.remove("status");
        let versions = crd["spec"]["versions"].as_array_mut().context("versions")?;
        for version in versions {
            version["schema"]["openAPIV3Schema"] =
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        }
        cluster.apply(&[crd]).await?;
        let mut bad = http_scaled_object(&namespace, "bad");
        bad["spec"]["scaleTargetRef"]["port"] = json!("http");
        let mut turned_bad = http_scaled_object(&namespace, "good");
        turned_bad["spec"]["hosts"] = json!("good.example.com");
        // The API server takes a moment to forget the old schema.
        until("the objects to be stored", async || {
            cluster.apply(&[bad.clone(), turned_bad.clone()]).await.map_err(|error| error.to_string())
        })
        .await?;
        let (bad, good) =
            (format!("HTTPScaledObject {namespace}/bad"), format!("HTTPScaledObject {namespace}/good"));
        let both = |state: &Value| problem(state, &bad).is_some() && problem(state, &good).is_some();
        let state = scaler.until_state("both problems", both).await?;
        let field = |source: &str| problem(&state, source).map(|problem| problem["field"].clone());
        ensure!(field(&bad) == Some("spec.scaleTargetRef.port".into()), "{state:#}");
        ensure!(field(&good) == Some("spec.hosts".into()), "{state:#}");
        let message = problem(&state, &good).map(|problem| problem["message"].to_string());
        ensure!(message.is_some_and(|it| it.contains("stays in force")), "{state:#}");
        ensure!(route(&state, "good").is_some_and(|route| route["hint"] == "ready"), "{state:#}");
        cluster.apply(&[http_scaled_object(&namespace, "other")]).await?;
        let others = |state: &Value| route(state, "other").is_some();
        scaler.until_state("other objects to be read", others).await?;
        cluster
            .apply(&[http_scaled_object(&namespace, "bad"), http_scaled_object(&namespace, "good")])
            .await?;
        let mended = |state: &Value| problem(state, &bad).is_none() && problem(state, &good).is_none();
        scaler.until_state("both to be well", mended).await?;
        cluster.apply_yaml(&crd_yaml(HTTP_SCALED_OBJECTS)?).await?;
        cluster.delete_namespace(&namespace).await?;
        scaler.uninstall().await
    });
}

#[test]
fn a_kind_that_is_not_installed_is_no_obstacle_and_is_found_when_it_comes() {
    on_the_bed(async |cluster| {
        install_crds(&cluster).await?;
        let crds = Api::<CustomResourceDefinition>::all(cluster.client());
        crds.delete(INTERCEPTOR_ROUTES, &DeleteParams::default()).await?;
        cluster.wait_for(&crds, INTERCEPTOR_ROUTES, PATIENCE, |crd| crd.is_none()).await?;
        let scaler = Scaler::apply(&cluster, Ok).await?;
        scaler.ready().await?;
        let state = scaler.state().await?;
        ensure!(watch(&state, "InterceptorRoute")["state"] == "notInstalled", "{state:#}");
        let said = problem(&state, "watch of InterceptorRoute").context("nothing is said of it")?;
        ensure!(said["message"].as_str().is_some_and(|it| it.contains("install its CRD")), "{said:#}");
        let namespace = cluster.namespace("apps").await?;
        cluster.apply(&[http_scaled_object(&namespace, "shop")]).await?;
        scaler.until_hint("shop", "unknown").await?;
        install_crds(&cluster).await?;
        cluster.apply(&[interceptor_route(&namespace, "blog"), service(&namespace, "blog")]).await?;
        scaler.until_hint("blog", "notReady").await?;
        let state = scaler.until_state("every watch", all_watching).await?;
        ensure!(problem(&state, "watch of InterceptorRoute").is_none(), "{state:#}");
        cluster.delete_namespace(&namespace).await?;
        scaler.uninstall().await
    });
}

#[test]
fn its_rights_are_to_list_and_to_watch_what_it_reads_and_no_more() {
    on_the_bed(async |cluster| {
        let scaler = Scaler::install(&cluster).await?;
        let user = format!("system:serviceaccount:{}:sluice-scaler", scaler.namespace);
        let reviews = Api::<SubjectAccessReview>::all(cluster.client());
        let can = async |verb: &str, resource: &str| -> Result<bool> {
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            let review = serde_json::from_value(json!({
                "metadata": {},
                "spec": {"user": user, "resourceAttributes": {"verb": verb, "group": group, "resource": resource}},
            }))?;
            let review = reviews.create(&PostParams::default(), &review).await?;
            Ok(review.status.context("no answer")?.allowed)
        };
        for resource in [
            HTTP_SCALED_OBJECTS,
            INTERCEPTOR_ROUTES,
            "services",
            "endpointslices.discovery.k8s.io",
            "configmaps",
        ] {
            for verb in ["list", "watch"] {
                ensure!(can(verb, resource).await?, "cannot {verb} {resource}");
            }
            for verb in ["create", "update", "patch", "delete", "deletecollection"] {
                ensure!(!can(verb, resource).await?, "can {verb} {resource}");
            }
        }
        for resource in ["secrets", "pods", "deployments.apps", "scaledobjects.keda.sh", "namespaces"] {
            for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
                ensure!(!can(verb, resource).await?, "can {verb} {resource}");
            }
        }
        scaler.uninstall().await
    });
}
