//! How the gateway connects to apps, by what the stores know.

use super::{Context, Guarded, Shared, Stores, index::Topic, start, status::Ours, wakes::Wakes};
use crate::{
    envoy_filter::Wanted,
    standing::{Finding, Standing, UPSTREAM_APPLIED},
    upstream::{self, Claim, DestinationRule, DestinationRuleSpec, Gateways, Lost, RULE_OVERRIDDEN},
    watch::{News, State},
};
use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{
    Api, ResourceExt,
    runtime::{
        events::EventType,
        reflector::{ObjectRef, Store, store},
        watcher,
    },
};
use sluice_api::{HttpScaledObject, InterceptorRoute, upstream::Upstream};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

/// Several rules that change together are one reason to look at objects.
const SETTLE: Duration = Duration::from_millis(100);

/// DestinationRules, of which something may be lost.
#[derive(Clone)]
pub(super) struct Rules {
    store: Store<Guarded<DestinationRule>>,
    state: watch::Receiver<State>,
    changed: Arc<Notify>,
}

// === impl Rules ===

impl Rules {
    /// Follows them as one of `tasks`, in all namespaces. Without the right to do so nothing is said of them, beside
    /// the log's word.
    pub(super) fn start(shared: &Shared, tasks: &mut JoinSet<()>) -> Self {
        let (store, writer) = store();
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        let all = Api::<Guarded<DestinationRule>>::all(shared.client.clone());
        let trim = |rule: &mut Guarded<DestinationRule>| super::routes::trim(rule);
        let state = start(tasks, all, &watcher::Config::default(), trim, writer, move |news| {
            match news {
                // Most of a rule is nothing to us.
                News::One(old, new) if spec(old) == spec(new) => {}
                News::One(..) | News::All => told.notify_one(),
            }
        });
        Self { store, state, changed }
    }

    /// How their reading fares.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Has all objects looked at when something has changed.
    pub(super) async fn tell(self, wakes: Wakes) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(SETTLE).await;
            wakes.all();
        }
    }

    /// What of them is without effect while `claim` is in force.
    fn lost(&self, claim: &Claim, service: Option<&Service>, gateways: &Gateways) -> Vec<Lost> {
        let all = self.store.state();
        upstream::lost(claim, service, all.iter().filter_map(|it| it.0.as_ref().ok()), gateways)
    }
}

fn spec(rule: Option<&Guarded<DestinationRule>>) -> Option<&DestinationRuleSpec> {
    Some(&rule?.0.as_ref().ok()?.spec)
}

// === impl Context ===

impl Context {
    /// The EnvoyFilters of all objects; `None` as long as not everything is read that they follow from.
    pub(super) fn upstream_filters(&self, gateways: &Gateways) -> Option<Vec<Wanted>> {
        if !self.is_read() {
            return None;
        }
        let claims = self.upstream_claims(&gateways.defaults, None);
        Some(upstream::wanted(&claims, gateways, |namespace, name| self.service(namespace, name).ok()?))
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
        let service = match self.service(&claim.namespace, &claim.target.service) {
            Ok(service) => service,
            Err(why) => {
                let message = format!(
                    "Services cannot be read ({why}); give the operator the rights that its manifest names. What the \
                     gateway has stays as it is until then"
                );
                return Some(Finding::pending(UPSTREAM_APPLIED, "ServicesUnreadable", message));
            }
        };
        let all = self.upstream_claims(&gateways.defaults, Some((&claim.namespace, &claim.target.service)));
        let standing = upstream::stands(&claim, &all, service.as_deref());
        let lost = self.rules.as_ref().map(|rules| rules.lost(&claim, service.as_deref(), gateways));
        let lost = lost.unwrap_or_default();
        let outcomes = self.envoy_filters.as_ref()?.borrow();
        Some(upstream::finding(&standing, &claim.target, outcomes.get(&claim.filter_name()), &lost))
    }

    /// Tells people of what is lost of a DestinationRule, unless the object's conditions said so `before`.
    pub(super) async fn warn_of_rules<K: Ours>(
        &self,
        object: &Guarded<K>,
        before: &[Condition],
        standing: &Standing,
    ) {
        let is = |it: &&Finding| it.type_ == UPSTREAM_APPLIED && it.reason == RULE_OVERRIDDEN;
        let Some(finding) = standing.findings.iter().find(is) else { return };
        if before.iter().any(|it| it.type_ == UPSTREAM_APPLIED && it.message == finding.message) {
            return;
        }
        self.tell(object, EventType::Warning, RULE_OVERRIDDEN, "Reconcile", finding.message.clone()).await;
    }

    /// What all objects say of connections, or those with this namespace and Service.
    fn upstream_claims(&self, defaults: &Upstream, target: Option<(&str, &str)>) -> Vec<Claim> {
        let Stores { http, routes, index, .. } = &self.stores;
        let (http, routes) = match target {
            None => (http.state(), routes.state()),
            Some((namespace, service)) => {
                let topics = [Topic::Service(service.to_owned())].into();
                (index.http.about(namespace, &topics), index.routes.about(namespace, &topics))
            }
        };
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
