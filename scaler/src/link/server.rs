//! The service as tonic serves it, with the link's own codec in place of the one that the generated server brings.

use super::{
    LinkService, MAX_MESSAGE,
    codec::{Down, LinkCodec, Up},
};
use futures::{Stream, future::BoxFuture};
use sluice_proto::link::link_server;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, StreamingService},
};

/// Where its only method is.
const CONNECT: &str = "/sluice.link.v1.Link/Connect";

/// What is told on a stream.
pub(super) type Told = Pin<Box<dyn Stream<Item = Result<Down, Status>> + Send>>;

/// The service, ready to be served.
#[derive(Clone, Debug)]
pub struct LinkServer {
    service: LinkService,
}

struct Connect(LinkService);

// === impl LinkServer ===

impl LinkServer {
    pub(super) fn new(service: LinkService) -> Self {
        Self { service }
    }
}

impl NamedService for LinkServer {
    const NAME: &'static str = link_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for LinkServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.service.clone();
        Box::pin(async move {
            if request.uri().path() != CONNECT {
                return Ok(Status::unimplemented("the link has the method Connect alone").into_http());
            }
            let grpc = Grpc::new(LinkCodec).max_decoding_message_size(MAX_MESSAGE);
            Ok({ grpc }.streaming(Connect(service), request).await)
        })
    }
}

// === impl Connect ===

impl StreamingService<Up> for Connect {
    type Response = Down;
    type ResponseStream = Told;
    type Future = BoxFuture<'static, Result<Response<Told>, Status>>;

    fn call(&mut self, request: Request<Streaming<Up>>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.connect(request).await })
    }
}
