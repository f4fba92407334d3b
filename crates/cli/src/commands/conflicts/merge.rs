//! `pleach conflicts diff PATH --tool CMD`: the user's merge tool, with git's variables and names. More than two
//! versions are merged one after the other.
//!
//! What the tool leaves in `MERGED` is put at the path by rename, as a save is, and once the daemon has taken
//! it up the conflict is closed with it. Whatever changes meanwhile, here or elsewhere, ends this before
//! anything is settled; what was merged by then stays in a file that is named.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pleach_core::values::VersionOf;
use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{
    Client, ClientError, ConflictReport, PathText, Pick, Reply, Request, VersionKind, VersionReport,
};
use rustix::fs::XattrFlags;
use serde::Serialize;

use super::content::{self, ANCESTOR, Content};
use super::desk::{Desk, left_as_it_was};
use super::{at, no_conflict};
use crate::asking::{daemon, follow};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};

/// How long the daemon may take to see what was put at the path.
const SEEN_PATIENCE: Duration = Duration::from_secs(60);

/// How often it is asked.
const ASKED_EVERY: Duration = Duration::from_millis(20);

/// The longest list of names, and the largest value (xattr(7)).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// What was merged, for programs.
#[derive(Serialize)]
struct Merged {
    path: PathText,
    kept: &'static str,
    outcome: &'static str,
}

pub(in crate::commands) fn merge(
    path: &Path,
    tool: &str,
    output: &Output,
) -> Result<Code, Failure> {
    let (root, tree_path) = place::path_in_store(path)?;
    let client = daemon(&root)?;
    let mut merging = Merging { client, root, path: tree_path };
    let conflict = merging.conflict()?;
    let desk = Desk::new(&merging.path)?;
    if let Some(lost) = merging.lay_out_base(&conflict, &desk)? {
        output.remark(|_| lost)?;
    }
    let stood = &conflict.versions[0];
    let outcome = merging.fold(&conflict, &desk, tool).and_then(|()| {
        match Some(desk.merged_hash()?) == stood.hash {
            true => Err(left_as_it_was()),
            false => merging.take(&conflict, &desk),
        }
    });
    match outcome {
        Ok(()) => {
            follow(&mut merging.client, "settled");
            let path = PathText(merging.path.clone());
            let merged = [Merged { path, kept: "merged", outcome: "settled" }];
            output.facts(&merged[..], |merged, style| {
                merged.iter().map(|m| format!("{} {}\n", style.good("settled"), m.path)).collect()
            })?;
            Ok(Code::Done)
        }
        Err(failure) if desk.merged_hash().is_ok_and(|now| Some(now) != stood.hash) => {
            let kept = desk.keep();
            Err(Failure::new(format!("{failure}; what was merged is in {}", kept.display())))
        }
        Err(failure) => Err(failure),
    }
}

struct Merging {
    client: Client,
    root: PathBuf,
    path: TreePath,
}

impl Merging {
    /// The one conflict here that is about the bytes of two files.
    fn conflict(&mut self) -> Result<ConflictReport, Failure> {
        let open = at(&mut self.client, &self.path)?;
        if open.is_empty() {
            return Err(no_conflict(&self.path));
        }
        let is_file = |version: &VersionReport| {
            version.of == VersionOf::Content && version.what == VersionKind::File
        };
        let mut of_files =
            open.into_iter().filter(|conflict| conflict.versions.iter().all(is_file));
        let unfit = |what: &str| {
            Failure::new(format!("{}: {what}", self.path)).next(
                "pleach conflicts show PATH, then pleach conflicts resolve PATH --keep VERSION",
            )
        };
        let conflict = of_files.next().ok_or_else(|| unfit("there are no two files to merge"))?;
        match (conflict.versions.len(), of_files.next()) {
            (2.., None) => Ok(conflict),
            _ => Err(unfit("more than one conflict of files is open there")),
        }
    }

    /// What all versions go back to; empty without, as git has it. What is to be said if it is lost.
    fn lay_out_base(
        &mut self,
        conflict: &ConflictReport,
        desk: &Desk,
    ) -> Result<Option<String>, Failure> {
        let mut base = create(&desk.base)?;
        let Some(ancestor) = &conflict.ancestor else { return Ok(None) };
        match Content::sought(&mut self.client, &self.root, &self.path, ANCESTOR)? {
            Ok(mut content) => {
                content.copy_to(&mut base).map_err(|e| unwritten(&desk.base, e)).map(|()| None)
            }
            Err(_) => Ok(Some(render::lost_ancestor(ancestor, "BASE is empty"))),
        }
    }

    /// Has the tool merge what stands with the first of the others, what came of that with the second, and so
    /// on.
    fn fold(&mut self, conflict: &ConflictReport, desk: &Desk, tool: &str) -> Result<(), Failure> {
        let stood = &conflict.versions[0];
        self.put(&desk.merged, stood)?;
        for other in &conflict.versions[1..] {
            std::fs::copy(&desk.merged, &desk.local).map_err(|e| unwritten(&desk.local, e))?;
            self.put(&desk.remote, other)?;
            desk.work(tool)?;
        }
        Ok(())
    }

