//! Networks of two and three masters over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

mod contents;
mod fixture;
mod handover;
mod joining;
mod messages;
