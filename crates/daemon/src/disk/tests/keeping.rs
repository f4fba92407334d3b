//! The staging area and the versions.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime};

use super::*;

fn reopen(bench: Bench) -> Bench {
    let Bench { scratch, disk } = bench;
    drop(disk);
    let root = Root::open(&scratch.path().join("store")).unwrap();
    Bench { disk: Disk::open(root, DiskOptions::default()).unwrap(), scratch }
}

#[test]
fn fetch_resumes_after_a_restart() {
    let bench = Bench::new();
    let bytes = vec![5; 100_000];
    let hash = ContentHash::of(&bytes);
    let mut partial = bench.disk.staging().begin(hash, 100_000).unwrap();
    partial.write_at(0, &bytes[..60_000]).unwrap();
    drop(partial);
    let bench = reopen(bench);
    let mut partial = bench.disk.staging().begin(hash, 100_000).unwrap();
    assert_eq!(partial.existing(), 60_000);
    partial.write_at(60_000, &bytes[60_000..]).unwrap();
    partial.finish().unwrap();
    assert!(bench.disk.staging().has(hash));
}

#[test]
fn what_an_exchange_brought_out_before_a_crash_is_kept() {
    let bench = Bench::new();
    let staging = bench.scratch.path().join("store/.pleach/staging");
    std::fs::write(staging.join("7.swap"), b"a user's").unwrap();
    std::fs::write(staging.join("8.put"), b"our own").unwrap();
    let bench = reopen(bench);
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0);
    let kept = bench.disk.versions().list(None);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let mut text = String::new();
    let mut file = bench.disk.versions().open_version(kept[0].id).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a user's");
}

#[test]
fn wrong_bytes_are_not_accepted_and_not_kept() {
    let bench = Bench::new();
    let hash = ContentHash::of(b"right");
    let mut partial = bench.disk.staging().begin(hash, 5).unwrap();
    partial.write_at(0, b"wrong").unwrap();
    assert!(matches!(partial.finish(), Err(FinishError::WrongHash(_))));
    assert!(!bench.disk.staging().has(hash));
    assert_eq!(bench.disk.staging().begin(hash, 5).unwrap().existing(), 0);
}

#[test]
fn bytes_beyond_the_size_and_second_fetchers_are_refused() {
    let bench = Bench::new();
    let hash = ContentHash::of(b"x");
    let mut partial = bench.disk.staging().begin(hash, 1).unwrap();
    assert!(partial.write_at(1, b"y").is_err());
    assert!(partial.write_at(u64::MAX, b"y").is_err());
    assert!(bench.disk.staging().begin(hash, 1).is_err());
}

#[test]
fn fetched_zeros_are_holes() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new();
    let bytes = vec![0; 4 << 20];
    let hash = ContentHash::of(&bytes);
    bench.disk.staging().insert(hash, &bytes).unwrap();
    let file = bench.disk.staging().open_content(hash).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4 << 20);
    assert_eq!(file.metadata().unwrap().blocks(), 0);
}

#[test]
fn complete_content_is_checked_again_after_a_restart() {
    let bench = Bench::new();
    let hash = ContentHash::of(b"fetched");
    bench.disk.staging().insert(hash, b"fetched").unwrap();
    bench.write(".pleach/staging/1.put", b"torn");
    let bench = reopen(bench);
    assert!(!bench.disk.staging().has(hash));
    let partial = bench.disk.staging().begin(hash, 7).unwrap();
    assert_eq!(partial.existing(), 7);
    partial.finish().unwrap();
    assert!(bench.disk.staging().has(hash));
    assert_eq!(bench.state_names("staging"), [hash.to_string()]);
}

