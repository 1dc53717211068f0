//! Traces: each check is a span of the trace of Envoy's request, exported by OTLP. Off, and without cost, unless the
//! environment names an endpoint.

use std::time::{Duration, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanKind};
use opentelemetry::trace::{Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::check::outcome::Decision;
use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;
use crate::domain::request::{Request, TraceHeaders};

/// How long the last spans may take to be sent at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// A longer `tracestate` is dropped. 512 is what W3C Trace Context section 3.3.1.5 asks for at least; the library's own
/// bound is 32 members of 512 bytes, which a client could put on each of the 2048 spans that wait to be exported.
const MAX_TRACESTATE_BYTES: usize = 512;

/// Records spans if there is an exporter.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<SdkTracer>);

/// Sends spans in batches on a thread of its own, from a queue that is bounded.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Starts to export as the `OTEL_*` variables say. Blocks: some exporters make a runtime of their own.
    ///
    /// # Errors
    /// If the exporter cannot be built from the variables.
    pub fn start(named: bool) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder().build()?;
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name("passage-authz") };
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build());
        Ok(Self(provider.build()))
    }

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
        let start = SystemTime::UNIX_EPOCH + time.since(UnixTime::from_secs(0));
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
            .with_start_time(start)
            .with_attributes(attributes);
        span.start_with_context(tracer, &parent_context(request)).end_with_timestamp(start + took);
    }
}

/// The parent of a check's span. Without one the span is the root of a trace: [`SpanContext::NONE`] as a remote parent would
/// read as one that was not sampled to the SDK's `parentbased_*` samplers, the default among them.
fn parent_context(request: Option<&Request<'_>>) -> Context {
    let no_parent = Context::new();
    match request.and_then(TraceCarrier::of) {
        Some(carrier) => TraceContextPropagator::new().extract_with_context(&no_parent, &carrier),
        None => no_parent,
    }
}

/// The trace headers of one request, as the propagator asks for them.
struct TraceCarrier<'a> {
    traceparent: &'a str,
    tracestate: String,
}

impl<'a> TraceCarrier<'a> {
    /// The headers of Envoy's own call if it has a `traceparent`, else those of the request. Of two `traceparent`
    /// headers either may be a client's: both are ignored.
    fn of(request: &Request<'a>) -> Option<Self> {
        let (traceparent, tracestate) = match request.trace {
            Some(TraceHeaders { traceparent, tracestate }) => (traceparent, Vec::from_iter(tracestate)),
            None => {
                let mut values = request.header(TRACEPARENT);
                let only = values.next().filter(|_| values.next().is_none())?;
                (only, request.header(TRACESTATE).collect())
            }
        };
        let traceparent = str::from_utf8(traceparent).ok().filter(|text| is_traceparent(text))?;
        // Repeated headers are one list (W3C Trace Context section 3.3, RFC 9110 section 5.3).
        let tracestate = String::from_utf8(tracestate.join(&b','));
        let tracestate = tracestate.ok().filter(|text| text.len() <= MAX_TRACESTATE_BYTES);
        Some(Self { traceparent, tracestate: tracestate.unwrap_or_default() })
    }
}

impl Extractor for TraceCarrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.traceparent),
            TRACESTATE => Some(&self.tracestate),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

