use super::*;
use crate::index::Metrics;
use sluice_core::route::{ClusterPattern, Kind};

fn route(id: u64, generation: u64, hint: Hint) -> (RouteId, Option<Published>) {
    let spec = RouteSpec {
        id: RouteId(id),
        kind: Kind::HttpScaledObject,
        namespace: "ns".into(),
        name: "app".into(),
        generation,
        created: 0,
        rules: Vec::new(),
        cluster: ClusterPattern { prefix: b"c".as_slice().into(), suffix: None },
        hold_timeout: None,
        max_held: None,
    };
    let metrics = Metrics { concurrency: Some(100), rate: None };
    (RouteId(id), Some(Published { spec: Arc::new(spec), hint, metrics }))
}

/// Whether it is a snapshot, upserts with their generations, removals, hints.
type Told = (bool, Vec<(u64, u64)>, Vec<u64>, Vec<(u64, Hint)>);

/// What a session hears: ids and generations of upserts, removals, hints.
fn told(board: &Board, since: &mut Option<u64>) -> Told {
    let (news, version) = board.news(*since).unwrap();
    *since = Some(version);
    let mut upserts: Vec<_> = news.upserts.iter().map(|(spec, _)| (spec.id.0, spec.generation)).collect();
    upserts.sort_unstable();
    let removals = news.removals.iter().map(|id| id.0).collect();
    (news.is_snapshot, upserts, removals, news.hints.iter().map(|(id, hint)| (id.0, *hint)).collect())
}

#[test]
fn nothing_is_told_before_everything_is_known() {
    let board = Board::default();
    board.publish(&Changes::from([route(1, 0, Hint::Ready)]), false);
    assert_eq!(board.news(None), None);
    let versions = board.versions();
    board.publish(&Changes::new(), true);
    assert!(versions.has_changed().unwrap());
    assert_eq!(told(&board, &mut None), (true, vec![(1, 0)], vec![], vec![]));
}

#[test]
fn a_snapshot_and_then_what_changed() {
    let board = Board::default();
    board.publish(&Changes::from([route(1, 0, Hint::Ready), route(2, 0, Hint::Ready)]), true);
    let mut since = None;
    assert_eq!(told(&board, &mut since), (true, vec![(1, 0), (2, 0)], vec![], vec![]));
    board.publish(
        &Changes::from([route(1, 1, Hint::Ready), (RouteId(2), None), route(3, 0, Hint::NotReady)]),
        true,
    );
    assert_eq!(told(&board, &mut since), (false, vec![(1, 1), (3, 0)], vec![2], vec![]));
    board.publish(&Changes::from([route(3, 0, Hint::Ready)]), true);
    assert_eq!(told(&board, &mut since), (false, vec![], vec![], vec![(3, Hint::Ready)]));
    assert!(board.news(since).unwrap().0.is_empty());
}

#[test]
fn what_changed_several_times_is_told_once_as_it_is() {
    let board = Board::default();
    board.publish(&Changes::from([route(1, 0, Hint::Ready), route(2, 0, Hint::Ready)]), true);
    let mut since = None;
    told(&board, &mut since);
    for generation in 1..5 {
        board.publish(&Changes::from([route(1, generation, Hint::NotReady)]), true);
        board.publish(&Changes::from([route(1, generation, Hint::Ready)]), true);
    }
    board.publish(&Changes::from([(RouteId(2), None)]), true);
    board.publish(&Changes::from([route(2, 9, Hint::Ready)]), true);
    assert_eq!(told(&board, &mut since), (false, vec![(1, 4), (2, 9)], vec![], vec![]));
}

#[test]
fn what_changes_nothing_wakes_nobody() {
    let board = Board::default();
    board.publish(&Changes::from([route(1, 0, Hint::Ready)]), true);
    let versions = board.versions();
    board.publish(&Changes::from([route(1, 0, Hint::Ready), (RouteId(5), None)]), true);
    board.publish(&Changes::new(), true);
    assert!(!versions.has_changed().unwrap());
}

#[test]
fn who_is_too_far_behind_gets_a_snapshot() {
    let board = Board::default();
    board.publish(&Changes::from([route(1, 0, Hint::Ready)]), true);
    let mut since = None;
    told(&board, &mut since);
    let many = |hint| (0..MAX_CHANGES as u64 + 1).map(|id| route(id, 0, hint)).collect::<Changes>();
    board.publish(&many(Hint::NotReady), true);
    let (is_snapshot, upserts, _, _) = told(&board, &mut since);
    assert!(is_snapshot);
    assert_eq!(upserts.len(), MAX_CHANGES + 1);
    board.publish(&Changes::from([route(3, 0, Hint::Ready)]), true);
    assert_eq!(told(&board, &mut since), (false, vec![], vec![], vec![(3, Hint::Ready)]));
}

#[test]
fn the_session_that_is_furthest_behind_says_what_all_have_told() {
    let board = Board::default();
    board.publish(&Changes::from([route(1, 0, Hint::Ready)]), true);
    board.publish(&Changes::from([route(1, 0, Hint::NotReady)]), true);
    assert_eq!(board.told_by_all(), board.version(), "there is none");
    let (one, other) = (board.join(), board.join());
    one.told(board.version());
    assert_eq!(board.told_by_all(), 0);
    other.told(1);
    assert_eq!(board.told_by_all(), 1);
    drop(other);
    assert_eq!(board.told_by_all(), board.version());
}