#[test]
fn content_written_ahead_is_what_is_put() {
    let mut bench = Bench::new();
    let ahead = |bytes: &'static [u8]| (ContentHash::of(bytes), Arc::from(bytes));
    bench.disk.staging().write_ahead(&[ahead(b"new"), ahead(b"over"), ahead(b"unused")]);
    let inode = |bench: &Bench, name: &str| std::fs::metadata(bench.at(name)).unwrap().ino();
    let written: Vec<u64> = std::fs::read_dir(bench.at(".pleach/staging/ahead0"))
        .unwrap()
        .map(|entry| std::os::unix::fs::DirEntryExt::ino(&entry.unwrap()))
        .collect();
    assert_eq!(written.len(), 3);
    bench.write("g", b"old");
    let expected = Expected::Present(bench.fingerprint("g"));
    let outcomes =
        bench.disk.apply(&[put("f", Expected::Absent, b"new"), put("g", expected, b"over")]);
    assert_eq!(done(&outcomes[0]), bench.fingerprint("f"));
    assert_eq!(done(&outcomes[1]), bench.fingerprint("g"));
    assert_eq!((bench.read("f"), bench.read("g")), ("new".to_owned(), "over".to_owned()));
    assert!(written.contains(&inode(&bench, "f")) && written.contains(&inode(&bench, "g")));
    assert_eq!((mode_of(&bench.at("f")), mtime_of(&bench.at("f")).0), (0o644, MTIME.seconds));
    assert_eq!(bench.state_names("staging/ahead0").len(), 1);
    bench.disk.staging().clear_ahead();
    assert!(bench.state_names("staging/ahead0").is_empty());
}

#[test]
fn content_written_ahead_that_is_gone_is_written_again() {
    let mut bench = Bench::new();
    let hash = ContentHash::of(b"new");
    bench.disk.staging().write_ahead(&[(hash, b"new".as_slice().into())]);
    std::fs::remove_dir_all(bench.at(".pleach/staging/ahead0")).unwrap();
    done(&bench.apply_one(put("f", Expected::Absent, b"new")));
    assert_eq!(bench.read("f"), "new");
}

#[test]
fn what_was_written_ahead_is_gone_after_a_restart() {
    let bench = Bench::new();
    let hash = ContentHash::of(b"new");
    bench.disk.staging().write_ahead(&[(hash, b"new".as_slice().into())]);
    let bench = reopen(bench);
    assert!(bench.state_names("staging").is_empty());
}

fn with_one_version() -> Bench {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    let expected = bench.fingerprint("f");
    done(&bench.apply_one(remove_file("f", expected)));
    bench
}

#[test]
fn versions_are_known_after_a_restart() {
    let bench = with_one_version();
    assert_eq!(bench.disk.versions().settle(u64::MAX).unwrap(), 0);
    let before = bench.disk.versions().list(None);
    let bench = reopen(bench);
    assert_eq!(bench.disk.versions().list(None), before);
    assert_eq!(before[0].hash, Some(ContentHash::of(b"old")));
    assert!(bench.disk.versions().find(ContentHash::of(b"old")).is_some());
}

#[test]
fn versions_survive_a_torn_and_a_lost_index() {
    let bench = with_one_version();
    let index = bench.at(".pleach/versions/index");
    std::fs::OpenOptions::new().append(true).open(&index).unwrap().write_all(b"torn").unwrap();
    let bench = reopen(bench);
    assert_eq!(bench.disk.versions().list(Some(&path("f"))).len(), 1);
    std::fs::remove_file(&index).unwrap();
    let bench = reopen(bench);
    assert_eq!(bench.disk.versions().list(None)[0].path, None);
    assert!(bench.disk.versions().find(ContentHash::of(b"old")).is_some());
}

#[test]
fn damaged_index_costs_the_path_of_what_is_damaged_and_says_so_once() {
    let mut bench = with_one_version();
    bench.write("g", b"of g");
    let expected = Expected::Present(bench.fingerprint("g"));
    done(&bench.apply_one(put("g", expected, b"new")));
    assert!(bench.disk.versions().problem().is_none());
    let index = bench.at(".pleach/versions/index");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[10] ^= 0x40;
    std::fs::write(&index, bytes).unwrap();
    let bench = reopen(bench);
    let problem = bench.disk.versions().problem().expect("an entry could not be read").clone();
    assert_eq!(problem.path.to_string(), ".pleach/versions/index");
    assert!(problem.reason.contains("1 kept versions are without their path"), "{problem:?}");
    assert!(bench.disk.versions().list(Some(&path("f"))).is_empty());
    assert_eq!(bench.disk.versions().list(Some(&path("g"))).len(), 1);
    assert!(bench.disk.versions().find(ContentHash::of(b"old")).is_some());
    assert!(reopen(bench).disk.versions().problem().is_none());
}

