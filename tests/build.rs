//! Generates the container runtime's client, only for the tests that need it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/runtime.proto");
    #[cfg(feature = "cri")]
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(protox::compile(["proto/runtime.proto"], ["proto"])?)?;
    Ok(())
}
