//! How to speak to a collector: TLS, a token, or plaintext where that is safe.

use std::io;
use std::path::PathBuf;

use culprit_proto::text::escape;
use culprit_tls::{Client, Files, Heard};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint, Uri};

use super::target::Target;
use crate::config::Settings;

/// Longest token, bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// Credentials for a collector.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// For https addresses.
    pub tls: Option<Client>,
    /// Where the token is.
    pub token_file: Option<PathBuf>,
}

/// The token cannot be shown.
#[derive(Debug, thiserror::Error)]
#[error("--token-file {path}: {source}", path = path.display())]
pub struct TokenError {
    path: PathBuf,
    source: io::Error,
}

/// Gives the targets what the settings say, reading the TLS files, and
/// refuses what would be unsafe unasked. Plaintext to other machines that was
/// asked for is warned of.
///
/// # Errors
/// One sentence with flag and mend.
pub fn secure(targets: &mut [Target], settings: &Settings) -> Result<(), String> {
    if targets.is_empty() {
        return Ok(());
    }
    let tls = client(settings)?;
    let mut any_tls = false;
    for target in targets {
        let shown = escape(&target.url);
        any_tls |= target.is_tls();
        if target.is_tls() && tls.is_none() {
            return Err(format!(
                "--collector {shown}: TLS needs certificates; give --tls-ca, --tls-cert and --tls-key"
            ));
        }
        if !target.is_tls() && !target.is_local() {
            if !settings.allow_plaintext {
                return Err(format!(
                    "--collector {shown} would be sent to without TLS; write https:// and give --tls-ca, --tls-cert and --tls-key, or accept the risk with --allow-plaintext"
                ));
            }
            tracing::warn!(
                "--allow-plaintext: no TLS to {shown}; whoever is on the way can read and change every event"
            );
            if settings.token_file.is_some() {
                tracing::warn!("--token-file: the token is not sent to {shown}, for want of TLS");
            }
        }
        target.security = Security {
            tls: tls.clone(),
            token_file: settings.token_file.clone(),
        };
    }
    if tls.is_some() && !any_tls {
        return Err(
            "--tls-ca, --tls-cert and --tls-key are given, but no --collector begins with https://; write it so, or leave the files out"
                .to_owned(),
        );
    }
    Ok(())
}

fn client(settings: &Settings) -> Result<Option<Client>, String> {
    match (&settings.tls_ca, &settings.tls_cert, &settings.tls_key) {
        (None, None, None) if settings.tls_server_name.is_some() => Err(
            "--tls-server-name is for TLS; give --tls-ca, --tls-cert and --tls-key too".to_owned(),
        ),
        (None, None, None) => Ok(None),
        (Some(ca), Some(cert), Some(key)) => {
            let files = Files {
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
                ca_flag: "--tls-ca",
            };
            Client::load(files, settings.tls_server_name.as_deref())
                .map(Some)
                .map_err(|error| error.to_string())
        }
        (ca, cert, key) => {
            let missing: Vec<&str> = [
                ("--tls-ca", ca.is_none()),
                ("--tls-cert", cert.is_none()),
                ("--tls-key", key.is_none()),
            ]
            .into_iter()
            .filter_map(|(flag, missing)| missing.then_some(flag))
            .collect();
            Err(format!(
                "TLS needs --tls-ca, --tls-cert and --tls-key; give {} too",
                missing.join(" and ")
            ))
        }
    }
}

impl Target {
    /// Connects, in TLS if the address says so; `heard` gets what TLS says
    /// when that fails later.
    pub(super) async fn connect(
        &self,
        endpoint: Endpoint,
        heard: &Heard,
    ) -> Result<Channel, tonic::transport::Error> {
        match &self.security.tls {
            Some(tls) if self.is_tls() => tls.connect_and_hear(endpoint, heard).await,
            // Not that `secure` lets it come to this.
            None if self.is_tls() => {
                let refuse = |_: Uri| async {
                    let why = "TLS needs --tls-ca, --tls-cert and --tls-key";
                    Err::<TokioIo<TcpStream>, _>(io::Error::other(why))
                };
                endpoint
                    .connect_with_connector(tower::service_fn(refuse))
                    .await
            }
            _ => endpoint.connect().await,
        }
    }

    /// Adds the token, as it is in its file now, unless others could read it
    /// on its way.
    pub(super) async fn show_token(&self, metadata: &mut MetadataMap) -> Result<(), TokenError> {
        let Some(path) = &self.security.token_file else {
            return Ok(());
        };
        if !self.is_tls() && !self.is_local() {
            return Ok(());
        }
        let value = token(path).await.map_err(|source| TokenError {
            path: path.clone(),
            source,
        })?;
        metadata.insert("authorization", value);
        Ok(())
    }
}

async fn token(path: &PathBuf) -> io::Result<AsciiMetadataValue> {
    let wrong = |what: &str| io::Error::other(what.to_owned());
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_TOKEN_BYTES + 1)
        .read_to_string(&mut text)
        .await?;
    let text = text.trim();
    if text.is_empty() {
        return Err(wrong("there is no token in it"));
    }
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(wrong("it is larger than 16 KiB, so it is no token"));
    }
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {text}"))
        .map_err(|_| wrong("a token has no line breaks or control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}
