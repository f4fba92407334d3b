//! Paths in JSON: printable UTF-8 as it is, all else escaped, and back without loss.

use std::fmt;
use std::str::FromStr;

use pleach_core::vocabulary::{NameError, TreePath};
use serde::{Deserialize, Serialize};

/// A path below the root as it is shown to people and programs: `a\x2fb` style escapes for whatever is not
/// printable UTF-8 (`\n`, `\t`, `\r`, `\u{7f}`, `\xff`, and `\\` for the backslash); the root is `.`.
///
/// What is shown can be given back: parsing it gives the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathText(pub TreePath);

/// Text that is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathTextError {
    /// An escape that is not one of ours.
    #[error("unknown escape at {0:?}: a backslash is written \\\\")]
    Escape(String),
    /// A component that is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl From<TreePath> for PathText {
    fn from(path: TreePath) -> Self {
        Self(path)
    }
}

impl From<PathText> for String {
    fn from(path: PathText) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for PathText {
    type Error = PathTextError;
    fn try_from(text: String) -> Result<Self, PathTextError> {
        text.parse()
    }
}

impl fmt::Display for PathText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PathText {
    type Err = PathTextError;

    fn from_str(text: &str) -> Result<Self, PathTextError> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            bytes.extend_from_slice(&rest.as_bytes()[..at]);
            let escape = &rest[at..];
            let unknown = || PathTextError::Escape(escape.chars().take(12).collect());
            rest = unescape(escape, &mut bytes).ok_or_else(unknown)?;
        }
        bytes.extend_from_slice(rest.as_bytes());
        Ok(Self(TreePath::parse(&bytes)?))
    }
}

/// Appends what the escape at the start of `text` stands for; gives the text after it.
fn unescape<'t>(text: &'t str, bytes: &mut Vec<u8>) -> Option<&'t str> {
    let mut after = text[1..].chars();
    let plain = match after.next()? {
        'n' => b'\n',
        't' => b'\t',
        'r' => b'\r',
        '\\' => b'\\',
        'x' => {
            let digits = after.as_str().get(..2)?;
            let byte = u8::from_str_radix(digits, 16).ok()?;
            bytes.push(byte);
            return after.as_str().get(2..);
        }
        'u' => {
            let (digits, rest) = after.as_str().strip_prefix('{')?.split_once('}')?;
            let character = char::from_u32(u32::from_str_radix(digits, 16).ok()?)?;
            bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    bytes.push(plain);
    Some(after.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pleach_core::vocabulary::Name;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shown_path_is_given_back_as_it_was(
            names in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4)
        ) {
            let names: Vec<_> = names.into_iter().filter_map(|n| Name::new(n).ok()).collect();
            let path = PathText(TreePath::new(names));
            prop_assert_eq!(path.to_string().parse::<PathText>(), Ok(path));
        }

        #[test]
        fn any_text_is_a_path_or_refused(text in "\\PC*|[\\\\xu{}nabc0-9/.]*") {
            let _ = text.parse::<PathText>();
        }
    }

    #[test]
    fn unknown_escape_is_refused_by_its_text() {
        assert_eq!("a/b\\qc".parse::<PathText>(), Err(PathTextError::Escape("\\qc".to_owned())));
    }
}
