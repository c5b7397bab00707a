use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// The subject alternative names of a certificate. TLS bounds them: a
/// certificate has less than 64 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
}

impl Names {
    pub(crate) fn of(cert: &CertificateDer<'_>) -> Self {
        // A certificate that got through the handshake can be parsed.
        EndEntityCert::try_from(cert).map_or_else(
            |_| Self::default(),
            |cert| Self {
                dns: cert.valid_dns_names().map(str::to_owned).collect(),
                uris: cert.valid_uri_names().map(str::to_owned).collect(),
            },
        )
    }

    /// Whether the certificate names this, letter by letter, as DNS name.
    #[must_use]
    pub fn has_dns(&self, name: &str) -> bool {
        self.dns.iter().any(|dns| dns == name)
    }

    /// The nodes that its holder may be: every DNS name, and NODE of every
    /// `spiffe://DOMAIN/node/NODE`.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        let of_uris = self.uris.iter().filter_map(|uri| spiffe_node(uri));
        self.dns.iter().map(String::as_str).chain(of_uris)
    }
}

fn spiffe_node(uri: &str) -> Option<&str> {
    let (domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
    let node = path.strip_prefix("node/")?;
    (!domain.is_empty() && !node.is_empty() && !node.contains('/')).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_dns_name_or_the_end_of_a_spiffe_path() {
        let names = Names {
            dns: vec!["n1".into(), "*.n".into()],
            uris: [
                "spiffe://prod.example/node/n2",
                "spiffe:///node/n3",
                "spiffe://prod/node/n4/more",
                "spiffe://prod/ns/node/n5",
                "spiffe://prod/node/",
                "https://prod/node/n6",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        assert_eq!(names.nodes().collect::<Vec<_>>(), ["n1", "*.n", "n2"]);
        assert!(names.has_dns("n1") && !names.has_dns("N1") && !names.has_dns("x.n"));
    }
}
