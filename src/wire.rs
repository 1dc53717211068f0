//! The only file that knows Envoy's messages: a `CheckRequest` becomes a [`Request`], a [`Verdict`]
//! becomes a `CheckResponse`.

use bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::answer::{self, Denied};
use crate::denial::{Challenge, Denial, Wording};
use crate::identity::Headers;
use crate::request::Request;
use crate::token::Withheld;
use crate::verdict::{Grant, Verdict};

pub(crate) use proto::authorization_server::{Authorization, AuthorizationServer};
use proto::check_response::HttpResponse;
pub(crate) use proto::{CheckRequest, CheckResponse};
use proto::{
    DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption, HttpStatus, OkHttpResponse,
};

#[expect(unreachable_pub, unused_qualifications, clippy::allow_attributes, reason = "generated from proto/")]
mod proto {
    tonic::include_proto!("envoy.service.auth.v3");
}

/// The messages' own descriptors, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `google.rpc.Code`, the few that answers use.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const INTERNAL: i32 = 13;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// The view of a check request.
///
/// # Errors
/// [`Denial::RequestMalformed`] if it describes no HTTP request at all.
pub(crate) fn view(check: &CheckRequest) -> Result<Request<'_>, Denial> {
    let attributes = check.attributes.as_ref().ok_or(Denial::RequestMalformed)?;
    let request = attributes.request.as_ref().ok_or(Denial::RequestMalformed)?;
    let http = request.http.as_ref().ok_or(Denial::RequestMalformed)?;
    // Envoy fills one of the two, by `encode_raw_headers`. If both came, both would be looked at.
    let listed = http.headers.iter().map(|entry| (&entry.key[..], &entry.value[..]));
    let raw = http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
        let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
        (&header.key[..], &value[..])
    });
    let mut picked = attributes.context_extensions.iter().filter(|entry| entry.key == "rule");
    let rule = picked.next().map(|entry| &entry.value[..]);
    if picked.next().is_some() {
        return Err(Denial::RuleUnknown);
    }
    Ok(Request {
        method: &http.method,
        host: &http.host,
        path: &http.path,
        headers: listed.chain(raw).collect(),
        trace: None,
        rule,
    })
}

/// The answer to a check.
pub(crate) fn answer(verdict: &Verdict, wording: &Wording) -> CheckResponse {
    match verdict {
        Verdict::Allow(grant) => granted(grant),
        Verdict::Deny(denial) => denied(*denial, wording),
    }
}

fn granted(grant: &Grant) -> CheckResponse {
    let told = grant.metadata().iter().map(|(claim, value)| (claim.clone(), protobuf(value)));
    let shadow = grant.shadow().map(|denial| ("shadow".to_owned(), protobuf(&denial.code().into())));
    let fields = told.chain(shadow).collect();
    let Headers { set, remove } = grant.headers();
    let Withheld { headers: tokens, cookie, query } = grant.withheld();
    let mut headers: Vec<_> = set.iter().map(|(name, value)| header(name.clone(), value.clone())).collect();
    headers.extend(cookie.as_ref().map(|rest| bytes_header("cookie", rest)));
    CheckResponse {
        status: Some(proto::Status { code: code::OK }),
        dynamic_metadata: Some(Struct { fields }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers,
            headers_to_remove: remove.iter().chain(tokens).cloned().collect(),
            query_parameters_to_remove: query.clone(),
        })),
    }
}

fn denied(denial: Denial, wording: &Wording) -> CheckResponse {
    let code = match denial.challenge() {
        Challenge::Credentials | Challenge::InvalidToken => code::UNAUTHENTICATED,
        Challenge::Scope | Challenge::Forbidden => code::PERMISSION_DENIED,
        Challenge::RetryLater => code::UNAVAILABLE,
        Challenge::Malformed => code::INVALID_ARGUMENT,
        Challenge::Misconfigured => code::INTERNAL,
    };
    let Denied { status, headers, body } = answer::denied(denial, wording);
    CheckResponse {
        status: Some(proto::Status { code }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(status) }),
            headers: headers.into_iter().map(|(name, value)| header(name, value)).collect(),
            body,
        })),
    }
}

/// A claim's value as Envoy's metadata holds it.
fn protobuf(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        // Struct has doubles only.
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(protobuf).collect() }),
        Json::Object(members) => {
            let fields = members.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}

/// A header whose value came from the client as bytes.
fn bytes_header(name: &'static str, value: &[u8]) -> HeaderValueOption {
    match str::from_utf8(value) {
        Ok(text) => header(name, text.to_owned()),
        // `value` must be UTF-8 on the wire; `raw_value` is what it came in.
        Err(_) => HeaderValueOption {
            header: Some(HeaderValue {
                key: name.into(),
                value: Bytes::new(),
                raw_value: Bytes::copy_from_slice(value),
            }),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        },
    }
}

/// A header to set, overwriting: the API's default action is to append, under which a client's forged value
/// would stand beside ours.
fn header(name: impl Into<Bytes>, value: impl Into<Bytes>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.into(), raw_value: Bytes::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
