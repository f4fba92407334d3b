//! Modes, times, extended attributes.

use pleach_core::values::Body;
use pleach_core::vocabulary::Xattrs;

use super::*;

fn set(relative: &str, expected: Fingerprint, attributes: Attributes, body: Body) -> Effect {
    Effect::SetAttributes { at: tree(relative), expected, attributes, body }
}

/// The scratch file system may have no extended attributes; then there is nothing to see.
fn with_xattr(bench: &Bench, relative: &str) -> bool {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(bench.at(relative), "user.old", b"1", flags).is_ok()
}

fn xattrs_of(bench: &mut Bench, relative: &str) -> Xattrs {
    use pleach_core::values::FoundBody;
    let DirectoryState::Readable { found, .. } = bench.list("") else { panic!("not readable") };
    let found = found.into_iter().find(|found| found.name == name(relative)).unwrap();
    match found.body {
        FoundBody::File { xattrs, .. } | FoundBody::Directory { xattrs, .. } => xattrs,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mode_mtime_and_extended_attributes_are_set_on_file_and_directory() {
    let mut bench = Bench::new();
    bench.write("f", b"x");
    bench.write("d/inside", b"x");
    for (relative, body) in
        [("f", Body::File(content(b"x"))), ("d", Body::Directory { mtime: MTIME })]
    {
        let supported = with_xattr(&bench, relative);
        let expected = bench.fingerprint(relative);
        let mut attributes = Attributes::with_mode(0o710);
        if supported {
            attributes.xattrs.insert((*b"user.new").into(), (*b"2").into());
        }
        let effect = set(relative, expected, attributes.clone(), body);
        let left = done(&bench.apply_one(effect));
        assert_eq!(left, bench.fingerprint(relative));
        assert_eq!(mode_of(&bench.at(relative)), 0o710);
        assert_eq!(left.modified, MTIME);
        assert_eq!(xattrs_of(&mut bench, relative), attributes.xattrs);
    }
}

#[test]
fn mtime_of_a_link_is_its_own() {
    let mut bench = Bench::new();
    bench.write("f", b"x");
    std::os::unix::fs::symlink("f", bench.at("l")).unwrap();
    let (link, file) = (bench.fingerprint("l"), bench.fingerprint("f"));
    let target = pleach_core::values::LinkTarget::new(*b"f").unwrap();
    let body = Body::Symlink { target, mtime: MTIME };
    let left = done(&bench.apply_one(set("l", link, Attributes::with_mode(0o777), body)));
    assert_eq!(left.modified, MTIME);
    assert_eq!(bench.fingerprint("f"), file);
}

#[test]
fn special_bits_stay_as_they_are_unless_the_store_replicates_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut bench = Bench::new();
    bench.write("d/f", b"x");
    std::fs::set_permissions(bench.at("d"), std::fs::Permissions::from_mode(0o2755)).unwrap();
    let body = Body::Directory { mtime: MTIME };
    let expected = bench.fingerprint("d");
    done(&bench.apply_one(set("d", expected, Attributes::with_mode(0o1700), body.clone())));
    assert_eq!(mode_of(&bench.at("d")), 0o2700);
    bench.disk.set_special_bits(SpecialBits::Replicate);
    done(&bench.apply_one(set("d", expected, Attributes::with_mode(0o1700), body)));
    assert_eq!(mode_of(&bench.at("d")), 0o1700);
}

#[test]
fn attributes_of_an_edited_file_are_not_set() {
    let mut bench = Bench::new();
    bench.write("f", b"x");
    let expected = bench.fingerprint("f");
    bench.write("f", b"edited");
    let effect = set("f", expected, Attributes::with_mode(0), Body::File(content(b"x")));
    assert_eq!(bench.apply_one(effect), Outcome::Differs);
    assert_ne!(mode_of(&bench.at("f")), 0);
}

#[test]
fn new_file_and_directory_have_the_attributes_wanted() {
    let mut bench = Bench::new();
    bench.write("probe", b"x");
    let mut attributes = Attributes::with_mode(0o640);
    if with_xattr(&bench, "probe") {
        attributes.xattrs.insert((*b"user.a").into(), (*b"1").into());
    }
    let outcomes = bench.disk.apply(&[
        Effect::MakeDirectory { at: tree("d"), attributes: attributes.clone() },
        Effect::PutFile {
            at: tree("f"),
            expected: Expected::Absent,
            content: content(b"x"),
            attributes: attributes.clone(),
            source: PutSource::Inline(b"x"[..].into()),
        },
    ]);
    for (outcome, relative) in outcomes.iter().zip(["d", "f"]) {
        assert_eq!(done(outcome), bench.fingerprint(relative));
        assert_eq!(mode_of(&bench.at(relative)), 0o640);
        assert_eq!(xattrs_of(&mut bench, relative), attributes.xattrs);
    }
}
