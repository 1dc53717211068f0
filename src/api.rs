//! The answers of each port: gRPC, HTTP and admin.

pub(crate) mod admin;
pub(crate) mod events;
pub(crate) mod grpc;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod metrics;
mod metrics_format;
mod process;
pub(crate) mod proxy_secret;
mod unary;
