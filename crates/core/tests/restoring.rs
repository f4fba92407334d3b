//! Restoring as an embedder sees it: replicas that are brought back to what they were, and what others do
//! at the same time.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod embedder;

use std::collections::BTreeMap;

use embedder::{DIRECTORY, Master, creation, path};
use pleach_core::replica::{PastMoment, Replica};
use pleach_core::values::{Act, Body, DirectoryIndex, FileContent, Life, Restoring, TreeView};
use pleach_core::vocabulary::{Kind, MasterId, Mode, Name, NodeId, WriterId};
use proptest::prelude::*;

struct Store {
    masters: Vec<Master>,
}

/// A file that can be told by its size.
fn file(number: u64) -> FileContent {
    embedder::file(vec![b'x'; number as usize])
}

impl Store {
    fn of(count: u8) -> Self {
        let id = |number| MasterId([number; 32]);
        let mut masters: Vec<Master> = (1..=count).map(|number| Master::new(id(number))).collect();
        (1..=count).for_each(|number| masters[0].admit(id(number), &number.to_string()));
        let mut store = Self { masters };
        store.meet();
        store
    }

    /// Everybody learns what anybody knows.
    fn meet(&mut self) {
        let logs: Vec<_> = self.masters.iter().map(|master| master.log.clone()).collect();
        for master in &mut self.masters {
            logs.iter().for_each(|log| master.take(log));
        }
        let trees: Vec<_> = self.masters.iter().map(|master| tree(&master.replica)).collect();
        assert!(trees.windows(2).all(|pair| pair[0] == pair[1]), "{trees:#?}");
        // What the log alone amounts to is the same.
        let log = self.masters[0].log.clone();
        let anew = Replica::open(WriterId([9; 16]), None, log).unwrap();
        assert_eq!(tree(&anew), trees[0]);
    }

    fn act(&mut self, master: usize, below: &[NodeId], act: impl FnOnce(DirectoryIndex) -> Act) {
        let master = &mut self.masters[master];
        let seen = |node: &NodeId| master.replica.tree().entry(*node).unwrap().nodes;
        let below = below.iter().map(seen).collect();
        master.act_below(below, act);
    }

    fn restore(&mut self, master: usize, wanted: Restoring) {
        let local = self.masters[master].replica.restore(&[wanted]);
        self.masters[master].publish(local);
    }

    /// Plays one step of a random history.
    fn play(&mut self, step: &Step) {
        let master = step.master % self.masters.len();
        let tree = self.masters[master].replica.tree();
        let entries: Vec<(NodeId, Kind)> =
            tree.entries().map(|(_, entry)| (entry.standing(), entry.body.kind())).collect();
        let pick = |number: usize| entries.get(number % entries.len().max(1)).copied();
        let chain = |node: NodeId| {
            let mut chain = tree.above(node);
            chain.reverse();
            chain
        };
        let new = ["a", "b", "c"][step.name % 3];
        let name = Name::try_from(new).unwrap();
        match (step.what, pick(step.target)) {
            (0 | 1, target) => {
                let mut below = Vec::new();
                if let Some((node, Kind::Directory)) = target {
                    below = chain(node);
                    below.push(node);
                }
                let is_directory = step.what == 0 && below.len() < 3;
                let body = match is_directory {
                    true => DIRECTORY,
                    false => Body::File(file(step.name as u64)),
                };
                let parent = below.last().copied().unwrap_or(NodeId::ROOT);
                if tree.child(parent, &name).is_some() {
                    return;
                }
                self.act(master, &below, |directory| creation(directory, new, body));
            }
            (2, Some((node, Kind::File))) => {
                let (entry, content) = (tree.entry(node).unwrap().nodes, file(step.name as u64));
                let (below, inherits) = (chain(node), Default::default());
                self.act(master, &below, |directory| Act::Edit {
                    directory,
                    entry,
                    content,
                    inherits,
                });
            }
            (3, Some((node, _))) => {
                let (below, entry) = (chain(node), tree.entry(node).unwrap().nodes);
                if tree.child(NodeId::ROOT, &name).is_none() {
                    let to = DirectoryIndex(0);
                    self.act(master, &below, |from| Act::Move { from, entry, to, name });
                }
            }
            (4, Some((node, _))) if tree.children(node).is_empty() => {
                let (below, entry) = (chain(node), tree.entry(node).unwrap().nodes);
                self.act(master, &below, |directory| Act::Remove { directory, entry });
            }
            (5, _) => {
                let all: Vec<NodeId> = tree.nodes().skip(1).collect();
                let Some(&node) = all.get(step.target % all.len().max(1)) else { return };
                let body = (tree.kind(node) == Some(Kind::File))
                    .then(|| Body::File(file(step.name as u64)));
                self.restore(master, Restoring { node, body, mode: None });
            }
            _ => {}
        }
    }
}

