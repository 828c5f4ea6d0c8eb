//! The operator on a real API server with many HTTPScaledObjects: from its start to all ScaledObjects, what it takes
//! while nothing happens, what a change costs, and a start that finds all made.
//!
//! It has its own rights and no more, by a token of its ServiceAccount, so that the API server's audit log has each
//! of its requests. KEDA's definitions are there and KEDA is not: with it, ten thousand ScaledObjects would be KEDA's
//! figures. So each object's status stays at "KEDA has not looked at it yet".

mod objects;
mod operator;

use super::Part;
use crate::{bench::Bench, plan::Plan, report::Report, system};
use anyhow::{Context as _, ensure};
use operator::Operator;
use sluice_tests::cluster::{self, Cluster, Guard, bed::Bed, sluice::audit};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// Changes of objects in a second.
const CHANGES: u32 = 10;

type Figure = (String, f64, &'static str);

pub(super) async fn run(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let (plan, dir) = (bench.plan, bench.dir("operator-size")?);
    let (figures, measured) = mpsc::channel();
    // The bed has threads of its own: this one would wait in vain for them.
    let ended = tokio::task::spawn_blocking(move || {
        let bed = Arc::new(Bed::start(&dir, Guard::default())?);
        let of = Arc::clone(&bed);
        cluster::inside(&bed, async move |cluster| measure(&cluster, &of, plan, &dir, &figures).await)
    })
    .await?;
    // What was measured before something failed took minutes.
    for (name, value, unit) in measured {
        report.figure(Part::OperatorSize, name, value, unit, None);
    }
    ended
}

async fn measure(
    cluster: &Cluster,
    bed: &Bed,
    plan: Plan,
    dir: &Path,
    figures: &mpsc::Sender<Figure>,
) -> anyhow::Result<()> {
    let objects = plan.routes;
    let say = |name: String, value, unit| {
        // The receiver waits for the end of this.
        let _ = figures.send((name, value, unit));
    };
    let kubeconfig = objects::install(cluster, bed, dir).await?;
    let namespaces = objects::namespaces(cluster).await?;
    let begun = Instant::now();
    objects::fill(cluster, &namespaces, objects).await?;
    eprintln!("bench: {} objects written in {:.0?}", objects * 2, begun.elapsed());
    let server = crate::istio::process(&["kube-apiserver", &dir.canonicalize()?.display().to_string()])?;

    // Everything has to be made.
    let (begun, server_before) = (Instant::now(), system::cpu(server)?);
    let operator = Operator::start(bed, dir, &kubeconfig).await?;
    let read = begun.elapsed();
    operator.until_written("ScaledObject", objects).await?;
    let made = begun.elapsed();
    let settled = operator.until_rests().await?.duration_since(begun);
    let of = format!("{objects} objects to be made");
    say(format!("{of}: all read after"), read.as_secs_f64(), "s");
    say(format!("{of}: the last ScaledObject after"), made.as_secs_f64(), "s");
    say(format!("{of}: the last write after"), settled.as_secs_f64(), "s");
    say(format!("{of}: CPU of the operator"), operator.cpu()?.as_secs_f64(), "s");
    let of_server = system::cpu(server)?.saturating_sub(server_before);
    say(format!("{of}: CPU of the API server"), of_server.as_secs_f64(), "s");
    say(format!("{of}: memory at its highest"), operator.peak()? / 1e6, "MB");
    say(format!("{of}: memory then"), operator.resident()? / 1e6, "MB");
    let mut asked = Asked::default();
    for (right, count) in asked.since(bed)? {
        say(format!("{of}: {right}, per object"), count as f64 / objects as f64, "");
    }
    objects::must_be_made(cluster, &namespaces, objects).await?;

    let idle = operator.busy(async || sleep(plan.idle).await).await?;
    say(format!("{objects} objects: CPU while nothing happens"), share(idle, plan.idle), "% of a core");
    say(format!("{objects} objects: requests meanwhile"), asked.sum(bed)?, "");

    let changes = (plan.idle * CHANGES).as_secs() as usize;
    let (begun, server_before) = (Instant::now(), system::cpu(server)?);
    let cpu = operator
        .busy(async || {
            objects::change(cluster, &namespaces, objects, changes, CHANGES).await?;
            operator.until_rests().await.map(drop)
        })
        .await?;
    let cpu = cpu.saturating_sub(idle.mul_f64(begun.elapsed().as_secs_f64() / plan.idle.as_secs_f64()));
    let of = format!("{objects} objects, one changes");
    say(format!("{of}: CPU of the operator"), cpu.as_secs_f64() * 1e3 / changes as f64, "ms");
    let of_server = system::cpu(server)?.saturating_sub(server_before);
    say(format!("{of}: CPU of the API server"), of_server.as_secs_f64() * 1e3 / changes as f64, "ms");
    say(format!("{of}: requests"), asked.sum(bed)? / changes as f64, "");

    // All is made: a start has nothing to write.
    drop(operator);
    asked.since(bed)?;
    let begun = Instant::now();
    let operator = Operator::start(bed, dir, &kubeconfig).await?;
    let read = begun.elapsed();
    operator.until_looked_at(objects).await?;
    let looked_at = begun.elapsed();
    operator.until_rests().await?;
    let of = format!("{objects} objects, all made: a start");
    say(format!("{of}: all read after"), read.as_secs_f64(), "s");
    say(format!("{of}: all looked at after"), looked_at.as_secs_f64(), "s");
    say(format!("{of}: CPU of the operator"), operator.cpu()?.as_secs_f64(), "s");
    say(format!("{of}: memory at its highest"), operator.peak()? / 1e6, "MB");
    let again = asked.since(bed)?;
    let writes = again.iter().filter(|(right, _)| !is_read(right)).map(|(_, count)| *count).sum::<usize>();
    say(format!("{of}: writes"), writes as f64, "");
    let gets = again.iter().filter(|(right, _)| right.starts_with("get ")).map(|(_, count)| *count);
    say(format!("{of}: single objects read"), gets.sum::<usize>() as f64, "");
    Ok(())
}

/// What the operator has asked for, by the audit log.
#[derive(Debug, Default)]
struct Asked {
    told: BTreeMap<String, usize>,
}

impl Asked {
    /// How often each right was used since the last time.
    fn since(&mut self, bed: &Bed) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut all = BTreeMap::new();
        for request in audit::operators(bed)? {
            // Reading what is not there yet is no failure.
            let refused = !request.succeeded() && !is_read(&request.right());
            let right = if refused { format!("{}, refused", request.right()) } else { request.right() };
            *all.entry(right).or_insert(0) += 1;
        }
        let told = std::mem::replace(&mut self.told, all);
        let news = self.told.iter().filter_map(|(right, count)| {
            let more = count.saturating_sub(told.get(right).copied().unwrap_or(0));
            (more > 0).then(|| (right.clone(), more))
        });
        Ok(news.collect())
    }

    fn sum(&mut self, bed: &Bed) -> anyhow::Result<f64> {
        Ok(self.since(bed)?.values().sum::<usize>() as f64)
    }
}

