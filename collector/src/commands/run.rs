use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::args::{LogFormat, RunArgs};
use crate::server::{self, Refusals, Settings};
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
    let mut writer = Writer::start(&args.store, bounds, args.credit_bytes)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}: cannot listen", args.listen))?;
    let address = listener.local_addr().context("cannot read the address")?;
    tracing::info!(%address, store = %args.store.display(), "listening");
    let (stop, stopped) = watch::channel(false);
    let mut settings = Settings::new(args.store, args.credit_bytes);
    settings.bounds.max_memory = args.max_memory;
    settings.bounds.connections_per_address = args.max_connections_per_address;
    settings.bounds.age = Duration::from_nanos(args.connection_age);
    let refusals = Arc::clone(&settings.refusals);
    let mut serving = tokio::spawn(server::serve(listener, settings, writer.handle(), stopped));
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
    println!("{}", say(&totals, &refusals));
    served?
        .context("the server panicked")?
        .context("the server failed")
}

/// The totals as one line.
fn say(totals: &Totals, refusals: &Refusals) -> String {
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
    for (n, what) in of_writer.into_iter().chain(refusals.list()) {
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
