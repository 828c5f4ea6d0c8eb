//! How one kind's watch stands, and what is to be told because of what it says. Plain state: no I/O.

use super::{
    Part,
    feed::{Feed, Followed},
    guarded::Guarded,
    meter::{Meter, WatchState},
    trouble::{Backoff, Trouble},
};
use crate::source::{Event, ObjectKind};
use kube::runtime::watcher;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// A watch that goes on for that long works: what comes after is another trouble.
const SETTLED: Duration = Duration::from_secs(5);

/// How one kind's watch stands.
pub(super) struct Standing {
    kind: ObjectKind,
    feed: Feed,
    meter: Arc<Meter>,
    /// The list under way.
    list: Option<List>,
    /// Since when there is a watch that works.
    begun: Option<Instant>,
    trouble: Option<Trouble>,
    /// The trouble is another than what was told last.
    is_trouble_new: bool,
    /// All objects have been listed once.
    is_known: bool,
    /// The receiver knows that nobody needs to wait for this kind.
    is_settled: bool,
    backoff: Backoff,
}

/// A list under way.
#[derive(Debug, Default)]
struct List {
    /// It has named an object.
    has_objects: bool,
    /// How many of its objects are new or others than before.
    changes: usize,
}

/// What to do after trouble.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// When.
    pub(super) after: Duration,
    /// With a list, even if the watcher would go on with a watch.
    pub(super) from_list: bool,
}

// === impl Standing ===

impl Standing {
    /// Nothing is known.
    pub(super) fn new(kind: ObjectKind, meter: Arc<Meter>) -> Self {
        Self {
            kind,
            feed: Feed::new(kind),
            meter,
            list: None,
            begun: None,
            trouble: None,
            is_trouble_new: false,
            is_known: false,
            is_settled: false,
            backoff: Backoff::default(),
        }
    }

    /// A list is under way.
    pub(super) fn is_listing(&self) -> bool {
        self.list.is_some()
    }

    /// The watch is there: changes come from now on.
    pub(super) fn begin(&mut self) {
        self.begun.get_or_insert_with(Instant::now);
        self.meter.set(WatchState::Watching);
        if self.trouble.take().is_some() {
            self.is_trouble_new = true;
            tracing::info!(kind = self.kind.name(), "following again");
        }
    }

    /// What the watcher says; adds what is to be told of it.
    pub(super) fn take<K: Followed>(&mut self, news: watcher::Event<Guarded<K>>, told: &mut Vec<Event>) {
        let before = told.len();
        match news {
            watcher::Event::Init => {
                self.feed.begin_list();
                self.list = Some(List::default());
                if self.trouble.is_none() {
                    self.meter.set(WatchState::Listing);
                }
            }
            watcher::Event::InitApply(object) => {
                told.extend(self.feed.listed(object));
                let list = self.list.get_or_insert_default();
                list.has_objects = true;
                list.changes += told.len() - before;
            }
            watcher::Event::InitDone => {
                told.extend(self.feed.end_list());
                let changes = self.list.take().unwrap_or_default().changes + told.len() - before;
                self.is_known = true;
                let lists = self.meter.lists.fetch_add(1, Ordering::Relaxed) + 1;
                let (kind, objects) = (self.kind.name(), self.feed.len());
                tracing::info!(kind, objects, changes, lists, "listed");
            }
            watcher::Event::Apply(object) => {
                self.changed();
                told.extend(self.feed.applied(object));
            }
            watcher::Event::Delete(object) => {
                self.changed();
                told.extend(self.feed.deleted(&object));
            }
        }
    }

    /// What a watch says shows that there is one.
    fn changed(&mut self) {
        if self.trouble.is_some() {
            self.begin();
        }
        self.backoff.reset();
    }

