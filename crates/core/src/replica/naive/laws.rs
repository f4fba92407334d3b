//! Random histories: a port of `run` of `semantics_model.py`, with the laws it must obey.
//!
//! 1. Derived change by change, in any order and batching, is the same as from scratch, conflicts too.
//! 2. R1, asserted by the evaluator.
//! 3. No bytes are lost that nobody knowingly ended; none are there that somebody wrote others over.
//! 4. R15: an act on a settled store does what it does to a plain directory.
//! 5. What an absorption says it touched is all that differs.
//!
//! `PLEACH_HISTORIES=100000 cargo test --release histories` plays that many.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::Picture;
use super::dice::Dice;
use super::history::{self, Deed, Master, assert_as_from_scratch};
use super::updates::updates;
use crate::replica::sibling_names::MasterNames;
use crate::replica::tree::Tree;
use crate::testing::search::cases;
use crate::values::{Body, Conflict, ConflictKind, EntryView, TreeDelta, TreeView};
use crate::vocabulary::{Kind, MasterId, Name, NodeId, Stamp, TreePath};

/// What a history is played for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Play {
    /// As the model: all bytes are new ones, so that none can be lost unnoticed, and R15 holds.
    Model,
    /// All kinds of writes, equal bytes, links, deletes that had not seen what was merged.
    Wild,
}

struct Player {
    dice: Dice,
    play: Play,
    tokens: u32,
    made: BTreeSet<Body>,
    ended: BTreeSet<Body>,
    /// Those that were written over in the only file that ever held them.
    written_over: BTreeSet<Body>,
    /// Those that came to a second file, by a rename over it.
    moved_over: BTreeSet<Body>,
    log: Vec<String>,
}

/// A plain directory: what a path holds; directories all hold the same.
type Plain = BTreeMap<TreePath, Body>;

fn plain(picture: &Picture) -> Plain {
    let body = |body: &Body| body.with_mtime(Default::default());
    picture.entries.iter().map(|(path, view)| (path.clone(), body(&view.body))).collect()
}

fn plain_deed(mut tree: Plain, deed: &Deed) -> Plain {
    match deed {
        Deed::Create(path, body) | Deed::Edit(path, body) => {
            tree.insert(path.clone(), body.with_mtime(Default::default()));
        }
        Deed::Remove(path) => tree.retain(|other, _| !other.starts_with(path)),
        Deed::Move(from, to) => {
            let moved = |path: TreePath| match path.starts_with(from) {
                true => TreePath::new([to.names(), &path.names()[from.names().len()..]].concat()),
                false => path,
            };
            tree = tree.into_iter().map(|(path, body)| (moved(path), body)).collect();
        }
        Deed::MoveOver(from, to) => {
            let body = tree.remove(from).unwrap();
            tree.insert(to.clone(), body);
        }
        _ => {}
    }
    tree
}

impl Player {
    fn new(dice: Dice, play: Play) -> Self {
        let (made, ended) = (BTreeSet::new(), BTreeSet::new());
        let (written_over, moved_over) = (BTreeSet::new(), BTreeSet::new());
        Self { dice, play, tokens: 0, made, ended, written_over, moved_over, log: vec![] }
    }

    fn token(&mut self) -> Body {
        self.tokens += 1;
        if self.play == Play::Model {
            return history::file(self.tokens, 0);
        }
        history::file(self.dice.below(4) as u32, self.dice.below(3) as i64)
    }

