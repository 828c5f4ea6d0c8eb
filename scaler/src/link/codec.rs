//! The link on the wire: what many sessions are told is encoded once, and here only copied; what a worker reports
//! is read where it lies.

use crate::ledger::{
    Report,
    fields::{self, Value},
};
use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use sluice_proto::link::{FromWorker, Hello, ToWorker, from_worker};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// The field of `FromWorker` that is a report.
const REPORT: u32 = 2;

/// What a worker says.
#[derive(Clone, Debug)]
pub(super) enum Up {
    /// Who it is.
    Hello(Hello),
    /// What it has counted.
    Report(Report),
    /// Something that a later version of the same rules has.
    Other,
}

/// What a worker is told.
#[derive(Clone, Debug)]
pub(super) enum Down {
    /// Something of its own.
    Message(ToWorker),
    /// A [`ToWorker`] that others are told as well.
    Encoded(Bytes),
}

/// The codec of the scaler's side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkCodec;

impl From<ToWorker> for Down {
    fn from(message: ToWorker) -> Self {
        Self::Message(message)
    }
}

// === impl LinkCodec ===

impl Codec for LinkCodec {
    type Encode = Down;
    type Decode = Up;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for LinkCodec {
    type Item = Down;
    type Error = Status;

    fn encode(&mut self, item: Down, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Down::Message(message) => {
                message.encode(into).map_err(|error| Status::internal(error.to_string()))
            }
            Down::Encoded(bytes) => {
                into.put(bytes);
                Ok(())
            }
        }
    }
}

impl Decoder for LinkCodec {
    type Item = Up;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Up>, Status> {
        // No copy: a part of what has come from the network.
        read(from.copy_to_bytes(from.remaining())).map(Some)
    }
}

fn read(message: Bytes) -> Result<Up, Status> {
    if let Some(report) = report(&message) {
        return Ok(Up::Report(report));
    }
    let message = FromWorker::decode(message).map_err(|error| Status::internal(error.to_string()))?;
    Ok(match message.message {
        Some(from_worker::Message::Hello(hello)) => Up::Hello(hello),
        Some(from_worker::Message::Report(report)) => {
            let report = Report::of(&report);
            Up::Report(report.ok_or_else(|| Status::internal("a report that cannot be read"))?)
        }
        None => Up::Other,
    })
}

/// The message's report, if it is nothing else.
fn report(message: &Bytes) -> Option<Report> {
    let mut rest: &[u8] = message;
    let (REPORT, Value::Bytes(body)) = fields::take(&mut rest)? else { return None };
    if !rest.is_empty() {
        return None;
    }
    Report::read(message.slice_ref(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::link::{self, RouteCounts};

    fn message(sequence: u64, route: u64) -> Vec<u8> {
        let routes = vec![RouteCounts { route, ..RouteCounts::default() }];
        let report = link::Report { sequence, complete: false, routes };
        FromWorker { message: Some(from_worker::Message::Report(report)) }.encode_to_vec()
    }

    #[test]
    fn a_message_is_what_prost_says() {
        let hello = Hello { protocol: 1, gateway: "gw".to_owned(), ..Hello::default() };
        let bytes = FromWorker { message: Some(from_worker::Message::Hello(hello.clone())) }.encode_to_vec();
        assert!(matches!(read(bytes.clone().into()).unwrap(), Up::Hello(read) if read == hello));
        assert!(matches!(read(message(7, 1).into()).unwrap(), Up::Report(report) if report.sequence() == 7));
        assert!(matches!(read(Bytes::new()).unwrap(), Up::Other));
        // Field 9, bytes.
        assert!(matches!(read(Bytes::from_static(&[0x4a, 1, 0])).unwrap(), Up::Other));
        // Of a oneof the last one counts, and two of the same kind are one.
        let then_hello = [message(7, 1), bytes.clone()].concat();
        assert!(matches!(read(then_hello.into()).unwrap(), Up::Hello(_)));
        let twice = [message(7, 1), message(8, 2)].concat();
        assert!(matches!(read(twice.into()).unwrap(), Up::Report(report) if report.sequence() == 8));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = message(7, 1);
        for len in 1..whole.len() {
            assert!(read(whole[..len].to_vec().into()).is_err(), "{len} bytes of {}", whole.len());
        }
    }
}
