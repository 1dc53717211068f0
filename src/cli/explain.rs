//! One token, verified step by step by the server's own code, or one request with the rules it falls under, for a person or a
//! program to read.

use serde_json::json;
use serde_json::value::RawValue;
use strum::VariantArray as _;

use crate::check::authorizer::Authorizer;
use crate::cli::{findings, hints};
use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::evidence::Evidence;
use crate::domain::issuer::BoundTokens;
use crate::domain::json::{Json, MAX_DEPTH, Object};
use crate::domain::policy::{Access, RuleOfReading, Selection};
use crate::domain::request::Request;
use crate::domain::token::{self, Joined, Token};
use crate::domain::token_fault::{TokenFault, TokenStep};
use crate::domain::verdict::{Grant, Verdict};
use crate::domain::verify::Unverified;

/// Which checks a token passed, and the one that it failed; with a request, the rules that its readings fall under.
#[derive(Debug, Clone)]
pub(super) struct Explanation {
    /// `None` for a request that carries no token, or that does not say which of several.
    token: Option<TokenExplanation>,
    request: Option<RequestExplanation>,
    in_shadow: bool,
}

#[derive(Debug, Clone)]
struct TokenExplanation {
    /// What to print beside a passed check.
    notes: Vec<(TokenStep, String)>,
    /// The first fault.
    fault: Option<TokenFault>,
    /// More about the fault than a client is told.
    hint: Option<String>,
    /// The header and the payload, if they can be read; never the signature.
    header: Option<Json>,
    claims: Option<Json>,
}

#[derive(Debug, Clone)]
struct RequestExplanation {
    readings: Vec<RuleOfReading>,
    has_rules: bool,
    /// The name of the rule that decides.
    rule: String,
    /// There is a token, and the rule decides without it.
    token_is_ignored: bool,
    denial: Option<Denial>,
    /// Why a denied request would be let through all the same.
    shadow: Option<Denial>,
    /// The headers that the upstream gets.
    headers: Vec<(String, String)>,
}

/// The result of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StepResult {
    Pass,
    Fail,
    /// Not made, because an earlier check failed.
    Skipped,
}

/// Verifies a token as the server would at this time, whatever the rules.
pub(super) async fn explain(authorizer: &Authorizer, token: &[u8], at: UnixTime) -> Explanation {
    let token = TokenExplanation::of(authorizer, token, None, at).await;
    Explanation { token: Some(token), request: None, in_shadow: authorizer.check_flags.shadow }
}

/// Judges a request as the server would now.
pub(super) async fn explain_request(authorizer: &Authorizer, request: &Request<'_>) -> Explanation {
    let (joined, now) = (Joined::new(), authorizer.clock.now());
    let selection = authorizer.policy.select(request).ok();
    let is_seen = |selection: &Selection<'_>| !matches!(selection.access(), Access::Public | Access::Deny);
    let found = token::find(&authorizer.tokens.from, request, &joined).ok();
    let token_is_ignored = found.is_some() && !selection.as_ref().is_some_and(is_seen);
    let token = match found.filter(|_| !token_is_ignored) {
        Some(found) => {
            Some(TokenExplanation::of(authorizer, found.token.bytes(), selection.as_ref(), now).await)
        }
        None => None,
    };
    let judged = authorizer.judge(request).await;
    let rule = judged.rule.to_owned();
    let readings = authorizer.policy.readings(request);
    let (denial, shadow, headers) = match judged.into_verdict() {
        Verdict::Deny(denial) => (Some(denial), None, Vec::new()),
        Verdict::Allow(grant) => {
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            (None, grant.shadow(), grant.identity().set().map(owned).collect())
        }
    };
    Explanation {
        token,
        request: Some(RequestExplanation {
            readings,
            has_rules: authorizer.policy.has_rules(),
            rule,
            token_is_ignored,
            denial,
            shadow,
            headers,
        }),
        in_shadow: authorizer.check_flags.shadow,
    }
}

