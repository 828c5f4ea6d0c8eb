//! HTTP, gRPC health and reflection.

use crate::bed::{APP, Bed, counts, slice, within};
use sluice_proto::link::{Completions, Method};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

#[tokio::test]
async fn it_lives_and_is_ready_once_objects_are_read() {
    let bed = Bed::start().await;
    assert_eq!(bed.get("/livez").await.0, 200);
    within(async { while bed.get("/readyz").await.0 != 200 {} }).await;
    assert_eq!(bed.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn metrics_have_the_add_ons_names_and_labels() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let mut worker = bed.worker(1).await;
    worker.report(vec![]).await;
    let mut said = counts(2, 1, 3);
    said.rejections = 4;
    said.cold_starts = 1;
    said.hold_buckets = vec![0; 17];
    said.hold_buckets[2] = 1;
    said.hold_us = 20_000;
    let mut duration_buckets = vec![0; 15];
    duration_buckets[0] = 5;
    said.completions = vec![Completions {
        method: Method::Get.into(),
        code: 200,
        count: 5,
        duration_buckets,
        duration_us: 10_000,
    }];
    worker.report(vec![said]).await;
    let (status, text) = bed.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"interceptor_request_count_total{code="200",method="GET",route_name="app",route_namespace="ns"} 5"#,
        r#"interceptor_request_duration_seconds_count{code="200",method="GET",route_name="app",route_namespace="ns"} 5"#,
        r#"interceptor_request_duration_seconds_bucket{le="0.005",code="200",method="GET",route_name="app",route_namespace="ns"} 5"#,
        r#"interceptor_request_concurrency{route_name="app",route_namespace="ns"} 2"#,
        r#"interceptor_cold_start_rejections_total{route_name="app",route_namespace="ns"} 4"#,
        r#"sluice_held_requests{route_name="app",route_namespace="ns"} 1"#,
        r#"sluice_cold_starts_total{route_name="app",route_namespace="ns"} 1"#,
        r#"sluice_hold_duration_seconds_sum{route_name="app",route_namespace="ns"} 0.02"#,
        r#"sluice_hold_duration_seconds_bucket{le="0.025",route_name="app",route_namespace="ns"} 1"#,
        r#"sluice_hold_duration_seconds_bucket{le="+Inf",route_name="app",route_namespace="ns"} 1"#,
        "sluice_link_streams 1",
        "sluice_config_problems 0",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn what_gateways_have_shown_is_listed() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    let evidence = async || {
        let (status, text) = bed.get("/debug/evidence").await;
        assert_eq!(status, 200);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(evidence().await, serde_json::json!({"workers": 0, "objects": []}));
    let mut worker = bed.worker(1).await;
    worker.report(vec![]).await;
    assert_eq!(evidence().await, serde_json::json!({"workers": 1, "objects": []}));
    let mut said = counts(1, 1, 0);
    (said.lag_buckets, said.hold_buckets) = (vec![0; 14], vec![0; 17]);
    for (lag_us, hold_us) in [(100_000, 900_000), (110_000, 500_000), (9_000_000, 9_100_000)] {
        bed.write("slice.yaml", &slice(true));
        bed.until(|state| state["routes"][0]["hint"] == "ready").await;
        said.arrivals += 1;
        said.lag_buckets[7] += 1;
        said.lag_us += lag_us;
        said.hold_buckets[6] += 1;
        said.hold_us += hold_us;
        worker.report(vec![said.clone()]).await;
        bed.write("slice.yaml", &slice(false));
        bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    }
    let slow = serde_json::json!({
        "kind": "HTTPScaledObject", "namespace": "ns", "name": "app",
        "endpointLag": {"wakes": 3, "lagUs": 110_000, "holdUs": 3_500_000},
    });
    assert_eq!(evidence().await["objects"], serde_json::json!([slow]));
    said.mismatches = 2;
    worker.report(vec![said.clone()]).await;
    let mut astray = slow.clone();
    astray["mismatches"] = 2.into();
    assert_eq!(evidence().await["objects"], serde_json::json!([astray]));
    // Another that asks for the same, and comes before it by its name.
    bed.write("twin.yaml", &APP.replace("name: app", "name: twin"));
    bed.until(|state| state["routes"].as_array().unwrap().len() == 2).await;
    let shadowed = evidence().await["objects"][0].clone();
    let conflict = shadowed["conflict"].as_str().unwrap();
    assert!(conflict.contains("those of the HTTPScaledObject ns/twin"), "{conflict}");
    let state = bed.until(|state| state["routes"][0]["conditions"][1]["type"] == "Conflicted").await;
    assert_eq!(state["routes"][0]["conditions"][1]["message"], conflict);
    bed.write("twin.yaml", "");
    // Another object of that name begins anew.
    bed.write("app.yaml", "");
    bed.until(|state| state["routes"].as_array().unwrap().is_empty()).await;
    bed.write("app.yaml", APP);
    bed.until(|state| state["routes"][0]["hint"] == "notReady").await;
    assert_eq!(evidence().await["objects"], serde_json::json!([]));
}

#[tokio::test]
async fn what_is_wrong_is_shown_and_the_rest_goes_on() {
    let bed = Bed::start().await;
    bed.write("app.yaml", APP);
    bed.write(
        "bad.yaml",
        "apiVersion: http.keda.sh/v1alpha1\nkind: HTTPScaledObject\nmetadata: {name: b}\nspec: {hosts: a}\n",
    );
    let state = bed.until(|state| !state["problems"].as_array().unwrap().is_empty()).await;
    assert_eq!(state["problems"][0]["source"], "bad.yaml, document 1");
    assert_eq!(state["problems"][0]["field"], "spec.hosts");
    assert_eq!(state["routes"][0]["name"], "app");
    bed.write(
        "bad.yaml",
        &APP.replace("name: app", "name: b").replace("port: 80}", "port: 80, portName: http}"),
    );
    let state = bed.until(|state| state["routes"].as_array().unwrap().len() == 2).await;
    assert_eq!(state["problems"][0]["source"], "HTTPScaledObject ns/b");
    assert_eq!(state["problems"][0]["field"], "spec.scaleTargetRef");
    assert_eq!(state["routes"][1]["conditions"][0]["reason"], "InvalidSpec");
    assert!(bed.get("/metrics").await.1.contains("sluice_config_problems 1\n"));
}

#[tokio::test]
async fn health_is_what_probes_ask_for() {
    let bed = Bed::start().await;
    let mut health = HealthClient::new(bed.channel().await);
    within(async { while bed.get("/readyz").await.0 != 200 {} }).await;
    for service in ["liveness", "readiness", "", "externalscaler.ExternalScaler", "sluice.link.v1.Link"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = within(health.watch(request)).await.unwrap().into_inner();
        let is_serving = async {
            while within(watch.message()).await.unwrap().unwrap().status() != ServingStatus::Serving {}
        };
        within(is_serving).await;
    }
}

#[tokio::test]
async fn reflection_names_all_services() {
    let bed = Bed::start().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(bed.channel().await);
    let mut answers =
        within(client.server_reflection_info(tokio_stream::once(request))).await.unwrap().into_inner();
    let answer = within(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["externalscaler.ExternalScaler", "sluice.link.v1.Link", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|it| it == name), "{name} is not in {names:?}");
    }
}
