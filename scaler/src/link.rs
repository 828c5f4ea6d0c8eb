//! The link's server: one stream from every gateway worker.
//!
//! A stream is two halves that do not wait for each other: reports are taken in as they come, and what is new is
//! sent as the worker reads it. Acknowledgements are the one thing that goes between them.

mod codec;
mod letters;
mod server;
mod wire;

pub use server::LinkServer;

use crate::{
    hub::Hub,
    ledger::{Seat, WorkerId},
};
use codec::{Down, Up};
use letters::Letters;
use server::Told;
use sluice_proto::link::{self, Hello, PROTOCOL, Settings, ToWorker, Welcome, to_worker};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The longest message from a worker: a complete report of some ten thousand routes with all their histograms.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// How long a worker may take to say hello.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest node id and filter version: Envoy's node ids are pod names with a few additions.
const MAX_NAME: usize = 1_024;
/// How many messages wait for a worker to read them. Few: what is newer is folded into what is sent later.
const QUEUE: usize = 4;

/// The service.
#[derive(Clone, Debug)]
pub struct LinkService {
    hub: Arc<Hub>,
    letters: Arc<Letters>,
}

/// What comes from the reports' half to the sending half.
#[derive(Debug)]
enum End {
    /// The worker has closed its half, or is gone.
    Closed,
    /// The worker broke the rules, or another stream took its place.
    Refused(Status),
}

// === impl LinkService ===

impl LinkService {
    /// The service, ready to be served.
    pub fn server(hub: Arc<Hub>) -> LinkServer {
        LinkServer::new(Self { hub, letters: Arc::default() })
    }

    async fn connect(&self, request: Request<Streaming<Up>>) -> Result<Response<Told>, Status> {
        let mut reports = request.into_inner();
        let hello = tokio::time::timeout(PATIENCE, reports.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came; say hello first"))??;
        let hello = check(hello)?;
        let id = WorkerId { gateway: hello.gateway, instance: hello.instance };
        let is_young = Duration::from_millis(hello.age_ms) < self.hub.worker_grace;
        let seat = self
            .hub
            .ledger
            .join(id.clone(), hello.filter_version, is_young)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        tracing::info!(gateway = %id.gateway, instance = format_args!("{:x}", id.instance), "worker connected");
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(serve(self.clone(), id, seat, reports, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The hello, if it is one that can be answered.
fn check(message: Option<Up>) -> Result<Hello, Status> {
    let hello = match message {
        Some(Up::Hello(hello)) => hello,
        Some(Up::Report(_)) => {
            return Err(Status::failed_precondition("a report came first; say hello first"));
        }
        Some(Up::Other) | None => {
            return Err(Status::failed_precondition("the stream ended without a hello"));
        }
    };
    if hello.protocol != PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "the filter speaks version {} of the link, this scaler speaks version {PROTOCOL} alone; \
             install filter and scaler of the same release",
            hello.protocol
        )));
    }
    for (what, text) in [("gateway", &hello.gateway), ("filter_version", &hello.filter_version)] {
        if text.len() > MAX_NAME {
            return Err(Status::invalid_argument(format!("{what} is longer than {MAX_NAME} bytes")));
        }
    }
    Ok(hello)
}

async fn serve(
    LinkService { hub, letters }: LinkService,
    id: WorkerId,
    seat: Seat,
    reports: Streaming<Up>,
    sender: mpsc::Sender<Result<Down, Status>>,
) {
    let (acks, acked) = watch::channel(0);
    // Both halves run side by side in one task; whichever ends ends the stream.
    let end = tokio::select! {
        end = receive(&hub, &seat, reports, acks) => end,
        end = send(&hub, &letters, &seat, &sender, acked) => end,
        error = { let mut seat = seat.clone(); async move { seat.superseded().await } } => {
            End::Refused(Status::aborted(error.to_string()))
        }
        () = hub.draining() => End::Closed,
    };
    let has_left = hub.ledger.leave(&seat);
    let instance = format!("{:x}", id.instance);
    match end {
        End::Closed => tracing::info!(gateway = %id.gateway, %instance, "worker gone"),
        End::Refused(status) => {
            tracing::warn!(gateway = %id.gateway, %instance, %status, "link ended");
            // It may well be that nobody reads any more.
            let _ = tokio::time::timeout(PATIENCE, sender.send(Err(status))).await;
        }
    }
    // Ends the stream: with OK, unless there was something else to say.
    drop(sender);
    if has_left {
        tokio::time::sleep(hub.worker_grace).await;
        hub.ledger.expire(hub.clock.now(), &seat);
    }
}

/// Takes in what the worker says.
async fn receive(hub: &Hub, seat: &Seat, mut reports: Streaming<Up>, acks: watch::Sender<u64>) -> End {
    // Before, it could not be told which of the routes that a worker names are none. It waits; and if it takes too
    // long it comes again.
    hub.started().await;
    loop {
        let message = match reports.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return End::Closed,
            // A reset is how a gateway's stream ends when its worker is gone. What the client itself did wrong
            // (a message that is too long, say) it has to hear.
            Err(status)
                if matches!(
                    status.code(),
                    tonic::Code::Cancelled | tonic::Code::Unknown | tonic::Code::Unavailable
                ) =>
            {
                return End::Closed;
            }
            Err(status) => return End::Refused(status),
        };
        match message {
            Up::Report(report) => {
                if let Err(error) = seat.report(&hub.ledger, hub.clock.now(), &report) {
                    return End::Refused(Status::aborted(error.to_string()));
                }
                acks.send_replace(report.sequence());
            }
            Up::Hello(_) => {
                return End::Refused(Status::failed_precondition("a second hello came; say hello once"));
            }
            // Not for us.
            Up::Other => {}
        }
    }
}

/// Sends what the worker has to know.
async fn send(
    hub: &Hub,
    letters: &Letters,
    seat: &Seat,
    sender: &mpsc::Sender<Result<Down, Status>>,
    mut acked: watch::Receiver<u64>,
) -> End {
    let welcome = Welcome {
        protocol: PROTOCOL,
        scaler: hub.name.clone(),
        settings: Some(Settings { cold_start_header: hub.cold_start_header }),
    };
    let welcome = ToWorker { message: Some(to_worker::Message::Welcome(welcome)) };
    if sender.send(Ok(welcome.into())).await.is_err() {
        return End::Closed;
    }
    let reader = hub.board.join();
    let mut versions = hub.board.versions();
    let mut told = None;
    versions.mark_changed();
    loop {
        tokio::select! {
            // What is new of readiness is what a held request waits for: it goes before acknowledgements.
            biased;
            changed = versions.changed() => {
                if changed.is_err() {
                    return End::Closed;
                }
                let Some(letter) = letters.next(&hub.board, told) else { continue };
                told = Some(letter.to);
                for message in letter.messages.iter() {
                    if sender.send(Ok(Down::Encoded(message.clone()))).await.is_err() {
                        return End::Closed;
                    }
                }
                reader.told(letter.to);
                seat.told(letter.len);
                if letter.to < hub.board.version() {
                    versions.mark_changed();
                }
            }
            changed = acked.changed() => {
                if changed.is_err() {
                    return End::Closed;
                }
                let sequence = *acked.borrow_and_update();
                let ack = ToWorker { message: Some(to_worker::Message::Ack(link::Ack { sequence })) };
                if sender.send(Ok(ack.into())).await.is_err() {
                    return End::Closed;
                }
            }
        }
    }
}
