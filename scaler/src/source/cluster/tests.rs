//! A kind's watch against an API server that answers as the test says.

mod breaks;
mod server;

use super::{
    super::{Event, ObjectRef},
    *,
};
use serde_json::{Value, json};
use server::{LIMIT, Server};

/// A watch of Services, and what it tells.
struct Bed {
    server: Server,
    watches: Arc<Watches>,
    parts: mpsc::Receiver<Part>,
}

impl Bed {
    async fn start() -> Self {
        Self::start_as(None, None).await
    }

    /// All that there is, at version 5, is the Service `a`.
    async fn with_a() -> Self {
        let mut bed = Self::start().await;
        bed.server.list().await.page("5", "", &[service("a", "1")]);
        bed.part().await;
        bed
    }

    async fn start_as(namespace: Option<&str>, selector: Option<&str>) -> Self {
        let (server, client) = Server::start().await;
        Self::of(server, client, namespace, selector)
    }

    /// For tests of what time does.
    fn near() -> Self {
        let (server, client) = Server::near();
        Self::of(server, client, None, None)
    }

    fn of(server: Server, client: Client, namespace: Option<&str>, selector: Option<&str>) -> Self {
        let watches = Arc::<Watches>::default();
        let (sender, parts) = mpsc::channel(WAITING);
        let meter = watches.add(ObjectKind::Service);
        let selector = selector.map(str::to_owned);
        tokio::spawn(Watch::<Service>::new(client, namespace, selector, meter, sender).run());
        Self { server, watches, parts }
    }

    async fn part(&mut self) -> Part {
        tokio::time::timeout(LIMIT, self.parts.recv()).await.expect("news").expect("the watch lives")
    }

    /// What the next news say came (`+name`) and went (`-name`), in order.
    async fn events(&mut self) -> Vec<String> {
        self.part().await.events.iter().map(said).collect()
    }

    /// The problems that the next news tell.
    async fn problems(&mut self) -> Vec<Problem> {
        self.part().await.problems.expect("news of problems")
    }

    fn state(&self) -> WatchState {
        self.watches.report()[0].state
    }
}

fn said(event: &Event) -> String {
    match event {
        Event::Apply(object) => format!("+{}", object.reference().unwrap().name),
        Event::Delete(ObjectRef { name, .. }) => format!("-{name}"),
    }
}

fn service(name: &str, version: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "n", "resourceVersion": version},
        "spec": {"ports": [{"port": 80}]},
    })
}

fn bad_service(name: &str, version: &str) -> Value {
    let mut service = service(name, version);
    service["spec"]["ports"] = json!([{"port": "http"}]);
    service
}

#[tokio::test]
async fn all_is_listed_page_by_page_and_then_watched() {
    let mut bed = Bed::start_as(Some("n"), Some("a=b")).await;
    let call = bed.server.list().await;
    assert_eq!(call.path, "/api/v1/namespaces/n/services");
    assert_eq!(call.query["labelSelector"], "a=b");
    call.page("9", "more", &[service("a", "1"), service("b", "2")]);
    let part = bed.part().await;
    assert_eq!(part.events.iter().map(said).collect::<Vec<_>>(), ["+a", "+b"]);
    assert!(!part.is_settled, "there is more");
    assert_eq!(bed.state(), WatchState::Listing);
    let call = bed.server.list().await;
    assert_eq!(call.query["continue"], "more");
    call.page("9", "", &[service("c", "3")]);
    let part = bed.part().await;
    assert_eq!(part.events.iter().map(said).collect::<Vec<_>>(), ["+c"]);
    assert!(part.is_settled);
    let call = bed.server.watch("9").await;
    assert_eq!(call.query["labelSelector"], "a=b");
    let stream = call.stream();
    stream.send("ADDED", &service("d", "10")).await;
    assert_eq!(bed.events().await, ["+d"]);
    stream.send("DELETED", &service("a", "11")).await;
    assert_eq!(bed.events().await, ["-a"]);
    assert_eq!(bed.state(), WatchState::Watching);
    let report = bed.watches.report().remove(0);
    assert_eq!((report.objects, report.lists, report.errors), (3, 1, 0));
}

#[tokio::test]
async fn an_empty_list_is_the_whole_truth_too() {
    let mut bed = Bed::start().await;
    bed.server.list().await.page("5", "", &[]);
    assert!(bed.part().await.is_settled);
}

#[tokio::test]
async fn a_watch_that_ended_goes_on_where_it_was() {
    let mut bed = Bed::with_a().await;
    let stream = bed.server.watch("5").await.stream();
    stream.send("MODIFIED", &service("a", "6")).await;
    assert_eq!(bed.events().await, ["+a"]);
    drop(stream);
    let stream = bed.server.watch("6").await.stream();
    stream.bookmark("20").await;
    drop(stream);
    let stream = bed.server.watch("20").await.stream();
    stream.send("MODIFIED", &service("a", "21")).await;
    assert_eq!(bed.events().await, ["+a"], "and said nothing in between");
    assert_eq!(bed.watches.report()[0].errors, 0);
}

