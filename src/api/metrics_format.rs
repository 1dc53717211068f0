//! The two text formats of `/metrics`, and which of them a scraper asks for.

use http::HeaderMap;
use http::header::ACCEPT;

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which every scraper reads.
    Text,
}

impl Format {
    /// By the `Accept` of a request (RFC 9110 section 12.5.1). OpenMetrics is for those that name it, and do not prefer text.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0, None);
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match name.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim().trim_matches('"')),
                    _ => {}
                }
            }
            match (essence.as_str(), version) {
                ("application/openmetrics-text", None | Some("1.0.0")) => {
                    open_metrics = open_metrics.max(quality);
                }
                ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => text = text.max(quality),
                _ => {}
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Metrics that are written as OpenMetrics, in this format.
    pub(super) fn of_open_metrics(self, metrics: String) -> String {
        match self {
            Self::OpenMetrics => metrics,
            Self::Text => text_of(&metrics),
        }
    }
}

/// The samples are the same. A family's name has no suffix in OpenMetrics, and is that of its samples in the text format, which
/// knows neither the type `info` nor units nor an end.
fn text_of(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // OpenMetrics has a family's help before its type or after it.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some("HELP"), Some(family), Some(words)] => help = Some((family, words)),
            [Some("#"), Some("TYPE"), Some(family), Some(kind)] => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, words)) = help.take().filter(|(of, _)| *of == family) {
                    text.push_str(&format!("# HELP {family}{suffix} {words}\n"));
                }
                text.push_str(&format!("# TYPE {family}{suffix} {kind}\n"));
            }
            [Some("#"), ..] => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn formats_that_are_asked_for() {
        use Format::{OpenMetrics, Text};
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, want) in [
            (&[][..], Text),
            (&[""], Text),
            (&["*/*"], Text),
            (&["text/plain"], Text),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Text),
            (&["application/json"], Text),
            (&[prometheus], OpenMetrics),
            (&["application/openmetrics-text"], OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8"], OpenMetrics),
            (&["application/openmetrics-text;version=0.0.1, text/plain;version=0.0.4;q=0.5"], Text),
            (&["application/openmetrics-text;q=0.2, text/plain;q=0.9"], Text),
            (&["text/plain;q=0.2", "application/openmetrics-text;q=0.9"], OpenMetrics),
            (&["application/openmetrics-text;q=0"], Text),
            (&["application/openmetrics-text;q=x"], Text),
            (&["application/openmetrics-text;q=NaN"], Text),
            (&["application/openmetrics-text;q=0.5, */*"], Text),
            (
                &[
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3",
                ],
                Text,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(Format::asked_for(&headers), want, "{accept:?}");
        }
    }

    #[test]
    fn families_have_the_names_of_their_samples() {
        let open_metrics = "# HELP a A, with \\n in it.\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"# TYPE\"} 1\n# HELP b B.\n\
                            # TYPE b info\nb_info{v=\"1\"} 1\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 0\n# TYPE d unknown\nd 2\n# EOF\n";
        let text = "# HELP a_total A, with \\n in it.\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n# HELP b_info B.\n\
                    # TYPE b_info gauge\nb_info{v=\"1\"} 1\n# TYPE c histogram\nc_bucket{le=\"+Inf\"} 0\n# TYPE d untyped\nd 2\n";
        assert_eq!(Format::Text.of_open_metrics(open_metrics.to_owned()), text);
        assert_eq!(Format::OpenMetrics.of_open_metrics(open_metrics.to_owned()), open_metrics);
    }
}
