//! What the mesh's own objects say of a request holds for one that waits, and Sluice is not in the way of others.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sluice_envoyfilter::{Binding, Settings};
use sluice_tests::{
    cluster::istio::{self, App, GATEWAY, GatewayOptions, World, gateway_object},
    http::{self, Answer},
    wait,
};
use std::collections::{BTreeMap, BTreeSet};

/// The headers that the app got, as its page `/headers` shows them.
fn app_headers(answer: &Answer) -> Result<BTreeMap<String, String>> {
    Ok(answer.json::<Vec<(String, String)>>()?.into_iter().collect())
}

/// An app that is found by the cluster that routes choose, asleep.
async fn chosen(world: &World, name: &str) -> Result<App> {
    let app = App::create(&world.istio, &world.namespace, name).await?;
    world.cluster.apply(&[app.scaled_object(&[], &[])]).await?;
    world.matched(&app).await?;
    Ok(app)
}

fn with(mut destination: Value, header: &str, value: &str) -> Value {
    destination["headers"] = json!({"request": {"set": {header: value}}});
    destination
}

#[test]
fn a_rewrite_and_a_header_match_hold_for_requests_that_waited() {
    istio::run("rewrite", async |world| {
        let (shop, beta) = (chosen(&world, "shop").await?, chosen(&world, "beta").await?);
        let routes = json!([
            {"match": [{"headers": {"x-beta": {"exact": "yes"}}}], "route": [beta.destination()]},
            {"match": [{"uri": {"prefix": "/old"}}], "rewrite": {"uri": "/new"}, "route": [shop.destination()]},
            {"route": [with(shop.destination(), "x-route", "plain")]},
        ]);
        world.cluster.apply(&[shop.virtual_service(GATEWAY, routes)]).await?;
        world.known(&shop).await?;

        let rewritten = world.wake(&shop, &shop.host(), "/old/a?b=c").await?;
        ensure!(rewritten.text() == "sluice-test-app: GET /new/a\n", "{}", rewritten.text());
        ensure!(beta.pods().await?.is_empty(), "a request for the shop woke beta");

        let mut request = http::get_request(&shop.host(), "/headers")?;
        request.headers_mut().insert("x-beta", "yes".parse()?);
        let address = world.address().await?;
        let request = tokio::spawn(http::request(address, request));
        world.held(&beta, 1).await?;
        beta.scale(1).await?;
        let answer = request.await??;
        let headers = app_headers(&answer)?;
        ensure!(headers.get("x-beta").is_some_and(|value| value == "yes"), "{headers:?}");
        ensure!(!headers.contains_key("x-route"), "the plain route's header: {headers:?}");
        Ok(())
    });
}

#[test]
fn weights_are_kept_for_requests_that_waited() {
    weighted("weights", |_| Vec::new());
}

/// The host says nothing of where a request goes: each has those that go to it.
#[test]
fn weights_are_kept_where_both_objects_have_the_routes_host() {
    weighted("weights-by-host", |old| vec![old.host()]);
}

/// Two apps, asleep, behind one route, with objects for these hosts.
fn weighted(name: &'static str, hosts: impl Fn(&App) -> Vec<String> + Send + 'static) {
    const REQUESTS: u64 = 40;
    istio::run(name, async move |world| {
        let old = App::create(&world.istio, &world.namespace, "old").await?;
        let new = App::create(&world.istio, &world.namespace, "new").await?;
        let hosts = hosts(&old);
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        for app in [&old, &new] {
            world.cluster.apply(&[app.scaled_object(&hosts, &[])]).await?;
            world.matched(app).await?;
        }
        let share = |app: &App| {
            let mut destination = with(app.destination(), "x-share", &app.name);
            destination["weight"] = json!(50);
            destination
        };
        world
            .cluster
            .apply(&[old.virtual_service(GATEWAY, json!([{"route": [share(&old), share(&new)]}]))])
            .await?;
        world.known(&old).await?;
        let requests = (0..REQUESTS).map(|_| world.send(&old.host(), "/headers")).collect::<Vec<_>>();
        let held = async |app: &App| -> Result<u64> {
            let replicas = world.sluice.replicas().await?;
            let state = replicas.first().context("no scaler")?.state().await?;
            Ok(state.route(&app.namespace, &app.name).map_or(0, |route| route.held))
        };
        let shares =
            wait::until("all requests to be held", async || match (held(&old).await, held(&new).await) {
                (Ok(old), Ok(new)) if old + new == REQUESTS => Ok((old, new)),
                other => Err(format!("{other:?}")),
            })
            .await?;
        ensure!(shares.0 > 0 && shares.1 > 0, "all went one way: {shares:?}");
        old.scale(1).await?;
        new.scale(1).await?;
        let mut seen = BTreeMap::<String, u64>::new();
        for request in requests {
            let answer = request.await??;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            let share = app_headers(&answer)?.remove("x-share").context("no share")?;
            *seen.entry(share).or_default() += 1;
        }
        let wanted = BTreeMap::from([("old".to_owned(), shares.0), ("new".to_owned(), shares.1)]);
        ensure!(seen == wanted, "held {wanted:?}, answered {seen:?}");
        Ok(())
    });
}

