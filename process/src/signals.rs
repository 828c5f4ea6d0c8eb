//! A process works until it is told to stop.

use std::{future::Future, io};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Works until SIGTERM or SIGINT, which turn the flag true, and then to the graceful end that `work` comes to. A
/// second signal ends the process at once.
///
/// # Errors
/// If there are no threads or signals to be had, and what `work` fails with.
pub fn until_told<E, W>(work: impl FnOnce(watch::Receiver<bool>) -> W) -> Result<(), E>
where
    E: From<io::Error>,
    W: Future<Output = Result<(), E>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Held here as well: a sender that is gone would look like a signal to some, and has sent none.
        let (stop, stopping) = watch::channel(false);
        let told = stop.clone();
        let watcher = tokio::spawn(async move {
            let signal = either(&mut terminate, &mut interrupt).await;
            tracing::info!(signal, "ending");
            told.send_replace(true);
            let signal = either(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal, "ending at once");
            std::process::exit(1);
        });
        let result = work(stopping).await;
        watcher.abort();
        drop(stop);
        result
    });
    // What still runs is of no use to anybody.
    runtime.shutdown_background();
    result
}

/// Waits for a signal; gives its name.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
