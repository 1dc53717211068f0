//! Traces: each check is a span of the trace that Envoy's request belongs to, exported by OTLP. Off unless the
//! environment names an endpoint, and then it costs nothing.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Span as _, SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::check::outcome::Decision;
use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;
use crate::domain::request::Request;

/// How long the last spans may take to be sent at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Where spans go, if anywhere.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<SdkTracer>);

/// Sends spans in batches on a thread of its own, from a queue that is bounded.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Begins to export as the `OTEL_*` variables say. Blocks: some exporters make a runtime of their own.
    ///
    /// # Errors
    /// When they say something impossible.
    pub fn start(named: bool) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder().build()?;
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name("passage-authz") };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        Ok(Self(provider.build()))
    }

    /// Where to record spans.
    #[must_use]
    pub fn spans(&self) -> Spans {
        Spans(Some(self.0.tracer("passage-authz")))
    }

    /// Sends what is left. Blocks, for a bounded time.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

impl Spans {
    /// Whether anything is recorded.
    #[must_use]
    pub const fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records a check that began at `time` and took so long.
    pub(crate) fn record(
        &self,
        decision: &Decision<'_>,
        request: Option<&Request<'_>>,
        time: UnixTime,
        took: Duration,
    ) {
        let Some(tracer) = &self.0 else { return };
        let parent = request.and_then(parent).unwrap_or(SpanContext::NONE);
        let begun = SystemTime::UNIX_EPOCH + time.since(UnixTime::from_secs(0));
        let mut attributes = vec![KeyValue::new("passage_authz.outcome", decision.outcome.label())];
        let code = decision.outcome.code();
        if !code.is_empty() {
            attributes.push(KeyValue::new("passage_authz.code", code));
        }
        if let Some(issuer) = decision.issuer.map(IssuerName::as_str) {
            attributes.push(KeyValue::new("passage_authz.issuer", issuer.to_owned()));
        }
        if !decision.rule.is_empty() {
            attributes.push(KeyValue::new("passage_authz.rule", decision.rule.to_owned()));
        }
        let span = tracer
            .span_builder("passage-authz check")
            .with_kind(SpanKind::Server)
            .with_start_time(begun)
            .with_attributes(attributes);
        let context = Context::new().with_remote_span_context(parent);
        span.start_with_context(tracer, &context).end_with_timestamp(begun + took);
    }
}

/// The trace that the request belongs to: the one of Envoy's own call if it sends that, else the request's.
fn parent(request: &Request<'_>) -> Option<SpanContext> {
    let mut values = request.header("traceparent");
    let header = values.next().filter(|_| values.next().is_none());
    request.trace.or(header).and_then(traceparent)
}

/// W3C Trace Context section 3.2.2: `00-<trace id>-<parent id>-<flags>` in lower-case hex; later versions may
/// append to it.
fn traceparent(value: &[u8]) -> Option<SpanContext> {
    let text = str::from_utf8(value).ok()?;
    let mut fields = text.split('-');
    let mut field = |digits: usize| {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        fields.next().filter(|field| field.len() == digits && field.bytes().all(hex))
    };
    let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_parents() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = |text: &str| traceparent(text.as_bytes());
        let context = read(good).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
        assert!(!read(&good.replace("-01", "-00")).unwrap().is_sampled());
        assert!(read(&good.replace("00-0a", "01-0a").replace("-01", "-01-more")).is_some());
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good.replace("00-0a", "ff-0a"),
            &format!("{good}-"),
            &format!("{good}-more"),
            &format!(" {good}"),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &good.replace("b7ad6b7169203331", &"0".repeat(16)),
            &good.replace("b7ad", "b7a"),
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
        assert!(traceparent(b"\xff").is_none());
    }

    #[test]
    fn envoys_own_call_comes_before_the_request() {
        let [own, of_request] = [b'a', b'b']
            .map(|byte| format!("00-{0}-{1}-01", (byte as char).to_string().repeat(32), "1".repeat(16)));
        let headers = vec![(&b"traceparent"[..], of_request.as_bytes())];
        let mut request = Request { headers, trace: Some(own.as_bytes()), ..Request::default() };
        let trace = |request: &Request<'_>| parent(request).unwrap().trace_id().to_string();
        assert_eq!(trace(&request), "a".repeat(32));
        request.trace = None;
        assert_eq!(trace(&request), "b".repeat(32));
        request.headers.push((b"traceparent", own.as_bytes()));
        assert!(parent(&request).is_none(), "two say nothing");
    }
}
