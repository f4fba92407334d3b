//! What the daemon tells its operator: lines on standard error, as `tracing` gathers them.

use std::io::{IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// The libraries at warnings, but for those that warn of what is usual: a directory that went before its
/// watch was taken off, an address where nobody answers.
const LIBRARIES: &str = "warn,notify=error,libp2p=error,libp2p_core=error,libp2p_gossipsub=error,\
                         libp2p_mdns=error,libp2p_swarm=error,libp2p_tcp=error,libp2p_quic=error,\
                         libp2p_noise=error,yamux=error,multistream_select=error,netlink_proto=error";

/// A filter that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{filter:?} is no log filter ({reason}): write a level such as debug, or target=level,…")]
pub struct LogFilterError {
    filter: String,
    reason: String,
}

/// Sends what is told to standard error, by way of `writer`: with colours on a terminal, without a time
/// under systemd, which adds its own.
///
/// `filter` is what `--log` said; without it `RUST_LOG` counts, then `info`. A bare level means ours at
/// that level, and the libraries' warnings. Does nothing if the program has set up `tracing` already.
///
/// # Errors
/// If the filter can't be read.
pub fn init<W: Write>(
    filter: Option<&str>,
    writer: impl Fn() -> W + Send + Sync + 'static,
) -> Result<(), LogFilterError> {
    let said = filter.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok());
    let filter = match said.as_deref().unwrap_or("info") {
        "off" => "off".to_owned(),
        level if level.parse::<tracing::Level>().is_ok() => {
            format!("{LIBRARIES},pleach={level},pleach_daemon={level},pleach_core={level}")
        }
        filter => filter.to_owned(),
    };
    let parsed = EnvFilter::try_new(&filter)
        .map_err(|e| LogFilterError { filter: filter.clone(), reason: e.to_string() })?;
    let to_terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(writer)
        .with_ansi(to_terminal)
        .with_target(false)
        .with_span_events(FmtSpan::NONE);
    // Set already: by the program we are embedded in, or by an earlier test. Its choice stands.
    let _ = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => builder.without_time().try_init(),
        None => builder.try_init(),
    };
    Ok(())
}
