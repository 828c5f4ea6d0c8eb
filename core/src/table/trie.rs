//! A tree whose edges are labels: hosts from their last label on, paths from their first segment on.
//!
//! All edges lie in one hash map, so a step costs the same in a tree of one route and of ten thousand.

use slab::Slab;
use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hasher},
    num::NonZeroU32,
};

/// Labels are hashed in pieces of this many bytes, so that one that has to be decoded first needs no more
/// room than this.
const PIECE: usize = 32;

/// Makes hashers that start from a secret.
///
/// On wasm32 the standard library's hash maps have a constant key: whoever picks hosts and paths could make
/// all of them collide. Here the two secret words go through SipHash ahead of every key, so that its state is
/// as unknown as if they had been its key.
#[derive(Clone, Debug)]
pub(super) struct Seed(DefaultHasher);

/// Passes on what is a hash already.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(NonZeroU32);

/// What an edge is called.
pub(super) trait Label: Copy {
    /// Feeds it to `hasher`; equal labels make the same calls.
    fn feed(self, hasher: &mut impl Hasher);
    /// Whether it is `stored`.
    fn is(self, stored: &[u8]) -> bool;
    /// How long it is at least.
    fn min_len(self) -> usize;
}

/// A label with `%XX` in it. What is no such sequence stands for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoded<'a>(pub(super) &'a [u8]);

/// Trees with a `T` at each node.
#[derive(Debug)]
pub(super) struct Trie<T, S = Seed> {
    nodes: Slab<Node<T>>,
    /// By the hash of parent and label: the first node of the chain of those that have it.
    edges: HashMap<u64, NodeId, BuildHasherDefault<Hashed>>,
    seed: S,
    /// No label has ever been longer: what is, need not be hashed.
    longest: usize,
}

#[derive(Debug)]
struct Node<T> {
    parent: Option<NodeId>,
    label: Box<[u8]>,
    children: u32,
    /// The next one with the same hash.
    chain: Option<NodeId>,
    data: T,
}

// === impl Seed ===

impl Seed {
    pub(super) fn new(secret: [u64; 2]) -> Self {
        let mut hasher = DefaultHasher::new();
        for word in secret {
            hasher.write_u64(word);
        }
        Self(hasher)
    }
}

impl BuildHasher for Seed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

// === impl Hashed ===

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl NodeId ===

impl NodeId {
    fn new(key: usize) -> Self {
        // Four billion nodes do not fit into a Wasm module's memory.
        Self(NonZeroU32::MIN.saturating_add(u32::try_from(key).unwrap_or(u32::MAX)))
    }

    fn key(self) -> usize {
        usize::try_from(self.0.get().saturating_sub(1)).unwrap_or(usize::MAX)
    }
}

// === impl Label ===

impl Label for &[u8] {
    fn feed(self, hasher: &mut impl Hasher) {
        for piece in self.chunks(PIECE) {
            hasher.write(piece);
        }
    }

    fn is(self, stored: &[u8]) -> bool {
        self == stored
    }

    fn min_len(self) -> usize {
        self.len()
    }
}

// === impl Encoded ===

impl Label for Encoded<'_> {
    fn feed(self, hasher: &mut impl Hasher) {
        let mut decoded = self;
        let mut piece = [0; PIECE];
        loop {
            let filled = piece.iter_mut().zip(decoded.by_ref()).map(|(to, byte)| *to = byte).count();
            let Some(filled) = piece.get(..filled).filter(|filled| !filled.is_empty()) else { return };
            hasher.write(filled);
        }
    }

    fn is(self, stored: &[u8]) -> bool {
        self.eq(stored.iter().copied())
    }

    fn min_len(self) -> usize {
        self.0.len() / 3
    }
}

impl Iterator for Encoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if *first == b'%'
            && let Some(([high, low], rest)) = rest.split_first_chunk()
            && let Some(byte) = hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low)
        {
            self.0 = rest;
            return Some(byte);
        }
        self.0 = rest;
        Some(*first)
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

// === impl Trie ===

impl<T: Default, S: BuildHasher> Trie<T, S> {
    pub(super) fn new(seed: S) -> Self {
        Self { nodes: Slab::new(), edges: HashMap::default(), seed, longest: 0 }
    }

    /// A new tree.
    pub(super) fn plant(&mut self) -> NodeId {
        self.insert(None, &[], None)
    }

    /// Fells a tree that is nothing but its root.
    pub(super) fn fell(&mut self, root: NodeId) {
        self.nodes.try_remove(root.key());
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&T> {
        Some(&self.nodes.get(node.key())?.data)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut T> {
        Some(&mut self.nodes.get_mut(node.key())?.data)
    }

    pub(super) fn parent(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(node.key())?.parent
    }

    pub(super) fn has_children(&self, node: NodeId) -> bool {
        self.nodes.get(node.key()).is_some_and(|node| node.children > 0)
    }

    /// How many nodes there are, roots included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.edges.is_empty(), self.nodes.iter().all(|(_, node)| node.parent.is_none()));
        self.nodes.len()
    }

    pub(super) fn child(&self, parent: NodeId, label: impl Label) -> Option<NodeId> {
        if label.min_len() > self.longest {
            return None;
        }
        let mut at = self.edges.get(&self.hash(parent, label)).copied();
        while let Some(id) = at {
            let node = self.nodes.get(id.key())?;
            if node.parent == Some(parent) && label.is(&node.label) {
                break;
            }
            at = node.chain;
        }
        at
    }

    /// The node at the end of `labels`, counted from `from`, made if it is not there.
    pub(super) fn make<'l>(&mut self, from: NodeId, labels: impl Iterator<Item = &'l [u8]>) -> NodeId {
        let mut at = from;
        for label in labels {
            at = match self.child(at, label) {
                Some(child) => child,
                None => self.add(at, label),
            };
        }
        at
    }

