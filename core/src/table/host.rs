//! Hosts, compared without case, port and trailing dot.

use crate::route::HostPattern;

/// The longest host that is looked up: DNS names end at 253 bytes. Longer ones match only "every host".
const LONGEST: usize = 255;

/// A request's host, ready to be looked up.
pub(super) struct Host {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Host {
    /// The host of an authority. `None` if it is empty or longer than any host.
    pub(super) fn parse(authority: &[u8]) -> Option<Self> {
        let host = bare(authority);
        let mut bytes = [0; LONGEST];
        let place = bytes.get_mut(..host.len()).filter(|place| !place.is_empty())?;
        place.copy_from_slice(host);
        place.make_ascii_lowercase();
        Some(Self { bytes, len: host.len() })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// What follows each dot: the domains that the host is below, the nearest first.
    pub(super) fn parents(&self) -> impl Iterator<Item = &[u8]> {
        let host = self.bytes();
        let dots = host.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        dots.filter_map(|(at, _)| host.get(at.saturating_add(1)..))
    }
}

impl HostPattern {
    /// Reads a host as objects name it: `a.example.com`, `*.example.com`, `*` or nothing for every host; with
    /// or without a port, which does not count.
    pub fn parse(host: &str) -> Self {
        let host = bare(host.as_bytes()).to_ascii_lowercase();
        match host.strip_prefix(b"*.") {
            _ if host.is_empty() || host == b"*" => Self::Any,
            Some(domain) if !domain.is_empty() => Self::Wildcard(domain.into()),
            _ => Self::Exact(host.into()),
        }
    }
}

/// Without port and trailing dot: `a.example.com.:80` and `[::1]:80` too.
fn bare(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|byte| *byte == b':');
    let host = match colon.and_then(|colon| authority.split_at_checked(colon)) {
        // An IPv6 address has colons of its own, and stands in brackets if it has a port.
        Some((host, port)) if is_port(port) && (host.ends_with(b"]") || !host.contains(&b':')) => host,
        _ => authority,
    };
    host.strip_suffix(b".").unwrap_or(host)
}

fn is_port(with_colon: &[u8]) -> bool {
    with_colon.iter().skip(1).all(u8::is_ascii_digit)
}
