//! KEDA calls the scaler over mutual TLS.

use crate::wake::{ensure_cold, sleeping};
use anyhow::{Result, ensure};
use serde_json::json;
use sluice_tests::{
    cluster::sluice::{self, App, Gateway, NAMESPACE, Settings},
    keda::Keda,
    objects::Target,
};
use std::net::SocketAddr;

#[test]
fn keda_and_the_scaler_know_each_other_by_their_certificates() {
    sluice::run(Settings { tls: true, ..Settings::default() }, async |sluice| {
        let app = sleeping(&sluice, "secret", json!({})).await?;
        let own = own_scaled_object(&sluice, &app.namespace).await?;
        let gateway = Gateway::start(&sluice, 1, &[&app, &own]).await?;
        for app in [&app, &own] {
            ensure_cold(&gateway.get(app, "/").await?)?;
            app.asleep().await?;
        }
        // In plaintext there is no such service any more, though gateways go on as before.
        for replica in sluice.replicas().await? {
            let target = Target { namespace: app.namespace.clone(), name: app.name.clone(), port: 80 };
            let plain = Keda::new(SocketAddr::new(replica.ip, 9090), &target)?.is_active().await;
            let refusal = plain.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(refusal.contains("not implemented"), "{}: {refusal:?}", replica.name);
        }
        sluice.cluster().delete_namespace(&app.namespace).await
    });
}

/// With the user's own ScaledObject, as `docs/keda-tls.md` says.
async fn own_scaled_object(sluice: &sluice::Sluice, namespace: &str) -> Result<App> {
    let app = App::create(sluice, namespace, "own").await?;
    let trigger = json!({
        "type": "external-push",
        "metadata": {"scalerAddress": format!("sluice-scaler.{NAMESPACE}:9443"), "interceptorRoute": app.name},
        "authenticationRef": {"name": "sluice-scaler", "kind": "ClusterTriggerAuthentication"},
    });
    let objects = [app.interceptor_route(json!({})), app.scaled_object(json!({"triggers": [trigger]}))];
    sluice.cluster().apply(&objects).await?;
    app.scaled_object_ready().await?;
    sluice.until_keda_listens(&[&app]).await?;
    Ok(app)
}