/// As istiod deploys one: found by a Gateway's name, by HTTPRoutes as by the EnvoyFilter.
#[test]
fn a_gateway_of_the_gateway_api_holds_wakes_and_releases() {
    istio::run("httproute", async |world| {
        let (shop, api) = (chosen(&world, "shop").await?, chosen(&world, "api").await?);
        let options = GatewayOptions::of_gateway_api("edge", &world.namespace, 18081);
        let service = format!("{}.{}.svc.cluster.local", options.name, world.namespace);
        let backend = |app: &App| json!({"name": app.name, "port": 80});
        let rewrite = json!({"type": "URLRewrite", "urlRewrite": {
            "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"},
        }});
        world
            .cluster
            .apply(&[
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "metadata": {"name": "edge", "namespace": world.namespace},
                    "spec": {
                        "gatewayClassName": "istio",
                        // istiod deploys nothing then, and takes what is behind this Service.
                        "addresses": [{"type": "Hostname", "value": service}],
                        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
                    },
                }),
                json!({
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "HTTPRoute",
                    "metadata": {"name": "shop", "namespace": world.namespace},
                    "spec": {
                        "parentRefs": [{"name": "edge"}],
                        "hostnames": [shop.host()],
                        "rules": [
                            {
                                "matches": [{"path": {"type": "PathPrefix", "value": "/api"}}],
                                "filters": [rewrite],
                                "backendRefs": [backend(&api)],
                            },
                            {"backendRefs": [backend(&shop)]},
                        ],
                    },
                }),
            ])
            .await?;
        let edge = world.istio.gateway(options).await?;
        let binding = Binding::Gateways(vec!["edge".to_owned()]);
        let namespace = world.namespace.clone();
        let settings = Settings { namespace, binding, ..Settings::default() };
        world.sluice.apply(&world.sluice.manifest(&settings)?).await?;
        edge.routes(&shop.host()).await?;
        world.sluice.linked(&[&world.gateway, &edge]).await?;

        let address = edge.address(80).await?;
        for (app, path, wanted) in [(&api, "/api/x", "GET /v2/x"), (&shop, "/x", "GET /x")] {
            let request = tokio::spawn(http::request(address, http::get_request(&shop.host(), path)?));
            world.held(app, 1).await?;
            app.scale(1).await?;
            let answer = request.await??;
            ensure!(answer.status == 200 && answer.text().contains(wanted), "{answer:?}");
            ensure!(answer.header("x-keda-http-cold-start") == "true", "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn what_an_authorization_policy_refuses_wakes_nothing() {
    istio::run("refused", async |world| {
        let app = world.app("shop").await?;
        let policy = format!("no-secrets-{}", world.namespace);
        world
            .cluster
            .apply(&[json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "AuthorizationPolicy",
                "metadata": {"name": policy, "namespace": istio::NAMESPACE},
                "spec": {
                    "selector": {"matchLabels": {"istio": "ingressgateway"}},
                    "action": "DENY",
                    "rules": [{"to": [{"operation": {"hosts": [app.host()], "paths": ["/secret"]}}]}],
                },
            })])
            .await?;
        // Before the policy is there, the request would be held: one at a time, until one is refused.
        let refused = wait::until("the policy to work", async || {
            let host = app.host();
            let request = world.get(&host, "/secret");
            match tokio::time::timeout(std::time::Duration::from_millis(200), request).await {
                Ok(Ok(answer)) if answer.status == 403 => Ok(answer),
                Ok(other) => Err(format!("{other:?}")),
                Err(_) => Err("it is held".to_owned()),
            }
        })
        .await?;
        ensure!(refused.text() == "RBAC: access denied", "{refused:?}");
        world.held(&app, 0).await?;
        let arrivals = async || -> Result<Vec<u64>> {
            let mut all = Vec::new();
            for replica in world.sluice.replicas().await? {
                let state = replica.state().await?;
                all.push(state.route(&app.namespace, &app.name).map_or(0, |route| route.arrivals));
            }
            Ok(all)
        };
        let before = arrivals().await?;
        for _ in 0..20 {
            let answer = world.get(&app.host(), "/secret").await?;
            ensure!(answer.status == 403, "{answer:?}");
        }
        // What was counted by then is known when a later request is.
        world.wake(&app, &app.host(), "/").await?;
        let after = arrivals().await?;
        ensure!(
            after.iter().zip(&before).all(|(after, before)| *after == before + 1),
            "refused requests were counted: {before:?}, then {after:?}"
        );
        let policies = ["delete", "authorizationpolicy", &policy, "--namespace", istio::NAMESPACE];
        world.cluster.kubectl(&policies).await.map(drop)
    });
}