/// The paths in the tree, each with what it holds; and the open conflicts.
fn tree(replica: &Replica) -> BTreeMap<String, String> {
    let entries = replica.tree().entries();
    let shown = entries.map(|(path, entry)| {
        let body = match entry.body {
            Body::File(content) => content.size.to_string(),
            _ => "/".to_owned(),
        };
        (path.to_string(), format!("{body} {}", entry.nodes.len()))
    });
    let conflicts = replica.conflicts().into_iter();
    let conflicts = conflicts.map(|open| (format!("! {}", open.path), format!("{:?}", open.kind)));
    shown.chain(conflicts).collect()
}

#[derive(Clone, Debug)]
struct Step {
    master: usize,
    what: usize,
    target: usize,
    name: usize,
    meets: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3usize, 0..6usize, 0..40usize, 0..6usize, prop::bool::weighted(0.3));
    let step = step.prop_map(|(master, what, target, name, meets)| Step {
        master,
        what,
        target,
        name,
        meets,
    });
    prop::collection::vec(step, 0..40)
}

proptest! {
    // Each plays a store of three masters.
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn masters_converge_whatever_is_restored_while_others_do_other_things(steps in steps()) {
        let mut store = Store::of(3);
        for step in &steps {
            store.play(step);
            if step.meets {
                store.meet();
            }
        }
        store.meet();
    }

    /// R15: from a settled state, it does what it names and nothing else, on all masters.
    #[test]
    fn what_was_deleted_comes_back_and_nothing_else_changes(
        steps in steps(),
        chosen in 0..40usize,
    ) {
        let mut store = Store::of(3);
        for step in &steps {
            store.play(step);
        }
        store.meet();
        let replica = &store.masters[0].replica;
        let tree_now = replica.tree();
        let is_gone = |node: &NodeId| {
            tree_now.kind(*node) == Some(Kind::File) && !tree_now.is_live(*node)
        };
        let gone: Vec<NodeId> = tree_now.nodes().filter(is_gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let node = gone[chosen % gone.len()];
        let Some(path) = tree_now.last_path(node) else { return Ok(()) };
        if tree_now.lookup(&path).is_some() {
            return Ok(());
        }
        let before = tree(replica);
        // A file in the way of a directory above would become a conflict: whoever restores looks at that.
        let mut above = path.clone();
        while let Some((directory, _)) = above.split_last() {
            let in_the_way = tree_now.lookup(&directory).and_then(|node| tree_now.kind(node));
            if in_the_way.is_some_and(|kind| kind != Kind::Directory) {
                return Ok(());
            }
            above = directory;
        }
        let body = Some(Body::File(file(77)));
        store.restore(1, Restoring { node, body, mode: None });
        store.meet();
        let mut after = tree(&store.masters[2].replica);
        prop_assert_eq!(after.remove(&path.to_string()), Some("77 1".to_owned()));
        let mut above = path;
        while let Some((directory, _)) = above.split_last() {
            if !before.contains_key(&directory.to_string()) {
                after.remove(&directory.to_string());
            }
            above = directory;
        }
        prop_assert_eq!(after, before);
    }
}

#[test]
fn deletion_on_its_way_does_not_win_over_what_was_restored_without_knowing_of_it() {
    let mut store = Store::of(2);
    let body = Body::File(file(1));
    store.act(0, &[], |directory| creation(directory, "f", body));
    store.meet();
    let node = store.masters[0].replica.tree().lookup(&path("f")).unwrap();
    let created = store.masters[0].log.last().unwrap().clone();
    let entry = store.masters[0].replica.tree().entry(node).unwrap().nodes;
    let (content, inherits) = (file(2), Default::default());
    store.act(0, &[], |directory| Act::Edit { directory, entry, content, inherits });
    store.meet();

    // One goes back to what it was first, the other removes it.
    let former =
        store.masters[0].replica.as_of(node, PastMoment::after(&created).unwrap()).unwrap();
    assert_eq!((former.body.clone(), former.life), (Body::File(file(1)), Life::There));
    let wanted = Restoring { node, body: Some(former.body), mode: Some(Mode::new(0o600)) };
    store.restore(0, wanted);
    let entry = store.masters[1].replica.tree().entry(node).unwrap().nodes;
    store.act(1, &[], |directory| Act::Remove { directory, entry });
    store.meet();
    let entry = store.masters[1].replica.tree().entry(node).unwrap();
    assert_eq!((entry.body, entry.attributes.mode), (Body::File(file(1)), Mode::new(0o600)));

    // What is so already costs nothing.
    let wanted = Restoring { node, body: Some(Body::File(file(1))), mode: None };
    assert_eq!(store.masters[0].replica.restore(&[wanted]).changes, []);
    let (born_ms, born) = store.masters[0].replica.as_born(node).unwrap();
    assert_eq!((born_ms, born.body), (0, Body::File(file(1))));
}
