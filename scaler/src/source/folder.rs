//! Objects from the YAML files of a folder, followed as they change.
//!
//! What is wrong changes nothing: a file that does not read keeps saying what it said before, and so does an
//! object in it. Only what is really gone is taken away.

mod content;
#[cfg(test)]
mod tests;

use super::Batch;
use content::Folder;
pub use content::Scope;
use notify::{
    EventKind, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};

/// How long nothing must happen before files are read: a file that is written in two pieces is read once. Short,
/// since a file may be the news that an app is up.
const QUIET: Duration = Duration::from_millis(4);
/// How long to wait for that at most.
const PATIENCE: Duration = Duration::from_millis(40);
/// How often to look at all files in case a change went unnoticed: network file systems tell of none.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);
/// How many changed files are remembered one by one; with more of them all files are looked at.
const MAX_PATHS: usize = 1_024;

/// Reads the folder and follows it until the receiver is gone.
///
/// The first batch is everything, and says that it is. `namespace`: only objects of that one.
pub async fn follow(root: PathBuf, namespace: Option<String>, batches: mpsc::Sender<Batch>) {
    let changes = Arc::new(Changes::default());
    // Watched before read: what changes in between is then read twice, and not missed.
    let _watcher = watch(&root, Arc::clone(&changes));
    let mut folder = Folder::new(root, namespace);
    let mut scope = Scope::All;
    let mut synced = false;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let batch = folder.read(&scope);
            (folder, batch)
        });
        let Ok((back, mut batch)) = read.await else {
            // The runtime is going down.
            return;
        };
        folder = back;
        synced |= batch.synced;
        batch.synced = synced;
        if batches.send(batch).await.is_err() {
            return;
        }
        tokio::select! {
            next = changes.settled() => scope = next,
            () = batches.closed() => return,
            () = tokio::time::sleep(LOOK_ANYWAY) => scope = Scope::All,
        }
    }
}

/// What has changed since somebody looked.
#[derive(Debug, Default)]
struct Changes {
    scope: Mutex<Scope>,
    notify: Notify,
}

impl Changes {
    fn add(&self, event: notify::Result<notify::Event>) {
        let mut scope = self.scope.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(event) if event.need_rescan() => *scope = Scope::All,
            Ok(event) if is_change(event.kind) => {
                for path in event.paths {
                    scope.add(path, MAX_PATHS);
                }
            }
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot follow the folder");
                *scope = Scope::All;
            }
        }
        drop(scope);
        self.notify.notify_one();
    }

    /// Waits until something has changed and then nothing more does.
    async fn settled(&self) -> Scope {
        self.notify.notified().await;
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                () = self.notify.notified() => {}
                () = tokio::time::sleep(QUIET) => break,
                () = &mut patience => break,
            }
        }
        std::mem::take(&mut *self.scope.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn watch(root: &std::path::Path, changes: Arc<Changes>) -> Option<notify::RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event| changes.add(event)).and_then(|mut watcher| {
        watcher.watch(root, RecursiveMode::Recursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(|error| {
            tracing::warn!(%error, folder = %root.display(), every = ?LOOK_ANYWAY, "cannot follow the folder, looking at it from time to time");
        })
        .ok()
}

/// Reading a file is an event too, and must not cause the next reading.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}
