//! Siblings as an embedder sees them: open versions as files beside the path, and what is done to these.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use pleach_core::replica::{Local, Replica};
use pleach_core::values::{
    Act, Acts, Body, Choice, DirectoryIndex, DirectoryRef, FileContent, Member, SeenDirectory,
    SeenNodes, Signature, SignedChange, TreeView,
};
use pleach_core::vocabulary::{
    ContentHash, MasterId, Mode, Name, Timestamp, TreePath, WriterId, Xattrs,
};

const FOUNDER: MasterId = MasterId([1; 32]);
const ROOT: DirectoryIndex = DirectoryIndex(0);

/// Masters that are called a, b and c.
struct Masters(Vec<(Replica, Vec<SignedChange>)>);

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn file(text: &str) -> FileContent {
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    FileContent { hash: ContentHash::of(text.as_bytes()), size: text.len() as u64, mtime }
}

impl Masters {
    /// Three that show siblings.
    fn new() -> Self {
        let ids = [FOUNDER, MasterId([2; 32]), MasterId([3; 32])];
        let replica = |id| Replica::new(WriterId::new(id, [7; 8]));
        let mut masters = Self(ids.map(|id| (replica(id), Vec::new())).into());
        for (id, name) in ids.into_iter().zip(["a", "b", "c"]) {
            let (name, signature) = (name.to_owned(), Signature::new(&[0; 64]));
            let (addresses, invited_by, removed) = (vec![], FOUNDER, false);
            let member = Member { master: id, name, addresses, invited_by, signature, removed };
            let local = masters.0[0].0.set_member(member);
            masters.publish(0, local);
        }
        let local = masters.0[0].0.set_setting("conflicts", b"siblings");
        masters.publish(0, local);
        masters.meet();
        masters
    }

    fn publish(&mut self, at: usize, local: Local) {
        let author = MasterId([at as u8 + 1; 32]);
        let changes = local.changes.into_iter().map(|change| SignedChange {
            id: change.id,
            author,
            bytes: change.bytes,
            signature: Signature::new(&[0; 64]),
        });
        self.0[at].1.extend(changes);
    }

    fn meet(&mut self) {
        for from in 0..self.0.len() {
            let sent = std::mem::take(&mut self.0[from].1);
            for to in (0..self.0.len()).filter(|to| *to != from) {
                let merged = self.0[to].0.receive(sent.clone(), FOUNDER);
                assert_eq!(merged.refused, Vec::<String>::new());
            }
        }
        let first = self.tree(0);
        assert!((1..self.0.len()).all(|at| self.tree(at) == first), "all show the same");
    }

    fn entry(&self, at: usize, name: &str) -> SeenNodes {
        let tree = self.0[at].0.tree();
        tree.entry(tree.lookup(&path(name)).unwrap()).unwrap().nodes
    }

    fn act(&mut self, at: usize, act: Act) {
        let directories = vec![SeenDirectory { parent: None, directory: DirectoryRef::Root }];
        let (local, _) = self.0[at].0.perform(&Acts { directories, acts: vec![act] });
        self.publish(at, local);
    }

    fn create(&mut self, at: usize, name: &str, text: &str) {
        let (name, body) = (Name::try_from(name).unwrap(), Body::File(file(text)));
        let (mode, owner, xattrs) = (Mode::new(0o644), None, Xattrs::new());
        self.act(at, Act::Create { directory: ROOT, name, body, mode, owner, xattrs });
    }

    fn edit(&mut self, at: usize, name: &str, text: &str) {
        let (entry, content, inherits) = (self.entry(at, name), file(text), Default::default());
        self.act(at, Act::Edit { directory: ROOT, entry, content, inherits });
    }

    fn remove(&mut self, at: usize, name: &str) {
        let entry = self.entry(at, name);
        self.act(at, Act::Remove { directory: ROOT, entry });
    }

    fn rename(&mut self, at: usize, from: &str, to: &str) {
        let (entry, name) = (self.entry(at, from), Name::try_from(to).unwrap());
        self.act(at, Act::Move { from: ROOT, entry, to: ROOT, name });
    }

    fn resolve(&mut self, at: usize, name: &str, choice: &Choice) {
        let local = self.0[at].0.resolve(&path(name), choice).unwrap();
        self.publish(at, local);
    }

    fn set(&mut self, at: usize, value: &str) {
        let local = self.0[at].0.set_setting("conflicts", value.as_bytes());
        self.publish(at, local);
    }

    /// The paths in the tree, each with its size.
    fn tree(&self, at: usize) -> Vec<String> {
        let shown = self.0[at].0.tree().entries().map(|(path, entry)| match entry.body {
            Body::File(content) => format!("{path}={}", content.size),
            _ => format!("{path}/"),
        });
        shown.collect()
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        self.meet();
        assert_eq!(self.tree(0), expected);
    }
}

/// `page.html` of 1 byte was edited by a and by b, which stands: 2 bytes by a are open.
fn edited() -> Masters {
    let mut masters = Masters::new();
    masters.create(0, "page.html", "1");
    masters.meet();
    masters.edit(0, "page.html", "22");
    masters.edit(1, "page.html", "333");
    masters.meet();
    masters
}

const SIBLING: &str = "page (conflict a 1).html";

#[test]
fn open_version_is_a_file_beside_the_path() {
    let mut masters = edited();
    masters.check(&["page (conflict a 1).html=2", "page.html=3"]);
    masters.set(2, "hidden");
    masters.check(&["page.html=3"]);
    assert_eq!(masters.0[1].0.conflicts().len(), 1, "nothing is closed by that");
    masters.set(1, "siblings");
    masters.check(&["page (conflict a 1).html=2", "page.html=3"]);
}

