//! What goes over the wire: the [`link`] between a gateway worker and a scaler, what [`keda`] asks a scaler, and
//! what a plain Envoy asks it (`envoy`, behind the features: the filter has no use for it).
//!
//! The code under `src/generated` is made from `proto/` by `tests/generated.rs`, which also says how to make it
//! anew. Without features there are messages alone, so that the Wasm filter pulls in no gRPC stack; `client` and
//! `server` add the services' sides. Neither brings a transport of its own.

/// `sluice.link.v1`: one stream from every worker's VM to every scaler replica.
#[allow(clippy::all, missing_docs, rust_2018_idioms, unreachable_pub, rustdoc::all)]
pub mod link {
    include!("generated/sluice.link.v1.rs");

    /// The version of the protocol that these messages belong to: [`Hello::protocol`], [`Welcome::protocol`].
    pub const PROTOCOL: u32 = 1;

    /// How long one [`Table`] may be, in bytes, encoded. Bounds what a worker's VM has to hold at once.
    pub const MAX_TABLE_BYTES: usize = 256 * 1024;
}

/// `externalscaler`: KEDA's protocol towards external scalers.
#[allow(clippy::all, missing_docs, rust_2018_idioms, unreachable_pub, rustdoc::all)]
pub mod keda {
    include!("generated/externalscaler.rs");
}

/// `envoy`: as much of Envoy's xDS protocol as endpoints need, with Envoy's own names and numbers.
#[cfg(any(feature = "client", feature = "server"))]
#[allow(clippy::all, missing_docs, rust_2018_idioms, unreachable_pub, rustdoc::all)]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                include!("generated/envoy.config.core.v3.rs");
            }
        }
        pub mod endpoint {
            pub mod v3 {
                include!("generated/envoy.config.endpoint.v3.rs");
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                include!("generated/envoy.service.discovery.v3.rs");
            }
        }
        pub mod endpoint {
            pub mod v3 {
                include!("generated/envoy.service.endpoint.v3.rs");
            }
        }
    }
}

/// `google`: what Envoy's protocol takes from there.
#[cfg(any(feature = "client", feature = "server"))]
#[allow(clippy::all, missing_docs, rust_2018_idioms, unreachable_pub, rustdoc::all)]
pub mod google {
    pub mod protobuf {
        include!("generated/google.protobuf.rs");
    }
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

/// All protocols' descriptors, a serialized `google.protobuf.FileDescriptorSet`: for gRPC reflection.
#[cfg(feature = "server")]
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");
