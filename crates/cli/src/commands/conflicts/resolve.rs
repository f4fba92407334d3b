//! `pleach conflicts resolve PATH... --keep …`: one, those that a pattern fits, or all.
//!
//! What is open is read first, and each conflict is settled only if it is still so: whatever somebody
//! settled or edited in between is said, and stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{Client, ClientError, PathText, Pick, RefusalKind, Reply, Request};
use serde::Serialize;

use super::{all, look, no_conflict};
use crate::arguments::Resolve;
use crate::asking::{daemon, follow};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::place;
use crate::render::Style;

/// What became of one path, for programs.
#[derive(Serialize)]
struct Outcome {
    path: PathText,
    kept: Pick,
    outcome: Fate,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    /// It is settled.
    Settled,
    /// It would be.
    WouldSettle,
    /// Nothing was open there, and that was all right.
    NothingOpen,
    /// It is as it was.
    Refused,
}

/// A store with what is open in it: the ids of the versions at each path.
struct Store {
    client: Client,
    /// Whether anything has been settled in it.
    settled: bool,
    open: BTreeMap<PathText, BTreeSet<String>>,
}

impl Store {
    fn of(root: &Path) -> Result<Self, Failure> {
        let mut store = Self { client: daemon(root)?, settled: false, open: BTreeMap::new() };
        store.read()?;
        Ok(store)
    }

    fn read(&mut self) -> Result<(), Failure> {
        self.open.clear();
        for conflict in all(&mut self.client)? {
            let ids = conflict.versions.into_iter().map(|version| version.id);
            self.open.entry(conflict.path).or_default().extend(ids);
        }
        Ok(())
    }

    /// Has the last saves of these files count.
    fn look(&mut self, paths: Vec<PathText>) -> Result<(), Failure> {
        look(&mut self.client, paths)?;
        self.read()
    }
}

pub(in crate::commands) fn resolve(asked: &Resolve, output: &Output) -> Result<Code, Failure> {
    let mut stores: BTreeMap<PathBuf, Store> = BTreeMap::new();
    let mut targets: Vec<(PathBuf, PathText)> = Vec::new();
    if asked.all {
        let root = place::root_of(None)?;
        let store = Store::of(&root)?;
        targets.extend(store.open.keys().map(|path| (root.clone(), path.clone())));
        stores.insert(root, store);
    }
    for path in &asked.paths {
        let (root, path) = place::path_in_store(path)?;
        if !stores.contains_key(&root) {
            stores.insert(root.clone(), Store::of(&root)?);
        }
        let named = named(&stores[&root], path, asked.force)?;
        targets.extend(named.into_iter().map(|path| (root.clone(), path)));
    }
    targets.sort();
    targets.dedup();
    if !asked.expect.is_empty() && targets.len() > 1 {
        let message = format!("--expect is about one conflict, and {} are named", targets.len());
        return Err(Failure::usage(message));
    }
    if asked.keep == Pick::Merged {
        for (root, store) in &mut stores {
            let of_store = targets.iter().filter(|(other, _)| other == root);
            store.look(of_store.map(|(_, path)| path.clone()).collect())?;
        }
    }
    let (mut outcomes, mut failures) = (Vec::new(), Vec::new());
    for (root, path) in targets {
        let Some(store) = stores.get_mut(&root) else { continue };
        let (outcome, failure) = settle(store, path, asked)?;
        outcomes.push(outcome);
        failures.extend(failure);
    }
    for store in stores.values_mut().filter(|store| store.settled) {
        follow(&mut store.client, "settled");
    }
    let some_left = failures.len() > 1;
    output.facts(&*outcomes, |outcomes, style| {
        outcomes.iter().map(|outcome| line(outcome, some_left, style)).collect()
    })?;
    let total = outcomes.len();
    match failures.len() {
        0 => Ok(Code::Done),
        1 => Err(failures.remove(0)),
        refused => Err(Failure::new(format!("{refused} of {total} were not settled"))),
    }
}

/// The conflicts that a path or a pattern names.
fn named(store: &Store, path: TreePath, force: bool) -> Result<Vec<PathText>, Failure> {
    let path = PathText(path);
    if store.open.contains_key(&path) {
        return Ok(vec![path]);
    }
    let Some(pattern) = pattern(&path.0)? else {
        return if force { Ok(vec![path]) } else { Err(no_conflict(&path.0)) };
    };
    let fits = |path: &&PathText| pattern.is_match(OsStr::from_bytes(&bytes(&path.0)));
    let fitting: Vec<PathText> = store.open.keys().filter(fits).cloned().collect();
    if fitting.is_empty() && !force {
        let failure = Failure::new(format!("{path}: no open conflict fits this pattern"));
        return Err(failure.next("pleach conflicts lists them"));
    }
    Ok(fitting)
}

/// The path as a pattern, if it has what makes one.
fn pattern(path: &TreePath) -> Result<Option<GlobMatcher>, Failure> {
    let bytes = bytes(path);
    let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| text.contains(['*', '?', '[']))
    else {
        return Ok(None);
    };
    match GlobBuilder::new(text).literal_separator(true).build() {
        Ok(glob) => Ok(Some(glob.compile_matcher())),
        Err(error) => Err(Failure::usage(format!("{path}: this is no pattern: {}", error.kind()))),
    }
}

fn bytes(path: &TreePath) -> Vec<u8> {
    path.names().iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/')
}

fn settle(
    store: &mut Store,
    path: PathText,
    asked: &Resolve,
) -> Result<(Outcome, Option<Failure>), Failure> {
    let known = store.open.get(&path).into_iter().flatten().cloned().collect::<Vec<_>>();
    let expect = match (asked.force, &*asked.expect) {
        (true, _) => None,
        (false, []) => Some(known),
        (false, expected) => Some(expected.to_vec()),
    };
    let (kept, dry_run) = (asked.keep.clone(), asked.dry_run);
    let request = Request::Resolve { path: path.clone(), choice: kept.clone(), expect, dry_run };
    let is_open = store.open.contains_key(&path);
    let (outcome, failure) = match store.client.call(request) {
        Ok(Reply::Done) if dry_run => (Fate::WouldSettle, None),
        Ok(Reply::Done) => (Fate::Settled, None),
        Err(ClientError::Refused(refusal)) => {
            let is_gone = refusal.kind == RefusalKind::NotFound && asked.force && !is_open;
            match is_gone {
                true => (Fate::NothingOpen, None),
                false => (Fate::Refused, Some(Failure::from(ClientError::Refused(refusal)))),
            }
        }
        Err(error) => return Err(error.into()),
        Ok(other) => {
            return Err(Failure::new(format!("the daemon answered something else: {other:?}")));
        }
    };
    store.settled |= outcome == Fate::Settled;
    let error = failure.as_ref().map(ToString::to_string);
    Ok((Outcome { path, kept, outcome, error }, failure))
}

/// What is told of a refusal that is not the only one, and so is not what the command ends with.
fn line(outcome: &Outcome, some_left: bool, style: Style) -> String {
    let path = &outcome.path;
    match (&outcome.outcome, &outcome.error) {
        (Fate::Settled, _) => format!("{} {path}\n", style.good("settled")),
        (Fate::WouldSettle, _) => format!("{} {path}\n", style.good("would settle")),
        (Fate::NothingOpen, _) => format!("nothing is open at {path}\n"),
        (Fate::Refused, Some(error)) if some_left => {
            format!("{} {error}\n", style.alarm("not settled:"))
        }
        (Fate::Refused, _) => String::new(),
    }
}
