use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use culprit_proto::kind::{EventKind, Filter, PodFilter};
use culprit_proto::limits::{DEFAULT_CREDIT_BYTES, MAX_BATCH_BYTES};
use culprit_proto::time;

use crate::server::{MIN_MEMORY, QUERY_NAME};

/// Receives the events of Culprit's agents, keeps them, and answers questions.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Receive from agents, store, and answer, until SIGINT or SIGTERM.
    Run(RunArgs),
    /// Show events, oldest first, one a line.
    Events(EventsArgs),
    /// Show TCP connections (the tcp_flow events) as a table.
    Flows(FlowsArgs),
    /// Show findings (what the agents concluded), worst first, as paragraphs.
    Findings(FindingsArgs),
    /// Show nodes: agent, probes, and how many records came, one a line.
    Nodes(NodesArgs),
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Address and port to listen on; port 0 takes a free one. Anything but
    /// loopback needs TLS, or --allow-plaintext.
    #[arg(long, default_value = "127.0.0.1:4750", value_name = "ADDR")]
    pub(super) listen: SocketAddr,
    /// Directory of the store; made when it is not there.
    #[arg(long, value_name = "DIR")]
    pub(super) store: PathBuf,
    /// Bytes of events to keep; the oldest go first. Takes K, M, G.
    #[arg(long, default_value = "10G", value_parser = parse_store_bytes)]
    pub(super) max_bytes: u64,
    /// Age of events to keep, such as 12h or 7d; 0s keeps any age.
    #[arg(long, default_value = "7d", value_parser = time::parse_duration)]
    pub(super) max_age: u64,
    /// Bytes that an agent may have unacknowledged, per lane. Takes K, M, G.
    #[arg(long, default_value_t = DEFAULT_CREDIT_BYTES, value_parser = parse_credit)]
    pub(super) credit_bytes: u64,
    /// Bytes of memory that peers may make the collector use: half of it for
    /// connections, the rest for messages and answers. When it is short agents
    /// slow down, and nothing is lost. Takes K, M, G.
    #[arg(long, default_value = "512M", value_parser = parse_memory)]
    pub(super) max_memory: u64,
    /// Connections of one address; more are closed at once.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = parse_count)]
    pub(super) max_connections_per_address: usize,
    /// After about this time a connection is ended, so that agents spread
    /// evenly over the collectors again; they resume without a loss.
    #[arg(long, default_value = "30m", value_name = "DURATION", value_parser = parse_age)]
    pub(super) connection_age: u64,
    #[command(flatten)]
    pub(super) tls: ServerTlsArgs,
    /// Form of the log on stderr; RUST_LOG says how much.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

/// TLS of the side that listens: all three files or none.
#[derive(Debug, Args)]
pub(super) struct ServerTlsArgs {
    /// The collector's certificate, PEM, with those between it and its
    /// authority; read again when it changes, as the two below.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_client_ca"])]
    pub(super) tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_client_ca"])]
    pub(super) tls_key: Option<PathBuf>,
    /// Authorities, PEM, one of which must have signed a client's certificate.
    /// An agent may be the nodes that its certificate names: as DNS SAN, or
    /// as URI SAN spiffe://DOMAIN/node/NODE.
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_key"])]
    pub(super) tls_client_ca: Option<PathBuf>,
    /// The DNS SAN of certificates that may ask questions; no node can have
    /// this name.
    #[arg(long, value_name = "NAME", default_value = QUERY_NAME)]
    pub(super) query_name: String,
    /// Listen without TLS on any address: whoever reaches it can read every
    /// event, and send events of any node.
    #[arg(long, conflicts_with = "tls_cert")]
    pub(super) allow_plaintext: bool,
}

