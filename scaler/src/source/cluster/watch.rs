//! One kind, followed for as long as somebody listens: kube's `watcher`, and when to ask it again after an error.

use super::{
    Part,
    begun::{self, Begun},
    feed::Followed,
    guarded::Guarded,
    meter::Meter,
    standing::{Retry, Standing},
    trouble::Trouble,
};
use crate::source::Event;
use futures::{FutureExt, StreamExt, stream::BoxStream};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    runtime::watcher::{self, watcher},
};
use serde::de::DeserializeOwned;
use std::{convert::Infallible, fmt::Debug, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::sleep};

/// How many objects a list asks for at a time: bounds the memory that reading them takes. `client-go` asks for as
/// many.
const PAGE: u32 = 500;
/// How long a page may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);
/// After how many seconds the API server ends a watch, with a bookmark, so that going on costs it next to nothing.
/// One that is silent for five seconds longer is dead, and the watcher begins another: that is what a connection
/// that died unnoticed costs at most.
const WATCH_SECONDS: u32 = 30;
/// How much is told together at most: a page, and that it was the last one.
const CHUNK: usize = PAGE as usize + 2;

/// One kind's watch.
pub(super) struct Watch<K> {
    api: Api<Guarded<K>>,
    config: watcher::Config,
    begun: Begun,
    standing: Standing,
    parts: mpsc::Sender<Part>,
}

/// What the watcher says, one by one.
type News<K> = BoxStream<'static, watcher::Result<watcher::Event<Guarded<K>>>>;

/// Nobody listens any more.
struct Closed;

// === impl Watch ===

impl<K> Watch<K>
where
    K: Followed + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: DeserializeOwned + Clone + Debug + Send + 'static,
{
    pub(super) fn new(
        client: Client,
        namespace: Option<&str>,
        selector: Option<String>,
        meter: Arc<Meter>,
        parts: mpsc::Sender<Part>,
    ) -> Self {
        let (client, begun) = begun::noting(client);
        let api = match namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let mut config = watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
        config.label_selector = selector;
        Self { api, config, begun, standing: Standing::new(K::KIND, meter), parts }
    }

    /// Goes on until nobody listens.
    pub(super) async fn run(mut self) {
        let Err(Closed) = self.follow().await;
    }

    async fn follow(&mut self) -> Result<Infallible, Closed> {
        let mut news = self.news();
        loop {
            let Some(retry) = self.chunk(&mut news).await? else { continue };
            if retry.from_list {
                news = self.news();
            }
            tokio::select! {
                () = sleep(retry.after) => {}
                () = self.parts.closed() => return Err(Closed),
            }
        }
    }

    /// A new watcher: lists, and goes on with a watch.
    fn news(&self) -> News<K> {
        watcher(self.api.clone(), self.config.clone()).boxed()
    }

    /// Waits for news and tells them, together with what there is besides. Says what to do after trouble.
    async fn chunk(&mut self, news: &mut News<K>) -> Result<Option<Retry>, Closed> {
        let mut next = tokio::select! {
            biased;
            () = self.parts.closed() => return Err(Closed),
            Some(()) = self.begun.recv() => {
                self.standing.begin();
                None
            }
            next = news.next() => next,
            () = sleep(PAGE_PATIENCE), if self.standing.is_listing() => {
                let after = self.standing.lose(Trouble::Away(format!("no list within {PAGE_PATIENCE:?}")));
                self.tell(Vec::new()).await?;
                return Ok(Some(Retry { after, from_list: true }));
            }
        };
        let mut events = Vec::new();
        let mut count = 0;
        let error = loop {
            // Said before anything that the watch itself says.
            if self.begun.try_recv().is_ok() {
                self.standing.begin();
            }
            match next {
                Some(Ok(event)) => self.standing.take(event, &mut events),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
            count += 1;
            if count == CHUNK {
                break None;
            }
            next = news.next().now_or_never().flatten();
        };
        self.tell(events).await?;
        let Some(error) = error else { return Ok(None) };
        let retry = self.standing.fail(&error);
        self.tell(Vec::new()).await?;
        Ok(Some(retry))
    }

    /// Passes on what is new, if anything is.
    async fn tell(&mut self, events: Vec<Event>) -> Result<(), Closed> {
        match self.standing.part(events) {
            Some(part) => self.parts.send(part).await.map_err(|_| Closed),
            None => Ok(()),
        }
    }
}
