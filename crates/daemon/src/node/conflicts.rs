//! Answers about conflicts: which are open, and how one is settled.

use pleach_core::replica::{NotMerged, ResolveError};
use pleach_core::values::{Body, Choice, Conflict, Version, VersionOf};
use pleach_core::vocabulary::{Stamp, TreePath};

use super::driver::Driver;
use crate::control::{ConflictReport, Pick, Refusal, RefusalKind, Reply, full_version_id};

impl Driver {
    pub(super) fn conflicts(&self) -> Vec<ConflictReport> {
        self.engine.replica().conflicts().iter().map(|conflict| self.report(conflict)).collect()
    }

    /// The conflicts at a path, with what they go back to.
    pub(super) fn conflicts_at(&self, path: &TreePath) -> Result<Vec<ConflictReport>, Refusal> {
        let full = |conflict: &Conflict| {
            let ancestor = self.engine.replica().ancestor(conflict);
            let label = |master| self.label(master);
            let mut report =
                self.report(conflict).with_ancestor(conflict, ancestor.as_ref(), label);
            self.tell_siblings(&mut report, conflict);
            for (told, version) in report.versions.iter_mut().zip(&conflict.versions) {
                told.here = (version.of == VersionOf::Content).then(|| self.is_here(&version.body));
            }
            if let (Some(told), Some(ancestor)) = (&mut report.ancestor, &ancestor) {
                told.here = Some(self.is_here(&ancestor.body));
            }
            report
        };
        Ok(self.open_at(path)?.iter().map(full).collect())
    }

    pub(super) fn report(&self, conflict: &Conflict) -> ConflictReport {
        let opened_ms = self.engine.conflict_opened_ms(&conflict.path);
        let mut report = ConflictReport::new(conflict, opened_ms, |master| self.label(master));
        self.tell_siblings(&mut report, conflict);
        report
    }

    /// By which files the versions are shown beside the path.
    fn tell_siblings(&self, report: &mut ConflictReport, conflict: &Conflict) {
        let tree = self.engine.replica().tree();
        let Some(standing) = conflict.standing().map(|version| version.node) else { return };
        for (told, version) in report.versions.iter_mut().zip(&conflict.versions) {
            if version.of == VersionOf::Content && !version.stands {
                let sibling = tree.sibling_with(standing, &version.body);
                told.sibling = sibling.and_then(|sibling| tree.path(sibling)).map(Into::into);
            }
        }
    }

    pub(super) fn open_at(&self, path: &TreePath) -> Result<Vec<Conflict>, Refusal> {
        let replica = self.engine.replica();
        let node = replica.tree().lookup(path);
        let open = node.map(|node| replica.conflicts_at(node)).unwrap_or_default();
        if open.is_empty() {
            let message = "no conflict is open there: `pleach conflicts` lists them";
            return Err(Refusal::new(RefusalKind::NotFound, message).at(path.clone()));
        }
        Ok(open)
    }

    fn is_here(&self, body: &Body) -> bool {
        match body {
            Body::File(content) => content.size == 0 || self.file_with(&content.hash).is_some(),
            Body::Symlink { .. } | Body::Directory { .. } => true,
        }
    }

    pub(super) fn settle(&mut self, path: &TreePath, choice: &Choice) -> Result<Reply, Refusal> {
        let now = self.clock.now();
        let settled = self.engine.resolve(now, path, choice);
        settled.map(|()| Reply::Done).map_err(|error| refusal(path, &error))
    }

    /// Whether it could be settled so; nothing is.
    pub(super) fn could_settle(
        &mut self,
        path: &TreePath,
        choice: &Choice,
    ) -> Result<Reply, Refusal> {
        let possible = self.engine.could_resolve(path, choice);
        possible.map(|()| Reply::Done).map_err(|error| refusal(path, &error))
    }

    /// The choice that a person means, if what is open there is what that person knows of.
    pub(super) fn choice(
        &self,
        path: &TreePath,
        pick: &Pick,
        expect: Option<&[String]>,
    ) -> Result<Choice, Refusal> {
        let open = self.open_at(path)?;
        let versions: Vec<&Version> = open.iter().flat_map(|open| &open.versions).collect();
        let me = self.facts.key.master();
        // Who keeps what he has saved a moment ago can't know its id.
        let is_saved = |version: &&&Version| {
            *pick == Pick::Merged && version.stands && version.master == Some(me)
        };
        let saved = versions.iter().find(is_saved).map(|version| version.stamp);
        if let Some(expected) = expect {
            check_expected(path, &versions, expected, saved)?;
        }
        let newest = |ours: bool| {
            let of = versions.iter().filter(|version| (version.master == Some(me)) == ours);
            of.map(|version| version.stamp).max()
        };
        let (stamp, whose) = match pick {
            Pick::Both => return Ok(Choice::KeepBoth),
            Pick::Version(id) => return Ok(Choice::Keep(stamp_of(path, &versions, id)?)),
            Pick::Merged => return self.merged(path).map(Choice::Keep),
            Pick::Ours => (newest(true), "this master wrote none of the versions"),
            Pick::Theirs => (newest(false), "only this master wrote the versions"),
        };
        let message = format!("{whose}: `pleach conflicts show` lists them");
        let none = || Refusal::new(RefusalKind::NotFound, message).at(path.clone());
        stamp.map(Choice::Keep).ok_or_else(none)
    }

