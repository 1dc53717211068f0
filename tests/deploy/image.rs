//! The container image without a container engine: its Dockerfile is linted, and the binary that it would hold is
//! built as there, from the files that are copied there, and run in a root that holds what the image holds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::support::fixtures::{bearer, good, key};
use crate::support::process::Running;
use crate::support::tls::Tls;
use crate::support::{Answer, WAIT_LIMIT, check_request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use passage_authz::config::Config;
use passage_authz::testing::FakeIssuer;
use serde_json::Value;
use tokio::process::Command;

const DOCKERFILE: &str = include_str!("../../deploy/Dockerfile");
const TOOLCHAIN: &str = include_str!("../../rust-toolchain.toml");

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An instruction and its arguments, continued lines joined.
type Instruction = (String, String);

fn instructions(dockerfile: &str) -> Vec<Instruction> {
    let lines = dockerfile.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let instruction = |line: &str| {
        let (name, arguments) = line.trim().split_once(' ')?;
        Some((name.to_ascii_uppercase(), arguments.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    joined.lines().filter_map(instruction).collect()
}

fn of<'i>(stage: &'i [Instruction], name: &str) -> Vec<&'i str> {
    stage.iter().filter(|(found, _)| found == name).map(|(_, arguments)| arguments.as_str()).collect()
}

/// What is wrong with a Dockerfile, by the rules that its readers count on.
fn lint(dockerfile: &str) -> Vec<String> {
    let all = instructions(dockerfile);
    let mut faults = Vec::new();
    let mut demand = |what: &str, holds: bool| {
        if !holds {
            faults.push(what.to_owned());
        }
    };
    let last = all.iter().rposition(|(name, _)| name == "FROM").unwrap_or_default();
    let stage = &all[last..];
    let arguments = of(&all, "ARG");
    let resolved = |image: &str| {
        let named = image.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let default = |name| arguments.iter().find_map(|argument| argument.strip_prefix(&format!("{name}=")));
        named.map_or(image, |name| default(name).unwrap_or_default()).to_owned()
    };
    for from in of(&all, "FROM") {
        let image = resolved(from.split(' ').next().unwrap_or_default());
        let pinned =
            image.contains('@') || image.split_once(':').is_some_and(|(_, tag)| !tag.starts_with("latest"));
        demand("a base without a tag", image == "scratch" || pinned);
    }
    let version = TOOLCHAIN.split('"').nth(1).unwrap_or_default();
    let bases = arguments.iter().filter_map(|argument| argument.strip_prefix("BASE=rust:"));
    demand(
        "not the pinned toolchain",
        bases.clone().count() == 1 && bases.into_iter().all(|tag| tag.starts_with(version)),
    );
    demand("a last stage with a shell", of(stage, "FROM") == ["scratch"] && of(stage, "RUN").is_empty());
    demand("ADD", of(&all, "ADD").is_empty());
    let user = of(stage, "USER");
    let numeric = |user: &str| user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0));
    demand("no numeric user but root", user.len() == 1 && numeric(user[0]));
    demand("the entry point is no JSON list", of(stage, "ENTRYPOINT") == [r#"["/passage-authz"]"#]);
    demand("not served by default", of(stage, "CMD") == [r#"["serve"]"#]);
    let secret =
        |text: &&str| ["TOKEN", "SECRET", "PASSWORD"].iter().any(|word| text.to_uppercase().contains(word));
    demand("a secret", !arguments.iter().chain(&of(&all, "ENV")).any(secret));
    demand(
        "a build that may change the lock file",
        of(&all, "RUN").iter().all(|run| !run.contains("cargo build") || run.contains("--locked")),
    );
    let defaults = Config::parse("issuers: [{name: p, passage: {app_id: a}}]", "").unwrap();
    let ports = [defaults.server.listen.to_string(), defaults.admin_listen];
    let ports = ports.map(|listen| listen.rsplit(':').next().unwrap_or_default().to_owned()).join(" ");
    demand("not the default ports", of(stage, "EXPOSE") == [ports]);
    for copied in of(stage, "COPY") {
        demand("copied from outside", copied.starts_with("--from=build "));
    }
    let labels = of(stage, "LABEL").join(" ");
    for label in ["title", "description", "licenses", "source", "version", "revision"] {
        demand("a label is missing", labels.contains(&format!("org.opencontainers.image.{label}=")));
    }
    faults
}

#[test]
fn the_dockerfile_is_linted() {
    assert_eq!(lint(DOCKERFILE), [""; 0]);
    for (from, to, fault) in [
        ("BASE=rust:1.95.0-alpine\n", "BASE=rust:latest\n", "a base without a tag"),
        ("FROM scratch", "FROM alpine:3", "a last stage with a shell"),
        ("USER 65532:65532", "USER 0:0", "no numeric user but root"),
        ("USER 65532:65532", "USER nobody", "no numeric user but root"),
        ("USER 65532:65532\n", "", "no numeric user but root"),
        ("ENTRYPOINT [\"/passage-authz\"]", "ENTRYPOINT /passage-authz", "the entry point is no JSON list"),
        ("CMD [\"serve\"]", "CMD [\"check-config\"]", "not served by default"),
        ("EXPOSE 50051 9090", "EXPOSE 8081", "not the default ports"),
        ("--locked ", "", "a build that may change the lock file"),
        ("COPY --from=build /out", "COPY /out", "copied from outside"),
        ("ARG VERSION=0.1.0", "ARG API_TOKEN=x", "a secret"),
        ("COPY proto proto", "ADD proto proto", "ADD"),
        ("org.opencontainers.image.source=", "source=", "a label is missing"),
    ] {
        let broken = DOCKERFILE.replace(from, to);
        assert_ne!(broken, DOCKERFILE, "{from}");
        assert!(lint(&broken).iter().any(|found| found == fault), "{to}: {:?}", lint(&broken));
    }
}

/// The context holds what is copied, and nothing that is not.
#[test]
fn the_build_context_is_what_is_copied() {
    let ignore = include_str!("../../deploy/Dockerfile.dockerignore");
    let mut let_in: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut copied = copied();
    let_in.sort_unstable();
    copied.sort_unstable();
    assert_eq!(let_in, copied);
    assert!(ignore.lines().any(|line| line == "*"));
}

/// What the first stage copies from the repository.
fn copied() -> Vec<&'static str> {
    let lines = DOCKERFILE.lines().filter_map(|line| line.strip_prefix("COPY "));
    let sources = lines.filter(|line| !line.starts_with("--from")).flat_map(|line| {
        let mut words: Vec<_> = line.split(' ').collect();
        words.pop();
        words
    });
    sources.collect()
}

/// The `cargo build` of the Dockerfile for this machine, and its target.
fn build_command() -> (Vec<String>, String) {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    assert!(DOCKERFILE.contains(&format!("target={target} ")), "{target}");
    let run =
        instructions(DOCKERFILE).into_iter().find(|(name, run)| name == "RUN" && run.contains("cargo build"));
    let (_, run) = run.unwrap();
    let command = run.split("cargo build").nth(1).unwrap().split("&&").next().unwrap();
    let command = command.replace("\"${target}\"", &target);
    (std::iter::once("build").chain(command.split_whitespace()).map(str::to_owned).collect(), target)
}

async fn succeeds(command: &mut Command) -> bool {
    command.output().await.is_ok_and(|output| output.status.success())
}

/// Builds what the image holds, or says why that cannot be here.
async fn built() -> Result<PathBuf, String> {
    let (command, target) = build_command();
    let has_std = {
        let installed = Command::new("rustup").args(["target", "list", "--installed"]).output().await;
        installed
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| line == target))
    };
    if !has_std || !succeeds(Command::new("musl-gcc").arg("--version")).await {
        let text = format!("no static build here: apt-get install musl-tools, rustup target add {target}");
        return Err(text);
    }
    let exe = std::env::current_exe().unwrap();
    let folder = exe.ancestors().nth(3).unwrap().join("image");
    // The same place each time, so that the second build is short.
    let source = folder.join("src");
    let _ = fs::remove_dir_all(&source);
    fs::create_dir_all(&source).unwrap();
    for name in copied() {
        assert!(
            succeeds(Command::new("cp").arg("-a").arg(repository().join(name)).arg(&source)).await,
            "{name}"
        );
    }
    let mut cargo = Command::new("cargo");
    cargo.args(command).current_dir(&source).env("CARGO_TARGET_DIR", folder.join("target"));
    // What cargo tells a test is not meant for another build.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG") || name == "RUSTFLAGS")
    {
        cargo.env_remove(name);
    }
    let output = cargo.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder.join("target").join(target).join("release/passage-authz"))
}

