//! What can come in the way of a reconciliation.

use kube::core::Status;

/// Why an object is not reconciled.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Another replica leads now.
    #[error("this replica does not lead any more")]
    Deposed,
    /// Somebody has written what was to be written.
    #[error("written meanwhile")]
    Outdated,
    /// The namespace is being deleted, and takes nothing new.
    #[error("the namespace is being deleted")]
    Leaving,
    /// The API server takes no such write: trying again helps only when somebody changes something.
    #[error("{what}: {why}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The API server's words.
        why: String,
    },
    /// A call that failed.
    #[error("{what}: {error}")]
    Call {
        /// What was tried.
        what: &'static str,
        /// How it failed.
        error: kube::Error,
    },
}

// === impl Failure ===

impl Failure {
    /// What a failed call means.
    pub(super) fn of(what: &'static str, error: kube::Error) -> Self {
        match error {
            // Gone, or another version than it was.
            kube::Error::Api(status) if status.code == 409 || status.code == 404 => Self::Outdated,
            kube::Error::Api(status) if is_leaving(&status) => Self::Leaving,
            kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                Self::Refused { what, why: status.message }
            }
            error => Self::Call { what, error },
        }
    }
}

/// What a failed creation means: neither the object nor another version of it can be missing, but its namespace or its
/// kind.
pub(super) fn of_creation(what: &'static str, error: kube::Error) -> Failure {
    let of_namespace =
        |status: &Status| status.details.as_ref().is_some_and(|details| details.kind == "namespaces");
    match error {
        kube::Error::Api(status) if status.code == 404 && !of_namespace(&status) => {
            let why = format!("{}; is its CustomResourceDefinition gone?", status.message);
            Failure::Refused { what, why }
        }
        error => Failure::of(what, error),
    }
}

fn is_leaving(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failure(status: serde_json::Value) -> Failure {
        Failure::of("testing", kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())))
    }

    #[test]
    fn a_kind_that_is_missing_is_no_race() {
        let creation = |status: serde_json::Value| {
            of_creation("testing", kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())))
        };
        let kind = json!({"code": 404, "message": "404 page not found", "reason": "NotFound"});
        assert!(matches!(creation(kind), Failure::Refused { .. }));
        let namespace = json!({
            "code": 404, "message": "namespaces \"a\" not found", "reason": "NotFound",
            "details": {"name": "a", "kind": "namespaces"},
        });
        assert!(matches!(creation(namespace), Failure::Outdated));
        assert!(matches!(creation(json!({"code": 409, "message": "m", "reason": "R"})), Failure::Outdated));
    }

    #[test]
    fn what_the_api_server_says_is_told_apart() {
        let status = |code: u16| failure(json!({"code": code, "message": "words", "reason": "R"}));
        assert!(matches!(status(409), Failure::Outdated));
        assert!(matches!(status(404), Failure::Outdated));
        assert!(matches!(status(429), Failure::Call { .. }));
        assert!(matches!(status(500), Failure::Call { .. }));
        assert_eq!(status(422).to_string(), "testing: words");
        assert!(matches!(status(403), Failure::Refused { .. }));
        let leaving = failure(json!({
            "code": 403, "message": "m", "reason": "Forbidden",
            "details": {"causes": [{"reason": "NamespaceTerminating", "message": "m", "field": "metadata.namespace"}]},
        }));
        assert!(matches!(leaving, Failure::Leaving));
    }
}
