//! The only file that knows Envoy's messages: a `CheckRequest` becomes a [`Request`], a [`Verdict`]
//! becomes a `CheckResponse`.

use bytes::Bytes;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use serde_json::json;

use crate::denial::{Challenge, Denial, Wording};
use crate::request::Request;
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

/// `google.rpc.Code`, the few that answers use.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// After this many seconds a client may try again when keys cannot be had.
const RETRY_AFTER: &str = "5";

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
    Ok(Request { headers: listed.chain(raw).collect() })
}

/// The answer to a check.
pub(crate) fn answer(verdict: &Verdict, wording: &Wording) -> CheckResponse {
    match verdict {
        Verdict::Allow(grant) => granted(grant),
        Verdict::Deny(denial) => denied(*denial, wording),
    }
}

fn granted(grant: &Grant) -> CheckResponse {
    let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    let fields = grant.metadata().iter().map(|(claim, value)| (claim.clone(), text(value))).collect();
    CheckResponse {
        status: Some(proto::Status { code: code::OK }),
        dynamic_metadata: Some(Struct { fields }),
        http_response: Some(HttpResponse::OkResponse(OkHttpResponse {
            headers: grant.set().iter().map(|(name, value)| header(name.clone(), value.clone())).collect(),
            headers_to_remove: grant.remove().to_vec(),
            query_parameters_to_remove: Vec::new(),
        })),
    }
}

fn denied(denial: Denial, wording: &Wording) -> CheckResponse {
    let Wording { realm, reasons } = wording;
    let challenge = denial.challenge();
    let told = *reasons || challenge != Challenge::InvalidToken;
    let (code, extra) = match challenge {
        Challenge::Credentials => {
            (code::UNAUTHENTICATED, Some(("www-authenticate", format!("Bearer realm=\"{realm}\""))))
        }
        Challenge::InvalidToken => {
            let mut text = format!("Bearer realm=\"{realm}\", error=\"invalid_token\"");
            if told {
                text.push_str(&format!(", error_description=\"{}\"", denial.detail()));
            }
            (code::UNAUTHENTICATED, Some(("www-authenticate", text)))
        }
        Challenge::RetryLater => (code::UNAVAILABLE, Some(("retry-after", RETRY_AFTER.to_owned()))),
        Challenge::None => (code::INVALID_ARGUMENT, None),
    };
    let mut headers = vec![header("content-type", "application/problem+json")];
    headers.extend(extra.map(|(name, value)| header(name, value)));
    CheckResponse {
        status: Some(proto::Status { code }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(denial.http_status()) }),
            headers,
            body: problem(denial, told),
        })),
    }
}

/// RFC 9457, with the denial's code as an extension member.
fn problem(denial: Denial, told: bool) -> String {
    let status = denial.http_status();
    let title = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let title = title.unwrap_or_default();
    if told {
        let (code, detail) = (denial.code(), denial.detail());
        json!({"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code})
    } else {
        json!({"type": "about:blank", "title": title, "status": status, "code": "invalid_token"})
    }
    .to_string()
}

/// A header to set. It must overwrite: Envoy's default action appends, and a client's forged value would
/// stand beside ours.
fn header(name: impl Into<Bytes>, value: impl Into<Bytes>) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.into(), value: value.into(), raw_value: Bytes::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}
