//! Which tokens are good no longer although they have not expired. An entry names a token, a session, a user, a client or all of an
//! issuer's tokens; it holds for tokens that were issued up to a time, and is gone when the last of them has expired. Nothing is
//! approximate: a token is named by an entry or it is not.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::value::RawValue;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use strum::VariantArray;

use crate::domain::claim::Claim;
use crate::domain::clock::UnixTime;
use crate::domain::issuer::IssuerName;
use crate::domain::json::{Member, Object};

/// What an entry names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub(crate) enum Kind {
    /// One token (RFC 7519 section 4.1.7).
    Jti,
    /// The tokens of a session (OpenID Connect Front-Channel Logout 1.0 section 3).
    Sid,
    /// The tokens of a user: `sub`, or what the issuer's `subject` makes of it.
    Sub,
    /// The tokens of a client: `azp` or `client_id`.
    Client,
    /// All tokens of the issuer.
    Issuer,
}

impl Kind {
    /// Its name in files, metrics and messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Jti => "jti",
            Self::Sid => "sid",
            Self::Sub => "sub",
            Self::Client => "client",
            Self::Issuer => "issuer",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::VARIANTS.iter().copied().find(|kind| kind.name() == name)
    }
}

/// What a signed event names. Beside the `iss` that signed it, never a configured name: what an issuer is called may change while the
/// event holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventSubject {
    /// A user by `sub`.
    Sub,
    /// A session by `sid`.
    Sid,
    /// A user by an e-mail address (RFC 9493 section 3.2.2), in lower case.
    Email,
    /// A user by an account (RFC 9493 section 3.2.1).
    Account,
}

impl EventSubject {
    /// What it is counted as.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Sid => Kind::Sid,
            Self::Sub | Self::Email | Self::Account => Kind::Sub,
        }
    }
}

/// The claims that subjects of events are held against which have none of their own in RFC 7519 or OpenID Connect. An event with such a
/// subject is refused where its claim is not configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SubjectClaims {
    pub email: Option<Claim>,
    pub account: Option<Claim>,
}

/// One entry, as a source gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub issuer: IssuerName,
    pub kind: Kind,
    /// Empty for [`Kind::Issuer`].
    pub value: String,
    /// Tokens whose `iat` is not after it are revoked.
    pub issued_before: UnixTime,
    /// When no such token can be good any more.
    pub until: UnixTime,
}

/// What an entry names, as a keyed hash of 128 bits: entries take little memory, and nobody who does not know the key finds two names
/// with one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameHash([u64; 2]);

impl NameHash {
    /// One of `count` places, evenly. Not by the bits that place it in a table.
    pub(crate) const fn place(self, count: usize) -> usize {
        let [high, _] = self.0;
        (high >> 32) as usize % count
    }

    /// What an entry that an event brought is counted as. The lowest bit of the first half says it, so that no entry has to.
    const fn event_kind(self) -> Kind {
        let [high, _] = self.0;
        if high & 1 == 1 { Kind::Sid } else { Kind::Sub }
    }

    const fn of_event_kind(self, kind: Kind) -> Self {
        let [high, low] = self.0;
        Self([high & !1 | matches!(kind, Kind::Sid) as u64, low])
    }
}

impl Hash for NameHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [_, low] = self.0;
        state.write_u64(low);
    }
}

/// A [`NameHash`] is evenly distributed already.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Makes [`NameHash`]es by a secret key.
#[derive(Clone)]
pub(crate) struct NameHashing(SipHasher24);

impl std::fmt::Debug for NameHashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameHashing(..)")
    }
}

