//! Where a store is, and what a path names in it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use pleach_core::vocabulary::TreePath;
use pleach_daemon::store;

use crate::failure::Failure;

/// The root of the store that holds `dir`, or the current directory.
pub(crate) fn root_of(dir: Option<&Path>) -> Result<PathBuf, Failure> {
    let dir = dir.unwrap_or(Path::new("."));
    let absolute = match dir.canonicalize() {
        Ok(absolute) => absolute,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!("{} does not exist", dir.display())));
        }
        Err(e) => return Err(Failure::new(format!("cannot open {}: {e}", dir.display()))),
    };
    store::find(&absolute).ok_or_else(|| not_in_a_store(&absolute))
}

/// The store that `path` is in, and what it names there. It need not exist any more.
///
/// As with every ordinary path, links on the way are followed and the last component is not.
pub(crate) fn path_in_store(path: &Path) -> Result<(PathBuf, TreePath), Failure> {
    let absolute = resolved(path)?;
    let root = store::find(&absolute).ok_or_else(|| not_in_a_store(path))?;
    let below = absolute.strip_prefix(&root).unwrap_or(Path::new(""));
    let tree_path = TreePath::parse(below.as_os_str().as_bytes())
        .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    Ok((root, tree_path))
}

fn not_in_a_store(path: &Path) -> Failure {
    Failure::usage(format!("{} is not in a store", path.display()))
        .next("name a directory that is, or make it one: pleach init DIR, pleach join DIR TICKET")
}

/// The absolute path whose directories, as far as they exist, are no links.
fn resolved(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |e: io::Error| Failure::new(format!("cannot open {}: {e}", path.display()));
    let absolute = std::path::absolute(path).map_err(failed)?;
    let mut missing: Vec<&OsStr> = Vec::new();
    let mut at = absolute.as_path();
    // The last component stays as it is, unless it is none (`..`, or the root of everything).
    if let (Some(parent), Some(Component::Normal(last))) =
        (at.parent(), at.components().next_back())
    {
        missing.push(last);
        at = parent;
    }
    loop {
        match at.canonicalize() {
            Ok(mut found) => {
                for name in missing.iter().rev() {
                    match name.as_bytes() {
                        b".." => _ = found.pop(),
                        _ => found.push(name),
                    }
                }
                return Ok(found);
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                let (Some(parent), Some(last)) = (at.parent(), at.components().next_back()) else {
                    return Err(failed(e));
                };
                missing.push(last.as_os_str());
                at = parent;
            }
            Err(e) => return Err(failed(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_resolved_and_the_last_component_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(top.join("real/deep")).unwrap();
        std::os::unix::fs::symlink("real", top.join("link")).unwrap();
        for (given, expected) in [
            ("link/deep/f", "real/deep/f"),
            ("link", "link"),
            ("link/gone/f", "real/gone/f"),
            ("link/gone/../f", "real/f"),
            ("real/./deep/../g", "real/g"),
            ("real/deep/..", "real"),
        ] {
            assert_eq!(resolved(&top.join(given)).unwrap(), top.join(expected), "{given}");
        }
    }
}
