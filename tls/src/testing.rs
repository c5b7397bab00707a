//! A certificate authority for tests.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "for tests only"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};

use crate::Files;

/// An authority with a key of its own.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate with these names (addresses, URIs and DNS names), valid now.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_for(names, (2000, 4000))
    }

    /// The same, valid from the first year to the other.
    #[must_use]
    pub fn issue_for(&self, names: &[&str], years: (i32, i32)) -> Pair {
        let mut params = CertificateParams::default();
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    let text = Ia5String::try_from(*name).unwrap();
                    if name.contains("://") {
                        SanType::URI(text)
                    } else {
                        SanType::DnsName(text)
                    }
                }
            });
        }
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        Pair {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes `NAME-ca.pem`, `NAME.pem` and `NAME-key.pem` into a directory,
    /// for a side that trusts this authority and shows `pair`.
    #[must_use]
    pub fn files(&self, dir: &Path, name: &str, pair: &Pair) -> Files {
        let files = Files {
            ca: dir.join(format!("{name}-ca.pem")),
            cert: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}-key.pem")),
            ca_flag: "--tls-ca",
        };
        fs::write(&files.ca, self.pem()).unwrap();
        pair.write(&files);
        files
    }
}

impl Pair {
    /// Replaces certificate and key in the files.
    pub fn write(&self, files: &Files) {
        fs::write(&files.cert, &self.cert).unwrap();
        fs::write(&files.key, &self.key).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
