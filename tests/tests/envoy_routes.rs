//! Large route tables, and changes to them.

use sluice_tests::{bed::Bed, objects::Target, wait};

const OBJECTS: usize = 10_000;

/// Waits until each link of the bed's workers, and of Envoy's main thread, has so many routes.
async fn until_links_have(bed: &Bed, routes: usize) {
    wait::until(format!("{routes} routes at each worker"), async || {
        let state = bed.scalers[0].state().await.map_err(|error| format!("{error:#}"))?;
        let workers: usize = state.gateways.iter().map(|gateway| gateway.workers.len()).sum();
        if workers > 1 && state.connected(routes) == workers {
            Ok(())
        } else {
            Err(format!("{:?}", state.gateways))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn among_ten_thousand_objects_each_request_finds_its_own() {
    let all: Vec<Target> = (0..OBJECTS).map(|number| Target::new(&format!("app-{number:05}"))).collect();
    let picked = [0, OBJECTS / 2, OBJECTS - 1];
    let routed: Vec<Target> = picked.iter().map(|index| all[*index].clone()).collect();
    let unrouted = all.iter().filter(|target| !routed.contains(target)).cloned().collect();
    let bed = Bed::of(&routed).workers(2).unrouted(unrouted).start().await.unwrap();

    let held: Vec<_> = routed.iter().map(|target| bed.spawn_get(target, "/")).collect();
    for target in &routed {
        bed.until_held(target, 1).await.unwrap();
    }
    // One after the other: a wake releases its own app's requests and no others.
    for (index, (target, held)) in routed.iter().zip(held).enumerate() {
        let app = bed.start_app().await.unwrap();
        bed.wake(target, &[app.address()]).unwrap();
        let answer = held.await.unwrap().unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.header("x-keda-http-cold-start")),
            (200, "true"),
            "{target:?}"
        );
        for other in routed.iter().skip(index + 1) {
            assert_eq!(bed.route(other).await.unwrap().held, 1, "{other:?}");
        }
    }
    let state = bed.scalers[0].state().await.unwrap();
    assert!(state.problems.is_empty(), "{:?}", state.problems);
    assert_eq!(state.routes.iter().map(|route| route.arrivals).sum::<u64>(), picked.len() as u64);
}

#[tokio::test]
async fn of_objects_with_one_host_each_has_the_requests_that_go_to_its_own_target() {
    let both = [Target::new("old"), Target::new("new")];
    let bed = Bed::of(&both).workers(2).start().await.unwrap();
    for target in &both {
        bed.objects.remove(&format!("default-{}.yaml", target.name)).unwrap();
    }
    until_links_have(&bed, 0).await;
    for target in &both {
        let mut object = target.scaled_object();
        // The gateway tells the two apart by what is no rule of theirs.
        object["spec"]["hosts"] = serde_json::json!(["*.default.example.com"]);
        bed.objects.add_with(target, object).unwrap();
    }
    until_links_have(&bed, both.len()).await;
    let held: Vec<_> =
        both.iter().flat_map(|target| [bed.spawn_get(target, "/a"), bed.spawn_get(target, "/b")]).collect();
    for target in &both {
        bed.until_held(target, 2).await.unwrap();
    }
    let app = bed.start_app().await.unwrap();
    for target in &both {
        bed.wake(target, &[app.address()]).unwrap();
    }
    for answer in held {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }
    for target in &both {
        assert_eq!(bed.get(target, "/").await.unwrap().status, 200);
        bed.until_route(target, "all requests", |route| route.arrivals == 3).await.unwrap();
    }
}

#[tokio::test]
async fn an_object_that_comes_later_is_held_for() {
    let (first, later) = (Target::new("first"), Target::new("later"));
    let bed = Bed::of(&[first.clone(), later.clone()]).start().await.unwrap();
    bed.objects.remove("default-later.yaml").unwrap();
    until_links_have(&bed, 1).await;
    assert_eq!(bed.get(&later, "/").await.unwrap().status, 503, "nobody's yet: Envoy's own answer");
    bed.objects.add(&later).unwrap();
    until_links_have(&bed, 2).await;
    let held = bed.spawn_get(&later, "/");
    bed.until_held(&later, 1).await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&later, &[app.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_bad_file_is_named_and_leaves_the_rest_working() {
    let target = Target::new("app");
    let bed = Bed::of(std::slice::from_ref(&target)).start().await.unwrap();
    let mut bad = Target::new("bad").scaled_object();
    bad["spec"]["scaleTargetRef"]["port"] = serde_json::json!("eighty");
    bed.objects.write("bad.yaml", &[bad]).unwrap();
    let scaler = &bed.scalers[0];
    let problem = wait::until("the bad file among the problems", async || {
        let state = scaler.state().await.map_err(|error| format!("{error:#}"))?;
        state
            .problems
            .into_iter()
            .find(|problem| problem.source.contains("bad.yaml"))
            .ok_or("it is not there".to_owned())
    })
    .await
    .unwrap();
    assert!(problem.field.contains("port"), "{problem:?}");
    let held = bed.spawn_get(&target, "/");
    bed.until_held(&target, 1).await.unwrap();
    let app = bed.start_app().await.unwrap();
    bed.wake(&target, &[app.address()]).unwrap();
    assert_eq!(held.await.unwrap().unwrap().status, 200);
}
