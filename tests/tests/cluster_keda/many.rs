//! A hundred apps at once.

use crate::wake::ensure_cold;
use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use sluice_tests::cluster::sluice::{self, App, Gateway, Settings, audit};
use std::time::{Duration, Instant};

const APPS: usize = 100;
/// In which a request to each comes.
const SPREAD: Duration = Duration::from_secs(1);
/// How often KEDA may scale an app, and write down that it is active: for each `true` that it is told, four of which come
/// within the first 20 s of a wait and one in 10 s after that, for each poll of its own, every 30 s, and for a stream or two
/// that it opens anew. Its client has 20 requests a second for all that it does.
fn handful(within: Duration) -> usize {
    6 + usize::try_from(within.as_secs() / 10 + within.as_secs() / 30).unwrap_or(usize::MAX)
}

#[test]
fn a_hundred_apps_wake_at_once_and_kedas_client_is_not_flooded() {
    sluice::run(Settings::default(), async |sluice| {
        let cluster = sluice.cluster();
        let bed = cluster.bed().context("needs the bed")?.clone();
        let namespace = cluster.namespace("hundred").await?;
        let apps: Vec<App> =
            (0..APPS).map(|number| App::new(&sluice, &namespace, &format!("app-{number}"))).collect();
        // They stay awake, so that what is counted is the wake alone.
        let stays = json!({"scaledownPeriod": 3600});
        let objects: Vec<_> = apps
            .iter()
            .flat_map(|app| app.workload().into_iter().chain([app.http_scaled_object(stays.clone())]))
            .collect();
        cluster.apply(&objects).await?;
        for app in &apps {
            app.scaled_object_ready().await?;
        }
        let all: Vec<&App> = apps.iter().collect();
        sluice.until_keda_listens(&all).await?;
        let gateway = Gateway::start(&sluice, 2, &all).await?;

        let before = audit::writes(&bed, &namespace)?.len();
        let began = Instant::now();
        let mut arrivals = tokio::time::interval(SPREAD / u32::try_from(APPS)?);
        let mut waiting = Vec::new();
        for app in &apps {
            arrivals.tick().await;
            waiting.push(gateway.spawn_get(app, "/", &app.name));
        }
        let sent = began.elapsed();
        for answer in try_join_all(waiting).await? {
            ensure_cold(&answer?)?;
        }
        println!("{APPS} requests within {sent:.1?}, all answered after {:.1?}", began.elapsed());
        for app in &apps {
            app.until_ready(1).await?;
        }
        count_writes(&audit::writes(&bed, &namespace)?[before..], &apps, handful(began.elapsed()))?;
        cluster.delete_namespace(&namespace).await
    });
}

fn count_writes(writes: &[audit::Request], apps: &[App], handful: usize) -> Result<()> {
    let by_keda: Vec<_> = writes.iter().filter(|write| write.user() == audit::KEDA).collect();
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for write in &by_keda {
        *kinds.entry(format!("{} {}", write.verb, write.resource())).or_default() += 1;
    }
    println!("KEDA wrote {} times: {kinds:?}", by_keda.len());
    let mut most = 0;
    for app in apps {
        // Events are named by the server.
        let of_app: Vec<_> = by_keda.iter().filter(|write| write.name() == app.name).collect();
        let scales = of_app.iter().filter(|write| write.resource() == "deployments/scale").count();
        // Once; a `true` that comes again may find KEDA's cache behind its own write, and 1 is written over 1.
        ensure!((1..=handful).contains(&scales), "{} was scaled {scales} times: {of_app:#?}", app.name);
        // Not its other words: it writes conditions one by one whenever the HPA's change, which this bed's do every
        // second, and all of them anew when it has lost its Lease to a machine that is too busy.
        let told = of_app.iter().filter(|write| write.sets_status("lastActiveTime")).count();
        ensure!((1..=handful).contains(&told), "{} was active {told} times: {of_app:#?}", app.name);
        most = most.max(told);
    }
    println!("that one app is active: at most {most} times, {handful} are allowed");
    Ok(())
}
