//! State of the world: every request names all clusters that the Envoy wants to know; a response names those that
//! are new to it.

use super::{
    resource::{Resource, TYPE_URL},
    stream::{Form, Wish},
};
use sluice_proto::envoy::{
    config::core::v3::ControlPlane,
    service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};
use std::sync::Arc;

/// A stream of this form.
#[derive(Debug, Default)]
pub(super) struct Sotw {
    /// How many responses were sent. The last one's number is its nonce and its version: over several clusters
    /// there is no other.
    sent: u64,
}

impl Form for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn read(&self, request: Self::Request) -> Wish {
        let DiscoveryRequest { node, resource_names, type_url, response_nonce, error_detail, .. } = request;
        // It answers a response that another one has followed. Of what it wants to know, the answer to that one
        // will say the latest.
        let is_stale = self.sent > 0 && response_nonce != self.sent.to_string();
        Wish {
            node: node.map(|node| node.id),
            type_url,
            rejection: error_detail.map(|status| status.message),
            all: (!is_stale).then_some(resource_names),
            ..Wish::default()
        }
    }

    fn write(&mut self, resources: &[Arc<Resource>], scaler: &str) -> Self::Response {
        self.sent += 1;
        let number = self.sent.to_string();
        DiscoveryResponse {
            version_info: number.clone(),
            resources: resources.iter().map(|resource| resource.any.clone()).collect(),
            type_url: TYPE_URL.to_owned(),
            nonce: number,
            control_plane: Some(ControlPlane { identifier: scaler.to_owned() }),
        }
    }
}
