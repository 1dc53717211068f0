//! The hot path: one check, from the request's view to the verdict. Knows no protocol.

use std::sync::Arc;

use crate::check::observers::Observers;
use crate::check::outcome::{Decision, Outcome};
use crate::check::token_cache::TokenCache;
use crate::config::{CheckFlags, TokenSettings};
use crate::domain::claims::Subject;
use crate::domain::clock::{Clock, UnixTime};
use crate::domain::denial::Denial;
use crate::domain::evidence::Evidence;
use crate::domain::identity::Identity;
use crate::domain::issuer::{Issuer, IssuerName, Issuers};
use crate::domain::json::Object;
use crate::domain::key_set::KeySet;
use crate::domain::policy::{Access, Policy, Rule, Selection};
use crate::domain::readings::method;
use crate::domain::request::Request;
use crate::domain::revoked::WatchedToken;
use crate::domain::token::{self, Forwarded, Joined, Token, TokenPlace, TokenSource};
use crate::domain::token_fault::TokenFault;
use crate::domain::verdict::{Grant, Verdict};
use crate::domain::verify::{Addressed, CachedToken, ClaimsNeeded, TokenIdentity, Unverified, Verified};
use crate::keys::sets::{KeySets, Missing};
use crate::revocation::state::Revocations;

/// Decides checks by one configuration. It never fetches keys: each issuer's refresher does.
#[derive(Debug)]
pub(crate) struct Authorizer {
    /// Where a request may carry its token.
    pub tokens: TokenSettings,
    pub issuers: Issuers,
    /// The headers and metadata that a grant sets for the upstream.
    pub identity: Identity,
    pub policy: Policy,
    /// Shadow and preflight, for all rules.
    pub check_flags: CheckFlags,
    pub observers: Observers,
    pub keys: Arc<KeySets>,
    /// `None`: no token is revoked.
    pub revocations: Option<Arc<Revocations>>,
    /// The tokens that were verified before.
    pub cache: TokenCache,
    /// The claims that the cache keeps of a token: those that the rules read.
    pub claims_needed: ClaimsNeeded,
    pub clock: Clock,
}

impl Authorizer {
    /// Whether something in a query may decide: a token, or a method that a request stands for.
    pub(crate) fn looks_at_queries(&self) -> bool {
        let is_query = |source: &TokenSource| matches!(source.place, TokenPlace::Query(_));
        self.policy.looks_at_methods() || self.tokens.from.iter().any(is_query)
    }

    pub(crate) async fn decide(&self, request: &Request<'_>) -> Verdict<'_> {
        let start = self.observers.start(&self.clock);
        let judged = self.judge(request).await;
        self.observers.finish(start, &judged.decision(), Some(request));
        judged.into_verdict()
    }

    /// What [`Authorizer::decide`] answers, and why. It is neither logged nor counted.
    pub(crate) async fn judge<'c>(&'c self, request: &Request<'_>) -> Judged<'c> {
        let joined = Joined::new();
        let (mut forwarded, mut evidence) = (Forwarded::AsSent, None);
        let (rule, decided) = match self.policy.select(request) {
            Ok(selection) => {
                let mut decided = self.apply_rule(&selection, request, &joined, &mut forwarded).await;
                evidence = decided.as_mut().err().and_then(|refusal| refusal.evidence.take());
                let decided = self.unless_lenient(&selection, request, decided, &mut forwarded);
                let unmet = decided.as_ref().err().and_then(|refusal| refusal.unmet);
                let rule = unmet.unwrap_or_else(|| selection.strictest());
                let decided = self.unless_shadow(&selection, decided);
                let forwarded = if self.tokens.forward { forwarded } else { Forwarded::NoToken };
                let decided = decided.and_then(|grant| self.with_removals(grant, request, forwarded));
                (rule.name.as_str(), decided.inspect(|grant| self.count_change(grant, &selection)))
            }
            Err(denial) => ("", Err(denial.into())),
        };
        Judged { decided, rule, evidence }
    }

    /// The verdict on bytes that are no request.
    pub(crate) fn deny_unreadable(&self, denial: Denial) -> Verdict<'_> {
        self.deny(denial, None)
    }

