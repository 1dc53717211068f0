//! The call `List` of `grpc.health.v1.Health`, which tonic-health does not have.

use bytes::Bytes;
use prost::Message as _;

use crate::wire::frame::prefixed;

#[expect(unreachable_pub, reason = "generated from proto/")]
#[expect(clippy::allow_attributes, reason = "of the next line")]
// Not `expect`: rustc holds an expectation of dead code in a module for unmet.
#[allow(dead_code, reason = "the other calls use the messages of tonic-health")]
mod proto {
    tonic::include_proto!("grpc.health.v1");
}

pub(crate) const LIST: &str = "/grpc.health.v1.Health/List";

/// Whether a message is a `HealthListRequest`: it has no fields, and unknown ones are stepped over.
pub(crate) fn is_list_request(message: &[u8]) -> bool {
    proto::HealthListRequest::decode(message).is_ok()
}

/// A `HealthListResponse` with its prefix: each service's name and the number of its status.
pub(crate) fn list(statuses: impl Iterator<Item = (&'static str, i32)>) -> Bytes {
    let status = |(service, status): (&str, i32)| (service.to_owned(), proto::HealthCheckResponse { status });
    let response = proto::HealthListResponse { statuses: statuses.map(status).collect() };
    prefixed(|buffer| response.encode_raw(buffer))
}
