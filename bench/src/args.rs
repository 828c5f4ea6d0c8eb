//! The command line.

use crate::{parts::Part, plan::Plan};
use anyhow::{Context as _, bail};
use clap::Parser;
use std::{net::SocketAddr, path::PathBuf, str::FromStr};

/// Measures Sluice beside a plain Envoy and an empty Wasm filter, in one run, and says which goals are met.
#[derive(Debug, Parser)]
#[command(name = "bench/run.sh", bin_name = "bench/run.sh")]
pub(crate) struct Args {
    /// Fewer and shorter rounds: under two minutes.
    #[arg(long, conflicts_with = "smoke")]
    quick: bool,
    /// Only whether every part still produces its figures; they mean nothing.
    #[arg(long)]
    smoke: bool,
    /// Write everything there, single rounds included.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Another way to the same app, measured warm and for latency beside the others. Can be given several times.
    ///
    /// "#pid=N,N" after the URL names its processes on this machine, whose CPU time is then measured too.
    #[arg(long = "path", value_name = "NAME=URL[#pid=N,N]")]
    pub(crate) paths: Vec<OtherPath>,
    /// The app, as address and port: one that is there already and that the other ways lead to. It has to answer
    /// GET / with 200 over HTTP/1.1. Without this an app of the bench's own is started.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) upstream: Option<SocketAddr>,
    /// Only these parts.
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
}

/// A way to the app that is not of the bench's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherPath {
    /// How it is called in the table.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// What its requests have as `Host`.
    pub(crate) host: String,
    /// What its requests ask for.
    pub(crate) path: String,
    /// Its processes, if they are known.
    pub(crate) pids: Vec<u32>,
}

// === impl Args ===

impl Args {
    pub(crate) fn plan(&self) -> Plan {
        match (self.quick, self.smoke) {
            (_, true) => Plan::SMOKE,
            (true, _) => Plan::QUICK,
            _ => Plan::FULL,
        }
    }

    /// Whether parts were named.
    pub(crate) fn names_parts(&self) -> bool {
        !self.only.is_empty()
    }

    pub(crate) fn wants(&self, part: Part) -> bool {
        (self.only.is_empty() && !part.is_extra()) || self.only.contains(&part)
    }
}

// === impl OtherPath ===

impl FromStr for OtherPath {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        use std::net::ToSocketAddrs as _;
        let (name, rest) = text.split_once('=').context("write NAME=URL")?;
        if name.is_empty() {
            bail!("the name is missing: write NAME=URL");
        }
        let (url, pids) = rest.split_once("#pid=").unwrap_or((rest, ""));
        let rest = url.strip_prefix("http://").with_context(|| {
            format!("{url:?} is not an http:// URL (the bench speaks plain HTTP/1.1 only)")
        })?;
        let (host, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { host.to_owned() } else { format!("{host}:80") };
        let address = with_port
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .with_context(|| format!("{host:?} is not a host that this machine can resolve"))?;
        let pids = pids
            .split(',')
            .filter(|pid| !pid.is_empty())
            .map(|pid| pid.parse().with_context(|| format!("#pid={pids}: {pid:?} is not a process id")))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { name: name.to_owned(), address, host: host.to_owned(), path: path.to_owned(), pids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read() {
        let path: OtherPath = "interceptor=http://127.0.0.1:8080/a?b=c#pid=12,13".parse().unwrap();
        assert_eq!(
            path,
            OtherPath {
                name: "interceptor".to_owned(),
                address: SocketAddr::from(([127, 0, 0, 1], 8080)),
                host: "127.0.0.1:8080".to_owned(),
                path: "/a?b=c".to_owned(),
                pids: vec![12, 13],
            }
        );
        let bare: OtherPath = "x=http://127.0.0.1".parse().unwrap();
        assert_eq!((bare.address.port(), bare.path.as_str(), bare.pids), (80, "/", vec![]));
    }

    #[test]
    fn what_is_wrong_with_a_path_is_named() {
        let error = |text: &str| format!("{:#}", text.parse::<OtherPath>().unwrap_err());
        assert!(error("http://127.0.0.1").contains("NAME=URL"));
        assert!(error("=http://127.0.0.1").contains("the name is missing"));
        assert!(error("a=https://127.0.0.1").contains("not an http:// URL"));
        assert!(error("a=http://127.0.0.1:port/").contains("127.0.0.1:port"));
        assert!(error("a=http://127.0.0.1#pid=x").contains("not a process id"));
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