    /// The verdict on a check of so many bytes, of which none is read.
    pub(crate) fn deny_too_large(&self, bytes: usize) -> Verdict<'_> {
        let (outcome, message_bytes) = (Outcome::Denied(Denial::RequestTooLarge), Some(bytes));
        let decision = Decision { message_bytes, ..Decision::unjudged(outcome) };
        self.observers.finish(self.observers.start(&self.clock), &decision, None);
        Verdict::Deny(Denial::RequestTooLarge)
    }

    /// Denies a request before any rule is looked for.
    pub(crate) fn deny_unjudged(&self, denial: Denial, request: &Request<'_>) -> Verdict<'_> {
        self.deny(denial, Some(request))
    }

    fn deny(&self, denial: Denial, request: Option<&Request<'_>>) -> Verdict<'_> {
        let outcome = Outcome::Denied(denial);
        self.observers.finish(self.observers.start(&self.clock), &Decision::unjudged(outcome), request);
        Verdict::Deny(denial)
    }

    /// Where a bad token is as none, a 401 becomes an anonymous grant. The token is then withheld like any other that was not
    /// verified; where the answer cannot remove it, the 401 stays.
    fn unless_lenient<'c>(
        &'c self,
        selection: &Selection<'_>,
        request: &Request<'_>,
        decided: Decided<'c>,
        forwarded: &mut Forwarded<'_>,
    ) -> Decided<'c> {
        let is_bad_token = |refusal: &Refusal<'_>| refusal.denial.http_status() == 401;
        if !selection.ignores_bad_tokens() || !decided.as_ref().is_err_and(is_bad_token) {
            return decided;
        }
        if self.is_forwarded_all_the_same(request, Forwarded::Only(None))? {
            return decided;
        }
        *forwarded = Forwarded::Only(None);
        Ok(Grant::anonymous(&self.identity))
    }

    /// Whether the request has a token in its query that must not be forwarded, and the protocol's answer cannot remove it.
    fn is_forwarded_all_the_same(
        &self,
        request: &Request<'_>,
        forwarded: Forwarded<'_>,
    ) -> Result<bool, Denial> {
        Ok(request.query_stays && !token::withheld(&self.tokens.from, request, forwarded)?.query.is_empty())
    }

    fn is_in_shadow(&self, selection: &Selection<'_>) -> bool {
        self.check_flags.shadow || selection.is_in_shadow()
    }

    /// In a shadow rollout a denial becomes an anonymous grant that names the denial.
    fn unless_shadow<'c>(&'c self, selection: &Selection<'_>, decided: Decided<'c>) -> Decided<'c> {
        match decided {
            Err(Refusal { denial, issuer, subject, .. })
                if self.is_in_shadow(selection) && denial.passes_in_shadow() =>
            {
                Ok(Grant::in_shadow_of(denial, issuer, subject, &self.identity))
            }
            decided => decided,
        }
    }

    /// Adds what the upstream must not get: the spellings of identity headers that the request has beside those removed from
    /// every request, and tokens.
    fn with_removals<'c>(
        &'c self,
        grant: Grant<'c>,
        request: &Request<'_>,
        forwarded: Forwarded<'_>,
    ) -> Decided<'c> {
        let seen = self.identity.seen(request.headers.iter().map(|(name, _)| *name));
        let removals =
            seen.and_then(|seen| Ok((seen, token::withheld(&self.tokens.from, request, forwarded)?)));
        match removals {
            Ok((seen, withheld)) => Ok(grant.removing(seen).withholding(withheld)),
            Err(denial) => Err(Refusal {
                denial,
                issuer: grant.issuer(),
                evidence: None,
                subject: grant.subject().cloned(),
                unmet: None,
            }),
        }
    }

    /// Sets which tokens the upstream may get if the request goes on, be it in shadow. A denial before a token was looked at
    /// changes nothing: in shadow the request goes on as it came.
    async fn apply_rule<'c, 'r>(
        &'c self,
        selection: &Selection<'c>,
        request: &Request<'r>,
        joined: &'r Joined,
        forwarded: &mut Forwarded<'r>,
    ) -> Decided<'c> {
        let anonymous = || Grant::anonymous(&self.identity);
        match selection.access() {
            Access::Deny => return Err(Denial::RuleDenies.into()),
            Access::Public => return Ok(anonymous()),
            Access::Lenient | Access::Optional | Access::Required => {}
        }
        let sources = &self.tokens.from;
        // A browser's preflight overrides no method; to a framework that lets it, another request is no preflight.
        if self.check_flags.allow_preflight && request.is_preflight() && method::is_plain(request) {
            // A browser sends no credentials with a preflight (Fetch standard, "CORS-preflight fetch").
            *forwarded = Forwarded::NoToken;
            return Ok(anonymous());
        }
        let judged = match token::find(sources, request, joined) {
            Ok(judged) => Some(judged),
            Err(Denial::TokenMissing) if selection.allows_anonymous() => {
                if token::is_hidden(sources, request) {
                    return Err(Denial::TokenMalformed.into());
                }
                None
            }
            Err(denial) => return Err(denial.into()),
        };
        *forwarded = Forwarded::Only(judged);
        if self.is_forwarded_all_the_same(request, *forwarded)? {
            return Err(Denial::TokenMalformed.into());
        }
        match judged {
            None => Ok(anonymous()),
            Some(judged) => self.check_token(judged.token, selection).await,
        }
    }

    async fn check_token<'c>(&'c self, token: Token<'_>, selection: &Selection<'c>) -> Decided<'c> {
        // Before the digest, which reads every byte.
        let token = token.bounded(self.tokens.max_length)?;
        let digest = self.cache.digest_of(token);
        if let Some(digest) = digest
            && let Some(cached) = self.cache.get(&digest)
            && let Some(decided) = self.check_cached(&cached, selection)
        {
            self.observers.counts.count_cache_hit();
            if !cached.has_logged_change() && self.logs_change(&decided, selection) {
                self.cache.put(digest, cached.with_logged_change(true));
            }
            return decided;
        }
        self.observers.counts.count_cache_miss();
        let segments = token.split(self.tokens.max_length)?;
        let unverified = Unverified::peek(&segments)?;
        let iss = unverified.iss();
        let addressed = unverified.address(&self.issuers).map_err(|fault| {
            let iss = iss.filter(|_| fault.denial == Denial::IssuerUnknown);
            Refusal::from(fault).with(iss.map(|iss| Evidence::Iss(iss.into_owned())))
        })?;
        let issuer = addressed.issuer();
        let keys = self.keys_for(&addressed).await.map_err(|denial| {
            let kid = addressed.kid().filter(|_| denial == Denial::KeyUnknown);
            Refusal::of(&issuer.name, denial).with(kid.map(|kid| Evidence::Kid(kid.to_owned())))
        })?;
        let now = self.clock.now();
        let verified = addressed.verify(&keys, selection.audiences(issuer), now).map_err(|fault| {
            let claims = Object::parse(&segments.payload).ok();
            let evidence = claims.and_then(|claims| self.evidence(fault, &claims, issuer, selection, now));
            Refusal::of(&issuer.name, fault.denial).with(evidence)
        })?;
        let identity = verified.identity(&self.identity);
        let watched = self.revocations.as_ref().map(|revocations| Arc::new(revocations.watch(&verified)));
        let cached = digest.and_then(|digest| {
            let (needed, watched) = (&self.claims_needed, watched.clone());
            let cached = verified.to_cached(&keys, &self.issuers, needed, identity.clone(), watched);
            Some((digest, cached?))
        });
        let decided = self.grant(&verified, identity, watched.as_deref(), selection);
        let has_logged_change = self.logs_change(&decided, selection);
        if let Some((digest, cached)) = cached {
            self.cache.put(digest, cached.with_logged_change(has_logged_change));
        }
        decided
    }

    /// In a shadow rollout, counts a grant of which a header differs from the plain claim.
    fn count_change(&self, grant: &Grant<'_>, selection: &Selection<'_>) {
        if let Some(issuer) = grant.issuer()
            && self.is_in_shadow(selection)
            && grant.identity().changed().next().is_some()
        {
            self.observers.counts.count_changed_identity(issuer);
        }
    }

    /// In a shadow rollout, logs the headers of a grant that differ from the plain claims. Returns whether that is done: once for each
    /// token that is cached.
    fn logs_change(&self, decided: &Decided<'_>, selection: &Selection<'_>) -> bool {
        let grant = decided.as_ref().ok().filter(|_| self.is_in_shadow(selection));
        grant.is_some_and(|grant| self.observers.decisions.log_changed_identity(grant))
    }

    /// Checks a token that was verified before: its times and what the rules ask, not its signature. `None` if the key
    /// set that verified it was replaced or is too old.
    fn check_cached<'c>(&'c self, token: &CachedToken, selection: &Selection<'c>) -> Option<Decided<'c>> {
        let (issuer, now) = (token.issuer(&self.issuers)?, self.clock.now());
        let keys = self.keys.in_force(&issuer.name, now)?;
        let audiences =
            self.policy.has_audiences().then(|| selection.audiences(issuer)).into_iter().flatten();
        Some(match token.judge_again(issuer, keys, audiences, now)? {
            Ok(verified) => {
                self.grant(&verified, token.identity(), token.watched().map(AsRef::as_ref), selection)
            }
            Err(fault) => {
                let evidence =
                    token.claims().and_then(|claims| self.evidence(fault, &claims, issuer, selection, now));
                Err(Refusal::of(&issuer.name, fault.denial).with(evidence))
            }
        })
    }

    fn evidence(
        &self,
        fault: TokenFault,
        claims: &Object<'_>,
        issuer: &Issuer,
        selection: &Selection<'_>,
        now: UnixTime,
    ) -> Option<Evidence> {
        Evidence::of_claims(fault, claims, issuer, selection.audiences(issuer), &self.identity, now)
    }

    fn grant<'c>(
        &'c self,
        token: &Verified<'_, 'c>,
        identity: TokenIdentity,
        watched: Option<&WatchedToken>,
        selection: &Selection<'c>,
    ) -> Decided<'c> {
        let refusal = |denial| Refusal {
            subject: Some(token.subject().clone()),
            ..Refusal::of(&token.issuer().name, denial)
        };
        // The identity first: an unusable claim is reported whatever the rule requires.
        let grant = Grant::to(token, &self.identity, identity).map_err(|fault| {
            let evidence = self.evidence(fault, token.claims(), token.issuer(), selection, self.clock.now());
            refusal(fault.denial).with(evidence)
        })?;
        self.unless_revoked(watched).map_err(refusal)?;
        selection.judge(token).map_err(|(rule, denial)| Refusal { unmet: Some(rule), ..refusal(denial) })?;
        Ok(grant)
    }

    /// Whether some tokens can be judged: those of an issuer with keys, unless revocations are too old.
    pub(crate) fn is_ready(&self) -> bool {
        self.keys.is_ready() && !self.revocations.as_ref().is_some_and(|revocations| revocations.denies())
    }

    /// # Errors
    /// Those of [`Revocations::judge`].
    pub(crate) fn unless_revoked(&self, token: Option<&WatchedToken>) -> Result<(), Denial> {
        match (&self.revocations, token) {
            (None, _) => Ok(()),
            (Some(revocations), Some(token)) => revocations.judge(token),
            // A cache belongs to one configuration, so there is none without it.
            (Some(_), None) => Err(Denial::RevocationUnavailable),
        }
    }

    /// The issuer's keys. A check waits only for the first fetch, or if the token's key is unknown; both are bounded.
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
        // A future is as large as what it awaits: in a box, this rare wait does not enlarge every check's task.
        let asked = Box::pin(self.keys.ask(issuer, |keys| token.has_candidate(keys)));
        asked.await.map_err(|missing| match missing {
            Missing::Unknown => Denial::KeyUnknown,
            Missing::Unavailable => Denial::KeysUnavailable,
        })
    }
}

