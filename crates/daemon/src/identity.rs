//! Who a master is: its key, what it signs, and whose signatures are believed.
//!
//! A master is an ed25519 key (RFC 8032). It signs changes and member entries; each kind of signature
//! is made over a BLAKE3 hash with a context of its own, so that none can stand for another. A store is
//! its founder: the id is derived from the founder's key, so that a list of members proves itself.
//!
//! Nothing here asks whether a change makes sense, or whether its author has been removed: the first
//! is the core's part, the second the caller's, who knows when the removal was learnt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey, ed25519};
use pleach_core::values::{ChangeId, Member, Signature, SignedChange};
use pleach_core::vocabulary::{MasterId, StoreId};
use serde::{Deserialize, Serialize};

use crate::state::JOIN_AGAIN;

/// The file below `.pleach` that holds a master's key.
pub const KEY_FILE: &str = "key";

const CONTEXT_STORE: &str = "pleach 2026 store";
const CONTEXT_CHANGE: &str = "pleach 2026 change signature";
const CONTEXT_MEMBER: &str = "pleach 2026 member signature";
const KEY_PREFIX: &str = "pleach-key-1 ";

/// Why a master's key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The key's file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error(
        "{path} may be read by others (mode {mode:o}): make it private with `chmod 600`, and \
         consider whether the key is still a secret"
    )]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    #[error(
        "{path} does not hold a key of pleach: restore .pleach whole from one backup, or {JOIN_AGAIN}"
    )]
    Malformed {
        /// The key's file.
        path: PathBuf,
    },
    /// No random bytes to be had.
    #[error("the system gave no random bytes: {0}")]
    Randomness(getrandom::Error),
}

/// The secret key of a master.
#[derive(Clone)]
pub struct MasterKey(SigningKey);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", self.master())
    }
}

impl MasterKey {
    /// Makes a new one.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self::from_secret(&random().map_err(KeyError::Randomness)?))
    }

    /// The key with this secret.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// Reads the key from the file at `path`.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        let malformed = || KeyError::Malformed { path: path.to_owned() };
        file.take(200).read_to_string(&mut text).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => malformed(),
            _ => io(error),
        })?;
        let digits = text.trim_end().strip_prefix(KEY_PREFIX).ok_or_else(malformed)?;
        let secret = data_encoding::HEXLOWER.decode(digits.as_bytes()).map_err(|_| malformed())?;
        Ok(Self::from_secret(&secret.try_into().map_err(|_| malformed())?))
    }

    /// Writes the key to a new file at `path`, durably, for its owner's eyes only. Errs if the file
    /// is there already.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        let secret = data_encoding::HEXLOWER.encode(&self.0.to_bytes());
        file.write_all(format!("{KEY_PREFIX}{secret}\n").as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
    }

    /// Reads the key at `path`, or makes one and stores it there.
    pub fn load_or_generate(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate()?;
                key.store(path)?;
                Ok(key)
            }
            other => other,
        }
    }

    /// The public half: the master's id.
    #[must_use]
    pub fn master(&self) -> MasterId {
        MasterId(self.0.verifying_key().to_bytes())
    }

    /// Signs a change as its author.
    #[must_use]
    pub fn sign_change(&self, store: StoreId, id: ChangeId, bytes: Vec<u8>) -> SignedChange {
        let signature = self.sign(&change_digest(store, &bytes));
        SignedChange { id, author: self.master(), bytes, signature }
    }

    /// Makes the entry of a member that this master lets in; of itself, if it founds the store.
    #[must_use]
    pub fn sign_member(
        &self,
        store: StoreId,
        master: MasterId,
        name: &str,
        addresses: Vec<String>,
    ) -> Member {
        Member {
            master,
            name: name.to_owned(),
            addresses,
            invited_by: self.master(),
            signature: self.sign(&member_digest(store, master, name)),
            removed: false,
        }
    }

    /// The key as libp2p wants it.
    #[must_use]
    pub fn to_libp2p(&self) -> Keypair {
        let mut bytes = self.0.to_bytes();
        Keypair::ed25519_from_bytes(&mut bytes).expect("any 32 bytes are an ed25519 secret")
    }

    fn sign(&self, digest: &[u8; 32]) -> Signature {
        Signature::new(&self.0.sign(digest).to_bytes())
    }
}

/// What a store's id is derived from, and so what proves who founded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSeed {
    /// The first master.
    pub founder: MasterId,
    /// Random, so that a master can found more than one store.
    pub nonce: [u8; 16],
}

impl StoreSeed {
    /// A new store of `founder`.
    pub fn generate(founder: MasterId) -> Result<Self, KeyError> {
        Ok(Self { founder, nonce: random().map_err(KeyError::Randomness)? })
    }

    /// The store's id.
    #[must_use]
    pub fn store(&self) -> StoreId {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_STORE);
        hasher.update(&self.founder.0);
        hasher.update(&self.nonce);
        StoreId(*hasher.finalize().as_bytes())
    }
}

