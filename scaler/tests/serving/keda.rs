//! The external scaler, as KEDA sees it.

use crate::bed::{APP, Bed, app, counts, reference, slice, within};
use sluice_proto::keda::{
    GetMetricsRequest, IsActiveResponse, MetricSpec, MetricValue,
    external_scaler_client::ExternalScalerClient,
};
use tonic::{Code, Streaming, transport::Channel};

const ROUTE: &str = "
apiVersion: http.keda.sh/v1beta1
kind: InterceptorRoute
metadata: {name: route, namespace: ns}
spec:
  target: {service: app, port: 80}
  rules: [{hosts: [route.example.com]}]
  scalingMetric:
    concurrency: {targetValue: 5}
    requestRate: {targetValue: 7}
";

async fn told(stream: &mut Streaming<IsActiveResponse>) -> bool {
    within(stream.message()).await.unwrap().unwrap().result
}

async fn values(
    keda: &mut ExternalScalerClient<Channel>,
    reference: sluice_proto::keda::ScaledObjectRef,
    metric: &str,
) -> Vec<MetricValue> {
    let request = GetMetricsRequest { scaled_object_ref: Some(reference), metric_name: metric.to_owned() };
    within(keda.get_metrics(request)).await.unwrap().into_inner().metric_values
}

#[tokio::test]
async fn specs_are_told_by_the_add_ons_names_in_both_fields() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.write("route.yaml", ROUTE);
    bed.until(|state| state["routes"].as_array().unwrap().len() == 2).await;
    let mut keda = bed.keda().await;
    let spec = |name: &str, target| MetricSpec {
        metric_name: name.to_owned(),
        target_size: target,
        target_size_float: target as f64,
    };
    let specs = within(keda.get_metric_spec(app())).await.unwrap().into_inner().metric_specs;
    assert_eq!(specs, [spec("http-ns_002Fapp", 100)]);
    let route = reference("interceptorRoute", "route");
    let specs = within(keda.get_metric_spec(route)).await.unwrap().into_inner().metric_specs;
    assert_eq!(specs, [spec("http_route_concurrency", 5), spec("http_route_rate", 7)]);
}

#[tokio::test]
async fn values_are_told_in_both_fields_and_by_name() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.write("route.yaml", ROUTE);
    bed.until(|state| state["routes"].as_array().unwrap().len() == 2).await;
    let mut keda = bed.keda().await;
    assert!(!within(keda.is_active(app())).await.unwrap().into_inner().result);
    let none = values(&mut keda, app(), "http-ns_002Fapp").await;
    assert_eq!((none[0].metric_value, none[0].metric_value_float), (0, 0.0));
    let mut worker = bed.worker(1).await;
    worker.report(vec![]).await;
    worker.report(vec![counts(3, 3, 3)]).await;
    assert!(within(keda.is_active(app())).await.unwrap().into_inner().result);
    let held = values(&mut keda, app(), "http-ns_002Fapp").await;
    assert_eq!(held[0].metric_name, "http-ns_002Fapp");
    assert_eq!((held[0].metric_value, held[0].metric_value_float), (3, 3.0));
    assert!(values(&mut keda, app(), "something-else").await.is_empty());
    let route = reference("interceptorRoute", "route");
    assert_eq!(values(&mut keda, route.clone(), "http_route_rate").await.len(), 1);
    assert_eq!(values(&mut keda, route, "http_route_concurrency").await[0].metric_value_float, 0.0);
}

