//! Where requests go.

use super::*;

fn world(service: Value) -> World {
    let service = serde_json::from_value(json!({"metadata": {"name": "svc"}, "spec": service})).unwrap();
    World { service: Some(service), ..World::new(vec![applied(&object(json!({})), json!({}))]) }
}

#[test]
fn only_what_is_reached_by_tcp_is_a_target() {
    let object = object(json!({}));
    let quic = json!({"port": 80, "name": "quic", "protocol": "UDP"});
    let both = json!([quic, {"port": 80, "name": "http", "protocol": "TCP"}]);
    assert_eq!(world(json!({"ports": both})).decide(&object).2, "Reconciled");
    let alone = world(json!({"ports": [quic, {"port": 81}]})).plan(&object).standing.ready();
    assert_eq!(alone.reason, "PortNotFound");
    assert!(alone.message.contains("has no port 80 (it has 80 (quic, UDP), 81)"), "{}", alone.message);
}

#[test]
fn what_is_outside_needs_no_port_but_for_its_name() {
    let numbered = object(json!({}));
    let outside = world(json!({"type": "ExternalName", "externalName": "app.example.com"}));
    assert_eq!(outside.decide(&numbered), (None, Truth::True, "Reconciled"));
    let named = object(json!({"spec": {"scaleTargetRef": {"port": null, "portName": "web"}}}));
    let ready = outside.plan(&named).standing.ready();
    assert_eq!(ready.reason, "PortNotFound");
    assert!(ready.message.contains("has no port web (it has none)"), "{}", ready.message);
    let ports = json!([{"port": 80, "name": "web"}]);
    let outside = world(json!({"type": "ExternalName", "externalName": "app.example.com", "ports": ports}));
    assert_eq!(outside.decide(&named).2, "Reconciled");
    assert_eq!(world(json!({"type": "ClusterIP"})).decide(&numbered).2, "PortNotFound");
}