/// The same requests to a gateway with the filter and to one without.
#[test]
fn routes_that_sluice_does_not_know_are_as_without_it() {
    istio::run("unknown", async |world| {
        let plain = world
            .istio
            .gateway(GatewayOptions {
                name: "plain".to_owned(),
                namespace: world.namespace.clone(),
                labels: BTreeMap::from([("istio".to_owned(), world.namespace.clone())]),
                ports: vec![(80, 18082)],
                ..GatewayOptions::default()
            })
            .await?;
        let selector = json!({"istio": world.namespace});
        world.cluster.apply(&[gateway_object("plain", &world.namespace, &selector)]).await?;
        let up = App::create(&world.istio, &world.namespace, "up").await?;
        let down = App::create(&world.istio, &world.namespace, "down").await?;
        // One that Sluice knows, so that its table is not empty.
        let known = world.app("known").await?;
        let exact = |path: &str| json!([{"uri": {"exact": path}}]);
        let mut service = up.virtual_service(
            GATEWAY,
            json!([
                {"match": exact("/redirect"), "redirect": {"uri": "/elsewhere"}},
                {"match": exact("/direct"), "directResponse": {"status": 418, "body": {"string": "a pot"}}},
                {"match": exact("/fault"), "fault": {"abort": {"httpStatus": 555, "percentage": {"value": 100}}},
                    "route": [up.destination()]},
                {"match": exact("/down"), "route": [down.destination()]},
                {"match": exact("/nothing"), "route": [{"destination": {"host": "nothing.example.com"}}]},
                {"route": [up.destination()]},
            ]),
        );
        service["spec"]["gateways"] = json!([GATEWAY, "plain"]);
        world.cluster.apply(&[service]).await?;
        up.scale(1).await?;
        up.awake().await?;
        for gateway in [&world.gateway, &plain] {
            gateway.routes(&up.host()).await?;
            let healthy = format!("{}::", up.cluster_name());
            gateway
                .says("/clusters", "the app's endpoint", |page| {
                    let mut lines = page.lines().filter(|line| line.starts_with(&healthy));
                    lines.any(|line| line.ends_with("health_flags::healthy"))
                })
                .await?;
        }
        world.sluice.linked(&[&world.gateway]).await?;

        let addresses = [world.address().await?, plain.address(80).await?];
        let unknown = format!("nobody.{}.example.com", world.namespace);
        let paths = ["/", "/headers", "/redirect", "/direct", "/fault", "/down", "/nothing"];
        let requests = paths.map(|path| (up.host(), path)).into_iter().chain([(unknown, "/")]);
        let mut statuses = BTreeSet::new();
        for (host, path) in requests {
            let mut seen = Vec::new();
            for address in addresses {
                seen.push(comparable(&http::request(address, http::get_request(&host, path)?).await?)?);
            }
            ensure!(seen[0] == seen[1], "{host}{path}: with Sluice {:?}, without {:?}", seen[0], seen[1]);
            statuses.insert(seen[0].0);
        }
        let all = BTreeSet::from([200, 301, 404, 418, 503, 555]);
        ensure!(statuses.is_superset(&all), "the requests were to show more than {statuses:?}");
        ensure!(known.pods().await?.is_empty(), "they woke an app");
        Ok(())
    });
}

/// What two gateways must agree on of an answer: all but what is another one in every answer.
fn comparable(answer: &Answer) -> Result<(u16, BTreeMap<String, String>, String)> {
    let own = ["date", "x-envoy-upstream-service-time", "x-request-id"];
    // On the bed a client's address is that of the gateway it speaks to.
    let names = ["x-forwarded-for", "x-envoy-external-address", "x-envoy-decorator-operation"];
    let mut headers = BTreeMap::new();
    for (name, value) in &answer.headers {
        if !own.contains(&name.as_str()) && !names.contains(&name.as_str()) {
            headers.insert(name.to_string(), value.to_str()?.to_owned());
        }
    }
    let text = match app_headers(answer) {
        Ok(mut got) => {
            got.retain(|name, _| !own.contains(&name.as_str()) && !names.contains(&name.as_str()));
            // The page's length follows from what was taken out.
            headers.remove("content-length");
            format!("{got:?}")
        }
        Err(_) => answer.text(),
    };
    Ok((answer.status.as_u16(), headers, text))
}
