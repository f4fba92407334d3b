//! Power cuts: what the machine forgets, and what must be durable by when.

use std::collections::BTreeSet;

use pleach_core::replica::Replica;
use pleach_core::values::{Base, BaseEntry, BaseId, Body, Record};
use pleach_core::vocabulary::{ContentHash, Fingerprint, TreePath, WriterId};

use super::disk::Disk;
use super::driver::{Master, master_id};
use super::durable::Durable;
use super::oracle::key_of;
use super::properties::Property;
use super::world::World;

impl Master {
    /// Everything that runs ends, and the disk keeps what was durable, at least.
    fn lose_power(&mut self, random: &mut impl rand::Rng) {
        use rand::RngExt;
        self.kill();
        self.disk.cut_power(random);
        // Nobody synced the names of these. Those that are left are checked when they are asked for.
        self.durable.staged.retain(|_, _| random.random_range(0..2) == 0);
    }
}

impl World {
    pub(super) fn cut_power(&mut self, master: usize, down_us: u64) {
        self.trace.note(self.now_us, &[13, master as u64], || format!("{master} loses its power"));
        if self.masters[master].running.is_some() {
            self.kill(master);
        }
        self.programs.iter_mut().for_each(|program| program.end_with(master));
        let this = &mut self.masters[master];
        let late: Vec<_> = self.late.iter().filter(|(of, _)| *of == master).copied().collect();
        let before: Vec<_> =
            late.iter().map(|(_, key)| this.disk.bytes(*key).map(<[u8]>::to_vec)).collect();
        this.lose_power(&mut self.random);
        this.dark_until_us = self.now_us + down_us;
        for (late, before) in late.into_iter().zip(before) {
            if this.disk.bytes(late.1).map(<[u8]>::to_vec) != before {
                self.late.remove(&late);
            }
        }
        self.moved_us = self.now_us;
        let told = match told(&self.masters[master].durable) {
            Ok(told) => told,
            Err(error) => return self.fail(Property::Opens, error),
        };
        let this = &self.masters[master];
        let listing = this.disk.listing();
        let in_tree: BTreeSet<ContentHash> =
            listing.values().filter_map(|entry| key_of(&entry.body)).collect();
        let versions = this.disk.version_hashes();
        self.oracle.power_cut(master, |hash| {
            told.contains(hash) || in_tree.contains(hash) || versions.contains(hash)
        });
        // A copy of this disk may have what was destroyed, and is there again, destroyed all the same.
        if self.twins.is_none() && this.saved.is_none() {
            let is_back = |hash: &ContentHash| told.contains(hash) && in_tree.contains(hash);
            self.oracle.back_again(master, is_back);
        }
    }

    /// Records: what was found on the disk is made durable before, if it has to be.
    pub(super) fn record(&mut self, master: usize, records: Vec<Record>) {
        let this = &mut self.masters[master];
        this.settle(&records);
        let rows: Vec<BaseId> = records.iter().filter_map(row).collect();
        if !this.disk.has_journal() || rows.is_empty() {
            return this.durable.persist(records);
        }
        let before = base(&this.durable);
        this.durable.persist(records);
        let after = base(&this.durable);
        let undurable = match (before, after) {
            (Ok(before), Ok(after)) => {
                rows.into_iter().find_map(|id| undurable(&this.disk, &before, &after, id))
            }
            (Err(error), _) | (_, Err(error)) => return self.fail(Property::Opens, error),
        };
        if let Some(detail) = undurable {
            self.fail(Property::DurableBeforeRecorded, format!("master {master}: {detail}"));
        }
    }
}

/// The entry that a record is of; the root is always there.
fn row(record: &Record) -> Option<BaseId> {
    match record {
        Record::Base { id, .. } => Some(BaseId(*id)).filter(|&id| id != BaseId::ROOT),
        Record::Change(_) | Record::Mark(_) | Record::Intent { .. } => None,
    }
}

fn base(durable: &Durable) -> Result<Base, String> {
    let rows = durable.base.iter().map(|(&id, row)| (id, row.clone()));
    Base::load(rows).map_err(|error| error.to_string())
}

/// Where a base has an entry: under a name, in a directory of the disk or the root.
struct Place<'a> {
    path: TreePath,
    directory: Option<&'a Fingerprint>,
    entry: &'a BaseEntry,
}

impl<'a> Place<'a> {
    fn of(base: &'a Base, id: BaseId) -> Option<Self> {
        let (path, entry) = (base.path(id)?, base.entry(id)?);
        let is_root = entry.parent == BaseId::ROOT;
        let directory = base.entry(entry.parent).filter(|_| !is_root);
        Some(Self { path, directory: directory.map(|directory| &directory.fingerprint), entry })
    }

