//! The laws of snapshot and checkout, over random users.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Mirror, PlainTree, VirtualDisk};
use crate::checkout::Limits;
use crate::snapshot::Scope;
use crate::values::Acts;
use crate::vocabulary::{ContentHash, Name, Timestamp, TreePath};

/// What a user does, on paths of few names, so that they meet.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Write(TreePath, u8),
    Save(TreePath, u8),
    MakeDirectory(TreePath),
    Symlink(TreePath, u8),
    Rename(TreePath, TreePath),
    Swap(TreePath, TreePath),
    Remove(TreePath),
    Recreate(TreePath),
    SetMode(TreePath, u32),
    Touch(TreePath),
}

pub(super) type Contents = BTreeMap<ContentHash, Vec<u8>>;

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn bytes(seed: u8) -> Vec<u8> {
    vec![seed; usize::from(seed % 5)]
}

pub(super) fn all_contents() -> Contents {
    (0..=u8::MAX).map(bytes).map(|bytes| (ContentHash::of(&bytes), bytes)).collect()
}

impl Deed {
    pub(super) fn perform(&self, disk: &mut VirtualDisk) -> bool {
        match self {
            Self::Write(path, seed) => disk.write(path, &bytes(*seed)),
            Self::Save(path, seed) => disk.save(path, &bytes(*seed)),
            Self::MakeDirectory(path) => disk.make_directory(path),
            Self::Symlink(path, seed) => disk.symlink(path, &format!("to{seed}")),
            Self::Rename(from, to) => disk.rename(from, to),
            Self::Swap(a, b) => {
                let temp = path("swap~");
                let possible = disk.rename(a, &temp) && disk.rename(b, a);
                disk.rename(&temp, if possible { b } else { a })
            }
            Self::Remove(path) => disk.remove(path),
            Self::Recreate(path) => disk.remove(path) && disk.make_directory(path),
            Self::SetMode(path, bits) => disk.set_mode(path, *bits),
            Self::Touch(path) => disk.touch(path),
        }
    }

    /// What a watcher would report, asked before it is done. A watcher knows a directory by the path that
    /// it had in `watched`, whatever became of it since.
    fn scopes(
        &self,
        disk: &VirtualDisk,
        watched: &BTreeMap<(u64, Timestamp), TreePath>,
    ) -> Vec<Scope> {
        let paths = match self {
            Self::Rename(a, b) => vec![a, b],
            Self::Swap(a, b) => vec![a, b],
            Self::Write(path, _)
            | Self::Save(path, _)
            | Self::MakeDirectory(path)
            | Self::Symlink(path, _)
            | Self::Remove(path)
            | Self::Recreate(path)
            | Self::SetMode(path, _)
            | Self::Touch(path) => vec![path],
        };
        let scope = |path: &TreePath| {
            let (directory, name) = path.split_last().unwrap();
            let known = disk.object(&directory).and_then(|object| watched.get(&object));
            Scope::Name(known.unwrap_or(&directory).clone(), name.clone())
        };
        let mut scopes: Vec<_> = paths.into_iter().map(scope).collect();
        if let Self::Swap(..) = self {
            scopes.push(Scope::Name(TreePath::root(), Name::try_from("swap~").unwrap()));
        }
        scopes
    }
}

fn any_path() -> impl Strategy<Value = TreePath> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|names| path(&names.join("/")))
}

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (any_path(), any::<u8>()).prop_map(|(p, s)| Deed::Write(p, s)),
        2 => (any_path(), any::<u8>()).prop_map(|(p, s)| Deed::Save(p, s)),
        5 => any_path().prop_map(Deed::MakeDirectory),
        1 => (any_path(), any::<u8>()).prop_map(|(p, s)| Deed::Symlink(p, s)),
        6 => (any_path(), any_path()).prop_map(|(a, b)| Deed::Rename(a, b)),
        3 => (any_path(), any_path()).prop_map(|(a, b)| Deed::Swap(a, b)),
        1 => any_path().prop_map(Deed::Remove),
        1 => any_path().prop_map(Deed::Recreate),
        1 => (any_path(), prop::sample::select(vec![0o600, 0o755, 0o644])).prop_map(|(p, m)| Deed::SetMode(p, m)),
        1 => any_path().prop_map(Deed::Touch),
    ]
}

