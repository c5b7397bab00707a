//! Asking a running agent over its socket.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use culprit_proto::limits::MAX_MESSAGE_BYTES;
use culprit_proto::v1::local_client::LocalClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Connects to the agent at `socket`.
///
/// # Errors
/// Says what is wrong with the socket, and what to do about it.
pub(super) async fn connect(socket: &Path) -> anyhow::Result<LocalClient<Channel>> {
    let shown = socket.display();
    match std::fs::metadata(socket) {
        Ok(meta) if meta.file_type().is_socket() => {}
        Ok(_) => bail!(
            "{shown} is no socket; --socket takes the agent's, usually agent.sock in its state directory"
        ),
        Err(error) => {
            return Err(error).with_context(|| {
                format!("no agent at {shown}; is `culprit-agent run` running, and with this --state-dir?")
            });
        }
    }
    let path = socket.to_owned();
    // The address is not used: the connector knows the socket.
    let channel = Endpoint::from_static("http://agent")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            anyhow!("cannot speak to the agent at {shown}: {cause}; is it running, and are you the user it runs as (root)?")
        })?;
    Ok(LocalClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// The error of a call as a person reads it.
pub(super) fn failed(status: &tonic::Status) -> anyhow::Error {
    anyhow!("the agent says: {}", status.message())
}
