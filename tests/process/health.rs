//! The `health` verb against servers in every state that a probe may find.

use crate::support::WAIT_LIMIT;
use crate::support::fixtures::{inline, passage_with};
use crate::support::process::{Running, binary};
use crate::support::tls::{authority, issued_by};
use passage_authz::testing::{Behavior, FakeIssuer};
use tokio::net::TcpListener;

/// Exit code, standard output, standard error. Without a `--timeout` among the arguments, the answer may take long.
async fn health(arguments: &[&str]) -> (i32, String, String) {
    // A proxy that must not be asked.
    let mut command = binary();
    command
        .arg("health")
        .args(arguments)
        .args(if arguments.contains(&"--timeout") { &[][..] } else { &["--timeout", "30s"] })
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1");
    let output = tokio::time::timeout(WAIT_LIMIT, command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn a_server_with_keys_serves() {
    let running = Running::start(&inline(""), "info").await;
    running.until_ready().await;
    let (grpc, admin) = (running.grpc.to_string(), running.admin.to_string());
    let by_name = format!("localhost:{}", running.grpc.port());
    for arguments in [
        &["--address", &grpc][..],
        &["--address", &by_name],
        &["--address", &grpc, "--service", "liveness"],
        &["--address", &grpc, "--service", "envoy.service.auth.v3.Authorization"],
        &["--admin", &admin],
    ] {
        let answer = health(arguments).await;
        assert_eq!(answer, (0, "serving".to_owned(), String::new()), "{arguments:?}");
    }
    let (code, _, said) = health(&["--address", &grpc, "--service", "unheard.of"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("knows no service \"unheard.of\""), "{said}");
    running.signal("-TERM").await;
    running.end().await;
}

#[tokio::test]
async fn a_server_without_keys_lives_and_does_not_serve() {
    let issuer = FakeIssuer::start(Behavior::Reset).await;
    let config = passage_with(&issuer, "");
    let running = Running::start(&config, "info").await;
    let (grpc, admin) = (running.grpc.to_string(), running.admin.to_string());
    let (code, out, said) = health(&["--address", &grpc]).await;
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(said.contains("says NOT_SERVING"), "{said}");
    let (code, _, said) = health(&["--admin", &admin]).await;
    assert_eq!(code, 1);
    assert!(said.contains("says 503"), "{said}");
    assert_eq!(health(&["--address", &grpc, "--service", "liveness"]).await.0, 0);
    running.signal("-TERM").await;
    running.end().await;
}

#[tokio::test]
async fn a_socket_is_asked_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/authz.sock", folder.path().display());
    let file = folder.path().join("authz.yaml");
    let server = format!("server: {{listen: '{socket}'}}\nadmin: {{listen: '127.0.0.1:0'}}\n{}", inline(""));
    std::fs::write(&file, server).unwrap();
    let running = Running::serve(&file, "info").await;
    running.until_ready().await;
    assert_eq!(health(&["--address", &socket]).await.0, 0);
    running.signal("-TERM").await;
    running.end().await;
    let (code, _, said) = health(&["--address", &socket]).await;
    assert_eq!(code, 1);
    assert!(said.contains("authz.sock cannot be asked"), "{said}");
}

#[tokio::test]
async fn with_tls_the_admin_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = issued_by(&authority(), "localhost");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("cert"), certificate.pem()).unwrap();
    std::fs::write(path("key"), key.serialize_pem()).unwrap();
    let tls = format!("{{cert: '{}', key: '{}'}}", path("cert"), path("key"));
    let ports = format!(
        "server: {{listen: '127.0.0.1:0', tls: {tls}}}\nadmin: {{listen: '127.0.0.1:0'}}\n{}",
        inline("")
    );
    std::fs::write(path("authz.yaml"), ports).unwrap();
    let running = Running::serve(path("authz.yaml").as_ref(), "info").await;
    running.until_ready().await;
    let (code, _, said) = health(&["--address", &running.grpc.to_string()]).await;
    assert_eq!(code, 1);
    assert!(said.contains("if its gRPC port has TLS, ask the admin port"), "{said}");
    assert_eq!(health(&["--admin", &running.admin.to_string()]).await.0, 0);
    running.signal("-TERM").await;
    running.end().await;
}

#[tokio::test]
async fn an_address_without_a_server_or_an_answer_does_not_serve() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = taken.local_addr().unwrap().to_string();
    for arguments in [["--address", &gone], ["--admin", &gone]] {
        let (code, _, said) = health(&arguments).await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{gone} cannot be asked")) && said.contains("refused"), "{said}");
    }
    // Connected by the kernel, never accepted.
    for arguments in [["--address", &mute, "--timeout", "200ms"], ["--admin", &mute, "--timeout", "200ms"]] {
        let (code, _, said) = health(&arguments).await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{mute} did not answer within 200ms")), "{said}");
    }
}

#[tokio::test]
async fn with_wait_it_is_asked_until_it_serves_or_the_time_is_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (code, _, said) = health(&["--address", &address, "--wait", "--timeout", "700ms"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("did not answer"), "{said}");
    drop(listener);
    let waiting = tokio::spawn({
        let address = address.clone();
        async move { health(&["--address", &address, "--wait", "--timeout", "50s"]).await }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authz.yaml");
    let server = format!("server: {{listen: '{address}'}}\nadmin: {{listen: '127.0.0.1:0'}}\n{}", inline(""));
    std::fs::write(&file, server).unwrap();
    let running = Running::serve(&file, "info").await;
    assert_eq!(waiting.await.unwrap(), (0, "serving".to_owned(), String::new()));
    running.signal("-TERM").await;
    running.end().await;
}

#[tokio::test]
async fn what_is_no_address_is_a_wrong_command_line() {
    for arguments in [
        &["--address", "50051"][..],
        &["--address", "host:port"],
        &["--address", "http://127.0.0.1:50051"],
        &["--address", "unix:relative.sock"],
        &["--admin", "unix:/run/admin.sock"],
        &["--admin", "user@host:9090"],
        &["--admin", "127.0.0.1:9090", "--address", "127.0.0.1:50051"],
        &["--timeout", "0s"],
        &["--timeout", "soon"],
    ] {
        assert_eq!(health(arguments).await.0, 2, "{arguments:?}");
    }
}
