//! Who waits for news of which object.
//!
//! KEDA has a stream of metrics open for each of its ScaledObjects. Were all of them woken by every change, a change of
//! each object would cost the square of their number.

use super::subject::Subject;
use crate::source::{ObjectKind, ObjectRef};
use sluice_core::route::Kind;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Objects that somebody waits for, there or not.
#[derive(Debug, Default)]
pub struct Objects {
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    by_name: HashMap<ObjectRef, Arc<Notify>>,
    /// How many there were when those that nobody waits for any more were last dropped.
    tidied: usize,
}

/// How many objects there are at least before those are looked for.
const FEW: usize = 64;

// === impl Objects ===

impl Objects {
    /// To be woken when that object came, changed or went.
    pub(super) fn news(&self, subject: &Subject) -> Arc<Notify> {
        let kind = match subject.kind {
            Kind::HttpScaledObject => ObjectKind::HttpScaledObject,
            Kind::InterceptorRoute => ObjectKind::InterceptorRoute,
        };
        let name = ObjectRef { kind, namespace: subject.namespace.clone(), name: subject.name.clone() };
        let mut watched = self.lock();
        // So each costs no more than it has brought, however many come and go.
        if watched.by_name.len() >= FEW.max(watched.tidied.saturating_mul(2)) {
            watched.by_name.retain(|_, news| Arc::strong_count(news) > 1);
            watched.tidied = watched.by_name.len();
        }
        Arc::clone(watched.by_name.entry(name).or_default())
    }

    /// These came, changed or went.
    pub fn changed<'a>(&self, objects: impl IntoIterator<Item = &'a ObjectRef>) {
        let watched = self.lock();
        for news in objects.into_iter().filter_map(|object| watched.by_name.get(object)) {
            news.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Subject {
        Subject { kind: Kind::HttpScaledObject, namespace: "ns".to_owned(), name: name.to_owned() }
    }

    fn reference(kind: ObjectKind, name: &str) -> ObjectRef {
        ObjectRef { kind, namespace: "ns".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn who_waits_for_one_object_hears_nothing_of_another() {
        let objects = Objects::default();
        let [a, b] = ["a", "b"].map(|name| objects.news(&subject(name)));
        let (mut a, mut b) = (Box::pin(a.notified()), Box::pin(b.notified()));
        assert!(!a.as_mut().enable() && !b.as_mut().enable());
        objects.changed(&[
            reference(ObjectKind::HttpScaledObject, "a"),
            reference(ObjectKind::InterceptorRoute, "b"),
            reference(ObjectKind::HttpScaledObject, "c"),
        ]);
        assert!(a.as_mut().enable() && !b.as_mut().enable());
    }

    #[test]
    fn objects_that_nobody_waits_for_any_more_are_forgotten() {
        let objects = Objects::default();
        let kept = objects.news(&subject("kept"));
        for number in 0..1_000 {
            drop(objects.news(&subject(&format!("gone-{number}"))));
        }
        assert!(objects.lock().by_name.len() <= FEW);
        assert!(Arc::ptr_eq(&kept, &objects.news(&subject("kept"))));
    }
}
