//! Values of flags and environment variables, as they are typed.
//!
//! An empty value is as good as none: charts set variables that the user has not filled in. So all flags are read as
//! text first, and each error names the flag and the variable.

#[cfg(test)]
mod tests;

use sluice_core::time::parse_duration;
use std::{str::FromStr, time::Duration};

/// A value that its flag cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} ({env}): {value:?} is not {expected}")]
pub struct BadValue {
    /// The flag.
    pub flag: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// What was given.
    pub value: String,
    /// What would do.
    pub expected: &'static str,
}

/// One value as typed, with what an error about it has to name.
#[derive(Clone, Copy, Debug)]
pub struct Typed<'a> {
    flag: &'static str,
    env: &'static str,
    value: &'a str,
    /// What an empty value stands for.
    default: &'static str,
}

/// The value of a flag, which an environment variable may give as well. `default`: what an empty one stands for.
pub fn typed<'a>(flag: &'static str, env: &'static str, value: &'a str, default: &'static str) -> Typed<'a> {
    Typed { flag, env, value, default }
}

/// A text without the space around it; `None` where there is none.
pub fn text(typed: &str) -> Option<String> {
    Some(typed.trim()).filter(|typed| !typed.is_empty()).map(str::to_owned)
}

// === impl Typed ===

impl Typed<'_> {
    /// The text, or what an empty one stands for.
    pub fn text(&self) -> &str {
        match self.value.trim() {
            "" => self.default,
            value => value,
        }
    }

    /// The value is not what is expected.
    pub fn error(&self, expected: &'static str) -> BadValue {
        BadValue { flag: self.flag, env: self.env, value: self.value.to_owned(), expected }
    }

    /// As its type reads itself.
    ///
    /// # Errors
    /// If it does not: it is not what is `expected`.
    pub fn parse<T: FromStr>(&self, expected: &'static str) -> Result<T, BadValue> {
        self.text().parse().map_err(|_| self.error(expected))
    }

    /// A TCP port; 0 is any free one.
    ///
    /// # Errors
    /// If it is none.
    pub fn port(&self) -> Result<u16, BadValue> {
        self.parse("a port, 0 to 65535")
    }

    /// A time as Go writes it, as the add-on's variables have it.
    ///
    /// # Errors
    /// If it is none.
    pub fn duration(&self) -> Result<Duration, BadValue> {
        parse_duration(self.text()).ok_or_else(|| self.error("a duration like 500ms, 30s or 1m30s"))
    }

    /// As Go reads them (`strconv.ParseBool`), since the add-on does.
    ///
    /// # Errors
    /// If it is none.
    pub fn boolean(&self) -> Result<bool, BadValue> {
        match self.text() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.error("true or false")),
        }
    }
}