#[test]
fn write_through_an_old_handle_is_noticed_and_not_served_under_the_old_hash() {
    let mut bench = Bench::new();
    bench.write("f", b"old");
    let mut held = std::fs::OpenOptions::new().append(true).open(bench.at("f")).unwrap();
    let expected = Expected::Present(bench.fingerprint("f"));
    done(&bench.apply_one(put("f", expected, b"new")));
    let versions = bench.disk.versions().clone();
    assert!(versions.find(ContentHash::of(b"old")).is_some());
    assert!(versions.late_writes().is_empty());
    held.write_all(b" and late").unwrap();
    assert_eq!(versions.late_writes().len(), 1);
    assert!(versions.find(ContentHash::of(b"old")).is_none());
    assert!(versions.find(ContentHash::of(b"old and late")).is_some());
}

#[test]
fn content_of_a_conflict_is_kept_beside_a_version_that_may_still_be_written_to() {
    for (age_seconds, kept_for_good) in [(0, false), (3_600, true)] {
        let mut bench = Bench::new();
        bench.write("f", b"old");
        let mut held = std::fs::OpenOptions::new().append(true).open(bench.at("f")).unwrap();
        held.set_modified(SystemTime::now() - Duration::from_secs(age_seconds)).unwrap();
        let expected = Expected::Present(bench.fingerprint("f"));
        done(&bench.apply_one(put("f", expected, b"new")));
        let hash = ContentHash::of(b"old");
        assert!(bench.disk.versions().find(hash).is_some());
        bench.disk.retain(hash, Some(b"old")).unwrap();
        assert!(bench.state_names("staging").is_empty());
        // Told so again, it has nothing left to do.
        bench.disk.retain(hash, None).unwrap();
        let twice = bench.disk.versions().list(None).len() == 2;
        assert_eq!(twice, !kept_for_good);
        held.write_all(b" and late").unwrap();
        assert_eq!(bench.disk.versions().find(hash).is_some(), twice);
    }
}

#[test]
fn late_write_is_taken_in_once_and_a_handle_that_is_only_closed_is_none() {
    let mut bench = Bench::new();
    bench.write("d/f", b"old");
    let mut held = std::fs::OpenOptions::new().append(true).open(bench.at("d/f")).unwrap();
    let expected = Expected::Present(bench.fingerprint("d/f"));
    done(&bench.apply_one(put("d/f", expected, b"new")));
    let version = bench.disk.versions().list(None)[0].id;
    assert_eq!(bench.disk.take_in(version).unwrap(), None);
    held.write_all(b" and late").unwrap();
    // Whoever hashes it first: it is not taken in by that.
    bench.disk.versions().settle(u64::MAX).unwrap();
    assert_eq!(bench.disk.versions().late_writes(), [version]);
    let late = bench.disk.take_in(version).unwrap().unwrap();
    assert_eq!((&late.path, late.content.size), (&path("d/f"), 12));
    assert_eq!(late.content.hash, ContentHash::of(b"old and late"));
    let mut staged = Vec::new();
    let mut file = bench.disk.staging().open_content(late.content.hash).unwrap();
    io::Read::read_to_end(&mut file, &mut staged).unwrap();
    assert_eq!(staged, b"old and late");
    assert!(bench.disk.versions().late_writes().is_empty());
    assert_eq!(bench.disk.take_in(version).unwrap(), None);
    assert!(bench.disk.versions().find(late.content.hash).is_some());
}

#[test]
fn version_let_go_is_gone() {
    let bench = with_one_version();
    let kept = bench.disk.versions().list(None).remove(0);
    bench.disk.versions().remove(kept.id).unwrap();
    assert!(bench.disk.versions().find(ContentHash::of(b"old")).is_none());
    assert!(bench.state_names("versions").is_empty());
}

const HOUR: Duration = Duration::from_secs(3600);

/// Deletes files with these contents in turn, and hashes what is kept of them.
fn with_versions(contents: &[&[u8]]) -> Bench {
    let mut bench = Bench::new();
    for bytes in contents {
        bench.write("f", bytes);
        let expected = bench.fingerprint("f");
        done(&bench.apply_one(remove_file("f", expected)));
    }
    assert_eq!(bench.disk.versions().settle(u64::MAX).unwrap(), 0);
    bench
}

fn contents_left(bench: &Bench) -> Vec<ContentHash> {
    bench.disk.versions().list(None).into_iter().filter_map(|kept| kept.hash).collect()
}

