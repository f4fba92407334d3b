//! The laws of snapshot and checkout, over random users.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Mirror, PlainTree, VirtualDisk};
use crate::checkout::{self, Availability, Limits, PlannedEffect};
use crate::snapshot::Scope;
use crate::values::{Act, Acts, Base, BaseError, Effect};
use crate::vocabulary::{ContentHash, Name, TreePath};

/// What a user does, on paths of few names, so that they meet.
#[derive(Clone, Debug)]
enum Deed {
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

type Contents = BTreeMap<ContentHash, Vec<u8>>;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn bytes(seed: u8) -> Vec<u8> {
    vec![seed; usize::from(seed % 5)]
}

fn all_contents() -> Contents {
    (0..=u8::MAX).map(bytes).map(|bytes| (ContentHash::of(&bytes), bytes)).collect()
}

impl Deed {
    fn perform(&self, disk: &mut VirtualDisk) -> bool {
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

    /// What a watcher would report.
    fn scopes(&self) -> Vec<Scope> {
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
            Scope::Name(directory, name.clone())
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
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

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
            let done: Vec<_> =
                batch.iter().filter(|deed| deed.perform(&mut mirror.disk)).collect();
            let scopes = batch.iter().flat_map(Deed::scopes).collect();
            mirror.survey(&mut tree, scopes);
            prop_assert_eq!(tree.entries(), mirror.disk.entries(), "after {:?}", done);
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

fn moves(acts: &Acts) -> usize {
    acts.acts.iter().filter(|act| matches!(act, Act::Move { .. })).count()
}

#[test]
fn renaming_a_directory_is_one_move_and_reads_nothing_in_it() {
    let (mut author, mut tree) = (Mirror::default(), PlainTree::default());
    let mut reader = Mirror::default();
    author.disk.make_directory(&path("d"));
    for i in 0..1000 {
        author.disk.write(&path(&format!("d/{i}")), b"x");
    }
    author.survey_all(&mut tree);
    reader.check_out(&mut tree, &all_contents_and(b"x"), Limits::default(), |_| {});
    let (looked, read) = (author.disk.looked, author.disk.read);
    author.disk.rename(&path("d"), &path("e"));
    // Only the new half is reported: the old one is looked up.
    let scopes = vec![Scope::Name(TreePath::root(), Name::try_from("e").unwrap())];
    let acts = author.survey(&mut tree, scopes);
    assert_eq!((moves(&acts), acts.acts.len()), (1, 1));
    assert_eq!(author.disk.read, read);
    assert!(author.disk.looked - looked <= 4, "{} names", author.disk.looked - looked);
    reader.effects.clear();
    reader.check_out(&mut tree, &Contents::new(), Limits::default(), |_| {});
    assert!(matches!(&reader.effects[..], [Effect::Move { .. }]), "{:?}", reader.effects);
}

fn all_contents_and(bytes: &[u8]) -> Contents {
    let mut contents = all_contents();
    contents.insert(ContentHash::of(bytes), bytes.to_vec());
    contents
}

#[test]
fn joiner_adopts_what_it_holds_already() {
    let (mut first, mut tree) = (Mirror::default(), PlainTree::default());
    let mut joiner = Mirror::default();
    for mirror in [&mut first, &mut joiner] {
        mirror.disk.make_directory(&path("d"));
        mirror.disk.write(&path("d/f"), b"same");
        mirror.disk.symlink(&path("l"), "d/f");
    }
    joiner.disk.set_mode(&path("d/f"), 0o600);
    first.survey_all(&mut tree);
    let before = tree.take_touched();
    assert_eq!(joiner.survey_all(&mut tree), Acts::default());
    tree.touch(&before);
    joiner.check_out(&mut tree, &Contents::new(), Limits::default(), |_| {});
    assert_eq!(joiner.disk.entries(), first.disk.entries());
    assert!(joiner.effects.iter().all(|effect| matches!(effect, Effect::SetAttributes { .. })));
}

#[test]
fn renaming_over_a_file_edits_it_and_removes_the_other() {
    let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
    mirror.disk.write(&path("a"), b"old");
    mirror.disk.write(&path("b"), b"new");
    mirror.survey_all(&mut tree);
    let (a, b) = (tree.find(&path("a")).unwrap(), tree.find(&path("b")).unwrap());
    mirror.disk.rename(&path("b"), &path("a"));
    let acts = mirror.survey_all(&mut tree).acts;
    let [Act::Edit { entry, inherits, .. }, Act::Remove { entry: removed, .. }] = &acts[..] else {
        panic!("{acts:?}");
    };
    assert_eq!((entry[0].node, &inherits[..], removed[0].node), (a, &[b][..], b));
}

#[test]
fn swapping_two_files_moves_both() {
    let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
    mirror.disk.write(&path("a"), b"one");
    mirror.disk.write(&path("b"), b"two");
    mirror.survey_all(&mut tree);
    Deed::Swap(path("a"), path("b")).perform(&mut mirror.disk);
    let acts = mirror.survey_all(&mut tree);
    assert_eq!((moves(&acts), acts.acts.len()), (2, 2));
}

#[test]
fn another_name_of_a_file_is_a_file_of_its_own() {
    let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
    mirror.disk.write(&path("a"), b"one");
    mirror.survey_all(&mut tree);
    mirror.disk.link(&path("a"), &path("b"));
    let scopes = vec![Scope::Name(TreePath::root(), Name::try_from("b").unwrap())];
    let acts = mirror.survey(&mut tree, scopes);
    assert!(matches!(&acts.acts[..], [Act::Create { .. }]), "{:?}", acts.acts);
    assert_eq!(mirror.survey_all(&mut tree), Acts::default());
}

#[test]
fn unreadable_directory_is_not_deleted_and_what_is_ignored_is_left_alone() {
    let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
    mirror.disk.make_directory(&path("d"));
    mirror.disk.write(&path("d/f"), b"one");
    mirror.disk.write(&path("i"), b"two");
    mirror.survey_all(&mut tree);
    mirror.disk.close(path("d"));
    mirror.disk.ignore(path("i"));
    mirror.disk.write(&path("i"), b"three");
    assert_eq!(mirror.survey_all(&mut tree), Acts::default());
}

#[test]
fn thousand_levels_are_surveyed_and_checked_out() {
    let (mut author, mut reader) = (Mirror::default(), Mirror::default());
    let mut tree = PlainTree::default();
    let mut at = TreePath::root();
    for _ in 0..1000 {
        at = at.join(&Name::try_from("d").unwrap());
        author.disk.make_directory(&at);
    }
    author.survey_all(&mut tree);
    reader.check_out(&mut tree, &Contents::new(), Limits::default(), |_| {});
    assert_eq!(reader.disk.entries().len(), 1000);
    author.disk.remove(&path("d"));
    author.survey_all(&mut tree);
    reader.check_out(&mut tree, &Contents::new(), Limits::default(), |_| {});
    assert_eq!(reader.disk.entries().len(), 0);
}

#[test]
fn content_that_is_not_here_is_wanted_and_blocks_nothing_else() {
    let (mut author, mut reader) = (Mirror::default(), Mirror::default());
    let mut tree = PlainTree::default();
    author.disk.write(&path("a"), b"old");
    author.survey_all(&mut tree);
    reader.check_out(&mut tree, &all_contents_and(b"old"), Limits::default(), |_| {});
    author.disk.write(&path("a"), b"new");
    author.disk.rename(&path("a"), &path("b"));
    author.survey_all(&mut tree);
    let touched = tree.take_touched();
    let nothing = |_: &ContentHash| Availability::Missing;
    let plan = checkout::plan(&reader.base, &tree, &touched, &nothing, Limits::default());
    assert!(matches!(&plan.effects[..], [PlannedEffect { effect: Effect::Move { .. }, .. }]));
    assert_eq!(plan.wanted[0].hash, ContentHash::of(b"new"));
    assert_eq!(plan.wanted[0].resembles, Some(path("b")));
}

#[test]
fn copy_of_a_file_that_is_here_is_taken_from_it() {
    let (mut author, mut reader) = (Mirror::default(), Mirror::default());
    let mut tree = PlainTree::default();
    author.disk.write(&path("a"), b"bytes");
    author.survey_all(&mut tree);
    reader.check_out(&mut tree, &all_contents_and(b"bytes"), Limits::default(), |_| {});
    author.disk.write(&path("b"), b"bytes");
    author.disk.rename(&path("a"), &path("c"));
    author.survey_all(&mut tree);
    reader.check_out(&mut tree, &Contents::new(), Limits::default(), |_| {});
    assert_eq!(reader.disk.entries(), author.disk.entries());
}

#[test]
fn base_survives_its_rows_and_damaged_rows_are_named() {
    let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
    mirror.disk.make_directory(&path("d"));
    mirror.disk.write(&path("d/f"), b"one");
    mirror.survey_all(&mut tree);
    let rows: Vec<(u64, Vec<u8>)> = mirror
        .base
        .take_dirty_rows()
        .into_iter()
        .filter_map(|(id, row)| Some((id, row?)))
        .collect();
    assert!(mirror.base.take_dirty_rows().is_empty());
    let loaded = Base::load(rows.clone()).unwrap();
    assert!(loaded.iter().eq(mirror.base.iter()));
    let directory = loaded.find(&path("d")).unwrap();
    let without: Vec<_> = rows.iter().filter(|(id, _)| *id != directory.0).cloned().collect();
    assert!(matches!(Base::load(without), Err(BaseError::Orphan { .. })));
    for (at, (id, row)) in rows.iter().enumerate() {
        let mut damaged = rows.clone();
        damaged[at].1 = row[..row.len() - 1].to_vec();
        assert_eq!(Base::load(damaged).unwrap_err(), BaseError::Undecodable(*id));
    }
}