    /// What stands at the path, if somebody has edited it since the others were open, and this disk has that.
    fn merged(&self, path: &TreePath) -> Result<Stamp, Refusal> {
        let replica = self.engine.replica();
        let merged = replica.merged(path).map_err(|error| {
            let (kind, message) = match error {
                NotMerged::NothingToMerge(_) => {
                    let message = "what is open there are no versions of a file: keep one of them";
                    (RefusalKind::Unfit, message.to_owned())
                }
                NotMerged::NotEdited { unseen, .. } => {
                    let ids = unseen.into_iter().map(full_version_id);
                    let ids: Vec<String> = ids.map(|id| id.chars().take(8).collect()).collect();
                    let message = format!(
                        "nobody has edited it since {} came: put into the file what it is to hold, \
                         or keep one version",
                        ids.join(", ")
                    );
                    (RefusalKind::Changed, message)
                }
            };
            Refusal::new(kind, message).at(path.clone())
        })?;
        let stands = replica.tree().lookup(path).and_then(|node| replica.tree().body(node));
        let base = self.engine.base();
        let on_disk = base.find(path).and_then(|id| base.entry(id)).map(|entry| &entry.body);
        match (stands, on_disk) {
            (Some(stands), Some(on_disk)) if stands.same_bytes(on_disk) => Ok(merged),
            _ => {
                let message = "what stands is not on this disk yet: try again in a moment, or see what \
                               `pleach status` says";
                Err(Refusal::new(RefusalKind::Busy, message).at(path.clone()))
            }
        }
    }
}

fn refusal(path: &TreePath, error: &ResolveError) -> Refusal {
    let kind = match error {
        ResolveError::DirectoryStands(_)
        | ResolveError::TooMuch(_)
        | ResolveError::InsideItself(_) => RefusalKind::Unfit,
        ResolveError::NoSuchPath(_)
        | ResolveError::NoConflict(_)
        | ResolveError::NoSuchVersion { .. } => RefusalKind::NotFound,
    };
    Refusal::new(kind, error.to_string()).at(path.clone())
}

/// The only version whose id begins so.
pub(super) fn stamp_of(path: &TreePath, versions: &[&Version], id: &str) -> Result<Stamp, Refusal> {
    let all = versions.iter().map(|version| version.stamp);
    let mut fitting: Vec<Stamp> =
        all.filter(|stamp| full_version_id(*stamp).starts_with(id)).collect();
    fitting.sort();
    fitting.dedup();
    let refuse = |kind, message: String| Err(Refusal::new(kind, message).at(path.clone()));
    match fitting[..] {
        [stamp] => Ok(stamp),
        [] => {
            let message =
                format!("no version {id} is open there: `pleach conflicts show` lists them");
            refuse(RefusalKind::NotFound, message)
        }
        _ => {
            let message = format!("{id} fits {} versions: name more digits", fitting.len());
            refuse(RefusalKind::Ambiguous, message)
        }
    }
}

/// Whether the open versions are those that somebody knows of, all of them and no others. What that person
/// has `saved` may be there in place of one of them.
fn check_expected(
    path: &TreePath,
    versions: &[&Version],
    expected: &[String],
    saved: Option<Stamp>,
) -> Result<(), Refusal> {
    let fits = |known: &String, stamp| full_version_id(stamp).starts_with(known.as_str());
    let is_known = |stamp| expected.iter().any(|known| fits(known, stamp));
    let is_open = |known| versions.iter().any(|version| fits(known, version.stamp));
    let stamps = versions.iter().map(|version| version.stamp);
    let new = stamps.filter(|&stamp| !is_known(stamp) && Some(stamp) != saved).count();
    let replaced = usize::from(saved.is_some_and(|saved| !is_known(saved)));
    let gone = expected.iter().filter(|&known| !is_open(known)).count().saturating_sub(replaced);
    if new == 0 && gone == 0 {
        return Ok(());
    }
    let message = format!(
        "it is not as it was: somebody has edited or settled it meanwhile ({new} versions are new, {gone} \
         are gone): look again, `pleach conflicts show` does"
    );
    Err(Refusal::new(RefusalKind::Changed, message).at(path.clone()))
}
