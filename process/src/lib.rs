//! What the scaler's process and the operator's have in common: values as they are typed, logs, signals, the exit
//! code, and what was set for the add-on and is not read.

mod add_on;
mod entry;
pub mod log;
mod signals;
mod typed;

pub use entry::main;
pub use signals::until_told;
pub use typed::{BadValue, Typed, text, typed};
