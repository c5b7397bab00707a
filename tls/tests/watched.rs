//! Files that change, in good ways and bad.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use culprit_tls::testing::Authority;
use culprit_tls::{Client, Counts, Look, Server};

fn kept(look: Look) -> String {
    match look {
        Look::Kept(error) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_files_are_used_and_bad_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("a");
    let files = ca.files(dir.path(), "s", &ca.issue(&["localhost"]));
    let server = Server::load(files.clone()).unwrap();
    let watched = server.files();
    let first = watched.current();
    assert_eq!(watched.look(), Look::Same);

    ca.issue(&["localhost"]).write(&files);
    assert_eq!(watched.look(), Look::Loaded);
    let second = watched.current();
    assert!(!std::sync::Arc::ptr_eq(&first, &second));

    // Half of a new pair: told when it stays so, and told once.
    let third = ca.issue(&["localhost"]);
    fs::write(&files.cert, &third.cert).unwrap();
    let error = kept(watched.look());
    assert!(
        error.contains("--tls-key") && error.contains("s-key.pem"),
        "{error}"
    );
    assert_eq!(watched.counts(), Counts { reloads: 1, bad: 0 });
    for _ in 0..3 {
        kept(watched.look());
        assert_eq!(watched.counts(), Counts { reloads: 1, bad: 1 });
    }
    assert!(std::sync::Arc::ptr_eq(&second, &watched.current()));
    fs::write(&files.key, &third.key).unwrap();
    assert_eq!(watched.look(), Look::Loaded);
    assert_eq!(watched.look(), Look::Same);

    for (file, content, says) in [
        (&files.cert, "no pem", "no certificate in PEM form"),
        (&files.key, "", "no private key in PEM form"),
        (&files.ca, third.key.as_str(), "no certificate in PEM form"),
        (
            &files.ca,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "an authority cannot be used",
        ),
    ] {
        let before = fs::read(file).unwrap();
        fs::write(file, content).unwrap();
        let error = kept(watched.look());
        assert!(
            error.contains(says) && error.contains(file.to_str().unwrap()),
            "{error}"
        );
        fs::write(file, before).unwrap();
        assert_eq!(watched.look(), Look::Same);
    }
    fs::remove_file(&files.key).unwrap();
    let error = kept(watched.look());
    assert!(error.contains("--tls-key") && error.contains("cannot read it"));
    assert_eq!(watched.counts(), Counts { reloads: 2, bad: 1 });
}

#[test]
fn a_new_certificate_out_of_date_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("a");
    let files = ca.files(dir.path(), "c", &ca.issue(&["n1"]));
    let client = Client::load(files.clone(), None).unwrap();
    for (years, says) in [
        ((2000, 2001), "has expired"),
        ((3000, 3001), "is not valid yet"),
    ] {
        ca.issue_for(&["n1"], years).write(&files);
        let error = kept(client.files().look());
        assert!(
            error.contains("--tls-cert") && error.contains(says),
            "{error}"
        );
        // At a start there is nothing better.
        Client::load(files.clone(), None).unwrap();
    }
    ca.issue(&["n1"]).write(&files);
    assert_eq!(client.files().look(), Look::Loaded);
}

#[test]
fn what_is_wrong_at_the_start_names_flag_and_file() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("a");
    let files = ca.files(dir.path(), "c", &ca.issue(&["n1"]));
    let error = Client::load(files.clone(), Some("no name")).unwrap_err();
    assert!(
        error.to_string().contains("--tls-server-name \"no name\""),
        "{error}"
    );
    fs::write(&files.ca, vec![b'x'; (1 << 20) + 1]).unwrap();
    let error = Client::load(files.clone(), None).unwrap_err();
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
    fs::remove_file(&files.ca).unwrap();
    let error = Client::load(files, None).unwrap_err().to_string();
    assert!(
        error.starts_with("--tls-ca ") && error.contains("c-ca.pem: cannot read it"),
        "{error}"
    );
}

#[test]
fn one_implementation_of_cryptography_is_linked() {
    let lock = include_str!("../../Cargo.lock");
    assert!(lock.contains("name = \"ring\""));
    for other in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{other}\"")), "{other}");
    }
}