    /// The watcher has met an error.
    pub(super) fn fail(&mut self, error: &watcher::Error) -> Retry {
        let trouble = match (Trouble::of_watcher(error), error) {
            // There is nothing older than a list to begin with.
            (Trouble::Expired(error), watcher::Error::InitialListFailed(_)) if !self.list_has_objects() => {
                Trouble::Away(error)
            }
            (trouble, _) => trouble,
        };
        let from_list = match error {
            // The watcher begins a list by itself.
            watcher::Error::InitialListFailed(_) | watcher::Error::NoResourceVersion => true,
            // Goes on from the last change, over another connection.
            watcher::Error::WatchFailed(kube::Error::ReadEvents(_)) => false,
            // What did not read may have been a change.
            watcher::Error::WatchFailed(_) => true,
            // The watcher would ask for ever for what the API server cannot give.
            _ => matches!(trouble, Trouble::Expired(_) | Trouble::NotInstalled),
        };
        let after = self.lose(trouble);
        Retry { after, from_list }
    }

    fn list_has_objects(&self) -> bool {
        self.list.as_ref().is_some_and(|list| list.has_objects)
    }

    /// Something is in the way: says for how long to leave it at that. Nothing is said of the objects themselves:
    /// they are as they were.
    pub(super) fn lose(&mut self, trouble: Trouble) -> Duration {
        self.list = None;
        if self.begun.take().is_some_and(|begun| begun.elapsed() > SETTLED) {
            self.backoff.reset();
        }
        let delay = self.backoff.delay(&trouble);
        let kind = self.kind.name();
        self.meter.errors.fetch_add(1, Ordering::Relaxed);
        self.meter.set(match trouble {
            Trouble::NotInstalled => WatchState::NotInstalled,
            Trouble::Expired(_) => WatchState::Listing,
            Trouble::Denied(_) | Trouble::Away(_) => WatchState::Lost,
        });
        // One line of log for each kind of trouble, whatever the words are that it comes in.
        let of = |trouble: &Trouble| std::mem::discriminant(trouble);
        match (&trouble, self.trouble.as_ref().map(of) != Some(of(&trouble))) {
            (_, false) => tracing::debug!(kind, error = %trouble, "still cannot follow"),
            (Trouble::NotInstalled, true) => {
                let api = self.kind.api_version();
                tracing::info!(kind, api, "not installed, looking again from time to time");
            }
            (Trouble::Expired(_), true) => tracing::info!(kind, reason = %trouble, "listing again"),
            (Trouble::Denied(_) | Trouble::Away(_), true) => {
                tracing::warn!(kind, error = %trouble, "cannot follow, going on with what is known");
            }
        }
        if self.trouble.as_ref() != Some(&trouble) {
            self.trouble = Some(trouble);
            self.is_trouble_new = true;
        }
        delay
    }

    /// What there is to tell, with those events; `None`: nothing is new.
    pub(super) fn part(&mut self, events: Vec<Event>) -> Option<Part> {
        self.meter.objects.store(self.feed.len(), Ordering::Relaxed);
        let is_trouble_new = std::mem::take(&mut self.is_trouble_new);
        let has_new_problems = self.feed.take_news() || is_trouble_new;
        let problems = has_new_problems.then(|| {
            let mut problems = self.feed.problems();
            problems.extend(self.trouble.as_ref().and_then(|it| it.problem(self.kind, self.is_known)));
            problems
        });
        // A kind that is not installed has no objects: nobody needs to wait for them.
        let is_settled = self.is_known || self.trouble == Some(Trouble::NotInstalled);
        if events.is_empty() && problems.is_none() && is_settled == self.is_settled {
            return None;
        }
        self.is_settled = is_settled;
        Some(Part { kind: self.kind, events, problems, is_settled })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::meter::Watches, *};
    use k8s_openapi::api::core::v1::Service;
    use kube::core::Status;
    use serde_json::json;

    struct Bed {
        watches: Watches,
        standing: Standing,
    }

    impl Bed {
        fn new() -> Self {
            let watches = Watches::default();
            let standing = Standing::new(ObjectKind::Service, watches.add(ObjectKind::Service));
            Self { watches, standing }
        }

