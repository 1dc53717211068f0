//! Which targets have one reading, several, or none.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// All readings of a target.
fn read(target: &[u8]) -> Result<BTreeSet<String>, NotAPath> {
    let text = |path: &[u8]| path.iter().map(|byte| char::from(*byte)).collect::<String>();
    Ok(match Readings::of(target)? {
        Readings::One(path) => [text(path)].into(),
        Readings::Several(all) => all.iter().map(|reading| text(&reading.path)).collect(),
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
        ("/%61%2D%7E", &["/%61%2D%7E", "/a-~"], &[]),
        ("/v1/things%3Adelete", &["/v1/things%3Adelete", "/v1/things:delete"], &[]),
        ("/odata/%24batch", &["/odata/$batch"], &[]),
        ("/a%2Fb", &["/a%2Fb", "/a/b"], &[]),
        ("/a%2f..%2fb", &["/a%2f..%2fb", "/a/../b", "/b"], &[]),
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
        ("/a/%252e%252e%252fb", &["/a/../b", "/b"], &[]),
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
        // In any order: a backslash separates before an escaped one does, escapes are decoded between two resolutions.
        ("/x%5cy\\..\\admin/z", &["/x%5cy/../admin/z", "/admin/z"], &[]),
        ("/x%2fy/%2e%2e/admin%2fz", &["/x%2fy/../admin%2fz", "/admin%2fz", "/admin/z"], &[]),
        ("/x%252fy/%2e%2e/admin%252fz", &["/admin/z"], &[]),
        ("/x%252fy/%252e%252e/admin/z", &["/admin/z", "/x/admin/z"], &[]),
        ("/x%2fy/../admin;z/q%2fw", &["/admin/q/w"], &[]),
        ("/api/x//%2f../../admin/z", &["/api/admin/z"], &[]),
        // A host after two slashes, a query after a semicolon or an escaped question mark.
        ("//x/admin/y", &["/admin/y"], &[]),
        ("/\\x/admin/y", &["/admin/y"], &[]),
        ("////a@b\\admin", &["\\admin", "/admin"], &[]),
        ("/admin;x/healthz", &["/admin"], &[]),
        ("/admin%3Fx", &["/admin"], &[]),
        ("/admin%2523x", &["/admin"], &[]),
        ("/adm%FFin/x", &["/admin/x"], &[]),
        ("//x\\a/admin/y", &["/admin/y"], &[]),
        ("/a%2fb", &["/a%2Fb", "/a/b"], &["/a%2fb"]),
        ("/a%252fb", &["/a%2Fb", "/a/b"], &["/a%2fb"]),
    ] {
        let found = read(target.as_bytes()).unwrap();
        for path in all_of {
            let mut capitals = path.as_bytes().to_vec();
            steps::capitalise_escapes(&mut capitals);
            assert!(found.contains(str::from_utf8(&capitals).unwrap()), "{target} as {path}: {found:?}");
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
    // Every mark in one target.
    assert_eq!(readings("/a;b/%3b%25/%2f/\\x//..//./%24%5c".to_owned()), all);
    assert_eq!(readings(format!("/{}", "%2525".repeat(10_000))), all);
    // What a second decoder might find in it cannot be told.
    for target in [
        "/ad%2509min/x",
        "/admin%2500x",
        "/%25u0061dmin",
        "/%25U0061dmin",
        "/%25c0%25ae",
        "/%25c0%ae",
        "/%25e0%2580%25ae",
    ] {
        assert_eq!(readings(target.to_owned()), all, "{target}");
    }
    assert_eq!(readings(format!("/{}", "a".repeat(60_000))).len(), 1);
    // Many marks of one kind are few readings, and so are escapes of ordinary characters.
    for target in
        ["/a;".repeat(500), "/a%2fb".repeat(300), "/%E3%81%82".repeat(340), "/%25E3%2581%2582".repeat(100)]
    {
        let found = readings(target.clone());
        assert!(found != all && found.len() < 12, "{target}: {}", found.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readings_of_marks(target in "/([aA.%;/\\\\]|%2e|%2E|%2f|%5c|%25|%61|%3b|\\.\\.|//|\\?){0,24}") {
        if let Ok(found) = read(target.as_bytes()) {
            let mut sent = target.split('?').next().unwrap().as_bytes().to_vec();
            steps::capitalise_escapes(&mut sent);
            let sent = String::from_utf8(sent).unwrap();
            prop_assert!(found.contains("too many") || found.contains(&sent));
            for path in found {
                prop_assert!(path.starts_with(['/', '\\']) || path == "too many", "{}", path);
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(target in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = read(&target);
        let _ = read(&[b"/", &target[..]].concat());
    }
}
