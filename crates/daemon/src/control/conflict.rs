//! Conflicts as they are reported: with names for masters, and short ids for versions.

use std::borrow::Borrow;

use pleach_core::values::{Body, Conflict, Version};
use pleach_core::vocabulary::{MasterId, Name, Stamp};

use super::{ConflictReport, Counts, MasterLabel, VersionKind, VersionReport};

/// The fewest digits of a version's id that are shown.
const ID_DIGITS_MIN: usize = 8;

impl ConflictReport {
    /// The report of `conflict`, with the names that `label` has for masters.
    #[must_use]
    pub fn new(
        conflict: &Conflict,
        opened_ms: Option<i64>,
        label: impl Fn(MasterId) -> MasterLabel,
    ) -> Self {
        let all: Vec<Stamp> = conflict.versions.iter().map(|version| version.stamp).collect();
        let report = |version: &Version| report(version, &all, &label);
        Self {
            path: conflict.path.clone().into(),
            kind: conflict.kind,
            opened_ms,
            since_ms: conflict.versions.iter().filter_map(|version| version.written_ms).max(),
            rule: conflict.rule(),
            versions: conflict.versions.iter().map(report).collect(),
            ancestor: None,
        }
    }

    /// The same with what the versions go back to.
    #[must_use]
    pub fn with_ancestor(
        self,
        conflict: &Conflict,
        ancestor: Option<&Version>,
        label: impl Fn(MasterId) -> MasterLabel,
    ) -> Self {
        let all: Vec<Stamp> =
            conflict.versions.iter().chain(ancestor).map(|version| version.stamp).collect();
        let versions = conflict.versions.iter().map(|version| report(version, &all, &label));
        let ancestor = ancestor.map(|version| report(version, &all, &label));
        Self { versions: versions.collect(), ancestor, ..self }
    }
}

fn report(
    version: &Version,
    all: &[Stamp],
    label: impl Fn(MasterId) -> MasterLabel,
) -> VersionReport {
    let (what, size, hash, target) = match &version.body {
        Body::Directory { .. } => (VersionKind::Directory, None, None, None),
        Body::File(content) => {
            (VersionKind::File, Some(content.size), Some(content.hash.to_string()), None)
        }
        Body::Symlink { target, .. } => {
            let bytes = target.as_bytes();
            (VersionKind::Symlink, Some(bytes.len() as u64), None, Some(shown_target(bytes)))
        }
    };
    let mtime = version.body.mtime();
    VersionReport {
        id: version_id(version.stamp, all),
        what,
        of: version.of,
        master: version.master.map(label),
        written_ms: version.written_ms,
        order: version.stamp.counter,
        modified_ms: mtime.seconds.saturating_mul(1_000) + i64::from(mtime.nanos / 1_000_000),
        size,
        mode: format!("{:04o}", version.mode.bits()),
        hash,
        target,
        stands: version.stands,
        here: None,
        elsewhere: version.elsewhere.clone().map(Into::into),
        sibling: None,
    }
}

/// A link's text, escaped as names are; its slashes, which no name has, stay.
pub(super) fn shown_target(bytes: &[u8]) -> String {
    let shown = |part: &[u8]| match part {
        b"." | b".." | b"" => String::from_utf8_lossy(part).into_owned(),
        // A part longer than any name can be: in pieces, each of which is one.
        part => part
            .chunks(255)
            .filter_map(|piece| Name::new(piece).ok())
            .fold(String::new(), |text, name| text + &name.to_string()),
    };
    bytes.split(|byte| *byte == b'/').map(shown).collect::<Vec<_>>().join("/")
}

/// The version's full id: hexadecimal digits of a hash over its stamp.
#[must_use]
pub fn full_version_id(stamp: Stamp) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("pleach 2026 version id");
    hasher.update(stamp.writer.as_bytes());
    hasher.update(&stamp.counter.to_le_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The shortest beginning of the version's id, of 8 digits or more, that no other of `all` shares.
fn version_id(stamp: Stamp, all: &[Stamp]) -> String {
    let full = full_version_id(stamp);
    let others: Vec<String> =
        all.iter().filter(|other| **other != stamp).map(|other| full_version_id(*other)).collect();
    let is_shared = |digits: &usize| others.iter().any(|other| other[..*digits] == full[..*digits]);
    let digits = (ID_DIGITS_MIN..full.len()).find(|digits| !is_shared(digits));
    full[..digits.unwrap_or(full.len())].to_owned()
}

impl Counts {
    /// Counts entries of a tree, whose root is not to be among them.
    pub fn of(bodies: impl IntoIterator<Item: Borrow<Body>>) -> Self {
        let mut counts = Self::default();
        for body in bodies {
            match body.borrow() {
                Body::Directory { .. } => counts.directories += 1,
                Body::Symlink { .. } => counts.symlinks += 1,
                Body::File(content) => {
                    counts.files += 1;
                    counts.bytes += content.size;
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use pleach_core::values::{ConflictKind, FileContent, LinkTarget, VersionOf};
    use pleach_core::vocabulary::{ContentHash, Mode, NodeId, Timestamp, TreePath, WriterId};

    use super::*;

    fn stamp(counter: u64) -> Stamp {
        Stamp { counter, writer: WriterId([7; 16]) }
    }

    fn version(counter: u64, body: Body) -> Version {
        let master = Some(MasterId([counter as u8; 32]));
        let stands = counter == 1;
        let (node, stamp, of) = (NodeId::ROOT, stamp(counter), VersionOf::Content);
        let (written_ms, mode) = (Some(10 * counter as i64), Mode::new(0o640));
        Version { node, stamp, master, written_ms, of, body, mode, stands, elsewhere: None }
    }

    #[test]
    fn version_is_named_by_eight_digits_or_as_many_as_tell_it_apart() {
        let all: Vec<_> = (1..2_000).map(stamp).collect();
        let ids: std::collections::BTreeSet<_> =
            all.iter().map(|stamp| version_id(*stamp, &all)).collect();
        assert_eq!(ids.len(), all.len());
        assert!(ids.iter().all(|id| id.len() >= ID_DIGITS_MIN));
        assert_eq!(version_id(stamp(1), &[stamp(1)]).len(), ID_DIGITS_MIN);
    }

    #[test]
    fn report_tells_what_each_version_is() {
        let mtime = Timestamp { seconds: -1, nanos: 999_000_000 };
        let file = FileContent { hash: ContentHash::of(b"x"), size: 1, mtime };
        let target = LinkTarget::new(*b"../a\xff/b\n").unwrap();
        let conflict = Conflict {
            path: TreePath::parse(b"a/b").unwrap(),
            kind: ConflictKind::SameName,
            versions: vec![
                version(1, Body::File(file)),
                version(2, Body::Symlink { target, mtime }),
                version(3, Body::Directory { mtime }),
            ],
        };
        let label = |master: MasterId| MasterLabel::new(master, format!("m{}", master.0[0]));
        let report = ConflictReport::new(&conflict, Some(5), label);
        let [first, second, third] = &report.versions[..] else { panic!("three versions") };
        assert_eq!(first.hash.as_deref(), Some(&*ContentHash::of(b"x").to_string()));
        assert_eq!((first.size, first.modified_ms, first.stands), (Some(1), -1, true));
        assert_eq!((first.order, first.written_ms, &*first.mode), (1, Some(10), "0640"));
        assert_eq!(report.since_ms, Some(30));
        assert_eq!(second.target.as_deref(), Some("../a\\xff/b\\n"));
        assert_eq!(third.size, None);
        assert_eq!(third.master.as_ref().unwrap().name, "m3");
    }
}
