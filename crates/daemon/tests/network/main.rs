//! Networks of two and three masters over real sockets on loopback.

mod contents;
mod fixture;
mod joining;
mod messages;