impl NameHashing {
    pub(crate) fn with_key(key: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    pub(crate) fn of(&self, issuer: &IssuerName, kind: Kind, value: &str) -> NameHash {
        self.hash(issuer.as_str(), kind as u64, value)
    }

    /// What an event of this `iss` names.
    pub(crate) fn of_event(&self, iss: &str, subject: EventSubject, value: &str) -> NameHash {
        const AFTER_KINDS: u64 = 16;
        self.hash(iss, AFTER_KINDS + subject as u64, value).of_event_kind(subject.kind())
    }

    fn hash(&self, issuer: &str, kind: u64, value: &str) -> NameHash {
        let mut hasher = self.0;
        for part in [issuer, value] {
            // The length first, so that no two pairs are the same bytes.
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        hasher.write_u64(kind);
        let hash = hasher.finish128();
        NameHash([hash.h1, hash.h2])
    }
}

/// The names that a token goes by, and when it was issued: all that is looked up of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenNames {
    names: Box<[NameHash]>,
    /// `iat`, cut to the second; `None` if there is none that is a number.
    issued_at: Option<u64>,
}

impl TokenNames {
    /// `claims` are the token's own, `subject` what the issuer's `subject` makes of them: an entry may name either.
    /// With `events`, also what events can name.
    pub(crate) fn of(
        claims: &Object<'_>,
        subject: &str,
        issuer: &IssuerName,
        hashing: &NameHashing,
        events: Option<&SubjectClaims>,
    ) -> Self {
        let claimed = [
            (Kind::Jti, "jti"),
            (Kind::Sid, "sid"),
            (Kind::Sub, "sub"),
            (Kind::Client, "azp"),
            (Kind::Client, "client_id"),
        ];
        let mut names = vec![hashing.of(issuer, Kind::Issuer, ""), hashing.of(issuer, Kind::Sub, subject)];
        for (kind, claim) in claimed {
            let Some(raw) = claims.own(claim) else { continue };
            let name = match Member::of(Some(raw)) {
                Member::String(text) => hashing.of(issuer, kind, &text),
                // By its digits: an entry can hold nothing else.
                Member::Number(_) => hashing.of(issuer, kind, raw.get()),
                _ => continue,
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if let (Some(events), Member::String(iss)) = (events, claims.member("iss")) {
            names.extend(event_names(claims, &iss, hashing, events));
        }
        let issued_at = match claims.member("iat") {
            // Fractions are cut here and in entries alike; what is below zero is before all entries.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a cast of a float saturates"
            )]
            Member::Number(iat) => Some(iat as u64),
            _ => None,
        };
        Self { names: names.into(), issued_at }
    }

    pub(crate) fn hashes(&self) -> impl Iterator<Item = NameHash> {
        self.names.iter().copied()
    }
}

fn event_names<'c>(
    claims: &Object<'c>,
    iss: &str,
    hashing: &NameHashing,
    events: &SubjectClaims,
) -> impl Iterator<Item = NameHash> {
    // As entries of a file: a number by its digits, since an event can hold nothing else.
    let text = |raw: Option<&'c RawValue>| match Member::of(raw) {
        Member::String(text) => Some(text),
        Member::Number(_) => raw.map(|raw| raw.get().into()),
        _ => None,
    };
    let of = |claim: &Option<Claim>| text(claim.as_ref().and_then(|claim| claim.of(claims)));
    let email = of(&events.email).map(|email| email.to_ascii_lowercase().into());
    [
        (EventSubject::Sub, text(claims.own("sub"))),
        (EventSubject::Sid, text(claims.own("sid"))),
        (EventSubject::Email, email),
        (EventSubject::Account, of(&events.account)),
    ]
    .into_iter()
    .filter_map(|(subject, value)| Some(hashing.of_event(iss, subject, &value?)))
}

/// A verified token, with the epoch in which no entry named it. Each change of the entries begins an epoch; in the same one nothing
/// has to be looked up again.
#[derive(Debug)]
pub(crate) struct WatchedToken {
    names: TokenNames,
    /// 0 before the token was judged.
    good_in: AtomicU64,
}

impl WatchedToken {
    pub(crate) const fn new(names: TokenNames) -> Self {
        Self { names, good_in: AtomicU64::new(0) }
    }

    pub(crate) const fn names(&self) -> &TokenNames {
        &self.names
    }

    /// Whether the token was judged in this epoch, and was good.
    pub(crate) fn is_good_in(&self, epoch: u64) -> bool {
        self.good_in.load(Ordering::Relaxed) == epoch
    }

    /// No entry of this epoch names the token.
    pub(crate) fn found_good_in(&self, epoch: u64) {
        self.good_in.store(epoch, Ordering::Relaxed);
    }
}

/// The times of an entry, in seconds since 1970. 32 bits last until 2106, and later times stand for that year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// Cut to the second.
    issued_before: u32,
    /// Rounded up.
    until: u32,
}

impl Times {
    pub(crate) fn new(issued_before: UnixTime, until: UnixTime) -> Self {
        let seconds = |seconds: u64| u32::try_from(seconds).unwrap_or(u32::MAX);
        Self { issued_before: seconds(issued_before.as_secs()), until: seconds(until.rounded_up().as_secs()) }
    }

    const fn covers(self, other: Self) -> bool {
        self.issued_before >= other.issued_before && self.until >= other.until
    }

    fn hold_for(self, issued_at: Option<u64>, now: u64) -> bool {
        u64::from(self.until) > now && {
            // Later times stand for 2106 on both sides.
            issued_at.is_none_or(|at| at.min(u32::MAX.into()) <= self.issued_before.into())
        }
    }
}

/// Entries by what they name. In whatever order and how often entries are added, the outcome is the same.
#[derive(Debug, Default)]
pub(crate) struct Revoked {
    entries: HashMap<NameHash, Times, BuildHasherDefault<AsItIs>>,
    /// Further times of a name, where none covers another: rare, as a later entry usually lasts longer.
    more: HashMap<NameHash, Vec<Times>, BuildHasherDefault<AsItIs>>,
    /// By [`Kind`].
    counts: [usize; Kind::VARIANTS.len()],
}

