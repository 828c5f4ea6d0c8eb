//! Objects as users have written and stored them for the add-on read as what they say.

use serde::de::DeserializeOwned;
use sluice_api::{
    ConcurrencyMetric, HeaderMatch, HttpScaledObject, InterceptorRoute, Overflow, RequestRateMetric,
    ResponseMode,
};

const HTTP_SCALED_OBJECT: &str = r#"
apiVersion: http.keda.sh/v1alpha1
kind: HTTPScaledObject
metadata:
  name: shop
  namespace: store
  creationTimestamp: "2026-01-02T03:04:05Z"
spec:
  hosts: [shop.example.com, "*.shop.example.com"]
  pathPrefixes: [/api, /v2]
  headers:
    - name: x-tenant
      value: gold
    - name: x-any
    - name: x-empty
      value: ""
  scaleTargetRef:
    name: shop
    apiVersion: apps/v1
    kind: Deployment
    service: shop-svc
    portName: http
  coldStartTimeoutFailoverRef: {service: away, port: 80}
  replicas: {min: 0, max: 7}
  targetPendingRequests: 20
  scaledownPeriod: 60
  initialCooldownPeriod: 10
  scalingMetric:
    requestRate: {targetValue: 5}
  timeouts: {conditionWait: 20s, responseHeader: 1m30s}
status:
  targetWorkload: apps/v1/Deployment/shop
  conditions:
    - {type: Ready, status: "True", reason: Reconciled, message: "", lastTransitionTime: null}
    - {type: Ready, status: "True", reason: Reconciled, message: "", lastTransitionTime: "2026-01-02T03:04:05Z"}
"#;

const INTERCEPTOR_ROUTE: &str = r#"
apiVersion: http.keda.sh/v1beta1
kind: InterceptorRoute
metadata: {name: shop, namespace: store}
spec:
  target: {service: shop-svc, port: 8080}
  rules:
    - hosts: [shop.example.com]
      paths: [{value: /api}]
      headers: [{name: x-tenant, value: gold}]
    - {}
  scalingMetric:
    concurrency: {targetValue: 10}
    requestRate: {targetValue: 5, window: 2m, granularity: 10s}
  coldStart:
    fallback: {service: {name: away, portName: http}}
    placeholder:
      response: {statusCode: 503, body: "please hold", headers: {retry-after: "3"}}
    maxPendingRequests: 100
    overflow: Placeholder
  timeouts: {readiness: 30s, request: 0s, responseHeader: 5s}
  staticRoutes:
    - rules: [{paths: [{value: /healthz}]}]
      response: {bodyFromConfigMap: {name: pages, key: ok.html}}
    - rules: [{hosts: [a]}]
      response: {body: moved}
      responseMode: Always
"#;

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_saphyr::from_str(yaml).expect("the object reads")
}

#[test]
fn every_field_of_an_http_scaled_object_is_read() {
    let object: HttpScaledObject = read(HTTP_SCALED_OBJECT);
    let spec = object.spec;
    assert_eq!(spec.hosts.unwrap(), ["shop.example.com", "*.shop.example.com"]);
    assert_eq!(spec.path_prefixes.unwrap(), ["/api", "/v2"]);
    let value = |name: &str, value: Option<&str>| HeaderMatch {
        name: name.to_owned(),
        value: value.map(str::to_owned),
    };
    let headers = [value("x-tenant", Some("gold")), value("x-any", None), value("x-empty", Some(""))];
    assert_eq!(spec.headers.unwrap(), headers);
    let target = spec.scale_target_ref;
    assert_eq!(target.service, "shop-svc");
    assert_eq!((target.port, target.port_name.as_deref()), (None, Some("http")));
    assert_eq!(target.api_version.as_deref(), Some("apps/v1"));
    assert_eq!(target.kind.as_deref(), Some("Deployment"));
    assert_eq!(target.name.as_deref(), Some("shop"));
    let failover = spec.cold_start_timeout_failover_ref.unwrap();
    assert_eq!((failover.service.as_str(), failover.port, failover.timeout_seconds), ("away", Some(80), 30));
    let replicas = spec.replicas.unwrap();
    assert_eq!((replicas.min, replicas.max), (Some(0), Some(7)));
    assert_eq!(spec.target_pending_requests, Some(20));
    assert_eq!(spec.scaledown_period, Some(60));
    assert_eq!(spec.initial_cooldown_period, Some(10));
    let metric = spec.scaling_metric.unwrap();
    assert_eq!(metric.concurrency, None);
    let rate = RequestRateMetric { target_value: 5, window: "1m".to_owned(), granularity: "1s".to_owned() };
    assert_eq!(metric.request_rate, Some(rate));
    let timeouts = spec.timeouts.unwrap();
    assert_eq!(timeouts.condition_wait.as_deref(), Some("20s"));
    assert_eq!(timeouts.response_header.as_deref(), Some("1m30s"));
    let status = object.status.unwrap();
    assert_eq!(status.target_workload.as_deref(), Some("apps/v1/Deployment/shop"));
    assert_eq!(
        status.conditions.len(),
        1,
        "a condition without a transition time is dropped, the object is not"
    );
}

#[test]
fn an_http_scaled_object_needs_a_target_and_nothing_else() {
    let object: HttpScaledObject =
        read("{metadata: {name: a}, spec: {scaleTargetRef: {service: a}, hosts: null}}");
    assert_eq!(object.spec.hosts, None);
    assert_eq!(object.spec.scaling_metric, None);
    let none = serde_saphyr::from_str::<HttpScaledObject>("{metadata: {name: a}, spec: {}}");
    assert!(none.unwrap_err().to_string().contains("scaleTargetRef"));
    let empty: HttpScaledObject =
        read("{metadata: {}, spec: {scaleTargetRef: {service: a}, scalingMetric: {concurrency: {}}}}");
    assert_eq!(empty.spec.scaling_metric.unwrap().concurrency, Some(ConcurrencyMetric { target_value: 100 }));
}

