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
    /// The host of an authority. `None` if it is longer than any host.
    pub(super) fn parse(authority: &[u8]) -> Option<Self> {
        let host = bare(authority);
        let mut bytes = [0; LONGEST];
        let place = bytes.get_mut(..host.len())?;
        place.copy_from_slice(host);
        place.make_ascii_lowercase();
        Some(Self { bytes, len: host.len() })
    }

    /// From the last one to the first.
    pub(super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        labels(self.bytes.get(..self.len).unwrap_or_default())
    }
}

impl HostPattern {
    /// Reads a host as a rule has it: `example.com`, `*.example.com`, `*`, with or without port and trailing
    /// dot, in any case. Empty: every host. A `*` that is not a whole first label stands for itself.
    pub fn parse(host: &str) -> Self {
        let host = bare(host.as_bytes()).to_ascii_lowercase();
        match host.strip_prefix(b"*.") {
            Some(apex) => Self::Wildcard(apex.into()),
            None if host.is_empty() || host == b"*" => Self::Any,
            None => Self::Exact(host.into()),
        }
    }

    /// From the last one to the first, without the `*`.
    pub(super) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let name = match self {
            Self::Exact(name) | Self::Wildcard(name) => Some(&**name),
            Self::Any => None,
        };
        name.into_iter().flat_map(labels)
    }
}

fn labels(host: &[u8]) -> impl Iterator<Item = &[u8]> {
    host.rsplit(|byte| *byte == b'.')
}

/// The host in an authority: without port, trailing dot and an IPv6 address's brackets.
fn bare(authority: &[u8]) -> &[u8] {
    if let Some(rest) = authority.strip_prefix(b"[")
        && let Some(end) = rest.iter().position(|byte| *byte == b']')
        && let Some((address, [b']', port @ ..])) = rest.split_at_checked(end)
        && (port.is_empty() || is_port(port))
        && address.contains(&b':')
    {
        return address;
    }
    let colon = authority.iter().position(|byte| *byte == b':');
    let host = match colon.and_then(|colon| authority.split_at_checked(colon)) {
        // What has more colons is an IPv6 address that lacks its brackets.
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    };
    host.strip_suffix(b".").unwrap_or(host)
}

fn is_port(with_colon: &[u8]) -> bool {
    with_colon.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_rules_lose_what_does_not_matter() {
        let exact = |host: &str| HostPattern::Exact(host.as_bytes().into());
        let wildcard = |apex: &str| HostPattern::Wildcard(apex.as_bytes().into());
        for (text, want) in [
            ("example.com", exact("example.com")),
            ("Example.COM", exact("example.com")),
            ("example.com.", exact("example.com")),
            ("example.com:8080", exact("example.com")),
            ("Example.com.:8080", exact("example.com")),
            ("localhost", exact("localhost")),
            ("10.0.0.1:80", exact("10.0.0.1")),
            ("[::1]", exact("::1")),
            ("[::1]:8080", exact("::1")),
            ("::1", exact("::1")),
            ("[FE80::A]:80", exact("fe80::a")),
            // Brackets are for addresses only, and nothing but a port comes after them.
            ("[example.com]", exact("[example.com]")),
            ("[::1]x", exact("[::1]x")),
            ("[::1", exact("[::1")),
            ("example.com:http", exact("example.com:http")),
            ("*.Example.com", wildcard("example.com")),
            ("*.example.com.:80", wildcard("example.com")),
            ("*.com", wildcard("com")),
            ("*", HostPattern::Any),
            ("*:80", HostPattern::Any),
            ("*.", HostPattern::Any),
            ("", HostPattern::Any),
            (":80", HostPattern::Any),
            ("a*.example.com", exact("a*.example.com")),
        ] {
            assert_eq!(HostPattern::parse(text), want, "{text}");
        }
    }
}
