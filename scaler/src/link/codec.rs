//! The link on the wire: what many sessions are told is encoded once, and here only copied.

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use sluice_proto::link::{FromWorker, ToWorker};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

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
    type Decode = FromWorker;
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
    type Item = FromWorker;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<FromWorker>, Status> {
        let message = FromWorker::decode(from);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
