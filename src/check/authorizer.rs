//! The hot path: one check from the request's view to the verdict, whatever protocol brought it.

use std::sync::Arc;

use crate::check::observers::Observers;
use crate::check::outcome::{Decision, Outcome};
use crate::check::token_cache::TokenCache;
use crate::config::{CheckFlags, TokenSettings};
use crate::domain::claims::Subject;
use crate::domain::clock::Clock;
use crate::domain::denial::{Denial, Wording};
use crate::domain::identity::Identity;
use crate::domain::issuer::{IssuerName, Issuers};
use crate::domain::key_set::KeySet;
use crate::domain::policy::{Access, Policy, Rule, Selection};
use crate::domain::request::Request;
use crate::domain::token::{self, Token};
use crate::domain::token_fault::TokenFault;
use crate::domain::verdict::{Grant, Verdict};
use crate::domain::verify::{Addressed, CachedToken, ClaimsNeeded, Unverified, Verified};
use crate::keys::sets::{KeySets, Missing};

/// Decides checks. Everything it needs is at hand; it never fetches.
#[derive(Debug)]
pub(crate) struct Authorizer {
    /// Where tokens are looked for.
    pub tokens: TokenSettings,
    /// Who may issue them.
    pub issuers: Issuers,
    /// What the service behind is told.
    pub identity: Identity,
    /// Which rule a request falls under.
    pub policy: Policy,
    /// Switches that hold for every rule.
    pub check_flags: CheckFlags,
    /// How a denial is worded.
    pub wording: Wording,
    /// Who hears of decisions.
    pub observers: Observers,
    /// The keys at hand.
    pub keys: Arc<KeySets>,
    /// The tokens that were verified already.
    pub cache: TokenCache,
    /// Which of their claims anybody reads.
    pub claims_needed: ClaimsNeeded,
    /// The time.
    pub clock: Clock,
}

impl Authorizer {
    /// One check, from the request's rule to the verdict.
    pub(crate) async fn decide(&self, request: &Request<'_>) -> Verdict<'_> {
        let begun = self.observers.begin(&self.clock);
        let (rule, decided) = match self.policy.select(request) {
            Ok(selection) => {
                let decided = self.apply(&selection, request).await;
                let unmet = decided.as_ref().err().and_then(|refusal| refusal.unmet);
                let rule = unmet.unwrap_or_else(|| selection.strictest());
                (rule.name.as_str(), self.in_shadow(&selection, decided))
            }
            Err(denial) => ("", Err(denial.into())),
        };
        let (outcome, issuer, subject) = match &decided {
            Ok(grant) => {
                let outcome = grant.shadow().map_or(Outcome::Allowed, Outcome::ShadowDenied);
                (outcome, grant.issuer(), grant.subject())
            }
            Err(Refusal { denial, issuer, subject, .. }) => {
                (Outcome::Denied(*denial), *issuer, subject.as_ref())
            }
        };
        let subject = subject.map(Subject::as_str);
        self.observers.end(begun, &Decision { outcome, issuer, subject, rule }, Some(request));
        match decided {
            Err(refusal) => Verdict::Deny(refusal.denial),
            Ok(grant) if self.tokens.forward => Verdict::Allow(grant),
            Ok(grant) => Verdict::Allow(grant.withholding(token::withheld(&self.tokens.from, request))),
        }
    }

    /// The verdict on what is no request at all.
    pub(crate) fn deny_unread(&self, denial: Denial) -> Verdict<'_> {
        let outcome = Outcome::Denied(denial);
        let decision = Decision { outcome, issuer: None, subject: None, rule: "" };
        self.observers.end(self.observers.begin(&self.clock), &decision, None);
        Verdict::Deny(denial)
    }

