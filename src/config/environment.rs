//! The environment variables that the service reads.

/// The environment variables that make a configuration without a file. `None` is not set; set but empty
/// is a fault, not an absence.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `PASSAGE_APP_ID`
    pub app_id: Option<String>,
    /// `PASSAGE_BASE_URL`
    pub base_url: Option<String>,
    /// `PASSAGE_AUTHZ_ISSUER`
    pub issuer: Option<String>,
    /// `PASSAGE_AUTHZ_AUDIENCE`
    pub audience: Option<String>,
    /// Whether `OTEL_EXPORTER_OTLP_ENDPOINT`, or the same for traces alone, names where spans go.
    pub exports_spans: bool,
    /// Whether `OTEL_SERVICE_NAME` says what they call this service.
    pub has_service_name: bool,
}

impl Environment {
    /// The process's own variables. Bytes that are not UTF-8 are kept as replacement characters, which
    /// no key accepts.
    #[must_use]
    pub fn read() -> Self {
        let read = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        // Empty is unset (OpenTelemetry's specification of its environment variables).
        let has = |name| read(name).is_some_and(|value: String| !value.is_empty());
        Self {
            app_id: read("PASSAGE_APP_ID"),
            base_url: read("PASSAGE_BASE_URL"),
            issuer: read("PASSAGE_AUTHZ_ISSUER"),
            audience: read("PASSAGE_AUTHZ_AUDIENCE"),
            exports_spans: has("OTEL_EXPORTER_OTLP_ENDPOINT") || has("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            has_service_name: has("OTEL_SERVICE_NAME"),
        }
    }

    /// Which of them are set.
    pub fn set(&self) -> impl Iterator<Item = &'static str> {
        [
            ("PASSAGE_APP_ID", self.app_id.is_some()),
            ("PASSAGE_BASE_URL", self.base_url.is_some()),
            ("PASSAGE_AUTHZ_ISSUER", self.issuer.is_some()),
            ("PASSAGE_AUTHZ_AUDIENCE", self.audience.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
    }
}
