//! What users do: each habit becomes a program, a list of system calls with pauses between them.
//!
//! A program picks its paths from what the disk shows when it starts. Like a shell script it goes on when
//! a call fails, since pleach and other programs work on the same disk meanwhile.

use std::collections::VecDeque;

use pleach_core::values::LinkTarget;
use pleach_core::vocabulary::{Mode, Name, Timestamp, TreePath};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::disk::{Disk, Node, Truncate};

/// Names are few, so that users on different masters meet.
const FILE_NAMES: [&str; 6] = ["a", "b", "c", "index.html", "notes", "d0"];
const DIRECTORY_NAMES: [&str; 4] = ["d0", "d1", "site", "a"];
/// Directories are made at most this deep.
const DEPTH_MAX: usize = 4;
/// Contents that several users come upon independently.
const SHARED_CONTENTS: u32 = 4;

/// One system call of a program. Slots are its file descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// open(2) for writing.
    Open { slot: u8, path: TreePath, truncate: Truncate },
    /// write(2) at the end.
    Append { slot: u8, bytes: Vec<u8> },
    /// pwrite(2) at the start; the size stays, unless the bytes are more.
    Overwrite { slot: u8, bytes: Vec<u8> },
    /// close(2).
    Close { slot: u8 },
    /// rename(2).
    Rename { from: TreePath, to: TreePath },
    /// unlink(2).
    Unlink { path: TreePath },
    /// `rm -r`: one unlink(2) or rmdir(2) at a time, deepest first, until nothing is left.
    RemoveTree { path: TreePath },
    /// mkdir(2).
    MakeDirectory { path: TreePath },
    /// symlink(2).
    MakeSymlink { path: TreePath, target: LinkTarget },
    /// chmod(2).
    ChangeMode { path: TreePath, mode: Mode },
    /// utimensat(2); none is now.
    Touch { path: TreePath, modified: Option<Timestamp> },
}

/// A running program.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Calls with the pause before each, in microseconds.
    pub calls: VecDeque<(u64, Call)>,
}

/// What users do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// `echo > new`
    CreateFile,
    /// Open, truncate, write in pieces, close.
    Rewrite,
    /// pwrite of equal size.
    EditInPlace,
    /// pwrite of equal size, then the old mtime put back: only ctime gives it away.
    EditStealthily,
    /// `echo >>`
    Append,
    /// A log held open and appended to.
    AppendSlowly,
    /// Write a temp file, rename it over.
    AtomicSave,
    /// rename f f~, write f, unlink f~.
    VimSave,
    /// `mv file other`
    RenameFile,
    /// `mv directory other`
    RenameDirectory,
    /// `mv file existing`
    MoveOver,
    /// `mv a t; mv b a; mv t b`, files or directories.
    Swap,
    /// `rm file`
    RemoveFile,
    /// `rm -r directory`
    RemoveTree,
    /// `rm -r x; mkdir x` or `rm x; mkdir x` or `rmdir x; echo > x`.
    ReplaceKind,
    /// `mkdir -p x/y && echo > x/y/f`
    MakeDirectories,
    /// `chmod`
    ChangeMode,
    /// `touch`
    Touch,
    /// `ln -sfn`: a link under a temp name, renamed over.
    Relink,
    /// A git-like burst: objects written as temp files and renamed, an index replaced, some removed.
    Burst,
    /// `cp -r`
    CopyTree,
    /// The same files with the same bytes as on other masters.
    Import,
}

/// Habits and how often they are had.
const HABITS: [(Habit, u32); 22] = [
    (Habit::CreateFile, 12),
    (Habit::Rewrite, 8),
    (Habit::EditInPlace, 6),
    (Habit::EditStealthily, 2),
    (Habit::Append, 5),
    (Habit::AppendSlowly, 1),
    (Habit::AtomicSave, 7),
    (Habit::VimSave, 4),
    (Habit::RenameFile, 7),
    (Habit::RenameDirectory, 7),
    (Habit::MoveOver, 5),
    (Habit::Swap, 4),
    (Habit::RemoveFile, 6),
    (Habit::RemoveTree, 4),
    (Habit::ReplaceKind, 3),
    (Habit::MakeDirectories, 8),
    (Habit::ChangeMode, 3),
    (Habit::Touch, 2),
    (Habit::Relink, 4),
    (Habit::Burst, 2),
    (Habit::CopyTree, 2),
    (Habit::Import, 3),
];

impl Habit {
    /// One of them at random.
    #[must_use]
    pub fn pick(random: &mut impl Rng) -> Self {
        let total: u32 = HABITS.iter().map(|(_, weight)| weight).sum();
        let mut at = random.random_range(0..total);
        for (habit, weight) in HABITS {
            if at < weight {
                return habit;
            }
            at -= weight;
        }
        Self::CreateFile
    }

