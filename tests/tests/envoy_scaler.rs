//! What happens to traffic when scalers die, come back, or never were.

use futures::future::join_all;
use sluice_tests::{bed::Bed, objects::Target, wait};

const COLD_START: &str = "x-keda-http-cold-start";

#[tokio::test]
async fn a_scaler_that_is_killed_during_holds_and_started_again_loses_nothing() {
    let target = Target::new("app");
    let mut bed = Bed::of(std::slice::from_ref(&target)).workers(2).start().await.unwrap();
    let mut held: Vec<_> = (0..20).map(|_| bed.spawn_get(&target, "/")).collect();
    bed.until_held(&target, 20).await.unwrap();

    bed.scalers[0].kill();
    held.extend((0..5).map(|_| bed.spawn_get(&target, "/")));
    bed.until_filter_holds(25).await.unwrap();
    bed.scalers[0].restart().await.unwrap();
    // The workers say all their counts again, each once. They are young: what they counted is news.
    let route = bed.until_held(&target, 25).await.unwrap();
    assert_eq!((route.arrivals, route.in_flight), (25, 25));
    assert!(route.active, "held requests keep the app awake: {route:?}");

    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    for answer in join_all(held).await {
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
    }
    bed.until_route(&target, "all counted", |route| (route.cold_starts, route.in_flight) == (25, 0))
        .await
        .unwrap();
    assert_eq!(app.requests().unwrap().len(), 25);
}

#[tokio::test]
async fn holds_are_released_while_the_scaler_is_away() {
    let target = Target::new("app");
    let mut bed = Bed::of(std::slice::from_ref(&target)).control_plane().start().await.unwrap();
    let held = bed.spawn_get(&target, "/");
    bed.until_held(&target, 1).await.unwrap();
    bed.scalers[0].kill();
    let app = bed.start_app().await.unwrap();
    bed.set_endpoints(&target, &[app.address()]).unwrap();
    let answer = held.await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
    assert_eq!(bed.get(&target, "/").await.unwrap().status, 200, "a warm request needs no scaler");
}

#[tokio::test]
async fn without_any_scaler_warm_traffic_is_untouched_and_cold_traffic_waits_for_its_cluster() {
    let (warm, cold) = (Target::new("warm"), Target::new("cold"));
    let bed = Bed::of(&[warm.clone(), cold.clone()]).scalers(0).missing_scalers(2).start().await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.set_endpoints(&warm, &[app.address()]).unwrap();
    bed.until_usable(&warm, 1).await.unwrap();
    let held = bed.spawn_get(&cold, "/cold");
    bed.until_filter_holds(1).await.unwrap();
    for _ in 0..50 {
        assert_eq!(bed.get(&warm, "/warm").await.unwrap().status, 200);
    }
    bed.set_endpoints(&cold, &[app.address()]).unwrap();
    let answer = held.await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "sluice-test-app: GET /cold\n"));
    bed.until_filter_holds(0).await.unwrap();
}

#[tokio::test]
async fn of_two_scalers_one_may_die_and_nobody_notices() {
    let target = Target::new("app");
    let mut bed = Bed::of(std::slice::from_ref(&target)).workers(2).scalers(2).start().await.unwrap();
    let held: Vec<_> = (0..10).map(|_| bed.spawn_get(&target, "/")).collect();
    for scaler in 0..2 {
        let route = bed.until_route_at(scaler, &target, "10 held", |route| route.held == 10).await.unwrap();
        assert!(route.active, "each of them knows enough to answer KEDA: {route:?}");
    }

    bed.scalers[0].kill();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    for answer in join_all(held).await {
        let answer = answer.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "true"));
    }
    for _ in 0..50 {
        let answer = bed.get(&target, "/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.header(COLD_START)), (200, "false"));
    }
    let counted = |route: &sluice_tests::scaler::RouteState| (route.arrivals, route.in_flight) == (60, 0);
    bed.until_route_at(1, &target, "60 arrivals", counted).await.unwrap();

    // Asleep again, and the dead one comes back: it hears all counts from the start.
    bed.sleep(&target).await.unwrap();
    let held = bed.spawn_get(&target, "/");
    bed.until_route_at(1, &target, "1 held", |route| route.held == 1).await.unwrap();
    bed.scalers[0].restart().await.unwrap();
    bed.until_route_at(0, &target, "1 held", |route| route.held == 1).await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_gateway_that_dies_is_forgotten() {
    let target = Target::new("app");
    let mut bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let held = bed.spawn_get(&target, "/");
    bed.until_held(&target, 1).await.unwrap();
    bed.envoy.kill();
    assert!(held.await.unwrap().is_err(), "the connection breaks with the gateway");
    bed.until_route(&target, "nothing in flight", |route| (route.held, route.in_flight) == (0, 0))
        .await
        .unwrap();
    let scaler = &bed.scalers[0];
    wait::until("no connected worker", async || {
        let state = scaler.state().await.map_err(|error| format!("{error:#}"))?;
        if state.connected(1) == 0 { Ok(()) } else { Err(format!("{:?}", state.gateways)) }
    })
    .await
    .unwrap();
}
