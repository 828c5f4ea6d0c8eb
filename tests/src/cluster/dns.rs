//! The cluster's DNS: names of Services (`app.shop.svc.cluster.local`) to their addresses, by UDP.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use super::netns::DNS_ADDRESS;

/// What is known, by full lower-case name without the final dot.
pub(super) type Names = Arc<RwLock<BTreeMap<String, Vec<Ipv4Addr>>>>;

const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const NAME_ERROR: u8 = 3;
/// Answers may be cached by the asker for that long (s): not at all, so that a test sees its own changes.
const TTL: u32 = 0;

/// Binds port 53 in the namespace and answers until dropped.
pub(super) async fn serve(names: Names) -> Result<impl Future<Output = ()>> {
    let socket = UdpSocket::bind((DNS_ADDRESS, 53)).await.context("cannot bind the cluster's DNS address")?;
    Ok(async move {
        let mut packet = [0; 512];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
            let names = |name: &str| names.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
            if let Some(reply) = answer(&packet[..length], names) {
                // Who asked may be gone.
                let _ = socket.send_to(&reply, from).await;
            }
        }
    })
}

/// The reply to a query (RFC 1035 §4.1); `None` to what is not a query with one question.
fn answer(query: &[u8], lookup: impl Fn(&str) -> Option<Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let is_response = header[2] & 0x80 != 0;
    if is_response || header[4..6] != [0, 1] {
        return None;
    }
    let (name, end) = name_at(query, 12)?;
    let question = query.get(12..end + 4)?;
    let [kind, class] = [end, end + 2].map(|at| u16::from_be_bytes([query[at], query[at + 1]]));
    let found = lookup(&name);
    // A name that exists without addresses of the wanted type is no error: clients ask for AAAA beside A.
    let code = if found.is_some() { 0 } else { NAME_ERROR };
    let addresses = found.filter(|_| kind == TYPE_A && class == CLASS_IN).unwrap_or_default();

    let mut reply = header.to_vec();
    // QR and AA; RD is echoed. RA as well, or some resolvers ask no further.
    reply[2] = 0x84 | (header[2] & 0x01);
    reply[3] = 0x80 | code;
    let count = u16::try_from(addresses.len()).ok()?.to_be_bytes();
    reply[6..12].copy_from_slice(&[count[0], count[1], 0, 0, 0, 0]);
    reply.extend(question);
    for address in addresses {
        // 0xc00c points at the question's name.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1]);
        reply.extend(TTL.to_be_bytes());
        reply.extend([0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}

/// The name at `at`, in lower case, and where it ends. Queries have no compressed names.
fn name_at(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        match length {
            0 => return Some((labels.join("."), at)),
            1..=63 => {
                let label = std::str::from_utf8(packet.get(at..at + length)?).ok()?;
                labels.push(label.to_ascii_lowercase());
                at += length;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(kind: u8) -> Vec<u8> {
        let mut query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03App\x04shop\x00\x00".to_vec();
        query.extend([kind, 0, 1]);
        query
    }

    fn known(name: &str) -> Option<Vec<Ipv4Addr>> {
        (name == "app.shop").then(|| vec![Ipv4Addr::new(10, 96, 0, 7)])
    }

    #[test]
    fn a_known_name_has_its_address() {
        let reply = answer(&query(1), known).unwrap();
        assert_eq!(reply[..12], *b"\x12\x34\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00");
        assert_eq!(reply[reply.len() - 16..], *b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x0a\x60\0\x07");
    }

    #[test]
    fn a_known_name_without_such_an_address_is_no_error() {
        let reply = answer(&query(28), known).unwrap();
        assert_eq!((reply[3] & 0x0f, reply[7], reply.len()), (0, 0, query(28).len()));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert_eq!(answer(&query(1), |_| None).unwrap()[3] & 0x0f, NAME_ERROR);
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        let whole = query(1);
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], known), None, "{length} bytes");
        }
        let mut response = whole;
        response[2] |= 0x80;
        assert_eq!(answer(&response, known), None);
    }
}
