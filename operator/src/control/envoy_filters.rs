//! Keeps the gateway's EnvoyFilters as the parts of the operator want them.

use super::{Context, Failure, limit};
use crate::{
    FIELD_MANAGER,
    envoy_filter::{EnvoyFilter, MANAGED_BY, Outcome, Part, Step, Wanted, deletable, step},
    watch::State,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{
        events::{Event, EventType},
        reflector::{ObjectRef, Store},
    },
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// The kind, as logs and metrics name it.
const KIND: &str = "EnvoyFilter";

/// What it works with.
pub(super) struct Keeper {
    pub(super) context: Arc<Context>,
    /// The gateway's namespace.
    pub(super) namespace: String,
    /// What is there.
    pub(super) store: Store<EnvoyFilter>,
    /// How the watch of it fares.
    pub(super) state: watch::Receiver<State>,
    /// Told when something of it has changed.
    pub(super) changed: Arc<Notify>,
    /// What is wanted.
    pub(super) wants: watch::Receiver<BTreeMap<Part, Vec<Wanted>>>,
    /// What became of each, by name.
    pub(super) outcomes: watch::Sender<BTreeMap<String, Outcome>>,
}

impl Keeper {
    /// Works until `stop`, and then ends what is in hand.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let again = self.pass(&stop).await;
            let pause = async {
                match again {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A sender that is gone means the same.
                _ = stop.wait_for(|stop| *stop) => break,
                () = self.changed.notified() => {}
                wanted = self.wants.changed() => if wanted.is_err() { break },
                state = self.state.changed() => if state.is_err() { break },
                () = pause => {}
            }
        }
        // The next leader's to count.
        self.context.metrics.envoy_filters(std::iter::empty());
    }

    /// Looks at all of them once; when to do so again if nothing happens.
    async fn pass(&mut self, stop: &watch::Receiver<bool>) -> Option<Duration> {
        let wants = self.wants.borrow_and_update().clone();
        let state = self.state.borrow_and_update().clone();
        let mut outcomes = BTreeMap::new();
        let mut again: Option<Duration> = None;
        if !state.is_known {
            let trouble = state.trouble?;
            let why = format!(
                "EnvoyFilters of {} cannot be read ({trouble}); install Istio, and give the operator the rights of \
                 install/istio.yaml",
                self.namespace
            );
            let names = wants.values().flatten().map(|wanted| wanted.name.clone());
            outcomes.extend(names.map(|name| (name, Outcome::Failed(why.clone()))));
            self.report(outcomes);
            return None;
        }
        for (part, all) in &wants {
            for wanted in all {
                if *stop.borrow() {
                    return None;
                }
                if outcomes.contains_key(&wanted.name) {
                    tracing::error!(
                        kind = KIND,
                        name = wanted.name,
                        "wanted twice: only the first is applied"
                    );
                    continue;
                }
                let (outcome, retry) = self.keep(*part, wanted).await;
                again = again.into_iter().chain(retry).min();
                // Where nothing is known yet, what was known before.
                let outcome = outcome.or_else(|| self.outcomes.borrow().get(&wanted.name).cloned());
                outcomes.extend(outcome.map(|outcome| (wanted.name.clone(), outcome)));
            }
        }
        for there in self.store.state() {
            let name = there.name_any();
            let part = deletable(&there).and_then(|part| wants.get(&part));
            let is_wanted = part.is_none_or(|all| all.iter().any(|wanted| wanted.name == name));
            if !is_wanted && !*stop.borrow() {
                again = again.into_iter().chain(self.delete(&there).await).min();
            }
        }
        self.report(outcomes);
        again
    }

    /// Brings one about: what became of it, as far as that is known, and when to try again.
    async fn keep(&self, part: Part, wanted: &Wanted) -> (Option<Outcome>, Option<Duration>) {
        let known = self.store.get(&ObjectRef::new(&wanted.name).within(&self.namespace));
        let planned = step(known.as_deref(), &self.namespace, part, wanted);
        if planned == Step::Keep {
            self.context.pace().succeeded(&self.key(&wanted.name));
            return (Some(Outcome::Applied), None);
        }
        let pause = self.context.pace().pause(&self.key(&wanted.name), Instant::now());
        if let Some(pause) = pause {
            tracing::warn!(
                kind = KIND,
                namespace = self.namespace,
                name = wanted.name,
                ?pause,
                "written again and again: somebody else undoes it. Waiting before the next write"
            );
            let why = "somebody else undoes what the operator writes; see its managedFields".to_owned();
            return (Some(Outcome::Failed(why)), Some(pause));
        }
        match self.write(part, wanted).await {
            Ok(outcome) => {
                self.context.pace().succeeded(&self.key(&wanted.name));
                (Some(outcome), None)
            }
            Err(Failure::Deposed) => (None, None),
            Err(Failure::Outdated) => (None, Some(self.context.pace().failed(self.key(&wanted.name)))),
            Err(failure) => {
                self.context.metrics.reconciled(KIND, "error");
                let again = self.context.pace().failed(self.key(&wanted.name));
                (Some(Outcome::Failed(failure.to_string())), Some(again))
            }
        }
    }

    /// What is known may be old: it is read anew, and then written if it still has to be.
    async fn write(&self, part: Part, wanted: &Wanted) -> Result<Outcome, Failure> {
        let objects = self.objects();
        let name = wanted.name.as_str();
        let there = limit::answer(objects.get_opt(name)).await;
        let there = there.map_err(|error| failure("reading the EnvoyFilter", error))?;
        let (written, verb, told) = match step(there.as_ref(), &self.namespace, part, wanted) {
            Step::Keep => return Ok(Outcome::Applied),
            Step::Foreign => return Ok(self.foreign(there.as_ref(), name).await),
            Step::Create(object) => {
                let permit = self.context.may_write()?;
                let apply = PatchParams::apply(FIELD_MANAGER);
                let made = permit.call(objects.patch(name, &apply, &Patch::Apply(&object))).await;
                let made = made.map_err(|error| failure("creating the EnvoyFilter", error))?;
                (made, "create", ("Created", "created"))
            }
            Step::Apply { object, purge } => {
                let permit = self.context.may_write()?;
                let what = "applying the EnvoyFilter";
                if let Some(purge) = purge {
                    let merge = PatchParams {
                        field_manager: Some(FIELD_MANAGER.to_owned()),
                        ..PatchParams::default()
                    };
                    let purged = permit.call(objects.patch(name, &merge, &Patch::Merge(&purge))).await;
                    purged.map_err(|error| failure(what, error))?;
                }
                let apply = PatchParams::apply(FIELD_MANAGER).force();
                let applied = permit.call(objects.patch(name, &apply, &Patch::Apply(&object))).await;
                let applied = applied.map_err(|error| failure(what, error))?;
                (applied, "apply", ("Updated", "brought to what the operator's settings say"))
            }
        };
        self.context.metrics.wrote(KIND, verb);
        self.context.pace().wrote(self.key(name), Instant::now());
        tracing::info!(namespace = self.namespace, name, "EnvoyFilter {}", told.1);
        self.tell(&written, EventType::Normal, told.0, format!("EnvoyFilter {name} {}", told.1)).await;
        Ok(Outcome::Applied)
    }

    /// There is one of that name, and it is not ours.
    async fn foreign(&self, there: Option<&EnvoyFilter>, name: &str) -> Outcome {
        let why = format!(
            "the EnvoyFilter {}/{name} was not made by the operator, which leaves it alone. Delete it, or hand it \
             over with the label {MANAGED_BY}={FIELD_MANAGER}",
            self.namespace
        );
        let outcome = Outcome::Foreign(why.clone());
        if let Some(there) = there
            && self.outcomes.borrow().get(name) != Some(&outcome)
        {
            self.tell(there, EventType::Warning, "NotOurs", why).await;
        }
        outcome
    }

    /// Deletes one of ours that is not wanted any more; when to try again if it cannot be.
    async fn delete(&self, there: &EnvoyFilter) -> Option<Duration> {
        let permit = self.context.may_write().ok()?;
        let name = there.name_any();
        let preconditions =
            Preconditions { uid: there.uid(), resource_version: there.metadata.resource_version.clone() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match permit.call(self.objects().delete(&name, &parameters)).await {
            Ok(_) => {
                self.context.metrics.wrote(KIND, "delete");
                self.context.pace().forget(&self.key(&name));
                tracing::info!(namespace = self.namespace, name, "EnvoyFilter deleted: not wanted any more");
                let note = format!("EnvoyFilter {name} deleted: nothing wants it any more");
                self.tell(there, EventType::Normal, "Deleted", note).await;
                None
            }
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            // Somebody was faster; the watch says what he wrote.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Some(self.context.pace().failed(self.key(&name)))
            }
            Err(error) => {
                self.context.metrics.reconciled(KIND, "error");
                tracing::warn!(namespace = self.namespace, name, %error, "cannot delete the EnvoyFilter; trying again");
                Some(self.context.pace().failed(self.key(&name)))
            }
        }
    }

    /// Lets it be known what became of each, and logs what is new of it.
    fn report(&self, now: BTreeMap<String, Outcome>) {
        for (name, outcome) in &now {
            let is_new = self.outcomes.borrow().get(name) != Some(outcome);
            match outcome {
                Outcome::Foreign(why) | Outcome::Failed(why) if is_new => {
                    tracing::warn!(kind = KIND, namespace = self.namespace, name, why, "not applied");
                }
                _ => {}
            }
        }
        self.context.metrics.envoy_filters(now.values());
        self.outcomes.send_if_modified(|before| {
            let is_other = *before != now;
            *before = now;
            is_other
        });
    }

    async fn tell(&self, object: &EnvoyFilter, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let told = limit::answer(self.context.recorder.publish(&event, &object.object_ref(&()))).await;
        if let Err(error) = told {
            tracing::debug!(%error, reason, "an Event was not written");
        }
    }

    fn objects(&self) -> Api<EnvoyFilter> {
        Api::namespaced(self.context.client.clone(), &self.namespace)
    }

    fn key(&self, name: &str) -> super::Key {
        (KIND, self.namespace.clone(), name.to_owned())
    }
}

/// As for other objects, but that a namespace which is not there is no race.
fn failure(what: &'static str, error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => Failure::Refused { what, why: status.message },
        error => Failure::of(what, error),
    }
}