    fn put(&mut self, place: &Path, version: &VersionReport) -> Result<(), Failure> {
        let mut file = create(place)?;
        let mut content = Content::of(&mut self.client, &self.root, &self.path, &version.id)?;
        content.copy_to(&mut file).map_err(|e| unwritten(place, e))
    }

    /// Puts what was merged at the path, waits until the daemon has seen it, and settles the conflict so.
    fn take(&mut self, conflict: &ConflictReport, desk: &Desk) -> Result<(), Failure> {
        let merged = desk.merged_hash()?;
        let (stood, others) = (&conflict.versions[0], &conflict.versions[1..]);
        // One that it is equal to is no other version any more.
        let others: Vec<&VersionReport> =
            others.iter().filter(|other| other.hash.as_ref() != Some(&merged)).collect();
        let is_same = |now: ConflictReport| ids(&now) == ids(conflict);
        if !self.conflict().is_ok_and(is_same) {
            let message = format!("{}: somebody has edited or settled it meanwhile", self.path);
            return Err(Failure::new(message).next("look again: pleach conflicts show PATH"));
        }
        self.put_in_place(desk, stood)?;
        let start = Instant::now();
        let now = loop {
            let open = at(&mut self.client, &self.path)?;
            let is_merged = |open: &ConflictReport| {
                open.versions.iter().any(|v| v.stands && v.hash.as_ref() == Some(&merged))
            };
            if open.is_empty() && others.is_empty() {
                return Ok(());
            }
            if let Some(open) = open.into_iter().find(is_merged) {
                break open;
            }
            if start.elapsed() > SEEN_PATIENCE {
                let message =
                    format!("{}: it is in place, and the daemon has not seen it", self.path);
                return Err(Failure::new(message).next("pleach status says what it is at"));
            }
            std::thread::park_timeout(ASKED_EVERY);
        };
        let standing = now.versions.iter().find(|version| version.stands);
        let Some(standing) = standing else { return Err(no_conflict(&self.path)) };
        let expect = others.iter().copied().chain([standing]).map(|version| version.id.clone());
        let request = Request::Resolve {
            path: PathText(self.path.clone()),
            choice: Pick::Version(standing.id.clone()),
            expect: Some(expect.collect()),
            dry_run: false,
        };
        match self.client.call(request) {
            Ok(Reply::Done) => Ok(()),
            Ok(_) => Err(Failure::new("the daemon answered something else")),
            Err(ClientError::Refused(refusal)) => Err(ClientError::Refused(refusal).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// By rename, as a save: with the attributes of what it replaces, if that is still what the tool was given.
    fn put_in_place(&self, desk: &Desk, stood: &VersionReport) -> Result<(), Failure> {
        let mut place = self.root.clone();
        place.extend(
            self.path.names().iter().map(|name| std::ffi::OsStr::from_bytes(name.as_bytes())),
        );
        let failed =
            |e: io::Error| Failure::new(format!("{}: cannot put it there: {e}", self.path));
        let mut new = tempfile::NamedTempFile::new_in(self.root.join(".pleach")).map_err(failed)?;
        io::copy(&mut File::open(&desk.merged).map_err(failed)?, &mut new).map_err(failed)?;
        let mut old = content::open(&place).map_err(failed)?;
        let metadata = old.metadata().map_err(failed)?;
        std::os::unix::fs::fchown(new.as_file(), Some(metadata.uid()), Some(metadata.gid()))
            .or_else(|e| if e.kind() == io::ErrorKind::PermissionDenied { Ok(()) } else { Err(e) })
            .map_err(failed)?;
        copy_xattrs(&old, new.as_file());
        new.as_file().set_permissions(metadata.permissions()).map_err(failed)?;
        new.flush().and_then(|()| new.as_file().sync_all()).map_err(failed)?;
        if Some(content::hash(&mut old).map_err(failed)?) != stood.hash {
            let message = format!("{}: the file was written to meanwhile", self.path);
            return Err(Failure::new(message));
        }
        new.persist(&place).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

/// As far as the file system and the user's rights allow: an editor's save keeps no more.
fn copy_xattrs(old: &File, new: &File) {
    let (mut names, mut value) = (vec![0; XATTR_BYTES_MAX], vec![0; XATTR_BYTES_MAX]);
    let Ok(length) = rustix::fs::flistxattr(old, &mut names[..]) else { return };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Ok(length) = rustix::fs::fgetxattr(old, name, &mut value[..]) {
            let _ = rustix::fs::fsetxattr(new, name, &value[..length], XattrFlags::empty());
        }
    }
}

fn create(place: &Path) -> Result<File, Failure> {
    File::create(place).map_err(|e| unwritten(place, e))
}

fn unwritten(place: &Path, error: io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {error}", place.display()))
}

fn ids(conflict: &ConflictReport) -> Vec<&str> {
    conflict.versions.iter().map(|version| &*version.id).collect()
}
