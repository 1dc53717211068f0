//! The port of `revocation.listen`: signed events from their issuers (OpenID Connect Back-Channel Logout 1.0 section 2.8; RFC 8935), and
//! from the other replicas.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LANGUAGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use serde_json::json;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::domain::event::EventForm;
use crate::revocation::inbox::{Inbox, NotTaken, Taken};
use crate::revocation::peers::{
    DIGESTS_PATH, EVENTS_PATH, MAX_BYTES, MISSING_PATH, PeerAddresses, STARTING, overall,
};
use crate::revocation::signed::{EventId, MAX_EVENT_BYTES, SignedEvent};
use crate::revocation::source::Source;
use crate::server::listen::Peer;

/// Where an OpenID provider sends logout tokens: the client's `backchannel_logout_uri`.
const LOGOUT_PATH: &str = "/backchannel-logout";

/// Where a transmitter of Security Event Tokens pushes them.
const PUSH_PATH: &str = "/events";

/// The longest body of an issuer's request: an event, and what a form adds.
const MAX_BODY_BYTES: usize = MAX_EVENT_BYTES + 4 * 1024;

/// The longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read of a body behind its limit.
const MAX_DROPPED_BYTES: usize = 4 << 20;

/// What a sender is told to wait for that may succeed later.
const RETRY_SECONDS: &str = "5";

const FORM: &str = "application/x-www-form-urlencoded";
const SET: &str = "application/secevent+jwt";

/// Answers the requests of one process.
pub(crate) struct Events {
    inbox: Arc<Inbox>,
    /// `None` without other replicas.
    peers: Option<Arc<PeerAddresses>>,
}

type Answer = Response<Full<Bytes>>;

impl Events {
    pub(crate) const fn new(inbox: Arc<Inbox>, peers: Option<Arc<PeerAddresses>>) -> Self {
        Self { inbox, peers }
    }