    fn choose(&mut self, tree: &Plain) -> Option<Deed> {
        let mut directories = vec![TreePath::root()];
        let holds = |kind| tree.iter().filter(move |(_, body)| body.kind() == kind);
        directories.extend(holds(Kind::Directory).map(|(path, _)| path.clone()));
        let files: Vec<TreePath> = holds(Kind::File).map(|(path, _)| path.clone()).collect();
        let links: Vec<TreePath> = holds(Kind::Symlink).map(|(path, _)| path.clone()).collect();
        let all: Vec<TreePath> = tree.keys().cloned().collect();
        let shallow = directories.iter().filter(|path| path.names().len() < 4);
        let names = ["a", "b", "c"].map(|name| Name::try_from(name).unwrap());
        let paths = shallow.flat_map(|path| names.iter().map(|name| path.join(name)));
        let free: Vec<TreePath> = paths.filter(|path| !tree.contains_key(path)).collect();
        if self.play == Play::Wild && self.dice.chance(30) {
            return self.choose_wild(&all, &links, &free);
        }
        let kind = self.dice.below(100);
        if kind < 25 && !free.is_empty() {
            let body = self.token();
            return self.dice.pick(&free).map(|path| Deed::Create(path.clone(), body));
        }
        if kind < 40 && !free.is_empty() {
            let path = self.dice.pick(&free);
            return path.map(|path| Deed::Create(path.clone(), history::directory()));
        }
        if kind < 55 && !files.is_empty() {
            let body = self.token();
            return self.dice.pick(&files).map(|path| Deed::Edit(path.clone(), body));
        }
        if kind < 68 && !all.is_empty() {
            return self.dice.pick(&all).cloned().map(Deed::Remove);
        }
        if kind < 92 && !all.is_empty() && !free.is_empty() {
            let (from, to) = (self.dice.pick(&all)?.clone(), self.dice.pick(&free)?.clone());
            if !to.starts_with(&from) {
                return Some(Deed::Move(from, to));
            }
        }
        let (from, to) = (self.dice.pick(&files)?.clone(), self.dice.pick(&files)?.clone());
        (from != to).then_some(Deed::MoveOver(from, to))
    }

    fn choose_wild(
        &mut self,
        all: &[TreePath],
        links: &[TreePath],
        free: &[TreePath],
    ) -> Option<Deed> {
        let kind = self.dice.below(8);
        let token = self.dice.below(4) as u32;
        Some(match kind {
            0 => Deed::Create(self.dice.pick(free)?.clone(), history::link(token)),
            1 => Deed::Edit(self.dice.pick(links)?.clone(), history::link(token)),
            2 => Deed::Chmod(self.dice.pick(all)?.clone(), token),
            3 => Deed::Chown(self.dice.pick(all)?.clone(), token),
            4 => Deed::Touch(self.dice.pick(all)?.clone(), i64::from(token)),
            5 => {
                let value = (token > 0).then_some(token as u8);
                Deed::SetXattr(self.dice.pick(all)?.clone(), value)
            }
            _ => Deed::Close(self.dice.pick(all)?.clone()),
        })
    }

    fn perform(&mut self, master: &mut Master, deed: &Deed) {
        self.log.push(format!("{:02x} {deed:?}", master.writer.0[0]));
        if let Deed::Create(_, body) | Deed::Edit(_, body) = deed
            && body.kind() != Kind::Directory
        {
            self.made.insert(body.with_mtime(Default::default()));
        }
        let mut unseen = vec![];
        if self.play == Play::Wild && self.dice.chance(5) {
            unseen = self.some_merged_places(master);
        }
        let before = (self.play == Play::Wild).then(|| (master.picture(), by_node(&master.tree)));
        self.note_second_places(master, deed);
        let ended = master.perform(deed, unseen);
        let ended = ended.iter().map(|body| body.with_mtime(Default::default()));
        if let Deed::Edit(..) | Deed::MoveOver(..) = deed {
            self.written_over.extend(ended.clone());
        }
        self.ended.extend(ended);
        if let Some((picture, conflicts)) = before {
            assert_delta_tells_all(&picture, &conflicts, master);
        }
    }

