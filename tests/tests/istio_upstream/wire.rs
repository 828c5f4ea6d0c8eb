//! What the app and the sockets see of the settings.

use crate::app::{Deaf, Watched, set, stat};
use anyhow::{Result, ensure};
use sluice_envoyfilter::{Protocol, Upstream};
use sluice_tests::{
    app::AppRequest,
    cluster::istio::{self, World},
    wait,
};
use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};
use tokio::io::AsyncReadExt as _;

/// How many connections requests came on.
fn connections(requests: &[AppRequest]) -> usize {
    requests.iter().map(|request| request.connection).collect::<BTreeSet<_>>().len()
}

/// Connections that the gateway has opened to an app.
async fn opened(world: &World, app: &Watched) -> Result<usize> {
    Ok(usize::try_from(stat(&world.gateway, &app.app, "upstream_cx_total").await?)?)
}

/// Sends requests one after the other, and says on how many connections they came.
async fn one_by_one(world: &World, app: &Watched, path: &str, count: usize) -> Result<usize> {
    for _ in 0..count {
        let answer = app.get(world, path).await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    let requests = app.requests_to(path)?;
    ensure!(requests.len() == count, "{requests:?}");
    Ok(connections(&requests))
}

/// Sends requests at the same time, and says on how many connections they came.
async fn together(world: &World, app: &Watched, path: &str, count: usize) -> Result<usize> {
    let requests = (0..count).map(|_| world.send(&app.app.host(), path)).collect::<Vec<_>>();
    for request in requests {
        let answer = request.await??;
        ensure!(answer.status == 200, "{answer:?}");
    }
    let requests = app.requests_to(path)?;
    ensure!(requests.len() == count, "{requests:?}");
    Ok(connections(&requests))
}

/// No connection serves a second request, and none is opened that serves no request: looks need none of their own.
#[test]
fn without_keep_alives_each_request_has_a_connection_of_its_own() {
    const COUNT: usize = 20;
    istio::run("keepalives", async |world| {
        for (name, app_protocol, protocol) in
            [("shop", None, Protocol::Http1), ("api", Some("kubernetes.io/h2c"), Protocol::Http2)]
        {
            let app = Watched::start(&world, name, app_protocol).await?;
            let with = one_by_one(&world, &app, "/with", COUNT).await?;
            println!("{name}: {with} connections for {COUNT} requests");
            ensure!(with < COUNT, "{with} connections");
            app.set(&world, Upstream { protocol, disable_keep_alives: true, ..Upstream::default() }).await?;
            let before = opened(&world, &app).await?;
            let without = one_by_one(&world, &app, "/without", COUNT).await?;
            ensure!(without == COUNT, "{name}: {without} connections for {COUNT} requests");
            let without = together(&world, &app, "/together", COUNT).await?;
            ensure!(without == COUNT, "{name}: {without} connections for {COUNT} requests together");
            let opened = opened(&world, &app).await? - before;
            ensure!(opened == 2 * COUNT, "{name}: {opened} connections for {} requests", 2 * COUNT);
            // What a port is, it stays: of HTTP/2, connections for one request each.
            let version = if protocol == Protocol::Http2 { "HTTP/2.0" } else { "HTTP/1.1" };
            let requests = app.requests_to("/with")?;
            ensure!(requests.iter().all(|request| request.version == version), "{name}: {requests:?}");
        }
        Ok(())
    });
}

/// A request that waited, and the look before its release, have one connection between them.
#[test]
fn without_keep_alives_a_cold_request_opens_one_connection() {
    istio::run("cold", async |world| {
        let app = Watched::start(&world, "shop", None).await?;
        app.set(&world, Upstream { disable_keep_alives: true, ..Upstream::default() }).await?;
        app.app.scale(0).await?;
        app.app.asleep().await?;
        let before = opened(&world, &app).await?;
        world.wake(&app.app, &app.app.host(), "/cold").await?;
        let opened = opened(&world, &app).await? - before;
        ensure!(opened == 1, "{opened} connections");
        Ok(())
    });
}

#[test]
fn a_connection_without_a_request_is_closed_in_time() {
    istio::run("idle", async |world| {
        let shop = Watched::start(&world, "shop", None).await?;
        let other = Watched::start(&world, "other", None).await?;
        shop.set(&world, Upstream { idle_timeout: Some(Duration::from_millis(100)), ..Upstream::default() })
            .await?;
        for app in [&shop, &other] {
            ensure!(app.get(&world, "/").await?.status == 200, "{}", app.app.name);
        }
        wait::until("the connection to be closed", async || {
            match stat(&world.gateway, &shop.app, "upstream_cx_idle_timeout").await {
                Ok(0) => Err("it is open".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        ensure!(stat(&world.gateway, &shop.app, "upstream_cx_active").await? == 0, "another one is open");
        ensure!(
            stat(&world.gateway, &other.app, "upstream_cx_active").await? > 0,
            "another app's was closed"
        );
        Ok(())
    });
}

/// What comes when all connections are in use waits for one. A worker that has none opens one whatever the others have.
#[test]
fn a_pod_gets_no_more_connections_than_it_may() {
    const MOST: u32 = 3;
    const COUNT: usize = 20;
    istio::run("most", async |world| {
        let app = Watched::start(&world, "shop", None).await?;
        let bound = MOST as usize + world.gateway.options().workers as usize - 1;
        let without = together(&world, &app, "/slow?ms=51", COUNT).await?;
        ensure!(without > bound, "{without} connections without a bound");
        app.set(&world, Upstream { max_connections: NonZeroU32::new(MOST), ..Upstream::default() }).await?;
        let with = together(&world, &app, "/slow?ms=50", COUNT).await?;
        println!("{without} connections, then {with}");
        ensure!(with <= bound, "{with} connections");
        Ok(())
    });
}

/// A connection that does not come about is given up, and the request is answered 503: before it would be without the
/// setting.
#[test]
fn connecting_takes_no_longer_than_it_may() {
    istio::run("connect", async |world| {
        // Their Pods are there and ready, and their listeners have no room for a connection.
        let (shop, other) = (Deaf::start(&world, "shop").await?, Deaf::start(&world, "other").await?);
        let upstream = Upstream { connect_timeout: Some(Duration::from_millis(50)), ..Upstream::default() };
        set(&world, &shop.app, upstream).await?;
        let unlimited = world.send(&other.app.host(), "/");
        wait::until("the gateway to connect", async || {
            match stat(&world.gateway, &other.app, "upstream_cx_total").await {
                Ok(0) => Err("it does not".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await?;
        let answer = world.get(&shop.app.host(), "/").await?;
        ensure!(answer.status == 503, "{answer:?}");
        ensure!(!unlimited.is_finished(), "the other did not wait longer: {:?}", unlimited.await);
        ensure!(
            stat(&world.gateway, &shop.app, "upstream_cx_connect_timeout").await? > 0,
            "something else: {answer:?}"
        );
        unlimited.abort();
        Ok(())
    });
}

/// A client that leaves while the connection is being made leaves one behind on which a single-threaded server would
/// wait.
#[test]
fn a_connection_that_nobody_uses_is_closed_in_time() {
    istio::run("unused", async |world| {
        let shop = Deaf::start(&world, "shop").await?;
        // From the start of connecting, and the second attempt for a connection comes after a second.
        let idle_timeout = Some(Duration::from_secs(3));
        set(&world, &shop.app, Upstream { disable_keep_alives: true, idle_timeout, ..Upstream::default() })
            .await?;
        let request = world.send(&shop.app.host(), "/");
        let pending = async |wanted: u64| {
            wait::until(format!("{wanted} requests to wait for a connection"), async || {
                match stat(&world.gateway, &shop.app, "upstream_rq_pending_active").await {
                    Ok(pending) if pending == wanted => Ok(()),
                    Ok(pending) => Err(pending.to_string()),
                    Err(error) => Err(format!("{error:#}")),
                }
            })
            .await
        };
        pending(1).await?;
        request.abort();
        pending(0).await?;
        let mut connection = shop.accept().await?;
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes).await?;
        ensure!(bytes.is_empty(), "something came: {}", String::from_utf8_lossy(&bytes));
        let closed = stat(&world.gateway, &shop.app, "upstream_cx_idle_timeout").await?;
        ensure!(closed == 1, "{closed} were closed for being idle");
        Ok(())
    });
}
