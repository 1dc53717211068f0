//! Logs: JSON lines on stderr, or text on a terminal, filtered by `RUST_LOG`.

use std::io::{self, IsTerminal as _};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines buffered until stderr takes them. Further lines are dropped: a reader of stderr that hangs must neither delay
/// checks nor fill the memory.
const MAX_BUFFERED_LINES: usize = 8192;

/// Writes the buffered lines when it is dropped.
#[must_use = "the last lines are written when it is dropped"]
#[derive(Debug)]
pub struct Flush(#[expect(dead_code, reason = "the guard's effect is its drop")] WorkerGuard);

/// Starts logging for the process. A second call does nothing.
pub fn init() -> Flush {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_BUFFERED_LINES)
        .thread_name("passage-authz-log")
        .finish(io::stderr());
    let wanted = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    // An error means that a subscriber is set already, by a test: that one stays.
    let _ = if io::stderr().is_terminal() {
        text(wanted, writer).try_init()
    } else {
        json(wanted, writer).try_init()
    };
    Flush(guard)
}

fn text<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(
    wanted: EnvFilter,
    writer: W,
) -> impl Subscriber + Send + Sync {
    let filter = wanted.and(filter_fn(|event| may_be_logged(event.target(), *event.level())));
    let format = tracing_subscriber::fmt::layer().with_writer(writer);
    tracing_subscriber::registry().with(format.with_filter(filter))
}

/// One JSON object a line.
pub fn json<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(
    wanted: EnvFilter,
    writer: W,
) -> impl Subscriber + Send + Sync {
    let filter = wanted.and(filter_fn(|event| may_be_logged(event.target(), *event.level())));
    let format = tracing_subscriber::fmt::layer().with_writer(writer).json().flatten_event(true);
    tracing_subscriber::registry().with(format.with_filter(filter))
}

/// Libraries trace frames and headers, hence tokens: whatever `RUST_LOG` asks for, only this crate's events are
/// written below INFO. A peer can repeat a bad frame, and the warning about it, without end: of the libraries that read
/// frames only errors are written.
fn may_be_logged(target: &str, level: tracing::Level) -> bool {
    let of =
        |name: &str| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let most = match target {
        _ if of("passage_authz") => tracing::Level::TRACE,
        _ if ["h2", "hyper", "hyper_util", "rustls", "tonic"].into_iter().any(of) => tracing::Level::ERROR,
        _ => tracing::Level::INFO,
    };
    level <= most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_never_trace() {
        for (target, level, want) in [
            ("passage_authz::check::authorizer", tracing::Level::TRACE, true),
            ("passage_authz", tracing::Level::DEBUG, true),
            ("passage_authz_other", tracing::Level::DEBUG, false),
            ("h2::codec", tracing::Level::TRACE, false),
            ("hyper", tracing::Level::DEBUG, false),
            ("reqwest", tracing::Level::INFO, true),
            ("h2", tracing::Level::ERROR, true),
            ("h2::proto::streams::recv", tracing::Level::WARN, false),
            ("h2o", tracing::Level::WARN, true),
        ] {
            assert_eq!(may_be_logged(target, level), want, "{target} {level}");
        }
    }
}
