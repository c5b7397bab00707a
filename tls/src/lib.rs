//! Mutual TLS between agents, collectors and those who ask them.
//!
//! Certificates, keys and authorities are PEM files that may change at any
//! time. [`Watched`] looks at their content every few seconds; what changed is
//! checked and used for new connections, and connections that run are left
//! alone. A bad new file changes nothing and is told once.
//!
//! TLS 1.3 only, and no session is resumed: every connection proves its
//! certificate against the authorities of that moment.
#![forbid(unsafe_code)]

mod client;
mod files;
mod heard;
mod material;
mod names;
mod server;
#[cfg(feature = "testing")]
pub mod testing;
mod watched;

pub use client::Client;
pub use files::{Files, TlsError};
pub use heard::Heard;
pub use names::Names;
pub use server::Server;
pub use watched::{Counts, Look, Watched};

/// SHA-256 of some bytes: tells contents apart without keeping them.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    digest
}

/// What a TLS error means for whoever set it up: nothing, or a clause that
/// begins with "; ". `ours` is the flag that names this side's authorities.
#[must_use]
pub fn hint(error: &std::io::Error, ours: &str) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error};
    let Some(error) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) else {
        return String::new();
    };
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            format!("; no authority in {ours} has signed the peer's certificate")
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "; give the name in the peer's certificate with --tls-server-name".to_owned()
        }
        Error::NoCertificatesPresented => {
            "; the peer must show a certificate (--tls-cert and --tls-key there)".to_owned()
        }
        Error::AlertReceived(Alert::UnknownCA | Alert::DecryptError) => {
            "; the peer's authorities did not sign this side's certificate".to_owned()
        }
        Error::AlertReceived(Alert::CertificateExpired) => {
            "; this side's certificate is not valid at this time, says the peer".to_owned()
        }
        Error::InvalidMessage(_) => "; the peer does not speak TLS".to_owned(),
        _ => String::new(),
    }
}
