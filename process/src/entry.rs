//! From what is typed to the exit code.

use crate::log::{self, Log};
use clap::Parser;
use std::{fmt::Display, process::ExitCode};

/// For a configuration that cannot work: `EX_USAGE` of sysexits.h.
const BAD_CONFIG: u8 = 64;

/// A program's `main`: what is typed is read and made a configuration of, logs begin as it says, and it is run.
pub fn main<A: Parser, C, E: Display, F: Display>(
    resolve: impl FnOnce(A) -> Result<C, E>,
    log: impl FnOnce(&C) -> &Log,
    run: impl FnOnce(C) -> Result<(), F>,
) -> ExitCode {
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(BAD_CONFIG) } else { ExitCode::SUCCESS };
        }
    };
    let config = match resolve(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{}: {error}", A::command().get_name());
            return ExitCode::from(BAD_CONFIG);
        }
    };
    log::start(log(&config));
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot run");
            ExitCode::FAILURE
        }
    }
}
