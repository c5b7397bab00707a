//! Generates the container runtime's client (and the server that the tests
//! answer with) from the vendored CRI definition, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/cri/runtime.proto";
    println!("cargo::rerun-if-changed={proto}");
    let files = protox::compile([proto], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .compile_fds(files)?;
    Ok(())
}
