//! One kind, listed and watched, and told about.

use futures::StreamExt;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, store::Writer},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, hash::Hash, pin::pin, time::Duration};
use tokio::sync::watch::Sender;

/// How long to wait before listing again a kind that is not installed.
const NOT_INSTALLED_PAUSE: Duration = Duration::from_secs(5);

/// How a kind's watch fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// All objects have been read once, since the kind is there.
    pub(crate) is_known: bool,
    /// What is in its way now.
    pub(crate) trouble: Option<String>,
    /// The trouble is that nobody has installed the kind.
    pub(crate) is_missing: bool,
}

/// What has happened.
#[derive(Debug)]
pub(crate) enum News<'a, K> {
    /// An object is another than it was; `None` where there is none.
    One(Option<&'a K>, Option<&'a K>),
    /// Everything was read anew; or what is known of all cannot be relied on any more, as [`State`] says.
    All,
}

// === impl State ===

impl State {
    /// Whether what the store has is so, as of some moment.
    ///
    /// # Errors
    /// If not, why not.
    pub(crate) fn known(&self) -> Result<(), String> {
        if self.is_known { Ok(()) } else { Err(self.trouble.clone().unwrap_or("not read yet".to_owned())) }
    }

    /// As it is when an attempt to follow has failed. What was known before stays known: it may be old, and is as good as
    /// anything. Of a kind that has gone nothing is left.
    fn failed(&self, trouble: String, is_missing: bool) -> Self {
        Self { is_known: self.is_known && !is_missing, trouble: Some(trouble), is_missing }
    }
}

/// Follows a kind until dropped: keeps the store, and tells what happens after the store has it.
pub(crate) async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    trim: fn(&mut K),
    mut writer: Writer<K>,
    state: Sender<State>,
    mut tell: impl FnMut(News<'_, K>),
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Hash + Eq + Clone,
{
    let reader = writer.as_reader();
    let kind = K::kind(&());
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()).default_backoff().modify(trim));
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let is_missing = is_not_installed(&error);
                    // The same words for each attempt.
                    let trouble = if is_missing {
                        format!("the cluster has no {}.{}", K::plural(&()), K::group(&()))
                    } else {
                        error.to_string()
                    };
                    let before = state.borrow().clone();
                    // Once for each trouble: it is tried again and again.
                    if before.trouble.as_deref() != Some(&trouble) {
                        tracing::warn!(%kind, error = %trouble, "cannot follow objects; trying again");
                    }
                    let now = before.failed(trouble, is_missing);
                    state.send_replace(now.clone());
                    if now.known() != before.known() {
                        tell(News::All);
                    }
                    if is_missing {
                        break;
                    }
                    continue;
                }
            };
            let old = match &event {
                Event::Apply(object) | Event::Delete(object) => reader.get(&ObjectRef::from_obj(object)),
                Event::Init | Event::InitApply(_) | Event::InitDone => None,
            };
            writer.apply_watcher_event(&event);
            // A list that has begun says nothing yet, and the store keeps what it had.
            if !matches!(event, Event::Init | Event::InitApply(_)) {
                state.send_if_modified(|state| {
                    let next = State { is_known: true, ..State::default() };
                    std::mem::replace(state, next.clone()) != next
                });
            }
            match &event {
                Event::Apply(object) => tell(News::One(old.as_deref(), Some(object))),
                Event::Delete(object) => tell(News::One(Some(old.as_deref().unwrap_or(object)), None)),
                Event::InitDone => tell(News::All),
                Event::Init | Event::InitApply(_) => {}
            }
        }
        // A watcher that has met a kind that is gone would ask for a watch for ever; a list has to come first.
        tokio::time::sleep(NOT_INSTALLED_PAUSE).await;
    }
}

fn is_not_installed(error: &watcher::Error) -> bool {
    let inner = match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::WatchError(status) => return status.code == 404,
        watcher::Error::NoResourceVersion => return false,
    };
    matches!(inner, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_known_until_its_kind_goes() {
        let failed = |state: &State, is_missing| state.failed("words".to_owned(), is_missing);
        let unread = State::default();
        assert_eq!(unread.known(), Err("not read yet".to_owned()));
        assert_eq!(failed(&unread, false).known(), Err("words".to_owned()));
        let read = State { is_known: true, ..State::default() };
        assert_eq!(failed(&read, false).known(), Ok(()));
        let gone = failed(&read, true);
        assert_eq!((gone.known(), gone.is_missing), (Err("words".to_owned()), true));
        // An API server that is away afterwards does not make it known again.
        assert_eq!(failed(&gone, false).known(), Err("words".to_owned()));
    }
}
