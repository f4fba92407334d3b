//! The replica: registers on automerge, and the tree and its conflicts that follow from them.

pub mod document;
pub mod gate;
pub mod past;
mod register;
mod schema;
mod tree;

pub use register::{
    Birth, Carried, Causality, Content, Deletion, Place, Register, Update, Value, Write, Written,
};
pub use tree::{Contents, Entries, Tree};
