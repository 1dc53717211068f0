//! A denial as an HTTP response: status, challenge and body, the same over gRPC and HTTP.

use serde_json::json;

use crate::domain::denial::{Challenge, Denial, Wording};

/// Seconds after which a client may try again while keys are unavailable.
const RETRY_AFTER: &str = "5";

/// The response that the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denied {
    pub status: u16,
    /// The challenge of RFC 6750 section 3, `retry-after`, the content type.
    pub headers: Vec<(&'static str, String)>,
    /// `application/problem+json` (RFC 9457): printable ASCII on one line, so it can stand in a header, too.
    pub body: String,
}

#[must_use]
pub(crate) fn render(denial: Denial, wording: &Wording) -> Denied {
    let Wording { realm, reasons } = wording;
    let with_reason = *reasons || denial.challenge() != Challenge::InvalidToken;
    let extra = match denial.challenge() {
        Challenge::Credentials => Some(("www-authenticate", format!("Bearer realm=\"{realm}\""))),
        Challenge::InvalidToken => {
            let mut text = format!("Bearer realm=\"{realm}\", error=\"invalid_token\"");
            if with_reason {
                text.push_str(&format!(", error_description=\"{}\"", denial.detail()));
            }
            Some(("www-authenticate", text))
        }
        Challenge::Scope => {
            Some(("www-authenticate", format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\"")))
        }
        Challenge::RetryLater => Some(("retry-after", RETRY_AFTER.to_owned())),
        Challenge::Forbidden | Challenge::Malformed | Challenge::TooLarge | Challenge::Misconfigured => None,
    };
    let mut headers = vec![("content-type", "application/problem+json".to_owned())];
    headers.extend(extra);
    Denied { status: denial.http_status(), headers, body: problem(denial, with_reason) }
}

/// RFC 9457, with the denial's code as an extension member.
fn problem(denial: Denial, with_reason: bool) -> String {
    let status = denial.http_status();
    let title = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let title = title.unwrap_or_default();
    if with_reason {
        let (code, detail) = (denial.code(), denial.detail());
        json!({"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code})
    } else {
        json!({"type": "about:blank", "title": title, "status": status, "code": "invalid_token"})
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 5.5. No realm stands in a body.
    #[test]
    fn every_body_is_a_legal_header_value() {
        for &denial in Denial::ALL {
            for realm in ["passage-authz", "$host %{x} <!--# -->", "a\r\nb: c\u{e9}"] {
                for reasons in [true, false] {
                    let body = render(denial, &Wording { realm: realm.to_owned(), reasons }).body;
                    assert!(body.starts_with('{') && body.ends_with('}'), "{body}");
                    assert!(body.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{body}");
                    assert!(!body.contains(realm), "{body}");
                    assert!(body.len() < 256, "a proxy's buffer for headers has other uses: {body}");
                }
            }
        }
    }
}
