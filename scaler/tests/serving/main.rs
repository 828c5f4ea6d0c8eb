//! A whole scaler in this process, on ports of its own, spoken to over its protocols.

mod bed;
mod eds;
mod end;
mod http;
mod keda;
mod link;
