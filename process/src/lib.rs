//! What the scaler's process and the operator's have in common: values as they are typed, logs, signals, and the
//! exit code.

mod entry;
pub mod log;
mod signals;
mod typed;

pub use entry::main;
pub use signals::until_told;
pub use typed::{BadValue, Typed, text, typed};
