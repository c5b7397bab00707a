use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::files::{Files, TlsError};
use crate::material::{self, Material};
use crate::names::Names;
use crate::watched::Watched;

/// A connection that is refused is read so long, and so far, before it is
/// closed.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 64 << 10;

/// The side that listens. It demands a certificate of every client.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<Watched<ServerConfig>>,
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// One sentence that names flag, file and mend.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        Ok(Self {
            config: Arc::new(Watched::load(files, make)?),
        })
    }

    /// The files, to look at and to watch.
    #[must_use]
    pub fn files(&self) -> &Arc<Watched<ServerConfig>> {
        &self.config
    }

    /// The handshake, with the certificate and the authorities of this moment,
    /// and the names in the client's certificate. Takes as long as the peer
    /// does: bound it.
    ///
    /// # Errors
    /// When either side refuses the other, or the peer speaks no TLS.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Names)> {
        let acceptor = TlsAcceptor::from(self.config.current());
        let stream = match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(error);
            }
        };
        let (_, session) = stream.get_ref();
        let names = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(Names::of)
            .unwrap_or_default();
        Ok((stream, names))
    }
}

/// Closes so that the peer hears why: what it has sent already would otherwise
/// reset the connection before our alert is read.
async fn linger(mut stream: TcpStream) {
    // A peer that is gone needs to hear nothing.
    let _ = stream.shutdown().await;
    let read = async {
        let (mut room, mut left) = ([0; 1024], LINGER_BYTES);
        while let Ok(n @ 1..) = stream.read(&mut room).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, read).await;
}

fn make(material: Material, files: &Files) -> Result<ServerConfig, TlsError> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(material.roots, material::provider())
            .build()
            .map_err(|error| TlsError::new(files.ca_flag, &files.ca, error))?;
    let mut config = ServerConfig::builder_with_provider(material::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::other)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(material.chain, material.key)
        .map_err(|error| material::misfit(&error, files))?;
    config.alpn_protocols = material::alpn();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
