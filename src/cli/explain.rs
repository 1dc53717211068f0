//! One token, verified step by step by the server's own code, for a person or a program to read.

use serde_json::json;
use strum::VariantArray as _;

use crate::check::authorizer::Authorizer;
use crate::cli::hints;
use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::issuer::BoundTokens;
use crate::domain::json::{Json, MAX_DEPTH};
use crate::domain::token::Token;
use crate::domain::token_fault::{TokenFault, TokenStep};
use crate::domain::verdict::Grant;
use crate::domain::verify::Unverified;

/// Which checks a token passed, and the one that it failed.
#[derive(Debug, Clone)]
pub(super) struct Explanation {
    /// What to print beside a passed check.
    notes: Vec<(TokenStep, String)>,
    /// The first fault.
    fault: Option<TokenFault>,
    /// More about the fault than a client is told.
    hint: Option<String>,
    /// The payload, if it can be read; never the signature.
    claims: Option<Json>,
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
    let mut explanation = Explanation { notes: Vec::new(), fault: None, hint: None, claims: None };
    explanation.fault = explanation.verify(authorizer, token, at).await.err();
    explanation
}

impl Explanation {
    async fn verify(
        &mut self,
        authorizer: &Authorizer,
        token: &[u8],
        at: UnixTime,
    ) -> Result<(), TokenFault> {
        let max_bytes = authorizer.tokens.max_length;
        let of_form = || hints::of_form(&String::from_utf8_lossy(token));
        let segments = Token::new(token).split(max_bytes).inspect_err(|fault| {
            self.hint = (fault.step == TokenStep::Form).then(of_form).flatten();
        })?;
        self.note(TokenStep::Length, format!("{} of at most {max_bytes} bytes", token.len()));
        let unverified = Unverified::peek(&segments).inspect_err(|_| self.hint = of_form())?;
        self.claims = Json::parse(&segments.payload, MAX_DEPTH + 1);
        let iss = unverified.iss();
        let addressed = unverified.address(&authorizer.issuers).inspect_err(|fault| {
            let of_issuer = || hints::of_issuer(iss.as_deref(), &authorizer.issuers);
            self.hint = (fault.step == TokenStep::Iss).then(of_issuer);
        })?;
        self.note(TokenStep::Iss, format!("issuer {}", addressed.issuer().name));
        self.note(TokenStep::Alg, addressed.algorithm().name().to_owned());
        self.note(TokenStep::Kid, addressed.kid().unwrap_or("none, and none is required").to_owned());
        let keys = authorizer.keys_for(&addressed).await.map_err(|denial| TokenStep::Key.fault(denial))?;
        self.note(TokenStep::Key, format!("usable keys of the issuer at hand: {}", keys.jwk_count()));
        let issuer = addressed.issuer();
        let verified =
            addressed.verify(&keys, std::iter::once(&issuer.audiences), at).inspect_err(|fault| {
                self.hint = match fault.step {
                    TokenStep::Signature => hints::of_signature(&segments.header),
                    TokenStep::Audience => hints::of_audience(&segments.payload, issuer),
                    _ => None,
                };
            })?;
        self.note(TokenStep::Time, format!("at {}", at.rfc3339()));
        let of_token = verified.identity(&authorizer.identity);
        let grant = Grant::to(&verified, &authorizer.identity, of_token)?;
        let set: Vec<_> = grant.identity().set().map(|(name, value)| format!("{name}: {value}")).collect();
        self.note(TokenStep::Claims, set.join(", "));
        if issuer.bound_tokens == BoundTokens::Ignore {
            self.note(TokenStep::Binding, "not checked: bound_tokens is ignore".to_owned());
        }
        Ok(())
    }

    fn note(&mut self, step: TokenStep, text: String) {
        self.notes.push((step, text));
    }

    /// The denial that the server would answer with; `None` if the token is good.
    #[must_use]
    pub(super) fn denial(&self) -> Option<Denial> {
        self.fault.map(Denial::from)
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

    /// For a person; `colour` for a terminal.
    #[must_use]
    pub(super) fn text(&self, colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
        };
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
        text.push('\n');
        text.push_str(&match self.denial() {
            None => paint("1;32", "allow"),
            Some(denial) => {
                format!("{} {} {}", paint("1;31", "deny"), denial.http_status(), denial.code())
            }
        });
        text.push('\n');
        if let Some(claims) = &self.claims {
            let trust = if self.fault.is_none() { "claims" } else { "claims, NOT verified" };
            text.push_str(&format!("\n{trust}:\n{}\n", plain(&format!("{claims:#}"))));
        }
        text
    }

    /// For a program.
    #[must_use]
    pub(super) fn json(&self) -> Json {
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
        let explained = json!({
            "verdict": if self.fault.is_none() { "allow" } else { "deny" },
            "code": self.denial().map(Denial::code),
            "http_status": self.denial().map_or(200, Denial::http_status),
            "hint": self.hint,
            "steps": steps,
        });
        let mut explained = Json::from(explained);
        if let Json::Object(members) = &mut explained {
            // Not by `json!`, which would round the numbers.
            members.push(("claims".to_owned(), self.claims.clone().unwrap_or(Json::Null)));
        }
        explained
    }
}

/// Escapes control characters: a claim may hold an escape sequence for the terminal.
fn plain(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\n' { c.escape_unicode().to_string() } else { c.to_string() }
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(plain("a\u{1b}[31m\u{9b}b\n"), "a\\u{1b}[31m\\u{9b}b\n");
    }
}
