//! Which collector to use.

use culprit_proto::text::escape;
use tonic::transport::Uri;

use super::security::Security;

/// A collector's address that the agent can speak to.
#[derive(Clone, Debug)]
pub struct Target {
    /// As the user wrote it.
    pub url: String,
    /// The same, parsed.
    pub uri: Uri,
    /// How to speak to it; nothing but plaintext as [`order`] leaves it.
    pub security: Security,
}

impl Target {
    /// Whether it is spoken to in TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Whether it is on this machine, by its address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ip: Result<std::net::IpAddr, _> = host.parse();
        host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

/// Checks the addresses and puts them in this node's order: highest weight of
/// (node, address) first, so that the nodes of a cluster spread evenly and
/// only those move whose collector left.
///
/// # Errors
/// One sentence that names the address and the form.
pub fn order(node: &str, urls: &[String]) -> Result<Vec<Target>, String> {
    let mut targets = Vec::new();
    for url in urls {
        let wrong = |what: &str| {
            format!(
                "--collector \"{}\": {what}; write https://HOST:PORT or http://HOST:PORT, such as https://culprit-collector:4750",
                escape(url)
            )
        };
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_some() => {}
            _ => return Err(wrong("this is no address of a collector")),
        }
        targets.push(Target {
            url: url.clone(),
            uri,
            security: Security::default(),
        });
    }
    targets.sort_by_key(|target| std::cmp::Reverse(weight(node, &target.url)));
    Ok(targets)
}

/// FNV-1a over both with a final mix: stable across versions, and even.
fn weight(node: &str, url: &str) -> u64 {
    let bytes = node.bytes().chain([0]).chain(url.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn nodes_spread_evenly_and_only_those_of_a_lost_collector_move() {
        let urls: Vec<String> = (0..3)
            .map(|i| format!("http://collector-{i}:4750"))
            .collect();
        let mut share = [0; 3];
        for node in 0..3000 {
            let node = format!("node-{node}");
            let first = order(&node, &urls).unwrap().remove(0).url;
            let index = urls.iter().position(|url| *url == first).unwrap();
            share[index] += 1;
            let without: Vec<String> = urls
                .iter()
                .filter(|url| **url != urls[2])
                .cloned()
                .collect();
            if index != 2 {
                assert_eq!(order(&node, &without).unwrap()[0].url, first);
            }
        }
        assert!(
            share.iter().all(|count| (900..1100).contains(count)),
            "{share:?}"
        );
    }

    #[test]
    fn what_is_no_collector_is_named() {
        for url in [
            "collector:4750",
            "ftp://c:1",
            "https://",
            "http://",
            "a\u{1b}b",
            "",
        ] {
            let error = order("n", &[url.to_owned()]).unwrap_err();
            assert!(error.contains("http://HOST:PORT"), "{error}");
            assert!(!error.contains('\u{1b}'));
        }
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for (url, local) in [
            ("http://[::1]:4750", true),
            ("http://127.3.2.1:4750", true),
            ("https://LocalHost:1", true),
            ("http://10.0.0.1:4750", false),
            ("http://localhost.example:1", false),
            ("http://[2001:db8::1]:1", false),
        ] {
            let target = order("n", &[url.to_owned()]).unwrap().remove(0);
            assert_eq!(target.is_local(), local, "{url}");
            assert_eq!(target.is_tls(), url.starts_with("https"));
        }
    }
}