/// A decision that is not recorded yet.
pub(crate) struct Judged<'c> {
    decided: Decided<'c>,
    /// The name of the rule that decides; empty if no rule was selected.
    pub(crate) rule: &'c str,
    evidence: Option<Box<Evidence>>,
}

impl<'c> Judged<'c> {
    fn decision(&self) -> Decision<'_> {
        let (outcome, issuer, subject) = match &self.decided {
            Ok(grant) => {
                let outcome = grant.shadow().map_or(Outcome::Allowed, Outcome::ShadowDenied);
                (outcome, grant.issuer(), grant.subject())
            }
            Err(Refusal { denial, issuer, subject, .. }) => {
                (Outcome::Denied(*denial), *issuer, subject.as_ref())
            }
        };
        let (subject, evidence) = (subject.map(Subject::as_str), self.evidence.as_deref());
        Decision { outcome, issuer, evidence, subject, rule: self.rule, message_bytes: None }
    }

    pub(crate) fn into_verdict(self) -> Verdict<'c> {
        match self.decided {
            Err(refusal) => Verdict::Deny(refusal.denial),
            Ok(grant) => Verdict::Allow(grant),
        }
    }
}

type Decided<'c> = Result<Grant<'c>, Refusal<'c>>;

/// A denial, with the issuer and the verified subject of the token as far as they are known.
struct Refusal<'c> {
    denial: Denial,
    issuer: Option<&'c IssuerName>,
    /// In a box: a refusal travels through the types of every check.
    evidence: Option<Box<Evidence>>,
    subject: Option<Subject>,
    /// The rule whose requirement the token does not meet.
    unmet: Option<&'c Rule>,
}

impl<'c> Refusal<'c> {
    fn of(issuer: &'c IssuerName, denial: Denial) -> Self {
        Self { issuer: Some(issuer), ..Self::from(denial) }
    }

    fn with(self, evidence: Option<Evidence>) -> Self {
        Self { evidence: evidence.map(Box::new), ..self }
    }
}

impl From<Denial> for Refusal<'_> {
    fn from(denial: Denial) -> Self {
        Self { denial, issuer: None, evidence: None, subject: None, unmet: None }
    }
}

impl From<TokenFault> for Refusal<'_> {
    fn from(fault: TokenFault) -> Self {
        fault.denial.into()
    }
}
