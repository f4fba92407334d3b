//! Cases of snapshot and checkout, one rule each.

use super::laws::{Contents, Deed, all_contents, path};
use super::{Mirror, PlainTree};
use crate::checkout::{self, Availability, Completion, Limits, PlannedEffect};
use crate::snapshot::Scope;
use crate::values::{
    Act, Acts, Base, BaseError, Body, Effect, EntryView, FileContent, Seen, TreeView,
};
use crate::vocabulary::{Attributes, ContentHash, Name, NodeId, Timestamp, TreePath};

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

#[test]
fn saving_by_renaming_looks_at_the_one_file() {
    let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
    mirror.disk.make_directory(&path("d"));
    for i in 0..1000 {
        mirror.disk.write(&path(&format!("d/{i}")), b"x");
    }
    mirror.survey_all(&mut tree);
    let looked = mirror.disk.looked;
    mirror.disk.save(&path("d/7"), b"y");
    let scopes = vec![Scope::Name(path("d"), Name::try_from("7").unwrap())];
    let acts = mirror.survey(&mut tree, scopes);
    assert!(matches!(&acts.acts[..], [Act::Edit { .. }, Act::Touch { .. }]), "{acts:?}");
    assert!(mirror.disk.looked - looked <= 4, "{} names", mirror.disk.looked - looked);
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
    assert_eq!((entry[0].node, inherits[0][0].node, removed[0].node), (a, b, b));
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
fn file_is_renamed_though_the_link_that_came_into_its_place_has_not_settled() {
    let (mut mirror, mut tree) = (Mirror::default(), PlainTree::default());
    mirror.disk.write(&path("a"), b"one");
    mirror.survey_all(&mut tree);
    let node = tree.find(&path("a"));
    mirror.disk.rename(&path("a"), &path("b"));
    mirror.disk.symlink(&path("a"), "b");
    let name = |text: &str| Name::try_from(text).unwrap();
    let root = TreePath::root;
    let scopes = vec![Scope::Name(root(), name("b")), Scope::Peek(root(), name("a"))];
    let acts = mirror.survey(&mut tree, scopes);
    assert!(matches!(&acts.acts[..], [Act::Move { .. }]), "{:?}", acts.acts);
    let acts = mirror.survey_all(&mut tree);
    assert!(matches!(&acts.acts[..], [Act::Create { .. }]), "{:?}", acts.acts);
    assert_eq!(tree.find(&path("b")), node);
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

/// A tree written down entry by entry, some of several nodes.
#[derive(Default)]
struct WrittenDown(Vec<EntryView>);

impl WrittenDown {
    fn add(&mut self, parent: u8, name: &str, nodes: &[u8], body: Body) {
        let seen = |&node: &u8| Seen {
            node: NodeId([node; 16]),
            places: Default::default(),
            contents: Default::default(),
        };
        self.0.push(EntryView {
            nodes: nodes.iter().map(seen).collect(),
            parent: NodeId([parent; 16]),
            name: Name::try_from(name).unwrap(),
            body,
            attributes: Attributes::with_mode(0o755),
        });
    }
}

impl TreeView for WrittenDown {
    fn entry(&self, node: NodeId) -> Option<EntryView> {
        self.0.iter().find(|view| view.nodes.iter().any(|seen| seen.node == node)).cloned()
    }

    fn child(&self, directory: NodeId, name: &Name) -> Option<NodeId> {
        self.children(directory).into_iter().find(|(known, _)| known == name).map(|(_, node)| node)
    }

    fn children(&self, directory: NodeId) -> Vec<(Name, NodeId)> {
        let standing = self.entry(directory).map_or(directory, |view| view.standing());
        let inside = self.0.iter().filter(|view| view.parent == standing);
        inside.map(|view| (view.name.clone(), view.standing())).collect()
    }
}

fn bring(mirror: &mut Mirror, tree: &WrittenDown, touched: &[u8]) -> Vec<Effect> {
    let touched = touched.iter().map(|&node| NodeId([node; 16])).collect();
    let have = |_: &ContentHash| Availability::Missing;
    let mut plan = checkout::plan(&mirror.base, tree, &touched, &have, Limits::default());
    mirror.disk.begin_batch();
    for index in 0..plan.effects.len() {
        let outcome = mirror.disk.perform(&plan.effects[index].effect);
        assert_eq!(plan.complete(&mut mirror.base, index, outcome), Completion::default());
    }
    assert!(plan.deferred.is_empty());
    plan.effects.into_iter().map(|planned| planned.effect).collect()
}

#[test]
fn united_directories_cost_nothing_and_are_separated_by_moves() {
    let directory = || Body::Directory { mtime: Timestamp::default() };
    let file = || {
        let (hash, mtime) = (ContentHash::of(b""), Timestamp::default());
        Body::File(FileContent { hash, size: 0, mtime })
    };
    let mut mirror = Mirror::default();
    let mut two = WrittenDown::default();
    two.add(0, "d", &[1], directory());
    two.add(0, "e", &[2], directory());
    two.add(1, "f", &[3], file());
    two.add(2, "g", &[4], file());
    bring(&mut mirror, &two, &[1, 2, 3, 4]);
    let mut one = WrittenDown::default();
    one.add(0, "d", &[1, 2], directory());
    one.add(1, "f", &[3], file());
    one.add(1, "g", &[4], file());
    let effects = bring(&mut mirror, &one, &[2]);
    let moved = effects.iter().filter(|effect| matches!(effect, Effect::Move { .. })).count();
    let removed =
        effects.iter().filter(|effect| matches!(effect, Effect::RemoveDirectory { .. })).count();
    assert_eq!((moved, removed, mirror.disk.entries().len()), (1, 1, 3), "{effects:?}");
    let mut other_stands = WrittenDown::default();
    other_stands.add(0, "d", &[2, 1], directory());
    other_stands.add(2, "f", &[3], file());
    other_stands.add(2, "g", &[4], file());
    let effects = bring(&mut mirror, &other_stands, &[1, 2]);
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Confirm { .. })), "{effects:?}");
    bring(&mut mirror, &two, &[1, 2]);
    let paths: Vec<_> = mirror.disk.entries().into_keys().map(|path| path.to_string()).collect();
    assert_eq!(paths, ["d", "d/f", "e", "e/g"]);
}