    /// Bytes that come to a second file: what a rename takes over another with it, an open version that gets
    /// a name of its own, and what is left of a hidden file that goes.
    fn note_second_places(&mut self, master: &Master, deed: &Deed) {
        let (Deed::MoveOver(from, _) | Deed::Move(from, _) | Deed::Remove(from)) = deed else {
            return;
        };
        let (is_over, tree) = (matches!(deed, Deed::MoveOver(..)), plain(&master.picture()));
        let node = master.tree.lookup(from).unwrap();
        let is_sibling = master.tree.path_of_sibling(node).is_some();
        if is_over || is_sibling {
            self.moved_over.insert(tree[from].clone());
        }
        if is_sibling {
            let nodes = master.tree.entry(node).unwrap().nodes.into_iter();
            let contents = nodes.filter_map(|seen| master.tree.contents(seen.node));
            let open = contents.flat_map(|contents| contents.open);
            self.moved_over.extend(open.map(|open| open.body.with_mtime(Default::default())));
        }
        if is_over {
            for contents in master
                .tree
                .members_of_entry(node)
                .iter()
                .filter_map(|&node| master.tree.contents(node))
            {
                let all = contents.open.into_iter().map(|open| open.body).chain([contents.body]);
                self.moved_over.extend(all.map(|body| body.with_mtime(Default::default())));
            }
        }
    }

    /// Siblings for all masters, or for none; each of two masters may be called the same.
    fn choose_setting(&mut self) -> Option<MasterNames> {
        let names = ["a", "b", "a", "b"];
        let ids = (1..).map(|number| MasterId([number; 32]));
        self.dice.chance(70).then(|| MasterNames::new(ids.zip(names)))
    }

    /// Stamps of moves that a delete shall claim not to have seen.
    fn some_merged_places(&mut self, master: &Master) -> Vec<Stamp> {
        let mut stamps = vec![];
        for (_, view) in master.tree.entries() {
            let history = master.tree.place_history(view.standing());
            if view.body.kind() == Kind::Directory && history.len() > 1 && self.dice.chance(30) {
                stamps.push(history[0].0);
            }
        }
        stamps
    }

    /// Takes in what another has, in an order and in batches left to the dice.
    fn merge(&mut self, master: &mut Master, other: &Master) {
        loop {
            let mut ready = master.ready(other);
            if ready.is_empty() {
                return;
            }
            let mut batch = vec![];
            let size = 1 + self.dice.below(ready.len());
            for _ in 0..size {
                batch.push(ready.swap_remove(self.dice.below(ready.len())));
            }
            let before =
                (self.play == Play::Wild).then(|| (master.picture(), by_node(&master.tree)));
            master.take(batch);
            if let Some((picture, conflicts)) = before {
                assert_delta_tells_all(&picture, &conflicts, master);
            }
        }
    }

    fn settle(&mut self, masters: &mut [Master]) -> Picture {
        for receiver in 0..masters.len() {
            for sender in 0..masters.len() {
                let from = masters[sender].clone();
                self.merge(&mut masters[receiver], &from);
            }
        }
        for receiver in 0..masters.len() - 1 {
            let from = masters[masters.len() - 1].clone();
            self.merge(&mut masters[receiver], &from);
        }
        let setting = self.choose_setting();
        self.log.push(format!("settled, siblings: {}", setting.is_some()));
        for master in masters.iter_mut() {
            self.set(master, setting.clone());
        }
        let picture = assert_as_from_scratch(&masters[0]);
        for master in &masters[1..] {
            assert_eq!(master.changes.len(), masters[0].changes.len());
            assert_eq!(master.picture(), picture, "two masters differ");
        }
        assert_eq!(all_at_once(&masters[0]), picture, "in one batch");
        picture
    }

    fn set(&mut self, master: &mut Master, setting: Option<MasterNames>) {
        let before = (master.picture(), by_node(&master.tree));
        master.show_siblings(setting);
        assert_entries_are_listed(&before.0, master);
        assert_eq!(by_node(&master.tree), before.1, "conflicts are the same");
    }

