//! The link's messages as the load needs them: reports that many workers share are encoded once, and of a table
//! only what has to be known of it is read.
//!
//! What is measured is the scaler. With the usual codec every worker would make ten thousand routes of its table
//! and throw them away, on the scaler's cores.

use bytes::{Buf, BufMut as _, Bytes};
use prost::{
    Message as _,
    encoding::{self, WireType},
};
use sluice_proto::link::{FromWorker, RouteCounts, ToWorker, from_worker, to_worker};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// `FromWorker.report`, `Report.sequence`, `Report.complete` and `Report.routes`.
const REPORT: u32 = 2;
const SEQUENCE: u32 = 1;
const COMPLETE: u32 = 2;
const ROUTES: u32 = 3;
/// `ToWorker.table`, `Table.upserts` and `Table.complete`.
const TABLE: u32 = 2;
const UPSERTS: u32 = 2;
const WHOLE: u32 = 4;

/// What goes up.
#[derive(Clone, Debug)]
pub(super) enum Up {
    /// As it is.
    Hello(Box<FromWorker>),
    /// A report; its routes are encoded already.
    Report {
        /// Its number.
        sequence: u64,
        /// The first one of its stream.
        complete: bool,
        /// Routes, one after the other.
        routes: [Bytes; 2],
    },
}

/// What comes down.
#[derive(Clone, Debug)]
pub(super) enum Down {
    /// A piece of the table.
    Table {
        /// How many routes it names.
        routes: usize,
        /// The last piece.
        complete: bool,
    },
    /// Anything else.
    Other(to_worker::Message),
}

/// The codec of a worker's side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkCodec;

/// Appends routes as a report has them.
pub(super) fn append(routes: &mut Vec<u8>, counts: &RouteCounts) {
    encoding::message::encode(ROUTES, counts, routes);
}

/// A hello.
pub(super) fn hello(hello: sluice_proto::link::Hello) -> Up {
    Up::Hello(Box::new(FromWorker { message: Some(from_worker::Message::Hello(hello)) }))
}

// === impl LinkCodec ===

impl Codec for LinkCodec {
    type Encode = Up;
    type Decode = Down;
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
    type Item = Up;
    type Error = Status;

    fn encode(&mut self, item: Up, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match item {
            Up::Hello(hello) => hello.encode(into).map_err(|error| Status::internal(error.to_string())),
            Up::Report { sequence, complete, routes } => {
                let mut head = Vec::with_capacity(16);
                encoding::uint64::encode(SEQUENCE, &sequence, &mut head);
                if complete {
                    encoding::bool::encode(COMPLETE, &complete, &mut head);
                }
                let len = head.len() + routes.iter().map(Bytes::len).sum::<usize>();
                encoding::encode_key(REPORT, WireType::LengthDelimited, into);
                encoding::encode_varint(len as u64, into);
                into.put_slice(&head);
                for part in routes {
                    into.put(part);
                }
                Ok(())
            }
        }
    }
}

impl Decoder for LinkCodec {
    type Item = Down;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Down>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        read(bytes).map(Some)
    }
}

fn read(bytes: Bytes) -> Result<Down, Status> {
    let broken = |error: prost::DecodeError| Status::internal(error.to_string());
    let cut_off = || Status::internal("a message that is cut off");
    let mut rest = bytes.clone();
    let (TABLE, WireType::LengthDelimited) = encoding::decode_key(&mut rest).map_err(broken)? else {
        let message = ToWorker::decode(bytes).map_err(broken)?.message;
        return Ok(Down::Other(message.ok_or_else(cut_off)?));
    };
    encoding::decode_varint(&mut rest).map_err(broken)?;
    let (mut routes, mut complete) = (0, false);
    while rest.has_remaining() {
        match encoding::decode_key(&mut rest).map_err(broken)? {
            (UPSERTS, WireType::LengthDelimited) => {
                let len = encoding::decode_varint(&mut rest).map_err(broken)?;
                let len = usize::try_from(len).ok().filter(|len| *len <= rest.remaining());
                rest.advance(len.ok_or_else(cut_off)?);
                routes += 1;
            }
            (WHOLE, WireType::Varint) => {
                complete = encoding::decode_varint(&mut rest).map_err(broken)? != 0;
            }
            (field, wire) => {
                let context = encoding::DecodeContext::default();
                encoding::skip_field(wire, field, &mut rest, context).map_err(broken)?;
            }
        }
    }
    Ok(Down::Table { routes, complete })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::link::{Ack, Route, Table};

    #[test]
    fn a_table_is_counted_and_not_read() {
        let route = Route { id: 7, name: "app".to_owned(), ..Route::default() };
        let table =
            Table { reset: true, upserts: vec![route.clone(), route], removals: vec![9], complete: true };
        let message = ToWorker { message: Some(to_worker::Message::Table(table)) };
        let Down::Table { routes, complete } = read(message.encode_to_vec().into()).unwrap() else {
            panic!("it is a table")
        };
        assert_eq!((routes, complete), (2, true));
        let ack = ToWorker { message: Some(to_worker::Message::Ack(Ack { sequence: 3 })) };
        assert!(matches!(
            read(ack.encode_to_vec().into()).unwrap(),
            Down::Other(to_worker::Message::Ack(Ack { sequence: 3 }))
        ));
        assert!(read(Bytes::from_static(&[0x12, 3, 0x12, 9, 0])).is_err(), "a route that is cut off");
    }
}
