//! The demo that the README names does what it says.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn every_row_comes_out_as_it_should() {
    // `cargo test` builds the examples beside the tests: <profile>/deps/demo-… and <profile>/examples/demo.
    let exe = std::env::current_exe().unwrap();
    let demo: PathBuf = exe.ancestors().nth(2).unwrap().join("examples/demo");
    let output = Command::new(&demo).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 11, "{said}");
    assert!(!said.contains("!!"), "{said}");
    let unknown = Command::new(&demo).arg("--keeep").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
