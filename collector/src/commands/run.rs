use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use culprit_tls::{Counts, Files, Server};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::args::{LogFormat, RunArgs, ServerTlsArgs};
use crate::server::{self, Access, Counters, Refusals, Settings};
use crate::store::{Bounds, Totals, Writer};

/// Runs the collector until a signal.
pub(super) async fn run(args: RunArgs) -> anyhow::Result<()> {
    start_log(args.log_format);
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let bounds = Bounds {
        max_bytes: args.max_bytes,
        max_age: args.max_age,
    };
    let access = access(args.listen, args.tls)?;
    let refused = Arc::clone(&access.counters);
    let files = access.tls.as_ref().map(|tls| Arc::clone(tls.files()));
    if let Some(files) = &files {
        files.watch();
    }
    let mut writer = Writer::start(&args.store, bounds, args.credit_bytes)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}: cannot listen", args.listen))?;
    let address = listener.local_addr().context("cannot read the address")?;
    tracing::info!(%address, tls = files.is_some(), store = %args.store.display(), "listening");
    let (stop, stopped) = watch::channel(false);
    let mut settings = Settings::new(args.store, args.credit_bytes);
    settings.bounds.max_memory = args.max_memory;
    settings.bounds.connections_per_address = args.max_connections_per_address;
    settings.bounds.age = Duration::from_nanos(args.connection_age);
    let refusals = Arc::clone(&settings.refusals);
    let mut serving = tokio::spawn(server::serve_with(
        listener,
        settings,
        access,
        writer.handle(),
        stopped,
    ));
    let outcome = tokio::select! {
        _ = interrupt.recv() => Ok(None),
        _ = terminate.recv() => Ok(None),
        () = writer.ended() => Err(anyhow::anyhow!("the store's writer ended by itself")),
        result = &mut serving => Ok(Some(result)),
    };
    tracing::info!("stopping");
    // Nobody listens any more when the server ended by itself.
    let _ = stop.send(true);
    let served = match outcome {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Ok(serving.await),
        Err(error) => Err(error),
    };
    let totals = tokio::task::spawn_blocking(move || writer.stop())
        .await
        .ok()
        .flatten()
        .context("the store's writer panicked; see the log")?;
    let files = files.map(|files| files.counts()).unwrap_or_default();
    println!("{}", say(&totals, &refusals, &refused, files));
    served?
        .context("the server panicked")?
        .context("the server failed")
}

/// Who may connect, by the flags.
fn access(listen: SocketAddr, args: ServerTlsArgs) -> anyhow::Result<Access> {
    let mut access = Access::open();
    access.query_name = args.query_name;
    match (args.tls_client_ca, args.tls_cert, args.tls_key) {
        (Some(ca), Some(cert), Some(key)) => {
            access.tls = Some(Server::load(Files {
                ca,
                cert,
                key,
                ca_flag: "--tls-client-ca",
            })?);
        }
        _ if listen.ip().is_loopback() => {}
        _ if args.allow_plaintext => tracing::warn!(
            "--allow-plaintext: no TLS on {listen}; whoever reaches this address can read every event and send events of any node"
        ),
        _ => anyhow::bail!(
            "--listen {listen} is open to other machines and there is no TLS; give --tls-cert, --tls-key and --tls-client-ca, listen on 127.0.0.1, or accept the risk with --allow-plaintext"
        ),
    }
    Ok(access)
}

/// The totals as one line.
fn say(totals: &Totals, refusals: &Refusals, refused: &Counters, files: Counts) -> String {
    let r = &totals.records;
    let mut text = format!(
        "collector stopped: {} events stored in {} commits from {} streams, {} duplicates, \
         {} rejected, {} in gaps, {} resyncs",
        r.stored, totals.commits, totals.streams, r.duplicates, r.rejected, r.gaps, totals.resyncs
    );
    let of_writer = [
        (totals.refused, "streams refused"),
        (totals.claims, "claims of another agent's node"),
        (totals.taken_over, "streams ended for a newer one"),
        (totals.damaged, "damaged batches"),
        (totals.deleted_age, "events deleted by age"),
        (totals.deleted_bytes, "events deleted to make room"),
        (totals.counters_refused, "loss counters refused"),
        (totals.reports_refused, "reports that do not add up"),
        (totals.failures, "commits failed"),
    ];
    let of_files = [
        (files.reloads, "times new TLS files"),
        (files.bad, "times bad TLS files"),
    ];
    let others = refusals.list().into_iter().chain(refused.list());
    for (n, what) in of_writer.into_iter().chain(others).chain(of_files) {
        if n > 0 {
            text.push_str(&format!(", {n} {what}"));
        }
    }
    text
}

fn start_log(format: LogFormat) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&wanted).unwrap_or_else(|error| {
        eprintln!("RUST_LOG is not understood ({error}); logging at info");
        EnvFilter::new("info")
    });
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Text => log
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init(),
    }
}
