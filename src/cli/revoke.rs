//! `revoke`: adds an entry to the file of revocations.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use crate::cli::explain::plain;
use crate::cli::output::{Failure, print};
use crate::cli::verify::{read_token, without_scheme};
use crate::config::{Config, Environment, RevocationSettings};
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::issuer::{Issuer, IssuerName, Issuers};
use crate::domain::json::{Member, Object};
use crate::domain::revoked::{Kind, Revocation};
use crate::domain::token::Token;
use crate::revocation::append::append;
use crate::revocation::line::{lasting, line_of};
use crate::revocation::list::Limits;

/// The most that `tokens.max_length` can be.
const MAX_TOKEN_BYTES: usize = 65_536;

/// What is revoked: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct What {
    /// The tokens of this user: `sub`, or what the issuer's `subject` makes of it
    #[arg(long, value_name = "SUB")]
    subject: Option<String>,
    /// The tokens of this session: `sid`
    #[arg(long, value_name = "SID")]
    session: Option<String>,
    /// The token of this ID: `jti`
    #[arg(long, value_name = "JTI")]
    token_id: Option<String>,
    /// The tokens of this client: `azp` or `client_id`
    #[arg(long, value_name = "CLIENT")]
    client: Option<String>,
    /// All tokens of the issuer
    #[arg(long)]
    all: bool,
    /// This token, which must have a `jti`; `-` reads it from standard input. It is not verified
    #[arg(value_name = "TOKEN")]
    token: Option<String>,
}

/// What the command line asks to be revoked.
pub(super) struct Asked {
    /// `None` if there is only one, and for a token, which names its own.
    pub(super) issuer: Option<String>,
    pub(super) what: What,
    /// Instead of now.
    pub(super) issued_before: Option<UnixTime>,
    /// Instead of when the last of them has expired.
    pub(super) until: Option<UnixTime>,
}

pub(super) fn revoke(file: Option<&Path>, asked: Asked) -> Result<ExitCode, Failure> {
    let config = Config::load(file, &Environment::read()).map_err(Failure::configuration)?;
    let settings = config.revocation.as_ref();
    let settings = settings.ok_or_else(|| Failure::configuration("revocation: is not configured"))?;
    let issuers = Issuers::new(config.issuers.iter().map(|config| config.issuer.clone()).collect());
    let now = Clock::default().now();
    let revocation = entry(asked, settings, &issuers, now).map_err(Failure::configuration)?;
    let RevocationSettings { file, max_token_lifetime, max_entries, .. } = settings;
    let missing = "revocation.file: is missing; accepted: the file that the entry is added to";
    let file = file.as_ref().ok_or_else(|| Failure::configuration(missing))?;
    let limits = Limits { max_entries: *max_entries, max_token_lifetime: *max_token_lifetime };
    append(file, &revocation, &issuers.names(), &limits, now).map_err(|error| {
        Failure::configuration(format!("{}: {error}; nothing was written", file.display()))
    })?;
    print(&plain(&line_of(&revocation)))?;
    Ok(ExitCode::SUCCESS)
}

fn entry(
    asked: Asked,
    settings: &RevocationSettings,
    issuers: &Issuers,
    now: UnixTime,
) -> Result<Revocation, String> {
    let Asked { issuer, what, issued_before, until } = asked;
    let What { subject, session, token_id, client, all: _, token } = what;
    let issued_before = issued_before.unwrap_or(now);
    let last = lasting(issued_before, settings.max_token_lifetime);
    if let Some(token) = token {
        return of_token(&token, issuers, issued_before, until, last);
    }
    let named = [(Kind::Sub, subject), (Kind::Sid, session), (Kind::Jti, token_id), (Kind::Client, client)];
    let named = named.into_iter().find_map(|(kind, value)| Some((kind, value?)));
    // Of the group one is set, so without any of these it is `all`.
    let (kind, value) = named.unwrap_or((Kind::Issuer, String::new()));
    if value.is_empty() && kind != Kind::Issuer {
        return Err(format!("{}: is empty", kind.name()));
    }
    let issuer = one_issuer(issuer.as_deref(), issuers)?;
    Ok(Revocation { issuer, kind, value, issued_before, until: until.unwrap_or(last) })
}

fn one_issuer(name: Option<&str>, issuers: &Issuers) -> Result<IssuerName, String> {
    let names = issuers.names();
    let listed = || names.iter().map(IssuerName::as_str).collect::<Vec<_>>().join(", ");
    match (name, names.as_slice()) {
        (Some(name), _) => names
            .iter()
            .find(|issuer| issuer.as_str() == name)
            .cloned()
            .ok_or_else(|| format!("--issuer: {name:?} is not configured; accepted: one of {}", listed())),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(format!("--issuer: is missing; accepted: one of {}", listed())),
    }
}

/// The entry for one token, which lasts as long as the token.
fn of_token(
    argument: &str,
    issuers: &Issuers,
    issued_before: UnixTime,
    until: Option<UnixTime>,
    last: UnixTime,
) -> Result<Revocation, String> {
    let token = if argument == "-" { read_token()? } else { argument.to_owned() };
    let malformed = || "the token is not a well-formed JSON Web Token; verify says why".to_owned();
    let token = without_scheme(&token);
    let segments = Token::new(token.as_bytes()).split(MAX_TOKEN_BYTES).map_err(|_| malformed())?;
    let claims = Object::parse(&segments.payload).map_err(|_| malformed())?;
    let text = |name| match claims.member(name) {
        Member::String(text) if !text.is_empty() => Some(text.into_owned()),
        _ => None,
    };
    let seconds = |name| match claims.member(name) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float saturates"
        )]
        Member::Number(seconds) => Some(UnixTime::from_secs(seconds.ceil() as u64)),
        _ => None,
    };
    let iss = text("iss").ok_or("the token has no iss")?;
    let (Issuer { name, leeway, .. }, _) = issuers.get(&iss).ok_or("the token's issuer is not configured")?;
    let value = text("jti").ok_or("the token has no jti: name its subject or its session instead")?;
    let expired = seconds("exp").map(|exp| exp.after(*leeway));
    Ok(Revocation {
        issuer: name.clone(),
        kind: Kind::Jti,
        value,
        // The token itself, also if its issuer's clock is ahead.
        issued_before: seconds("iat").map_or(issued_before, |iat| iat.max(issued_before)),
        until: until.or(expired).unwrap_or(last),
    })
}
