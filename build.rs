//! Generates the messages of `proto/`, without needing a `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = ["envoy/service/auth/v3/external_auth.proto", "grpc/health/v1/health.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    // What reflection shows.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    // `Bytes` instead of `Vec<u8>`: a decoded field is a slice of the received frame, not a copy.
    // No Debug: these messages hold tokens, and what cannot be printed cannot leak.
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .bytes(".")
        .skip_debug(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
