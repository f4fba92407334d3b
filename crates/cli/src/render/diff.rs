//! Differences between two versions, line by line, as `diff -u` has them.

use std::time::Duration;

use pleach_core::values::ConflictKind;
use pleach_daemon::control::{ConflictReport, VersionReport};
use similar::{Algorithm, TextDiff};

use super::Style;
use super::conflicts::{author, happened};
use super::units::{date_time, size};

/// How far a text is looked into for what no text has, as git does.
const LOOKED_INTO_BYTES: usize = 8_000;

/// After this the rest of two texts is taken to differ as a whole.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many equal lines are shown around what differs.
const CONTEXT_LINES: usize = 3;

/// One of two versions that are compared.
#[derive(Debug)]
pub(crate) struct Side {
    label: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Text(Vec<u8>),
    /// Of so many bytes, which are no text.
    Binary(u64),
    /// Of so many bytes: too many to compare.
    Large(u64),
}

/// How two versions differ.
#[derive(Debug)]
pub(crate) enum DiffText {
    /// A unified diff.
    Unified(Vec<u8>),
    /// One of them can't be compared line by line: why.
    Remark(String),
}

/// What a line of a diff is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// It names a side.
    Head,
    Added,
    Removed,
    /// It says where the next lines are.
    Place,
    Same,
}

impl Side {
    pub(crate) fn of(label: String, bytes: Vec<u8>) -> Self {
        let is_binary = bytes.iter().take(LOOKED_INTO_BYTES).any(|&byte| byte == 0);
        let length = bytes.len() as u64;
        let bytes = if is_binary { Bytes::Binary(length) } else { Bytes::Text(bytes) };
        Self { label, bytes }
    }

    pub(crate) fn large(label: String, length: u64) -> Self {
        Self { label, bytes: Bytes::Large(length) }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn text(&self) -> Option<&[u8]> {
        match &self.bytes {
            Bytes::Text(bytes) => Some(bytes),
            Bytes::Binary(_) | Bytes::Large(_) => None,
        }
    }

    fn described(&self) -> String {
        let what = match self.bytes {
            Bytes::Text(ref bytes) => format!("text, {}", size(bytes.len() as u64)),
            Bytes::Binary(length) => format!("binary, {}", size(length)),
            Bytes::Large(length) => format!("too large to compare, {}", size(length)),
        };
        format!("{} ({what})", self.label)
    }
}

impl DiffText {
    pub(crate) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Unified(text) => Some(text),
            Self::Remark(_) => None,
        }
    }
}

/// What a version is called at the head of a diff.
pub(crate) fn side_label(version: &VersionReport, name: &str) -> String {
    let when = date_time(version.written_ms.unwrap_or(version.modified_ms));
    format!("{name} {} {when}", author(version))
}

/// What is said where nobody has the bytes that all versions go back to, and what is done then.
pub(crate) fn lost_ancestor(version: &VersionReport, then: &str) -> String {
    let (who, size) = (side_label(version, "by"), size(version.size.unwrap_or(0)));
    format!("what they go back to, {who}, {size}, is on no connected master: {then}\n")
}

/// What was changed from one to the other.
pub(crate) fn unified(from: &Side, to: &Side) -> DiffText {
    let (Bytes::Text(old), Bytes::Text(new)) = (&from.bytes, &to.bytes) else {
        return DiffText::Remark(format!("{} and {} differ\n", from.described(), to.described()));
    };
    let diff = compared(old, new);
    let mut text = Vec::new();
    let mut diff = diff.unified_diff();
    let mut written = Ok(());
    for hunk in diff.context_radius(CONTEXT_LINES).iter_hunks() {
        if text.is_empty() {
            text = format!("--- {}\n+++ {}\n", from.label, to.label).into_bytes();
        }
        // A whole diff would be written as text, and lose what is in no encoding.
        written = written.and_then(|()| hunk.to_writer(&mut text));
    }
    match written {
        Ok(()) => DiffText::Unified(text),
        Err(error) => DiffText::Remark(format!("{}: {error}\n", to.label)),
    }
}

/// Two texts, compared line by line.
pub(super) fn compared<'a>(old: &'a [u8], new: &'a [u8]) -> TextDiff<'a, 'a, 'a, [u8]> {
    TextDiff::configure().algorithm(Algorithm::Patience).timeout(PATIENCE).diff_lines(old, new)
}

