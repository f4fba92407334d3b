//! The replicated tree of pleach: a CRDT of files and directories, without disk, network or clock.

pub mod checkout;
pub mod engine;
pub mod replica;
pub mod snapshot;
pub mod transfer;
pub mod values;
pub mod vocabulary;
