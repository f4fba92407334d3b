//! The replicated tree of pleach: a CRDT of files and directories, without disk, network or clock.
//!
//! ```text
//! vocabulary   ids, names and paths, stamps, time, fingerprints
//!    ^
//! values       tree, conflict, base, act, look, effect, message, record: plain values
//!    ^
//! functions    replica    changes -> tree and conflicts, on automerge
//!              snapshot   base + disk -> acts
//!              checkout   base + tree -> ordered, guarded effects
//!              transfer   which contents are wanted, and when to ask again
//!    ^
//! engine       holds them together: one input in, ordered outputs out
//! ```
//!
//! An embedder may use [`replica`] alone (see `examples/embed.rs` and `examples/history.rs`), or drive the [`engine`]: hand it an
//! input, then do what it wants, in order. Nothing here does anything by itself.
//!
//! ```
//! use pleach_core::engine::{Engine, Identity, Input, Output, Signer, Stored};
//! use pleach_core::values::{ChangeId, Member, Signature};
//! use pleach_core::vocabulary::{MasterId, Moment, StoreId, WriterId};
//!
//! struct NoKey;
//! impl Signer for NoKey {
//!     fn sign(&self, _: ChangeId, _: &[u8]) -> Signature {
//!         Signature::new(&[0; 64])
//!     }
//! }
//!
//! let master = MasterId([1; 32]);
//! let identity = Identity {
//!     store: StoreId([0; 32]),
//!     founder: master,
//!     master,
//!     writer: WriterId::new(master, [42; 8]), // random at every start
//!     signer: Box::new(NoKey),
//! };
//! let mut engine = Engine::open(identity, Stored::default())?;
//! let founder = Member {
//!     master,
//!     name: "web1".into(),
//!     addresses: vec![],
//!     invited_by: master,
//!     signature: Signature::new(&[0; 64]),
//!     removed: false,
//! };
//! engine.handle(Moment::default(), Input::SetMember(founder));
//! let mut looks = 0;
//! while let Some(output) = engine.poll_output() {
//!     match output {
//!         Output::Persist(records) => assert!(!records.is_empty()), // write these, durably, first
//!         Output::Look(look) => looks += look.lists.len(),          // then answer with `Looked`
//!         _ => {}
//!     }
//! }
//! assert_eq!(looks, 1); // a member looks at its root
//! # Ok::<(), pleach_core::engine::OpenError>(())
//! ```

pub mod checkout;
pub mod engine;
pub mod replica;
pub mod snapshot;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transfer;
pub mod values;
pub mod vocabulary;