fn any_batches() -> impl Strategy<Value = Vec<Vec<Deed>>> {
    prop::collection::vec(prop::collection::vec(any_deed(), 1..12), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn acts_of_a_full_scan_make_the_tree_equal_to_the_disk(batches in any_batches()) {
        let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
        for batch in batches {
            for deed in &batch {
                deed.perform(&mut mirror.disk);
            }
            mirror.survey_all(&mut tree);
            prop_assert_eq!(tree.entries(), mirror.disk.entries());
            prop_assert_eq!(tree.repairs, 0);
            prop_assert_eq!(mirror.survey_all(&mut tree), Acts::default());
        }
    }

    #[test]
    fn acts_of_what_a_watcher_reports_make_the_tree_equal_to_the_disk(batches in any_batches()) {
        let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
        for batch in batches {
            let watched = mirror.disk.objects();
            let mut scopes = Vec::new();
            for deed in &batch {
                scopes.extend(deed.scopes(&mirror.disk, &watched));
                deed.perform(&mut mirror.disk);
            }
            mirror.survey(&mut tree, scopes);
            prop_assert_eq!(tree.entries(), mirror.disk.entries());
            prop_assert_eq!(tree.repairs, 0);
            prop_assert_eq!(mirror.survey_all(&mut tree), Acts::default());
        }
    }

    #[test]
    fn survey_of_a_disk_that_changes_meanwhile_is_set_right_by_the_next(
        batches in any_batches(),
        interference in prop::collection::vec(prop::option::weighted(0.5, any_deed()), 0..40),
    ) {
        let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
        let mut interference = interference.into_iter();
        for batch in batches {
            for deed in &batch {
                deed.perform(&mut mirror.disk);
            }
            mirror.survey_disturbed(&mut tree, |disk| {
                if let Some(deed) = interference.next().flatten() {
                    deed.perform(disk);
                }
            });
            mirror.survey_all(&mut tree);
            prop_assert_eq!(tree.entries(), mirror.disk.entries());
            prop_assert_eq!(tree.repairs, 0);
            prop_assert_eq!(mirror.survey_all(&mut tree), Acts::default());
        }
    }

    #[test]
    fn checkout_reaches_any_tree_from_any_disk_without_echo(
        batches in any_batches(),
        entries_max in prop::sample::select(vec![1, 3, 10_000]),
    ) {
        let mut tree = PlainTree::default();
        let mut masters = [Mirror::default(), Mirror::default()];
        let contents = all_contents();
        for (round, batch) in batches.into_iter().enumerate() {
            let here = round % 2;
            for deed in &batch {
                deed.perform(&mut masters[here].disk);
            }
            masters[here].survey_all(&mut tree);
            let there = &mut masters[1 - here];
            there.check_out(&mut tree, &contents, Limits { entries_max }, |_| {});
            prop_assert_eq!(there.disk.entries(), tree.entries());
            prop_assert_eq!(tree.repairs, 0, "no act of a user came of our own effects");
            prop_assert_eq!(there.survey_all(&mut tree), Acts::default());
            prop_assert_eq!(there.base.parked().count(), 0);
        }
    }

    #[test]
    fn effects_done_before_a_crash_are_no_acts_of_a_user(
        batches in any_batches(),
        crashes in prop::collection::vec(0_usize..12, 1..6),
    ) {
        let mut tree = PlainTree::default();
        let mut masters = [Mirror::default(), Mirror::default()];
        let contents = all_contents();
        let mut crashes = crashes.into_iter().cycle();
        for (round, batch) in batches.into_iter().enumerate() {
            let here = round % 2;
            for deed in &batch {
                deed.perform(&mut masters[here].disk);
            }
            masters[here].survey_all(&mut tree);
            let there = &mut masters[1 - here];
            for effects_max in crashes.by_ref().take(2) {
                let found = there.check_out_and_crash(&mut tree, &contents, effects_max);
                prop_assert_eq!(found.unwrap_or_default(), Acts::default());
            }
            there.check_out(&mut tree, &contents, Limits::default(), |_| {});
            prop_assert_eq!(there.disk.entries(), tree.entries());
            prop_assert_eq!(there.survey_all(&mut tree), Acts::default());
        }
    }

    #[test]
    fn no_bytes_of_a_user_are_lost_while_effects_are_performed(
        batches in any_batches(),
        interference in prop::collection::vec(prop::option::weighted(0.4, any_deed()), 0..40),
    ) {
        let mut tree = PlainTree::default();
        let (mut author, mut reader) = (Mirror::default(), Mirror::default());
        let contents = all_contents();
        let mut interference = interference.into_iter();
        let mut ended = BTreeSet::new();
        let mut written = BTreeSet::new();
        for batch in batches {
            for deed in &batch {
                deed.perform(&mut author.disk);
            }
            author.survey_all(&mut tree);
            let touched = tree.take_touched();
            tree.touch(&touched);
            reader.check_out(&mut tree, &contents, Limits::default(), |disk| {
                if let Some(deed) = interference.next().flatten() {
                    let before = disk.contents();
                    deed.perform(disk);
                    let after = disk.contents();
                    ended.extend(before.difference(&after).copied());
                    written.extend(after.difference(&before).copied());
                }
            });
            prop_assert_eq!(reader.disk.entries(), tree.entries());
            prop_assert_eq!(reader.survey_all(&mut tree), Acts::default());
            let kept = reader.disk.contents();
            for hash in &written {
                let accounted = kept.contains(hash)
                    || reader.disk.versions.contains(hash)
                    || ended.contains(hash);
                prop_assert!(accounted, "{:?} is lost", hash);
            }
            tree.touch(&touched);
            author.check_out(&mut tree, &contents, Limits::default(), |_| {});
        }
    }
}
