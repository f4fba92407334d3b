//! What siblings are called: `name (conflict MASTER N).ext`.
//!
//! A name is what is before the number, the number, and what is after it; and no two ways to part a name so
//! are possible, since what is after it has one bracket only, and the number stands after the last space
//! before that. So names can only meet where all but their numbers are the same.

use std::collections::BTreeMap;

use crate::vocabulary::{MasterId, Name, WriterId};

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The most that is left of an extension, with its dot; and of a master's name.
const EXTENSION_BYTES_MAX: usize = 64;
const MASTER_BYTES_MAX: usize = 64;
/// The digits for which there is always room.
const NUMBER_DIGITS_MAX: usize = 10;
const CONFLICT: &str = " (conflict ";

/// What masters are called in names: the same on all that hold the same member list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasterNames(BTreeMap<[u8; 8], String>);

impl MasterNames {
    /// The names of these masters.
    pub fn new<'a>(members: impl IntoIterator<Item = (MasterId, &'a str)>) -> Self {
        let usable = |name: &str| {
            let plain = name.chars().filter(|c| !c.is_control() && *c != '/');
            let plain: String = plain.collect();
            let plain = plain.trim();
            plain[..boundary(plain.as_bytes(), MASTER_BYTES_MAX)].to_owned()
        };
        let named =
            members.into_iter().map(|(master, name)| (WriterId::prefix(master), usable(name)));
        Self(named.filter(|(_, name)| !name.is_empty()).collect())
    }

    /// What the master of a writer is called; the beginning of its id if that is not known.
    fn of(&self, writer: WriterId) -> String {
        let known = self.0.get(&writer.0[..8]).cloned();
        let short = || writer.0[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        known.unwrap_or_else(short)
    }
}

/// A sibling's name but for its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stem {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Stem {
    /// Of the siblings that `writer` brought about at `name`.
    pub(super) fn new(name: &[u8], writer: WriterId, masters: &MasterNames) -> Self {
        let (stem, extension) = parted(name);
        let extension = &extension[..boundary(extension, EXTENSION_BYTES_MAX)];
        let said = format!("{CONFLICT}{} ", masters.of(writer));
        let beside = said.len() + 1 + extension.len() + NUMBER_DIGITS_MAX;
        let stem = &stem[..boundary(stem, NAME_BYTES_MAX - beside)];
        Self { head: [stem, said.as_bytes()].concat(), tail: [b")", extension].concat() }
    }

    /// With this number.
    pub(super) fn numbered(&self, number: u32) -> Name {
        let full = [&self.head, number.to_string().as_bytes(), &self.tail].concat();
        Name::new(full).expect("a name's bytes and plain ones, at most 255 of them")
    }

    /// Of a name that a sibling might have, and its number.
    pub(super) fn of_name(name: &[u8]) -> Option<Self> {
        let bracket = name.iter().rposition(|&byte| byte == b')')?;
        let space = name[..bracket].iter().rposition(|&byte| byte == b' ')?;
        let digits = &name[space + 1..bracket];
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let (head, tail) = (name[..=space].to_vec(), name[bracket..].to_vec());
        is_number.then_some(Self { head, tail })
    }
}

/// Stem and extension. A leading dot is the stem's, and what has a space or a bracket in it is no extension.
fn parted(name: &[u8]) -> (&[u8], &[u8]) {
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0);
    let is_plain = |dot: &usize| !name[*dot..].iter().any(|byte| matches!(byte, b' ' | b')'));
    name.split_at(dot.filter(is_plain).unwrap_or(name.len()))
}

/// Where to cut bytes of which there is room for so many: not in the midst of a UTF-8 character.
fn boundary(bytes: &[u8], room: usize) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    let is_inside = |at: usize| bytes[at] & 0xc0 == 0x80;
    let start = (room.saturating_sub(3)..=room).rev().find(|&at| !is_inside(at));
    start.unwrap_or(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stem(name: &[u8], master: &str) -> Stem {
        let id = MasterId([1; 32]);
        let masters = MasterNames::new([(id, master)]);
        Stem::new(name, WriterId::new(id, [0; 8]), &masters)
    }

    fn named(name: &str, master: &str, number: u32) -> String {
        stem(name.as_bytes(), master).numbered(number).to_string()
    }

    #[test]
    fn sibling_keeps_the_extension_and_fits() {
        assert_eq!(named("page.html", "web1", 1), "page (conflict web1 1).html");
        assert_eq!(named("a.tar.gz", "web1", 12), "a.tar (conflict web1 12).gz");
        assert_eq!(named(".htaccess", "b", 1), ".htaccess (conflict b 1)");
        assert_eq!(named("Makefile", "b", 1), "Makefile (conflict b 1)");
        assert_eq!(named("a.b c", "b", 1), "a.b c (conflict b 1)");
        assert_eq!(named("v1.(2)", "b", 1), "v1.(2) (conflict b 1)");
        for name in ["x".repeat(255), format!("{}.php", "x".repeat(251)), "é".repeat(127)] {
            let full = stem(name.as_bytes(), "web1").numbered(u32::MAX);
            assert!(full.as_bytes().len() <= 255, "{full}");
            let text = std::str::from_utf8(full.as_bytes()).expect("cut between characters");
            assert!(text.ends_with(if name.ends_with(".php") { "5).php" } else { "5)" }), "{full}");
        }
        let long = format!("a.{}", "e".repeat(253));
        assert!(named(&long, "web1", 1).starts_with("a (conflict web1 1).eee"));
        assert!(stem(&[0xff; 255], &"é".repeat(64)).numbered(u32::MAX).as_bytes().len() <= 255);
    }

    #[test]
    fn master_without_a_usable_name_is_called_by_its_id() {
        assert_eq!(named("f", "a/b\n", 1), "f (conflict ab 1)");
        let short: String = WriterId::prefix(MasterId([1; 32]))[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(named("f", "/ ", 1), format!("f (conflict {short} 1)"));
    }

    #[test]
    fn name_is_parted_in_one_way_only() {
        for (name, master) in
            [("f", "a"), ("f.txt", "a b"), ("f (conflict a 1)", "b) (conflict c"), ("x.(1)", "m.n")]
        {
            let stem = stem(name.as_bytes(), master);
            assert_eq!(Stem::of_name(stem.numbered(7).as_bytes()), Some(stem));
        }
        assert_eq!(Stem::of_name(b"page (2x)"), None);
        assert_eq!(Stem::of_name(b"page"), None);
    }
}