#[test]
fn hidden_file_is_one_too() {
    let mut masters = Masters::new();
    masters.create(0, ".env", "1");
    masters.create(1, ".env", "22");
    masters.check(&[".env=1", ".env (conflict b 1)=2"]);
    masters.edit(2, ".env (conflict b 1)", "333");
    masters.check(&[".env=1", ".env (conflict b 1)=3"]);
    masters.remove(0, ".env (conflict b 1)");
    masters.check(&[".env=1"]);
    assert_eq!(masters.0[2].0.conflicts(), []);
}

#[test]
fn removing_a_sibling_closes_that_version_and_no_other() {
    let mut masters = edited();
    masters.edit(2, "page.html", "4444");
    masters.edit(1, "page.html", "55555");
    masters.meet();
    let all = masters.tree(0);
    assert_eq!(all.len(), 3, "{all:?}");
    masters.remove(1, SIBLING);
    masters.meet();
    let left: Vec<String> = all.into_iter().filter(|line| !line.ends_with("=2")).collect();
    assert_eq!(masters.tree(2), left);
    assert_eq!(masters.0[0].0.conflicts()[0].versions.len(), 2);
}

#[test]
fn edited_sibling_keeps_its_name_and_the_conflict_stays_open() {
    let mut masters = edited();
    masters.edit(2, SIBLING, "4444");
    masters.check(&["page (conflict a 1).html=4", "page.html=3"]);
    masters.edit(1, SIBLING, "55555");
    masters.check(&["page (conflict a 1).html=5", "page.html=3"]);
    assert_eq!(masters.0[0].0.conflicts()[0].versions.len(), 2);
    masters.resolve(1, "page.html", &Choice::KeepStanding);
    masters.check(&["page.html=3"]);
}

#[test]
fn renamed_sibling_is_a_file_of_its_own() {
    let mut masters = edited();
    masters.rename(1, SIBLING, "mine.html");
    masters.check(&["mine.html=2", "page.html=3"]);
    assert_eq!(masters.0[0].0.conflicts(), []);
}

#[test]
fn mode_of_a_sibling_is_its_own() {
    let mut masters = edited();
    let (entry, mode) = (masters.entry(1, SIBLING), Mode::new(0o600));
    masters.act(1, Act::SetMode { directory: ROOT, entry, mode });
    masters.check(&["page (conflict a 1).html=2", "page.html=3"]);
    let tree = masters.0[0].0.tree();
    let mode = |name| tree.entry(tree.lookup(&path(name)).unwrap()).unwrap().attributes.mode;
    assert_eq!((mode(SIBLING), mode("page.html")), (Mode::new(0o600), Mode::new(0o644)));
}

#[test]
fn acts_on_a_sibling_and_on_the_path_at_once_all_take_effect() {
    let mut masters = edited();
    masters.edit(0, "page.html", "4444");
    masters.edit(1, SIBLING, "55555");
    masters.check(&["page (conflict a 1).html=5", "page.html=4"]);
    masters.edit(0, "page.html", "1");
    masters.remove(1, SIBLING);
    masters.check(&["page.html=1"]);
    assert_eq!(masters.0[2].0.conflicts(), []);
}

#[test]
fn edit_of_a_sibling_beats_its_removal_and_that_of_the_path() {
    let mut masters = edited();
    masters.edit(0, SIBLING, "4444");
    masters.remove(1, SIBLING);
    masters.check(&["page (conflict a 1).html=4", "page.html=3"]);
    let mut masters = edited();
    masters.edit(0, SIBLING, "4444");
    masters.remove(1, "page.html");
    masters.check(&["page.html=4"]);
}

#[test]
fn sibling_that_two_edit_becomes_two() {
    let mut masters = edited();
    masters.edit(1, SIBLING, "4444");
    masters.edit(2, SIBLING, "55555");
    masters.meet();
    let tree = masters.tree(0);
    assert_eq!(tree.len(), 3, "{tree:?}");
    assert!(["=3", "=4", "=5"].iter().all(|end| tree.iter().any(|line| line.ends_with(end))));
}

#[test]
fn hidden_file_that_goes_leaves_the_others_their_names() {
    let mut masters = Masters::new();
    for (name, text) in [("p", "1"), ("q", "22"), ("r", "333")] {
        masters.create(1, name, text);
    }
    masters.meet();
    for (at, name) in ["p", "q", "r"].into_iter().enumerate() {
        masters.rename(at, name, "f");
    }
    masters.meet();
    let all = masters.tree(0);
    let names: Vec<&str> = all.iter().map(|line| line.split('=').next().unwrap()).collect();
    assert_eq!(names, ["f", "f (conflict b 1)", "f (conflict b 2)"]);
    masters.remove(2, "f (conflict b 1)");
    masters.check(&[&all[0], &all[2]]);
    masters.edit(0, "f (conflict b 2)", "4444");
    masters.check(&[&all[0], "f (conflict b 2)=4"]);
}

#[test]
fn number_is_not_used_twice_and_real_files_keep_their_names() {
    let mut masters = edited();
    masters.create(2, "page (conflict a 2).html", "x");
    masters.check(&["page (conflict a 1).html=2", "page (conflict a 2).html=1", "page.html=3"]);
    masters.edit(0, "page.html", "4444");
    masters.edit(1, "page.html", "55555");
    masters.check(&[
        "page (conflict a 1).html=2",
        "page (conflict a 2).html=1",
        "page (conflict a 3).html=4",
        "page.html=5",
    ]);
    masters.remove(2, SIBLING);
    masters.check(&["page (conflict a 2).html=1", "page (conflict a 3).html=4", "page.html=5"]);
}