    /// The program that a user with this habit runs on what the disk shows now. `salt` decides
    /// everything that is left open; equal salts on equal disks give equal programs.
    #[must_use]
    pub fn program(self, disk: &Disk, salt: u64) -> Program {
        let mut author = Author::new(disk, salt);
        author.follow(self);
        Program { calls: author.calls }
    }
}

struct Author {
    random: ChaCha8Rng,
    salt: u64,
    files: Vec<TreePath>,
    links: Vec<TreePath>,
    directories: Vec<TreePath>,
    disk_times: Vec<(TreePath, Timestamp)>,
    sizes: Vec<(TreePath, usize)>,
    calls: VecDeque<(u64, Call)>,
    tokens: u32,
    /// Pauses of this program are up to so long.
    pause_us_max: u64,
}

impl Author {
    fn new(disk: &Disk, salt: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(salt);
        let (mut files, mut links, mut directories) = (vec![], vec![], vec![TreePath::root()]);
        let (mut disk_times, mut sizes) = (vec![], vec![]);
        for (path, key) in disk.paths() {
            match &disk.inode(key).node {
                Node::File(bytes) => {
                    sizes.push((path.clone(), bytes.len()));
                    disk_times.extend(disk.modified(&path).map(|time| (path.clone(), time)));
                    files.push(path);
                }
                Node::Symlink(_) => links.push(path),
                Node::Directory(_) => directories.push(path),
            }
        }
        let pause_us_max = [0, 50, 2_000, 60_000][random.random_range(0..4)];
        let calls = VecDeque::new();
        Self {
            random,
            salt,
            files,
            links,
            directories,
            disk_times,
            sizes,
            calls,
            tokens: 0,
            pause_us_max,
        }
    }