fn cleaner(age_max: Duration, share_max: u8) -> Cleaner {
    Cleaner::with_clock_even_for(Retention { age_max, share_max }, 24 * HOUR)
}

#[test]
fn no_version_goes_for_its_age_before_the_clock_has_gone_evenly_for_a_while() {
    let cases =
        [(720, 100, 0, 0), (720, 100, 11, 0), (720, 100, 12, 2), (3, 100, 3, 2), (720, 0, 0, 2)];
    for (age_hours, share_max, even_hours, goes) in cases {
        let bench = with_versions(&[b"one", b"two"]);
        // Or the clock was set forward.
        bench.disk.versions().backdate(1_000 * HOUR);
        let retention = Retention { age_max: age_hours * HOUR, share_max };
        let mut cleaner = Cleaner::with_clock_even_for(retention, even_hours * HOUR);
        let gone = cleaner.step(&bench.disk, |_| BTreeSet::new()).unwrap();
        assert_eq!(gone, goes, "{age_hours} h, {share_max} %, even for {even_hours} h");
    }
}

#[test]
fn version_goes_when_it_is_old_or_there_is_too_much_and_never_in_its_first_hour() {
    let nothing_needed = |_| BTreeSet::new();
    for (age_max, share_max) in [(24 * HOUR, 0), (HOUR, 100)] {
        let bench = with_versions(&[b"one", b"two"]);
        let mut cleaner = cleaner(age_max, share_max);
        assert_eq!(cleaner.step(&bench.disk, nothing_needed).unwrap(), 0);
        bench.disk.versions().backdate(2 * HOUR);
        assert_eq!(cleaner.step(&bench.disk, nothing_needed).unwrap(), 2);
        assert!(bench.state_names("versions").is_empty());
        assert!(contents_left(&reopen(bench)).is_empty());
    }
    let bench = with_versions(&[b"one", b"two"]);
    bench.disk.versions().backdate(2 * HOUR);
    let mut cleaner = cleaner(24 * HOUR, 100);
    assert_eq!(cleaner.step(&bench.disk, nothing_needed).unwrap(), 0);
    assert_eq!(contents_left(&bench).len(), 2);
}

#[test]
fn version_that_is_needed_or_was_written_to_stays_when_it_is_old() {
    let bench = with_versions(&[b"needed", b"written", b"spare"]);
    let written = bench.disk.versions().list(None)[1].id;
    let held = bench.at(&format!(".pleach/versions/{}", written.0));
    std::fs::write(held, b"a late write").unwrap();
    bench.disk.versions().backdate(2 * HOUR);
    let mut cleaner = cleaner(HOUR, 100);
    let needed = ContentHash::of(b"needed");
    assert_eq!(cleaner.step(&bench.disk, |_| BTreeSet::from([needed])).unwrap(), 1);
    assert_eq!(cleaner.step(&bench.disk, |_| BTreeSet::new()).unwrap(), 0);
    assert_eq!(bench.disk.versions().settle(u64::MAX).unwrap(), 0);
    assert_eq!(contents_left(&bench), [needed, ContentHash::of(b"a late write")]);
}

#[test]
fn content_of_the_tree_is_served_only_while_it_is_the_expected_one() {
    let bench = Bench::new();
    bench.write("f", b"hello");
    let fingerprint = bench.fingerprint("f");
    let root = bench.disk.root();
    let reader = open_content(root, &path("f"), &fingerprint).unwrap().unwrap();
    let mut bytes = [0; 4];
    assert_eq!(reader.read_at(1, &mut bytes).unwrap(), 4);
    assert_eq!(&bytes, b"ello");
    assert!(reader.is_unchanged().unwrap());
    bench.write("f", b"changed");
    assert!(!reader.is_unchanged().unwrap());
    assert!(open_content(root, &path("f"), &fingerprint).unwrap().is_none());
}

#[test]
fn what_was_fetched_in_part_and_is_not_wanted_goes_unless_it_is_being_fetched() {
    let bench = Bench::new();
    let staging = bench.disk.staging();
    let hash = ContentHash::of(b"wanted no more");
    let mut partial = staging.begin(hash, 1_000_000).unwrap();
    partial.write_at(0, b"wanted").unwrap();
    staging.discard(hash);
    assert_eq!(bench.state_names("staging"), [format!("{hash}.part")]);
    drop(partial);
    staging.discard(hash);
    assert!(bench.state_names("staging").is_empty());
}
