//! `verify`: fetches the issuers' keys, verifies one token by them and prints every step.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::app::engine::{Carried, Engine};
use crate::app::reload::Reloader;
use crate::cli::explain::{Explanation, explain, explain_request};
use crate::cli::output::{Failure, print};
use crate::cli::request::OwnedRequest;
use crate::config::{Config, Environment};
use crate::domain::clock::{Clock, UnixTime};
use crate::revocation::inbox::look;

/// For the first fetches of all issuers together; each fetch has its own limit, too.
const FIRST_KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read of a token on standard input: more than `tokens.max_length` can be, so that a token that is
/// too long is denied for its length.
const MAX_TOKEN_BYTES: u64 = 128 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For a person, in colour on a terminal
    Text,
    /// For a program
    Json,
}

/// What the command line asks to be verified.
pub(super) struct Asked {
    /// Instead of the time when the keys have arrived.
    pub(super) at: Option<UnixTime>,
    pub(super) request: Option<OwnedRequest>,
    /// `-` for standard input.
    pub(super) token: Option<String>,
}

pub(super) async fn verify(file: Option<&Path>, format: Format, asked: Asked) -> Result<ExitCode, Failure> {
    let Asked { at, request, token } = asked;
    let token = token.map(|argument| if argument == "-" { read_token() } else { Ok(argument) });
    let token = token.transpose().map_err(Failure::other)?;
    let config = Config::load(file, &Environment::read()).map_err(Failure::configuration)?;
    let clock = Clock::default();
    let engine = Engine::build(config, clock.clone(), Carried::default()).map_err(Failure::configuration)?;
    if let Some(revocations) = &engine.current.authorizer.revocations {
        if let Some(store) = engine.event_store() {
            look(&store.path, revocations).map_err(Failure::configuration)?;
        }
        // It asks no other replica.
        revocations.has_started();
    }
    let token = token.as_deref().map(without_scheme);
    let request = request.map(|request| match token {
        Some(token) => request.carrying(token, &engine.current.authorizer.tokens.from),
        None => request,
    });
    let explanation =
        explain_with_fetched_keys(engine, clock, request.as_ref(), token.unwrap_or_default(), at).await;
    print(&match format {
        Format::Text => explanation.text(in_colour()),
        Format::Json => format!("{:#}\n", explanation.json()),
    })?;
    Ok(if explanation.denial().is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Without `at`, as of the time when the keys have arrived.
async fn explain_with_fetched_keys(
    mut engine: Engine,
    clock: Clock,
    request: Option<&OwnedRequest>,
    token: &str,
    at: Option<UnixTime>,
) -> Explanation {
    // `verify` must not write to `key_store`: the entries there are the server's.
    engine.refreshers.iter_mut().for_each(|(_, refresher)| refresher.only_read());
    let (live, reloader) = Reloader::start(engine, clock.clone(), None);
    let stop = CancellationToken::new();
    let refreshing = tokio::spawn(reloader.run(stop.clone()));
    let current = live.current();
    let authorizer = &current.authorizer;
    // After a timeout the keys that did arrive are used; an issuer without keys is a step that fails.
    let _ = timeout(FIRST_KEYS_TIMEOUT, authorizer.keys.first_answers()).await;
    let explanation = match request {
        Some(request) => explain_request(authorizer, &request.view()).await,
        None => explain(authorizer, token.as_bytes(), at.unwrap_or_else(|| clock.now())).await,
    };
    stop.cancel();
    // A panic there changes nothing any more.
    let _ = refreshing.await;
    explanation
}

/// A token is often copied with the scheme of its header (RFC 6750 section 2.1).
pub(super) fn without_scheme(token: &str) -> &str {
    let token = token.trim();
    match token.split_once(char::is_whitespace) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim_start(),
        _ => token,
    }
}

pub(super) fn read_token() -> Result<String, String> {
    let mut token = Vec::new();
    io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_end(&mut token).map_err(|error| error.to_string())?;
    let token = String::from_utf8_lossy(&token).into_owned();
    if token.trim().is_empty() {
        return Err("standard input holds no token".to_owned());
    }
    Ok(token)
}

/// Colour on a terminal, unless `NO_COLOR` is set and not empty (no-color.org).
fn in_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