impl TokenExplanation {
    /// By the audiences of the rules, if a request chose some.
    async fn of(
        authorizer: &Authorizer,
        token: &[u8],
        selection: Option<&Selection<'_>>,
        at: UnixTime,
    ) -> Self {
        let mut explanation = Self { notes: Vec::new(), fault: None, hint: None, header: None, claims: None };
        explanation.fault = explanation.verify(authorizer, token, selection, at).await.err();
        explanation
    }

    async fn verify(
        &mut self,
        authorizer: &Authorizer,
        token: &[u8],
        selection: Option<&Selection<'_>>,
        at: UnixTime,
    ) -> Result<(), TokenFault> {
        let max_bytes = authorizer.tokens.max_length;
        let of_form = || hints::of_form(&String::from_utf8_lossy(token));
        let length = format!("{} of at most {max_bytes} bytes", token.len());
        let segments = Token::new(token).split(max_bytes).inspect_err(|fault| {
            self.hint = if fault.step == TokenStep::Form { of_form() } else { Some(length.clone()) };
        })?;
        self.note(TokenStep::Length, length);
        let unverified = Unverified::peek(&segments).inspect_err(|_| self.hint = of_form())?;
        self.header = Json::parse(&segments.header, MAX_DEPTH + 1);
        self.claims = Json::parse(&segments.payload, MAX_DEPTH + 1);
        let objects = Object::parse(&segments.header).ok().zip(Object::parse(&segments.payload).ok());
        let Some((header, claims)) = objects else {
            return Err(TokenStep::Form.fault(Denial::TokenMalformed));
        };
        let iss = unverified.iss();
        let named = iss.as_deref().and_then(|iss| authorizer.issuers.get(iss)).map(|(issuer, _)| issuer);
        let addressed = unverified.address(&authorizer.issuers).inspect_err(|fault| {
            self.hint = match fault.step {
                TokenStep::Iss => Some(findings::of_issuer(iss.as_deref(), &authorizer.issuers)),
                step => named.and_then(|issuer| findings::of_header(step, &header, issuer)),
            };
        })?;
        let issuer = addressed.issuer();
        self.note(TokenStep::Iss, format!("{:?}, issuer {}", iss.unwrap_or_default(), issuer.name));
        self.note(TokenStep::Alg, addressed.algorithm().name().to_owned());
        self.note(TokenStep::Typ, header.raw("typ").map_or("absent", RawValue::get).to_owned());
        self.note(TokenStep::Kid, addressed.kid().unwrap_or("none, and none is required").to_owned());
        let keys = authorizer.keys_for(&addressed).await.map_err(|denial| {
            let found = findings::of_keys(&authorizer.keys, issuer);
            let kept = if denial == Denial::KeysUnavailable {
                "; fetched by this command just now: a server that runs may have kept the keys of an earlier fetch, see /keys on its admin port"
            } else {
                ""
            };
            self.hint = Some(format!("{found}{kept}"));
            TokenStep::Key.fault(denial)
        })?;
        self.note(TokenStep::Key, findings::of_keys(&authorizer.keys, issuer));
        let audiences = || {
            let of_rules = selection.map(|selection| selection.audiences(issuer));
            let of_issuer = selection.is_none().then_some(&issuer.audiences);
            of_rules.into_iter().flatten().chain(of_issuer)
        };
        let hint = |fault: &TokenFault| match fault.step {
            TokenStep::Signature => hints::of_signature(&segments.header),
            TokenStep::Binding => Some("cnf is there; accepted with bound_tokens: ignore".to_owned()),
            step => {
                let identity = &authorizer.identity;
                let evidence = Evidence::of_claims(*fault, &claims, issuer, audiences(), identity, at)?;
                let found = findings::of_evidence(&evidence, &claims, issuer, at);
                let of_clock = findings::of_clock(&authorizer.keys, issuer);
                let clock = of_clock.filter(|_| step == TokenStep::Time);
                Some(clock.map_or_else(|| found.clone(), |clock| format!("{found}; {clock}")))
            }
        };
        let verified =
            addressed.verify(&keys, audiences(), at).inspect_err(|fault| self.hint = hint(fault))?;
        self.note(TokenStep::Time, findings::of_times(&claims, issuer, at));
        self.note(TokenStep::Audience, findings::of_audience(&claims, issuer));
        let of_token = verified.identity(&authorizer.identity);
        let grant = Grant::to(&verified, &authorizer.identity, of_token)
            .inspect_err(|fault| self.hint = hint(fault))?;
        let set: Vec<_> = grant.identity().set().map(|(name, value)| format!("{name}: {value}")).collect();
        self.note(TokenStep::Claims, set.join(", "));
        if issuer.bound_tokens == BoundTokens::Ignore {
            self.note(TokenStep::Binding, "not checked: bound_tokens is ignore".to_owned());
        }
        let watched = authorizer.revocations.as_ref().map(|revocations| revocations.watch(&verified));
        authorizer.unless_revoked(watched.as_ref()).map_err(|denial| TokenStep::Revocation.fault(denial))?;
        let known = authorizer
            .revocations
            .as_ref()
            .map(|revocations| format!("no entry of {} names it", revocations.len()));
        self.note(
            TokenStep::Revocation,
            known.unwrap_or_else(|| "not checked: no revocation is configured".to_owned()),
        );
        Ok(())
    }

