//! One token, verified step by step by the server's own code, for a person or a program to read.

use serde_json::{Value, json};

use crate::check::authorizer::Authorizer;
use crate::domain::clock::UnixTime;
use crate::domain::denial::Denial;
use crate::domain::token::Token;
use crate::domain::verdict::Grant;
use crate::domain::verify::Unverified;

/// The steps, in the contract's order of faults.
pub(super) const STEPS: [&str; 12] =
    ["length", "form", "crit", "iss", "alg", "typ", "kid", "key", "signature", "exp, nbf", "aud", "claims"];

/// What became of a token.
#[derive(Debug, Clone)]
pub(super) struct Explanation {
    /// What passed steps found, by step; as far as the token came.
    found: Vec<(&'static str, String)>,
    /// The first fault.
    fault: Option<Denial>,
    /// What the token says, if it can be read; never its signature.
    claims: Option<Value>,
}

/// The step that a fault belongs to; `None` for what is no fault of a token.
const fn step(denial: Denial) -> Option<&'static str> {
    Some(match denial {
        Denial::TokenTooLong => "length",
        Denial::TokenMalformed => "form",
        Denial::CriticalHeader => "crit",
        Denial::IssuerUnknown => "iss",
        Denial::AlgorithmNotAllowed => "alg",
        Denial::TypeNotAllowed => "typ",
        Denial::KeyIdMissing => "kid",
        Denial::KeyUnknown | Denial::KeysUnavailable => "key",
        Denial::SignatureInvalid => "signature",
        Denial::TokenExpired | Denial::TokenNotYetValid => "exp, nbf",
        Denial::AudienceMismatch => "aud",
        Denial::ClaimMissing | Denial::ClaimInvalid => "claims",
        Denial::TokenMissing
        | Denial::ClaimsInsufficient
        | Denial::IssuerNotAccepted
        | Denial::RuleDenies
        | Denial::RequestMalformed
        | Denial::RuleUnknown => return None,
    })
}

/// Verifies a token as the server would at this time, whatever the rules.
pub(super) async fn explain(authorizer: &Authorizer, token: &[u8], at: UnixTime) -> Explanation {
    let mut explanation = Explanation { found: Vec::new(), fault: None, claims: None };
    explanation.fault = explanation.verify(authorizer, token, at).await.err();
    explanation
}

impl Explanation {
    async fn verify(&mut self, authorizer: &Authorizer, token: &[u8], at: UnixTime) -> Result<(), Denial> {
        let most = authorizer.tokens.max_length;
        let segments = Token::new(token).split(most)?;
        self.note("length", format!("{} of at most {most} bytes", token.len()));
        let unverified = Unverified::peek(&segments)?;
        self.claims = serde_json::from_slice(&segments.payload).ok();
        let addressed = unverified.address(&authorizer.issuers)?;
        self.note("iss", format!("issuer {}", addressed.issuer().name));
        self.note("alg", addressed.algorithm().name().to_owned());
        self.note("kid", addressed.kid().unwrap_or("none, and none is required").to_owned());
        let keys = authorizer.keys_for(&addressed).await?;
        self.note("key", format!("usable keys of the issuer at hand: {}", keys.jwk_count()));
        let verified = addressed.verify(&keys, at)?;
        self.note("exp, nbf", format!("at {}", at.rfc3339()));
        let grant = Grant::to(&verified, &authorizer.identity)?;
        let set: Vec<_> =
            grant.headers().set.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        self.note("claims", set.join(", "));
        Ok(())
    }

    fn note(&mut self, step: &'static str, found: String) {
        self.found.push((step, found));
    }

    /// The first fault; `None` if the token is good.
    #[must_use]
    pub(super) const fn fault(&self) -> Option<Denial> {
        self.fault
    }

    /// Every step with its result: pass, fail, or skipped, and what there is to say of it.
    fn steps(&self) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let failed = self.fault.and_then(step);
        let place = STEPS.iter().position(|step| Some(*step) == failed).unwrap_or(STEPS.len());
        STEPS.iter().enumerate().map(move |(at, step)| {
            let found = || self.found.iter().find(|(found, _)| found == step).map(|(_, text)| text.clone());
            match at.cmp(&place) {
                std::cmp::Ordering::Less => (*step, "pass", found().unwrap_or_default()),
                std::cmp::Ordering::Equal => {
                    let say = |denial: Denial| format!("{}: {}", denial.code(), denial.detail());
                    (*step, "fail", self.fault.map(say).unwrap_or_default())
                }
                std::cmp::Ordering::Greater => (*step, "skipped", String::new()),
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
                "pass" => paint("32", "pass"),
                "fail" => paint("31", "FAIL"),
                _ => paint("2", "  - "),
            };
            let line = format!("{mark}  {step:<10}{}", plain(&detail));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&match self.fault {
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
    pub(super) fn json(&self) -> Value {
        let steps: Vec<_> = self
            .steps()
            .map(|(step, result, detail)| json!({"step": step, "result": result, "detail": detail}))
            .collect();
        json!({
            "verdict": if self.fault.is_none() { "allow" } else { "deny" },
            "code": self.fault.map(Denial::code),
            "http_status": self.fault.map_or(200, Denial::http_status),
            "steps": steps,
            "claims": self.claims,
        })
    }
}

/// What a token says may hold anything, an escape sequence for the reader's terminal too.
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
    fn every_fault_of_a_token_has_its_step() {
        for &denial in Denial::ALL {
            let of_a_token = matches!(denial.http_status(), 401 | 503) && denial != Denial::TokenMissing;
            assert_eq!(step(denial).is_some_and(|step| STEPS.contains(&step)), of_a_token, "{denial:?}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(plain("a\u{1b}[31m\u{9b}b\n"), "a\\u{1b}[31m\\u{9b}b\n");
    }
}