/// W3C Trace Context section 3.2.2: `00-<trace id>-<parent id>-<flags>`, fields of fixed width in lower-case hex; later
/// versions may append to it. The propagator alone also takes shorter and signed numbers, spaces around the value and a
/// dash at its end, and would put the span into a trace that other parties do not read from the same header.
fn is_traceparent(text: &str) -> bool {
    let Some((fields, rest)) = text.split_at_checked(55) else { return false };
    let fits = |(at, byte)| match at {
        2 | 35 | 52 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    let ends = rest.is_empty() || (rest.starts_with('-') && !fields.starts_with("00"));
    ends && fields.bytes().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TraceContextExt as _};

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(request: &Request<'_>) -> Option<SpanContext> {
        let parent = parent_context(Some(request)).span().span_context().clone();
        parent.is_valid().then_some(parent)
    }

    #[test]
    fn trace_parents() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        let read =
            |value: &[u8]| parent(&Request { headers: vec![(b"traceparent", value)], ..Request::default() });
        let context = read(good.as_bytes()).unwrap();
        assert_eq!(context.trace_id().to_string(), TRACE);
        assert_eq!(context.span_id().to_string(), SPAN);
        assert!(context.is_sampled() && context.is_remote());
        assert!(!read(good.replace("-01", "-00").as_bytes()).unwrap().is_sampled());
        let later = good.replace("00-0a", "01-0a");
        for accepted in [&later, &format!("{later}-"), &format!("{later}-more"), &good.replace("-01", "-ff")]
        {
            assert!(read(accepted.as_bytes()).is_some(), "{accepted}");
        }
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good.replace("00-0a", "ff-0a"),
            &format!("{good}-"),
            &format!("{good}-more"),
            &format!("{later}more"),
            &format!(" {good}"),
            &format!("{good} "),
            &good.replace(TRACE, &"0".repeat(32)),
            &good.replace(SPAN, &"0".repeat(16)),
            &good.replace("b7ad", "b7a"),
            // Numbers that the propagator alone would take.
            &good.replace(TRACE, "1"),
            &good.replace("-b7", "-+7"),
            &good.replace("00-0a", "+0-0a"),
            &good.replace("00-0a", "0-0a"),
            &good.replace("-01", "-1"),
        ] {
            assert!(read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(read(b"\xff").is_none());
        assert!(read(format!("00-{TRACE}-{}-01", "é".repeat(8)).as_bytes()).is_none());
        let none = parent_context(None);
        assert!(!none.has_active_span(), "the span of a check without a parent is the root of its trace");
    }

    #[test]
    fn envoys_own_call_comes_before_the_request() {
        let [own, of_request] =
            [b'a', b'b'].map(|byte| format!("00-{}-{SPAN}-01", (byte as char).to_string().repeat(32)));
        let call = TraceHeaders { traceparent: own.as_bytes(), tracestate: Some(b"envoy=1") };
        let headers = vec![(&b"traceparent"[..], of_request.as_bytes()), (b"tracestate", b"client=1")];
        let mut request = Request { headers, trace: Some(call), ..Request::default() };
        let read = |request: &Request<'_>| {
            let parent = parent(request).unwrap();
            (parent.trace_id().to_string(), parent.trace_state().header())
        };
        assert_eq!(read(&request), ("a".repeat(32), "envoy=1".to_owned()));
        request.trace = Some(TraceHeaders { tracestate: None, ..call });
        assert_eq!(read(&request), ("a".repeat(32), String::new()), "no mix of the two");
        request.trace = Some(TraceHeaders { traceparent: b"broken", ..call });
        assert!(parent(&request).is_none(), "no fallback");
        request.trace = None;
        assert_eq!(read(&request), ("b".repeat(32), "client=1".to_owned()));
        request.headers.push((b"traceparent", own.as_bytes()));
        assert!(parent(&request).is_none(), "two say nothing");
    }

    #[test]
    fn trace_states() {
        let traceparent = format!("00-{TRACE}-{SPAN}-01");
        let longest = format!("a={},b={}", "1".repeat(250), "2".repeat(255));
        assert_eq!(longest.len(), MAX_TRACESTATE_BYTES - 2);
        let (fits, too_long) = (longest.replace("a=", "aaa="), longest.replace("a=", "aaaa="));
        for (values, want) in [
            (&[][..], ""),
            (&["a=1,b=2"], "a=1,b=2"),
            (&["a=1", "b=2"], "a=1,b=2"),
            (&["", "b=2"], "b=2"),
            (&["a"], ""),
            (&["A=1"], ""),
            (&["a=1", "b"], ""),
            (&[&fits], &fits),
            (&[&too_long], ""),
        ] {
            let mut headers = vec![(&b"traceparent"[..], traceparent.as_bytes())];
            headers.extend(values.iter().map(|value| (&b"TraceState"[..], value.as_bytes())));
            let context = parent(&Request { headers, ..Request::default() });
            assert_eq!(context.unwrap().trace_state().header(), want, "{values:?}");
        }
        let headers = vec![(&b"traceparent"[..], traceparent.as_bytes()), (b"tracestate", b"a=\xff")];
        let context = parent(&Request { headers, ..Request::default() });
        assert_eq!(context.unwrap().trace_state().header(), "", "the trace is kept without its state");
    }
}
