//! An HTTP client of which a test sees the connection: what is sent on which one, and when it is closed.

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::Body,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::{
    client::Grpc,
    transport::{Channel, Endpoint},
};

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// One HTTP/1.1 connection. Dropping it closes it, whatever is under way.
#[derive(Debug)]
pub struct Http1<B = Full<Bytes>> {
    sender: http1::SendRequest<B>,
    connection: JoinHandle<()>,
}

/// One HTTP/2 connection (prior knowledge). Dropping the last clone of its sender lets it end.
#[derive(Clone, Debug)]
pub struct Http2<B = Full<Bytes>> {
    sender: http2::SendRequest<B>,
}

// === impl Answer ===

impl Answer {
    /// Waits for the end of an answer.
    ///
    /// # Errors
    /// If it breaks off.
    pub async fn of<B>(response: hyper::Response<B>) -> anyhow::Result<Self>
    where
        B: Body<Error: Into<anyhow::Error>>,
    {
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(Into::into).context("the answer broke off")?.to_bytes();
        Ok(Self { status: head.status, headers: head.headers, body })
    }

    /// A header as text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is something else.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("not the JSON that was expected: {}", self.text()))
    }
}

// === impl Http1 ===

impl<B> Http1<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(tcp(address).await?)).await?;
        // Its end shows in the requests' results.
        let connection = tokio::spawn(async move { _ = connection.await });
        Ok(Self { sender, connection })
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn send(&mut self, request: Request<B>) -> anyhow::Result<Answer> {
        self.sender.ready().await?;
        Answer::of(self.sender.send_request(request).await?).await
    }
}

impl<B> Drop for Http1<B> {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

// === impl Http2 ===

impl<B> Http2<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let io = TokioIo::new(tcp(address).await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(async move { _ = connection.await });
        Ok(Self { sender })
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// If the connection or the stream breaks.
    pub async fn send(&self, request: Request<B>) -> anyhow::Result<Answer> {
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Answer::of(sender.send_request(request).await?).await
    }
}

async fn tcp(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// GET on a connection of its own, with the address as authority.
///
/// # Errors
/// If there is no answer.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    request(address, get_request(&address.to_string(), path)?).await
}

/// A request on an HTTP/1.1 connection of its own.
///
/// # Errors
/// If there is no answer.
pub async fn request(address: SocketAddr, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    Http1::connect(address).await?.send(request).await
}

/// A GET for HTTP/1.1.
///
/// # Errors
/// If host or path cannot be in a request.
pub fn get_request(host: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    Ok(Request::get(path).header("host", host).body(Full::default())?)
}

/// A GET for HTTP/2, where the host is part of the URI.
///
/// # Errors
/// If host or path cannot be in a request.
pub fn get_request_http2(host: &str, path: &str) -> anyhow::Result<Request<Full<Bytes>>> {
    Ok(Request::get(format!("http://{host}{path}")).body(Full::default())?)
}

/// A gRPC client that speaks to `address` under the authority of `host`.
///
/// # Errors
/// If nobody listens.
pub async fn grpc_client(address: SocketAddr, host: &str) -> anyhow::Result<Grpc<Channel>> {
    let endpoint =
        Endpoint::from_shared(format!("http://{address}"))?.origin(format!("http://{host}").parse()?);
    let mut client = Grpc::new(endpoint.connect().await?);
    client.ready().await?;
    Ok(client)
}
