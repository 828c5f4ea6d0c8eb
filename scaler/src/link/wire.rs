//! What is new, as messages.

use crate::board::News;
use prost::Message;
use sluice_core::{
    gate::Hint,
    route::{ClusterPattern, HostPattern, Kind, RouteId, RouteSpec, Rule},
};
use sluice_proto::link::{self, MAX_TABLE_BYTES, Readiness, Table, ToWorker, to_worker};
use std::time::Duration;

/// What one entry of a repeated field costs besides its content: the tag and the length.
const ENTRY: usize = 8;
/// A table's own fields, the message around it, and some air.
const AROUND: usize = 64;
/// How many hints go into one message: ten bytes at most for each.
const HINTS: usize = PIECE / 16;
/// How long a piece is at most. Far less than it may be: a piece or two are all that a worker that reads slowly
/// costs, and after a scaler's start thousands of them read slowly.
const PIECE: usize = 32 * 1024;
const _: () = assert!(PIECE <= MAX_TABLE_BYTES);

/// What is new, as messages of at most [`PIECE`] bytes each. Hints come first: requests wait for them.
pub(super) fn messages(news: &News) -> Vec<ToWorker> {
    let mut messages: Vec<ToWorker> = news.hints.chunks(HINTS).map(readiness).collect();
    if news.is_snapshot || !news.upserts.is_empty() || !news.removals.is_empty() {
        messages.extend(tables(news));
    }
    messages
}

fn readiness(hints: &[(RouteId, Hint)]) -> ToWorker {
    let with = |wanted: Hint| hints.iter().filter(|(_, hint)| *hint == wanted).map(|(id, _)| id.0).collect();
    let readiness =
        Readiness { ready: with(Hint::Ready), not_ready: with(Hint::NotReady), unknown: with(Hint::Unknown) };
    ToWorker { message: Some(to_worker::Message::Readiness(readiness)) }
}

fn tables(news: &News) -> Vec<ToWorker> {
    let mut pieces = Vec::new();
    let mut piece = Table { reset: news.is_snapshot, ..Table::default() };
    let mut len = AROUND;
    for RouteId(id) in &news.removals {
        make_room(&mut pieces, &mut piece, &mut len, ENTRY);
        piece.removals.push(*id);
    }
    for (spec, hint) in &news.upserts {
        let route = route(spec, *hint);
        make_room(&mut pieces, &mut piece, &mut len, route.encoded_len() + ENTRY);
        piece.upserts.push(route);
    }
    piece.complete = true;
    pieces.push(piece);
    pieces.into_iter().map(|table| ToWorker { message: Some(to_worker::Message::Table(table)) }).collect()
}

/// Begins a new piece if the next entry would make this one too long. A single entry may be too long for any
/// piece: it then has one of its own, since half a route is of no use.
fn make_room(pieces: &mut Vec<Table>, piece: &mut Table, len: &mut usize, next: usize) {
    if *len + next > PIECE && !(piece.upserts.is_empty() && piece.removals.is_empty()) {
        pieces.push(std::mem::take(piece));
        *len = AROUND;
    }
    *len += next;
}

fn route(spec: &RouteSpec, hint: Hint) -> link::Route {
    link::Route {
        id: spec.id.0,
        kind: match spec.kind {
            Kind::HttpScaledObject => link::Kind::HttpScaledObject,
            Kind::InterceptorRoute => link::Kind::InterceptorRoute,
        }
        .into(),
        namespace: spec.namespace.to_string(),
        name: spec.name.to_string(),
        generation: spec.generation,
        created: spec.created,
        rules: spec.rules.iter().map(rule).collect(),
        cluster: Some(cluster(&spec.cluster)),
        // Part of a millisecond is one: none would be no limit.
        hold_timeout_ms: spec.hold_timeout.map_or(0, |timeout| millis(timeout).max(1)),
        max_held: spec.max_held.unwrap_or(0),
        hint: match hint {
            Hint::Unknown => link::Hint::Unknown,
            Hint::Ready => link::Hint::Ready,
            Hint::NotReady => link::Hint::NotReady,
        }
        .into(),
    }
}

fn rule(rule: &Rule) -> link::Rule {
    let headers = rule.headers.iter().map(|header| link::HeaderMatch {
        name: text(&header.name),
        value: header.value.as_deref().map(text),
    });
    link::Rule {
        hosts: rule.hosts.iter().map(host).collect(),
        paths: rule.paths.iter().map(|path| text(path)).collect(),
        headers: headers.collect(),
    }
}

fn host(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => text(host),
        HostPattern::Wildcard(domain) => format!("*.{}", text(domain)),
        HostPattern::Any => "*".to_owned(),
    }
}

fn cluster(pattern: &ClusterPattern) -> link::Cluster {
    link::Cluster { prefix: text(&pattern.prefix), suffix: pattern.suffix.as_deref().map(text) }
}