/// A diff as it is printed: in colours where those are shown; on a terminal without what would steer it.
pub(crate) fn diff(diff: &DiffText, style: Style, terminal: bool) -> Vec<u8> {
    let text = match diff {
        DiffText::Remark(remark) => return remark.clone().into_bytes(),
        DiffText::Unified(text) => text,
    };
    if !terminal {
        return text.clone();
    }
    let line = |line: &[u8]| match line_of(line) {
        (LineKind::Head, line) => style.bold(line),
        (LineKind::Added, line) => style.good(line),
        (LineKind::Removed, line) => style.bad(line),
        (LineKind::Place, line) => style.dim(line),
        (LineKind::Same, line) => line,
    };
    let lines: Vec<String> = text.split(|byte| *byte == b'\n').map(line).collect();
    lines.join("\n").into_bytes()
}

/// The lines of a diff, without what would steer a terminal.
pub(crate) fn diff_lines(diff: &DiffText) -> Vec<(LineKind, String)> {
    match diff {
        DiffText::Remark(remark) => {
            remark.lines().map(|line| (LineKind::Same, line.to_owned())).collect()
        }
        DiffText::Unified(text) => {
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            text.split(|byte| *byte == b'\n').map(line_of).collect()
        }
    }
}

fn line_of(line: &[u8]) -> (LineKind, String) {
    let line = harmless(&String::from_utf8_lossy(line));
    let kind = match line.as_bytes() {
        [b'+', b'+', b'+', b' ', ..] | [b'-', b'-', b'-', b' ', ..] => LineKind::Head,
        [b'+', ..] => LineKind::Added,
        [b'-', ..] => LineKind::Removed,
        [b'@', ..] => LineKind::Place,
        _ => LineKind::Same,
    };
    (kind, line)
}

/// Without escape sequences and the like.
fn harmless(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\t' => vec![letter],
        letter if letter.is_control() => letter.escape_default().collect(),
        letter => vec![letter],
    };
    text.chars().flat_map(shown).collect()
}

/// What is said of a conflict, or of a part of one, that is not about lines.
pub(crate) fn no_diff(conflict: &ConflictReport) -> String {
    let path = &conflict.path;
    let places = conflict.versions.iter().filter_map(|version| version.elsewhere.as_ref());
    let places: Vec<String> = places.map(ToString::to_string).collect();
    let what = happened(conflict);
    match conflict.kind {
        ConflictKind::MovedTwice | ConflictKind::MovedIntoEachOther => {
            format!("{path}: {what}, nothing in it differs: {}\n", places.join(", "))
        }
        ConflictKind::DeletedAndEdited => {
            let who = conflict.versions.iter().filter(|version| !version.stands);
            let who: Vec<_> = who.map(author).collect();
            format!("{path}: {what}: {} deleted it\n", who.join(", "))
        }
        ConflictKind::Edited | ConflictKind::SameName => {
            format!("{path}: {what}, and a directory has no lines to compare\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, bytes: &[u8]) -> Side {
        Side::of(name.to_owned(), bytes.to_vec())
    }

    #[test]
    fn lines_are_compared_and_bytes_stay_as_they_are() {
        let compared = unified(&text("a", b"1\n\xff\n3\n"), &text("b", b"1\n\xfe\n3"));
        let expected = b"--- a\n+++ b\n@@ -1,3 +1,3 @@\n 1\n-\xff\n-3\n+\xfe\n+3\n\\ No newline at end of file\n";
        assert_eq!(compared.text(), Some(&expected[..]), "{compared:?}");
        assert_eq!(diff(&compared, Style::Plain, false), expected);
    }

    #[test]
    fn binary_is_said_and_not_dumped() {
        let compared = unified(&text("a", b"1\n"), &text("b", b"\0\x01\x02"));
        assert_eq!(compared.text(), None);
        let shown = diff(&compared, Style::Colours, true);
        assert_eq!(shown, b"a (text, 2 B) and b (binary, 3 B) differ\n");
        let large = unified(&Side::large("a".to_owned(), 1 << 30), &text("b", b""));
        assert!(matches!(large, DiffText::Remark(remark) if remark.contains("too large")));
    }

    #[test]
    fn terminal_gets_colours_and_nothing_that_steers_it() {
        let compared = unified(&text("a", b"\x1b[2Jold\n"), &text("b", b"new\n"));
        let coloured = String::from_utf8(diff(&compared, Style::Colours, true)).unwrap();
        assert!(coloured.contains("\x1b[32m+new\x1b[0m"), "{coloured:?}");
        assert!(!coloured.contains("[2J") || coloured.contains("\\u{1b}[2J"), "{coloured:?}");
        let plain = String::from_utf8(diff(&compared, Style::Plain, true)).unwrap();
        assert!(!plain.contains('\x1b') && plain.contains("-\\u{1b}[2Jold"), "{plain:?}");
    }
}
