//! The request to authorize, borrowed from the bytes of the protocol that carries it.

/// A view of one request. Nothing in it is trusted: names and values are the bytes that the proxy sent.
#[derive(Clone, Default)]
pub(crate) struct Request<'a> {
    /// Empty if the proxy does not say it; the request may then be of any method.
    pub method: &'a [u8],
    /// The `Host` or `:authority`, with the port if it has one.
    pub host: &'a [u8],
    /// The request target: path and query.
    pub path: &'a [u8],
    /// Names and values in the order of the message; a name may be there several times.
    pub headers: Vec<(&'a [u8], &'a [u8])>,
    /// The trace of the call that brought the request, if the call names one.
    pub trace: Option<TraceHeaders<'a>>,
    /// The name of the rule that the proxy's route chose, if it chose one.
    pub rule: Option<&'a [u8]>,
    /// Whether the protocol's answer cannot remove a query parameter.
    pub query_stays: bool,
}

/// The headers of W3C Trace Context: the trace, and what tracing systems added to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TraceHeaders<'a> {
    pub traceparent: &'a [u8],
    pub tracestate: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// The values of a header, its name compared without case (RFC 9110 section 5.1).
    pub(crate) fn header(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| *value)
    }

    /// Whether this is a CORS preflight: OPTIONS with an origin and the method it asks for (Fetch standard,
    /// "CORS-preflight fetch").
    #[must_use]
    pub(crate) fn is_preflight(&self) -> bool {
        let has = |name| self.header(name).any(|value| !value.trim_ascii().is_empty());
        self.method == b"OPTIONS" && has("origin") && has("access-control-request-method")
    }
}