        /// How many events are told.
        fn take(&mut self, news: watcher::Event<Guarded<Service>>) -> usize {
            let mut told = Vec::new();
            self.standing.take(news, &mut told);
            told.len()
        }

        fn listed(&mut self) {
            self.take(watcher::Event::Init);
            self.take(watcher::Event::InitApply(service("a", "1")));
            self.take(watcher::Event::InitDone);
            assert!(self.standing.part(Vec::new()).expect("all is known").is_settled);
        }

        fn state(&self) -> WatchState {
            self.watches.report()[0].state
        }
    }

    fn service(name: &str, version: &str) -> Guarded<Service> {
        serde_json::from_value(json!({"metadata": {"name": name, "resourceVersion": version}})).unwrap()
    }

    fn status(code: u16) -> Box<Status> {
        Status::failure("says why", "Reason").with_code(code).boxed()
    }

    fn refused(code: u16) -> watcher::Error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status(code)))
    }

    fn unreadable() -> kube::Error {
        kube::Error::SerdeError(serde_json::from_str::<u8>("x").unwrap_err())
    }

    #[test]
    fn a_watcher_that_cannot_go_on_by_itself_is_begun_anew() {
        for (error, from_list) in [
            (refused(403), false),
            (refused(503), false),
            (refused(400), true),
            (refused(404), true),
            (refused(410), true),
            (refused(504), true),
            (watcher::Error::WatchStartFailed(kube::Error::Service("away".into())), false),
            (watcher::Error::WatchError(status(500)), false),
            (watcher::Error::WatchError(status(504)), true),
            (watcher::Error::WatchFailed(kube::Error::ReadEvents(std::io::Error::other("torn"))), false),
            (watcher::Error::WatchFailed(unreadable()), true),
            (watcher::Error::WatchFailed(kube::Error::Api(status(500))), true),
            (watcher::Error::NoResourceVersion, true),
            (watcher::Error::InitialListFailed(kube::Error::Api(status(503))), true),
        ] {
            let mut bed = Bed::new();
            bed.listed();
            bed.standing.begin();
            assert_eq!(bed.standing.fail(&error).from_list, from_list, "{error}");
            assert_eq!(bed.take(watcher::Event::Init), 0, "{error}: nothing is gone");
        }
    }

    #[test]
    fn trouble_is_told_once_and_its_end_too() {
        let mut bed = Bed::new();
        bed.listed();
        bed.standing.begin();
        assert!(bed.standing.part(Vec::new()).is_none(), "all is as it was");
        bed.standing.fail(&refused(503));
        assert_eq!(bed.standing.part(Vec::new()).and_then(|part| part.problems).map(|it| it.len()), Some(1));
        assert_eq!(bed.state(), WatchState::Lost);
        bed.standing.fail(&refused(503));
        assert!(bed.standing.part(Vec::new()).is_none(), "the same trouble");
        bed.standing.begin();
        assert_eq!(bed.standing.part(Vec::new()).and_then(|part| part.problems), Some(Vec::new()));
        assert_eq!(bed.state(), WatchState::Watching);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_watch_that_works_ends_what_delays_have_grown_to() {
        let mut bed = Bed::new();
        let first = Duration::from_millis(200);
        let grow = |bed: &mut Bed| {
            for _ in 0..10 {
                // Lists that come to their end are no watch, and neither is one that ends with an error at once.
                bed.take(watcher::Event::Init);
                bed.take(watcher::Event::InitDone);
                bed.standing.begin();
                bed.standing.fail(&refused(410));
            }
            assert!(bed.standing.fail(&refused(503)).after > first);
        };
        grow(&mut bed);
        bed.standing.begin();
        tokio::time::advance(SETTLED * 2).await;
        // The API server ends a watch from time to time: the next one goes on with it.
        bed.standing.begin();
        assert!(bed.standing.fail(&refused(503)).after <= first);
        grow(&mut bed);
        bed.take(watcher::Event::Apply(service("a", "2")));
        assert!(bed.standing.fail(&refused(503)).after <= first);
    }
}