    /// A shadow rollout lets through what would be denied, and remembers why.
    fn in_shadow<'c>(&'c self, selection: &Selection<'_>, decided: Decided<'c>) -> Decided<'c> {
        match decided {
            Err(Refusal { denial, issuer, subject, .. })
                if (self.check_flags.shadow || selection.is_in_shadow()) && denial.passes_in_shadow() =>
            {
                Ok(Grant::in_shadow_of(denial, issuer, subject, &self.identity))
            }
            decided => decided,
        }
    }

    async fn apply<'c>(&'c self, selection: &Selection<'c>, request: &Request<'_>) -> Decided<'c> {
        let anonymous = || Grant::anonymous(&self.identity);
        match selection.access() {
            Access::Deny => return Err(Denial::RuleDenies.into()),
            Access::Public => return Ok(anonymous()),
            Access::Optional | Access::Required => {}
        }
        if self.check_flags.allow_preflight && request.is_preflight() {
            return Ok(anonymous());
        }
        match token::find(&self.tokens.from, request) {
            Err(Denial::TokenMissing) if selection.allows_anonymous() => Ok(anonymous()),
            Err(denial) => Err(denial.into()),
            Ok(token) => self.bearer_of(token, selection).await,
        }
    }

    async fn bearer_of<'c>(&'c self, token: Token<'_>, selection: &Selection<'c>) -> Decided<'c> {
        // Before anything is done with all of its bytes.
        let token = token.bounded(self.tokens.max_length)?;
        let digest = self.cache.digest_of(token);
        if let Some(cached) = digest.and_then(|digest| self.cache.get(&digest))
            && let Some(grant) = self.judge_again(&cached, selection)
        {
            self.observers.counts.hit();
            return grant;
        }
        self.observers.counts.missed();
        let segments = token.split(self.tokens.max_length)?;
        let addressed = Unverified::peek(&segments)?.address(&self.issuers)?;
        let issuer = addressed.issuer();
        let refusal = |denial| Refusal::of(&issuer.name, denial);
        let keys = self.keys_for(&addressed).await.map_err(refusal)?;
        let verified = addressed.verify(&keys, self.clock.now()).map_err(|fault| refusal(fault.denial))?;
        if let Some(digest) = digest
            && let Some(cached) = verified.to_cached(&keys, &self.issuers, &self.claims_needed)
        {
            self.cache.put(digest, cached);
        }
        self.granted(&verified, selection)
    }

    /// A token that was verified before, judged again: its key, its time, what the rule asks. `None` if its issuer's
    /// keys are not what they were.
    fn judge_again<'c>(&'c self, token: &CachedToken, selection: &Selection<'c>) -> Option<Decided<'c>> {
        let (issuer, now) = (token.issuer(&self.issuers)?, self.clock.now());
        let keys = self.keys.in_force(&issuer.name, now)?;
        Some(match token.judge_again(issuer, keys, now)? {
            Ok(verified) => self.granted(&verified, selection),
            Err(fault) => Err(Refusal::of(&issuer.name, fault.denial)),
        })
    }

    fn granted<'c>(&'c self, token: &Verified<'_, 'c>, selection: &Selection<'c>) -> Decided<'c> {
        let refusal = |denial| Refusal {
            subject: Some(token.subject().clone()),
            ..Refusal::of(&token.issuer().name, denial)
        };
        // The identity first: a claim that cannot be used is the token's fault, before any rule's demand.
        let grant = Grant::to(token, &self.identity).map_err(|fault| refusal(fault.denial))?;
        selection.judge(token).map_err(|(rule, denial)| Refusal { unmet: Some(rule), ..refusal(denial) })?;
        Ok(grant)
    }

    /// The issuer's keys at hand; only a token with an unknown key makes the request wait, and not long.
    pub(crate) async fn keys_for(&self, token: &Addressed<'_, '_>) -> Result<Arc<KeySet>, Denial> {
        let issuer = &token.issuer().name;
        match self.keys.snapshot(issuer, self.clock.now()) {
            Ok(keys) if token.has_candidate(&keys) => return Ok(keys),
            Err(_) if !self.keys.is_starting(issuer) => {
                self.keys.nudge(issuer);
                return Err(Denial::KeysUnavailable);
            }
            Ok(_) | Err(_) => {}
        }
        // In a box: what is rarely awaited must not make every check's task larger.
        let asked = Box::pin(self.keys.ask(issuer, |keys| token.has_candidate(keys)));
        asked.await.map_err(|missing| match missing {
            Missing::Unknown => Denial::KeyUnknown,
            Missing::Unavailable => Denial::KeysUnavailable,
        })
    }
}

type Decided<'c> = Result<Grant<'c>, Refusal<'c>>;

/// A denial, and whose token it was, as far as that is known.
struct Refusal<'c> {
    denial: Denial,
    issuer: Option<&'c IssuerName>,
    subject: Option<Subject>,
    /// The rule whose requirement the token does not meet.
    unmet: Option<&'c Rule>,
}

impl<'c> Refusal<'c> {
    const fn of(issuer: &'c IssuerName, denial: Denial) -> Self {
        Self { denial, issuer: Some(issuer), subject: None, unmet: None }
    }
}

impl From<Denial> for Refusal<'_> {
    fn from(denial: Denial) -> Self {
        Self { denial, issuer: None, subject: None, unmet: None }
    }
}

impl From<TokenFault> for Refusal<'_> {
    fn from(fault: TokenFault) -> Self {
        fault.denial.into()
    }
}
