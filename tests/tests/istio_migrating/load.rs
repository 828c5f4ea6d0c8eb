//! Clients that ask without a pause while everything around them changes, and keep what went wrong.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sluice_tests::http::{self, Answer, Http1};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// How long a client waits between two requests: all of them together leave the machine's cores to what is tested.
const PAUSE: Duration = Duration::from_millis(5);

/// The clients of one host.
pub(crate) struct Load {
    host: String,
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    enough: AtomicBool,
    good: AtomicU64,
    /// What was no 200, in words.
    bad: Mutex<Vec<String>>,
}

// === impl Load ===

impl Load {
    /// Two clients on a connection each, one that connects anew for each request, one that uploads.
    pub(crate) fn start(address: SocketAddr, host: &str) -> Self {
        let counts = Arc::<Counts>::default();
        let mut clients = JoinSet::new();
        for number in 0..4 {
            clients.spawn(client(number, address, host.to_owned(), Arc::clone(&counts)));
        }
        Self { host: host.to_owned(), counts, clients }
    }

    /// Waits until so many more answers have come, all of them good.
    pub(crate) async fn goes_on(&self, when: &str) -> Result<()> {
        const MORE: u64 = 200;
        let wanted = self.counts.good.load(Ordering::Relaxed) + MORE;
        let what = format!("{}: {MORE} answers {when}", self.host);
        sluice_tests::wait::until(what, async || match self.counts.good.load(Ordering::Relaxed) {
            good if good >= wanted || !self.bad().is_empty() => Ok(()),
            good => Err(format!("{} to come", wanted - good)),
        })
        .await?;
        let bad = self.bad();
        ensure!(bad.is_empty(), "{}, {when}: {} requests failed: {}", self.host, bad.len(), bad[0]);
        Ok(())
    }

    /// Ends it; how many answers there were, all of them good.
    pub(crate) async fn end(mut self) -> Result<u64> {
        self.counts.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        let bad = self.bad();
        ensure!(bad.is_empty(), "{}: {} requests failed: {bad:?}", self.host, bad.len());
        Ok(self.counts.good.load(Ordering::Relaxed))
    }

    fn bad(&self) -> Vec<String> {
        self.counts.bad.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn client(number: u32, address: SocketAddr, host: String, counts: Arc<Counts>) {
    let mut kept = None;
    while !counts.enough.load(Ordering::Relaxed) {
        let connection = if number < 2 { kept.take() } else { None };
        match once(connection, number == 3, address, &host).await {
            Ok((answer, connection)) if answer.status == 200 => {
                counts.good.fetch_add(1, Ordering::Relaxed);
                // A gateway whose listener has changed says so: the filter's coming and going are such changes.
                kept = Some(connection).filter(|_| answer.header("connection") != "close");
            }
            Ok((answer, _)) => {
                counts.failed(format!("{} {:?} {}", answer.status, answer.headers, answer.text()))
            }
            Err(error) => counts.failed(format!("{error:#}")),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Counts {
    fn failed(&self, what: String) {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

async fn once(
    connection: Option<Http1>,
    uploads: bool,
    address: SocketAddr,
    host: &str,
) -> Result<(Answer, Http1)> {
    let request = if uploads {
        Request::post("/digest").header("host", host).body(Full::new(Bytes::from(vec![b'x'; 100_000])))?
    } else {
        http::get_request(host, "/")?
    };
    let mut connection = match connection {
        Some(connection) => connection,
        None => Http1::connect(address).await?,
    };
    let answer = connection.send(request).await?;
    Ok((answer, connection))
}
