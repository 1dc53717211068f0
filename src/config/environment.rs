//! The environment variables that the service reads.

pub(super) const APP_ID: &str = "PASSAGE_APP_ID";
pub(super) const BASE_URL: &str = "PASSAGE_BASE_URL";
pub(super) const ISSUER: &str = "PASSAGE_AUTHZ_ISSUER";
pub(super) const AUDIENCE: &str = "PASSAGE_AUTHZ_AUDIENCE";

/// The variables that make a configuration without a file, and two of OpenTelemetry's. `None` is not set; set
/// but empty is a fault, not an absence.
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
    /// Whether `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a collector of spans.
    pub exports_spans: bool,
    /// Whether `OTEL_SERVICE_NAME` overrides the name that spans carry.
    pub has_service_name: bool,
}

impl Environment {
    /// The process's own variables. Bytes that are not UTF-8 become replacement characters, which no key
    /// accepts.
    #[must_use]
    pub fn read() -> Self {
        let text = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        // Empty is unset (OpenTelemetry's specification of its environment variables).
        let has_content = |name| text(name).is_some_and(|value: String| !value.is_empty());
        Self {
            app_id: text(APP_ID),
            base_url: text(BASE_URL),
            issuer: text(ISSUER),
            audience: text(AUDIENCE),
            exports_spans: has_content("OTEL_EXPORTER_OTLP_ENDPOINT")
                || has_content("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
            has_service_name: has_content("OTEL_SERVICE_NAME"),
        }
    }

    /// The names of the set variables among those that a configuration file replaces.
    pub fn set_variables(&self) -> impl Iterator<Item = &'static str> {
        let Self { app_id, base_url, issuer, audience, exports_spans: _, has_service_name: _ } = self;
        [(APP_ID, app_id), (BASE_URL, base_url), (ISSUER, issuer), (AUDIENCE, audience)]
            .into_iter()
            .filter_map(|(name, value)| value.is_some().then_some(name))
    }
}
