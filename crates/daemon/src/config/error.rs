//! What is wrong with a settings file, and where.

use std::io;
use std::path::{Path, PathBuf};

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error(
        "cannot read {path}: {source}; make it readable, or remove it: all settings have defaults"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key or a value is wrong, or the file is no TOML.
    #[error("{path}, line {line}: {reason}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key it is about, if it is about one.
        key: Option<String>,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

impl ConfigError {
    /// From what the TOML reader says of `text`.
    pub(super) fn wrong(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
        let content = text.lines().nth(line - 1).unwrap_or_default();
        let key = content.split_once('=').map(|(key, _)| key.trim().to_owned());
        let message = error.message();
        let reason = match (message.strip_prefix("unknown field "), &key) {
            (Some(rest), _) => {
                format!("unknown key {}", rest.replace("expected one of", "allowed are"))
            }
            (None, Some(key)) if message == "duplicate key" => format!("`{key}` is there twice"),
            (None, Some(key)) => {
                let example = "no multiaddress, which looks like \"/ip4/0.0.0.0/tcp/4747\"";
                let message = message.replace("invalid multiaddr", example);
                format!("wrong value for `{key}`: {message}")
            }
            (None, None) => message.to_owned(),
        };
        Self::Wrong { path: path.to_owned(), line, key, reason }
    }

    /// A value that is out of reason.
    pub(super) fn value(path: &Path, text: &str, key: &str, allowed: &str) -> Self {
        let is_of_key = |line: &str| {
            line.split_once('=').is_some_and(|(before, _)| before.trim().ends_with(key))
        };
        let line = 1 + text.lines().position(is_of_key).unwrap_or(0);
        let reason = format!("wrong value for `{key}`: allowed is {allowed}");
        Self::Wrong { path: path.to_owned(), line, key: Some(key.to_owned()), reason }
    }
}
