//! What the daemon tells its operator: lines on standard error, as `tracing` gathers them.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// What is told when neither `--log` nor `RUST_LOG` says otherwise: ours at info, the libraries' warnings.
const DEFAULT_FILTER: &str = "warn,pleach=info,pleach_daemon=info,pleach_core=info";

/// A filter that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{filter:?} is no log filter ({reason}): write a level such as debug, or target=level,…")]
pub struct LogFilterError {
    filter: String,
    reason: String,
}

/// Sends what is told to standard error: with colours on a terminal, without a time under systemd, which
/// adds its own.
///
/// `filter` is what `--log` said; without it `RUST_LOG` counts, then [`DEFAULT_FILTER`]. A bare level means
/// ours at that level. Does nothing if the program has set up `tracing` already.
///
/// # Errors
/// If the filter can't be read.
pub fn init(filter: Option<&str>) -> Result<(), LogFilterError> {
    let filter = match filter {
        Some(level) if level.parse::<tracing::Level>().is_ok() || level == "off" => {
            format!("warn,pleach={level},pleach_daemon={level},pleach_core={level}")
        }
        Some(filter) => filter.to_owned(),
        None => std::env::var("RUST_LOG").unwrap_or_else(|_| DEFAULT_FILTER.to_owned()),
    };
    let parsed = EnvFilter::try_new(&filter)
        .map_err(|e| LogFilterError { filter: filter.clone(), reason: e.to_string() })?;
    let to_terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
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
