//! The files that a merge tool works on, and the tool.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use pleach_core::vocabulary::TreePath;
use tempfile::TempDir;

use super::content;
use crate::failure::Failure;

/// Scratch files, named after the file that is merged: tools know by that what it is.
pub(super) struct Desk {
    directory: TempDir,
    pub(super) base: PathBuf,
    pub(super) local: PathBuf,
    pub(super) remote: PathBuf,
    pub(super) merged: PathBuf,
}

/// What a file holds, and when it was written to.
#[derive(PartialEq)]
struct Seen {
    hash: String,
    written: SystemTime,
}

impl Desk {
    pub(super) fn new(path: &TreePath) -> Result<Self, Failure> {
        let failed = |e| Failure::new(format!("cannot make a scratch directory: {e}"));
        let directory =
            tempfile::Builder::new().prefix("pleach-merge-").tempdir().map_err(failed)?;
        let name = path.names().last().map_or(&b"file"[..], |name| name.as_bytes());
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
        Ok(Self { directory, base, local, remote, merged })
    }

    pub(super) fn merged_hash(&self) -> Result<String, Failure> {
        Ok(self.seen()?.hash)
    }

    fn seen(&self) -> Result<Seen, Failure> {
        let seen = File::open(&self.merged).and_then(|mut file| {
            let written = file.metadata()?.modified()?;
            Ok(Seen { hash: content::hash(&mut file)?, written })
        });
        seen.map_err(|e| Failure::new(format!("cannot read {}: {e}", self.merged.display())))
    }

    /// Leaves the files where they are.
    pub(super) fn keep(self) -> PathBuf {
        let Self { directory, merged, .. } = self;
        let _ = directory.keep();
        merged
    }

    /// Runs the tool, and sees that it has written.
    pub(super) fn work(&self, tool: &str) -> Result<(), Failure> {
        let before = self.seen()?;
        run(tool, self)?;
        match self.seen()? == before {
            true => Err(left_as_it_was()),
            false => Ok(()),
        }
    }
}

/// Nothing was made of the versions.
pub(super) fn left_as_it_was() -> Failure {
    Failure::new("the tool left MERGED as it was: nothing is settled")
        .next("to keep one version as it is: pleach conflicts resolve PATH --keep VERSION")
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
