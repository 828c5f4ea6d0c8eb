//! Path prefixes by whole segments, as a trie.

use super::Candidate;

/// How deep a path prefix can be; deeper ones are never matched. No real one is, and it bounds what a look-up has
/// to remember.
pub const MAX_SEGMENTS: usize = 32;

/// The longest segment that is decoded to be compared: longer ones with `%` in them match nothing.
const LONGEST_DECODED: usize = 256;

/// The prefixes that begin with one path, and the rules for just that path.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// By segment.
    children: Vec<(Box<[u8]>, Node)>,
    candidates: Vec<Candidate>,
}

/// The nodes on a path's way, the root first.
pub(super) struct Prefixes<'a> {
    nodes: [Option<&'a Node>; MAX_SEGMENTS + 1],
}

// === impl Node ===

impl Node {
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.candidates.is_empty()
    }

    /// Whether the path makes no difference.
    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The nodes of all prefixes of a request's path.
    pub(super) fn walk(&self, path: &[u8]) -> Prefixes<'_> {
        let mut prefixes = Prefixes::root(self);
        let mut node = self;
        for (segment, place) in request_segments(path).zip(prefixes.nodes.iter_mut().skip(1)) {
            let mut decoded = [0; LONGEST_DECODED];
            let Some(child) = decode(segment, &mut decoded).and_then(|segment| node.child(segment)) else {
                break;
            };
            node = child;
            *place = Some(child);
        }
        prefixes
    }

    /// The node of a rule's path, made where it is missing. `None` if it is too deep.
    pub(super) fn make(&mut self, path: &[u8]) -> Option<&mut Self> {
        if segments(path).count() > MAX_SEGMENTS {
            return None;
        }
        let mut node = self;
        for segment in segments(path) {
            let index = match node.position(segment) {
                Ok(index) => index,
                Err(index) => {
                    node.children.insert(index, (segment.into(), Self::default()));
                    index
                }
            };
            node = &mut node.children.get_mut(index)?.1;
        }
        Some(node)
    }

    /// Puts a candidate where `rank` says; the smallest comes first.
    pub(super) fn insert<R: Ord>(&mut self, candidate: Candidate, rank: impl Fn(&Candidate) -> R) {
        if self.candidates.contains(&candidate) {
            return;
        }
        let own = rank(&candidate);
        let index = self.candidates.partition_point(|other| rank(other) <= own);
        self.candidates.insert(index, candidate);
    }

    /// Takes a candidate out of a path's node, and drops the nodes that nobody needs any more.
    pub(super) fn remove(&mut self, path: &[u8], candidate: Candidate) {
        if segments(path).count() <= MAX_SEGMENTS {
            self.remove_below(segments(path), candidate);
        }
    }

    fn remove_below<'p>(&mut self, mut path: impl Iterator<Item = &'p [u8]>, candidate: Candidate) {
        let Some(segment) = path.next() else {
            self.candidates.retain(|other| *other != candidate);
            return;
        };
        // The recursion is as deep as the path, which make() has bounded.
        let path: &mut dyn Iterator<Item = &'p [u8]> = &mut path;
        if let Ok(index) = self.position(segment)
            && let Some((_, child)) = self.children.get_mut(index)
        {
            child.remove_below(path, candidate);
            if child.is_empty() {
                self.children.remove(index);
            }
        }
    }

    fn child(&self, segment: &[u8]) -> Option<&Self> {
        let index = self.position(segment).ok()?;
        self.children.get(index).map(|(_, child)| child)
    }

    fn position(&self, segment: &[u8]) -> Result<usize, usize> {
        self.children.binary_search_by(|(name, _)| (**name).cmp(segment))
    }
}

// === impl Prefixes ===

impl<'a> Prefixes<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        let mut nodes = [None; MAX_SEGMENTS + 1];
        if let Some(first) = nodes.first_mut() {
            *first = Some(node);
        }
        Self { nodes }
    }

    pub(super) fn longest_first(&self) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().rev().copied().flatten()
    }
}

/// The segments of a request's path, without query and fragment.
fn request_segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    segments(path.get(..end).unwrap_or_default())
}

/// The segments of a path; slashes at both ends do not count.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last.saturating_add(1));
    let path = path.get(start..end).unwrap_or_default();
    path.split(|byte| *byte == b'/').filter(move |_| !path.is_empty())
}

/// A segment with its percent-encoded bytes decoded; `%2F` is a byte of its segment. What is no encoding stays.
fn decode<'a>(segment: &'a [u8], decoded: &'a mut [u8; LONGEST_DECODED]) -> Option<&'a [u8]> {
    if !segment.contains(&b'%') {
        return Some(segment);
    }
    if segment.len() > decoded.len() {
        return None;
    }
    let mut rest = segment;
    let mut len = 0usize;
    for place in decoded.iter_mut() {
        let Some((first, tail)) = rest.split_first() else { break };
        let (byte, tail) = match tail {
            [high, low, tail @ ..] if *first == b'%' => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => ((high << 4) | low, tail),
                _ => (*first, rest.get(1..).unwrap_or_default()),
            },
            _ => (*first, tail),
        };
        *place = byte;
        rest = tail;
        len = len.saturating_add(1);
    }
    decoded.get(..len)
}

fn hex(digit: u8) -> Option<u8> {
    u8::try_from(char::from(digit).to_digit(16)?).ok()
}
