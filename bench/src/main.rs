//! Sluice beside a plain Envoy and an empty filter: everything in one run, in turns, as ratios.
//!
//! Layout:
//! - [`args`], [`plan`]: what is asked for, and how long each part may take
//! - [`parts`]: one module per part; each starts what it needs and says its lines
//! - [`gateway`], [`scaler`], [`stage`], [`upstream`]: the Envoys under test, side by side in front of one app
//! - [`istio`]: the bed with the real Istio, for the parts that need it
//! - [`load`], [`closed_loop`]: what sends requests
//! - [`system`]: CPU time, memory and cores, as the kernel says them
//! - [`figures`], [`report`], [`machine`]: from samples to lines, table and JSON

mod args;
mod bench;
mod closed_loop;
mod figures;
mod gateway;
mod istio;
mod load;
mod machine;
mod parts;
mod plan;
mod report;
mod scaler;
mod stage;
mod system;
mod upstream;

use anyhow::Context as _;
use args::Args;
use bench::Bench;
use clap::Parser as _;
use report::Report;
use sluice_tests::process;
use std::process::ExitCode;

// Everything is started from this very thread: the kernel ends a child when the thread that started it ends.
#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ended = match process::asked_to_end() {
        Ok(interrupted) => tokio::select! {
            ended = run(args) => ended,
            // What a shell says of a program that Ctrl-C has ended.
            () = interrupted => Ok(ExitCode::from(130)),
        },
        Err(error) => Err(error),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    system::raise_open_files();
    let bench = Bench::new(&args)?;
    bench.try_others().await?;
    if !args.names_parts() {
        let extra: Vec<String> =
            parts::ALL.iter().filter(|part| part.is_extra()).map(ToString::to_string).collect();
        eprintln!("bench: only where they are named (--only): {}", extra.join(", "));
    }
    let mut report = Report::new(bench.plan.name);
    for part in parts::ALL.into_iter().filter(|part| args.wants(*part)) {
        eprintln!("bench: {part}: {}", part.what());
        let lines_before = report.lines();
        let ended = part.run(&bench, &mut report).await;
        match ended {
            Err(error) => report.failed(part, &format!("{error:#}")),
            // A part that says nothing has not measured anything, whatever it thinks.
            Ok(()) if report.lines() == lines_before => report.failed(part, "it produced no figure"),
            Ok(()) => {}
        }
    }
    print!("{report}");
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, json + "\n")
            .with_context(|| format!("--json: cannot write {}", file.display()))?;
    }
    // A goal that is missed is a finding, not a failure: it depends on the machine and on who else uses it.
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