#[test]
fn file_that_becomes_hidden_gives_way_to_the_directory() {
    let (hash, mtime) = (ContentHash::of(b""), Timestamp::default());
    let mut mirror = Mirror::default();
    let mut tree = WrittenDown::default();
    tree.add(0, "a", &[1], Body::File(FileContent { hash, size: 0, mtime }));
    bring(&mut mirror, &tree, &[1]);
    let mut tree = WrittenDown::default();
    tree.add(0, "a", &[2, 1], Body::Directory { mtime });
    tree.add(2, "f", &[3], Body::File(FileContent { hash, size: 0, mtime }));
    bring(&mut mirror, &tree, &[2, 3]);
    assert_eq!(mirror.disk.entries().len(), 2);
    assert!(mirror.disk.versions.contains(&hash));
    assert!(mirror.base.find(&path("a/f")).is_some());
}

#[test]
fn move_that_was_not_done_is_not_seen_by_the_user_who_removed_the_file_before() {
    let mut tree = PlainTree::default();
    let (mut author, mut reader) = (Mirror::default(), Mirror::default());
    author.disk.make_directory(&path("d"));
    author.disk.write(&path("d/f"), b"x");
    author.survey_all(&mut tree);
    reader.check_out(&mut tree, &all_contents_and(b"x"), Limits::default(), |_| {});
    let f = tree.find(&path("d/f")).unwrap();
    let seen = tree.entry(f).unwrap().nodes;
    author.disk.rename(&path("d/f"), &path("out"));
    author.survey_all(&mut tree);
    assert_ne!(tree.entry(f).unwrap().nodes, seen, "it has another place now");
    reader.disk.remove(&path("d"));
    let have = |_: &ContentHash| Availability::Missing;
    let touched = tree.take_touched();
    let mut plan = checkout::plan(&reader.base, &tree, &touched, &have, Limits::default());
    let effect = plan.effects[0].effect.clone();
    assert!(matches!(effect, Effect::Move { .. }), "{effect:?}");
    let outcome = reader.disk.perform(&effect);
    let Completion { look, .. } = plan.complete(&mut reader.base, 0, outcome);
    assert_eq!(look, Some(path("d/f")));
    let entry = reader.base.entry(reader.base.by_node(f).unwrap()).unwrap();
    assert_eq!(entry.nodes, seen, "a delete names the place that the user saw");
}
