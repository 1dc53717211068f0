//! Which targets have one reading, several, or none.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// All readings of a target.
fn read(target: &[u8]) -> Result<BTreeSet<String>, NotAPath> {
    let text = |path: &[u8]| path.iter().map(|byte| char::from(*byte)).collect::<String>();
    Ok(match Readings::of(target)? {
        Readings::One(path) => [text(path)].into(),
        Readings::Several(several) => {
            let mut found = BTreeSet::new();
            several.for_each(|_, path| {
                found.insert(text(path));
            });
            found
        }
        Readings::TooMany => ["too many".to_owned()].into(),
    })
}

#[test]
fn what_all_servers_read_alike() {
    for (target, want) in [
        ("/", "/"),
        ("/?", "/"),
        ("/?a=/../%zz#;\\", "/"),
        ("/a/b", "/a/b"),
        ("/A/b/", "/A/b/"),
        ("*", "*"),
        ("*?x", "*"),
        ("/.well-known/x.y", "/.well-known/x.y"),
        ("/.../a..b/..c", "/.../a..b/..c"),
        ("/~user/a b", "/~user/a b"),
        ("/v1/things:delete", "/v1/things:delete"),
        ("/odata/$batch(1)/x='y',z!@&+*", "/odata/$batch(1)/x='y',z!@&+*"),
    ] {
        assert!(
            matches!(Readings::of(target.as_bytes()), Ok(Readings::One(path)) if path == want.as_bytes()),
            "{target}"
        );
    }
}

#[test]
fn what_is_no_path() {
    for target in [
        "",
        "a",
        "?",
        "**",
        "http://a/b",
        "\\a",
        "%2fa",
        ";/a",
        "/..",
        "/a/../..",
        "/../a",
        "/a/%2e%2E/%2e.",
        "//..",
        "/%",
        "/%4",
        "/%4g",
        "/%%41",
        "/a%00",
        "/a%0a",
        "/a%7F",
        "/a\tb",
        "/a\n",
        "/a\u{7f}",
        "/a#b",
        "/%c0%ae",
        "/%c1%9c",
        "/%e0%80%af",
        "/%f0%80%80%af",
        "/%f8%80%80%80%af",
        "/%fc%80%80%80%80%af",
        "/é\u{1}",
    ] {
        assert_eq!(read(target.as_bytes()), Err(NotAPath), "{target}");
    }
    assert_eq!(read(b"/\xc0\xae"), Err(NotAPath));
    assert_eq!(read(b"/\xe0%80\xaf"), Err(NotAPath));
}

/// Among the readings of each target are at least these, and never those.
#[test]
fn what_servers_read_differently() {
    for (target, all_of, none_of) in [
        ("/a/./b/..", &["/a/./b/..", "/a/"][..], &["/"][..]),
        ("/a//b", &["/a//b", "/a/b"], &[]),
        ("/a//../b", &["/a//../b", "/a/../b", "/a/b", "/b"], &[]),
        ("/%61%2D%7e", &["/%61%2D%7e", "/a-~"], &[]),
        ("/v1/things%3Adelete", &["/v1/things%3Adelete", "/v1/things:delete"], &[]),
        ("/odata/%24batch", &["/odata/$batch"], &[]),
        ("/a%2Fb", &["/a%2Fb", "/a/b"], &[]),
        ("/a%2f..%2fb", &["/a%2f..%2fb", "/a%2F..%2Fb", "/a/../b", "/b"], &[]),
        ("/a%5cb", &["/a%5cb", "/a\\b", "/a/b"], &[]),
        ("/a\\b", &["/a\\b", "/a/b"], &[]),
        ("/admin;x=1/users", &["/admin;x=1/users", "/admin/users"], &[]),
        ("/a;/..;x/b", &["/a;/..;x/b", "/a/../b", "/b"], &[]),
        ("/a%3b/../b", &["/a;/../b", "/a/../b", "/b"], &[]),
        ("/a;x%2fy/b", &["/a/b", "/a/y/b"], &[]),
        ("/a%252fb", &["/a%252fb", "/a%2fb", "/a/b"], &[]),
        ("/a%25%32%66b", &["/a%2fb", "/a/b"], &[]),
        ("/a%252e%252e/b", &["/a%2e%2e/b", "/a../b"], &[]),
        ("/a%253b/b", &["/a;/b", "/a/b"], &[]),
        ("/a/%252e%252e%252fb", &["/a/../b", "/b"], &["/a/%2e%2e/b"]),
        ("/a%255cb", &["/a\\b", "/a/b"], &[]),
        ("/100%25", &["/100%25", "/100%"], &["/100"]),
        ("/100%25zz", &["/100%25zz", "/100%zz"], &[]),
        // What is no escape does not save the rest from being decoded twice.
        ("/a/%252e%252e/b%25zz", &["/a/../b%zz", "/b%zz"], &[]),
        ("/files/café", &["/files/caf%C3%A9", "/files/caf\u{c3}\u{a9}"], &[]),
        // Above the root only in a derived reading: it stops there.
        ("/a%2f..%2f..%2fb", &["/b"], &[]),
        ("/..;/b", &["/..;/b", "/../b", "/b"], &[]),
        ("/...;/..", &["/.../.."], &[]),
    ] {
        let found = read(target.as_bytes()).unwrap();
        for path in all_of {
            assert!(found.contains(*path), "{target} as {path}: {found:?}");
        }
        for path in none_of {
            assert!(!found.contains(*path), "{target} not as {path}: {found:?}");
        }
    }
}

#[test]
fn the_work_is_bounded() {
    let readings = |target: String| read(target.as_bytes()).unwrap();
    let all: BTreeSet<_> = ["too many".to_owned()].into();
    assert_eq!(readings("/a;".repeat(MAX_MARKS + 1)), all);
    assert_ne!(readings("/a;".repeat(MAX_MARKS)), all);
    assert_eq!(readings(format!("/;{}", "a".repeat(MAX_BYTES))), all);
    assert_eq!(readings(format!("/{}", "a".repeat(60_000))).len(), 1);
    // Escapes of ordinary characters are no marks.
    assert_ne!(readings("/%20".repeat(MAX_BYTES / 4)), all);
}

/// Every mark in every combination: so many readings and no more.
#[test]
fn the_number_of_readings_is_bounded() {
    let mut count = 0;
    let Readings::Several(several) = Readings::of(b"/a;b/%3b%25/%2f/\\x//..//./%24%5c").unwrap() else {
        panic!("several readings")
    };
    several.for_each(|_, _| count += 1);
    assert!(
        count
            <= 1 + 5
                * Separators::VARIANTS.len()
                * Decoding::VARIANTS.len()
                * (Parameters::VARIANTS.len() + 2),
        "{count}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readings_of_marks(target in "/([aA.%;/\\\\]|%2e|%2E|%2f|%5c|%25|%61|%3b|\\.\\.|//|\\?){0,24}") {
        if let Ok(found) = read(target.as_bytes()) {
            prop_assert!(found.contains("too many") || found.contains(target.split('?').next().unwrap()));
            for path in found {
                prop_assert!(path.starts_with('/') || path == "too many", "{}", path);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(target in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(&target);
        let _ = read(&[b"/", &target[..]].concat());
    }
}