    fn assert_just_what_nobody_ended(&self, picture: &Picture) {
        let mut present: BTreeSet<Body> = plain(picture).into_values().collect();
        for conflict in &picture.conflicts {
            if matches!(conflict.kind, ConflictKind::Edited | ConflictKind::SameName) {
                let bodies = conflict.versions.iter().map(|version| &version.body);
                present.extend(bodies.map(|body| body.with_mtime(Default::default())));
            }
        }
        for body in &self.made {
            assert!(self.ended.contains(body) || present.contains(body), "lost {body:?}");
        }
        for body in self.written_over.difference(&self.moved_over) {
            let is_there = present.contains(body);
            assert!(!is_there, "{body:?} is there, though its author replaced it: {picture:#?}");
        }
    }

    fn run(&mut self, masters: usize) {
        let mut masters: Vec<Master> = (1..=masters as u8).map(Master::new).collect();
        for _ in 0..2 + self.dice.below(4) {
            for _ in 0..2 + self.dice.below(13) {
                let here = self.dice.below(masters.len());
                if self.dice.chance(3) {
                    let setting = self.choose_setting();
                    self.set(&mut masters[here], setting);
                }
                if self.dice.chance(15) {
                    let from = masters[self.dice.below(masters.len())].clone();
                    self.merge(&mut masters[here], &from);
                }
                let tree = plain(&masters[here].picture());
                if let Some(deed) = self.choose(&tree) {
                    self.perform(&mut masters[here], &deed);
                }
            }
            let picture = self.settle(&mut masters);
            if self.play == Play::Model {
                self.assert_just_what_nobody_ended(&picture);
                self.act_on_settled_store(&mut masters);
            }
        }
    }

    /// R15.
    fn act_on_settled_store(&mut self, masters: &mut [Master]) {
        for _ in 0..self.dice.below(5) {
            let here = self.dice.below(masters.len());
            let before = plain(&masters[here].picture());
            let Some(deed) = self.choose(&before) else { continue };
            // Bytes that are open twice by now become one where they meet.
            if let Deed::MoveOver(from, _) = &deed
                && before.values().filter(|body| **body == before[from]).count() > 1
            {
                continue;
            }
            let following = following(&masters[here].tree, &deed, &before);
            self.perform(&mut masters[here], &deed);
            let mut after = plain(&masters[here].picture());
            let mut expected = before.clone();
            expected.retain(|path, _| !following.contains(path));
            let expected = plain_deed(expected, &deed);
            if let Deed::Move(_, to) | Deed::MoveOver(_, to) = &deed {
                let tree = &masters[here].tree;
                let node = tree.lookup(to).unwrap();
                let come = siblings_of(tree, tree.path_of_sibling(node).unwrap_or(node));
                let come: Vec<_> =
                    come.into_iter().filter(|path| !expected.contains_key(path)).collect();
                let came: BTreeSet<Body> = come.iter().map(|path| after[path].clone()).collect();
                let left: BTreeSet<Body> =
                    following.iter().map(|path| before[path].clone()).collect();
                // What has been renamed over two files before is there already, or is what is written over.
                let all = after.values().chain(before.get(to)).cloned();
                let all: BTreeSet<Body> = all.collect();
                let goes_along = came.is_subset(&left) && left.is_subset(&all);
                let said = format!("{deed:?}: {before:?}, then {after:?}");
                assert!(goes_along, "R15: what is open goes with its path: {said}");
                after.retain(|path, _| !come.contains(path));
            }
            assert_eq!(after, expected, "R15: {deed:?}");
            let from = masters[here].clone();
            for master in masters.iter_mut() {
                master.merge(&from);
            }
        }
    }
}

/// The paths of the siblings of what stands at a path.
fn siblings_at(tree: &Tree, path: &TreePath) -> Vec<TreePath> {
    siblings_of(tree, tree.lookup(path).unwrap())
}

fn siblings_of(tree: &Tree, node: NodeId) -> Vec<TreePath> {
    let siblings: BTreeSet<TreePath> =
        tree.siblings_of(node).into_iter().map(|sibling| tree.path(sibling).unwrap()).collect();
    siblings.into_iter().collect()
}

