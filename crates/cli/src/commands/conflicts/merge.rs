//! `pleach conflicts diff PATH --tool CMD`: the user's merge tool, with git's variables and names.
//!
//! What the tool leaves in `MERGED` is put at the path by rename, as a save is, and once the daemon has taken
//! it up the conflict is closed with it. Whatever changes meanwhile, here or elsewhere, ends this before
//! anything is settled; what was merged by then stays in a file that is named.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pleach_core::values::VersionOf;
use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{
    Client, ClientError, ConflictReport, PathText, Pick, Reply, Request, VersionKind, VersionReport,
};
use rustix::fs::XattrFlags;
use serde::Serialize;
use tempfile::TempDir;

use super::content::{self, Content};
use super::{at, no_conflict};
use crate::asking::daemon;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::place;

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
    let desk = merging.desk()?;
    merging.lay_out(&conflict, &desk)?;
    let before = desk.merged_hash()?;
    let run = run(tool, &desk);
    let outcome = run.and_then(|()| {
        if desk.merged_hash()? == before {
            let message = format!("{}: the tool left MERGED as it was", merging.path);
            return Err(Failure::new(message).next(
                "to keep one version as it is: pleach conflicts resolve PATH --keep VERSION",
            ));
        }
        merging.take(&conflict, &desk)
    });
    match outcome {
        Ok(()) => {
            let path = PathText(merging.path.clone());
            let merged = [Merged { path, kept: "merged", outcome: "settled" }];
            output.facts(&merged[..], |merged, style| {
                merged.iter().map(|m| format!("{} {}\n", style.good("settled"), m.path)).collect()
            })?;
            Ok(Code::Done)
        }
        Err(failure) if desk.merged_hash().is_ok_and(|now| now != before) => {
            let kept = desk.keep();
            Err(Failure::new(format!("{failure}; what was merged is in {}", kept.display())))
        }
        Err(failure) => Err(failure),
    }
}

/// The files that the tool works on.
struct Desk {
    directory: TempDir,
    base: PathBuf,
    local: PathBuf,
    remote: PathBuf,
    merged: PathBuf,
}

impl Desk {
    fn merged_hash(&self) -> Result<String, Failure> {
        let hash = File::open(&self.merged).and_then(|mut file| content::hash(&mut file));
        hash.map_err(|e| Failure::new(format!("cannot read {}: {e}", self.merged.display())))
    }

    /// Leaves the files where they are.
    fn keep(self) -> PathBuf {
        let Self { directory, merged, .. } = self;
        let _ = directory.keep();
        merged
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
            (2, None) => Ok(conflict),
            _ => Err(unfit("more than two versions are open, and a tool merges two")),
        }
    }

    fn desk(&self) -> Result<Desk, Failure> {
        let failed = |e| Failure::new(format!("cannot make a scratch directory: {e}"));
        let directory =
            tempfile::Builder::new().prefix("pleach-merge-").tempdir().map_err(failed)?;
        let name = self.path.names().last().map_or(&b"file"[..], |name| name.as_bytes());
        let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0);
        let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
        // Room for what is put between, in a name of at most 255 bytes.
        let (stem, extension) =
            (&stem[..stem.len().min(120)], &extension[..extension.len().min(100)]);
        let file = |part: &str| {
            let name = [stem, part.as_bytes(), extension].concat();
            directory.path().join(std::ffi::OsStr::from_bytes(&name))
        };
        let (base, local, remote, merged) =
            (file("_BASE"), file("_LOCAL"), file("_REMOTE"), file("_MERGED"));
        Ok(Desk { directory, base, local, remote, merged })
    }

    /// Local is what stands, remote the other one; without an ancestor the base is empty, as git has it.
    fn lay_out(&mut self, conflict: &ConflictReport, desk: &Desk) -> Result<(), Failure> {
        let [local, remote] = &conflict.versions[..] else {
            return Err(no_conflict(&self.path));
        };
        let ancestor = conflict.ancestor.as_ref().filter(|ancestor| ancestor.here == Some(true));
        let mut put = |place: &Path, version: Option<&str>| {
            let failed =
                |e: io::Error| Failure::new(format!("cannot write {}: {e}", place.display()));
            let mut file = File::create(place).map_err(failed)?;
            if let Some(version) = version {
                let mut content = Content::of(&mut self.client, &self.root, &self.path, version)?;
                content.copy_to(&mut file).map_err(failed)?;
            }
            Ok(())
        };
        put(&desk.base, ancestor.map(|_| "ancestor"))?;
        put(&desk.local, Some(&local.id))?;
        put(&desk.remote, Some(&remote.id))?;
        put(&desk.merged, Some(&local.id))
    }

    /// Puts what was merged at the path, waits until the daemon has seen it, and settles the conflict so.
    fn take(&mut self, conflict: &ConflictReport, desk: &Desk) -> Result<(), Failure> {
        let merged = desk.merged_hash()?;
        let (stood, other) = (&conflict.versions[0], &conflict.versions[1]);
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
            if open.is_empty() && other.hash.as_ref() == Some(&merged) {
                // It is what the other one was: that is no conflict any more.
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
        let expect = vec![standing.id.clone(), other.id.clone()];
        let request = Request::Resolve {
            path: PathText(self.path.clone()),
            choice: Pick::Version(standing.id.clone()),
            expect: Some(expect),
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

fn ids(conflict: &ConflictReport) -> Vec<&str> {
    conflict.versions.iter().map(|version| &*version.id).collect()
}

/// Runs the tool: one that git knows by its name, or a line for the shell.
fn run(tool: &str, desk: &Desk) -> Result<(), Failure> {
    let line = match tool {
        "meld" => r#"meld --output="$MERGED" "$LOCAL" "$BASE" "$REMOTE""#,
        "vimdiff" => r#"vimdiff -f -c '4wincmd w | wincmd J' "$LOCAL" "$BASE" "$REMOTE" "$MERGED""#,
        "nvimdiff" => {
            r#"nvim -d -f -c '4wincmd w | wincmd J' "$LOCAL" "$BASE" "$REMOTE" "$MERGED""#
        }
        "kdiff3" => r#"kdiff3 --auto -o "$MERGED" "$BASE" "$LOCAL" "$REMOTE""#,
        line if line.contains('$') => line,
        other => {
            let message = format!("{other}: this is no tool that is known by its name");
            return Err(Failure::usage(message).next(
                "say how it is run, for the shell: --tool 'CMD \"$LOCAL\" \"$BASE\" \"$REMOTE\" -o \"$MERGED\"'",
            ));
        }
    };
    let ran = Command::new("sh")
        .args(["-c", line])
        .env("BASE", &desk.base)
        .env("LOCAL", &desk.local)
        .env("REMOTE", &desk.remote)
        .env("MERGED", &desk.merged)
        .status();
    match ran {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Failure::new(format!("the tool ended with {status}: nothing is settled")))
        }
        Err(e) => Err(Failure::new(format!("cannot run a shell: {e}"))),
    }
}
