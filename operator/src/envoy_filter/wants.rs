//! Who wants which EnvoyFilters, and what became of them.

use super::{MANAGED_BY, PART};
use crate::FIELD_MANAGER;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// What of the operator wants EnvoyFilters. Each tells all that it wants at once, and those of a part that has not
/// told anything yet are left alone.
///
/// They are applied in this order: what says where the filter works comes before the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Objects' own settings of the clusters behind the gateway.
    Upstream,
    /// Where the filter is enabled.
    Isolation,
    /// The filter itself.
    Filter,
}

/// An EnvoyFilter as it has to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Labels besides the two that every one of ours has.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its spec, whole: what else is in there is taken out.
    pub spec: Map<String, Value>,
}

/// What became of a wanted EnvoyFilter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there as it has to be.
    Applied,
    /// There is one of its name that is somebody else's; in words.
    Foreign(String),
    /// It could not be applied, and is tried again; why.
    Failed(String),
}

/// Where the parts say what they want.
#[derive(Clone, Debug)]
pub struct Wants(Arc<watch::Sender<BTreeMap<Part, Vec<Wanted>>>>);

// === impl Part ===

impl Part {
    /// All of them, in the order of their turns.
    pub const ALL: [Self; 3] = [Self::Upstream, Self::Isolation, Self::Filter];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Isolation => "isolation",
            Self::Filter => "filter",
        }
    }

    /// The part of this label.
    pub fn of(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.as_str() == label)
    }
}

// === impl Wanted ===

impl Wanted {
    /// What a manifest says; nothing if it is none.
    pub fn of_manifest(manifest: &Value) -> Option<Self> {
        let metadata = &manifest["metadata"];
        let texts = |field: &str| -> BTreeMap<String, String> {
            let texts = metadata[field].as_object().into_iter().flatten();
            texts.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        Some(Self {
            name: metadata["name"].as_str()?.to_owned(),
            labels: texts("labels"),
            annotations: texts("annotations"),
            spec: manifest["spec"].as_object()?.clone(),
        })
    }

    /// All labels.
    pub(super) fn labels(&self, part: Part) -> BTreeMap<&str, &str> {
        let own = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        own.chain([(MANAGED_BY, FIELD_MANAGER), (PART, part.as_str())]).collect()
    }

    /// For server-side apply. With a uid it fails where there is another object by then.
    pub(super) fn object(&self, namespace: &str, part: Part, uid: Option<&str>) -> Value {
        let mut metadata = json!({
            "name": self.name,
            "namespace": namespace,
            "labels": self.labels(part),
        });
        if !self.annotations.is_empty() {
            metadata["annotations"] = json!(self.annotations);
        }
        if let Some(uid) = uid {
            metadata["uid"] = json!(uid);
        }
        json!({
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": metadata,
            "spec": self.spec,
        })
    }
}

// === impl Wants ===

impl Wants {
    /// Nothing is wanted yet; who is to bring it about reads it at the other end.
    pub fn new() -> (Self, watch::Receiver<BTreeMap<Part, Vec<Wanted>>>) {
        let (sender, receiver) = watch::channel(BTreeMap::new());
        (Self(Arc::new(sender)), receiver)
    }

    /// This is all that the part wants now. What it wanted before and does not any more is deleted.
    pub fn set(&self, part: Part, wanted: Vec<Wanted>) {
        self.0.send_if_modified(|all| match all.get(&part) {
            Some(before) if *before == wanted => false,
            _ => {
                all.insert(part, wanted);
                true
            }
        });
    }
}
