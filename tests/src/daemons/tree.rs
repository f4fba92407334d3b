//! A directory tree as a value: what a program that only reads can tell about it.
//!
//! Holds path, kind, bytes (by hash), permission bits, mtime to the nanosecond and link text of all
//! that is below a root, but for the root's own `.pleach`. Lacks owners and extended attributes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What stands at a path.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// `d`, `f`, `l`, or `?` for what pleach doesn't replicate.
    pub kind: char,
    /// The low 12 bits of `st_mode`; 0 for a link.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Size in bytes of a file.
    pub size: u64,
    /// BLAKE3 of a file's bytes or of a link's text.
    pub content: Option<blake3::Hash>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = self.mtime;
        write!(f, "{} {:04o} {seconds}.{nanos:09} {} B", self.kind, self.mode, self.size)?;
        self.content.map_or(Ok(()), |hash| write!(f, " {}", &hash.to_hex()[..12]))
    }
}

/// A tree: paths below the root and what stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// By path, relative to the root.
    pub entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// Reads what is below `root`, but for `root/.pleach`. What vanishes meanwhile is left out.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut pending = vec![PathBuf::new()];
        while let Some(directory) = pending.pop() {
            let listing = match fs::read_dir(root.join(&directory)) {
                Ok(listing) => listing,
                Err(error) if vanished(&error) && directory != Path::new("") => continue,
                Err(error) => return Err(error),
            };
            for found in listing {
                let path = directory.join(found?.file_name());
                if path == Path::new(".pleach") {
                    continue;
                }
                match read_entry(&root.join(&path)) {
                    Ok(entry) => {
                        if entry.kind == 'd' {
                            pending.push(path.clone());
                        }
                        tree.entries.insert(path, entry);
                    }
                    Err(error) if vanished(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(tree)
    }

    /// How many files it has.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.entries.values().filter(|entry| entry.kind == 'f').count()
    }

    /// The part below `directory`, with paths from there.
    #[must_use]
    pub fn below(&self, directory: &str) -> Self {
        let inside = self.entries.iter().filter_map(|(path, entry)| {
            let rest = path.strip_prefix(directory).ok()?;
            (rest != Path::new("")).then(|| (rest.to_owned(), entry.clone()))
        });
        Self { entries: inside.collect() }
    }

    /// Without the times of directories, for tests in which several masters write into one.
    #[must_use]
    pub fn without_directory_times(mut self) -> Self {
        for entry in self.entries.values_mut().filter(|entry| entry.kind == 'd') {
            entry.mtime = (0, 0);
        }
        self
    }
}

fn vanished(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read_entry(path: &Path) -> io::Result<Entry> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let (letter, content) = if kind.is_dir() {
        ('d', None)
    } else if kind.is_symlink() {
        ('l', Some(blake3::hash(fs::read_link(path)?.as_os_str().as_bytes())))
    } else if kind.is_file() {
        ('f', Some(hash_file(path)?))
    } else {
        ('?', None)
    };
    Ok(Entry {
        kind: letter,
        mode: if kind.is_symlink() { 0 } else { metadata.mode() & 0o7777 },
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        size: if kind.is_file() { metadata.size() } else { 0 },
        content,
    })
}

fn hash_file(path: &Path) -> io::Result<blake3::Hash> {
    let mut file = fs::File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&buffer[..count]),
        };
    }
}

/// Says where two trees differ, a line each, at most 40; empty if they are equal.
#[must_use]
pub fn differences(left: &Tree, right: &Tree) -> String {
    let mut lines = Vec::new();
    for (path, entry) in &left.entries {
        match right.entries.get(path) {
            None => lines.push(format!("only left:  {path:?} {entry:?}")),
            Some(other) if other != entry => {
                lines.push(format!("differs:    {path:?}\n    {entry:?}\n    {other:?}"));
            }
            Some(_) => {}
        }
    }
    let only_right = right.entries.iter().filter(|(path, _)| !left.entries.contains_key(*path));
    lines.extend(only_right.map(|(path, entry)| format!("only right: {path:?} {entry:?}")));
    let count = lines.len();
    if count > 40 {
        lines.truncate(40);
        lines.push(format!("… {count} differences in all"));
    }
    lines.join("\n")
}

/// Panics with the differences unless both are equal.
pub fn assert_same_trees(what: &str, left: &Tree, right: &Tree) {
    assert!(left == right, "{what}:\n{}", differences(left, right));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_tells_bytes_modes_times_and_links_apart() {
        let scratch = tempfile::tempdir().unwrap();
        let (left, right) = (scratch.path().join("l"), scratch.path().join("r"));
        for root in [&left, &right] {
            fs::create_dir_all(root.join("d/.pleach")).unwrap();
            fs::create_dir(root.join(".pleach")).unwrap();
            fs::write(root.join("d/f"), "one").unwrap();
            std::os::unix::fs::symlink("d", root.join("link")).unwrap();
            for path in ["d/f", "d/.pleach", "d", "link"] {
                super::super::set_mtime(&root.join(path), 7, 9);
            }
        }
        fs::write(right.join(".pleach/state"), "of one master").unwrap();
        let equal = |l: &Path, r: &Path| Tree::read(l).unwrap() == Tree::read(r).unwrap();
        assert!(equal(&left, &right));
        assert_eq!(Tree::read(&left).unwrap().entries.len(), 4);

        super::super::set_mtime(&right.join("d/f"), 7, 10);
        assert!(!equal(&left, &right), "a nanosecond");
        fs::write(right.join("d/f"), "two").unwrap();
        super::super::set_mtime(&right.join("d/f"), 7, 9);
        assert!(!equal(&left, &right), "bytes");
    }
}
