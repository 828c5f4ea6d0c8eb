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
/// What KEDA may write for an app's wake: the scale, an Event, and the ScaledObject's status a few times. Its client
/// has 20 requests a second for all of this, reading the scale included.
const HANDFUL: usize = 8;
/// What it may write for any one of them; it writes conditions one by one, and those of the HPA as they come.
const MOST: usize = 2 * HANDFUL;

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
        count_writes(&audit::writes(&bed, &namespace)?[before..], &apps)?;
        cluster.delete_namespace(&namespace).await
    });
}

fn count_writes(writes: &[audit::Write], apps: &[App]) -> Result<()> {
    let by_keda: Vec<_> = writes.iter().filter(|write| write.user() == audit::KEDA).collect();
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for write in &by_keda {
        *kinds.entry(format!("{} {}", write.verb, write.resource())).or_default() += 1;
    }
    println!("KEDA wrote {} times: {kinds:?}", by_keda.len());
    for app in apps {
        // Events are named by the server, and KEDA names its HPAs after the app.
        let of_app = |write: &&&audit::Write| {
            write.name() == app.name || write.name() == format!("keda-hpa-{}", app.name)
        };
        let scales = by_keda.iter().filter(of_app).filter(|write| write.resource() == "deployments/scale");
        ensure!(scales.count() == 1, "{} was scaled more than once: {by_keda:#?}", app.name);
        let all = by_keda.iter().filter(of_app).count();
        ensure!(
            all <= MOST,
            "{all} writes for {}: {:#?}",
            app.name,
            by_keda.iter().filter(of_app).collect::<Vec<_>>()
        );
    }
    // Events included, which have no name.
    ensure!(by_keda.len() <= HANDFUL * apps.len(), "{} writes for {} apps", by_keda.len(), apps.len());
    Ok(())
}
