//! Watches that break, hang or are refused: what kube's `watcher` goes on from by itself, and what it does not.

use super::*;
use tokio::time::Instant;

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_line_goes_on_where_it_was() {
    let mut bed = Bed::with_a().await;
    let stream = bed.server.watch("5").await.stream();
    stream.send("MODIFIED", &service("a", "6")).await;
    assert_eq!(bed.events().await, ["+a"]);
    stream.tear().await;
    let _stream = bed.server.watch("6").await.stream();
}

#[tokio::test]
async fn an_error_within_a_watch_is_said_and_the_next_watch_goes_on_where_it_was() {
    let mut bed = Bed::with_a().await;
    let stream = bed.server.watch("5").await.stream();
    stream.send("MODIFIED", &service("a", "6")).await;
    assert_eq!(bed.events().await, ["+a"]);
    stream.error(500).await;
    assert!(bed.problems().await[0].message.contains("says why"));
    assert_eq!(bed.state(), WatchState::Lost);
    drop(stream);
    let _stream = bed.server.watch("6").await.stream();
    assert_eq!(bed.problems().await, []);
    assert_eq!(bed.state(), WatchState::Watching);
}

#[tokio::test]
async fn a_change_shows_that_a_watch_goes_on_after_an_error() {
    let mut bed = Bed::with_a().await;
    let stream = bed.server.watch("5").await.stream();
    stream.error(500).await;
    assert_eq!(bed.problems().await.len(), 1);
    stream.send("MODIFIED", &service("a", "6")).await;
    let part = bed.part().await;
    assert_eq!(part.events.iter().map(said).collect::<Vec<_>>(), ["+a"]);
    assert_eq!((part.problems, bed.state()), (Some(Vec::new()), WatchState::Watching));
}

#[tokio::test]
async fn a_version_that_the_api_server_cannot_watch_from_is_listed_anew() {
    for code in [400, 410, 504] {
        let mut bed = Bed::with_a().await;
        bed.server.watch("5").await.fail(code);
        assert_eq!(bed.problems().await, [], "{code}: a list will tell");
        bed.server.list().await.page("50", "", &[service("a", "1")]);
        let _stream = bed.server.watch("50").await.stream();
    }
}

#[tokio::test]
async fn a_right_that_was_taken_away_is_named_and_the_watch_goes_on_with_it() {
    let mut bed = Bed::with_a().await;
    bed.server.watch("5").await.fail(403);
    let part = bed.part().await;
    assert_eq!(part.events, []);
    assert!(part.problems.unwrap()[0].message.contains("rights of install/scaler.yaml"));
    let _stream = bed.server.watch("5").await.stream();
    assert_eq!(bed.problems().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_stays_silent_beyond_its_time_is_begun_again_and_nothing_is_listed_for_that() {
    let mut bed = Bed::near();
    bed.server.list().await.page("5", "", &[]);
    bed.part().await;
    for _ in 0..3 {
        let before = Instant::now();
        let call = bed.server.watch("5").await;
        assert_eq!(call.query["timeoutSeconds"], "30");
        let _silent = call.stream();
        let next = bed.server.watch("5").await;
        assert_eq!(before.elapsed().as_secs(), 35);
        drop(next.stream());
    }
    assert_eq!((bed.watches.report()[0].errors, bed.state()), (0, WatchState::Watching));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_does_not_begin_is_said_and_asked_for_again() {
    let mut bed = Bed::near();
    bed.server.list().await.page("5", "", &[]);
    bed.part().await;
    let _unanswered = bed.server.watch("5").await;
    let problems = bed.problems().await;
    assert!(problems[0].message.contains("no watch within 5s"), "{problems:?}");
    assert_eq!(bed.state(), WatchState::Lost);
    let _stream = bed.server.watch("5").await.stream();
    assert_eq!(bed.problems().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_does_not_come_is_said_and_the_list_begun_anew() {
    let mut bed = Bed::near();
    bed.server.list().await.page("5", "more", &[service("a", "1")]);
    assert_eq!(bed.events().await, ["+a"]);
    let _unanswered = bed.server.list().await;
    let problems = bed.problems().await;
    assert!(problems[0].message.contains("no list within 60s"), "{problems:?}");
    let call = bed.server.list().await;
    assert_eq!(call.query.get("continue"), None);
    call.page("6", "", &[service("a", "1")]);
    assert!(bed.part().await.is_settled);
}

#[tokio::test]
async fn a_watch_ends_when_nobody_listens() {
    let (mut server, client) = Server::start().await;
    let (sender, mut parts) = mpsc::channel(WAITING);
    let meter = Arc::<Watches>::default().add(ObjectKind::Service);
    let watch = tokio::spawn(Watch::<Service>::new(client, None, None, meter, sender).run());
    server.list().await.page("5", "", &[]);
    parts.recv().await.expect("news");
    let _stream = server.watch("5").await.stream();
    drop(parts);
    tokio::time::timeout(LIMIT, watch).await.expect("it ends").unwrap();
}
