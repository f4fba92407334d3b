//! Reading a version of a conflict, or what its versions go back to: its bytes are here, or had from another
//! master.

use std::collections::BTreeMap;

use pleach_core::engine::FormerUse;
use pleach_core::values::{Body, Conflict, Version, VersionOf};
use pleach_core::vocabulary::{ContentHash, TreePath};

use super::answer::Answer;
use super::conflicts::stamp_of;
use super::driver::Driver;
use crate::control::{ContentReport, PathText, Refusal, RefusalKind, Reply};

/// How long a client waits for a content that another master has.
const FETCH_MS_MAX: u64 = 30_000;

/// How much is hashed of what was put aside lately, while a client waits and all others do.
const HASHED_BYTES_MAX: u64 = 16 << 20;

/// How many clients may wait for contents.
const WAITING_MAX: usize = 64;

/// Who waits for the bytes of versions that are on their way.
#[derive(Default)]
pub(super) struct ContentWaiters(Vec<ContentWaiter>);

struct ContentWaiter {
    path: TreePath,
    version: String,
    wanted: (ContentHash, u64),
    deadline_ms: u64,
    reply: Answer,
}

/// What became of looking for a version's bytes.
enum Sought {
    Found(Box<ContentReport>),
    /// Another master may have it: a content of so many bytes.
    Elsewhere(ContentHash, u64),
}

impl ContentWaiters {
    pub(super) fn timeout(&self) -> Option<u64> {
        self.0.iter().map(|waiter| waiter.deadline_ms).min()
    }
}

impl Driver {
    /// A file of this disk that holds a content.
    pub(super) fn file_with(&self, hash: &ContentHash) -> Option<PathText> {
        let versions = &self.contents.versions;
        let in_tree = self.engine.find_content(hash).map(|(path, _)| path);
        let known = in_tree.or_else(|| versions.path_with(*hash));
        let found = known.or_else(|| {
            // What was put aside a moment ago is not hashed yet. The index stays as it is if that fails.
            let _ = versions.settle(HASHED_BYTES_MAX);
            versions.path_with(*hash)
        });
        found.map(PathText)
    }

    /// Answers with the bytes of a version, once they are here.
    pub(super) fn content(&mut self, path: &TreePath, version: &str, reply: Answer) {
        let answer = match self.seek(path, version) {
            Ok(Sought::Found(report)) => Ok(Reply::Content(report)),
            Ok(Sought::Elsewhere(..)) if self.content_waiters.0.len() >= WAITING_MAX => {
                Err(Refusal::new(RefusalKind::Busy, "too many clients wait for contents already"))
            }
            Ok(Sought::Elsewhere(hash, size)) => {
                let (path, version, wanted) = (path.clone(), version.to_owned(), (hash, size));
                let deadline_ms = self.clock.elapsed_ms() + FETCH_MS_MAX;
                // With nobody to ask, nothing comes.
                let deadline_ms =
                    if self.engine.peers().next().is_some() { deadline_ms } else { 0 };
                let waiter = ContentWaiter { path, version, wanted, deadline_ms, reply };
                self.content_waiters.0.push(waiter);
                self.want_to_read();
                return self.answer_content_waiters();
            }
            Err(refusal) => Err(refusal),
        };
        // The client may have gone.
        let _ = reply.send(answer);
    }

    /// Answers those whose content has come, and those for whom it does not.
    pub(super) fn answer_content_waiters(&mut self) {
        let now = self.clock.elapsed_ms();
        let waiting = std::mem::take(&mut self.content_waiters.0);
        let before = waiting.len();
        for waiter in waiting {
            let (hash, _) = waiter.wanted;
            // Once it is at hand, its file is found as soon as it is written.
            let may_come = self.engine.is_coming(&hash) || self.engine.is_at_hand(&hash);
            let answer = match self.seek(&waiter.path, &waiter.version) {
                Ok(Sought::Found(report)) => Ok(Reply::Content(report)),
                Ok(Sought::Elsewhere(..)) if may_come && waiter.deadline_ms > now => {
                    if !waiter.reply.is_closed() {
                        self.content_waiters.0.push(waiter);
                    }
                    continue;
                }
                Ok(Sought::Elsewhere(..)) => {
                    let message = format!(
                        "the bytes of version {} are not on this disk, and no connected master gave them: \
                         `pleach masters` shows who is away",
                        waiter.version
                    );
                    let refusal = Refusal::new(RefusalKind::Missing, message);
                    Err(refusal.at(waiter.path.clone()))
                }
                Err(refusal) => Err(refusal),
            };
            let _ = waiter.reply.send(answer);
        }
        if self.content_waiters.0.len() < before {
            self.want_to_read();
        }
    }

    /// Has fetched what somebody waits for: versions of conflicts are anyway, what they go back to is not.
    fn want_to_read(&mut self) {
        let wanted = self.content_waiters.0.iter().map(|waiter| waiter.wanted);
        let wanted: BTreeMap<ContentHash, u64> = wanted.collect();
        self.engine.want_former(self.clock.now(), FormerUse::Read, &wanted);
        self.perform_outputs();
    }

    fn seek(&self, path: &TreePath, version: &str) -> Result<Sought, Refusal> {
        let unfit = |message: &str| Refusal::new(RefusalKind::Unfit, message).at(path.clone());
        let open = self.open_at(path)?;
        let found = if version == "ancestor" {
            let ancestor =
                open.iter().find_map(|conflict| self.engine.replica().ancestor(conflict));
            ancestor.ok_or_else(|| unfit("what its versions go back to is not known"))?
        } else {
            let versions: Vec<&Version> = open.iter().flat_map(|open| &open.versions).collect();
            let stamp = stamp_of(path, &versions, version)?;
            let found = versions.into_iter().find(|version| version.stamp == stamp);
            found.cloned().ok_or_else(|| unfit("that version is gone"))?
        };
        if found.of == VersionOf::Deletion {
            return Err(unfit("that version is a deletion: it has no content"));
        }
        let about = Conflict { path: path.clone(), kind: open[0].kind, versions: vec![found] };
        let mut reports = self.report(&about).versions;
        let Some(report) = reports.pop() else {
            return Err(unfit("that version is gone"));
        };
        let (file, link) = match &about.versions[0].body {
            Body::Directory { .. } => return Err(unfit("it is a directory: it has no content")),
            Body::Symlink { target, .. } => (None, Some(target.as_bytes().to_vec())),
            Body::File(content) if content.size == 0 => (None, Some(Vec::new())),
            Body::File(content) => match self.file_with(&content.hash) {
                Some(file) => (Some(file), None),
                None => return Ok(Sought::Elsewhere(content.hash, content.size)),
            },
        };
        Ok(Sought::Found(Box::new(ContentReport { version: report, file, link })))
    }
}