#[tokio::test]
async fn after_too_long_a_break_only_what_differs_is_told() {
    let mut bed = Bed::start().await;
    bed.server.list().await.page(
        "5",
        "",
        &[service("same", "1"), service("other", "2"), service("gone", "3")],
    );
    bed.part().await;
    bed.server.watch("5").await.stream().error(410).await;
    assert_eq!(bed.problems().await, [], "a list will tell");
    bed.server.list().await.page(
        "50",
        "",
        &[service("same", "1"), service("other", "30"), service("new", "31")],
    );
    assert_eq!(bed.events().await, ["+other", "+new", "-gone"]);
    let report = bed.watches.report().remove(0);
    assert_eq!((report.objects, report.lists, report.errors), (3, 2, 1));
    let _stream = bed.server.watch("50").await.stream();
}

#[tokio::test]
async fn nothing_is_gone_before_a_list_has_come_to_its_end() {
    let mut bed = Bed::start().await;
    bed.server.list().await.page("5", "", &[service("a", "1"), service("b", "2")]);
    bed.part().await;
    bed.server.watch("5").await.fail(410);
    bed.part().await;
    bed.server.list().await.page("50", "more", &[service("c", "30")]);
    assert_eq!(bed.events().await, ["+c"]);
    bed.server.list().await.fail(503);
    let problems = bed.problems().await;
    assert!(problems[0].message.contains("stays in force"), "{problems:?}");
    assert_eq!(bed.state(), WatchState::Lost);
    // Begun anew: what the broken list named counts for nothing.
    bed.server.list().await.page("60", "", &[service("a", "1")]);
    let mut events = bed.events().await;
    events.sort();
    assert_eq!(events, ["-b", "-c"]);
}

#[tokio::test]
async fn a_list_that_is_too_slow_is_begun_anew_and_one_that_cannot_be_begun_is_said() {
    let mut bed = Bed::start().await;
    bed.server.list().await.page("5", "more", &[service("a", "1")]);
    assert_eq!(bed.events().await, ["+a"]);
    bed.server.list().await.fail(410);
    assert_eq!(bed.problems().await, []);
    let call = bed.server.list().await;
    assert_eq!(call.query.get("continue"), None);
    call.fail(504);
    let part = bed.part().await;
    assert!(!part.is_settled);
    assert!(part.problems.unwrap()[0].message.contains("says why"));
    bed.server.list().await.page("6", "", &[service("a", "1")]);
    assert!(bed.part().await.is_settled);
}

#[tokio::test]
async fn an_api_server_that_is_away_changes_nothing_and_is_said() {
    let mut bed = Bed::with_a().await;
    bed.server.watch("5").await.fail(503);
    let part = bed.part().await;
    assert_eq!(part.events, []);
    let problems = part.problems.unwrap();
    assert_eq!(problems[0].source, "watch of Service");
    assert!(problems[0].message.contains("says why") && problems[0].message.contains("stays in force"));
    assert_eq!(bed.state(), WatchState::Lost);
    bed.server.watch("5").await.fail(503);
    let stream = bed.server.watch("5").await.stream();
    assert_eq!(bed.problems().await, [], "back, without waiting for a change");
    assert_eq!(bed.state(), WatchState::Watching);
    stream.send("MODIFIED", &service("a", "6")).await;
    assert_eq!(bed.events().await, ["+a"]);
    assert_eq!(bed.watches.report()[0].errors, 2);
}

#[tokio::test]
async fn a_kind_that_is_not_installed_keeps_nobody_waiting_and_is_found_later() {
    let mut bed = Bed::start().await;
    bed.server.list().await.fail(404);
    let part = bed.part().await;
    assert!(part.is_settled);
    assert!(part.problems.unwrap()[0].message.contains("install its CRD"));
    assert_eq!(bed.state(), WatchState::NotInstalled);
    bed.server.list().await.page("5", "", &[service("a", "1")]);
    assert_eq!(bed.events().await, ["+a"]);
    let _stream = bed.server.watch("5").await.stream();
    assert_eq!(bed.problems().await, []);
}

#[tokio::test]
async fn a_kind_that_is_not_installed_any_more_keeps_its_objects_until_a_list_says_otherwise() {
    let mut bed = Bed::with_a().await;
    bed.server.watch("5").await.fail(404);
    let part = bed.part().await;
    assert_eq!(part.events, []);
    assert!(part.problems.unwrap()[0].message.contains("stays in force"));
    bed.server.list().await.page("9", "", &[]);
    assert_eq!(bed.events().await, ["-a"]);
}