fn is_read(right: &str) -> bool {
    ["get ", "list ", "watch "].iter().any(|verb| right.starts_with(verb))
}

fn share(cpu: Duration, of: Duration) -> f64 {
    cpu.as_secs_f64() / of.as_secs_f64() * 100.0
}

async fn sleep(time: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(time).await;
    Ok(())
}

/// The rights' file, without what would run there as a Pod.
fn rights(manifest: &str) -> anyhow::Result<String> {
    let parts: Vec<&str> =
        manifest.split("\n---\n").filter(|part| !part.contains("\nkind: Deployment\n")).collect();
    ensure!(parts.len() > 1, "install/operator.yaml has no rights");
    Ok(parts.join("\n---\n"))
}

/// The bed's kubeconfig with another token.
fn with_token(kubeconfig: &str, token: &str) -> anyhow::Result<String> {
    let mut config: serde_json::Value =
        serde_json::from_str(kubeconfig).context("the bed's kubeconfig is not JSON")?;
    let place = config.pointer_mut("/users/0/user/token").context("a kubeconfig without a token")?;
    *place = token.into();
    Ok(config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_left_of_the_manifest() {
        let manifest =
            std::fs::read_to_string(sluice_tests::paths::root().join("install/operator.yaml")).unwrap();
        let rights = rights(&manifest).unwrap();
        assert!(rights.contains("kind: ClusterRoleBinding") && rights.contains("kind: ServiceAccount"));
        assert!(!rights.contains("kind: Deployment"));
    }
}
