//! A store in a directory: found, made, joined, opened.

use std::path::{Path, PathBuf};

/// The name of the state database below `.pleach`.
pub const STATE_FILE: &str = "state.db";

/// The store that `path` is in or is: the nearest directory upwards with a state of ours in it.
#[must_use]
pub fn find(path: &Path) -> Option<PathBuf> {
    path.ancestors().find(|above| is_store(above)).map(Path::to_path_buf)
}

/// Where the state database of the store in `root` is.
#[must_use]
pub fn state_path(root: &Path) -> PathBuf {
    root.join(".pleach").join(STATE_FILE)
}

fn is_store(dir: &Path) -> bool {
    dir.join(".pleach").join("incarnation").symlink_metadata().is_ok()
}
