//! Client text for the log. Nothing of a token may be in it, in whatever way the token is escaped or joined to other text: all
//! that follows the first thing that looks like a part of a token is left out.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The most bytes of a host, path, method or request ID that a line holds.
const MAX_FIELD_BYTES: usize = 256;

/// The most bytes that are searched. More than are shown: a token is recognized by its beginning, and that may be long in
/// escapes. Bounded, because a path may have 60 KiB.
const MAX_SEARCHED_BYTES: usize = 1024;

/// How often escapes are decoded. Text that has more layers is left out from its first escape on.
const MAX_LAYERS: usize = 4;

/// In decoded base64url, so many bytes of text with a quotation mark in it are taken for a part of a JSON object. Twelve random
/// bytes are text once in 100,000 times.
const JSON_BYTES: usize = 12;

/// The shortest run of characters that is taken for a signature. That of ES256 and of EdDSA has 86.
const MIN_SIGNATURE_BYTES: usize = 40;

/// Replaces what looks like a token, and all that follows it.
const TOKEN: &str = "[token]";

/// A client's bytes as text: up to the first thing that looks like a part of a token, and up to [`MAX_FIELD_BYTES`].
pub(super) fn redacted(bytes: &[u8]) -> String {
    let start = Decoded::of(bytes.get(..MAX_SEARCHED_BYTES).unwrap_or(bytes)).token_start();
    let before = start.filter(|start| *start < MAX_FIELD_BYTES).and_then(|start| bytes.get(..start));
    match before {
        Some(before) => String::from_utf8_lossy(before).into_owned() + TOKEN,
        None => String::from_utf8_lossy(bytes.get(..MAX_FIELD_BYTES).unwrap_or(bytes)).into_owned(),
    }
}

/// Text without its escapes.
struct Decoded {
    bytes: Vec<u8>,
    /// Where each byte, or its escape, begins in the original.
    origins: Vec<usize>,
    /// Where the first escape begins that was not decoded, if [`MAX_LAYERS`] were not enough.
    undecoded: Option<usize>,
}

impl Decoded {
    fn of(text: &[u8]) -> Self {
        let mut decoded = Self { bytes: text.to_vec(), origins: (0..text.len()).collect(), undecoded: None };
        for _ in 0..MAX_LAYERS {
            if decoded.first_escape().is_none() {
                break;
            }
            decoded = decoded.without_a_layer();
        }
        decoded.undecoded = decoded.first_escape();
        // Decoders of base64 skip control characters.
        let kept = |(byte, _): &(u8, usize)| !byte.is_ascii_control();
        (decoded.bytes, decoded.origins) =
            decoded.bytes.into_iter().zip(decoded.origins).filter(kept).unzip();
        decoded
    }

    fn first_escape(&self) -> Option<usize> {
        let at = (0..self.bytes.len()).find(|at| self.escape(*at).is_some())?;
        self.origins.get(at).copied()
    }

    fn without_a_layer(&self) -> Self {
        let (mut bytes, mut origins) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let (Some(byte), Some(origin)) = (self.bytes.get(at), self.origins.get(at)) {
            let (decoded, length) = self.escape(at).unwrap_or((*byte, 1));
            bytes.push(decoded);
            origins.push(*origin);
            at += length;
        }
        Self { bytes, origins, undecoded: None }
    }

    /// The byte of the escape at this place, and the escape's length: `%41`, `%u0041`, `\x41`, `\u0041`. A character beyond
    /// Latin-1 is in no token: any other byte that is in none may stand for it.
    fn escape(&self, at: usize) -> Option<(u8, usize)> {
        let (prefix, digits) = match self.bytes.get(at..)? {
            [b'%' | b'\\', b'u' | b'U', ..] => (2, 4),
            [b'\\', b'x' | b'X', ..] => (2, 2),
            [b'%', ..] => (1, 2),
            _ => return None,
        };
        let end = at + prefix + digits;
        let digits = self.bytes.get(at + prefix..end)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let value = u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        Some((u8::try_from(value).unwrap_or(b'?'), end - at))
    }