    pub(crate) async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let allowed = match (path, &self.peers) {
            (LOGOUT_PATH | PUSH_PATH, _) | (EVENTS_PATH | MISSING_PATH, Some(_)) => Method::POST,
            (DIGESTS_PATH, Some(_)) => Method::GET,
            _ => return with_text(StatusCode::NOT_FOUND, "/backchannel-logout or /events\n"),
        };
        if request.method() != allowed {
            let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_str(allowed.as_str()).expect("a method is a token"));
            return answer;
        }
        match path {
            LOGOUT_PATH => self.logout(request).await,
            PUSH_PATH => self.push(request).await,
            _ => {
                let mut answer = self.replica(request).await;
                if self.inbox.revocations.is_starting() {
                    answer
                        .headers_mut()
                        .insert(HeaderName::from_static(STARTING), HeaderValue::from_static("1"));
                }
                answer
            }
        }
    }

    /// OpenID Connect Back-Channel Logout 1.0 sections 2.5 to 2.8.
    async fn logout(&self, request: Request<Incoming>) -> Answer {
        let refused = |status, description: &str| {
            let error = json!({"error": "invalid_request", "error_description": description});
            uncached(with_json(status, &error.to_string()))
        };
        if !is_of_type(request.headers(), FORM) {
            return refused(StatusCode::BAD_REQUEST, "Content-Type is not application/x-www-form-urlencoded");
        }
        let body = match read(request, MAX_BODY_BYTES).await {
            Ok(body) => body,
            Err(status) => return refused(status, "the body is too long, too slow or cut off"),
        };
        let Some(text) = logout_token(&body) else {
            return refused(StatusCode::BAD_REQUEST, "logout_token is not in the body exactly once");
        };
        let event = SignedEvent { form: EventForm::LogoutToken, text: text.into() };
        match self.inbox.offer(&event, Source::Listen).await {
            Ok(Taken::New | Taken::Known | Taken::Nothing) => uncached(empty(StatusCode::OK)),
            // Section 2.6, step 8.
            Ok(Taken::Again) => refused(StatusCode::BAD_REQUEST, "the logout token was received before"),
            Err(NotTaken::Fault(fault)) => refused(StatusCode::BAD_REQUEST, &fault.to_string()),
            Err(reason) => later(refused(StatusCode::SERVICE_UNAVAILABLE, &reason.to_string())),
        }
    }

    /// RFC 8935 section 2.
    async fn push(&self, request: Request<Incoming>) -> Answer {
        let refused = |status, err: &str, description: &str| {
            let error = json!({"err": err, "description": description});
            let mut answer = with_json(status, &error.to_string());
            answer.headers_mut().insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
            answer
        };
        if !is_of_type(request.headers(), SET) {
            let description = "Content-Type is not application/secevent+jwt";
            return refused(StatusCode::BAD_REQUEST, "invalid_request", description);
        }
        let body = match read(request, MAX_BODY_BYTES).await {
            Ok(body) => body,
            Err(status) => {
                return refused(status, "invalid_request", "the body is too long, too slow or cut off");
            }
        };
        let Ok(text) = str::from_utf8(body.trim_ascii()) else {
            return refused(StatusCode::BAD_REQUEST, "invalid_request", "the body is not ASCII");
        };
        let event = SignedEvent { form: EventForm::SecurityEvent, text: text.into() };
        match self.inbox.offer(&event, Source::Listen).await {
            // Sent again, because the first answer was lost, it has the same answer.
            Ok(Taken::New | Taken::Known | Taken::Again | Taken::Nothing) => empty(StatusCode::ACCEPTED),
            Err(NotTaken::Fault(fault)) => refused(StatusCode::BAD_REQUEST, fault.err(), &fault.to_string()),
            Err(reason) => later(with_text(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n"))),
        }
    }

    /// What the other replicas ask and say.
    async fn replica(&self, request: Request<Incoming>) -> Answer {
        let is_replica = || {
            let address = request.extensions().get::<Peer>().and_then(Peer::ip);
            let peers = self.peers.as_ref();
            address.zip(peers).is_some_and(|(address, peers)| peers.contains(address))
        };
        if !is_replica() {
            return empty(StatusCode::FORBIDDEN);
        }
        match request.uri().path() {
            EVENTS_PATH => match read_text(request).await {
                Ok(lines) => {
                    for event in lines.lines().filter_map(SignedEvent::of_line) {
                        if !self.inbox.knows(event.id()) {
                            // What is refused is counted and logged; another replica may have other keys.
                            let _ = self.inbox.offer(&event, Source::Peers).await;
                            // Others wait, too.
                            yield_now().await;
                        }
                    }
                    empty(StatusCode::OK)
                }
                Err(status) => empty(status),
            },
            DIGESTS_PATH => {
                let digests = self.inbox.digests();
                let query = request.uri().query().unwrap_or_default().as_bytes();
                let parameters: HashMap<_, _> = url::form_urlencoded::parse(query).collect();
                if let Some(number) = parameters.get("number").and_then(|number| number.parse().ok()) {
                    self.inbox.met(number);
                }
                let same = parameters.get("same").and_then(|same| EventId::parse(same));
                if same == Some(overall(&digests)) {
                    return empty(StatusCode::NO_CONTENT);
                }
                let lines: String = digests.iter().map(|digest| format!("{digest:032x}\n")).collect();
                with_text(StatusCode::OK, &lines)
            }
            _ => match read_text(request).await {
                Ok(asked) => {
                    let mut lines = asked.lines();
                    let part = lines.next().and_then(|part| u8::from_str_radix(part, 16).ok());
                    let known: Option<HashSet<_>> = lines.map(EventId::parse).collect();
                    match part.zip(known) {
                        Some((part, known)) => {
                            with_text(StatusCode::OK, &self.inbox.missing(part, &known, MAX_BYTES))
                        }
                        None => empty(StatusCode::BAD_REQUEST),
                    }
                }
                Err(status) => empty(status),
            },
        }
    }
}

/// Without its parameters, in any case (RFC 9110 section 8.3.1).
fn is_of_type(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let only = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    only.and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
}

/// The one parameter of this name.
fn logout_token(body: &[u8]) -> Option<String> {
    let mut values = url::form_urlencoded::parse(body).filter(|(name, _)| name == "logout_token");
    let (_, value) = values.next()?;
    values.next().is_none().then(|| value.into_owned())
}

/// The whole body. A sender reads no answer before it has sent its body, so one that is too long is read for a while, and dropped.
async fn read(request: Request<Incoming>, max_bytes: usize) -> Result<Bytes, StatusCode> {
    let mut body = request.into_body();
    let reading = async {
        let (mut kept, mut length) = (BytesMut::new(), 0_usize);
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data().unwrap_or_default();
            length += data.len();
            if length > max_bytes + MAX_DROPPED_BYTES {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            if length <= max_bytes {
                kept.extend_from_slice(&data);
            }
        }
        if length > max_bytes { Err(StatusCode::PAYLOAD_TOO_LARGE) } else { Ok(kept.freeze()) }
    };
    timeout(BODY_TIMEOUT, reading).await.unwrap_or(Err(StatusCode::REQUEST_TIMEOUT))
}

async fn read_text(request: Request<Incoming>) -> Result<String, StatusCode> {
    let body = read(request, MAX_BYTES).await?;
    String::from_utf8(body.into()).map_err(|_| StatusCode::BAD_REQUEST)
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn with_body(status: StatusCode, content_type: &'static str, body: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn with_text(status: StatusCode, body: &str) -> Answer {
    with_body(status, "text/plain; charset=utf-8", body)
}

fn with_json(status: StatusCode, body: &str) -> Answer {
    with_body(status, "application/json", body)
}

/// OpenID Connect Back-Channel Logout 1.0 section 2.8.
fn uncached(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn later(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    answer
}
