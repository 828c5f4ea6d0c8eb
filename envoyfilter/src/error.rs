//! What can be wrong with settings or a module.

/// Names the setting, what it says, and what would work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a name as Kubernetes takes it.
    #[error(
        "{field}: {value:?} is not a name: lower case letters, digits and '-', at most 63, beginning and ending with a letter or digit{dots}"
    )]
    Name {
        /// The setting.
        field: &'static str,
        /// What it says.
        value: String,
        /// Whether several such names may be joined by dots.
        dots: &'static str,
    },
    /// Not a label.
    #[error("{field}: {value:?} is not a label; write it like istio=ingressgateway")]
    Label {
        /// The setting.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// A selector without labels would be every gateway and sidecar of the namespace.
    #[error(
        "the workload selector is empty: name the labels of the gateway's Pods, for example istio=ingressgateway"
    )]
    NoSelector,
    /// The filter would not do anything.
    #[error("scaler replicas: {0} is not possible; 1 to {max}, 2 unless there is a reason", max = sluice_core::gate::MAX_LINKS)]
    Replicas(usize),
    /// istioctl analyze warns of it, since the order of equal priorities is that of creation.
    #[error("priority: 0 is what Istio takes for \"not set\"; choose another number")]
    Priority,
    /// Not a duration.
    #[error("{field}: {value:?} is not a duration; write it like \"250ms\", \"10s\" or \"1h30m\"")]
    Duration {
        /// The setting.
        field: &'static str,
        /// What it says.
        value: String,
    },
    /// More than an object holds.
    #[error(
        "isolation: {0} virtual hosts are more than one EnvoyFilter can hold ({max}); use wildcard hosts, or no isolation",
        max = crate::ISOLATION_LIMIT
    )]
    TooManyDomains(usize),
    /// Not a module.
    #[error("this is not a WebAssembly module; take the one that ./wasm-build.sh makes")]
    Module,
    /// The crate's own mistake.
    #[error("the template is broken: {0}")]
    Template(String),
    /// More than `kubectl apply` can carry.
    #[error(
        "the manifest needs an annotation of {0} bytes for plain `kubectl apply`, and the API server takes {max}; apply it with --server-side, or take a smaller module",
        max = crate::ANNOTATION_LIMIT
    )]
    TooLarge(usize),
}
