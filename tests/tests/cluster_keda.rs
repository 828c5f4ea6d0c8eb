//! Sluice with the real KEDA: requests through the real Envoy scale a real Deployment, whose Pods are processes.

#[path = "cluster_keda/evidence.rs"]
mod evidence;
#[path = "cluster_keda/faults.rs"]
mod faults;
#[path = "cluster_keda/load.rs"]
mod load;
#[path = "cluster_keda/many.rs"]
mod many;
#[path = "cluster_keda/scale.rs"]
mod scale;
#[path = "cluster_keda/seldom.rs"]
mod seldom;
#[path = "cluster_keda/tls.rs"]
mod tls;
#[path = "cluster_keda/wake.rs"]
mod wake;