#[test]
fn every_field_of_an_interceptor_route_is_read() {
    let object: InterceptorRoute = read(INTERCEPTOR_ROUTE);
    let spec = object.spec;
    assert_eq!((spec.target.service.as_str(), spec.target.port), ("shop-svc", Some(8080)));
    let rules = spec.rules.unwrap();
    assert_eq!(rules.len(), 2);
    assert_eq!(rules[0].paths.as_ref().unwrap()[0].value, "/api");
    assert_eq!(rules[1].hosts, None);
    let rate = spec.scaling_metric.request_rate.unwrap();
    assert_eq!((rate.target_value, rate.window.as_str(), rate.granularity.as_str()), (5, "2m", "10s"));
    assert_eq!(spec.scaling_metric.concurrency.unwrap().target_value, 10);
    let cold = spec.cold_start.unwrap();
    assert_eq!(cold.fallback.unwrap().service.port_name.as_deref(), Some("http"));
    let placeholder = cold.placeholder.unwrap().response;
    assert_eq!((placeholder.status_code, placeholder.body.as_deref()), (Some(503), Some("please hold")));
    assert_eq!(placeholder.headers.unwrap()["retry-after"], "3");
    assert_eq!((cold.max_pending_requests, cold.overflow), (Some(100), Some(Overflow::Placeholder)));
    let timeouts = spec.timeouts.unwrap();
    assert_eq!(timeouts.readiness.as_deref(), Some("30s"));
    assert_eq!(timeouts.request.as_deref(), Some("0s"));
    assert_eq!(timeouts.response_header.as_deref(), Some("5s"));
    let statics = spec.static_routes.unwrap();
    let page = statics[0].response.body_from_config_map.as_ref().unwrap();
    assert_eq!((page.name.as_str(), page.key.as_deref()), ("pages", Some("ok.html")));
    assert_eq!(
        (statics[0].response_mode, statics[1].response_mode),
        (ResponseMode::WhenUnavailable, ResponseMode::Always)
    );
}

#[test]
fn what_is_read_is_written_back_the_same() {
    let object: HttpScaledObject = read(HTTP_SCALED_OBJECT);
    let json = serde_json::to_value(&object).unwrap();
    assert_eq!(serde_json::from_value::<HttpScaledObject>(json).unwrap(), object);
    let object: InterceptorRoute = read(INTERCEPTOR_ROUTE);
    let json = serde_json::to_value(&object).unwrap();
    assert_eq!(json["spec"]["rules"][1], serde_json::json!({}), "what was left out stays out");
    assert_eq!(serde_json::from_value::<InterceptorRoute>(json).unwrap(), object);
}

#[test]
fn the_definitions_are_the_add_ons() {
    let [http_scaled_object, interceptor_route] = sluice_api::definitions();
    let crd = serde_json::to_value(http_scaled_object).unwrap();
    assert_eq!(crd["metadata"]["name"], "httpscaledobjects.http.keda.sh");
    assert_eq!(crd["spec"]["names"]["kind"], "HTTPScaledObject");
    assert_eq!(crd["spec"]["names"]["shortNames"][0], "httpso");
    let version = &crd["spec"]["versions"][0];
    assert_eq!(version["name"], "v1alpha1");
    assert!(version["subresources"]["status"].is_object());
    let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!(spec["headers"]["x-kubernetes-list-map-keys"][0], "name");
    let rule = &spec["scaleTargetRef"]["x-kubernetes-validations"][0]["rule"];
    assert_eq!(rule, "has(self.port) != has(self.portName)");
    assert_eq!(spec["scalingMetric"]["properties"]["requestRate"]["properties"]["window"]["default"], "1m");

    let crd = serde_json::to_value(interceptor_route).unwrap();
    assert_eq!(crd["metadata"]["name"], "interceptorroutes.http.keda.sh");
    let version = &crd["spec"]["versions"][0];
    assert_eq!(version["name"], "v1beta1");
    let spec = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let required = spec["required"].as_array().unwrap();
    assert!(required.contains(&"target".into()) && required.contains(&"scalingMetric".into()));
    assert_eq!(spec["properties"]["coldStart"]["x-kubernetes-validations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["properties"]["coldStart"]["properties"]["maxPendingRequests"]["minimum"], 1.0);
}

/// An API server takes no references, and takes `null` for left out only where a schema does not allow it.
#[test]
fn the_definitions_are_plain_and_described() {
    fn look(place: &str, schema: &serde_json::Value) {
        for keyword in ["$ref", "nullable", "anyOf", "oneOf", "allOf", "title", "not"] {
            assert!(schema.get(keyword).is_none(), "{place} has {keyword}");
        }
        assert!(schema["type"].is_string(), "{place} has no type");
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(!description.contains(['`', '\n']), "{place} reads like source: {description}");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{place}.{name} is not described");
            look(&format!("{place}.{name}"), property);
        }
        for (part, place) in
            [("items", format!("{place}[]")), ("additionalProperties", format!("{place}{{}}"))]
        {
            if let Some(part) = schema.get(part) {
                look(&place, part);
            }
        }
    }
    for definition in sluice_api::definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        let [version] = &definition["spec"]["versions"].as_array().unwrap()[..] else {
            panic!("one version")
        };
        look(definition["spec"]["names"]["kind"].as_str().unwrap(), &version["schema"]["openAPIV3Schema"]);
    }
}