    fn note(&mut self, step: TokenStep, text: String) {
        self.notes.push((step, text));
    }

    /// Every check with its result and what there is to print beside it.
    fn steps(&self) -> impl Iterator<Item = (TokenStep, StepResult, String)> {
        TokenStep::VARIANTS.iter().map(|&step| match self.fault {
            Some(TokenFault { step: failed, denial }) if step == failed => {
                (step, StepResult::Fail, format!("{}: {}", denial.code(), denial.detail()))
            }
            Some(fault) if step > fault.step => (step, StepResult::Skipped, String::new()),
            Some(_) | None => {
                let note = self.notes.iter().find(|(noted, _)| *noted == step);
                (step, StepResult::Pass, note.map(|(_, text)| text.clone()).unwrap_or_default())
            }
        })
    }

    fn text(&self, paint: &dyn Fn(&str, &str) -> String) -> String {
        let mut text = String::new();
        for (step, result, detail) in self.steps() {
            let mark = match result {
                StepResult::Pass => paint("32", "pass"),
                StepResult::Fail => paint("31", "FAIL"),
                StepResult::Skipped => paint("2", "  - "),
            };
            let line = format!("{mark}  {:<10}{}", step.label(), plain(&detail));
            text.push_str(line.trim_end());
            text.push('\n');
            if result == StepResult::Fail
                && let Some(hint) = &self.hint
            {
                text.push_str(&format!("{:16}{}\n", "", plain(hint)));
            }
        }
        text
    }

    fn json(&self) -> Vec<(String, Json)> {
        let steps: Vec<_> = self
            .steps()
            .map(|(step, result, detail)| {
                let result = match result {
                    StepResult::Pass => "pass",
                    StepResult::Fail => "fail",
                    StepResult::Skipped => "skipped",
                };
                json!({"step": step.label(), "result": result, "detail": detail})
            })
            .collect();
        // Header and claims not by `json!`, which would round the numbers.
        let or_null = |json: &Option<Json>| json.clone().unwrap_or(Json::Null);
        vec![
            ("hint".to_owned(), Json::from(json!(self.hint))),
            ("steps".to_owned(), Json::from(json!(steps))),
            ("header".to_owned(), or_null(&self.header)),
            ("claims".to_owned(), or_null(&self.claims)),
        ]
    }
}

impl RequestExplanation {
    fn text(&self) -> String {
        let mut text = "rules, for each way to read the request:\n".to_owned();
        for RuleOfReading { method, host, path, rule, access } in &self.readings {
            let parts = [Some(method), host.as_ref(), path.as_ref()];
            let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
            let reading = parts.map(String::as_str).collect::<Vec<_>>().join(" ");
            let decides = if *rule == self.rule { ", which decides" } else { "" };
            let line = format!("  {reading:<40}  {} (access: {}){decides}", named(rule), access.name());
            text.push_str(&plain(&line));
            text.push('\n');
        }
        if self.readings.is_empty() {
            text.push_str(if self.has_rules {
                "  none: the request has no host or no path that can be read\n"
            } else {
                "  no rules are configured: every request needs a token (access: required)\n"
            });
        }
        if self.token_is_ignored {
            text.push_str("the token is not looked at\n");
        }
        for (name, value) in &self.headers {
            text.push_str(&plain(&format!("the upstream gets {name}: {value}\n")));
        }
        if let Some(denial) = self.shadow {
            text.push_str(&format!("shadow: without it, {} {}\n", denial.http_status(), denial.code()));
        }
        text
    }

