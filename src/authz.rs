//! The hot path: one check from the request's view to the verdict, and the gRPC service around it.

use std::sync::Arc;

use tonic::{Request as GrpcRequest, Response, Status};

use crate::clock::Clock;
use crate::config::Tokens;
use crate::denial::{Denial, Wording};
use crate::identity::Identity;
use crate::issuer::Issuers;
use crate::keys::KeySet;
use crate::keys::store::{KeyStore, Missing};
use crate::request::Request;
use crate::token;
use crate::verdict::{Grant, Verdict};
use crate::verify::{Addressed, Unverified};
use crate::wire::{self, Authorization, CheckRequest, CheckResponse};

/// Decides checks. Everything it needs is at hand; it never fetches.
#[derive(Debug)]
pub struct Authorizer {
    /// Where tokens are looked for.
    pub tokens: Tokens,
    /// Who may issue them.
    pub issuers: Issuers,
    /// What the service behind is told.
    pub identity: Identity,
    /// How a denial is worded.
    pub wording: Wording,
    /// The keys at hand.
    pub keys: Arc<KeyStore>,
    /// The time.
    pub clock: Clock,
}

impl Authorizer {
    /// One check, from the token's place in the request to the verdict.
    pub async fn check(&self, request: &Request<'_>) -> Verdict {
        match self.grant(request).await {
            Ok(grant) => Verdict::Allow(grant),
            Err(denial) => Verdict::Deny(denial),
        }
    }

    async fn grant(&self, request: &Request<'_>) -> Result<Grant, Denial> {
        let token = token::find(&self.tokens.from, request)?;
        let parts = token.split(self.tokens.max_length)?;
        let addressed = Unverified::peek(&parts)?.address(&self.issuers)?;
        let keys = self.keys_for(&addressed).await?;
        let verified = addressed.verify(&keys, self.clock.now())?;
        Ok(Grant::to(&verified, &self.identity))
    }

    /// The issuer's keys at hand; only a token with an unknown key makes the request wait, and not long.
    async fn keys_for(&self, token: &Addressed<'_, '_>) -> Result<Arc<KeySet>, Denial> {
        let issuer = &token.issuer().name;
        match self.keys.snapshot(issuer, self.clock.now()) {
            Ok(keys) if token.has_candidate(&keys) => return Ok(keys),
            Err(_) if !self.keys.is_starting(issuer) => {
                self.keys.nudge(issuer);
                return Err(Denial::KeysUnavailable);
            }
            Ok(_) | Err(_) => {}
        }
        self.keys.ask(issuer, |keys| token.has_candidate(keys)).await.map_err(|missing| match missing {
            Missing::Unknown => Denial::KeyUnknown,
            Missing::Unavailable => Denial::KeysUnavailable,
        })
    }
}

/// `envoy.service.auth.v3.Authorization`. The call itself succeeds on every verdict.
#[derive(Debug)]
pub(crate) struct Service(pub(crate) Arc<Authorizer>);

#[tonic::async_trait]
impl Authorization for Service {
    async fn check(&self, request: GrpcRequest<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let message = request.into_inner();
        let verdict = match wire::view(&message) {
            Ok(request) => self.0.check(&request).await,
            Err(denial) => Verdict::Deny(denial),
        };
        match &verdict {
            Verdict::Allow(grant) => tracing::debug!(outcome = "allowed", issuer = %grant.issuer(), "check"),
            Verdict::Deny(denial) => tracing::debug!(outcome = "denied", code = denial.code(), "check"),
        }
        Ok(Response::new(wire::answer(&verdict, &self.0.wording)))
    }
}
