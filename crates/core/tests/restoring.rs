//! Restoring as an embedder sees it: replicas that are brought back to what they were, and what others do
//! at the same time.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;

use pleach_core::replica::{Local, PastMoment, Replica};
use pleach_core::values::{
    Act, Acts, Body, DirectoryIndex, DirectoryRef, FileContent, Life, Member, Restoring,
    SeenDirectory, Signature, SignedChange, TreeView,
};
use pleach_core::vocabulary::{
    ContentHash, Kind, MasterId, Mode, Name, NodeId, Timestamp, TreePath, WriterId, Xattrs,
};
use proptest::prelude::*;

const FOUNDER: MasterId = MasterId([1; 32]);

#[derive(Clone)]
struct Master {
    id: MasterId,
    log: Vec<SignedChange>,
}

struct Store {
    masters: Vec<(Master, Replica)>,
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(number: u64) -> FileContent {
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    FileContent { hash: ContentHash::of(&number.to_le_bytes()), size: number, mtime }
}

impl Store {
    fn of(count: u8) -> Self {
        let mut masters = Vec::new();
        for number in 1..=count {
            let id = MasterId([number; 32]);
            let replica = Replica::new(WriterId::new(id, [7; 8]));
            masters.push((Master { id, log: Vec::new() }, replica));
        }
        let mut store = Self { masters };
        for number in 1..=count {
            let signature = Signature::new(&[0; 64]);
            let (master, name) = (MasterId([number; 32]), number.to_string());
            let addresses = Vec::new();
            let invited_by = FOUNDER;
            let member = Member { master, name, addresses, invited_by, signature, removed: false };
            let local = store.masters[0].1.set_member(member);
            store.publish(0, local);
        }
        store.meet();
        store
    }

    fn publish(&mut self, master: usize, local: Local) {
        let master = &mut self.masters[master].0;
        let (author, signature) = (master.id, Signature::new(&[0; 64]));
        master.log.extend(local.changes.into_iter().map(|change| SignedChange {
            id: change.id,
            author,
            bytes: change.bytes,
            signature,
        }));
    }

    /// Everybody learns what anybody knows.
    fn meet(&mut self) {
        let logs: Vec<Vec<SignedChange>> =
            self.masters.iter().map(|(master, _)| master.log.clone()).collect();
        for (master, replica) in &mut self.masters {
            for log in &logs {
                let lacks = |change: &&SignedChange| !master.log.contains(change);
                let new: Vec<_> = log.iter().filter(lacks).cloned().collect();
                let merged = replica.receive(new, FOUNDER);
                assert!(merged.refused.is_empty(), "{:?}", merged.refused);
                master.log.extend(merged.applied);
            }
        }
        let trees: Vec<_> = self.masters.iter().map(|(_, replica)| tree(replica)).collect();
        assert!(trees.windows(2).all(|pair| pair[0] == pair[1]), "{trees:#?}");
        // What the log alone amounts to is the same.
        let (master, _) = &self.masters[0];
        let anew = Replica::open(WriterId([9; 16]), None, master.log.clone()).unwrap();
        assert_eq!(tree(&anew), trees[0]);
    }

    fn act(&mut self, master: usize, below: &[NodeId], act: impl FnOnce(DirectoryIndex) -> Act) {
        let replica = &mut self.masters[master].1;
        let mut directories = vec![SeenDirectory { parent: None, directory: DirectoryRef::Root }];
        for &directory in below {
            let parent = Some(DirectoryIndex(directories.len() as u32 - 1));
            let seen = replica.tree().entry(directory).unwrap().nodes;
            directories.push(SeenDirectory { parent, directory: DirectoryRef::Seen(seen) });
        }
        let act = act(DirectoryIndex(below.len() as u32));
        let (local, _) = replica.perform(&Acts { directories, acts: vec![act] });
        self.publish(master, local);
    }

    /// Plays one step of a random history.
    fn play(&mut self, step: &Step) {
        let master = step.master % self.masters.len();
        let tree = self.masters[master].1.tree();
        let entries: Vec<(NodeId, Kind)> =
            tree.entries().map(|(_, entry)| (entry.standing(), entry.body.kind())).collect();
        let pick = |number: usize| entries.get(number % entries.len().max(1)).copied();
        let chain = |node: NodeId| {
            let mut chain = tree.above(node);
            chain.reverse();
            chain
        };
        let name = Name::try_from(["a", "b", "c"][step.name % 3]).unwrap();
        match (step.what, pick(step.target)) {
            (0 | 1, target) => {
                let mut below = Vec::new();
                if let Some((node, Kind::Directory)) = target {
                    below = chain(node);
                    below.push(node);
                }
                let is_directory = step.what == 0 && below.len() < 3;
                let body = match is_directory {
                    true => Body::Directory { mtime: Timestamp::default() },
                    false => Body::File(file(step.name as u64)),
                };
                let parent = below.last().copied().unwrap_or(NodeId::ROOT);
                if tree.child(parent, &name).is_some() {
                    return;
                }
                let (mode, owner, xattrs) = (Mode::new(0o644), None, Xattrs::new());
                self.act(master, &below, |directory| Act::Create {
                    directory,
                    name,
                    body,
                    mode,
                    owner,
                    xattrs,
                });
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
                let wanted = Restoring { node, body, mode: None };
                let local = self.masters[master].1.restore(&[wanted]);
                self.publish(master, local);
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
        let replica = &store.masters[0].1;
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
        let local = store.masters[1].1.restore(&[Restoring { node, body, mode: None }]);
        store.publish(1, local);
        store.meet();
        let mut after = tree(&store.masters[2].1);
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
    let create = |directory| Act::Create {
        directory,
        name: Name::try_from("f").unwrap(),
        body,
        mode: Mode::new(0o644),
        owner: None,
        xattrs: Xattrs::new(),
    };
    store.act(0, &[], create);
    store.meet();
    let node = store.masters[0].1.tree().lookup(&path("f")).unwrap();
    let created = store.masters[0].0.log.last().unwrap().clone();
    let entry = store.masters[0].1.tree().entry(node).unwrap().nodes;
    let (content, inherits) = (file(2), Default::default());
    store.act(0, &[], |directory| Act::Edit { directory, entry, content, inherits });
    store.meet();

    // One goes back to what it was first, the other removes it.
    let former = store.masters[0].1.as_of(node, PastMoment::after(&created).unwrap()).unwrap();
    assert_eq!((former.body.clone(), former.life), (Body::File(file(1)), Life::There));
    let wanted = Restoring { node, body: Some(former.body), mode: Some(Mode::new(0o600)) };
    let local = store.masters[0].1.restore(&[wanted]);
    store.publish(0, local);
    let entry = store.masters[1].1.tree().entry(node).unwrap().nodes;
    store.act(1, &[], |directory| Act::Remove { directory, entry });
    store.meet();
    let entry = store.masters[1].1.tree().entry(node).unwrap();
    assert_eq!((entry.body, entry.attributes.mode), (Body::File(file(1)), Mode::new(0o600)));

    // What is so already costs nothing.
    let wanted = Restoring { node, body: Some(Body::File(file(1))), mode: None };
    assert_eq!(store.masters[0].1.restore(&[wanted]).changes, []);
    let (born_ms, born) = store.masters[0].1.as_born(node).unwrap();
    assert_eq!((born_ms, born.body), (0, Body::File(file(1))));
}