    fn json(&self) -> Json {
        let readings: Vec<_> = self
            .readings
            .iter()
            .map(|RuleOfReading { method, host, path, rule, access }| {
                json!({"method": method, "host": host, "path": path, "rule": rule, "access": access.name()})
            })
            .collect();
        let headers: Vec<_> =
            self.headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        Json::from(json!({
            "rule": self.rule,
            "readings": readings,
            "token_is_ignored": self.token_is_ignored,
            "headers": headers,
            "shadow": self.shadow.map(Denial::code),
        }))
    }
}

fn named(rule: &str) -> String {
    if rule.is_empty() { "no rule".to_owned() } else { format!("rule {rule}") }
}

impl Explanation {
    /// The denial that the server would answer with; `None` if it would allow.
    #[must_use]
    pub(super) fn denial(&self) -> Option<Denial> {
        match (&self.request, &self.token) {
            (Some(request), _) => request.denial,
            (None, Some(token)) => token.fault.map(Denial::from),
            (None, None) => None,
        }
    }

    /// For a person; `colour` for a terminal.
    #[must_use]
    pub(super) fn text(&self, colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
        };
        let mut text = self.token.as_ref().map(|token| token.text(&paint)).unwrap_or_default();
        if let Some(request) = &self.request {
            if self.token.is_some() {
                text.push('\n');
            }
            text.push_str(&request.text());
        }
        text.push('\n');
        text.push_str(&match self.denial() {
            None => paint("1;32", "allow"),
            Some(denial) => {
                let (status, code) = (denial.http_status(), denial.code());
                let said = format!("{} {status} {code}", paint("1;31", "deny"));
                // The failed step has said it.
                let is_said = self.token.as_ref().is_some_and(|token| token.fault.is_some());
                if is_said { said } else { format!("{said}: {}", denial.detail()) }
            }
        });
        text.push('\n');
        let passes_in_shadow = self.denial().is_some_and(Denial::passes_in_shadow);
        if self.in_shadow && self.request.is_none() && passes_in_shadow {
            text.push_str(
                "mode is shadow: a server lets the request through all the same, without an identity\n",
            );
        }
        if let Some(token) = &self.token {
            let trust = if token.fault.is_none() { "" } else { ", NOT verified" };
            for (name, part) in [("header", &token.header), ("claims", &token.claims)] {
                if let Some(part) = part {
                    text.push_str(&format!("\n{name}{trust}:\n{}\n", plain(&format!("{part:#}"))));
                }
            }
        }
        text
    }

    /// For a program.
    #[must_use]
    pub(super) fn json(&self) -> Json {
        let denial = self.denial();
        let verdict = json!({
            "verdict": if denial.is_none() { "allow" } else { "deny" },
            "code": denial.map(Denial::code),
            "http_status": denial.map_or(200, Denial::http_status),
        });
        let mut explained = Json::from(verdict);
        if let Json::Object(members) = &mut explained {
            members.extend(self.token.iter().flat_map(TokenExplanation::json));
            members.extend(self.request.iter().map(|request| ("request".to_owned(), request.json())));
        }
        explained
    }
}

/// Escapes control characters, and those that turn the direction of text: a claim may hold an escape sequence for the terminal.
pub(super) fn plain(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| {
        if (c.is_control() && c != '\n') || turns(c) { c.escape_unicode().to_string() } else { c.to_string() }
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(plain("a\u{1b}[31m\u{9b}b\u{202e}\n"), "a\\u{1b}[31m\\u{9b}b\\u{202e}\n");
    }
}