    fn follow(&mut self, habit: Habit) {
        match habit {
            Habit::CreateFile => {
                let path = self.new_file();
                self.write_file(&path);
            }
            Habit::Rewrite => self.with_file(Self::write_file),
            Habit::EditInPlace => self.with_file(|author, path| author.edit_in_place(path)),
            Habit::EditStealthily => self.with_file(|author, path| {
                author.edit_in_place(path);
                let time = author.disk_times.iter().find(|(known, _)| known == path);
                let modified = time.map(|(_, time)| *time);
                author.call(Call::Touch { path: path.clone(), modified });
            }),
            Habit::Append => self.with_file(|author, path| author.append(path, 1)),
            Habit::AppendSlowly => {
                self.pause_us_max = 400_000;
                self.with_file(|author, path| author.append(path, 6));
            }
            Habit::AtomicSave => self.with_file(|author, path| {
                let temp = sibling(path, ".tmp");
                author.write_file(&temp);
                author.call(Call::Rename { from: temp, to: path.clone() });
            }),
            Habit::VimSave => self.with_file(|author, path| {
                let backup = sibling(path, "~");
                author.call(Call::Rename { from: path.clone(), to: backup.clone() });
                author.write_file(path);
                author.call(Call::Unlink { path: backup });
            }),
            Habit::RenameFile => self.with_file(|author, path| {
                let to = author.new_file();
                author.call(Call::Rename { from: path.clone(), to });
            }),
            Habit::RenameDirectory => {
                if let Some(from) = self.any_directory() {
                    let to = self.new_directory();
                    self.call(Call::Rename { from, to });
                }
            }
            Habit::MoveOver => self.with_file(|author, path| {
                if let Some(to) = author.any_file() {
                    author.call(Call::Rename { from: path.clone(), to });
                }
            }),
            Habit::Swap => self.swap(),
            Habit::RemoveFile => {
                if let Some(path) = self.any_file().or_else(|| self.any_link()) {
                    self.call(Call::Unlink { path });
                }
            }
            Habit::RemoveTree => {
                if let Some(path) = self.any_directory() {
                    self.call(Call::RemoveTree { path });
                }
            }
            Habit::ReplaceKind => self.replace_kind(),
            Habit::MakeDirectories => self.make_directories(),
            Habit::ChangeMode => {
                let mode = Mode::new([0o600, 0o644, 0o700, 0o755, 0o444][self.below(5)]);
                if let Some(path) = self.any_file_or_directory() {
                    self.call(Call::ChangeMode { path, mode });
                }
            }
            Habit::Touch => {
                let modified = (self.below(2) == 0)
                    .then(|| Timestamp { seconds: self.below(1000) as i64, nanos: 7 });
                if let Some(path) = self.any_file_or_directory() {
                    self.call(Call::Touch { path, modified });
                }
            }
            Habit::Relink => self.relink(),
            Habit::Burst => self.burst(),
            Habit::CopyTree => self.copy_tree(),
            Habit::Import => self.import(),
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    fn call(&mut self, call: Call) {
        let pause =
            if self.pause_us_max == 0 { 0 } else { self.random.random_range(0..self.pause_us_max) };
        self.calls.push_back((pause, call));
    }

    fn any(&mut self, paths: fn(&Self) -> &Vec<TreePath>) -> Option<TreePath> {
        let count = paths(self).len();
        (count > 0).then(|| self.below(count)).map(|at| paths(self)[at].clone())
    }

    fn any_file(&mut self) -> Option<TreePath> {
        self.any(|author| &author.files)
    }

    fn any_link(&mut self) -> Option<TreePath> {
        self.any(|author| &author.links)
    }

    /// Any but the root.
    fn any_directory(&mut self) -> Option<TreePath> {
        self.any(|author| &author.directories).filter(|path| !path.is_root())
    }

    fn any_file_or_directory(&mut self) -> Option<TreePath> {
        if self.below(2) == 0 { self.any_file() } else { self.any_directory() }
    }

    /// A name in some directory, free or not.
    fn place(&mut self, names: &[&str]) -> TreePath {
        let directory = self.any(|author| &author.directories).unwrap_or_default();
        let name = names[self.below(names.len())];
        directory.join(&Name::try_from(name).expect("the names are plain"))
    }

    fn new_file(&mut self) -> TreePath {
        self.place(&FILE_NAMES)
    }

    fn new_directory(&mut self) -> TreePath {
        self.place(&DIRECTORY_NAMES)
    }

    fn with_file(&mut self, then: impl FnOnce(&mut Self, &TreePath)) {
        let path = self.any_file().unwrap_or_else(|| self.new_file());
        then(self, &path);
    }

    /// Bytes that nobody else writes; small enough to travel inline or not.
    fn bytes(&mut self) -> Vec<u8> {
        self.tokens += 1;
        let mut bytes = format!("{:016x}.{:04}\n", self.salt, self.tokens).into_bytes();
        if self.below(3) == 0 {
            let filler = self.below(150);
            bytes.extend(std::iter::repeat_n(b'x', filler));
        }
        bytes
    }

    fn write_file(&mut self, path: &TreePath) {
        self.call(Call::Open { slot: 0, path: path.clone(), truncate: Truncate::ToEmpty });
        let bytes = self.bytes();
        if self.below(3) == 0 {
            let (first, second) = bytes.split_at(bytes.len() / 2);
            self.call(Call::Append { slot: 0, bytes: first.to_vec() });
            self.call(Call::Append { slot: 0, bytes: second.to_vec() });
        } else {
            self.call(Call::Append { slot: 0, bytes });
        }
        self.call(Call::Close { slot: 0 });
    }

    fn edit_in_place(&mut self, path: &TreePath) {
        let size = self.sizes.iter().find(|(known, _)| known == path).map_or(0, |(_, size)| *size);
        let mut bytes = self.bytes();
        if size > 0 {
            bytes.truncate(size);
        }
        self.call(Call::Open { slot: 0, path: path.clone(), truncate: Truncate::Keep });
        self.call(Call::Overwrite { slot: 0, bytes });
        self.call(Call::Close { slot: 0 });
    }

    fn append(&mut self, path: &TreePath, times: usize) {
        self.call(Call::Open { slot: 0, path: path.clone(), truncate: Truncate::Keep });
        for _ in 0..times {
            let bytes = self.bytes();
            self.call(Call::Append { slot: 0, bytes });
        }
        self.call(Call::Close { slot: 0 });
    }

    fn swap(&mut self) {
        let (a, b) = if self.below(2) == 0 {
            (self.any_file(), self.any_file())
        } else {
            (self.any_directory(), self.any_directory())
        };
        let (Some(a), Some(b)) = (a, b) else { return };
        let temp = sibling(&a, ".swap");
        self.call(Call::Rename { from: a.clone(), to: temp.clone() });
        self.call(Call::Rename { from: b.clone(), to: a });
        self.call(Call::Rename { from: temp, to: b });
    }

    fn replace_kind(&mut self) {
        if self.below(2) == 0 {
            if let Some(path) = self.any_file() {
                self.call(Call::Unlink { path: path.clone() });
                self.call(Call::MakeDirectory { path: path.clone() });
                self.write_file(&path.join(&Name::try_from("inside").expect("a plain name")));
            }
        } else if let Some(path) = self.any_directory() {
            self.call(Call::RemoveTree { path: path.clone() });
            if self.below(2) == 0 {
                self.write_file(&path);
            } else {
                self.call(Call::MakeDirectory { path });
            }
        }
    }

    fn make_directories(&mut self) {
        let mut path = self.new_directory();
        self.call(Call::MakeDirectory { path: path.clone() });
        while path.names().len() < DEPTH_MAX && self.below(2) == 0 {
            let name = DIRECTORY_NAMES[self.below(DIRECTORY_NAMES.len())];
            path = path.join(&Name::try_from(name).expect("a plain name"));
            self.call(Call::MakeDirectory { path: path.clone() });
        }
        if self.below(3) > 0 {
            let name = FILE_NAMES[self.below(FILE_NAMES.len())];
            self.write_file(&path.join(&Name::try_from(name).expect("a plain name")));
        }
    }

    fn relink(&mut self) {
        let path = match self.below(3) {
            0 => self.new_file(),
            _ => self.any_link().unwrap_or_else(|| self.new_file()),
        };
        self.tokens += 1;
        let text = format!("to/{:016x}.{}", self.salt, self.tokens);
        let target = LinkTarget::new(text.into_bytes()).expect("a short text without NUL");
        if self.below(2) == 0 {
            let temp = sibling(&path, ".lnk");
            self.call(Call::MakeSymlink { path: temp.clone(), target });
            self.call(Call::Rename { from: temp, to: path });
        } else {
            self.call(Call::Unlink { path: path.clone() });
            self.call(Call::MakeSymlink { path, target });
        }
    }

    fn burst(&mut self) {
        self.pause_us_max = self.pause_us_max.min(500);
        let top = self.any(|author| &author.directories).unwrap_or_default();
        let name = |text: &str| Name::try_from(text).expect("a plain name");
        let git = top.join(&name("git"));
        let objects = git.join(&name("objects"));
        self.call(Call::MakeDirectory { path: git.clone() });
        self.call(Call::MakeDirectory { path: objects.clone() });
        for _ in 0..self.random.random_range(2..10) {
            let bucket = objects.join(&name(&format!("{:x}", self.below(4))));
            self.call(Call::MakeDirectory { path: bucket.clone() });
            let object = bucket.join(&name(&format!("{:02x}", self.below(64))));
            let temp = bucket.join(&name("tmp_obj"));
            self.write_file(&temp);
            self.call(Call::Rename { from: temp, to: object });
        }
        let (lock, index) = (git.join(&name("index.lock")), git.join(&name("index")));
        self.write_file(&lock);
        self.call(Call::Rename { from: lock, to: index });
        let inside: Vec<TreePath> =
            self.files.iter().filter(|path| path.starts_with(&git)).cloned().collect();
        for path in inside {
            if self.below(4) == 0 {
                self.call(Call::Unlink { path });
            }
        }
    }

    fn copy_tree(&mut self) {
        let Some(from) = self.any_directory() else { return };
        let to = self.new_directory();
        if to.starts_with(&from) {
            return;
        }
        self.call(Call::MakeDirectory { path: to.clone() });
        let below = |path: &TreePath| {
            let rest = path.names().get(from.names().len()..)?;
            let inside = path.starts_with(&from) && !rest.is_empty();
            inside.then(|| rest.iter().fold(to.clone(), |path, name| path.join(name)))
        };
        let directories: Vec<TreePath> = self.directories.iter().filter_map(below).collect();
        let files: Vec<TreePath> = self.files.iter().filter_map(below).collect();
        for path in directories {
            self.call(Call::MakeDirectory { path });
        }
        for path in files {
            self.write_file(&path);
        }
    }

    fn import(&mut self) {
        self.pause_us_max = self.pause_us_max.min(500);
        let name = |text: &str| Name::try_from(text).expect("a plain name");
        let top = TreePath::root().join(&name("import"));
        self.call(Call::MakeDirectory { path: top.clone() });
        for number in 0..SHARED_CONTENTS {
            let path = top.join(&name(&format!("f{number}")));
            let bytes = format!("shared content {number}").into_bytes();
            self.call(Call::Open { slot: 0, path, truncate: Truncate::ToEmpty });
            self.call(Call::Append { slot: 0, bytes });
            self.call(Call::Close { slot: 0 });
        }
    }
}

fn sibling(path: &TreePath, suffix: &str) -> TreePath {
    let (directory, name) = path.split_last().expect("files are never the root");
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend_from_slice(suffix.as_bytes());
    directory.join(&Name::new(bytes).expect("a short suffix on a short name"))
}
