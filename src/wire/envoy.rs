//! The only file that knows Envoy's messages: a `CheckRequest` becomes a [`Request`], a [`Verdict`] a `CheckResponse`.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::domain::denial::{Challenge, Denial, Wording};
use crate::domain::identity::{Identity, MetadataValue};
use crate::domain::json::Json;
use crate::domain::request::Request;
use crate::domain::token::Withheld;
use crate::domain::verdict::{Grant, Verdict};
use crate::wire::denied::{self, Denied};
use crate::wire::frame::prefixed;

use proto::check_response::HttpResponse;
use proto::{
    CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption, HttpStatus,
    OkHttpResponse,
};

mod scan;
mod skim;

pub(crate) use skim::Skimmer;

#[expect(unreachable_pub, reason = "generated from proto/")]
#[cfg_attr(not(test), expect(clippy::allow_attributes, reason = "of the next line"))]
// Not `expect`: rustc holds an expectation of dead code in a module for unmet.
#[cfg_attr(not(test), allow(dead_code, reason = "requests are scanned; only the scan's tests decode them"))]
mod proto {
    tonic::include_proto!("envoy.service.auth.v3");
}

/// `google.rpc.Code`, the few that answers use.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const INTERNAL: i32 = 13;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

pub(crate) const SERVICE: &str = "envoy.service.auth.v3.Authorization";
pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Reads an encoded `CheckRequest`; the view borrows from it.
///
/// # Errors
/// [`Denial::RequestMalformed`] if it has no HTTP request, [`Denial::RuleUnknown`] if it names two rules or misspells the key.
pub(crate) fn view(check: &[u8]) -> Result<Request<'_>, Denial> {
    match scan::scan(check) {
        Ok(scanned) if scanned.has_unclear_rule => Err(Denial::RuleUnknown),
        Ok(scanned) if scanned.is_http => Ok(scanned.request),
        Ok(_) | Err(scan::Malformed) => Err(Denial::RequestMalformed),
    }
}

/// Verdicts as gRPC messages, prefix included. What does not depend on the request is encoded once.
#[derive(Debug)]
pub(crate) struct Answers {
    denials: HashMap<Denial, Bytes>,
    /// The names that every grant removes, as fields of an `OkHttpResponse`.
    aliases: Bytes,
}

impl Answers {
    #[must_use]
    pub(crate) fn new(wording: &Wording, identity: &Identity) -> Self {
        let message = |denial| prefixed(|buffer| denied_response(denial, wording).encode_raw(buffer));
        let aliases =
            OkHttpResponse { headers_to_remove: identity.aliases().to_vec(), ..OkHttpResponse::default() };
        let denials = Denial::ALL.iter().copied().map(|denial| (denial, message(denial))).collect();
        Self { denials, aliases: aliases.encode_to_vec().into() }
    }

    #[must_use]
    pub(crate) fn of(&self, verdict: &Verdict<'_>) -> Bytes {
        match verdict {
            Verdict::Allow(grant) => self.encode_grant(grant),
            Verdict::Deny(denial) => self.denials.get(denial).cloned().unwrap_or_default(),
        }
    }

    fn encode_grant(&self, grant: &Grant<'_>) -> Bytes {
        let identity = grant.identity();
        let claims = identity.metadata().map(|(key, value)| {
            let value = match value {
                MetadataValue::Text(text) => Value { kind: Some(Kind::StringValue(text.to_owned())) },
                MetadataValue::Json(value) => protobuf(&value),
            };
            (key.to_owned(), value)
        });
        let shadow = grant.shadow().map(|denial| ("shadow".to_owned(), protobuf(&denial.code().into())));
        let fields = claims.chain(shadow).collect();
        let Withheld { headers: tokens, cookie, query } = grant.withheld();
        let mut headers: Vec<_> =
            identity.set().map(|(name, value)| header(name.to_owned(), value.to_owned())).collect();
        let removed = identity.removed_beside_aliases().map(str::to_owned);
        let mut headers_to_remove: Vec<_> = removed.chain(tokens.iter().cloned()).collect();
        match cookie.as_deref().map(utf8_cookies) {
            None => {}
            Some(rest) if rest.is_empty() => headers_to_remove.push("cookie".to_owned()),
            Some(rest) => headers.push(header("cookie", rest)),
        }
        let ok = OkHttpResponse { headers, headers_to_remove, query_parameters_to_remove: query.clone() };
        let response = CheckResponse {
            status: Some(proto::Status { code: code::OK }),
            dynamic_metadata: Some(Struct { fields }),
            http_response: None,
        };
        prefixed(|buffer| {
            response.encode_raw(buffer);
            // Then its `ok_response`, field 3, in two parts: fields of one message may stand apart.
            encode_key(3, WireType::LengthDelimited, buffer);
            encode_varint((ok.encoded_len() + self.aliases.len()) as u64, buffer);
            ok.encode_raw(buffer);
            buffer.extend_from_slice(&self.aliases);
        })
    }
}

fn denied_response(denial: Denial, wording: &Wording) -> CheckResponse {
    let code = match denial.challenge() {
        Challenge::Credentials | Challenge::InvalidToken => code::UNAUTHENTICATED,
        Challenge::Scope | Challenge::Forbidden => code::PERMISSION_DENIED,
        Challenge::RetryLater => code::UNAVAILABLE,
        Challenge::Malformed | Challenge::TooLarge => code::INVALID_ARGUMENT,
        Challenge::Misconfigured => code::INTERNAL,
    };
    let Denied { status, headers, body } = denied::render(denial, wording);
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

/// A claim's value for Envoy's dynamic metadata.
fn protobuf(value: &Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        // A protobuf Struct has doubles only: rounded, two IDs would become one.
        Json::Number(value) => {
            value.exact_f64().map_or_else(|| Kind::StringValue(value.to_string()), Kind::NumberValue)
        }
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(protobuf).collect() }),
        Json::Object(members) => {
            let fields = members.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}

/// The cookies that Envoy can be sent: `value` must be UTF-8 on the wire, and Envoy ignores `raw_value` in a response
/// (seen with Envoy 1.40: the header arrives empty).
fn utf8_cookies(cookies: &[u8]) -> String {
    let pairs = cookies.split(|byte| *byte == b';').filter_map(|pair| str::from_utf8(pair).ok());
    pairs.map(str::trim).collect::<Vec<_>>().join("; ")
}

/// A header to set, overwriting: the API's default action is to append, under which a client's forged value
/// would stand beside ours.
fn header(name: impl Into<Bytes>, value: impl Into<Bytes>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.into(), raw_value: Bytes::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
