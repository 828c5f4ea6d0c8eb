//! Incremental: a request names what the Envoy wants to know from now on, and what no more.

use super::{
    resource::{Resource, TYPE_URL},
    stream::{Form, Wish},
};
use sluice_proto::envoy::{
    config::core::v3::ControlPlane,
    service::discovery::v3::{self as discovery, DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use std::sync::Arc;

/// A stream of this form.
#[derive(Debug, Default)]
pub(super) struct Delta {
    /// How many responses were sent. The last one's number is its nonce.
    sent: u64,
}

impl Form for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn read(&self, request: Self::Request) -> Wish {
        let versions = request.initial_resource_versions;
        let follow = request.resource_names_subscribe.into_iter().map(|name| {
            // A version that reads otherwise is none of ours: then the Envoy is told.
            let known = versions.get(&name).and_then(|version| version.parse().ok());
            (name, known)
        });
        Wish {
            node: request.node.map(|node| node.id),
            type_url: request.type_url,
            rejection: request.error_detail.map(|status| status.message),
            all: None,
            follow: follow.collect(),
            unfollow: request.resource_names_unsubscribe,
        }
    }

    fn write(&mut self, resources: &[Arc<Resource>], scaler: &str) -> Self::Response {
        self.sent += 1;
        let resources = resources.iter().map(|resource| discovery::Resource {
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            resource: Some(resource.any.clone()),
        });
        DeltaDiscoveryResponse {
            system_version_info: String::new(),
            resources: resources.collect(),
            type_url: TYPE_URL.to_owned(),
            nonce: self.sent.to_string(),
            control_plane: Some(ControlPlane { identifier: scaler.to_owned() }),
        }
    }
}
