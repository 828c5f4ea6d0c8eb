//! The app of the bench: as little work per request as can be, so that what is measured is the gateway.
//!
//! It answers every HTTP/1.1 request without a body with the same three bytes. With `--silent` it takes requests
//! and never answers: what a gateway without Sluice holds a request at.

use anyhow::Context as _;
use clap::Parser;
use sluice_tests::paths;
use std::{net::SocketAddr, path::PathBuf};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// An app for benchmarks.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to write the address once listening.
    #[arg(long)]
    address_file: PathBuf,
    /// Never answer.
    #[arg(long)]
    silent: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    paths::write_atomically(&args.address_file, &listener.local_addr()?.to_string())?;
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        stream.set_nodelay(true)?;
        // A connection that breaks is the gateway's business: it shows in what the client counts.
        tokio::spawn(async move { _ = serve(stream, args.silent).await });
    }
}

async fn serve(mut stream: TcpStream, silent: bool) -> std::io::Result<()> {
    // Small when silent: thousands of connections are open then.
    let mut buffer = vec![0; if silent { 1024 } else { 16 * 1024 }];
    let mut ends = EndsOfHeads::default();
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let requests = ends.count(buffer.get(..read).unwrap_or_default());
        if !silent {
            for _ in 0..requests {
                stream.write_all(ANSWER).await?;
            }
        }
    }
}

/// Finds where requests' heads end in a stream that comes in pieces.
#[derive(Default)]
struct EndsOfHeads {
    matched: usize,
}

impl EndsOfHeads {
    /// How many heads end in the next piece.
    fn count(&mut self, piece: &[u8]) -> usize {
        let mut ends = 0;
        for &byte in piece {
            if END_OF_HEAD.get(self.matched) == Some(&byte) {
                self.matched += 1;
            } else {
                // What did not match can only be the beginning of the next "\r\n\r\n".
                self.matched = usize::from(byte == b'\r');
            }
            if self.matched == END_OF_HEAD.len() {
                ends += 1;
                self.matched = 0;
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_wherever_it_is_cut() {
        let two = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: b\r\n\r\n";
        for cut in 0..=two.len() {
            let mut ends = EndsOfHeads::default();
            let (first, second) = two.split_at(cut);
            assert_eq!(ends.count(first) + ends.count(second), 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_lone_line_end_ends_no_head() {
        let mut ends = EndsOfHeads::default();
        assert_eq!(ends.count(b"GET / HTTP/1.1\r\n\r\r\nhost: a\r\n"), 0);
        assert_eq!(ends.count(b"\r\n"), 1);
    }
}