    /// The node at the end of `labels`.
    pub(super) fn find<'l>(
        &self,
        from: NodeId,
        mut labels: impl Iterator<Item = &'l [u8]>,
    ) -> Option<NodeId> {
        labels.try_fold(from, |at, label| self.child(at, label))
    }

    /// Removes `node` and those above it that nothing needs any more, the root excepted.
    pub(super) fn prune(&mut self, node: NodeId, is_needed: impl Fn(&T) -> bool) {
        let mut at = node;
        while let Some(node) = self.nodes.get(at.key())
            && let Some(parent) = node.parent
            && node.children == 0
            && !is_needed(&node.data)
        {
            self.unlink(at, parent);
            at = parent;
        }
    }

    fn add(&mut self, parent: NodeId, label: &[u8]) -> NodeId {
        let hash = self.hash(parent, label);
        self.longest = self.longest.max(label.len());
        let chain = self.edges.get(&hash).copied();
        let id = self.insert(Some(parent), label, chain);
        self.edges.insert(hash, id);
        if let Some(parent) = self.nodes.get_mut(parent.key()) {
            parent.children = parent.children.saturating_add(1);
        }
        id
    }

    fn insert(&mut self, parent: Option<NodeId>, label: &[u8], chain: Option<NodeId>) -> NodeId {
        let node = Node { parent, label: label.into(), children: 0, chain, data: T::default() };
        NodeId::new(self.nodes.insert(node))
    }

    fn unlink(&mut self, id: NodeId, parent: NodeId) {
        let Some(node) = self.nodes.try_remove(id.key()) else { return };
        let hash = self.hash(parent, &*node.label);
        let mut before = self.edges.get(&hash).copied();
        if before == Some(id) {
            match node.chain {
                Some(next) => self.edges.insert(hash, next),
                None => self.edges.remove(&hash),
            };
        } else {
            while let Some(other) = before.and_then(|before| self.nodes.get_mut(before.key())) {
                before = other.chain;
                if before == Some(id) {
                    other.chain = node.chain;
                }
            }
        }
        if let Some(parent) = self.nodes.get_mut(parent.key()) {
            parent.children = parent.children.saturating_sub(1);
        }
    }

    fn hash(&self, parent: NodeId, label: impl Label) -> u64 {
        let mut hasher = self.seed.build_hasher();
        hasher.write_u32(parent.0.get());
        label.feed(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All keys collide.
    #[derive(Debug, Default)]
    struct Flooded;

    impl Hasher for Flooded {
        fn write(&mut self, _: &[u8]) {}
        fn finish(&self) -> u64 {
            7
        }
    }

    fn hash(label: impl Label) -> u64 {
        let mut hasher = Seed::new([1, 2]).build_hasher();
        label.feed(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn the_secret_changes_every_hash() {
        let [one, other] = [[1, 2], [1, 3]].map(|secret| Seed::new(secret).hash_one(b"example.com"));
        assert_ne!(one, other);
    }

    #[test]
    fn an_encoded_label_is_the_one_that_it_stands_for() {
        let long = [b'x'; PIECE];
        let escaped = "%78".repeat(PIECE);
        for (encoded, plain) in [
            (&b"a%20b"[..], &b"a b"[..]),
            (b"%61%62", b"ab"),
            (b"%2f%2F", b"//"),
            (b"100%", b"100%"),
            (b"%zz%4", b"%zz%4"),
            (b"%%41", b"%A"),
            (b"%C3%bC", "ü".as_bytes()),
            (escaped.as_bytes(), &long),
        ] {
            assert!(Encoded(encoded).is(plain), "{plain:?}");
            assert!(!Encoded(encoded).is(&[plain, b"x"].concat()), "{plain:?}");
            assert_eq!(hash(Encoded(encoded)), hash(plain), "{plain:?}");
            assert!(Encoded(encoded).min_len() <= plain.len(), "{plain:?}");
        }
    }

    #[test]
    fn nodes_whose_hashes_are_equal_are_told_apart() {
        let mut trie: Trie<u32, _> = Trie::new(BuildHasherDefault::<Flooded>::default());
        let root = trie.plant();
        let labels: Vec<_> = (0..6u8).map(|label| [label]).collect();
        for first in &labels {
            for second in &labels {
                let node = trie.make(root, [&first[..], &second[..]].into_iter());
                *trie.get_mut(node).unwrap() = 1 + u32::from(first[0]) * 10 + u32::from(second[0]);
            }
        }
        assert_eq!(trie.len(), 1 + 6 + 36);
        // Out of the chain's middle, its end and its front.
        for (first, second) in [(2, 3), (0, 0), (5, 5), (5, 0)] {
            let node = trie.find(root, [&labels[first][..], &labels[second][..]].into_iter()).unwrap();
            *trie.get_mut(node).unwrap() = 0;
            trie.prune(node, |data| *data > 0);
        }
        assert_eq!(trie.len(), 1 + 6 + 32);
        for first in &labels {
            for second in &labels {
                let node = trie.find(root, [&first[..], &second[..]].into_iter());
                let want = 1 + u32::from(first[0]) * 10 + u32::from(second[0]);
                let want = (![24, 1, 56, 51].contains(&want)).then_some(want);
                assert_eq!(node.map(|node| *trie.get(node).unwrap()), want);
            }
        }
    }
}
