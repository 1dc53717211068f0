//! The gRPC port as gRPC's C core sees it, the library below the clients of Python, Ruby, PHP and others. It is stricter than tonic:
//! it reads a failed call's status only from a response that is Trailers-Only, or from trailers.

use std::process::Command;

use crate::http::program;
use crate::support::fixtures::inline;
use crate::support::{Service, pypi};

const CLIENT: &str = r#"
import sys, grpc
channel = grpc.insecure_channel(sys.argv[1])
plain = lambda data: data
for call, message in [line.split(" ") for line in sys.argv[2:]]:
    method = channel.unary_unary(call, request_serializer=plain, response_deserializer=plain)
    try:
        print("OK", method(bytes.fromhex(message), timeout=10).hex())
    except grpc.RpcError as error:
        print(error.code().name, error.details())
watch = channel.unary_stream("/grpc.health.v1.Health/Watch", request_serializer=plain, response_deserializer=plain)
print("OK", next(watch(b"", timeout=10)).hex())
channel.close()
"#;

#[tokio::test]
async fn statuses_of_calls_that_fail_and_of_those_that_do_not() {
    let service = Service::ready(&inline("")).await;
    let folders =
        ["grpcio==1.76.0", "typing_extensions==4.15.0"].map(|package| pypi::folder(package, true).unwrap());
    let check = "/grpc.health.v1.Health/Check";
    // Field 1, a text.
    let named = |name: &str| format!("0a{:02x}{}", name.len(), hex(name.as_bytes()));
    let rows = [
        (check, String::new(), "OK 0801"),
        (check, named("liveness"), "OK 0801"),
        (check, named("envoy.service.auth.v3.Authorization"), "OK 0801"),
        (check, named("unknown"), "NOT_FOUND service not registered"),
        (check, "ff".to_owned(), "INTERNAL "),
        (check, "00".repeat(5000), "OUT_OF_RANGE "),
        ("/grpc.health.v1.Health/List", String::new(), "OK "),
        ("/grpc.health.v1.Health/List", "0801".to_owned(), "OK "),
        ("/grpc.health.v1.Health/List", "ff".to_owned(), "INTERNAL the message is no HealthListRequest"),
        ("/grpc.health.v1.Health/List", "00".repeat(5000), "OUT_OF_RANGE "),
        ("/grpc.health.v1.Health/Nothing", String::new(), "UNIMPLEMENTED "),
        ("/grpc.reflection.v1.ServerReflection/Nothing", String::new(), "UNIMPLEMENTED "),
        ("/envoy.service.auth.v3.Authorization/Nothing", String::new(), "UNIMPLEMENTED no such call"),
        ("/nothing/Nothing", String::new(), "UNIMPLEMENTED no such call"),
        ("/envoy.service.auth.v3.Authorization/Check", "ff".to_owned(), "OK "),
    ];
    let mut command = Command::new("python3");
    command.arg("-c").arg(CLIENT).arg(service.grpc.to_string());
    command.args(rows.iter().map(|(call, message, _)| format!("{call} {message}")));
    command.env("PYTHONPATH", std::env::join_paths(&folders).unwrap());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), rows.len() + 1, "{text}");
    for ((call, message, want), line) in rows.iter().zip(&lines) {
        assert!(line.starts_with(want), "{call} {message}: {line}");
    }
    assert_eq!(lines.last(), Some(&"OK 0801"), "the first status of a watch");
    // By name, each with SERVING.
    for name in ["", "liveness", "envoy.service.auth.v3.Authorization"] {
        let entry = format!("{}12020801", if name.is_empty() { "0a00".to_owned() } else { named(name) });
        let without_name = "0a0412020801";
        let list = lines[6];
        assert!(list.contains(&entry) || (name.is_empty() && list.contains(without_name)), "{name}: {list}");
    }
}

/// grpc-go's own probe, by which Kubernetes checked health before it could itself: its exit says what it saw.
#[tokio::test]
async fn the_probe_of_grpc_go() {
    let Some(probe) = program("GRPC_HEALTH_PROBE_BIN", "grpc_health_probe") else {
        let text = "grpc_health_probe is not here: go install github.com/grpc-ecosystem/grpc-health-probe@latest, and set GRPC_HEALTH_PROBE_BIN";
        assert!(std::env::var_os("REQUIRE_GRPC_HEALTH_PROBE").is_none(), "{text}");
        return eprintln!("NOT RUN, {text}");
    };
    let service = Service::ready(&inline("")).await;
    for (name, code, said) in [
        ("", Some(0), "status: SERVING"),
        ("liveness", Some(0), "status: SERVING"),
        // The probe says UNIMPLEMENTED, or whatever it gets, where it does not get NOT_FOUND.
        ("unknown", Some(3), "NotFound"),
    ] {
        let mut command = Command::new(&probe);
        command.arg(format!("-addr={}", service.grpc)).arg(format!("-service={name}"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.code() == code && text.contains(said), "{name}: {:?} {text}", output.status);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
