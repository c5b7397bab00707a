//! The configuration file.

use std::io;
use std::path::{Path, PathBuf};

use culprit_proto::text::escape;

use super::Settings;

/// Largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("configuration file {path}: {source}; give another with --config, or leave the flag out", path = path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("configuration file {path}, line {line}: {message}{mend}", path = path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong.
        message: String,
        /// What to do about it.
        mend: &'static str,
    },
}

/// Reads a configuration file.
///
/// # Errors
/// [`ConfigError`] with file, line and mend; unknown keys are errors.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    let read = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(read)?;
    let size = io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE_BYTES + 1), &mut text)
        .map_err(read)?;
    if size as u64 > MAX_FILE_BYTES {
        return Err(read(io::Error::other(
            "it is larger than 1 MiB, so it is not one of ours",
        )));
    }
    parse(&text, path)
}

/// Parses the text of a configuration file; `path` is for the error.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, path: &Path) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let message = error.message();
        ConfigError::Wrong {
            path: path.to_owned(),
            line: text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1,
            mend: if message.starts_with("unknown field") {
                "; remove or correct the key (`culprit-agent run --help` explains each)"
            } else {
                ""
            },
            message: escape(message).into_owned(),
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;
    use std::time::Duration;

    use clap::Args;

    use super::*;
    use crate::config::Size;

    const EXAMPLE: &str = include_str!("../../../deploy/agent.example.toml");

    fn error(text: &str) -> String {
        parse(text, Path::new("agent.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_example_parses_as_it_is_and_with_every_key_set() {
        assert_eq!(
            parse(EXAMPLE, Path::new("example")).unwrap(),
            Settings::default()
        );
        let set: String = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with(' ') && line.contains(" = "))
            .fold(String::new(), |all, line| all + line + "\n");
        parse(&set, Path::new("example")).unwrap();
        let keys: BTreeSet<&str> = set
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(key, _)| key)
            .collect();
        let command = Settings::augment_args(clap::Command::new("x"));
        let flags: BTreeSet<&str> = command
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .collect();
        assert_eq!(keys, flags);
    }

    #[test]
    fn the_manifest_s_configuration_is_one() {
        const MANIFEST: &str = include_str!("../../../deploy/kubernetes/config.yaml");
        let (_, block) = MANIFEST.split_once("  agent.toml: |\n").unwrap();
        let settings = parse(block, Path::new("config.yaml")).unwrap();
        assert_eq!(
            settings.state_dir.as_deref(),
            Some(Path::new("/var/lib/culprit"))
        );
    }

    #[test]
    fn an_error_names_file_line_and_mend() {
        let unknown = error("node = \"n\"\n\nflow-intervall = \"3s\"\n");
        assert!(unknown.starts_with("configuration file agent.toml, line 3: unknown field"));
        assert!(
            unknown.contains("flow-interval`") && unknown.contains("--help"),
            "{unknown}"
        );
        let duration = error("flow-interval = \"3 parsecs\"\n");
        assert!(
            duration.contains("line 1") && duration.contains("such as 5m"),
            "{duration}"
        );
        let size = error("\n\n\nqueue-bulk = \"many\"\n");
        assert!(size.contains("line 4") && size.contains("8MiB"), "{size}");
        let syntax = error("node = \n");
        assert!(syntax.contains("line 1"), "{syntax}");
        let kind = error("sockets = \"x\"\n");
        assert!(kind.contains("line 1"), "{kind}");
    }

    #[test]
    fn an_error_does_not_repeat_control_characters() {
        assert!(!error("\"no\\u001bde\" = 1").contains('\u{1b}'));
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let file = parse(
            "stop-timeout = \"9s\"\nqueue-bulk = 77\ncollector = [\"http://f\"]",
            Path::new("f"),
        )
        .unwrap();
        let flags = Settings {
            stop_timeout: Some(Duration::from_secs(1)),
            ..Settings::default()
        };
        let both = flags.or(file);
        assert_eq!(both.stop_timeout, Some(Duration::from_secs(1)));
        assert_eq!(both.queue_bulk, Some(Size(77)));
        assert_eq!(both.collector, ["http://f"]);
    }
}
