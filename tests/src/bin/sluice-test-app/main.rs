//! A small app to be scaled to zero: HTTP/1.1 and h2c, gRPC, WebSocket, uploads, slow answers, and a log of what
//! arrived when.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200 as soon as it listens; not logged |
//! | `/digest` | length and SHA-256 of the request's body |
//! | `/echo` | the request's body, as it comes |
//! | `/slow?ms=N` | after N milliseconds |
//! | `/headers` | the request's headers as JSON |
//! | `/ws` | a WebSocket that echoes messages |
//! | any, `content-type: application/grpc` | the request's messages back, then `grpc-status: 0` |
//! | any other | a line of text |

mod answer;
mod log;

use anyhow::Context as _;
use clap::Parser;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use log::RequestLog;
use sluice_tests::paths;
use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// An app for tests and the demo.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How long to wait before listening, as an app that has something to load.
    #[arg(long, default_value_t = 0)]
    start_delay_ms: u64,
    /// How long to go on as before when asked to end, as with a preStop hook.
    #[arg(long, default_value_t = 0)]
    end_delay_ms: u64,
    /// Where to write the address once listening.
    #[arg(long)]
    address_file: Option<PathBuf>,
    /// Where to write a line of JSON for each request.
    #[arg(long)]
    request_log: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    run(Args::parse()).await
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let log = Arc::new(RequestLog::create(args.request_log.as_deref())?);
    tokio::time::sleep(Duration::from_millis(args.start_delay_ms)).await;
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    if let Some(file) = &args.address_file {
        paths::write_atomically(file, &address.to_string())?;
    }
    println!("listening on {address}");

    let connections = GracefulShutdown::new();
    let mut number = 0;
    let mut asked = std::pin::pin!(async {
        terminate.recv().await;
        tokio::time::sleep(Duration::from_millis(args.end_delay_ms)).await;
    });
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.context("accept")?.0,
            () = &mut asked => break,
        };
        number += 1;
        stream.set_nodelay(true)?;
        let log = Arc::clone(&log);
        let service = service_fn(move |request| {
            let log = Arc::clone(&log);
            async move { Ok::<_, Infallible>(answer::answer(request, number, &log).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Tests hold thousands of streams on one connection.
        builder.http2().max_concurrent_streams(100_000);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection {number}: {error}");
            }
        });
    }
    drop(listener);
    println!("ending: {} connections to finish", connections.count());
    connections.shutdown().await;
    Ok(())
}
