//! The request log.

use anyhow::Context as _;
use hyper::Request;
use sluice_tests::{app::AppRequest, clock};
use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// A line of JSON for each request, in the order in which their heads arrived.
#[derive(Debug)]
pub(crate) struct RequestLog {
    file: Option<File>,
    // Guards number and write together: the order of the lines is the order of the numbers.
    next: Mutex<u64>,
}

impl RequestLog {
    pub(crate) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let file = path
            .map(|path| File::create(path).with_context(|| format!("cannot write {}", path.display())))
            .transpose()?;
        Ok(Self { file, next: Mutex::new(0) })
    }

    pub(crate) fn write<B>(&self, request: &Request<B>, connection: u64) {
        let Some(mut file) = self.file.as_ref() else { return };
        let id = request.headers().get("x-test-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let line = AppRequest {
            at_us: clock::now_us(),
            sequence: *next,
            connection,
            version: format!("{:?}", request.version()),
            method: request.method().to_string(),
            path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            id: id.to_owned(),
        };
        *next += 1;
        // One write per line, so that a reader sees whole lines; what cannot be written is said once on stderr by
        // the error itself, and the tests that need it fail for want of it.
        let written = serde_json::to_string(&line)
            .map_err(Into::into)
            .and_then(|json| file.write_all(format!("{json}\n").as_bytes()));
        if let Err(error) = written {
            eprintln!("request log: {error}");
        }
    }
}
