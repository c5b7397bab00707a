use std::io;
use std::sync::Arc;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{Service, ServiceExt};

use crate::files::{Files, TlsError};
use crate::heard::{Heard, Listening};
use crate::material::{self, Material};
use crate::watched::Watched;

/// The side that connects.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<Watched<ClientConfig>>,
    server_name: Option<ServerName<'static>>,
}

impl Client {
    /// Reads the files. `server_name` is the name that the collector's
    /// certificate must have, when it is not the host of the address.
    ///
    /// # Errors
    /// One sentence that names flag, file and mend.
    pub fn load(files: Files, server_name: Option<&str>) -> Result<Self, TlsError> {
        let server_name = match server_name {
            Some(name) => Some(ServerName::try_from(name.to_owned()).map_err(|_| {
                TlsError::other(format!(
                    "--tls-server-name \"{}\": this is no host name or address; give one of the collector's certificate, such as culprit-collector",
                    culprit_proto::text::escape(name)
                ))
            })?),
            None => None,
        };
        Ok(Self {
            config: Arc::new(Watched::load(files, make)?),
            server_name,
        })
    }

    /// The files, to look at and to watch.
    #[must_use]
    pub fn files(&self) -> &Arc<Watched<ClientConfig>> {
        &self.config
    }

    /// Connects with the certificate of this moment.
    ///
    /// # Errors
    /// When there is no connection, or either side refuses the other's
    /// certificate; the error's sources say which.
    pub async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        self.connect_and_hear(endpoint, &Heard::default()).await
    }

    /// The same; `heard` gets what TLS says when the connection fails later.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_and_hear(
        &self,
        endpoint: Endpoint,
        heard: &Heard,
    ) -> Result<Channel, tonic::transport::Error> {
        let heard = heard.clone();
        let connector = TlsConnector::from(self.config.current());
        let name = self.server_name.clone();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let dial = tower::service_fn(move |uri: Uri| {
            let (mut tcp, connector, name) = (tcp.clone(), connector.clone(), name.clone());
            let heard = heard.clone();
            async move {
                let name = match name {
                    Some(name) => name,
                    None => host(&uri)?,
                };
                let shown = name.to_str().into_owned();
                let stream = tcp.ready().await?.call(uri).await?.into_inner();
                let stream = connector.connect(name, stream).await.map_err(|error| {
                    let hint = crate::hint(&error, "--tls-ca");
                    io::Error::other(format!("TLS with {shown}: {error}{hint}"))
                })?;
                Ok::<_, tower::BoxError>(TokioIo::new(Listening { stream, heard }))
            }
        });
        endpoint.connect_with_connector(dial).await
    }
}

fn host(uri: &Uri) -> io::Result<ServerName<'static>> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| {
        io::Error::other(format!(
            "\"{host}\" cannot be in a certificate; give the name that is with --tls-server-name"
        ))
    })
}

fn make(material: Material, files: &Files) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(material::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::other)?
        .with_root_certificates(material.roots)
        .with_client_auth_cert(material.chain, material.key)
        .map_err(|error| material::misfit(&error, files))?;
    config.alpn_protocols = material::alpn();
    config.resumption = Resumption::disabled();
    Ok(config)
}
