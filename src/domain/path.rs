//! The path that rules are matched against: one pure function. A path that the upstream could read differently is an
//! error, so a rule and the upstream agree on the resource or the request is denied.

/// The path may be read in more than one way, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path is ambiguous")]
pub(super) struct Ambiguous;

/// Cuts the query, decodes the escapes of unreserved characters, resolves dot segments and repeated slashes
/// (RFC 3986 sections 5.2.4 and 6.2.2).
///
/// # Errors
/// [`Ambiguous`] for all that upstreams are known to read differently: an encoded slash or backslash; a
/// semicolon beside a dot segment (path parameters are cut before or after dots are resolved); `..` after an
/// empty segment (slashes are merged before or after); an escaped escape; control characters, a backslash, `#`
/// or bytes beyond ASCII; overlong UTF-8; a broken escape; no leading slash, but for `*`; climbing above the root.
pub(super) fn normalize(target: &[u8]) -> Result<String, Ambiguous> {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if path == b"*" {
        return Ok("*".to_owned());
    }
    let path = unescape(path)?;
    resolve(path.strip_prefix('/').ok_or(Ambiguous)?)
}

/// Decodes the escapes of unreserved characters, writes the others in capitals.
fn unescape(path: &[u8]) -> Result<String, Ambiguous> {
    let mut plain = String::with_capacity(path.len());
    let mut bytes = path.iter().copied().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'%' => {
                let escaped = escape(path, at).ok_or(Ambiguous)?;
                bytes.nth(1);
                if escaped.is_ascii_alphanumeric() || b"-._~".contains(&escaped) {
                    plain.push(escaped.into());
                } else if is_ambiguous_escape(path, at, escaped) {
                    return Err(Ambiguous);
                } else {
                    plain.push_str(&format!("%{escaped:02X}"));
                }
            }
            0..=0x1f | 0x7f.. | b'\\' | b'#' => return Err(Ambiguous),
            plain_byte => plain.push(plain_byte.into()),
        }
    }
    // An upstream that decodes twice reads %252e as a dot. Its digits may have been escapes themselves.
    let escaped_escape = plain.match_indices("%25").any(|(at, _)| escape(plain.as_bytes(), at + 2).is_some());
    if escaped_escape { Err(Ambiguous) } else { Ok(plain) }
}

/// The byte that the escape at this place stands for.
fn escape(path: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| char::from(*path.get(at)?).to_digit(16);
    u8::try_from(digit(at + 1)? * 16 + digit(at + 2)?).ok()
}

fn is_ambiguous_escape(path: &[u8], at: usize, escaped: u8) -> bool {
    match escaped {
        b'/' | b'\\' | 0..=0x1f | 0x7f => true,
        // Longer forms of characters that have a shorter one (RFC 3629 section 3): a lax decoder finds a
        // dot or a slash in them.
        0xc0 | 0xc1 => true,
        0xe0 => following(path, at).is_some_and(|next| next < 0xa0),
        0xf0 => following(path, at).is_some_and(|next| next < 0x90),
        _ => false,
    }
}

/// The byte of the escape right after the one at this place.
fn following(path: &[u8], at: usize) -> Option<u8> {
    (path.get(at + 3) == Some(&b'%')).then(|| escape(path, at + 3)).flatten()
}

/// Resolves dot segments, then repeated slashes.
fn resolve(path: &str) -> Result<String, Ambiguous> {
    let mut kept: Vec<&str> = Vec::new();
    let mut has_dots = false;
    let mut ends_in_folder = false;
    for segment in path.split('/') {
        // What is left when path parameters are cut.
        let bare = segment.split(';').next().unwrap_or_default();
        let bare = bare.split("%3B").next().unwrap_or_default();
        has_dots |= bare == "." || bare == "..";
        ends_in_folder = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            ".." => match kept.pop() {
                None | Some("") => return Err(Ambiguous),
                Some(_) => {}
            },
            other => kept.push(other),
        }
    }
    if has_dots && (path.contains(';') || path.contains("%3B")) {
        return Err(Ambiguous);
    }
    kept.retain(|segment| !segment.is_empty());
    let mut normal = String::with_capacity(path.len() + 1);
    for segment in kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_folder || normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_one_way() {
        for (target, want) in [
            ("/", "/"),
            ("/?", "/"),
            ("/a/b?c=/../d", "/a/b"),
            ("/a?b#c", "/a"),
            ("*", "*"),
            ("//", "/"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a/b/../../c", "/c"),
            ("/%61%2D%7e", "/a-~"),
            ("/a/%2e%2E/b", "/b"),
            ("/%3a%c3%a9", "/%3A%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%25", "/a%25"),
            ("/a%25zz", "/a%25zz"),
            ("/a;b=c/d", "/a;b=c/d"),
            ("/...", "/..."),
            ("/a/...;/b", "/a/...;/b"),
            ("/~user/a b", "/~user/a b"),
            ("/a%E0%A4%A9", "/a%E0%A4%A9"),
            ("/A/a", "/A/a"),
        ] {
            assert_eq!(normalize(target.as_bytes()).as_deref(), Ok(want), "{target}");
        }
    }

    #[test]
    fn reads_two_ways_or_none() {
        for target in [
            "",
            "a",
            "?",
            "**",
            "http://a/b",
            "/..",
            "/a/../..",
            "/../a",
            "//..",
            "/a//../b",
            "/a//./../b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%252e",
            "/a%25%32%65",
            "/%",
            "/%4",
            "/%4g",
            "/%%41",
            "/a%00",
            "/a%0a",
            "/a%7f",
            "/a\tb",
            "/a\n",
            "/a\u{7f}",
            "/a#b",
            "/é",
            "/..;/a",
            "/a/..;x/b",
            "/a;x/../b",
            "/a/./b;c",
            "/a%3b/../b",
            "/a/%2e%2e;/b",
            "/.;/a",
            "/%c0%ae",
            "/%c1%9c",
            "/%e0%80%af",
            "/%f0%80%80%af",
        ] {
            assert_eq!(normalize(target.as_bytes()), Err(Ambiguous), "{target}");
        }
        assert_eq!(normalize(b"/a\xffb"), Err(Ambiguous));
        assert_eq!(normalize(b"/\xc0\xae"), Err(Ambiguous));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_normal_stays_and_never_climbs(
            target in "/([a.%;/]|%2e|%2E|%2f|%5c|%25|%61|\\.\\.|//|\\?){0,24}",
        ) {
            if let Ok(path) = normalize(target.as_bytes()) {
                prop_assert_eq!(normalize(path.as_bytes()), Ok(path.clone()));
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.contains("//"));
                for segment in path.split('/') {
                    prop_assert!(segment != "." && segment != "..", "{}", path);
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(target in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(path) = normalize(&target) {
                prop_assert_eq!(normalize(path.as_bytes()), Ok(path.clone()));
                prop_assert!(path.is_ascii());
            }
        }
    }
}
