//! `docs/migrating.md`, tried as it is written: from the real add-on to Sluice, back, and there again, while clients
//! ask without a pause. No request fails at any moment.

#[path = "istio_migrating/add_on.rs"]
mod add_on;
#[path = "istio_migrating/load.rs"]
mod load;
#[path = "istio_migrating/page.rs"]
mod page;
#[path = "istio_migrating/place.rs"]
mod place;
#[path = "istio_migrating/refused.rs"]
mod refused;

use add_on::AddOn;
use anyhow::{Result, ensure};
use load::Load;
use page::Page;
use place::{ADD_ONS_SCALER, Place, SLUICES_SCALER};
use sluice_tests::cluster::{self, Cluster};

#[test]
fn from_the_add_on_to_sluice_and_back_no_request_fails() {
    if cluster::passes_over() {
        return;
    }
    cluster::run(|cluster| Box::pin(moves(cluster)));
}

#[test]
fn each_field_of_which_more_is_refused_than_by_the_add_on_is_in_the_table() {
    if cluster::passes_over() {
        return;
    }
    cluster::run(async |cluster| refused::the_table_is_right(&cluster).await);
}

async fn moves(cluster: Cluster) -> Result<()> {
    let add_on = AddOn::install(&cluster).await?;
    let place = Place::create(&cluster).await?;
    place.all_to_the_interceptor().await?;
    for app in [&place.shop, &place.api, &place.own] {
        let (status, was_cold) = place.ask(app).await?;
        ensure!(status == 200 && was_cold, "the add-on does not wake {}: {status}", app.name);
    }
    let mut loads = Vec::new();
    for app in [&place.shop, &place.api, &place.own] {
        loads.push(Load::start(place.gateway_of(app).await?, &app.host()));
    }
    go_on(&loads, "with the add-on").await?;

    let mut page = Page::read(&cluster, "Step by step")?;
    there(&place, &mut page, &loads, "the first time").await?;
    let mut back = Page::read(&cluster, "Back again")?;
    back.run().await?;
    place.asked_at(ADD_ONS_SCALER).await?;
    go_on(&loads, "with the add-on's operator again").await?;
    place.all_to_the_interceptor().await?;
    back.ends()?;
    go_on(&loads, "with the interceptor again").await?;

    let mut page = Page::read(&cluster, "Step by step")?;
    there(&place, &mut page, &loads, "the second time").await?;
    page.run().await?;
    page.only("helm uninstall -n keda http-add-on")?;
    add_on.uninstall().await?;
    page.ends()?;
    place.without_the_add_on().await?;
    go_on(&loads, "without the add-on").await?;
    place.cycle(&place.night).await?;
    let mut answers = 0;
    for load in loads {
        answers += load.end().await?;
    }
    println!("{answers} answers, all of them 200");
    // Whatever the add-on has left on them, objects can go.
    place.delete_all().await
}

/// Steps 1 to 4.
async fn there(place: &Place, page: &mut Page, loads: &[Load], time: &str) -> Result<()> {
    page.run().await?;
    place.filtered().await?;
    place.said_what_changes_nothing()?;
    go_on(loads, &format!("after step 1, {time}")).await?;
    page.run().await?;
    go_on(loads, &format!("after step 2, {time}")).await?;

    page.apply().await?;
    page.apply().await?;
    for app in [&place.own, &place.night] {
        place.to_the_app(app).await?;
    }
    place.routed_to_the_apps().await?;
    go_on(loads, &format!("after step 3, {time}")).await?;
    let held = place.hold(&place.night).await?;

    page.run().await?;
    page.run().await?;
    place.asked_at(SLUICES_SCALER).await?;
    let (status, was_cold) = held.await??;
    ensure!(status == 200 && was_cold, "a request that was held since step 3: {status}");
    let scalers = page.run().await?;
    for line in scalers.lines().filter(|line| line.contains("keda-add-ons-http-external-scaler")) {
        ensure!(line.contains("keda-add-ons-http-interceptor "), "{scalers}");
    }
    go_on(loads, &format!("after step 4, {time}")).await
}

async fn go_on(loads: &[Load], when: &str) -> Result<()> {
    for load in loads {
        load.goes_on(when).await?;
    }
    Ok(())
}
