//! Names and paths: bytes, as the file system has them. Unix only.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name that Linux file systems hold, in bytes (limits.h, `NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// One component of a path: 1 to 255 bytes, without `/` and NUL, neither `.` nor `..`. Clones share them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Arc<[u8]>);

/// Bytes that no file can be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("a name is empty")]
    Empty,
    /// More than 255 bytes.
    #[error("a name has {0} bytes, more than 255")]
    TooLong(usize),
    /// `/` or NUL in it.
    #[error("the name {0:?} has a slash or a NUL byte in it")]
    ForbiddenByte(String),
    /// `.` or `..`.
    #[error("{0:?} stands for a directory and is no name")]
    Relative(String),
}

impl Name {
    /// Checks `bytes`.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Result<Self, NameError> {
        let bytes = bytes.into();
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        match &*bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Relative(shown())),
            long if long.len() > NAME_BYTES_MAX => Err(NameError::TooLong(long.len())),
            name if name.iter().any(|b| matches!(b, b'/' | 0)) => {
                Err(NameError::ForbiddenByte(shown()))
            }
            _ => Ok(Self(bytes)),
        }
    }

    /// The name's bytes; not always UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes, shared.
    pub(crate) fn shared(&self) -> &Arc<[u8]> {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for Name {
    type Error = NameError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, NameError> {
        Self::new(bytes)
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Self, NameError> {
        Self::new(text.as_bytes())
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        name.0.to_vec()
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Shows printable UTF-8 as it is and everything else escaped (`\n`, `\xff`).
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() || character == '\\' {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A path from the root of the tree, which is the empty path.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TreePath(Vec<Name>);

impl TreePath {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// The path with these components, outermost first.
    #[must_use]
    pub fn new(names: Vec<Name>) -> Self {
        Self(names)
    }

    /// Splits `bytes` at slashes; empty components and `.` are skipped.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        bytes
            .split(|b| *b == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(Name::new)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The components, outermost first.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut names = Vec::with_capacity(self.0.len() + 1);
        names.extend_from_slice(&self.0);
        names.push(name.clone());
        Self(names)
    }

    /// The directory that holds this path and its last component; none for the root.
    #[must_use]
    pub fn split_last(&self) -> Option<(Self, &Name)> {
        let (last, rest) = self.0.split_last()?;
        Some((Self(rest.to_vec()), last))
    }

    /// The directories above, innermost first, the root last.
    pub fn above(&self) -> impl Iterator<Item = Self> {
        (0..self.0.len()).rev().map(|depth| Self(self.0[..depth].to_vec()))
    }

    /// Whether this is `other` or somewhere below it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The components joined by `/`, without a leading slash.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in &self.0 {
            if !bytes.is_empty() {
                bytes.push(b'/');
            }
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes
    }
}

/// Components joined by `/`, each shown as a [`Name`] is; the root is `.`.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else {
            return f.write_str(".");
        };
        write!(f, "{first}")?;
        rest.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_file_can_have_are_refused() {
        assert_eq!(Name::new(*b""), Err(NameError::Empty));
        assert_eq!(Name::new(vec![b'a'; 256]), Err(NameError::TooLong(256)));
        for bad in [&b"a/b"[..], b"a\0", b".", b".."] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(Name::new(vec![b'a'; 255]).is_ok());
    }

    #[test]
    fn odd_bytes_are_shown_escaped() {
        let name = Name::new(*b"a\n\xff\\").expect("no slash in it");
        assert_eq!(name.to_string(), r"a\n\xff\\");
        assert_eq!(TreePath::root().to_string(), ".");
    }

    #[test]
    fn parsed_path_skips_empty_components_and_refuses_dot_dot() {
        let path = TreePath::parse(b"/a//b/./c").expect("plain names");
        assert_eq!(path.to_string(), "a/b/c");
        assert!(TreePath::parse(b"a/../b").is_err());
    }
}
