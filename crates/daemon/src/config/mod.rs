//! This master's own settings: `.pleach/config.toml`.
//!
//! Every setting has a documented default, and a file without any is complete. An unknown key or a wrong
//! value is an error that names file, line and key, and lists what is allowed: a typo is never a default.
//! What all masters must hold alike is no setting of a master and not here.

mod duration;
mod error;
mod template;

use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::Multiaddr;
use serde::Deserialize;

pub use duration::{DurationError, parse_duration, show_duration};
pub use error::ConfigError;

/// The file below `.pleach` that holds the settings.
pub const CONFIG_FILE: &str = "config.toml";

/// The port of the default addresses.
pub const DEFAULT_PORT: u16 = 4747;

/// What a master does as its operator wants it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. By default port 4747 of all addresses, over TCP and QUIC; if another program has
    /// that port and the file names none, a free port of the system's choice.
    pub listen: Listen,
    /// Addresses to tell the others before those found out: behind a translating router.
    pub advertise: Vec<Multiaddr>,
    /// Whether to look for members on the local network by multicast DNS.
    pub mdns: bool,
    /// Whether to set owner and group of what others wrote.
    pub replicate_owner: ReplicateOwner,
    /// How often to look through the whole tree, for writes that raise no event.
    #[serde(deserialize_with = "duration::deserialize")]
    pub rescan_interval: Duration,
    /// How long replaced and deleted files are kept.
    #[serde(deserialize_with = "duration::deserialize")]
    pub versions_age: Duration,
    /// How much of the file system they may hold before the oldest go earlier.
    pub versions_share: Percent,
}

/// A share in percent, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Percent(pub u8);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Multiaddr>")]
pub enum Listen {
    /// The file says nothing: the default addresses, or a free port if theirs is taken.
    Default,
    /// These, and an error if one can't be had.
    Addresses(Vec<Multiaddr>),
}

/// Whether owners are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ReplicateOwnerValue")]
pub enum ReplicateOwner {
    /// If the daemon may: it runs as root.
    Auto,
    /// Always; a refusal of the system is a problem in `status`.
    Always,
    /// Never: all files belong to the daemon's user.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::Default,
            advertise: Vec::new(),
            mdns: true,
            replicate_owner: ReplicateOwner::Auto,
            rescan_interval: Duration::from_secs(3600),
            versions_age: Duration::from_secs(30 * 24 * 3600),
            versions_share: Percent(10),
        }
    }
}

impl Config {
    /// The settings of the store in `root`; the defaults if it has no such file.
    ///
    /// # Errors
    /// If the file can't be read, or a key or value in it is wrong.
    pub fn load(root: &Path) -> Result<Self, ConfigError> {
        let path = config_path(root);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }

    /// The settings that `text` makes; `path` is for messages.
    ///
    /// # Errors
    /// If a key or value in it is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|error| ConfigError::wrong(path, text, &error))?;
        match config.contradiction() {
            Some((key, reason)) => Err(ConfigError::value(path, text, key, reason)),
            None => Ok(config),
        }
    }

    /// What a new store's file says: every key with its default, as comments.
    #[must_use]
    pub fn template() -> &'static str {
        template::TEMPLATE
    }

    /// The first value that is of the right type and out of all reason.
    fn contradiction(&self) -> Option<(&'static str, &'static str)> {
        [
            (self.rescan_interval < Duration::from_secs(10), "rescan_interval", "at least 10s"),
            (self.versions_age < Duration::from_secs(3600), "versions_age", "at least 1h"),
            (self.advertise.len() > 16, "advertise", "at most 16 addresses"),
            (self.listen.addresses().len() > 16, "listen", "at most 16 addresses"),
        ]
        .into_iter()
        .find_map(|(wrong, key, allowed)| wrong.then_some((key, allowed)))
    }
}

/// Where the settings of the store in `root` are.
#[must_use]
pub fn config_path(root: &Path) -> PathBuf {
    root.join(".pleach").join(CONFIG_FILE)
}

impl Listen {
    /// The addresses, of the default too.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        match self {
            Self::Default => default_addresses(DEFAULT_PORT),
            Self::Addresses(addresses) => addresses.clone(),
        }
    }

    /// What to try if [`Listen::addresses`] are taken by another program; none if they must be had.
    #[must_use]
    pub fn fallback(&self) -> Option<Vec<Multiaddr>> {
        match self {
            Self::Default => Some(default_addresses(0)),
            Self::Addresses(_) => None,
        }
    }
}

fn default_addresses(port: u16) -> Vec<Multiaddr> {
    use libp2p::multiaddr::Protocol;
    use std::net::Ipv4Addr;
    let any = Multiaddr::empty().with(Protocol::Ip4(Ipv4Addr::UNSPECIFIED));
    vec![
        any.clone().with(Protocol::Tcp(port)),
        any.with(Protocol::Udp(port)).with(Protocol::QuicV1),
    ]
}

impl From<Vec<Multiaddr>> for Listen {
    fn from(addresses: Vec<Multiaddr>) -> Self {
        Self::Addresses(addresses)
    }
}

impl TryFrom<String> for Percent {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
        match number {
            Some(percent) if percent <= 100 => Ok(Self(percent)),
            _ => Err(format!("expected \"0%\" to \"100%\", found {text:?}")),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"auto\", true or false")]
enum ReplicateOwnerValue {
    Bool(bool),
    Word(String),
}

impl TryFrom<ReplicateOwnerValue> for ReplicateOwner {
    type Error = String;
    fn try_from(value: ReplicateOwnerValue) -> Result<Self, String> {
        match value {
            ReplicateOwnerValue::Bool(true) => Ok(Self::Always),
            ReplicateOwnerValue::Bool(false) => Ok(Self::Never),
            ReplicateOwnerValue::Word(word) if word == "auto" => Ok(Self::Auto),
            ReplicateOwnerValue::Word(word) => {
                Err(format!("expected \"auto\", true or false, found {word:?}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