/// All of these bytes come from an object's text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_core::route::HeaderRule;
    use std::sync::Arc;

    fn spec(id: u64, name: &str) -> Arc<RouteSpec> {
        Arc::new(RouteSpec {
            id: RouteId(id),
            kind: Kind::InterceptorRoute,
            namespace: "ns".into(),
            name: name.into(),
            generation: 3,
            created: 1_700_000_000,
            rules: vec![Rule {
                hosts: vec![
                    HostPattern::parse("A.example.com:80"),
                    HostPattern::parse("*.b.com"),
                    HostPattern::Any,
                ],
                paths: vec![b"/api".as_slice().into()],
                headers: vec![
                    HeaderRule { name: b"x-a".as_slice().into(), value: Some(b"1".as_slice().into()) },
                    HeaderRule { name: b"x-b".as_slice().into(), value: None },
                ],
            }],
            cluster: ClusterPattern {
                prefix: b"outbound|80|".as_slice().into(),
                suffix: Some(b"|a".as_slice().into()),
            },
            hold_timeout: Some(Duration::from_micros(1)),
            max_held: Some(7),
        })
    }

    fn pieces(messages: Vec<ToWorker>) -> Vec<Table> {
        let tables = messages.into_iter().map(|message| match message.message {
            Some(to_worker::Message::Table(table)) => table,
            other => panic!("{other:?} is no table"),
        });
        tables.collect()
    }

    #[test]
    fn a_route_says_everything_that_its_spec_says() {
        let expected = link::Route {
            id: 1,
            kind: link::Kind::InterceptorRoute.into(),
            namespace: "ns".to_owned(),
            name: "app".to_owned(),
            generation: 3,
            created: 1_700_000_000,
            rules: vec![link::Rule {
                hosts: vec!["a.example.com".to_owned(), "*.b.com".to_owned(), "*".to_owned()],
                paths: vec!["/api".to_owned()],
                headers: vec![
                    link::HeaderMatch { name: "x-a".to_owned(), value: Some("1".to_owned()) },
                    link::HeaderMatch { name: "x-b".to_owned(), value: None },
                ],
            }],
            cluster: Some(link::Cluster { prefix: "outbound|80|".to_owned(), suffix: Some("|a".to_owned()) }),
            hold_timeout_ms: 1,
            max_held: 7,
            hint: link::Hint::NotReady.into(),
        };
        assert_eq!(route(&spec(1, "app"), Hint::NotReady), expected);
    }

    #[test]
    fn no_limit_is_zero() {
        let unlimited = RouteSpec { hold_timeout: None, max_held: None, ..RouteSpec::clone(&spec(1, "app")) };
        let route = route(&unlimited, Hint::Unknown);
        assert_eq!((route.hold_timeout_ms, route.max_held), (0, 0));
    }

    #[test]
    fn a_snapshot_of_nothing_is_a_whole_table() {
        let news = News { is_snapshot: true, ..News::default() };
        let table = Table { reset: true, complete: true, ..Table::default() };
        assert_eq!(pieces(messages(&news)), [table]);
        assert!(messages(&News::default()).is_empty());
    }

    #[test]
    fn a_large_snapshot_comes_in_pieces_of_bounded_size_and_nothing_is_missing() {
        let upserts: Vec<_> = (0..10_000).map(|id| (spec(id, &format!("app-{id}")), Hint::Ready)).collect();
        let news = News { is_snapshot: true, upserts, removals: vec![RouteId(1)], ..News::default() };
        let messages = messages(&news);
        assert!(messages.len() > 3);
        assert!(messages.iter().all(|message| message.encoded_len() <= PIECE));
        let pieces = pieces(messages);
        let resets: Vec<bool> = pieces.iter().map(|piece| piece.reset).collect();
        let completes: Vec<bool> = pieces.iter().map(|piece| piece.complete).collect();
        assert!(resets[0] && !resets[1..].contains(&true));
        assert!(completes[pieces.len() - 1] && !completes[..pieces.len() - 1].contains(&true));
        let ids: Vec<u64> =
            pieces.iter().flat_map(|piece| piece.upserts.iter().map(|route| route.id)).collect();
        assert_eq!(ids, (0..10_000).collect::<Vec<_>>());
        assert_eq!(pieces[0].removals, [1]);
    }

    #[test]
    fn a_route_larger_than_a_piece_has_one_of_its_own() {
        let long = "x".repeat(PIECE);
        let upserts =
            vec![(spec(1, "a"), Hint::Ready), (spec(2, &long), Hint::Ready), (spec(3, "c"), Hint::Ready)];
        let pieces = pieces(messages(&News { upserts, ..News::default() }));
        let ids: Vec<Vec<u64>> =
            pieces.iter().map(|piece| piece.upserts.iter().map(|route| route.id).collect()).collect();
        assert_eq!(ids, [[1], [2], [3]]);
    }

    #[test]
    fn hints_go_before_tables() {
        let hints =
            vec![(RouteId(1), Hint::Ready), (RouteId(2), Hint::NotReady), (RouteId(3), Hint::Unknown)];
        let messages = messages(&News { hints, removals: vec![RouteId(4)], ..News::default() });
        let readiness = Readiness { ready: vec![1], not_ready: vec![2], unknown: vec![3] };
        assert_eq!(messages[0].message, Some(to_worker::Message::Readiness(readiness)));
        assert_eq!(pieces(messages[1..].to_vec())[0].removals, [4]);
    }
}
