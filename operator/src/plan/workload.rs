//! What a ScaledObject scales.

use sluice_api::{ScaleTargetRef, scaled_object::ScaleTarget};
use std::fmt;

/// A workload, with KEDA's defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// `apps/v1` where none is named.
    pub api_version: String,
    /// `Deployment` where none is named.
    pub kind: String,
    /// Its name; may be empty.
    pub name: String,
}

// === impl Workload ===

impl Workload {
    fn new(api_version: Option<&str>, kind: Option<&str>, name: &str) -> Self {
        let or = |value: Option<&str>, default: &str| {
            value.filter(|value| !value.is_empty()).unwrap_or(default).to_owned()
        };
        Self { api_version: or(api_version, "apps/v1"), kind: or(kind, "Deployment"), name: name.to_owned() }
    }

    /// What an HTTPScaledObject has scaled.
    pub fn of(reference: &ScaleTargetRef) -> Self {
        let name = reference.name.as_deref().unwrap_or_default();
        Self::new(reference.api_version.as_deref(), reference.kind.as_deref(), name)
    }

    /// What a ScaledObject scales.
    pub fn of_target(target: &ScaleTarget) -> Self {
        Self::new(target.api_version.as_deref(), target.kind.as_deref(), &target.name)
    }

    /// Whether it is the same workload, under whichever version of its API.
    pub fn is(&self, other: &Self) -> bool {
        self.key() == other.key()
    }

    /// What it is, under whichever version of its API: group, kind, name.
    pub fn key(&self) -> [&str; 3] {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        [group, &self.kind, &self.name]
    }

    /// As the add-on's status has it.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.api_version, self.kind, self.name)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
