//! What is wrong with the form of a token, for the person who runs `verify`. Nothing of a signature is shown.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::domain::json::Object;

/// Why a text is no JWS of two JSON objects (RFC 7515 section 7.1).
pub(super) fn of_form(text: &str) -> Option<String> {
    of_what_is_around(text).or_else(|| of_segments(text))
}

/// What stands around a token where it was copied from.
fn of_what_is_around(text: &str) -> Option<String> {
    // Short: what is longer may be a secret itself.
    let is_word = |text: &str| {
        (1..=32).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if let Some((name, _)) = text.split_once(':')
        && is_word(name)
    {
        return Some(format!("{name}: is the name of a header: give its value alone"));
    }
    if let Some((scheme, rest)) = text.split_once(char::is_whitespace) {
        return Some(if is_word(scheme) && !rest.trim().contains(char::is_whitespace) {
            format!("{scheme} is the scheme of the credentials: give what follows it alone")
        } else {
            "it has white space inside".to_owned()
        });
    }
    if text.len() > 1 && ['"', '\''].iter().any(|quote| text.starts_with(*quote) && text.ends_with(*quote)) {
        return Some("it stands in quotes, which are no part of a token".to_owned());
    }
    let pair = text.split_once('=').filter(|(name, value)| {
        is_word(name)
            && !value.trim_start_matches('=').is_empty()
            && !value.trim_start_matches('=').starts_with('.')
    });
    match pair {
        Some((name, _)) => {
            Some(format!("{name}= is the name of a cookie or a parameter: give its value alone"))
        }
        None if text.contains(';') => Some("it has a semicolon, which ends a cookie".to_owned()),
        None => None,
    }
}

fn of_segments(text: &str) -> Option<String> {
    let segments: Vec<_> = text.split('.').collect();
    let [header, payload, signature] = segments.as_slice() else {
        return Some(match segments.len() {
            1 => "it is an opaque token, no JWT: its issuer alone can read it".to_owned(),
            5 => "it has five segments: it is encrypted (JWE, RFC 7516), and only its audience can read it"
                .to_owned(),
            count => format!("it has {count} segments; a signed token has three"),
        });
    };
    for (name, segment) in [("header", header), ("payload", payload), ("signature", signature)] {
        if let Some(problem) = of_encoding(segment) {
            return Some(format!("its {name} {problem}"));
        }
    }
    [("header", header), ("payload", payload)].into_iter().find_map(|(name, segment)| {
        let problem = of_json(&URL_SAFE_NO_PAD.decode(segment).ok()?)?;
        Some(format!("its {name} {problem}"))
    })
}

fn of_encoding(segment: &str) -> Option<String> {
    if segment.ends_with('=') {
        return Some("is padded with =, as those of AWS load balancers are; base64url in a token has no padding (RFC 7515 section 2)".to_owned());
    }
    if segment.contains(['+', '/']) {
        return Some("has + or /: it is base64, and a token is base64url (RFC 4648 section 5)".to_owned());
    }
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if let Some(other) = segment.chars().find(|c| !is_legal(*c)) {
        return Some(format!("has {other:?}, which base64url does not have"));
    }
    URL_SAFE_NO_PAD.decode(segment).err().map(|_| "is cut off, or has bits behind its last byte".to_owned())
}

fn of_json(bytes: &[u8]) -> Option<String> {
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return Some(format!("is not JSON: {error}")),
    };
    if !value.is_object() {
        return Some("is JSON, but not an object".to_owned());
    }
    let members: Object<'_> = serde_json::from_slice(bytes).ok()?;
    let mut names: Vec<_> = members.names().collect();
    names.sort_unstable();
    let doubled = names.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    });
    match doubled {
        Some(name) => Some(format!("has the member {name:?} twice: readers differ in which of them counts")),
        None if Object::parse(bytes).is_err() => {
            Some("has a member twice inside another one, or nests too deep".to_owned())
        }
        None => value
            .get("kid")
            .filter(|kid| kid.as_str().is_none_or(str::is_empty))
            .map(|kid| format!("has the kid {kid}, which is no text with content")),
    }
}

/// Why a signature may not verify although its key is the issuer's.
pub(super) fn of_signature(header: &[u8]) -> Option<String> {
    let header = Object::parse(header).ok()?;
    header.has("nonce").then(|| {
        "its header has a nonce: Microsoft issues such tokens for its own APIs (Graph), and only these can verify them; ask for a \
         token whose audience is your own API"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_form() {
        let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let token = |header: &str, payload: &str| format!("{}.{}.c2ln", encoded(header), encoded(payload));
        let good = token("{}", "{}");
        for (text, want) in [
            (format!("Bearer {good}"), "Bearer is the scheme"),
            (format!("bearer\t{good}"), "bearer is the scheme"),
            (format!("Authorization: Bearer {good}"), "Authorization: is the name of a header"),
            (format!("\"{good}\""), "in quotes"),
            (format!("'{good}'"), "in quotes"),
            (format!("psg_auth_token={good}"), "psg_auth_token= is the name of a cookie"),
            (format!("{good};"), "a semicolon"),
            (good.replacen('.', ".\n", 1), "white space inside"),
            (good.replace('.', "==."), "header is padded"),
            (format!("{good}="), "signature is padded"),
            (good.replace("c2ln", "c2+n"), "signature has + or /"),
            (good.replace("c2ln", "c2$n"), "signature has '$'"),
            (good.replace("c2ln", "c2lnc"), "signature is cut off"),
            ("opaque".to_owned(), "an opaque token"),
            ("a.b".to_owned(), "2 segments"),
            ("a.b.c.d.e".to_owned(), "encrypted"),
            (token("x", "{}"), "header is not JSON"),
            (token("{}", "[]"), "payload is JSON, but not an object"),
            (token("{}", r#"{"sub":"a","x":1,"s\u0075b":"b"}"#), "payload has the member \"sub\" twice"),
            (token("{}", r#"{"o":{"a":1,"a":2}}"#), "payload has a member twice inside"),
            (token(r#"{"kid":""}"#, "{}"), "header has the kid \"\""),
            (token(r#"{"kid":7}"#, "{}"), "header has the kid 7"),
        ] {
            let hint = of_form(&text).unwrap_or_default();
            assert!(hint.contains(want), "{text}: {hint}");
        }
        assert_eq!(of_form(&good), None);
    }
}