/// Siblings that go with their path, whether a deed removes or moves it; but one that it is renamed over.
fn following(tree: &Tree, deed: &Deed, before: &Plain) -> Vec<TreePath> {
    let (from, to) = match deed {
        Deed::Remove(path) => (path, path),
        Deed::Move(from, to) | Deed::MoveOver(from, to) => (from, to),
        _ => return vec![],
    };
    let mut siblings = siblings_at(tree, from);
    siblings.retain(|sibling| sibling != to && before.contains_key(sibling));
    siblings
}

/// The tree of a master's changes, absorbed in one batch.
fn all_at_once(master: &Master) -> Picture {
    let all: Vec<_> = master.changes.values().cloned().collect();
    let mut tree = Tree::new();
    let _ = tree.show_siblings(master.siblings.clone());
    let updates = updates(&master.changes, &all, &tree);
    let _: TreeDelta = tree.absorb(updates, &master.changes);
    history::picture(&tree)
}

/// Conflicts by node and kind, without what a renamed directory changes in them.
type ByNode = BTreeMap<(NodeId, ConflictKind), Conflict>;

fn by_node(tree: &Tree) -> ByNode {
    let conflicts = tree.conflicts().into_iter().map(|mut conflict| {
        conflict.path = TreePath::root();
        conflict.versions.iter_mut().for_each(|version| version.elsewhere = None);
        ((conflict.versions[0].node, conflict.kind), conflict)
    });
    conflicts.collect()
}

/// What the last absorption did not list is as it was.
fn assert_delta_tells_all(before: &Picture, conflicts: &ByNode, master: &Master) {
    assert_entries_are_listed(before, master);
    let now = by_node(&master.tree);
    for key in conflicts.keys().chain(now.keys()) {
        if conflicts.get(key) != now.get(key) {
            let entry = master.tree.members_of_entry(key.0);
            let standing = entry.first().copied().unwrap_or(key.0);
            assert!(master.delta.conflicts_changed.contains(&standing), "{key:?}");
        }
    }
}

fn assert_entries_are_listed(before: &Picture, master: &Master) {
    let entry_of = |picture: &Picture| -> BTreeMap<NodeId, EntryView> {
        let views = picture.entries.values();
        views.flat_map(|v| v.nodes.iter().map(|seen| (seen.node, v.clone()))).collect()
    };
    let (old, new) = (entry_of(before), entry_of(&master.picture()));
    for node in old.keys().chain(new.keys()) {
        let (was, is) = (old.get(node), new.get(node));
        if was != is {
            let members = is.iter().flat_map(|view| view.nodes.iter().map(|seen| &seen.node));
            let mut members = members.chain(is.is_none().then_some(node));
            let is_listed = members.any(|member| master.delta.nodes.contains(member));
            assert!(is_listed, "{was:?} became {is:?}");
        }
    }
}

fn play(seed: u64) {
    for kind in [Play::Model, Play::Wild] {
        let mut player = Player::new(Dice::Seed(seed), kind);
        let masters = 2 + (seed % 3) as usize;
        let run = std::panic::AssertUnwindSafe(|| player.run(masters));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}, {masters} masters, {kind:?}:\n{}", player.log.join("\n"));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn histories_that_once_broke_a_law_obey_them() {
    // A version was renamed away with its file, and came back with another: an old delete removed it there.
    play(1_000_405);
    // The player itself deleted a directory whose place it had just written down, and had not seen that.
    play(1_006_094);
}

#[test]
fn thousands_of_histories_obey_the_laws() {
    let histories = std::env::var("PLEACH_HISTORIES").ok().and_then(|count| count.parse().ok());
    let first = std::env::var("PLEACH_FIRST_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = first.unwrap_or(0);
    for seed in first..first + histories.unwrap_or(40) {
        play(seed);
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn any_history_obeys_the_laws(
        choices in prop::collection::vec(any::<u32>(), 0..400),
        masters in 2_usize..=4,
        is_wild: bool,
    ) {
        let play = if is_wild { Play::Wild } else { Play::Model };
        Player::new(Dice::Listed(choices.into_iter()), play).run(masters);
    }
}
