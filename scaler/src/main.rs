//! The scaler's process: what is typed, what comes of it, and the exit code.

use sluice_scaler::{config::Args, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    sluice_process::main(Args::resolve, |config| &config.log, run::run)
}
