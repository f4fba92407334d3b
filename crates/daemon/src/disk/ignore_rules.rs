//! The ignore rules: `.pleachignore` at the root, with gitignore syntax.
//!
//! They are the same on every master, since the file is itself replicated; it is never ignored. A line
//! that can't be understood is a problem, and the other lines count.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use pleach_core::values::{Problem, ProblemKind};
use pleach_core::vocabulary::{Fingerprint, Kind, Name, TreePath};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::stat::{problem, stat_at, stat_handle};
use super::walk::open_below;

/// The name of the file at the root.
pub const IGNORE_NAME: &str = ".pleachignore";

/// How much of the file is read; what is beyond is not understood, and said.
const RULES_BYTES_MAX: u64 = 1 << 20;

/// The rules as of the last reload.
#[derive(Debug)]
pub(crate) struct IgnoreRules {
    rules: Gitignore,
    seen: Option<Fingerprint>,
    generation: u64,
    problems: Vec<Problem>,
    /// Why the file could not be read when that was last tried.
    unread: Option<Problem>,
}

impl IgnoreRules {
    /// Reads the rules for the first time.
    ///
    /// # Errors
    /// If they are there and can't be read: nobody knows then what must not be told to others.
    pub(crate) fn open(tree: BorrowedFd<'_>) -> Result<Self, Problem> {
        let mut rules = Self::new();
        rules.refresh(tree);
        match rules.unread.take() {
            None => Ok(rules),
            Some(problem) => Err(problem),
        }
    }

    pub(crate) fn new() -> Self {
        Self {
            rules: Gitignore::empty(),
            seen: None,
            generation: 0,
            problems: Vec::new(),
            unread: None,
        }
    }

    /// Counts the reloads: after one, what was ignored may count and the other way round.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// What could not be understood.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Reads the file again if it is not the one that was read. One system call if it is.
    pub(crate) fn refresh(&mut self, tree: BorrowedFd<'_>) {
        self.unread = None;
        let now = match stat_at(tree, IGNORE_NAME) {
            Ok(seen) => seen.node(),
            Err(Errno::NOENT) => None,
            Err(errno) => return self.unread(errno),
        };
        let now = now.filter(|fingerprint| fingerprint.kind == Kind::File);
        if now == self.seen {
            return;
        }
        match now.map(|_| read_rules(tree)) {
            None => *self = Self { generation: self.generation + 1, ..Self::new() },
            Some(Ok((fingerprint, text, whole))) => {
                self.generation += 1;
                self.seen = Some(fingerprint);
                (self.rules, self.problems) = parse(&text);
                if whole == Whole::Cut {
                    self.problems.push(unclear(format!(
                        "it is longer than {RULES_BYTES_MAX} bytes: the rest does not count"
                    )));
                }
            }
            Some(Err(errno)) => self.unread(errno),
        }
    }

    /// The old rules stay, and the file is read the next time: to ignore too much loses nothing, to take
    /// what is to be ignored for a user's would tell it to all.
    fn unread(&mut self, errno: Errno) {
        self.unread = Some(problem(errno, &ignore_path()));
    }

    /// Whether `path` itself or a directory above it is covered.
    pub(crate) fn covers(&self, path: &TreePath, kind: Kind) -> bool {
        if self.rules.is_empty() || path.is_root() || *path == ignore_path() {
            return false;
        }
        let mut above = PathBuf::new();
        let (last, directories) = path.names().split_last().expect("the root was excluded");
        for name in directories {
            above.push(OsStr::from_bytes(name.as_bytes()));
            if self.rules.matched(&above, true).is_ignore() {
                return true;
            }
        }
        above.push(OsStr::from_bytes(last.as_bytes()));
        self.rules.matched(&above, kind == Kind::Directory).is_ignore()
    }

    /// Whether `name` in `directory` is covered, given that the directory is not.
    pub(crate) fn covers_entry(&self, directory: &Path, name: &[u8], kind: Kind) -> bool {
        if self.rules.is_empty() {
            return false;
        }
        if directory.as_os_str().is_empty() && name == IGNORE_NAME.as_bytes() {
            return false;
        }
        let path = directory.join(OsStr::from_bytes(name));
        self.rules.matched(path, kind == Kind::Directory).is_ignore()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    All,
    Cut,
}

fn ignore_path() -> TreePath {
    TreePath::new(vec![Name::try_from(IGNORE_NAME).expect("the name has no slash")])
}

fn unclear(reason: String) -> Problem {
    Problem { kind: ProblemKind::IgnoreRule, path: ignore_path(), reason }
}

fn read_rules(tree: BorrowedFd<'_>) -> Result<(Fingerprint, Vec<u8>, Whole), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = open_below(tree, ignore_path().names(), flags)?;
    let fingerprint = stat_handle(&file)?;
    let mut text = Vec::new();
    std::fs::File::from(file)
        .take(RULES_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let whole = if text.len() as u64 > RULES_BYTES_MAX { Whole::Cut } else { Whole::All };
    Ok((fingerprint, text, whole))
}

fn parse(text: &[u8]) -> (Gitignore, Vec<Problem>) {
    let mut builder = GitignoreBuilder::new("");
    let mut problems = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let Ok(line) = std::str::from_utf8(line) else {
            problems.push(unclear(format!("line {number} is not UTF-8 and does not count")));
            continue;
        };
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Err(error) = builder.add_line(None, line) {
            problems.push(unclear(format!("line {number} does not count: {error}")));
        }
    }
    let rules = builder.build().unwrap_or_else(|error| {
        problems.push(unclear(format!("the rules can't be used: {error}")));
        Gitignore::empty()
    });
    (rules, problems)
}
