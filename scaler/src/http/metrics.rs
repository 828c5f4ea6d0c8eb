//! Prometheus metrics: the add-on's, by its names and labels, and what it has none for.
//!
//! Everything is read when it is asked for. Counters are this replica's: they grow from when it first heard of a
//! worker, and every replica hears of all of them, so they are not to be added up over replicas.

use crate::{
    hub::Hub,
    index::Standing,
    ledger::{Buckets, Tally},
    source::cluster::{WatchReport, WatchState},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use sluice_core::count::{DURATION_BUCKETS_MS, HOLD_BUCKETS_MS, LAG_BUCKETS_MS, Method};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

/// What [`text`] is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics, as they are now.
pub(super) fn text(hub: Arc<Hub>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(hub)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(Arc<Hub>);

/// A route that gateways know, with what was counted.
struct Row {
    namespace: String,
    name: String,
    tally: Tally,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let hub = &*self.0;
        let rows = rows(hub);
        completions(&mut encoder, &rows)?;
        let encoder = &mut encoder;
        gauge(
            encoder,
            &rows,
            "interceptor_request_concurrency",
            "Requests under way, held ones included",
            |it| it.in_flight(),
        )?;
        counter(
            encoder,
            &rows,
            "interceptor_cold_start_rejections",
            "Requests answered 503 because a limit on held requests was full",
            |it| it.totals.rejections,
        )?;
        gauge(encoder, &rows, "sluice_held_requests", "Requests that wait for their app now", |it| {
            it.held()
        })?;
        counter(encoder, &rows, "sluice_requests", "Requests that arrived", |it| it.totals.arrivals)?;
        counter(encoder, &rows, "sluice_cold_starts", "Requests that were held and then released", |it| {
            it.totals.cold_starts
        })?;
        counter(
            encoder,
            &rows,
            "sluice_hold_expirations",
            "Requests answered 504 at the end of their hold",
            |it| it.totals.expirations,
        )?;
        counter(
            encoder,
            &rows,
            "sluice_target_mismatches",
            "Requests that met a route's rules and that the gateway sent to another cluster",
            |it| it.totals.mismatches,
        )?;
        histogram(
            encoder,
            &rows,
            "sluice_hold_duration_seconds",
            "How long released requests were held",
            &HOLD_BUCKETS_MS,
            |it| &it.totals.holds,
        )?;
        histogram(
            encoder,
            &rows,
            "sluice_endpoint_lag_seconds",
            "How long after the first ready endpoint a gateway worker's own cluster became usable",
            &LAG_BUCKETS_MS,
            |it| &it.totals.lags,
        )?;
        let (streams, workers) = hub.ledger.count_workers();
        single(encoder, "sluice_link_streams", "Gateway workers that are connected", streams)?;
        single(encoder, "sluice_link_workers", "Gateway workers that are counted", workers)?;
        single(encoder, "sluice_keda_streams", "KEDA's streams that are open", hub.streams.count())?;
        single(encoder, "sluice_routes", "Routes that gateways know", rows.len())?;
        single(
            encoder,
            "sluice_config_problems",
            "What is wrong with the objects; /debug/state names it",
            hub.problems().len(),
        )?;
        watches(encoder, &hub.watches.report())?;
        let ignored = &hub.ledger.ignored;
        let ignored =
            [("routes", &ignored.routes), ("histograms", &ignored.histograms), ("workers", &ignored.workers)];
        let help = "What gateway workers said that could not be counted";
        let mut family = encoder.encode_descriptor("sluice_link_ignored", help, None, MetricType::Counter)?;
        for (what, count) in ignored {
            let labels = [("what", what)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&count.load(Ordering::Relaxed), None)?;
        }
        Ok(())
    }
}

fn watches(encoder: &mut DescriptorEncoder<'_>, reports: &[WatchReport]) -> fmt::Result {
    if reports.is_empty() {
        // Standalone: there are none.
        return Ok(());
    }
    let labels = |report: &WatchReport| [("kind", report.kind.name())];
    let help = "1: changes of objects of that kind come as they happen. 0: what was known holds";
    let mut family = encoder.encode_descriptor("sluice_watch_up", help, None, MetricType::Gauge)?;
    for report in reports {
        let is_up = i64::from(report.state == WatchState::Watching);
        family.encode_family(&labels(report))?.encode_gauge(&is_up)?;
    }
    let help = "Objects of that kind that are known";
    let mut family = encoder.encode_descriptor("sluice_watch_objects", help, None, MetricType::Gauge)?;
    for report in reports {
        let objects = i64::try_from(report.objects).unwrap_or(i64::MAX);
        family.encode_family(&labels(report))?.encode_gauge(&objects)?;
    }
    let help = "How often all objects of that kind were listed; more than 1: changes could not be followed";
    let mut family = encoder.encode_descriptor("sluice_watch_lists", help, None, MetricType::Counter)?;
    for report in reports {
        family.encode_family(&labels(report))?.encode_counter::<NoLabelSet, _, u64>(&report.lists, None)?;
    }
    let help = "How often something was in the way of listing or watching objects of that kind";
    let mut family = encoder.encode_descriptor("sluice_watch_errors", help, None, MetricType::Counter)?;
    for report in reports {
        family.encode_family(&labels(report))?.encode_counter::<NoLabelSet, _, u64>(&report.errors, None)?;
    }
    Ok(())
}

fn rows(hub: &Hub) -> Vec<Row> {
    let index = hub.index();
    let routed = index.entries().filter(|(_, _, entry)| matches!(entry.standing, Standing::Routed { .. }));
    let rows = routed.filter_map(|(_, name, entry)| {
        let tally = hub.ledger.find(entry.id)?.tally();
        Some(Row { namespace: name.namespace.clone(), name: name.name.clone(), tally })
    });
    rows.collect()
}

fn completions(encoder: &mut DescriptorEncoder<'_>, rows: &[Row]) -> fmt::Result {
    let labels = |row: &Row, method: Method, code: u16| {
        [
            ("code", code.to_string()),
            ("method", method_name(method).to_owned()),
            ("route_name", row.name.clone()),
            ("route_namespace", row.namespace.clone()),
        ]
    };
    let help = "Requests that ended, by status (0: none) and method";
    let mut family =
        encoder.encode_descriptor("interceptor_request_count", help, None, MetricType::Counter)?;
    for row in rows {
        for (completion, durations) in &row.tally.totals.completions {
            let labels = labels(row, completion.method, completion.code);
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&durations.count(), None)?;
        }
    }
    let help = "How long requests took from their arrival to their end";
    let name = "interceptor_request_duration_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for row in rows {
        for (completion, durations) in &row.tally.totals.completions {
            let labels = labels(row, completion.method, completion.code);
            buckets(&mut family.encode_family(&labels)?, &DURATION_BUCKETS_MS, durations)?;
        }
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row],
    name: &str,
    help: &str,
    value: impl Fn(&Tally) -> u64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for row in rows {
        let labels = row.labels();
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value(&row.tally), None)?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row],
    name: &str,
    help: &str,
    value: impl Fn(&Tally) -> u64,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for row in rows {
        let labels = row.labels();
        family.encode_family(&labels)?.encode_gauge(&value(&row.tally))?;
    }
    Ok(())
}

fn histogram<const N: usize, const M: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    rows: &[Row],
    name: &str,
    help: &str,
    bounds_ms: &[u64; N],
    value: impl Fn(&Tally) -> &Buckets<M>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for row in rows {
        let labels = row.labels();
        buckets(&mut family.encode_family(&labels)?, bounds_ms, value(&row.tally))?;
    }
    Ok(())
}

fn buckets<const M: usize>(
    metric: &mut MetricEncoder<'_>,
    bounds_ms: &[u64],
    observed: &Buckets<M>,
) -> fmt::Result {
    let bounds = bounds_ms.iter().map(|ms| *ms as f64 / 1_000.0).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(observed.counts).collect();
    metric.encode_histogram::<NoLabelSet>(observed.sum_us as f64 / 1e6, observed.count(), &buckets, None)
}

fn single(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: usize) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as u64))
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Other => "_OTHER",
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
    }
}

impl Row {
    fn labels(&self) -> [(&'static str, &str); 2] {
        [("route_name", &self.name), ("route_namespace", &self.namespace)]
    }
}