/// `N` random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// The libp2p name of a master; none if the bytes are not a point of the curve.
#[must_use]
pub fn peer_of(master: MasterId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&master.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The master behind a libp2p name; none if the name is not that of an ed25519 key.
#[must_use]
pub fn master_of(peer: &PeerId) -> Option<MasterId> {
    // An ed25519 peer id is the identity multihash of the key's protobuf encoding (libp2p spec,
    // peer-ids.md): code 0x00, length 36.
    let bytes = peer.to_bytes();
    let encoded = bytes.strip_prefix(&[0x00, 36])?;
    let key = PublicKey::try_decode_protobuf(encoded).ok()?;
    Some(MasterId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// Whether `change` was signed by its author for `store`.
#[must_use]
pub fn change_is_authentic(store: StoreId, change: &SignedChange) -> bool {
    verify(change.author, &change_digest(store, &change.bytes), &change.signature)
}

/// Whether `member`'s entry was signed by the one it names as its inviter.
#[must_use]
pub fn member_is_authentic(store: StoreId, member: &Member) -> bool {
    let digest = member_digest(store, member.master, &member.name);
    verify(member.invited_by, &digest, &member.signature)
}

/// The masters whose signatures lead back to the founder and who are not removed.
///
/// A removed member's own invitations stay good: what it wrote after its removal never reaches this
/// list. Each entry is verified once; the order of `members` does not matter.
#[must_use]
pub fn admitted(seed: &StoreSeed, members: &[Member]) -> BTreeSet<MasterId> {
    let store = seed.store();
    let mut invited: BTreeMap<MasterId, Vec<&Member>> = BTreeMap::new();
    for member in members {
        invited.entry(member.invited_by).or_default().push(member);
    }
    let mut vouched = BTreeSet::new();
    let mut frontier = vec![seed.founder];
    while let Some(inviter) = frontier.pop() {
        for member in invited.remove(&inviter).unwrap_or_default() {
            let founds_itself = member.master == inviter;
            if (founds_itself && inviter != seed.founder) || !member_is_authentic(store, member) {
                continue;
            }
            if vouched.insert(member.master) && !founds_itself {
                frontier.push(member.master);
            }
        }
    }
    // One removed entry of a master outweighs any other of its entries.
    for member in members.iter().filter(|member| member.removed) {
        vouched.remove(&member.master);
    }
    vouched
}

fn change_digest(store: StoreId, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_CHANGE);
    hasher.update(&store.0);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

fn member_digest(store: StoreId, master: MasterId, name: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_MEMBER);
    hasher.update(&store.0);
    hasher.update(&master.0);
    hasher.update(name.as_bytes());
    *hasher.finalize().as_bytes()
}

fn verify(signer: MasterId, digest: &[u8; 32], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
    // Strict: refuses keys of small order, which would sign anything (RFC 8032, section 8.1ff).
    VerifyingKey::from_bytes(&signer.0)
        .is_ok_and(|key| key.verify_strict(digest, &signature).is_ok())
}

#[cfg(test)]
mod tests {
    use pleach_core::vocabulary::WriterId;

    use super::*;

    fn key(byte: u8) -> MasterKey {
        MasterKey::from_secret(&[byte; 32])
    }

    fn seed(founder: &MasterKey) -> StoreSeed {
        StoreSeed { founder: founder.master(), nonce: [9; 16] }
    }

    #[test]
    fn key_file_is_private_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_FILE);
        let made = MasterKey::load_or_generate(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(MasterKey::load_or_generate(&path).unwrap().master(), made.master());
        assert!(made.store(&path).is_err(), "an existing key is never overwritten");
    }

    #[test]
    fn exposed_or_broken_key_file_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_FILE);
        key(1).store(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(MasterKey::load(&path), Err(KeyError::Exposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for broken in [&b"pleach-key-1 12\n"[..], b"", b"\xff\xff"] {
            std::fs::write(&path, broken).unwrap();
            assert!(matches!(MasterKey::load(&path), Err(KeyError::Malformed { .. })));
        }
    }

    #[test]
    fn master_and_peer_name_each_other() {
        let master = key(3).master();
        let peer = peer_of(master).unwrap();
        assert_eq!(peer, key(3).to_libp2p().public().to_peer_id());
        assert_eq!(master_of(&peer), Some(master));
        assert_eq!(master_of(&PeerId::random()), None);
    }

    #[test]
    fn change_signed_for_one_store_is_refused_in_another() {
        let author = key(1);
        let store = seed(&author).store();
        let id = ChangeId { writer: WriterId::new(author.master(), [0; 8]), sequence: 1 };
        let change = author.sign_change(store, id, b"bytes".to_vec());
        assert!(change_is_authentic(store, &change));
        assert!(!change_is_authentic(StoreId([0; 32]), &change));
        let altered = SignedChange { bytes: b"Bytes".to_vec(), ..change.clone() };
        assert!(!change_is_authentic(store, &altered));
        let claimed = SignedChange { author: key(2).master(), ..change };
        assert!(!change_is_authentic(store, &claimed));
    }

    #[test]
    fn only_those_whose_signatures_lead_to_the_founder_are_admitted() {
        let (founder, second, third, stranger) = (key(1), key(2), key(3), key(4));
        let seed = seed(&founder);
        let store = seed.store();
        let member =
            |by: &MasterKey, who: &MasterKey| by.sign_member(store, who.master(), "name", vec![]);
        let mut members = vec![
            member(&stranger, &stranger),
            member(&second, &third),
            member(&founder, &second),
            member(&founder, &founder),
        ];
        let all = BTreeSet::from([founder.master(), second.master(), third.master()]);
        assert_eq!(admitted(&seed, &members), all);

        members[1].name = "renamed after signing".into();
        let two = BTreeSet::from([founder.master(), second.master()]);
        assert_eq!(admitted(&seed, &members), two);

        members[1] = member(&second, &third);
        members[2].removed = true;
        let others = BTreeSet::from([founder.master(), third.master()]);
        assert_eq!(admitted(&seed, &members), others, "a removed inviter's guests stay");
    }

    #[test]
    fn strangers_who_invite_each_other_are_not_admitted() {
        let (founder, a, b) = (key(1), key(2), key(3));
        let seed = seed(&founder);
        let store = seed.store();
        let members = [
            a.sign_member(store, b.master(), "b", vec![]),
            b.sign_member(store, a.master(), "a", vec![]),
        ];
        assert!(admitted(&seed, &members).is_empty());
    }
}