/// A program header or dynamic entry that asks for a loader or a library (ELF-64, little endian).
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        elf[at..at + size].iter().rev().fold(0_usize, |number, byte| (number << 8) | usize::from(*byte))
    };
    const INTERPRETER: usize = 3;
    assert_eq!(elf[..6], *b"\x7fELF\x02\x01");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).all(|at| number(table + at * size, 4) != INTERPRETER)
}

/// A command in the root, as the image's user where this test may choose one.
fn inside(root: &Path) -> Command {
    let is_root = rustix::process::getuid().is_root();
    let mut command = if is_root {
        let mut chroot = Command::new("chroot");
        chroot.arg("--userspec=65532:65532");
        chroot
    } else {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "chroot"]);
        unshare
    };
    command.arg(root).arg("/passage-authz").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.kill_on_drop(true).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

#[tokio::test]
async fn the_binary_of_the_image_serves_from_an_empty_root() {
    assert!(!is_static(&fs::read("/bin/sh").unwrap()), "a dynamic program is seen");
    let binary = match built().await {
        Ok(binary) => binary,
        Err(text) => {
            assert!(std::env::var_os("REQUIRE_STATIC").is_none(), "{text}");
            return eprintln!("NOT RUN, {text}");
        }
    };
    assert!(is_static(&fs::read(&binary).unwrap()));

    // An issuer behind TLS, whose authority stands in the image's bundle alone.
    let key = key();
    let issuer = FakeIssuer::with_keys(&[&key]).await;
    let tls = Tls::in_front_of(&issuer).await;
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    fs::copy(&binary, root.path().join("passage-authz")).unwrap();
    write("etc/ssl/certs/ca-certificates.crt", tls.ca.as_bytes());
    // Mounted: Kubernetes and Docker bring the hosts, their users the configuration.
    write("etc/hosts", b"127.0.0.1 localhost\n");
    let config = format!(
        "server: {{listen: '127.0.0.1:0'}}\nadmin: {{listen: '127.0.0.1:0'}}\n\
         issuers: [{{name: passage, passage: {{app_id: app1, base_url: '{}'}}}}]\n",
        tls.url()
    );
    write("etc/passage-authz/authz.yaml", config.as_bytes());

    let version = inside(root.path()).arg("--version").output().await.unwrap();
    let said = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}{}", String::from_utf8_lossy(&version.stderr));

    let mut serve = inside(root.path());
    serve.args(["serve", "--config", "/etc/passage-authz/authz.yaml"]).env("RUST_LOG", "info");
    let running = Running::spawn(&mut serve).await;
    running.until_ready().await;
    let health = inside(root.path())
        .args(["health", "--timeout", "30s", "--address", &running.grpc.to_string()])
        .output();
    let health = tokio::time::timeout(WAIT_LIMIT, health).await.unwrap().unwrap();
    assert!(health.status.success(), "{}", String::from_utf8_lossy(&health.stderr));
    let admin = inside(root.path())
        .args(["health", "--timeout", "30s", "--admin", &running.admin.to_string()])
        .output()
        .await
        .unwrap();
    assert!(admin.status.success(), "{}", String::from_utf8_lossy(&admin.stderr));

    let bearer = bearer(&good());
    let mut client = AuthorizationClient::connect(format!("http://{}", running.grpc)).await.unwrap();
    for (headers, code) in [(&[("authorization", bearer.as_str())][..], "allowed"), (&[], "token_missing")] {
        let answer = client.check(check_request(headers)).await.unwrap().into_inner();
        assert_eq!(Answer::from(answer).code(), code);
    }
    running.signal("-TERM").await;
    let (code, log) = running.end().await;
    assert_eq!(code, Some(0), "{log}");
    let drained = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert!(drained.into_iter().any(|event| event["message"] == "drained"), "{log}");
}
