//! The filter natively, against an Envoy that fails on what the ABI does not allow.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that panics has failed; what may not panic is the filter"
)]

mod envoy;

use envoy::{Bed, ROOT, reports, route};
use proptest::prelude::*;
use sluice_filter::host::{Host, StreamToken};
use sluice_proto::link;

const CONFIG: &str = r#"{"scalers": ["scaler-0"]}"#;

/// A gateway whose scaler has sent one route, to `app`, which is asleep.
fn asleep(config: &str) -> (Bed, u32) {
    let mut bed = Bed::new(config);
    let token = bed.envoy.open_links()[0];
    bed.welcome(token, vec![route(7, "app", link::Hint::NotReady)]);
    bed.acknowledge(token);
    (bed, token)
}

fn header<'a>(headers: &'a [(Vec<u8>, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| &**value)
}

#[test]
fn a_bad_configuration_is_rejected_and_said_and_the_one_before_goes_on() {
    let mut bed = Bed::new(CONFIG);
    let rejected = bed.root(|vm, envoy| vm.configure(2, br#"{"quiet": "later"}"#, envoy));
    assert!(!rejected);
    assert!(bed.envoy.logs.iter().any(|line| line.contains("quiet: \"later\"")), "{:?}", bed.envoy.logs);
    bed.envoy.usable.insert(b"app".to_vec());
    let request = bed.request(b"app", "app");
    assert!(!bed.envoy.requests[&request].paused);
}

#[test]
fn hello_comes_first_and_the_first_report_says_that_it_is_all() {
    let mut bed = Bed::new(CONFIG);
    let token = bed.envoy.open_links()[0];
    let Some(link::from_worker::Message::Hello(hello)) = &bed.envoy.links[&token][0].message else {
        panic!()
    };
    assert_eq!((hello.protocol, &*hello.gateway), (1, "gateway-1"));
    assert_ne!(hello.instance, 0);
    bed.welcome(token, vec![]);
    let sent = reports(bed.acknowledge(token));
    assert_eq!(sent, [link::Report { sequence: 1, complete: true, routes: vec![] }]);
    assert_eq!(bed.envoy.metric("sluice_links_up"), 1);
}

#[test]
fn a_sleeping_app_is_reported_at_once_and_its_request_goes_on_when_the_cluster_is_usable() {
    let (mut bed, token) = asleep(CONFIG);
    let request = bed.request(b"App:80", "app");
    assert!(bed.envoy.requests[&request].paused);
    let sent = reports(bed.acknowledge(token));
    assert_eq!((sent.len(), sent[0].routes[0].route, sent[0].routes[0].held), (1, 7, 1));

    bed.pass(900);
    bed.envoy.usable.insert(b"app".to_vec());
    assert!(bed.envoy.requests[&request].paused, "the scaler still says no");
    bed.ready(token, 7);
    let released = &bed.envoy.requests[&request];
    assert!(!released.paused);
    assert_eq!(header(&released.request, "x-envoy-retry-on"), Some(&b"connect-failure,refused-stream"[..]));
    assert_eq!(header(&released.request, "x-envoy-max-retries"), Some(&b"5"[..]));

    bed.respond(request, "200");
    let response = &bed.envoy.requests[&request].response;
    assert_eq!(header(response, "x-keda-http-cold-start"), Some(&b"true"[..]));
    bed.end(request);
    let counts = bed.settle(token).pop().unwrap().routes.remove(0);
    assert_eq!((counts.in_flight, counts.held, counts.arrivals, counts.cold_starts), (0, 0, 1, 1));
    assert_eq!(counts.hold_us, 900_000);
    assert_eq!(counts.hold_buckets.iter().sum::<u64>(), 1);
    assert_eq!((counts.completions[0].method(), counts.completions[0].code), (link::Method::Get, 200));
    assert_eq!((bed.envoy.metric("sluice_held"), bed.envoy.metric("sluice_hold_ms")), (0, 900));
}

#[test]
fn a_users_own_retries_are_kept() {
    let (mut bed, token) = asleep(CONFIG);
    let headers = [
        (":authority", "app"),
        (":method", "GET"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "9"),
    ];
    let headers = headers.map(|(name, value)| (name.into(), value.into())).to_vec();
    let request = bed.request_with(headers, "app");
    bed.envoy.usable.insert(b"app".to_vec());
    bed.ready(token, 7);
    let released = &bed.envoy.requests[&request].request;
    assert_eq!(header(released, "x-envoy-retry-on"), Some(&b"5xx,connect-failure,refused-stream"[..]));
    assert_eq!(header(released, "x-envoy-max-retries"), Some(&b"9"[..]));
}

#[test]
fn a_warm_request_costs_few_calls_and_says_that_it_was_warm() {
    let mut bed = Bed::new(CONFIG);
    let token = bed.envoy.open_links()[0];
    // Not one that has just woken: that one is looked at for some seconds.
    bed.welcome(token, vec![route(7, "app", link::Hint::Ready)]);
    bed.envoy.usable.insert(b"app".to_vec());
    let first = bed.request(b"app", "app");
    let before = bed.envoy.calls;
    let second = bed.request(b"app", "app");
    // The authority, the cluster and the method; the clock is not counted here.
    assert_eq!(bed.envoy.calls - before, 3);
    bed.respond(second, "204");
    let response = &bed.envoy.requests[&second].response;
    assert_eq!(header(response, "x-keda-http-cold-start"), Some(&b"false"[..]));
    assert_eq!(header(&bed.envoy.requests[&first].request, "x-envoy-retry-on"), None);
}

#[test]
fn a_look_goes_by_the_authority_of_the_request_if_that_is_one() {
    let (mut bed, token) = asleep(CONFIG);
    bed.request(b"app:8080", "app");
    bed.ready(token, 7);
    assert_eq!(bed.envoy.looks, [(b"app".to_vec(), b"app:8080".to_vec())]);
    // Without a table every host has a lane.
    let mut bed = Bed::new(CONFIG);
    bed.request(b"a\x01b", "app");
    assert_eq!(bed.envoy.looks, [(b"app".to_vec(), b"".to_vec())]);
}

const SAMPLED: &str = r#"{"scalers": ["scaler-0"], "sampleLabels": true}"#;

/// Sends a row of closely following requests that are answered 204 and 500 by turns, then one 20 ms later, and gives
/// what the report counts by status.
fn codes_of_a_row(config: &str) -> std::collections::BTreeMap<u32, u64> {
    let (mut bed, token) = asleep(config);
    bed.envoy.usable.insert(b"app".to_vec());
    bed.ready(token, 7);
    for status in ["204", "500"].into_iter().cycle().take(400) {
        let request = bed.request(b"app", "app");
        bed.respond(request, status);
        bed.end(request);
    }
    bed.pass(20);
    let late = bed.request(b"app", "app");
    bed.respond(late, "302");
    bed.end(late);
    bed.pass(300);
    let counts = reports(bed.acknowledge(token)).last().unwrap().routes[0].clone();
    counts.completions.iter().fold(std::collections::BTreeMap::new(), |mut sums, completion| {
        assert_eq!(completion.method(), link::Method::Get);
        *sums.entry(completion.code).or_default() += completion.count;
        sums
    })
}

#[test]
fn of_a_row_of_like_responses_some_are_read_and_none_is_lost() {
    let codes = codes_of_a_row(SAMPLED);
    assert_eq!((codes.values().sum::<u64>(), codes[&302]), (401, 1));
    // By chance, but always the same chance.
    assert!((100..300).contains(&codes[&204]) && (100..300).contains(&codes[&500]), "{codes:?}");
}

#[test]
fn every_response_is_read() {
    assert_eq!(codes_of_a_row(CONFIG), [(204, 200), (500, 200), (302, 1)].into());
}

#[test]
fn limits_and_deadlines_are_answered() {
    let config = r#"{"scalers": ["scaler-0"], "limits": {"heldPerRoute": 1, "holdTimeout": "2s"}}"#;
    let (mut bed, _) = asleep(config);
    let (held, refused) = (bed.request(b"app", "app"), bed.request(b"app", "app"));
    let reply = bed.envoy.requests[&refused].reply.unwrap();
    assert_eq!((reply.status, reply.retry_after, reply.grpc_status), (503, Some("5"), 14));
    bed.respond(refused, "503");
    assert_eq!(header(&bed.envoy.requests[&refused].response, "x-keda-http-cold-start"), None);
    bed.end(refused);
    bed.pass(1_999);
    assert_eq!(bed.envoy.requests[&held].reply, None);
    bed.pass(2);
    let reply = bed.envoy.requests[&held].reply.unwrap();
    assert_eq!((reply.status, reply.grpc_status), (504, 4));
    assert_eq!(
        (bed.envoy.metric("sluice_rejections_total"), bed.envoy.metric("sluice_expirations_total")),
        (1, 1)
    );
    assert_eq!(bed.envoy.metric("sluice_held"), 0);
}

fn told(bed: &Bed, request: u32) -> Option<&str> {
    bed.envoy.requests[&request].told.as_deref()
}

#[test]
fn access_logs_are_told_of_every_request_that_was_not_simply_forwarded() {
    let config = r#"{"scalers": ["scaler-0"], "limits": {"heldPerRoute": 2, "holdTimeout": "2s"}}"#;
    let (mut bed, token) = asleep(config);
    let first = bed.request(b"app", "app");
    assert_eq!(told(&bed, first), Some("ns/app held"));
    bed.pass(1_500);
    let second = bed.request(b"app", "app");
    let third = bed.request(b"app", "app");
    assert_eq!(told(&bed, third), Some("ns/app refused"));
    bed.pass(600);
    assert_eq!(told(&bed, first), Some("ns/app expired 2000ms"));
    bed.envoy.usable.insert(b"app".to_vec());
    bed.ready(token, 7);
    assert_eq!(told(&bed, second), Some("ns/app released 600ms"));

    let warm = bed.request(b"app", "app");
    let nobodys = bed.request(b"other", "other");
    assert_eq!((told(&bed, warm), told(&bed, nobodys)), (None, None));
}

#[test]
fn access_logs_are_told_of_what_waited_for_the_route_table() {
    let mut bed = Bed::new(CONFIG);
    let (ours, nobodys) = (bed.request(b"app", "app"), bed.request(b"other", "other"));
    assert_eq!((told(&bed, ours), told(&bed, nobodys)), (Some("- held"), Some("- held")));
    let token = bed.envoy.open_links()[0];
    bed.welcome(token, vec![route(7, "app", link::Hint::NotReady)]);
    assert_eq!((told(&bed, ours), told(&bed, nobodys)), (Some("ns/app held"), Some("- passed")));
}

#[test]
fn access_logs_are_told_of_what_the_gateway_sends_elsewhere_than_to_its_route() {
    let mut bed = Bed::new(CONFIG);
    // Before the table it waits like any other.
    let early = bed.request(b"app", "elsewhere");
    assert_eq!(told(&bed, early), Some("- held"));
    let token = bed.envoy.open_links()[0];
    bed.welcome(token, vec![route(7, "app", link::Hint::NotReady)]);
    assert_eq!(told(&bed, early), Some("ns/app mismatch"));
    assert!(!bed.envoy.requests[&early].paused);
    let late = bed.request(b"app", "elsewhere");
    assert_eq!(told(&bed, late), Some("ns/app mismatch"));
    assert!(!bed.envoy.requests[&late].paused);
    assert_eq!(bed.envoy.metric("sluice_mismatches_total"), 2);
    assert_eq!(bed.envoy.metric("sluice_held"), 0);
}

#[test]
fn a_name_that_no_object_can_have_makes_no_long_access_log() {
    let mut bed = Bed::new(CONFIG);
    let token = bed.envoy.open_links()[0];
    let named = link::Route { name: "n".repeat(10_000), ..route(7, "app", link::Hint::NotReady) };
    bed.welcome(token, vec![named]);
    let request = bed.request(b"app", "app");
    let told = told(&bed, request).unwrap();
    assert!(told.starts_with("ns/nnn") && told.ends_with("n held") && told.len() < 400, "{told}");
}

#[test]
fn nothing_to_say_is_no_tick() {
    let (mut bed, token) = asleep(CONFIG);
    bed.settle(token);
    bed.pass(20_000);
    assert_eq!(bed.envoy.tick, 0);
    let request = bed.request(b"app", "app");
    assert_ne!(bed.envoy.tick, 0);
    bed.end(request);
    assert!(!bed.settle(token).is_empty());
    bed.pass(20_000);
    assert_eq!(bed.envoy.tick, 0);
    assert_eq!(bed.settle(token), []);
}

#[test]
fn a_scaler_that_goes_is_sought_again_and_told_everything() {
    let (mut bed, token) = asleep(CONFIG);
    let request = bed.request(b"app", "app");
    bed.root(|vm, envoy| vm.link_closed(ROOT, StreamToken(token), 14, envoy));
    assert_eq!(bed.envoy.open_links(), [] as [u32; 0], "its handle is given back");
    assert_eq!(bed.envoy.metric("sluice_links_up"), 0);
    bed.envoy.unreachable = true;
    bed.pass(3_000);
    bed.envoy.unreachable = false;
    bed.pass(6_000);
    let again = bed.envoy.open_links()[0];
    assert_ne!(again, token);
    bed.welcome(again, vec![route(7, "app", link::Hint::NotReady)]);
    let sent = reports(bed.acknowledge(again));
    assert!(sent[0].complete && sent[0].sequence == 1);
    assert_eq!((sent[0].routes[0].route, sent[0].routes[0].held), (7, 1));
    assert!(bed.envoy.requests[&request].paused);
}

#[test]
fn a_scaler_that_does_not_answer_is_given_up() {
    let mut bed = Bed::new(CONFIG);
    let token = bed.envoy.open_links()[0];
    bed.pass(4_999);
    assert_eq!(bed.envoy.open_links(), [token]);
    bed.pass(2_000);
    assert!(!bed.envoy.open_links().contains(&token));
    assert_eq!(bed.envoy.open_links().len(), 1, "and sought again");
}

#[test]
fn a_message_that_is_none_ends_the_link_and_nothing_else() {
    for garbage in [Some(&b"\xff\xff\xff"[..]), None] {
        let (mut bed, token) = asleep(CONFIG);
        let request = bed.request(b"app", "app");
        bed.root(|vm, envoy| vm.link_message(ROOT, StreamToken(token), garbage, envoy));
        assert!(!bed.envoy.open_links().contains(&token));
        assert!(bed.envoy.requests[&request].paused);
        bed.envoy.usable.insert(b"app".to_vec());
        bed.pass(1_000);
        assert!(!bed.envoy.requests[&request].paused, "looks alone release");
    }
}

#[test]
fn a_route_that_cannot_be_read_leaves_the_others_as_they_are() {
    let mut bed = Bed::new(CONFIG);
    let token = bed.envoy.open_links()[0];
    let bad = link::Route { kind: 99, ..route(1, "bad", link::Hint::NotReady) };
    bed.welcome(
        token,
        vec![
            bad,
            link::Route { cluster: None, ..route(2, "worse", link::Hint::NotReady) },
            route(3, "app", link::Hint::NotReady),
        ],
    );
    assert!(bed.envoy.logs.iter().any(|line| line.contains("ns/bad") && line.contains("kind 99")));
    assert!(bed.envoy.logs.iter().any(|line| line.contains("ns/worse") && line.contains("no cluster")));
    let request = bed.request(b"app", "app");
    assert!(bed.envoy.requests[&request].paused);
}

#[test]
fn bytes_that_are_no_text_missing_parts_and_contexts_that_are_no_requests_are_no_trouble() {
    let (mut bed, _) = asleep(CONFIG);
    for headers in [
        vec![],
        vec![(b":authority".to_vec(), b"\xff\xfe.\x80".to_vec()), (b":path".to_vec(), b"/\xc3\x28".to_vec())],
        vec![(b":authority".to_vec(), vec![b'a'; 100_000])],
        vec![(b"\xff".to_vec(), b"\xff".to_vec())],
    ] {
        let request = bed.request_with(headers, "elsewhere");
        assert!(!bed.envoy.requests[&request].paused);
        bed.respond(request, "\u{fffd}");
        bed.end(request);
    }
    // Created for a log line alone: an earlier filter has answered.
    bed.vm.create(4_000, ROOT);
    bed.vm.delete(4_000, &mut bed.envoy);
    bed.vm.delete(4_001, &mut bed.envoy);
}

#[test]
fn two_configurations_side_by_side_keep_their_own_requests() {
    const NEW: u32 = 2;
    let (mut bed, token) = asleep(CONFIG);
    let old = bed.request(b"app", "app");
    assert!(bed.root(|vm, envoy| vm.configure(NEW, CONFIG.as_bytes(), envoy)));
    assert_eq!(bed.envoy.open_links().len(), 2, "each has a link of its own");
    assert!(bed.envoy.requests[&old].paused);
    bed.envoy.usable.insert(b"app".to_vec());
    bed.ready(token, 7);
    assert!(!bed.envoy.requests[&old].paused, "what the old one holds, the old one releases");
    bed.respond(old, "200");
    let response = &bed.envoy.requests[&old].response;
    assert_eq!(header(response, "x-keda-http-cold-start"), Some(&b"true"[..]));
}

#[test]
fn what_finds_no_host_makes_the_next_one_look() {
    let (mut bed, token) = asleep(CONFIG);
    bed.envoy.usable.insert(b"app".to_vec());
    bed.ready(token, 7);
    let first = bed.request(b"app", "app");
    bed.envoy.usable.clear();
    bed.envoy.requests.get_mut(&first).unwrap().flags = 0x2;
    bed.respond(first, "503");
    let second = bed.request(b"app", "app");
    assert!(bed.envoy.requests[&second].paused);
}

#[derive(Clone, Debug)]
enum Call {
    Request(Vec<u8>, bool),
    Respond(usize, u16),
    End(usize),
    Pass(u64),
    Message(Vec<u8>),
    Ready(bool),
    Table(Vec<(u64, Vec<u8>)>),
    Close,
    Usable(bool),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Nothing that a client, an app or a scaler does makes the filter panic, break a rule of the ABI, or
    /// keep a request.
    #[test]
    fn whatever_comes_it_keeps_to_the_rules(calls in prop::collection::vec(prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..8), any::<bool>()).prop_map(|(host, known)| Call::Request(host, known)),
        2 => (any::<usize>(), 100..600u16).prop_map(|(nth, code)| Call::Respond(nth, code)),
        2 => any::<usize>().prop_map(Call::End),
        3 => prop_oneof![0..20u64, 0..20_000u64].prop_map(Call::Pass),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Call::Message),
        2 => any::<bool>().prop_map(Call::Ready),
        1 => prop::collection::vec((0..4u64, prop::collection::vec(any::<u8>(), 0..6)), 0..4).prop_map(Call::Table),
        1 => Just(Call::Close),
        2 => any::<bool>().prop_map(Call::Usable),
    ], 1..60)) {
        let (mut bed, _) = asleep(r#"{"scalers": ["scaler-0", "scaler-1"], "limits": {"heldPerRoute": 3, "holdTimeout": "5s"}}"#);
        for call in calls {
            let token = bed.envoy.open_links().first().copied();
            let nth = |nth: usize, bed: &Bed| bed.envoy.requests.keys().nth(nth % bed.envoy.requests.len().max(1)).copied();
            match call {
                Call::Request(host, known) => {
                    bed.request(if known { b"app" } else { &host }, "app");
                }
                Call::Respond(at, code) => {
                    if let Some(context) = nth(at, &bed) {
                        bed.respond(context, &code.to_string());
                    }
                }
                Call::End(at) => {
                    if let Some(context) = nth(at, &bed) {
                        bed.end(context);
                    }
                }
                Call::Pass(millis) => bed.pass(millis),
                Call::Message(bytes) => {
                    if let Some(token) = token {
                        bed.root(|vm, envoy| vm.link_message(ROOT, StreamToken(token), Some(&bytes), envoy));
                    }
                }
                Call::Ready(ready) => {
                    if let Some(token) = token {
                        let (ready, not_ready) = if ready { (vec![7], vec![]) } else { (vec![], vec![7]) };
                        bed.hear(token, link::to_worker::Message::Readiness(link::Readiness { ready, not_ready, ..Default::default() }));
                    }
                }
                Call::Table(routes) => {
                    if let Some(token) = token {
                        let routes = routes.iter().map(|(id, host)| route(*id, &String::from_utf8_lossy(host), link::Hint::Unknown));
                        bed.welcome(token, routes.collect());
                    }
                }
                Call::Close => {
                    if let Some(token) = token {
                        bed.root(|vm, envoy| vm.link_closed(ROOT, StreamToken(token), 14, envoy));
                    }
                }
                Call::Usable(true) => _ = bed.envoy.usable.insert(b"app".to_vec()),
                Call::Usable(false) => _ = bed.envoy.usable.remove(&b"app"[..]),
            }
        }
        // Each hold ends by its deadline; without a table, within a minute.
        for _ in 0..70 {
            bed.pass(1_000);
        }
        for (context, request) in &bed.envoy.requests {
            prop_assert!(!request.paused || request.reply.is_some(), "{} still waits", context);
        }
        for context in bed.envoy.requests.keys().copied().collect::<Vec<_>>() {
            bed.end(context);
        }
        prop_assert_eq!(bed.envoy.metric("sluice_held"), 0);
        prop_assert!(bed.envoy.now() > sluice_core::time::Instant::default());
    }
}