/// TLS of the side that asks: all three files or none.
#[derive(Debug, Args)]
pub(super) struct ClientTlsArgs {
    /// Authorities, PEM, one of which must have signed the collector's
    /// certificate; for --collector https://HOST:PORT.
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_key", "collector"])]
    pub(super) tls_ca: Option<PathBuf>,
    /// A certificate that may ask questions, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_key"])]
    pub(super) tls_cert: Option<PathBuf>,
    /// The key of --tls-cert, PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls_ca", "tls_cert"])]
    pub(super) tls_key: Option<PathBuf>,
    /// Name in the collector's certificate, when it is not the URL's host.
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    pub(super) tls_server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// Where to read: one of both.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct SourceArgs {
    /// Read the store in this directory, beside a running collector or without.
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Ask a running collector, such as http://127.0.0.1:4750 or
    /// https://culprit-collector:4750.
    #[arg(long, value_name = "URL")]
    pub(super) collector: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only of this pod; NAMESPACE alone means all its pods.
    #[arg(long, value_name = "NS/NAME")]
    pod: Option<PodFilter>,
    /// Only of this node.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) node: String,
    /// From this time on: a duration ago (5m) or an RFC 3339 time.
    #[arg(long, value_name = "TIME", value_parser = parse_point)]
    since: Option<u64>,
    /// Before this time, in the same forms.
    #[arg(long, value_name = "TIME", value_parser = parse_point)]
    until: Option<u64>,
    /// Only the newest so many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    last: Option<u64>,
}

impl FilterArgs {
    pub(super) fn filter(&self, kinds: Vec<EventKind>) -> Filter {
        Filter {
            kinds,
            pod: self.pod.clone(),
            since: self.since.unwrap_or(0),
            until: self.until.unwrap_or(0),
            last: self.last.unwrap_or(0),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) tls: ClientTlsArgs,
    /// Only of this kind, such as oom_kill; may be given more than once.
    #[arg(long = "kind", value_name = "K")]
    pub(super) kinds: Vec<EventKind>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Lines for people or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct FlowsArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) tls: ClientTlsArgs,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// A table for people or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
    /// Who talks to whom instead of single connections.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(super) by: Option<By>,
    /// With --by: the map in Graphviz's language, for `dot -Tsvg`.
    #[arg(long, requires = "by", conflicts_with = "format")]
    pub(super) dot: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// By workload (Deployment, StatefulSet and others), a line for each pair
    /// of a client and a server's port.
    Workload,
}

#[derive(Debug, Args)]
pub(super) struct FindingsArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) tls: ClientTlsArgs,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Only of this name, such as oom_autopsy; may be given more than once.
    #[arg(long = "name", value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// One JSON object a line instead of paragraphs, in the same order.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct NodesArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) tls: ClientTlsArgs,
    /// Only this node.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) node: String,
    /// Show where all events are, by node and lane: what the agents saw is
    /// committed, retained, in a ring, or lost for a reason.
    #[arg(long)]
    pub(super) loss: bool,
    /// A table for people or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

fn parse_point(text: &str) -> Result<u64, String> {
    time::parse_point(text, time::now())
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(|| "write a number of bytes, such as 512M".to_owned())
}

fn parse_store_bytes(text: &str) -> Result<u64, String> {
    at_least(parse_bytes(text)?, 1 << 20)
}

fn parse_credit(text: &str) -> Result<u64, String> {
    // Less would not let a full batch through.
    at_least(parse_bytes(text)?, MAX_BATCH_BYTES as u64)
}

fn parse_memory(text: &str) -> Result<u64, String> {
    at_least(parse_bytes(text)?, MIN_MEMORY)
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("write a number above 0".to_owned()),
    }
}

fn parse_age(text: &str) -> Result<u64, String> {
    match time::parse_duration(text)? {
        0 => Err("write a duration above 0, such as 30m".to_owned()),
        age => Ok(age),
    }
}

fn at_least(n: u64, least: u64) -> Result<u64, String> {
    if n < least {
        return Err(format!("at least {least} bytes are needed"));
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_take_units() {
        assert_eq!(parse_bytes("512M").unwrap(), 512 << 20);
        assert_eq!(parse_bytes("7").unwrap(), 7);
        assert!(parse_bytes("many").is_err());
        assert!(parse_bytes("99999999999G").is_err());
        assert!(parse_store_bytes("1K").unwrap_err().contains("1048576"));
    }
}
