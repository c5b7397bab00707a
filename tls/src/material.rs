use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::files::{Contents, Files, TlsError};

/// What the files say, parsed and checked.
pub(crate) struct Material {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Material {
    pub(crate) fn parse(contents: &Contents, files: &Files) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let ca = |what: String| TlsError::new(files.ca_flag, &files.ca, what);
        for cert in certificates(&contents.ca).map_err(ca)? {
            roots
                .add(cert)
                .map_err(|error| ca(format!("an authority cannot be used: {error}")))?;
        }
        let chain = certificates(&contents.cert)
            .map_err(|what| TlsError::new("--tls-cert", &files.cert, what))?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| {
            let what = match error {
                PemError::NoItemsFound => "there is no private key in PEM form in it".to_owned(),
                error => format!("it is no private key in PEM form: {error}"),
            };
            TlsError::new("--tls-key", &files.key, what)
        })?;
        Ok(Self {
            roots: Arc::new(roots),
            chain,
            key,
        })
    }

    /// Why a peer would refuse this side's certificate for its dates.
    pub(crate) fn out_of_date(&self) -> Option<&'static str> {
        let cert = EndEntityCert::try_from(self.chain.first()?).ok()?;
        // The dates are looked at first, so that no authority is needed here.
        let error = cert
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &[],
                &[],
                UnixTime::now(),
                KeyUsage::client_auth(),
                None,
                None,
            )
            .err()?;
        match error {
            webpki::Error::CertExpired { .. } => Some("has expired"),
            webpki::Error::CertNotValidYet { .. } => Some("is not valid yet"),
            _ => None,
        }
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certs: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is no certificate in PEM form: {error}"))?;
    if certs.is_empty() {
        return Err("there is no certificate in PEM form in it".to_owned());
    }
    Ok(certs)
}

/// The one implementation of cryptography that is linked.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The protocol of gRPC, as TLS calls it.
pub(crate) fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec()]
}

/// A certificate and key that do not fit.
pub(crate) fn misfit(error: &rustls::Error, files: &Files) -> TlsError {
    let what = format!(
        "it cannot be used with --tls-cert {}: {error}",
        culprit_proto::text::escape(&files.cert.display().to_string())
    );
    TlsError::new("--tls-key", &files.key, what)
}