    /// Where in the original the first thing begins that looks like a part of a token.
    fn token_start(&self) -> Option<usize> {
        // `eyJ` is the base64url of `{"` and a letter.
        let header = memchr::memmem::find(&self.bytes, b"eyJ");
        let run = self.runs().find(|run| self.bytes.get(run.clone()).is_some_and(is_token_like));
        let found = header.into_iter().chain(run.map(|run| run.start)).min();
        found.and_then(|at| self.origins.get(at).copied()).into_iter().chain(self.undecoded).min()
    }

    /// The runs of base64url's characters.
    fn runs(&self) -> impl Iterator<Item = Range<usize>> {
        let mut at = 0;
        self.bytes.split(|byte| !is_base64url(*byte)).map(move |run| {
            let start = at;
            at += run.len() + 1;
            start..start + run.len()
        })
    }
}

const fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Whether a run of base64url's characters, which may be cut off, looks like a header, a payload or a signature, or like a
/// part of one.
fn is_token_like(run: &[u8]) -> bool {
    is_object(&decoded_from(run, 0)) || (0..4).any(|at| has_json(&decoded_from(run, at))) || is_random(run)
}

/// The bytes of the whole groups of four characters from this place on.
fn decoded_from(run: &[u8], at: usize) -> Vec<u8> {
    let rest = run.get(at..).unwrap_or_default();
    let groups = rest.get(..rest.len() / 4 * 4).unwrap_or_default();
    URL_SAFE_NO_PAD.decode(groups).unwrap_or_default()
}

/// Whether this is the beginning of a JSON object with a member.
fn is_object(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().strip_prefix(b"{").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"\""))
}

/// Whether somewhere in it is what JSON may hold: text with a quotation mark, or white space around a brace.
fn has_json(bytes: &[u8]) -> bool {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'{';
    bytes.windows(JSON_BYTES).any(|window| {
        let is_text = window.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        is_text && (window.contains(&b'"') || window.iter().all(is_space))
    })
}

