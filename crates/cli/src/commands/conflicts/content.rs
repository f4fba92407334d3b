//! `pleach conflicts show PATH --content VERSION`: the bytes of one version.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{
    Client, ClientError, ContentReport, PathText, Refusal, RefusalKind, Reply, Request,
};
use rustix::fs::{Mode, OFlags};

use crate::asking::daemon;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::place;

/// What the versions go back to, as a version is called.
pub(super) const ANCESTOR: &str = "ancestor";

/// How much is read at once.
const PIECE_BYTES: usize = 1 << 18;

/// How often a file is looked for that is being replaced or put aside just now, and how often in that time.
const TRIES_MAX: u32 = 50;
const TRIED_EVERY: Duration = Duration::from_millis(50);

pub(in crate::commands) fn content(
    path: &Path,
    version: &str,
    output: &Output,
) -> Result<Code, Failure> {
    if !output.is_text() {
        return Err(Failure::usage("--content prints the bytes of a version, which are no JSON")
            .next("leave out one of --json and --content"));
    }
    let (root, tree_path) = place::path_in_store(path)?;
    let mut client = daemon(&root)?;
    let mut content = Content::of(&mut client, &root, &tree_path, version)?;
    let mut stdout = io::stdout().lock();
    match content.copy_to(&mut stdout).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(Failure::nobody_reads()),
        Err(e) => Err(Failure::new(format!("{tree_path}: version {version}: {e}"))),
        Ok(()) => Ok(Code::Done),
    }
}

/// The bytes of a version, checked: they were its bytes a moment ago.
pub(super) enum Content {
    File(File),
    Bytes(Vec<u8>),
}

impl Content {
    /// Asks the daemon, which gets them from another master if they are not here.
    pub(super) fn of(
        client: &mut Client,
        root: &Path,
        path: &TreePath,
        version: &str,
    ) -> Result<Self, Failure> {
        let sought = Self::sought(client, root, path, version)?;
        sought.map_err(|refusal| ClientError::Refused(refusal).into())
    }

    /// The same; a refusal if no connected master has them.
    pub(super) fn sought(
        client: &mut Client,
        root: &Path,
        path: &TreePath,
        version: &str,
    ) -> Result<Result<Self, Refusal>, Failure> {
        let mut tries = TRIES_MAX;
        loop {
            let request = Request::Content { path: PathText(path.clone()), id: version.to_owned() };
            let report = match client.call(request) {
                Ok(Reply::Content(report)) => *report,
                Ok(_) => return Err(super::other_answer()),
                Err(ClientError::Refused(refusal)) if refusal.kind == RefusalKind::Missing => {
                    return Ok(Err(refusal));
                }
                Err(error) => return Err(error.into()),
            };
            let ContentReport { version, file, link } = report;
            let Some(at) = file else { return Ok(Ok(Self::Bytes(link.unwrap_or_default()))) };
            let wrong = match checked(root, &at, version.hash.as_deref()) {
                Ok(Some(file)) => return Ok(Ok(Self::File(file))),
                Ok(None) => "its bytes are being replaced".to_owned(),
                Err(error) => error.to_string(),
            };
            // It was moved on between the answer and the look.
            tries -= 1;
            if tries == 0 {
                let message = format!("{path}: version {} was in {at}: {wrong}", version.id);
                return Err(Failure::new(message).next("try again in a moment"));
            }
            std::thread::park_timeout(TRIED_EVERY);
        }
    }

    /// Writes all of it out, however large.
    pub(super) fn copy_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::File(file) => {
                let mut piece = vec![0; PIECE_BYTES];
                loop {
                    match file.read(&mut piece)? {
                        0 => return Ok(()),
                        length => out.write_all(&piece[..length])?,
                    }
                }
            }
        }
    }
}

/// The file, if it has these bytes.
fn checked(root: &Path, at: &PathText, hash_wanted: Option<&str>) -> io::Result<Option<File>> {
    let mut place = root.to_owned();
    place.extend(at.0.names().iter().map(|name| OsStr::from_bytes(name.as_bytes())));
    let mut file = open(&place)?;
    let is_right = Some(&*hash(&mut file)?) == hash_wanted;
    file.rewind()?;
    Ok(is_right.then_some(file))
}

/// Opens a regular file. What has come in its place since it was named, a link or a FIFO, is none.
pub(super) fn open(place: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(place, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file any more")),
    }
}

/// BLAKE3 of all that is left to read, in hexadecimal digits.
pub(super) fn hash(file: &mut File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(hasher.finalize().to_hex().to_string())
}
