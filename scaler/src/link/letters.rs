//! What is new, encoded once for all sessions that have to hear it.
//!
//! After a scaler's start every worker there is comes at once and wants the whole table, and whenever a route
//! changes all of them want the same few bytes. Encoding either per session would cost the processor and the memory
//! of thousands of tables.

use super::wire;
use crate::board::Board;
use bytes::Bytes;
use prost::Message as _;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How many letters are kept: sessions hear of a change at nearly the same time, so that few are asked for again.
const KEPT: usize = 8;

/// What leads from one version of the board to another one.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    /// Where it begins; `None`: with nothing.
    from: Option<u64>,
    /// Where it leads.
    pub(super) to: u64,
    /// How many routes the table has then.
    pub(super) len: usize,
    /// The messages, in order.
    pub(super) messages: Arc<[Bytes]>,
}

/// The last letters.
#[derive(Debug, Default)]
pub(super) struct Letters {
    changes: Mutex<VecDeque<Letter>>,
    snapshot: Mutex<Option<Letter>>,
}

// === impl Letters ===

impl Letters {
    /// What a session has to hear that was told the version `told`; `None` while the table is not whole.
    ///
    /// A snapshot may be of a version that is not the last one: what came since is small and has to be asked for
    /// next.
    pub(super) fn next(&self, board: &Board, told: Option<u64>) -> Option<Letter> {
        let told = told.filter(|told| board.changes_since(*told).is_some());
        let Some(told) = told else { return self.snapshot(board) };
        // Held while it is made: who asks for the same in the meantime gets it, and makes nothing.
        let mut kept = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let version = board.version();
        if let Some(letter) = kept.iter().find(|letter| letter.from == Some(told) && letter.to == version) {
            return Some(letter.clone());
        }
        let letter = Letter::write(board, Some(told))?;
        kept.truncate(KEPT - 1);
        kept.push_front(letter.clone());
        Some(letter)
    }

    fn snapshot(&self, board: &Board) -> Option<Letter> {
        let mut kept = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        // With more changes than that a session is sent noticeably more than with a new one.
        let is_fresh = |letter: &&Letter| {
            board.changes_since(letter.to).is_some_and(|changes| changes <= letter.len / 16)
        };
        if let Some(letter) = kept.as_ref().filter(is_fresh) {
            return Some(letter.clone());
        }
        let letter = Letter::write(board, None)?;
        *kept = Some(letter.clone());
        Some(letter)
    }
}

// === impl Letter ===

impl Letter {
    fn write(board: &Board, from: Option<u64>) -> Option<Self> {
        let (news, to) = board.news(from)?;
        let messages =
            wire::messages(&news).into_iter().map(|message| message.encode_to_vec().into()).collect();
        Some(Self { from, to, len: news.len, messages })
    }
}

#[cfg(test)]
mod tests;
