//! The folder where the processes of one test write. It goes when the test passed; when it failed it stays, and
//! the ends of the logs are printed.

use crate::paths;
use anyhow::Context as _;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How many lines of each log a failed test prints.
const TAIL_LINES: usize = 25;

/// `target/test-logs/NAME`, empty at first.
#[derive(Debug)]
pub struct LogDir {
    path: PathBuf,
    keep: bool,
}

// === impl LogDir ===

impl LogDir {
    /// A folder named after the running test (the test runner names its threads so).
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn of_this_test() -> anyhow::Result<Self> {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("unnamed").replace("::", "-");
        // The process id keeps two runs at once apart.
        Self::at(paths::target().join("test-logs").join(format!("{test}-{}", std::process::id())))
    }

    /// A folder at a path of its own.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn at(path: PathBuf) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot clear {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let keep = std::env::var_os("SLUICE_KEEP_LOGS").is_some();
        Ok(Self { path, keep })
    }

    /// Leaves the folder where it is: there is something in it to look at.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A folder in it, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    fn print_tails(&self) {
        let mut logs: Vec<PathBuf> = fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ending| ending == "log"))
            .collect();
        logs.sort();
        for log in logs {
            let text = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let from = lines.len().saturating_sub(TAIL_LINES);
            eprintln!("--- the end of {} ({} lines)", log.display(), lines.len());
            for line in lines.iter().skip(from) {
                eprintln!("{line}");
            }
        }
        eprintln!("--- all logs of this test are in {}", self.path.display());
    }
}

impl Drop for LogDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_tails();
        } else if !self.keep {
            // What cannot be removed is only left over: no reason to fail a test that passed.
            _ = fs::remove_dir_all(&self.path);
        }
    }
}