    /// What is there at least after a cut, in the directory that is recorded or the one that a user has put in its
    /// place. That may be elsewhere by then: to find it there is to find a rename, and what is recorded of the
    /// directory is looked at by itself.
    fn durable(&self, disk: &Disk) -> impl Iterator<Item = Fingerprint> {
        let shown = self.path.split_last().and_then(|(directory, _)| disk.stat(&directory));
        let directories: Vec<Option<Fingerprint>> = match self.directory {
            Some(recorded) => [*recorded].into_iter().chain(shown).map(Some).collect(),
            None => vec![None],
        };
        let name = self.entry.name.clone();
        directories.into_iter().filter_map(move |at| disk.durable(at.as_ref(), &name))
    }

    fn is_of(&self, other: &Self) -> bool {
        let (here, there) = (self.entry, other.entry);
        self.path == other.path || (here.parent, &here.name) == (there.parent, &there.name)
    }
}

/// What a power cut at this moment could take of what is recorded of an entry.
fn undurable(disk: &Disk, before: &Base, after: &Base, id: BaseId) -> Option<String> {
    let (was, is) = (Place::of(before, id), Place::of(after, id));
    // What was there before may have been elsewhere in between, and a cut may bring it back to there: to find
    // it there is to find the user's rename.
    let stays = was.as_ref().zip(is.as_ref()).is_some_and(|(was, is)| {
        was.is_of(is) && was.entry.fingerprint.same_object(&is.entry.fingerprint)
    });
    let taken =
        is.as_ref().and_then(|is| torn(disk, is).or_else(|| missing(disk, is).filter(|_| !stays)));
    taken.or_else(|| returning(disk, &was?, is.as_ref()))
}

/// The file has the bytes that are recorded, and a cut could take them.
fn torn(disk: &Disk, place: &Place) -> Option<String> {
    let Place { path, entry, .. } = place;
    let recorded = &entry.fingerprint;
    if let Body::File(content) = &entry.body
        && let Some((key, now)) = disk.find_object(recorded)
        && now.same_bytes(recorded)
        && disk.bytes(key).map(ContentHash::of) == Some(content.hash)
        && disk.durable_bytes(key).map(ContentHash::of) != Some(content.hash)
    {
        return Some(format!("the bytes of {path} are recorded, and could be lost"));
    }
    None
}

/// The entry is where it is recorded, and a cut could take it away.
fn missing(disk: &Disk, place: &Place) -> Option<String> {
    let Place { path, entry, .. } = place;
    let recorded = &entry.fingerprint;
    let same = |now: &Fingerprint| match entry.body {
        Body::Directory { .. } => recorded.same_object(now),
        Body::File(_) | Body::Symlink { .. } => recorded == now,
    };
    let shown = disk.stat(path).filter(same);
    let kept = place.durable(disk).any(|now| same(&now));
    (shown.is_some() && !kept).then(|| format!("{path} is recorded, and could be lost"))
}

/// The entry is recorded as no longer at a place, as it is on the disk, and a cut could bring it back.
fn returning(disk: &Disk, was: &Place, is: Option<&Place>) -> Option<String> {
    let stays = is.is_some_and(|is| was.is_of(is));
    let same = |now: &Fingerprint| was.entry.fingerprint.same_object(now);
    // Where it went with its directory, it is still in that.
    let moved_along = was.directory.and_then(|directory| disk.shown(directory, &was.entry.name));
    let is_there = disk.stat(&was.path).into_iter().chain(moved_along).any(|now| same(&now));
    let returns = was.durable(disk).any(|now| same(&now));
    (!stays && !is_there && returns)
        .then(|| format!("that {} is gone is recorded, and could be undone", was.path))
}

/// All contents that the recorded changes make the tree or a conflict hold.
pub(super) fn told(durable: &Durable) -> Result<BTreeSet<ContentHash>, String> {
    let replica = replica(durable)?;
    let mut told: BTreeSet<ContentHash> =
        replica.tree().entries().filter_map(|(_, entry)| key_of(&entry.body)).collect();
    let conflicts = replica.conflicts();
    let versions = conflicts.iter().flat_map(|conflict| &conflict.versions);
    told.extend(versions.filter_map(|version| key_of(&version.body)));
    Ok(told)
}

/// What the recorded changes amount to.
pub(super) fn replica(durable: &Durable) -> Result<Replica, String> {
    let writer = WriterId::new(master_id(0), [0; 8]);
    let (snapshot, from) = match &durable.snapshot {
        Some((bytes, position)) => (Some(bytes.as_slice()), *position),
        None => (None, 0),
    };
    let replica = Replica::open(writer, snapshot, durable.log[from..].to_vec());
    replica.map_err(|error| error.to_string())
}