impl Revoked {
    /// Room for so many names at once: a table that grows is held twice for a while.
    pub(crate) fn with_capacity(names: usize) -> Self {
        let entries = HashMap::with_capacity_and_hasher(names, BuildHasherDefault::default());
        Self { entries, ..Self::default() }
    }

    /// Whether any entry is not of the past. Looks at all of them.
    pub(crate) fn holds_any(&self, now: UnixTime) -> bool {
        let more = self.more.values().flatten();
        self.entries.values().chain(more).any(|times| u64::from(times.until) > now.as_secs())
    }

    /// How many entries there are, those included that became of the past after they were added.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The entries of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.counts.get(kind as usize).copied().unwrap_or_default()
    }

    /// Adds an entry; one that says nothing new changes nothing.
    pub(crate) fn add(&mut self, name: NameHash, kind: Kind, times: Times) {
        let Some(first) = self.entries.get_mut(&name) else {
            self.entries.insert(name, times);
            return self.count_changed(kind, 1, 0);
        };
        let more = self.more.get(&name).map_or(&[][..], Vec::as_slice);
        if first.covers(times) || more.iter().any(|other| other.covers(times)) {
            return;
        }
        let before = more.len();
        let mut left: Vec<_> = more.iter().copied().filter(|other| !times.covers(*other)).collect();
        if times.covers(*first) {
            *first = times;
        } else {
            left.push(times);
        }
        let after = left.len();
        if left.is_empty() {
            self.more.remove(&name);
        } else {
            self.more.insert(name, left);
        }
        self.count_changed(kind, after, before);
    }

    /// Takes out the entries of the past, of which each is one of an event, and gives back what memory they took if it is much.
    pub(crate) fn remove_past(&mut self, now: UnixTime) {
        let lasts = |times: &Times| u64::from(times.until) > now.as_secs();
        let Self { entries, more, counts } = self;
        *counts = [0; Kind::VARIANTS.len()];
        entries.retain(|name, first| {
            let mut left = more.remove(name).unwrap_or_default();
            left.retain(lasts);
            if !lasts(first) {
                let Some(another) = left.pop() else { return false };
                *first = another;
            }
            if let Some(count) = counts.get_mut(name.event_kind() as usize) {
                *count += 1 + left.len();
            }
            if !left.is_empty() {
                more.insert(*name, left);
            }
            true
        });
        if entries.len() < entries.capacity() / 4 {
            entries.shrink_to_fit();
        }
    }

    fn count_changed(&mut self, kind: Kind, added: usize, removed: usize) {
        if let Some(count) = self.counts.get_mut(kind as usize) {
            *count = (*count + added).saturating_sub(removed);
        }
    }

    /// Whether an entry names this and holds for a token that was issued then.
    fn names(&self, name: &NameHash, issued_at: Option<u64>, now: u64) -> bool {
        let Some(first) = self.entries.get(name) else { return false };
        let more = if self.more.is_empty() { None } else { self.more.get(name) };
        std::iter::once(first).chain(more.into_iter().flatten()).any(|times| times.hold_for(issued_at, now))
    }

    /// Whether an entry names the token by this one of its names.
    pub(crate) fn is_revoked_as(&self, name: &NameHash, token: &TokenNames, now: UnixTime) -> bool {
        self.names(name, token.issued_at, now.as_secs())
    }

    /// Whether an entry names the token by any of its names.
    pub(crate) fn is_revoked(&self, token: &TokenNames, now: UnixTime) -> bool {
        token.hashes().any(|name| self.is_revoked_as(&name, token, now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashing() -> NameHashing {
        NameHashing::with_key(&[7; 16])
    }

    fn entry(kind: Kind, value: &str, issued_before: u64, until: u64) -> Revocation {
        let at = UnixTime::from_secs;
        let issuer = IssuerName::new("i");
        Revocation {
            issuer,
            kind,
            value: value.to_owned(),
            issued_before: at(issued_before),
            until: at(until),
        }
    }

    fn set(entries: &[Revocation]) -> Revoked {
        let mut revoked = Revoked::default();
        for entry in entries {
            let times = Times::new(entry.issued_before, entry.until);
            revoked.add(hashing().of(&entry.issuer, entry.kind, &entry.value), entry.kind, times);
        }
        revoked
    }

    fn is_revoked(revoked: &Revoked, claims: &str, issuer: &str, now: u64) -> bool {
        let claims = Object::parse(claims.as_bytes()).unwrap();
        let token = TokenNames::of(&claims, "oid-1", &IssuerName::new(issuer), &hashing(), None);
        revoked.is_revoked(&token, UnixTime::from_secs(now))
    }

    #[test]
    fn a_token_is_named_or_it_is_not() {
        let claims = r#"{"jti":"t","sid":"s","sub":"u","azp":"a","client_id":"c","iat":100.9}"#;
        for (kind, value, named) in [
            (Kind::Jti, "t", true),
            (Kind::Jti, "s", false),
            (Kind::Jti, "T", false),
            (Kind::Jti, "", false),
            (Kind::Sid, "s", true),
            (Kind::Sub, "u", true),
            (Kind::Sub, "oid-1", true),
            (Kind::Client, "a", true),
            (Kind::Client, "c", true),
            (Kind::Client, "u", false),
            (Kind::Issuer, "", true),
            (Kind::Issuer, "i", false),
        ] {
            let revoked = set(&[entry(kind, value, 100, 200)]);
            assert_eq!(is_revoked(&revoked, claims, "i", 150), named, "{kind:?} {value}");
            assert!(!is_revoked(&revoked, claims, "other", 150), "another issuer's tokens are others");
        }
    }

    #[test]
    fn an_entry_holds_for_tokens_that_were_issued_up_to_a_time_and_until_a_time() {
        let revoked = set(&[entry(Kind::Sub, "u", 100, 200)]);
        for (iat, now, holds) in [
            (r#","iat":99"#, 150, true),
            (r#","iat":100"#, 199, true),
            (r#","iat":100.5"#, 150, true),
            (r#","iat":101"#, 150, false),
            (r#","iat":1700000000000"#, 150, false),
            (r#","iat":1e300"#, 150, false),
            (r#","iat":-1e300"#, 150, true),
            ("", 150, true),
            (r#","iat":null"#, 150, true),
            (r#","iat":"150""#, 150, true),
            (r#","iat":99"#, 200, false),
            ("", 200, false),
        ] {
            assert_eq!(
                is_revoked(&revoked, &format!(r#"{{"sub":"u"{iat}}}"#), "i", now),
                holds,
                "{iat} {now}"
            );
        }
        // An `iat` in milliseconds, or beyond all times: an entry for as much names it.
        for late in [1_700_000_000_000, u64::MAX] {
            let revoked = set(&[entry(Kind::Sub, "u", late, u64::MAX)]);
            assert!(is_revoked(&revoked, &format!(r#"{{"sub":"u","iat":{late}}}"#), "i", 150), "{late}");
        }
        let numbers = set(&[entry(Kind::Sid, "18446744073709551617", 100, 200)]);
        assert!(is_revoked(&numbers, r#"{"sid":18446744073709551617}"#, "i", 150));
    }

    #[test]
    fn a_million_entries_take_25_bytes_a_place() {
        assert_eq!(size_of::<(NameHash, Times)>(), 24);
    }

    #[test]
    fn issuer_and_value_are_kept_apart() {
        let name = |issuer: &str, value: &str| hashing().of(&IssuerName::new(issuer), Kind::Sub, value);
        assert_ne!(name("ab", "c"), name("a", "bc"));
        assert_ne!(name("", "abc"), name("abc", ""));
        let other = NameHashing::with_key(&[8; 16]);
        assert_ne!(name("a", "b"), other.of(&IssuerName::new("a"), Kind::Sub, "b"));
    }

    /// All entries, each looked at by itself.
    fn model(entries: &[Revocation], iat: Option<u64>, now: u64) -> bool {
        entries.iter().any(|entry| {
            entry.until.as_secs() > now && iat.is_none_or(|iat| iat <= entry.issued_before.as_secs())
        })
    }

    proptest! {
        #[test]
        fn order_and_repetition_change_nothing(
            times in proptest::collection::vec((0_u64..20, 0_u64..20), 0..12),
            order in any::<u64>(),
            iat in proptest::option::of(0_u64..22),
            now in 0_u64..22,
        ) {
            let entries: Vec<_> =
                times.iter().map(|(before, until)| entry(Kind::Sub, "u", *before, *until)).collect();
            let mut shuffled: Vec<_> = entries.iter().chain(&entries).cloned().collect();
            let mut random = fastrand::Rng::with_seed(order);
            random.shuffle(&mut shuffled);
            let revoked = set(&shuffled);
            prop_assert_eq!(revoked.len(), revoked.entries.len() + revoked.more.values().map(Vec::len).sum::<usize>());
            let claims = iat.map_or(r#"{"sub":"u"}"#.to_owned(), |iat| format!(r#"{{"sub":"u","iat":{iat}}}"#));
            let want = model(&entries, iat, now);
            prop_assert_eq!(is_revoked(&revoked, &claims, "i", now), want);
        }
    }
}
