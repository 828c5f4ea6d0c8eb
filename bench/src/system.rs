//! What the kernel says of processes: CPU time, memory, and which cores they may use.

use anyhow::Context as _;
use rustix::{
    process::{Resource, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use std::{fs, time::Duration};

/// CPU time that a process's threads have used since they began. Threads that have ended do not count; those of
/// the processes measured here last as long as the process.
///
/// # Errors
/// If there is no such process.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{pid}/task");
    let mut total = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} has ended"))? {
        let path = task?.path();
        // In nanoseconds, where stat only has ticks of 10 ms: an idle process uses less than one.
        match fs::read_to_string(path.join("schedstat")) {
            Ok(text) => {
                let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
                total += Duration::from_nanos(nanos.context("schedstat without a time")?);
            }
            Err(_) => total += from_stat(&fs::read_to_string(path.join("stat"))?)?,
        }
    }
    Ok(total)
}

/// CPU time that a process has used since it began, with that of threads that have ended; in steps of 10 ms.
///
/// # Errors
/// If there is no such process.
pub(crate) fn cpu_with_ended(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    from_stat(&stat.with_context(|| format!("process {pid} has ended"))?)
}

fn from_stat(stat: &str) -> anyhow::Result<Duration> {
    // The second field is the name in parentheses, which may have spaces in it; utime and stime are the 14th and
    // 15th, in ticks (USER_HZ is 100 wherever Linux runs).
    let fields = stat.rsplit_once(')').context("stat without a name")?.1;
    let ticks: Option<u64> =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks.context("stat without times")? * 10))
}

/// CPU time of several processes together.
///
/// # Errors
/// If one of them has ended.
pub(crate) fn cpu_of_all(pids: &[u32]) -> anyhow::Result<Duration> {
    pids.iter().map(|pid| cpu(*pid)).sum()
}

/// How long ago a process began; the kernel tells that in steps of 10 ms.
///
/// # Errors
/// If there is no such process.
pub(crate) fn age(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} has ended"))?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let now: f64 = uptime.split_whitespace().next().context("no uptime")?.parse()?;
    // The 22nd field, in ticks since the machine's start.
    let fields = stat.rsplit_once(')').context("stat without a name")?.1;
    let began: f64 = fields.split_whitespace().nth(19).context("stat without a start")?.parse()?;
    Ok(Duration::from_secs_f64((now - began / 100.0).max(0.0)))
}

/// The memory of a process that is in RAM, in bytes.
///
/// # Errors
/// If there is no such process.
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmRSS:")
}

/// The most memory of a process that was ever in RAM, in bytes.
///
/// # Errors
/// If there is no such process.
pub(crate) fn peak(pid: u32) -> anyhow::Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} has ended"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB"));
    let kib: f64 = kib.with_context(|| format!("status without {field}"))?.trim().parse()?;
    Ok(kib * 1024.0)
}

/// As many open files as this user may have: thousands of connections are open at once. Children inherit it.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is refused shows where connections run out, with the system's own words.
    _ = setrlimit(Resource::Nofile, limit);
}

/// How many files a process may have open.
pub(crate) fn open_files() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Which cores the gateway under test has, and which everybody else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    gateway: Option<CpuSet>,
    others: Option<CpuSet>,
}

// === impl Cores ===

impl Cores {
    /// Cores of their own for a gateway's workers if one is left over for the rest; else nobody is bound. Bound,
    /// the gateway is what limits the throughput, and the scheduler's moods are out of the figures.
    pub(crate) fn for_workers(workers: u32) -> Self {
        match allowed().split_at_checked(workers as usize) {
            Some((gateway, others)) if !others.is_empty() => {
                Self { gateway: Some(set_of(gateway)), others: Some(set_of(others)) }
            }
            _ => Self::free(),
        }
    }

    /// Nobody is bound.
    pub(crate) fn free() -> Self {
        Self { gateway: None, others: None }
    }

    /// All on one core: nobody is ever woken on another one, and a closed loop shows work and nothing else.
    pub(crate) fn one() -> Self {
        let Some(core) = allowed().first().map(|core| set_of(&[*core])) else { return Self::free() };
        Self { gateway: Some(core), others: Some(core) }
    }

    /// Starts a gateway: what `start` makes on this thread has the gateway's cores.
    pub(crate) fn gateway<T>(&self, start: impl FnOnce() -> T) -> T {
        bound(self.gateway.as_ref(), start)
    }

    /// Starts or does anything else.
    pub(crate) fn others<T>(&self, start: impl FnOnce() -> T) -> T {
        bound(self.others.as_ref(), start)
    }
}

/// The cores that this process may use.
fn allowed() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect()
}

fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    set
}

/// A child inherits the cores of the thread that starts it.
fn bound<T>(cores: Option<&CpuSet>, start: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None);
    if let Some(cores) = cores {
        // Refused, everything still works, with more noise.
        _ = sched_setaffinity(None, cores);
    }
    let result = start();
    if let Ok(before) = before {
        _ = sched_setaffinity(None, &before);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_time_and_memory() {
        let pid = std::process::id();
        let before = cpu(pid).unwrap();
        let work: u64 = (0..2_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n));
        assert!(std::hint::black_box(work) < u64::MAX);
        assert!(cpu(pid).unwrap() > before);
        assert!(resident(pid).unwrap() > 100_000.0);
        assert!(age(pid).unwrap() < age(1).unwrap());
    }

    #[test]
    fn stat_is_read_past_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 97 0 0 0 25 17 0 0 20 0";
        assert_eq!(from_stat(stat).unwrap(), Duration::from_millis(420));
    }

    #[test]
    fn being_bound_ends_with_what_was_started() {
        let before = sched_getaffinity(None).unwrap();
        let inside = Cores::for_workers(1).gateway(|| sched_getaffinity(None).unwrap());
        assert_eq!(inside.count(), if before.count() > 1 { 1 } else { before.count() });
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
