//! The pleach daemon: watches a directory, gossips its changes, projects the merged tree.

pub mod config;
pub mod control;
pub mod disk;
pub mod foreground;
pub mod history;
pub mod identity;
pub mod log;
pub mod net;
pub mod node;
pub mod offline;
pub mod state;
pub mod store;
pub mod ticket;

pub use libp2p::Multiaddr;
