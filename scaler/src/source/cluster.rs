//! Objects from an API server, followed as they change.
//!
//! Each kind is listed and watched for itself, and what comes of it goes the same way as a folder's files. A watch
//! that is lost changes nothing: what was known stays until the API server says otherwise, and what is gone is
//! known to be gone only from a watch, or from a list that came to its end. An object that does not read keeps what
//! it said before.

mod begun;
mod feed;
mod guarded;
mod meter;
mod standing;
#[cfg(test)]
mod tests;
mod trouble;
mod watch;

pub use meter::{WatchReport, WatchState, Watches};

use super::{Batch, Event, Object, ObjectKind, Problem};
use feed::Followed;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Client, Config, config::InferConfigError};
use sluice_api::{HttpScaledObject, InterceptorRoute, RESPONSE_BODY_LABEL};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use watch::Watch;

/// How long a connection to the API server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many pieces of news may wait. They are taken as fast as they come; what waits is memory.
const WAITING: usize = 4;

/// Why there is no API server to ask.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing says where it is.
    #[error(
        "no cluster: {0}. Run in a Pod with a ServiceAccount, or set KUBECONFIG, or give --config-dir DIR to read \
         objects from a folder"
    )]
    Infer(#[from] InferConfigError),
    /// What says where it is cannot be used: a certificate, a URL.
    #[error("cannot make a client for the API server: {0}")]
    Client(#[from] kube::Error),
}

/// News of one kind.
#[derive(Debug)]
struct Part {
    kind: ObjectKind,
    events: Vec<Event>,
    /// Everything that is wrong with the kind now; `None`: as before.
    problems: Option<Vec<Problem>>,
    /// All objects of the kind have been told, or there can be none.
    is_settled: bool,
}

/// What the kinds have said so far.
#[derive(Debug, Default)]
struct Whole {
    settled: BTreeSet<ObjectKind>,
    problems: BTreeMap<ObjectKind, Vec<Problem>>,
}

/// A client of the cluster that this process runs in, or that `KUBECONFIG` names. Connects to nothing yet.
///
/// # Errors
/// If nothing says where the API server is, or that cannot be used.
pub async fn connect() -> Result<Client, ConnectError> {
    let config = Config::infer().await?;
    tracing::info!(server = %config.cluster_url, "following an API server");
    client(config)
}

fn client(mut config: Config) -> Result<Client, ConnectError> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Each watch tries again by itself, and says so meanwhile.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Follows all kinds until the receiver is gone.
///
/// The first batch that says it is everything comes once each kind was listed to its end, or is not installed.
/// `namespace`: only objects of that one.
pub async fn follow(
    client: Client,
    namespace: Option<String>,
    watches: Arc<Watches>,
    batches: mpsc::Sender<Batch>,
) {
    let (sender, mut parts) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    for kind in ObjectKind::ALL {
        let (client, namespace) = (client.clone(), namespace.as_deref());
        let (meter, sender) = (watches.add(kind), sender.clone());
        match kind {
            ObjectKind::HttpScaledObject => {
                tasks.spawn(Watch::<HttpScaledObject>::new(client, namespace, None, meter, sender).run())
            }
            ObjectKind::InterceptorRoute => {
                tasks.spawn(Watch::<InterceptorRoute>::new(client, namespace, None, meter, sender).run())
            }
            ObjectKind::Service => {
                tasks.spawn(Watch::<Service>::new(client, namespace, None, meter, sender).run())
            }
            ObjectKind::EndpointSlice => {
                tasks.spawn(Watch::<EndpointSlice>::new(client, namespace, None, meter, sender).run())
            }
            ObjectKind::ConfigMap => {
                // Others hold what is nobody's business.
                let bodies = format!("{RESPONSE_BODY_LABEL}=true");
                tasks.spawn(Watch::<ConfigMap>::new(client, namespace, Some(bodies), meter, sender).run())
            }
        };
    }
    drop(sender);
    let mut whole = Whole::default();
    while let Some(part) = parts.recv().await {
        if batches.send(whole.take(part)).await.is_err() {
            return;
        }
    }
}

// === impl Whole ===

impl Whole {
    fn take(&mut self, part: Part) -> Batch {
        let Part { kind, events, problems, is_settled } = part;
        if is_settled {
            self.settled.insert(kind);
        }
        let problems = problems.map(|problems| {
            self.problems.insert(kind, problems);
            self.problems.values().flatten().cloned().collect()
        });
        Batch { events, problems, synced: self.settled.len() == ObjectKind::ALL.len() }
    }
}

macro_rules! followed {
    ($($kind:ident),+) => {
        $(impl Followed for $kind {
            const KIND: ObjectKind = ObjectKind::$kind;

            fn told(self) -> Object {
                Object::$kind(Box::new(self))
            }
        })+
    };
}

followed!(HttpScaledObject, InterceptorRoute, Service, EndpointSlice, ConfigMap);
