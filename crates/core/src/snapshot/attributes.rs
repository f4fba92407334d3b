//! Mode, owner and extended attributes: what was found, and which of it a user has set.

use smallvec::SmallVec;

use super::acts::{SpecialBits, Writer};
use super::survey::{Dir, Sighting, found_body};
use crate::values::{Act, BaseEntry, BaseId, EntryView, TreeView};
use crate::vocabulary::{Attributes, Kind, Mode, Xattrs};

impl<T: TreeView> Writer<'_, T> {
    pub(super) fn attribute_changes(
        &mut self,
        sighting: &Sighting,
        id: BaseId,
        entry: &BaseEntry,
        tree: Option<&EntryView>,
        done: &mut SmallVec<[usize; 2]>,
    ) -> Attributes {
        let mut attributes = entry.attributes.clone();
        let doubtful = self.rules.doubtful;
        let left = found_body(sighting).and_then(|found| doubtful.left(id, &found));
        // An effect of ours may have set them for what the tree had then.
        self.adopted.extend(left.and_then(|_| entry.standing()));
        let ours = [tree.map(|view| &view.attributes), left.map(|left| &left.attributes)];
        let is_users = |is_so: &dyn Fn(&Attributes) -> bool| !ours.into_iter().flatten().any(is_so);
        let (found, known) = (sighting.fingerprint, entry.fingerprint);
        let seen = || entry.nodes.clone();
        let directory = self.index(Dir::Known(entry.parent));
        let mode = self.mode(sighting);
        if found.kind != Kind::Symlink && found.mode != known.mode && mode != attributes.mode {
            attributes.mode = mode;
            if is_users(&|known| known.mode == mode) {
                self.push(Act::SetMode { directory, entry: seen(), mode }, done);
            }
        }
        if let Some(owner) = &sighting.owner
            && (found.uid, found.gid) != (known.uid, known.gid)
            && attributes.owner.as_ref() != Some(owner)
        {
            attributes.owner = Some(owner.clone());
            if is_users(&|known| known.owner.as_ref() == Some(owner)) {
                let owner = owner.clone();
                self.push(Act::SetOwner { directory, entry: seen(), owner }, done);
            }
        }
        if found.kind != Kind::Symlink && sighting.xattrs != attributes.xattrs {
            for (attribute, value) in xattr_changes(&attributes.xattrs, &sighting.xattrs) {
                if is_users(&|known| known.xattrs.get(&attribute) == value.as_ref()) {
                    self.push(Act::SetXattr { directory, entry: seen(), attribute, value }, done);
                }
            }
            attributes.xattrs = sighting.xattrs.clone();
        }
        attributes
    }

    pub(super) fn attributes(&self, sighting: &Sighting) -> Attributes {
        Attributes {
            mode: self.mode(sighting),
            owner: sighting.owner.clone(),
            xattrs: sighting.xattrs.clone(),
        }
    }

    fn mode(&self, sighting: &Sighting) -> Mode {
        let mode = sighting.fingerprint.mode;
        match (sighting.fingerprint.kind, self.rules.special_bits) {
            (Kind::Symlink, _) => Mode::new(0o777),
            (_, SpecialBits::Keep) => mode,
            (_, SpecialBits::Drop) => mode.without_special_bits(),
        }
    }
}

/// An attribute's name, and its value if it has one.
type XattrChange = (Box<[u8]>, Option<Box<[u8]>>);

fn xattr_changes(known: &Xattrs, found: &Xattrs) -> Vec<XattrChange> {
    let set = found
        .iter()
        .filter(|(name, value)| known.get(*name) != Some(*value))
        .map(|(name, value)| (name.clone(), Some(value.clone())));
    let unset =
        known.keys().filter(|name| !found.contains_key(*name)).map(|name| (name.clone(), None));
    set.chain(unset).collect()
}
