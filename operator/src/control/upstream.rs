//! How the gateway connects to apps, by what the stores know.

use super::{Context, Guarded};
use crate::{
    envoy_filter::Wanted,
    standing::Finding,
    upstream::{self, Claim, Gateways},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use sluice_api::{HttpScaledObject, InterceptorRoute, upstream::Upstream};
use std::sync::Arc;

impl Context {
    /// The EnvoyFilters of all objects; `None` as long as not everything is read that they follow from.
    pub(super) fn upstream_filters(&self, gateways: &Gateways) -> Option<Vec<Wanted>> {
        if !self.is_read() {
            return None;
        }
        let claims = self.claims(&gateways.defaults, |_, _| true);
        Some(upstream::wanted(&claims, gateways, |namespace, name| self.service(namespace, name)))
    }

    /// What an HTTPScaledObject's status is to say of it.
    pub(super) fn upstream_of_http(&self, object: &HttpScaledObject) -> Option<Finding> {
        let claim = |defaults: &Upstream| self.http_claim(object, defaults);
        self.upstream(&object.metadata, claim)
    }

    /// What an InterceptorRoute's status is to say of it.
    pub(super) fn upstream_of_route(&self, object: &InterceptorRoute) -> Option<Finding> {
        self.upstream(&object.metadata, |defaults| Claim::of_route(object, defaults))
    }

    fn upstream(
        &self,
        metadata: &ObjectMeta,
        claim: impl FnOnce(&Upstream) -> Option<Claim>,
    ) -> Option<Finding> {
        let Some(gateways) = &self.upstream else {
            // What is said for all is no object's fault.
            let says_something = Upstream::of(metadata).0 != Upstream::default();
            return says_something.then(upstream::no_gateway);
        };
        let claim = claim(&gateways.defaults)?;
        let all = self.claims(&gateways.defaults, |namespace, service| {
            namespace == claim.namespace && service == claim.target.service
        });
        let service = self.service(&claim.namespace, &claim.target.service);
        let standing = upstream::stands(&claim, &all, service.as_deref());
        let outcomes = self.envoy_filters.as_ref()?.borrow();
        Some(upstream::finding(&standing, &claim.target, outcomes.get(&claim.filter_name())))
    }

    /// The claims of objects whose namespace and Service are `wanted`.
    fn claims(&self, defaults: &Upstream, wanted: impl Fn(&str, &str) -> bool) -> Vec<Claim> {
        let namespace = |metadata: &ObjectMeta| metadata.namespace.clone().unwrap_or_default();
        let http = self.stores.http.state_filter(|it: &Guarded<HttpScaledObject>| {
            let read = it.0.as_ref();
            read.is_ok_and(|it| wanted(&namespace(&it.metadata), &it.spec.scale_target_ref.service))
        });
        let routes = self.stores.routes.state_filter(|it: &Guarded<InterceptorRoute>| {
            let read = it.0.as_ref();
            read.is_ok_and(|it| wanted(&namespace(&it.metadata), &it.spec.target.service))
        });
        let http = http
            .iter()
            .filter_map(|it: &Arc<Guarded<HttpScaledObject>>| self.http_claim(it.0.as_ref().ok()?, defaults));
        let routes = routes
            .iter()
            .filter_map(|it: &Arc<Guarded<InterceptorRoute>>| Claim::of_route(it.0.as_ref().ok()?, defaults));
        http.chain(routes).collect()
    }

    fn http_claim(&self, object: &HttpScaledObject, defaults: &Upstream) -> Option<Claim> {
        let of_name = ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default());
        let is_overridden = self.stores.routes.get(&of_name).is_some();
        Claim::of_http(object, is_overridden, defaults)
    }
}
