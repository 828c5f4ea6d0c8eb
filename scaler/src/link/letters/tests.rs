use super::*;
use crate::index::{Changes, Metrics, Published};
use sluice_core::{
    gate::Hint,
    route::{ClusterPattern, Kind, RouteId, RouteSpec},
};
use sluice_proto::link::{ToWorker, to_worker};

fn published(id: u64, hint: Hint) -> (RouteId, Option<Published>) {
    let spec = RouteSpec {
        id: RouteId(id),
        kind: Kind::HttpScaledObject,
        namespace: "ns".into(),
        name: format!("app-{id}").into(),
        generation: 1,
        created: 0,
        rules: Vec::new(),
        cluster: ClusterPattern { prefix: b"c".as_slice().into(), suffix: None },
        hold_timeout: None,
        max_held: None,
    };
    let metrics = Metrics { concurrency: Some(100), rate: None };
    (RouteId(id), Some(Published { spec: Arc::new(spec), hint, metrics }))
}

fn board(routes: u64) -> Board {
    let board = Board::default();
    board.publish(&(0..routes).map(|id| published(id, Hint::NotReady)).collect::<Changes>(), true);
    board
}

fn change(board: &Board, id: u64, hint: Hint) {
    board.publish(&Changes::from([published(id, hint)]), true);
}

/// The hints that a session knows once it has read these letters.
fn read(letters: &[&Letter]) -> Vec<Hint> {
    let mut hints = std::collections::BTreeMap::new();
    for message in letters.iter().flat_map(|letter| letter.messages.iter()) {
        match ToWorker::decode(message.clone()).unwrap().message.unwrap() {
            to_worker::Message::Table(table) => hints.extend(
                table
                    .upserts
                    .iter()
                    .map(|route| (route.id, if route.hint == 1 { Hint::Ready } else { Hint::NotReady })),
            ),
            to_worker::Message::Readiness(readiness) => {
                hints.extend(readiness.ready.iter().map(|id| (*id, Hint::Ready)));
                hints.extend(readiness.not_ready.iter().map(|id| (*id, Hint::NotReady)));
            }
            other => panic!("{other:?}"),
        }
    }
    hints.into_values().collect()
}

fn is_shared(a: &Letter, b: &Letter) -> bool {
    Arc::ptr_eq(&a.messages, &b.messages)
}

#[test]
fn there_is_no_letter_before_the_table_is_whole() {
    assert!(Letters::default().next(&Board::default(), None).is_none());
}

#[test]
fn sessions_that_come_share_one_snapshot_and_what_came_since() {
    let (board, letters) = (board(100), Letters::default());
    let first = letters.next(&board, None).unwrap();
    change(&board, 3, Hint::Ready);
    let second = letters.next(&board, None).unwrap();
    assert!(is_shared(&first, &second), "one change is no reason for another snapshot");
    assert!(second.to < board.version());
    let rest = letters.next(&board, Some(second.to)).unwrap();
    assert_eq!(rest.to, board.version());
    let mut expected = vec![Hint::NotReady; 100];
    expected[3] = Hint::Ready;
    assert_eq!(read(&[&second, &rest]), expected);
    assert!(is_shared(&rest, &letters.next(&board, Some(first.to)).unwrap()));
    assert!(letters.next(&board, Some(rest.to)).unwrap().messages.is_empty());
}

#[test]
fn a_snapshot_is_made_anew_when_much_has_changed() {
    let (board, letters) = (board(100), Letters::default());
    let first = letters.next(&board, None).unwrap();
    for id in 0..50 {
        change(&board, id, Hint::Ready);
    }
    let second = letters.next(&board, None).unwrap();
    assert!(!is_shared(&first, &second));
    assert_eq!(second.to, board.version());
    assert_eq!(read(&[&second])[49..51], [Hint::Ready, Hint::NotReady]);
}

#[test]
fn one_that_fell_too_far_behind_gets_a_snapshot() {
    let (board, letters) = (board(10), Letters::default());
    let old = letters.next(&board, None).unwrap();
    for _ in 0..40_000 {
        change(&board, 1, Hint::Ready);
        change(&board, 1, Hint::NotReady);
    }
    let new = letters.next(&board, Some(old.to)).unwrap();
    assert_eq!((new.to, new.len), (board.version(), 10));
    assert!(!is_shared(&old, &new));
}

#[test]
fn letters_do_not_pile_up() {
    let (board, letters) = (board(10), Letters::default());
    let mut told = letters.next(&board, None).unwrap().to;
    for turn in 0..100 {
        change(&board, 1, if turn % 2 == 0 { Hint::Ready } else { Hint::NotReady });
        told = letters.next(&board, Some(told)).unwrap().to;
    }
    assert_eq!(told, board.version());
    assert_eq!(letters.changes.lock().unwrap().len(), KEPT);
}
