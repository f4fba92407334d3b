//! The oracle of "nothing lost" for real directories: a journal of every content that a user closed, and what
//! became of it.
//!
//! A content is superseded once its user destroyed it knowingly: what they wrote over, replaced or removed,
//! found out by a handle that they held before. What pleach put there in between they did not see, and is not.
//! Everything else must be in the tree, a version of an open conflict, or kept among some master's versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use super::{Cluster, Master};

/// A content, by the BLAKE3 of its bytes.
type Content = [u8; 32];

/// A file that a user closed.
#[derive(Clone, Debug)]
struct Closed {
    path: String,
    master: String,
    at: Instant,
}

/// What users closed, and what they destroyed.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    closed: BTreeMap<Content, Closed>,
    superseded: BTreeSet<Content>,
}

/// How many contents ended where.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// In the tree.
    pub standing: usize,
    /// Versions of open conflicts.
    pub disputed: usize,
    /// Among the versions of some master.
    pub kept: usize,
    /// Destroyed by who had seen them.
    pub superseded: usize,
    /// Nowhere, each with its story.
    pub lost: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { standing, disputed, kept, superseded, lost } = self;
        write!(
            f,
            "{standing} in the tree, {disputed} in conflicts, {kept} in versions, {superseded} superseded, \
             {} lost",
            lost.len()
        )?;
        lost.iter().try_for_each(|lost| write!(f, "\n  {lost}"))
    }
}

impl Journal {
    /// A user has closed a file that holds these bytes now.
    fn closed(&mut self, bytes: &[u8], path: &str, master: &Master) {
        let (path, master) = (path.to_owned(), master.name().to_owned());
        let closed = Closed { path, master, at: Instant::now() };
        self.closed.insert(*blake3::hash(bytes).as_bytes(), closed);
    }

    /// Writes a file anew, in place.
    ///
    /// # Errors
    /// If that fails; then what was there may be destroyed, and nothing counts as closed.
    pub fn write(&mut self, master: &Master, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(master.path(path))?;
        self.superseded.insert(content_of(&mut file)?);
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(bytes)?;
        drop(file);
        self.closed(bytes, path, master);
        Ok(())
    }

    /// Renames a file, over whatever is at its new name.
    ///
    /// # Errors
    /// If that fails.
    pub fn rename(&mut self, master: &Master, from: &str, to: &str) -> io::Result<()> {
        let replaced = File::open(master.path(to)).ok();
        fs::rename(master.path(from), master.path(to))?;
        self.destroyed(replaced)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// If that fails.
    pub fn remove(&mut self, master: &Master, path: &str) -> io::Result<()> {
        let removed = File::open(master.path(path)).ok();
        fs::remove_file(master.path(path))?;
        self.destroyed(removed)
    }

    /// What was opened before is destroyed, unless pleach has put it elsewhere in between.
    fn destroyed(&mut self, file: Option<File>) -> io::Result<()> {
        if let Some(mut file) = file
            && file.metadata()?.nlink() == 0
        {
            self.superseded.insert(content_of(&mut file)?);
        }
        Ok(())
    }

    /// What has been closed on a master and is on none of these counts no more: its machine lost its power
    /// before anybody was told.
    pub fn forget_untold(&mut self, of: &Master, others: &[&Master]) {
        let mut told = BTreeSet::new();
        for other in others {
            told.extend(standing_on(other).into_iter().chain(kept_by(other)));
        }
        self.closed.retain(|content, closed| closed.master != of.name() || told.contains(content));
    }

    /// What both know of.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.closed.extend(other.closed);
        self.superseded.extend(other.superseded);
        self
    }

    /// Says of each content what became of it, once all masters are at rest.
    #[must_use]
    pub fn judge(&self, cluster: &Cluster) -> Verdict {
        let standing = standing_on(&cluster.masters[0]);
        let disputed = format!("{:?}", cluster.masters[0].conflicts());
        let kept: BTreeSet<Content> = cluster.masters.iter().flat_map(kept_by).collect();
        let mut verdict = Verdict::default();
        for (content, Closed { path, master, at }) in &self.closed {
            let hash = blake3::Hash::from_bytes(*content).to_hex();
            if standing.contains(content) {
                verdict.standing += 1;
            } else if disputed.contains(hash.as_str()) {
                verdict.disputed += 1;
            } else if kept.contains(content) {
                verdict.kept += 1;
            } else if self.superseded.contains(content) {
                verdict.superseded += 1;
            } else {
                let ago = at.elapsed();
                verdict.lost.push(format!("{path}, closed on {master} {ago:?} ago: {hash}"));
            }
        }
        verdict
    }
}

fn content_of(file: &mut File) -> io::Result<Content> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

fn standing_on(master: &Master) -> BTreeSet<Content> {
    let entries = master.tree().entries.into_values();
    entries.filter_map(|entry| entry.content).map(|hash| *hash.as_bytes()).collect()
}

fn kept_by(master: &Master) -> BTreeSet<Content> {
    contents_below(&master.path(".pleach/versions"))
}

fn contents_below(directory: &Path) -> BTreeSet<Content> {
    let tree = super::Tree::read(directory).unwrap_or_default();
    let contents = tree.entries.into_values().filter_map(|entry| entry.content);
    contents.map(|hash| *hash.as_bytes()).collect()
}
