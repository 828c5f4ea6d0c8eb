//! One connection, one request at a time, each timed: what a gateway adds to a request when nothing queues.

use crate::{stage::Way, system::Cores};
use anyhow::{Context as _, bail, ensure};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Requests before those that are timed: the connection to the app is made, caches are filled.
const WARM_UP: usize = 50;
/// Far above what an answer takes: a way that never answers ends the run with an error and not never.
const PATIENCE: Duration = Duration::from_secs(10);

/// Times `requests` requests on a connection of its own, in µs.
///
/// # Errors
/// If the connection breaks or an answer is anything but success.
pub(crate) async fn turn(way: &Way, cores: Cores, requests: usize) -> anyhow::Result<Vec<f64>> {
    let way = way.clone();
    let name = way.name.clone();
    // A thread that blocks: no runtime stands between the socket and the clock.
    tokio::task::spawn_blocking(move || cores.others(|| run(&way, requests)))
        .await?
        .with_context(|| format!("one connection to {name}"))
}

fn run(way: &Way, requests: usize) -> anyhow::Result<Vec<f64>> {
    let mut stream = TcpStream::connect(way.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", way.path, way.host);
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut times = Vec::with_capacity(requests);
    for number in 0..requests + WARM_UP {
        let sent = Instant::now();
        stream.write_all(request.as_bytes())?;
        answer(&mut stream, &mut buffer)?;
        let took = sent.elapsed();
        if number >= WARM_UP {
            times.push(took.as_nanos() as f64 / 1000.0);
        }
    }
    Ok(times)
}

fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    buffer.clear();
    let mut piece = [0; 4096];
    loop {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "the connection was closed");
        buffer.extend_from_slice(piece.get(..read).unwrap_or_default());
        if is_whole(buffer)? {
            return Ok(());
        }
    }
}

/// Whether this is a whole answer with status 200.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(head_end) = find(answer, b"\r\n\r\n") else { return Ok(false) };
    let (head, rest) = answer.split_at(head_end);
    let body = rest.get(4..).unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    ensure!(head.starts_with("HTTP/1.1 200"), "answered with {}", head.lines().next().unwrap_or_default());
    for line in head.lines().skip(1) {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(body.len() >= value.trim().parse::<usize>()?);
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Ok(body.starts_with(b"0\r\n\r\n") || body.ends_with(b"\r\n0\r\n\r\n"));
        }
    }
    bail!("an answer without a length: the connection cannot be used again")
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_last_byte_is_there() {
        for whole in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            for end in 0..whole.len() {
                assert!(!is_whole(&whole.as_bytes()[..end]).unwrap(), "{:?}", &whole[..end]);
            }
            assert!(is_whole(whole.as_bytes()).unwrap());
        }
    }

    #[test]
    fn anything_but_success_is_an_error() {
        let error = is_whole(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        assert!(is_whole(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").is_err());
    }
}
