//! Clients that keep on asking.

use anyhow::{Context, Result, ensure};
use sluice_tests::{
    cluster::sluice::{App, Gateway},
    http::{self, Http1},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

/// Clients, each with a connection of its own, that ask again once they are answered.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts `clients` clients that ask for `path`, each at most once in `every`.
    pub(crate) fn start(gateway: &Gateway, app: &App, path: &str, clients: u32, every: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let answered = Arc::new(AtomicU64::new(0));
        let client = |_| {
            let (address, host, path) = (gateway.envoy.address(), app.host(), path.to_owned());
            tokio::spawn(ask(address, host, path, every, stopped.clone(), answered.clone()))
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, answered, clients }
    }

    /// How many requests were answered so far, all with 200.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets every client finish; how many requests were answered.
    ///
    /// # Errors
    /// If one of them was not answered with 200 by the app.
    pub(crate) async fn end(self) -> Result<u64> {
        self.stop.send(true).context("all clients have ended")?;
        for client in self.clients {
            client.await??;
        }
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

async fn ask(
    address: SocketAddr,
    host: String,
    path: String,
    every: Duration,
    mut stopped: watch::Receiver<bool>,
    answered: Arc<AtomicU64>,
) -> Result<()> {
    let mut connection = Http1::connect(address).await?;
    while !*stopped.borrow() {
        let next = Instant::now() + every;
        let count = answered.load(Ordering::Relaxed);
        let answer = connection.send(http::get_request(&host, &path)?).await;
        let answer = answer.with_context(|| format!("after {count} answers"))?;
        ensure!(answer.status == 200, "after {count} answers: {} {}", answer.status, answer.text());
        answered.fetch_add(1, Ordering::Relaxed);
        // The load's pace, not a wait for something.
        _ = tokio::time::timeout_at(next, stopped.wait_for(|stopped| *stopped)).await;
    }
    Ok(())
}
