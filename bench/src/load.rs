//! Load, by wrk: a closed loop over a number of connections.

use crate::{
    stage::Way,
    system::{self, Cores},
};
use anyhow::{Context as _, bail, ensure};
use std::{process::Command, time::Duration};

/// How many connections the load has.
pub(crate) const CONNECTIONS: u32 = 32;

/// What a turn of load gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Requests per second.
    pub(crate) rate: f64,
    /// CPU time of the gateway per request, in µs. None where its processes are not known.
    pub(crate) cpu_us: Option<f64>,
    /// CPU time of what works beside it, per request, in µs. None where there is nothing.
    pub(crate) helper_us: Option<f64>,
}

/// Requests for a while, as many as the way takes.
///
/// # Errors
/// If wrk fails, or a request was answered with anything but success.
pub(crate) async fn turn(way: &Way, cores: Cores, length: Duration) -> anyhow::Result<Turn> {
    let before = (system::cpu_of_all(&way.pids)?, system::cpu_of_all(&way.helpers)?);
    let mut command = Command::new("wrk");
    command
        .args(["--threads", "1", "--connections", &CONNECTIONS.to_string()])
        .args(["--duration", &format!("{}s", length.as_secs())])
        .args(["--header", &format!("Host: {}", way.host)])
        .arg(format!("http://{}{}", way.address, way.path));
    let output = tokio::task::spawn_blocking(move || cores.others(|| command.output()))
        .await?
        .context("cannot run wrk")?;
    let after = (system::cpu_of_all(&way.pids)?, system::cpu_of_all(&way.helpers)?);
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    let load = Load::parse(&text).with_context(|| format!("load on {}", way.name))?;
    let per_request = |pids: &[u32], time: Duration| {
        (!pids.is_empty()).then(|| time.as_secs_f64() * 1e6 / load.requests as f64)
    };
    Ok(Turn {
        rate: load.rate,
        cpu_us: per_request(&way.pids, after.0.saturating_sub(before.0)),
        helper_us: per_request(&way.helpers, after.1.saturating_sub(before.1)),
    })
}

#[derive(Debug, PartialEq)]
struct Load {
    requests: u64,
    rate: f64,
}

// === impl Load ===

impl Load {
    fn parse(text: &str) -> anyhow::Result<Self> {
        // One wrong answer, and it is not the throughput of right ones.
        if let Some(wrong) =
            text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"))
        {
            bail!("{}", wrong.trim());
        }
        let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
        let rate =
            text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
        match (requests, rate) {
            (Some(requests), Some(rate)) if requests > 0 => Ok(Self { requests, rate }),
            _ => bail!("wrk counted no requests: {text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 1s test @ http://127.0.0.1:1/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   759.66us  150.77us   6.43ms   94.87%
    Req/Sec    42.28k     1.20k   44.01k    72.73%
  46332 requests in 1.10s, 5.66MB read
Requests/sec:  42127.92
Transfer/sec:      5.14MB
";

    #[test]
    fn the_output_of_wrk_is_read() {
        assert_eq!(Load::parse(OUTPUT).unwrap(), Load { requests: 46_332, rate: 42_127.92 });
    }

    #[test]
    fn a_wrong_answer_is_no_throughput() {
        let wrong = OUTPUT.replace("Requests/sec", "  Non-2xx or 3xx responses: 7\nRequests/sec");
        assert!(Load::parse(&wrong).unwrap_err().to_string().contains("responses: 7"));
        assert!(Load::parse("Running 1s test").is_err());
    }
}
