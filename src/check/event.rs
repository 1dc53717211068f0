//! Verifying signed events with the keys that tokens are verified with.

use std::time::Duration;

use crate::check::authorizer::Authorizer;
use crate::config::EventSettings;
use crate::domain::denial::Denial;
use crate::domain::event::{EventFault, EventForm, EventLimits, UnverifiedEvent, VerifiedEvent};
use crate::domain::issuer::{Audience, Audiences, IssuerName};
use crate::domain::token::Token;

/// Why an event is not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unverifiable {
    /// It never will be.
    #[error(transparent)]
    Fault(#[from] EventFault),
    /// It may be later.
    #[error("the issuer's keys are not at hand")]
    KeysUnavailable,
}

impl Authorizer {
    /// Verifies an event of at most `max_bytes`, whose `iat` is at most `max_age` ago.
    ///
    /// # Errors
    /// [`Unverifiable`].
    pub(crate) async fn verify_event(
        &self,
        (form, text): (EventForm, &str),
        settings: &EventSettings,
        (max_bytes, max_age): (usize, Duration),
    ) -> Result<VerifiedEvent, Unverifiable> {
        let segments = Token::new(text.as_bytes()).split(max_bytes).map_err(EventFault::from)?;
        let accepts = |name: &IssuerName| !self.audiences_of_events(settings, name).is_empty();
        let event = UnverifiedEvent::peek(&segments, form)?.address(&self.issuers, accepts)?;
        let addressed = event.addressed();
        let keys = self.keys_for(addressed).await.map_err(|denial| match denial {
            Denial::KeyUnknown => EventFault::KeyUnknown.into(),
            _ => Unverifiable::KeysUnavailable,
        })?;
        let audiences = self.audiences_of_events(settings, &addressed.issuer().name);
        let limits = EventLimits { max_age, subject_claims: &settings.subject_claims };
        Ok(event.verify(&keys, audiences, &limits, self.clock.now())?)
    }

    /// The `aud` that an issuer's events may have. Of an issuer whose tokens' audience is not checked, only those that are configured
    /// for events.
    fn audiences_of_events<'c>(&'c self, settings: &'c EventSettings, name: &IssuerName) -> &'c [Audience] {
        let issuer = self.issuers.all().iter().find(|issuer| issuer.name == *name);
        match (&settings.audiences, issuer.map(|issuer| &issuer.audiences)) {
            (Some(audiences), _) | (None, Some(Audiences::OneOf(audiences))) => audiences,
            (None, Some(Audiences::NotChecked) | None) => &[],
        }
    }
}
