//! KEDA's side of its ExternalScaler protocol.

use crate::objects::Target;
use anyhow::Context as _;
use sluice_proto::keda::{
    GetMetricsRequest, IsActiveResponse, MetricSpec, MetricValue, ScaledObjectRef,
    external_scaler_client::ExternalScalerClient,
};
use std::{collections::BTreeMap, net::SocketAddr};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

/// What KEDA's operator holds for one trigger of a ScaledObject.
#[derive(Clone, Debug)]
pub struct Keda {
    client: ExternalScalerClient<Channel>,
    object: ScaledObjectRef,
}

// === impl Keda ===

impl Keda {
    /// A client for the ScaledObject of `target`'s HTTPScaledObject. Connects when it is first used.
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(scaler: SocketAddr, target: &Target) -> anyhow::Result<Self> {
        let metadata = BTreeMap::from([("httpScaledObject".to_owned(), target.name.clone())]);
        Self::with_metadata(scaler, target, metadata)
    }

    /// As [`Self::new`], with the trigger's metadata.
    ///
    /// # Errors
    /// If the address is none.
    pub fn with_metadata(
        scaler: SocketAddr,
        target: &Target,
        metadata: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{scaler}"))?.connect_lazy();
        let object = ScaledObjectRef {
            name: target.name.clone(),
            namespace: target.namespace.clone(),
            scaler_metadata: metadata,
        };
        Ok(Self { client: ExternalScalerClient::new(channel), object })
    }

    /// Whether the app should run.
    ///
    /// # Errors
    /// The scaler's status.
    pub async fn is_active(&mut self) -> anyhow::Result<bool> {
        let response = self.client.is_active(self.object.clone()).await.context("IsActive")?;
        Ok(response.into_inner().result)
    }

    /// The stream of such answers.
    ///
    /// # Errors
    /// The scaler's status.
    pub async fn stream_is_active(&mut self) -> anyhow::Result<Streaming<IsActiveResponse>> {
        Ok(self.client.stream_is_active(self.object.clone()).await.context("StreamIsActive")?.into_inner())
    }

    /// The metrics that the HPA is to ask for.
    ///
    /// # Errors
    /// The scaler's status.
    pub async fn metric_specs(&mut self) -> anyhow::Result<Vec<MetricSpec>> {
        let response = self.client.get_metric_spec(self.object.clone()).await.context("GetMetricSpec")?;
        Ok(response.into_inner().metric_specs)
    }

    /// The values of one of them.
    ///
    /// # Errors
    /// The scaler's status.
    pub async fn metrics(&mut self, name: &str) -> anyhow::Result<Vec<MetricValue>> {
        let request =
            GetMetricsRequest { scaled_object_ref: Some(self.object.clone()), metric_name: name.to_owned() };
        Ok(self.client.get_metrics(request).await.context("GetMetrics")?.into_inner().metric_values)
    }
}