#[tokio::test]
async fn what_cannot_be_answered_is_an_error_that_names_it() {
    let bed = Bed::start().await;
    bed.until(|_| true).await;
    let mut keda = bed.keda().await;
    within(async { while bed.get("/readyz").await.0 != 200 {} }).await;
    let status = within(keda.is_active(app())).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("HTTPScaledObject ns/app"), "{status}");
    let neither = reference("scalerAddress", "x");
    for status in [
        within(keda.is_active(neither.clone())).await.unwrap_err(),
        within(keda.get_metric_spec(neither.clone())).await.unwrap_err(),
        within(keda.stream_is_active(neither.clone())).await.unwrap_err(),
        within(keda.stream_metric_spec(neither)).await.unwrap_err(),
        within(keda.get_metrics(GetMetricsRequest::default())).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_used_is_not_taken_for_one_that_is_not_there() {
    let bed = Bed::start().await;
    bed.write("app.yaml", &APP.replace("port: 80}", "port: 80, portName: http}"));
    bed.until(|state| state["routes"].as_array().unwrap().len() == 1).await;
    let status = within(bed.keda().await.get_metric_spec(app())).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("spec.scaleTargetRef names a port twice"), "{status}");
}

#[tokio::test]
async fn one_connection_carries_all_of_kedas_streams() {
    let bed = Bed::start().await;
    let mut keda = bed.keda().await;
    let mut streams = Vec::new();
    for number in 0..1_000 {
        let reference = reference("httpScaledObject", &format!("app-{number}"));
        let mut stream = within(keda.stream_is_active(reference)).await.unwrap().into_inner();
        assert!(!told(&mut stream).await);
        streams.push(stream);
    }
    assert!(bed.get("/metrics").await.1.contains("sluice_keda_streams 1000\n"));
}

#[tokio::test]
async fn the_edge_is_told_on_the_stream() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut keda = bed.keda().await;
    let mut stream = within(keda.stream_is_active(app())).await.unwrap().into_inner();
    assert!(!told(&mut stream).await);
    let mut worker = bed.worker(1).await;
    worker.report(vec![]).await;
    worker.report(vec![counts(1, 1, 1)]).await;
    assert!(told(&mut stream).await);
    let state = bed.state().await;
    let expected = serde_json::json!([
        {"scaledObject": "ns/so", "route": "HTTPScaledObject/ns/app", "lastSent": true},
    ]);
    assert_eq!(state["kedaStreams"], expected);
    drop((stream, keda));
    bed.until(|state| state["kedaStreams"].as_array().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_stream_that_was_opened_before_its_object_is_there_tells_when_it_comes() {
    let bed = Bed::start().await;
    let mut keda = bed.keda().await;
    let mut stream = within(keda.stream_is_active(app())).await.unwrap().into_inner();
    assert!(!told(&mut stream).await);
    assert_eq!(bed.state().await["kedaStreams"][0]["route"], serde_json::Value::Null);
    let mut specs = within(keda.stream_metric_spec(app())).await.unwrap().into_inner();
    bed.write("app.yaml", APP);
    let spec = within(specs.message()).await.unwrap().unwrap();
    assert_eq!(spec.metric_specs[0].target_size, 100);
    let mut worker = bed.worker(1).await;
    worker.report(vec![]).await;
    worker.report(vec![counts(1, 1, 1)]).await;
    assert!(told(&mut stream).await);
    bed.write("slice.yaml", &slice(true));
    bed.until(|state| state["routes"][0]["hint"] == "ready").await;
    let changed = APP.replace("spec:\n  hosts", "spec:\n  targetPendingRequests: 20\n  hosts");
    bed.write("app.yaml", &changed);
    let spec = within(specs.message()).await.unwrap().unwrap();
    assert_eq!(spec.metric_specs[0].target_size, 20);
}

#[tokio::test]
async fn who_moves_to_an_interceptor_route_of_the_same_name_loses_nothing_meanwhile() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.write("route.yaml", &ROUTE.replace("name: route", "name: app"));
    bed.until(|state| state["routes"].as_array().unwrap().len() == 2).await;
    let mut keda = bed.keda().await;
    let mut worker = bed.worker(1).await;
    worker.report(vec![]).await;
    let mut said = counts(2, 2, 2);
    said.route = sluice_scaler::index::route_id(sluice_core::route::Kind::InterceptorRoute, "ns", "app").0;
    worker.report(vec![said]).await;
    let value = values(&mut keda, app(), "http-ns_002Fapp").await;
    assert_eq!(value[0].metric_value, 2, "the ScaledObject still names the HTTPScaledObject");
}
