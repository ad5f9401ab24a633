//! Compiles the `.proto` files with protox, so that no `protoc` need be installed.

#![forbid(unsafe_code)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/holdfast/client/v1/operation.proto",
        "proto/holdfast/client/v1/session.proto",
        "proto/holdfast/client/v1/cell.proto",
        "proto/holdfast/log/v1/log.proto",
        "proto/holdfast/peer/v1/peer.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    let services = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(services)
        .build_server(services)
        // Contents are slices of the frame or the entry that they came in, not copies.
        .bytes(".")
        // The largest of what is asked and answered. Requests and outcomes are moved from queue to queue, and most of
        // them are small.
        .boxed(".holdfast.client.v1.Request.operation.open")
        .boxed(".holdfast.client.v1.Request.operation.set_acl")
        .boxed(".holdfast.client.v1.Outcome.result.opened")
        .boxed(".holdfast.client.v1.Refusal.facts.generation_mismatch")
        .boxed(".holdfast.client.v1.Refusal.facts.lock_conflict")
        .boxed(".holdfast.client.v1.Refusal.facts.limit_exceeded")
        .boxed(".holdfast.client.v1.Outcome.result.contents")
        .boxed(".holdfast.client.v1.Outcome.result.stat")
        .boxed(".holdfast.client.v1.Outcome.result.directory")
        .compile_fds(descriptors)?;
    Ok(())
}
