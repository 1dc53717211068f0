//! A signed event as it travels and is kept: as its issuer sent it, so that each who gets it can verify it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::domain::event::EventForm;

/// The longest event, in bytes.
pub(crate) const MAX_EVENT_BYTES: usize = 16 * 1024;

/// An event that its sender says is signed: not verified.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SignedEvent {
    pub form: EventForm,
    pub text: Arc<str>,
}

impl fmt::Debug for SignedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedEvent({:?}, {} bytes)", self.form, self.text.len())
    }
}

/// Which event it is, the same in each replica: a hash of the form and of all that is signed. Not of the signature, which has two forms
/// for some algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EventId(pub(super) u128);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl EventId {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

const NAMES: [(EventForm, &str); 2] =
    [(EventForm::LogoutToken, "logout_token"), (EventForm::SecurityEvent, "security_event")];

impl SignedEvent {
    pub(crate) fn id(&self) -> EventId {
        let signed = self.text.rsplit_once('.').map_or(&*self.text, |(signed, _)| signed);
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.form_name().as_bytes());
        context.update(b"\n");
        context.update(signed.as_bytes());
        let hash = context.finish();
        let first = hash.as_ref().first_chunk().copied().unwrap_or_default();
        EventId(u128::from_be_bytes(first))
    }

    pub(crate) fn form_name(&self) -> &'static str {
        NAMES.iter().find(|(form, _)| *form == self.form).map_or("", |(_, name)| name)
    }

    /// As a line, with its line break: what [`Self::of_line`] reads.
    pub(crate) fn line(&self) -> String {
        format!("{} {}\n", self.form_name(), self.text)
    }

    /// `None` if the line is none.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let (form, text) = line.split_once(' ')?;
        Self::of(form, text)
    }

    pub(crate) fn of(form: &str, text: &str) -> Option<Self> {
        let (form, _) = NAMES.iter().find(|(_, name)| *name == form)?;
        (text.len() <= MAX_EVENT_BYTES).then(|| Self { form: *form, text: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_what_is_signed() {
        let event = |form: &str, text: &str| SignedEvent::of(form, text).unwrap();
        let one = event("logout_token", "a.b.c");
        assert_eq!(one.id(), event("logout_token", "a.b.d").id(), "the signature may have another form");
        assert_ne!(one.id(), event("logout_token", "a.c.c").id());
        assert_ne!(one.id(), event("security_event", "a.b.c").id());
        assert_eq!(EventId::parse(&one.id().to_string()), Some(one.id()));
        assert_eq!(SignedEvent::of_line(one.line().trim_end()), Some(one.clone()));
        for line in ["", "logout_token", "other a.b.c", "a.b.c"] {
            assert_eq!(SignedEvent::of_line(line), None, "{line}");
        }
        assert_eq!(SignedEvent::of("logout_token", &"x".repeat(MAX_EVENT_BYTES + 1)), None);
        assert_eq!(format!("{one:?}"), "SignedEvent(LogoutToken, 5 bytes)");
    }
}