#[tokio::test]
async fn without_the_right_to_nothing_is_whole_and_the_right_is_named() {
    let mut bed = Bed::start().await;
    bed.server.list().await.fail(403);
    let part = bed.part().await;
    assert!(!part.is_settled);
    assert!(part.problems.unwrap()[0].message.contains("rights of install/scaler.yaml"));
    bed.server.list().await.page("5", "", &[]);
    assert!(bed.part().await.is_settled);
}

#[tokio::test]
async fn an_object_that_does_not_read_is_said_and_the_others_are_told() {
    let mut bed = Bed::start().await;
    bed.server.list().await.page("5", "", &[bad_service("a", "1"), service("b", "2")]);
    let part = bed.part().await;
    assert_eq!(part.events.iter().map(said).collect::<Vec<_>>(), ["+b"]);
    assert!(part.is_settled);
    let problem = part.problems.unwrap().remove(0);
    assert_eq!((&*problem.source, &*problem.field), ("Service n/a", "spec.ports[0].port"));
    assert!(problem.message.contains("is not used"), "{}", problem.message);
    let stream = bed.server.watch("5").await.stream();
    stream.send("MODIFIED", &bad_service("b", "6")).await;
    let part = bed.part().await;
    assert_eq!(part.events, [], "what it said before stays");
    let problems = part.problems.unwrap();
    assert_eq!(problems.iter().map(|it| &*it.source).collect::<Vec<_>>(), ["Service n/a", "Service n/b"]);
    assert!(problems[1].message.contains("stays in force"), "{}", problems[1].message);
    stream.send("MODIFIED", &service("a", "7")).await;
    let part = bed.part().await;
    assert_eq!(part.events.iter().map(said).collect::<Vec<_>>(), ["+a"]);
    assert_eq!(part.problems.unwrap().len(), 1);
    stream.send("DELETED", &bad_service("b", "8")).await;
    let part = bed.part().await;
    assert_eq!(part.events.iter().map(said).collect::<Vec<_>>(), ["-b"]);
    assert_eq!(part.problems, Some(Vec::new()));
}

#[tokio::test]
async fn of_many_objects_that_do_not_read_the_first_are_named_and_the_others_counted() {
    let mut bed = Bed::start().await;
    let items: Vec<Value> = (0..250).map(|number| bad_service(&format!("a{number:03}"), "1")).collect();
    bed.server.list().await.page("5", "", &items);
    let problems = bed.problems().await;
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[0].source, "Service n/a000");
    assert_eq!(problems[100].message, "150 more Services do not read");
}

#[tokio::test]
async fn a_line_that_is_no_event_is_a_broken_watch_and_no_more() {
    let mut bed = Bed::with_a().await;
    let stream = bed.server.watch("5").await.stream();
    stream.send("ADDED", &service("b", "6")).await;
    assert_eq!(bed.events().await, ["+b"]);
    stream.send("SOMETHING", &json!({})).await;
    let part = bed.part().await;
    assert_eq!(part.events, []);
    assert_eq!(part.problems.unwrap().len(), 1);
    // Nobody knows what it should have said.
    bed.server.list().await.page("9", "", &[service("b", "6"), service("c", "8")]);
    assert_eq!(bed.events().await, ["+c", "-a"]);
    let _stream = bed.server.watch("9").await.stream();
    assert_eq!(bed.problems().await, []);
}

#[test]
fn it_is_all_there_once_every_kind_is() {
    let mut whole = Whole::default();
    let part = |kind, is_settled| Part { kind, events: Vec::new(), problems: None, is_settled };
    for kind in ObjectKind::ALL {
        assert!(!whole.take(part(kind, false)).synced);
    }
    let mut synced = Vec::new();
    for kind in ObjectKind::ALL {
        synced.push(whole.take(part(kind, true)).synced);
    }
    assert_eq!(synced, [false, false, false, false, true]);
    assert!(whole.take(part(ObjectKind::Service, true)).synced);
}

#[test]
fn problems_of_one_kind_do_not_hide_those_of_another() {
    let mut whole = Whole::default();
    let problem = |source: &str| Problem {
        source: source.to_owned(),
        field: String::new(),
        message: "wrong".to_owned(),
    };
    let mut told =
        |kind, problems| whole.take(Part { kind, events: Vec::new(), problems, is_settled: false }).problems;
    assert_eq!(told(ObjectKind::Service, Some(vec![problem("a")])), Some(vec![problem("a")]));
    let both = Some(vec![problem("a"), problem("b")]);
    assert_eq!(told(ObjectKind::EndpointSlice, Some(vec![problem("b")])), both);
    assert_eq!(told(ObjectKind::Service, None), None);
    assert_eq!(told(ObjectKind::Service, Some(Vec::new())), Some(vec![problem("b")]));
}
