//! The scaler's process: what is typed, what comes of it, and the exit code.

use clap::Parser;
use sluice_scaler::{config::Args, log, run};
use std::process::ExitCode;

/// For a configuration that cannot work: `EX_USAGE` of sysexits.h.
const BAD_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(BAD_CONFIG) } else { ExitCode::SUCCESS };
        }
    };
    let config = match args.resolve() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sluice-scaler: {error}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    log::start(&config.log);
    if let Some(said) = &config.direct_pod_routing {
        tracing::info!(%said, "KEDA_HTTP_DIRECT_POD_ROUTING changes nothing: a gateway always routes to pods");
    }
    match run::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot run");
            ExitCode::FAILURE
        }
    }
}
