//! A running agent, and the program beside it.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use culprit_agent::commands::local_server::{About, Socket};
use culprit_agent::findings;
use culprit_agent::pipeline::about;
use culprit_agent::pipeline::agent::{Agent, Options};
use culprit_agent::pipeline::driver::Driver;
use culprit_proto::v1::StatusResponse;
use tokio::sync::watch;

use super::{events_when, options, ports};

/// What no terminal may get: an escape sequence, a line of its own, a byte
/// that is no UTF-8, a right-to-left override.
pub const HOSTILE: &[u8] = b"\x1b[2J\nx\xff\xe2\x80\xae";

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culprit-agent"));
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env("COLUMNS", "100");
    command
}

pub fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running agent with a socket, whose events a test makes.
pub struct Running {
    pub agent: Agent,
    feed: super::Feed,
    pub dir: tempfile::TempDir,
    finish: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

struct Answers(Arc<about::About>, Driver);

impl About for Answers {
    async fn status(&self) -> StatusResponse {
        // As `run` does: the counters as they are now.
        self.1.count().await;
        self.0.status()
    }
}

impl Running {
    pub fn start() -> Self {
        Self::looking_for(None)
    }

    pub fn looking_for(findings: Option<findings::Options>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (source, feed) = super::source();
        let recorder_file = Some((dir.path().join("flight"), 1 << 20));
        let options = Options {
            recorder_file,
            findings,
            ..options()
        };
        let agent = Agent::start(options, source, super::names()).unwrap();
        let (finish, finishing) = watch::channel(false);
        let socket = Socket::bind(dir.path()).unwrap();
        let answers = Arc::new(Answers(agent.about(), agent.driver()));
        let server = tokio::spawn(socket.serve(agent.journal(), answers, finishing));
        Self {
            agent,
            feed,
            dir,
            finish,
            server,
        }
    }

    pub async fn give(&self, drafts: impl IntoIterator<Item = super::DraftOf>) {
        let journal = self.agent.journal();
        let before = ports(&super::events(&journal)).len();
        let mut count = 0;
        for draft in drafts {
            self.feed.give(draft);
            count += 1;
        }
        events_when(&journal, |events| ports(events).len() == before + count).await;
    }

    pub fn dir(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// Runs the program beside the agent.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = command(args);
        command.args(["--state-dir", self.dir()]);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    pub async fn stop(self) -> tempfile::TempDir {
        self.agent.stop(Duration::from_secs(30)).await;
        self.finish.send_replace(true);
        self.server.await.unwrap();
        self.dir
    }
}

/// Nothing but lines of printable characters.
pub fn assert_harmless(output: &[u8]) {
    let text = text(output);
    let bad: Vec<char> = text
        .chars()
        .filter(|c| *c != '\n' && !culprit_proto::text::is_plain(*c))
        .collect();
    assert!(bad.is_empty(), "{bad:?} in {text:?}");
}