/// Whether a run is as mixed as random bytes in base64url. Of its neighbours two in three are of different kinds there; in
/// names made of words, one in three at most. Hexadecimal IDs lack one kind.
fn is_random(run: &[u8]) -> bool {
    let kind = |byte: &u8| (byte.is_ascii_lowercase(), byte.is_ascii_uppercase(), byte.is_ascii_digit());
    let changes =
        run.windows(2).filter(|pair| matches!(pair, [one, other] if kind(one) != kind(other))).count();
    let kinds = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    run.len() >= MIN_SIGNATURE_BYTES
        && kinds.iter().all(|is_kind| run.iter().any(is_kind))
        && changes * 100 >= run.len() * 45
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIGNATURE: &str =
        "MEUCIQDx9sY3k_0aZt7Qv-1pLw8RbNf2Jc5HgUeXy4oKdTiAbQIgVn6Wm3Zs-Eu0rP8qGjF1xYhCl7BkOaD5tSvN2w";

    #[test]
    fn what_looks_like_a_token_is_not_shown_nor_what_follows_it() {
        for (text, want) in [
            ("/a/b", "/a/b"),
            ("/a/eyJhbGciOi.eyJpc3Mi.c2ln/b", "/a/[token]"),
            ("eyJhbGciOi", "[token]"),
            ("/eyJa.eyJb.c/eyJa.eyJb.c/x", "/[token]"),
            // Headers as JSON may write them: `{ "alg"`, `\n{"alg"`, `{` and a line's end, a name that is empty.
            ("/a/eyAiYWxnIjoi.eyJp.c2ln/b", "/a/[token]"),
            ("/a/CnsiYWxnIjoi.eyJp.c2ln/b", "/a/[token]"),
            ("/a/ew0KICJhbGciOiI.e30.c2ln", "/a/[token]"),
            ("/eyIiOjEs/b", "/[token]"),
            ("/eyAgICAgICAgICAgICAgICAg/b", "/[token]"),
            ("/x.eyAiYWxnIjoi.eyJp.c2ln", "/x.[token]"),
            ("/é/eyAiYWxnIjoi.eyJp.c2ln é", "/é/[token]"),
            ("/eyIiOjEs.e30.c2ln/x/eyJhbGci", "/[token]"),
            // Joined to other text.
            ("/a/tokeneyJhbGci", "/a/token[token]"),
            ("/a/xxxCnsiYWxnIjoiUlMyNTYi.e30.x", "/a/[token]"),
            ("/a;t=eyJh.eyJp;sig", "/a;t=[token]"),
            ("/a/eyJh/eyJp/c2ln", "/a/[token]"),
            ("/a/eyJh=.eyJp=.c2ln", "/a/[token]"),
            // Escaped, in layers, in other ways, broken up.
            ("/a/%65yJh%2EeyJp%2Ec2ln", "/a/[token]"),
            ("/a/%2565%79J", "/a/[token]"),
            ("/a/%25252565%79J", "/a/[token]"),
            ("/a/ey%4Ah.x", "/a/[token]"),
            ("/a/ey%4ah.x", "/a/[token]"),
            ("/a/%u0065yJh", "/a/[token]"),
            (r"/a/\u0065yJh", "/a/[token]"),
            (r"/a/\x65%5Cx79J", "/a/[token]"),
            ("/a/e%00y%0AJ", "/a/[token]"),
            ("/a/e/yJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.e30", "/a/e/[token]"),
            ("/a/yJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0", "/a/[token]"),
            // More layers than are decoded.
            ("/a/b%2525252565yJ", "/a/b[token]"),
            // No tokens.
            ("/a%20b/%E2%82%AC/100%25", "/a%20b/%E2%82%AC/100%25"),
            ("/a%2Fb%252Fc%zz%", "/a%2Fb%252Fc%zz%"),
            ("/eyA/ew/keyId/v1.2.3/shop.example.com", "/eyA/ew/keyId/v1.2.3/shop.example.com"),
            ("/keyInformation/keyImport/keyIdentifier", "/keyInformation/keyImport/keyIdentifier"),
            ("6f1c2a9e-3b7d-4e52-9a1f-0c8d7e6b5a43", "6f1c2a9e-3b7d-4e52-9a1f-0c8d7e6b5a43"),
            (
                "/Quarterly_Report_2024_Final_Version_For_Review",
                "/Quarterly_Report_2024_Final_Version_For_Review",
            ),
            (
                "/GetUserProfilesByOrganizationIdV2WithDetails",
                "/GetUserProfilesByOrganizationIdV2WithDetails",
            ),
            (
                "/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            ("a\u{1b}[31m", "a\u{1b}[31m"),
            ("", ""),
        ] {
            assert_eq!(redacted(text.as_bytes()), want, "{text}");
        }
        assert_eq!(redacted(format!("/a/{SIGNATURE}/b").as_bytes()), "/a/[token]");
        assert_eq!(redacted(b"\xff\xfe"), "\u{fffd}\u{fffd}");
        assert_eq!(redacted(&[b'a'; 70_000]).len(), MAX_FIELD_BYTES);
        assert_eq!(redacted(format!("/a/%{}", "25".repeat(20_000)).as_bytes()), "/a/[token]");
    }

    #[test]
    fn a_token_at_the_cut_leaves_no_part() {
        for length in MAX_FIELD_BYTES - 40..MAX_FIELD_BYTES + 10 {
            let path = format!("/{}/", "a".repeat(length - 2));
            for token in ["eyJhbGciOiJFUzI1NiJ9.e30.x", "CnsiYWxnIjoiRVMyNTYifQ.e30.x", SIGNATURE] {
                let plain = redacted(format!("{path}{token}").as_bytes());
                let layered: String = token.bytes().map(|byte| format!("%25{byte:02x}")).collect();
                let escaped = redacted(format!("{path}{layered}").as_bytes());
                let want = if length < MAX_FIELD_BYTES { format!("{path}[token]") } else { path.clone() };
                let want = if length < MAX_FIELD_BYTES { &want } else { &want[..MAX_FIELD_BYTES] };
                assert_eq!([&plain, &escaped], [want, want], "{length}");
            }
        }
    }

    /// What a reader of the log may make of a line: all escapes decoded, by other means than those that are tested.
    fn unescaped(line: &str) -> String {
        let mut read = line.to_owned();
        loop {
            let before = read.clone();
            for byte in (b'!'..=b'~').rev() {
                for form in [
                    format!("%{byte:02X}"),
                    format!("%u{byte:04X}"),
                    format!("\\u{byte:04X}"),
                    format!("\\x{byte:02X}"),
                ] {
                    for form in [form.to_ascii_lowercase(), form] {
                        read = read.replace(&form, char::from(byte).encode_utf8(&mut [0; 4]));
                    }
                }
            }
            if read == before {
                return read;
            }
        }
    }

    /// Escapes each character so often as `layers` says, in turn.
    fn escaped(text: &str, layers: &[u8], form: u8) -> String {
        let layers = layers.iter().cycle();
        let escape = |(c, layers): (char, &u8)| {
            let byte = u32::from(c);
            match (layers, form) {
                (0, _) => c.to_string(),
                (1, 1) => format!("\\u{byte:04x}"),
                (1, 2) => format!("%u{byte:04X}"),
                (1, 3) => format!("\\x{byte:02X}"),
                (layers, _) => format!("%{}{byte:02X}", "25".repeat(usize::from(*layers) - 1)),
            }
        };
        text.chars().zip(layers).map(escape).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_part_of_a_token_is_shown(
            before in "[a-z/;=.,%&-]{0,20}",
            padding in prop_oneof![3 => Just(0_usize), 1 => 180..260_usize],
            header in prop::sample::select(vec![
                r#"{"alg":"RS256","kid":"k1","typ":"JWT"}"#,
                r#"{ "alg" : "ES256" }"#,
                "\r\n{\t\"typ\":\"at+jwt\",\"alg\":\"EdDSA\"}",
                "{\n                              \"alg\":\"RS256\"}",
                r#"{"é":1,"alg":"RS256"}"#,
                r#"{"":1,"alg":"RS256"}"#,
            ]),
            payload in prop::sample::select(vec![
                r#"{"iss":"app1","sub":"user-1","exp":1800000000}"#,
                " { \"sub\" : \"user-1\" , \"exp\" : 1800000000 }",
            ]),
            signature in prop::collection::vec(any::<u8>(), 64..260),
            joints in prop::sample::select(vec![".", "%2E", "%252e", ";", "/", "./", "/.", "=.", "=%3D.", ".%0d%0a", "~", "%00."]),
            layers in prop::collection::vec(0..4_u8, 1..6),
            form in 0..4_u8,
            after in "[a-z/;=.]{0,20}",
        ) {
            let segments = [header.as_bytes(), payload.as_bytes(), &signature].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
            let token = segments.each_ref().map(|segment| escaped(segment, &layers, form)).join(joints);
            let text = format!("{}{before}{token}{after}{token}", "/a".repeat(padding / 2));
            let line = redacted(text.as_bytes());
            let read = unescaped(&line);
            for segment in &segments {
                for part in segment.as_bytes().windows(8).map(|part| str::from_utf8(part).unwrap()) {
                    prop_assert!(!line.contains(part) && !read.contains(part), "{line}\n{text}");
                }
            }
        }

        #[test]
        fn any_text_is_cut_and_kept_up_to_there(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let line = redacted(&bytes);
            let kept = line.strip_suffix(TOKEN).unwrap_or(&line);
            let cut = bytes.get(..MAX_FIELD_BYTES).unwrap_or(&bytes);
            let kept = kept.trim_end_matches(char::REPLACEMENT_CHARACTER);
            prop_assert!(String::from_utf8_lossy(cut).starts_with(kept));
        }
    }
}
