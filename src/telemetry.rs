//! Logs: JSON lines on stderr, or text on a terminal, filtered by `RUST_LOG`.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging for the process. A second call does nothing.
pub fn init() {
    let wanted = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let filter = wanted.and(filter_fn(|event| may_be_logged(event.target(), *event.level())));
    let registry = tracing_subscriber::registry();
    let format = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // An error here means that somebody else has set a subscriber: it stays.
    let _ = if io::stderr().is_terminal() {
        registry.with(format.with_filter(filter)).try_init()
    } else {
        registry.with(format.json().flatten_event(true).with_filter(filter)).try_init()
    };
}

/// Libraries below us trace frames and headers, hence tokens, whatever `RUST_LOG` asks for: below INFO
/// only this crate's own events are let through.
fn may_be_logged(target: &str, level: tracing::Level) -> bool {
    level <= tracing::Level::INFO || target == "passage_authz" || target.starts_with("passage_authz::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_trace() {
        for (target, level, want) in [
            ("passage_authz::authz", tracing::Level::TRACE, true),
            ("passage_authz", tracing::Level::DEBUG, true),
            ("passage_authz_other", tracing::Level::DEBUG, false),
            ("h2::codec", tracing::Level::TRACE, false),
            ("hyper", tracing::Level::DEBUG, false),
            ("reqwest", tracing::Level::INFO, true),
            ("h2", tracing::Level::ERROR, true),
        ] {
            assert_eq!(may_be_logged(target, level), want, "{target} {level}");
        }
    }
}
