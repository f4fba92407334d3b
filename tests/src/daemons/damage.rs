//! Damage to what a master keeps in `.pleach`: what rotten disks, lost writes and careless hands do.
//!
//! Lacks damage to the tree itself: that is a user's act, or bit rot, which `verify` finds.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt};

/// The size of a page of SQLite's, and of a file system's block.
const PAGE_BYTES: u64 = 4096;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DamageKind {
    /// 1 to 64 bytes have some bits flipped.
    Flipped,
    /// 1 to 4 pages are zero.
    Zeroed,
    /// 1 to 4 pages are noise.
    Noise,
    /// 1 to 8 pages are as they were in an older copy: writes that the disk acknowledged and lost.
    Stale,
    /// The end is missing.
    Truncated,
    /// It is not there.
    Removed,
}

/// Something that was done to a file below `.pleach`.
#[derive(Clone, Debug)]
pub struct Damage {
    /// The file, below `.pleach`.
    pub file: PathBuf,
    /// What was done to it.
    pub kind: DamageKind,
}

impl Damage {
    /// Damages something in `state`, a `.pleach` that no daemon has open: most often the database, of which
    /// `older` is an earlier copy.
    ///
    /// # Errors
    /// If the disk will not have it.
    pub fn inflict(state: &Path, older: &[u8], random: &mut impl Rng) -> io::Result<Self> {
        let file = victim(state, random)?;
        let is_database = file == Path::new("state.db");
        let kind = match random.random_range(0..16) {
            0..=6 => DamageKind::Flipped,
            7..=8 => DamageKind::Zeroed,
            9 => DamageKind::Noise,
            10..=12 if is_database && !older.is_empty() => DamageKind::Stale,
            10..=13 => DamageKind::Truncated,
            14 => DamageKind::Removed,
            _ => DamageKind::Zeroed,
        };
        Self::inflict_on(state, file, kind, older, random)
    }

    /// Damages the database of a daemon that runs: its size stays.
    ///
    /// # Errors
    /// If the disk will not have it.
    pub fn inflict_live(state: &Path, random: &mut impl Rng) -> io::Result<Self> {
        let kinds = [DamageKind::Flipped, DamageKind::Zeroed, DamageKind::Noise];
        let files = ["state.db", "state.db-wal"];
        let (kind, file) = (random.random_range(0..3), usize::from(random.random_bool(0.3)));
        Self::inflict_on(state, files[file].into(), kinds[kind], &[], random)
    }

    fn inflict_on(
        state: &Path,
        file: PathBuf,
        kind: DamageKind,
        older: &[u8],
        random: &mut impl Rng,
    ) -> io::Result<Self> {
        let path = state.join(&file);
        let (size, modified) = (path.metadata()?.len(), path.metadata()?.modified()?);
        match kind {
            DamageKind::Removed => fs::remove_file(&path)?,
            DamageKind::Truncated => {
                let mut left = random.random_range(0..size.max(1));
                if random.random_bool(0.5) {
                    left -= left % PAGE_BYTES;
                }
                File::options().write(true).open(&path)?.set_len(left)?;
            }
            _ if size == 0 => {}
            DamageKind::Flipped => flip(&path, size, random)?,
            _ => overwrite(&path, size, kind, older, random)?,
        }
        if kind != DamageKind::Removed {
            // Who writes leaves a time; a disk that rots does not.
            File::options().write(true).open(&path)?.set_modified(modified)?;
        }
        Ok(Self { file, kind })
    }
}

fn flip(path: &Path, size: u64, random: &mut impl Rng) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    // Half of the time close to each other.
    let start = random.random_range(0..size);
    let reach = if random.random_bool(0.5) { size } else { 64 };
    for _ in 0..1_u32 << random.random_range(0..7) {
        let offset = (start + random.random_range(0..reach)) % size;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        byte[0] ^= random.random_range(1..=255_u8);
        file.write_all_at(&byte, offset)?;
    }
    Ok(())
}

fn overwrite(
    path: &Path,
    size: u64,
    kind: DamageKind,
    older: &[u8],
    random: &mut impl Rng,
) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let pages_max = if kind == DamageKind::Stale { 8 } else { 4 };
    for _ in 0..random.random_range(1..=pages_max) {
        let start = random.random_range(0..size.div_ceil(PAGE_BYTES)) * PAGE_BYTES;
        let end = size.min(start + PAGE_BYTES);
        let mut page = vec![0; (end - start) as usize];
        match kind {
            DamageKind::Noise => random.fill_bytes(&mut page),
            DamageKind::Stale => match older.get(start as usize..end as usize) {
                Some(before) => page.copy_from_slice(before),
                None => continue,
            },
            _ => {}
        }
        file.write_all_at(&page, start)?;
    }
    Ok(())
}

/// A file of the state: the database in two cases of three, its write-ahead log if there is one.
fn victim(state: &Path, random: &mut impl Rng) -> io::Result<PathBuf> {
    let wal = PathBuf::from("state.db-wal");
    match random.random_range(0..12) {
        0..=6 => return Ok("state.db".into()),
        7..=8 if state.join(&wal).metadata().is_ok_and(|wal| wal.len() > 0) => return Ok(wal),
        _ => {}
    }
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(state.join(&directory))? {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            match entry.file_type()? {
                kind if kind.is_dir() => directories.push(path),
                kind if kind.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    // Of the versions one for each file elsewhere, or they would be most of it.
    let few = files.iter().filter(|file| !file.starts_with("versions")).count();
    let versions = files.len() - few;
    let at = random.random_range(0..few + versions.min(3));
    files.sort_by_key(|file| file.starts_with("versions"));
    Ok(files.swap_remove(if at < few { at } else { few + random.random_range(0..versions) }))
}
