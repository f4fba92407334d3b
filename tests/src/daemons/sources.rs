//! What test trees are made of: real source code, odd names, many small files; and the tools of users.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::{Ran, Tree, run};

/// Whether `PLEACH_LONG` asks for full sizes; otherwise tests are sized for a CI machine.
#[must_use]
pub fn long() -> bool {
    env::var_os("PLEACH_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether this machine has `program`; if not, says which test does without.
#[must_use]
pub fn have(program: &str) -> bool {
    let found = env::var_os("PATH").is_some_and(|path| {
        env::split_paths(&path).any(|directory| directory.join(program).is_file())
    });
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Writes a file, with the directories above it.
///
/// # Panics
///
/// When it can't.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    }
    fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Sets the mtime of a file, directory or link itself.
///
/// # Panics
///
/// When it can't.
pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Runs a line of shell in `directory`, as a user would.
///
/// # Panics
///
/// When it fails; the message has what it printed.
pub fn shell(directory: &Path, line: &str) -> Ran {
    let ran = run(Command::new("bash")
        .args(["-euo", "pipefail", "-c", line])
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        // Looking must not write: `git status` would refresh the index, on two masters at once.
        .env("GIT_OPTIONAL_LOCKS", "0"));
    assert!(ran.code == 0, "in {}: {line}\n{ran}", directory.display());
    ran
}

/// Runs git in `directory`, with an author and without anybody's configuration.
///
/// # Panics
///
/// When it fails.
pub fn git(directory: &Path, arguments: &str) -> Ran {
    let author = "-c user.name=Someone -c user.email=someone@example.org -c safe.directory='*'";
    shell(directory, &format!("git {author} -c gc.auto=0 {arguments}"))
}

/// Copies whole crates from cargo's cache into `directory` until it holds at least `files` files, all
/// as they are there. Without such a cache, writes small files instead. Returns how many there are.
///
/// # Panics
///
/// When the copy fails.
pub fn real_tree(directory: &Path, files: usize) -> usize {
    fs::create_dir_all(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut count = 0;
    for source in cached_crates() {
        if count >= files {
            break;
        }
        let ran = run(Command::new("cp").arg("-a").arg(&source).arg(directory));
        assert!(ran.code == 0, "{ran}");
        let copied = directory.join(source.file_name().unwrap_or_default());
        count += Tree::read(&copied).map_or(0, |tree| tree.file_count());
    }
    if count < files {
        small_files(&directory.join("small"), files - count, 4096);
        count = files;
    }
    count
}

fn cached_crates() -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let Some(registry) = home.map(|home| home.join("registry/src")) else {
        return Vec::new();
    };
    let list = |directory: &Path| -> Vec<PathBuf> {
        let Ok(listing) = fs::read_dir(directory) else { return Vec::new() };
        listing.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let mut crates: Vec<_> = list(&registry).iter().flat_map(|index| list(index)).collect();
    crates.sort();
    crates
}

/// Writes `count` files of `size` bytes, different from each other, 100 to a directory.
///
/// # Panics
///
/// When it can't.
pub fn small_files(directory: &Path, count: usize, size: usize) {
    for number in 0..count {
        let mut bytes = vec![0; size];
        blake3::Hasher::new()
            .update(directory.as_os_str().as_bytes())
            .update(&number.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        write(&directory.join(format!("{:03}/{number:05}", number / 100)), bytes);
    }
}

/// Makes one of everything that a tree may hold: names that are no UTF-8, that shells and terminals
/// choke on, of 255 bytes; links that lead nowhere, up and in circles; empty directories; odd modes;
/// times before 1970 and far ahead; equal files; depth.
///
/// # Panics
///
/// When the file system refuses one of them.
pub fn odd_tree(directory: &Path) {
    let at = |name: &[u8]| directory.join(OsStr::from_bytes(name));
    let names: [&[u8]; 12] = [
        b"\xff\xfe not utf-8",
        b"new\nline",
        b"-rf",
        b" ",
        b"tab\there",
        b"esc\x1b[31m",
        b"back\\slash",
        "umlaut \u{e4}".as_bytes(),
        "umlaut a\u{308}".as_bytes(),
        b"star*?[]{}$`'\"",
        b".hidden",
        b"COM1 ",
    ];
    for name in names {
        write(&at(name), name);
    }
    write(&at(&[b'n'; 255]), "the longest name");
    write(&at(b"empty"), "");
    write(&at(b"twin 1"), "equal bytes");
    write(&at(b"twin 2"), "equal bytes");
    for (name, mode) in [("0400", 0o400), ("0755", 0o755), ("0606", 0o606), ("0444", 0o444)] {
        write(&at(name.as_bytes()), name);
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(at(name.as_bytes()), permissions).expect("a mode can be set");
    }
    let links: [(&str, &[u8]); 6] = [
        ("nowhere", b"no/such/file"),
        ("up", b"../../.."),
        ("circle", b"circle"),
        ("absolute", b"/etc/passwd"),
        ("odd", b"\xff\n"),
        ("to directory", b"deep"),
    ];
    for (name, target) in links {
        symlink(OsStr::from_bytes(target), at(name.as_bytes())).expect("a link can be made");
    }
    fs::create_dir_all(at(b"empty directory/inside")).expect("a directory can be made");
    let deep = ["d"; 200].join("/");
    write(&at(b"deep").join(deep).join("bottom"), "far down");
    for (name, seconds) in [("old", -86_400), ("new", 4_102_444_800)] {
        write(&at(name.as_bytes()), name);
        set_mtime(&at(name.as_bytes()), seconds, 123_456_789);
    }
    fs::create_dir(at(b"private")).expect("a directory can be made");
    fs::set_permissions(at(b"private"), fs::Permissions::from_mode(0o700)).expect("a mode");
    set_mtime(&at(b"nowhere"), 1_000_000_000, 1);
    set_mtime(&at(b"empty directory"), 1_000_000_000, 999_999_999);
}

/// Gives everything below `directory` new content: a line more for each file.
///
/// # Panics
///
/// When it can't.
pub fn touch_all(directory: &Path, line: &str) {
    shell(
        directory,
        &format!("find . -type f -print0 | xargs -0 -n1 sh -c 'echo {line} >> \"$0\"'"),
    );
}
