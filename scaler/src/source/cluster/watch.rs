//! One kind, listed and then watched, for as long as somebody listens.
//!
//! ```text
//!  list ──────────────▶ watch from the list's version ──┐ ended, as all watches do after a while:
//!   ▲                     ▲                             │ at once again, from the last version
//!   │ too old, not        └─────────────────────────────┤
//!   │ installed (any more)                              │ broken: again from the last version, after a delay
//!   └───────────────────────────────────────────────────┘
//! ```
//!
//! Not kube's own `watcher`: it does not say when a watch is there again after an error, so that "lost" would stay
//! until the next change, and after a 404 it asks for ever for a watch that a list would have to come before.

use super::{
    Part,
    feed::{Feed, Followed},
    guarded::{Guarded, Page},
    meter::{Meter, WatchState},
    trouble::{Backoff, Trouble},
};
use crate::source::Event;
use futures::StreamExt;
use kube::{
    Client, Resource,
    api::{ListParams, WatchParams},
    core::{Request, WatchEvent},
};
use serde::de::DeserializeOwned;
use std::{
    fmt::Debug,
    marker::PhantomData,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

/// How many objects a list asks for at a time: bounds the memory that reading them takes. `client-go` asks for as
/// many.
const PAGE: u32 = 500;
/// How long a page may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);
/// After how many seconds the API server ends a watch: what a connection that died unnoticed costs at most. It ends
/// them with a bookmark, so that going on costs it next to nothing.
const WATCH_SECONDS: u32 = 30;
/// How long to wait for a watch to begin, and for its end beyond [`WATCH_SECONDS`].
const WATCH_PATIENCE: Duration = Duration::from_secs(5);
/// A watch that goes on for that long works: what comes after is another trouble.
const SETTLED: Duration = Duration::from_secs(5);
/// How many changes are told together at most.
const CHUNK: usize = 256;

/// One kind's watch.
pub(super) struct Watch<K> {
    client: Client,
    request: Request,
    selector: Option<String>,
    feed: Feed,
    meter: Arc<Meter>,
    parts: mpsc::Sender<Part>,
    trouble: Option<Trouble>,
    /// All objects have been listed once.
    is_known: bool,
    /// The receiver knows that nobody needs to wait for this kind.
    is_settled: bool,
    backoff: Backoff,
    kind: PhantomData<fn() -> K>,
}

/// Nobody listens any more.
struct Closed;

/// How a try ended.
enum End {
    /// Well: a watch may begin, or go on, from that version.
    At(String),
    /// With trouble; where a watch may nevertheless go on from.
    Trouble(Trouble, Option<String>),
}

// === impl Watch ===

impl<K> Watch<K>
where
    K: Followed + Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    pub(super) fn new(
        client: Client,
        namespace: Option<&str>,
        selector: Option<String>,
        meter: Arc<Meter>,
        parts: mpsc::Sender<Part>,
    ) -> Self {
        Self {
            client,
            request: Request::new(K::url_path(&(), namespace)),
            selector,
            feed: Feed::new(K::KIND),
            meter,
            parts,
            trouble: None,
            is_known: false,
            is_settled: false,
            backoff: Backoff::default(),
            kind: PhantomData,
        }
    }

    /// Goes on until nobody listens.
    pub(super) async fn run(mut self) {
        let mut from = None;
        loop {
            let end = match from.take() {
                None => self.list().await,
                Some(version) => self.watch(version).await,
            };
            match end {
                Ok(End::At(version)) => from = Some(version),
                Ok(End::Trouble(trouble, version)) => {
                    from = version;
                    let delay = self.backoff.delay(&trouble);
                    if self.lost(trouble).await.is_err() {
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = self.parts.closed() => return,
                    }
                }
                Err(Closed) => return,
            }
        }
    }

    /// Reads all objects, page by page.
    async fn list(&mut self) -> Result<End, Closed> {
        if self.trouble.is_none() {
            self.meter.set(WatchState::Listing);
        }
        self.feed.begin_list();
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.label_selector = self.selector.clone();
        loop {
            let page = match self.page(&params).await {
                Ok(page) => page,
                // There is nothing older than a list to begin with.
                Err(Trouble::Expired(error)) if params.continue_token.is_none() => {
                    return Ok(End::Trouble(Trouble::Away(error), None));
                }
                Err(trouble) => return Ok(End::Trouble(trouble, None)),
            };
            let events = page.items.into_iter().filter_map(|object| self.feed.listed(object)).collect();
            if !page.metadata.next.is_empty() {
                params.continue_token = Some(page.metadata.next);
                self.tell(events).await?;
                continue;
            }
            let mut events: Vec<Event> = events;
            events.extend(self.feed.end_list());
            self.is_known = true;
            let lists = self.meter.lists.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::info!(
                kind = K::KIND.name(),
                objects = self.feed.len(),
                changes = events.len(),
                lists,
                "listed"
            );
            self.tell(events).await?;
            return Ok(End::At(page.metadata.resource_version));
        }
    }

    async fn page(&self, params: &ListParams) -> Result<Page<K>, Trouble> {
        let request = self.request.list(params).map_err(|error| Trouble::Away(error.to_string()))?;
        let text = timeout(PAGE_PATIENCE, self.client.request_text(request)).await;
        let text = text.map_err(|_| Trouble::Away(format!("no list within {PAGE_PATIENCE:?}")))?;
        let text = text.map_err(|error| Trouble::of_error(&error))?;
        serde_json::from_str(&text).map_err(|error| Trouble::Away(format!("the list does not read: {error}")))
    }

    /// Follows changes from that version on, until the API server ends it or something is in the way.
    async fn watch(&mut self, mut version: String) -> Result<End, Closed> {
        let params = WatchParams {
            label_selector: self.selector.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = match self.request.watch(&params, &version) {
            Ok(request) => request,
            Err(error) => return Ok(End::Trouble(Trouble::Away(error.to_string()), None)),
        };
        let beginning = timeout(WATCH_PATIENCE, self.client.request_events::<Guarded<K>>(request)).await;
        let stream = match beginning {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ok(refused(Trouble::of_error(&error), version)),
            Err(_) => {
                let trouble = Trouble::Away(format!("no watch within {WATCH_PATIENCE:?}"));
                return Ok(End::Trouble(trouble, Some(version)));
            }
        };
        self.there().await?;
        let begun = Instant::now();
        let end = begun + Duration::from_secs(WATCH_SECONDS.into()) + WATCH_PATIENCE;
        let mut chunks = pin!(stream.ready_chunks(CHUNK));
        loop {
            let chunk = tokio::select! {
                chunk = timeout_at(end, chunks.next()) => chunk,
                () = self.parts.closed() => return Err(Closed),
            };
            // Ended, or silent although the API server should have ended it.
            let Ok(Some(chunk)) = chunk else { return Ok(End::At(version)) };
            let mut events = Vec::with_capacity(chunk.len());
            let mut trouble = None;
            for event in chunk {
                match event {
                    Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                        note(&mut version, &object.version);
                        events.extend(self.feed.applied(object));
                    }
                    Ok(WatchEvent::Deleted(object)) => {
                        note(&mut version, &object.version);
                        events.extend(self.feed.deleted(object));
                    }
                    Ok(WatchEvent::Bookmark(bookmark)) => {
                        note(&mut version, &bookmark.metadata.resource_version);
                    }
                    Ok(WatchEvent::Error(status)) => trouble = Some(Trouble::of_status(&status)),
                    Err(error) => trouble = Some(Trouble::of_error(&error)),
                }
                if trouble.is_some() {
                    break;
                }
            }
            if !events.is_empty() || begun.elapsed() > SETTLED {
                self.backoff.reset();
            }
            self.tell(events).await?;
            if let Some(trouble) = trouble {
                return Ok(refused(trouble, version));
            }
        }
    }

    /// Passes on what has changed, if anything has.
    async fn tell(&mut self, events: Vec<Event>) -> Result<(), Closed> {
        self.meter.objects.store(self.feed.len(), Ordering::Relaxed);
        let has_new_problems = self.feed.take_news();
        self.send(events, has_new_problems).await
    }

    async fn send(&mut self, events: Vec<Event>, has_new_problems: bool) -> Result<(), Closed> {
        let problems = has_new_problems.then(|| {
            let mut problems = self.feed.problems();
            problems.extend(self.trouble.as_ref().and_then(|it| it.problem(K::KIND, self.is_known)));
            problems
        });
        // A kind that is not installed has no objects: nobody needs to wait for them.
        let is_settled = self.is_known || self.trouble == Some(Trouble::NotInstalled);
        if events.is_empty() && problems.is_none() && is_settled == self.is_settled {
            return Ok(());
        }
        self.is_settled = is_settled;
        let part = Part { kind: K::KIND, events, problems, is_settled };
        self.parts.send(part).await.map_err(|_| Closed)
    }

    /// Something is in the way. Nothing is said of the objects themselves: they are as they were.
    async fn lost(&mut self, trouble: Trouble) -> Result<(), Closed> {
        let kind = K::KIND.name();
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
                tracing::info!(
                    kind,
                    api = K::KIND.api_version(),
                    "not installed, looking again from time to time"
                );
            }
            (Trouble::Expired(_), true) => tracing::info!(kind, reason = %trouble, "listing again"),
            (Trouble::Denied(_) | Trouble::Away(_), true) => {
                tracing::warn!(kind, error = %trouble, "cannot follow, going on with what is known");
            }
        }
        if self.trouble.as_ref() == Some(&trouble) {
            return Ok(());
        }
        self.trouble = Some(trouble);
        self.send(Vec::new(), true).await
    }

    /// The watch is there.
    async fn there(&mut self) -> Result<(), Closed> {
        self.meter.set(WatchState::Watching);
        if self.trouble.take().is_none() {
            return Ok(());
        }
        tracing::info!(kind = K::KIND.name(), "following again");
        self.send(Vec::new(), true).await
    }
}

/// From where to go on after that.
fn refused(trouble: Trouble, version: String) -> End {
    let from = match trouble {
        Trouble::Expired(_) | Trouble::NotInstalled => None,
        Trouble::Denied(_) | Trouble::Away(_) => Some(version),
    };
    End::Trouble(trouble, from)
}

fn note(version: &mut String, newer: &str) {
    if !newer.is_empty() && version != newer {
        newer.clone_into(version);
    }
}
