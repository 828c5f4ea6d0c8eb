//! From what is typed to the exit code.

use crate::{
    add_on,
    log::{self, Log},
};
use clap::{Arg, Parser};
use std::{env, fmt::Display, process::ExitCode};

/// For a configuration that cannot work: `EX_USAGE` of sysexits.h.
const BAD_CONFIG: u8 = 64;

/// A program's `main`: what is typed is read and made a configuration of, logs begin as it says, what was set for the
/// add-on and is not read is said, and it is run.
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
    let command = A::command();
    let reads = |name: &str| command.get_arguments().filter_map(Arg::get_env).any(|read| read == name);
    if let Some(warning) = add_on::warning(reads, |name| env::var(name).ok()) {
        tracing::warn!("{warning}");
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot run");
            ExitCode::FAILURE
        }
    }
}
