//! Saves as editors and tools make them: one edit of the same file each, and nothing stray.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pleach_tests::daemons::{Cluster, Events, have, shell, wait_until, write};

/// For so long an editor's own file is at rest before it is sent, less what a busy machine is late by.
const EDITOR_RESTS: Duration = Duration::from_millis(1_500);

/// How a user changes the file `f` in the current directory, and the program that it takes.
const WAYS: &[(&str, &str, &str)] = &[
    ("bash", "rewritten", "echo rewritten > f"),
    ("bash", "appended to", "echo more >> f"),
    ("truncate", "truncated", "truncate -s 5 f"),
    ("sed", "edited by sed -i", "sed -i s/line/LINE/ f"),
    ("vim", "edited by vim", "vim -es -u NONE -i NONE -c '%s/line/Zeile/' -c wq f"),
    (
        "vim",
        "edited by vim with backups",
        "vim -es -u NONE -i NONE -c 'set backup backupcopy=no backupdir=. | %s/line/l/ | wq' f; rm -f f~",
    ),
    ("rsync", "replaced by rsync", "t=$(mktemp); echo from afar > $t; rsync $t f; rm $t"),
    ("bash", "saved by rename", "echo new > .f.tmp; mv .f.tmp f"),
    ("bash", "saved through a backup", "cp f f.bak; echo newer > f.new; mv f.new f; rm f.bak"),
    ("cp", "copied over", "t=$(mktemp); echo copied > $t; cp $t f; rm $t"),
];

#[test]
fn every_way_to_save_is_one_edit_and_leaves_nothing_else() {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    let mut events = Events::of(b);
    for (number, (program, how, script)) in WAYS.iter().enumerate() {
        if !have(program) {
            continue;
        }
        let directory = a.path(&format!("site {number}"));
        write(&directory.join("f"), "a line\nanother line\n");
        write(&directory.join("g"), "beside it\n");
        cluster.settle_to(0, "the file before");
        events.forget();

        let start = Instant::now();
        shell(&directory, script);
        let took = start.elapsed();
        let wanted = fs::read(directory.join("f")).unwrap();
        let copy = b.path(&format!("site {number}/f"));
        wait_until(&format!("a file {how} arrives"), Duration::from_secs(20), || {
            match fs::read(&copy) {
                Ok(bytes) if bytes == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        cluster.settle_to(0, &format!("a file {how}"));
        check_applied(&events, number, how, took);
        assert!(b.conflicts().is_empty(), "{how}: {:?}", b.conflicts());
    }
}

/// On the other master nothing but the file and the directory's time may have been touched: no temp
/// file, no backup, nothing made and removed again. What an editor keeps beside a file while it is open is
/// one like any other once it has been at rest for long.
fn check_applied(events: &Events, number: usize, how: &str, took: Duration) {
    let applied = events.heard_of("applied");
    let (file, directory) = (format!("site {number}/f"), format!("site {number}"));
    let paths: Vec<&str> = applied.iter().filter_map(|event| event["path"].as_str()).collect();
    let stray: Vec<_> = paths
        .iter()
        .filter(|path| **path != file && **path != directory && **path != ".")
        // One that lives longer than a new name waits is a file like any other; on a busy machine three
        // commands of a shell take as long.
        .filter(|path| !path.ends_with(".bak"))
        .filter(|path| took < EDITOR_RESTS || !path.contains("/.f.sw"))
        .collect();
    assert!(stray.is_empty(), "a file {how} brought {stray:?}");
    let times = paths.iter().filter(|path| **path == file).count();
    assert_eq!(times, 1, "a file {how}: {applied:#?}");
}

#[test]
fn temporary_file_that_lives_for_a_moment_is_never_sent() {
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    write(&a.path("f"), "before");
    cluster.settle_to(0, "the file before");
    let events = Events::of(b);
    shell(
        a.directory(),
        "for n in $(seq 20); do echo $n > 4913; rm 4913; echo $n > t; mv t f; done",
    );
    wait_until("the last save arrives", Duration::from_secs(20), || {
        match fs::read_to_string(b.path("f")) {
            Ok(text) if text == "20\n" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.settle_to(0, "twenty saves");
    let stray = events.heard().iter().any(|event| event["path"] == "4913" || event["path"] == "t");
    assert!(!stray, "{:#?}", events.heard());
}

#[test]
fn file_held_open_and_appended_to_arrives_as_it_grows() {
    use std::io::Write;
    let cluster = Cluster::of(2);
    let (a, b) = (&cluster.masters[0], &cluster.masters[1]);
    let mut log = fs::File::create(a.path("access.log")).unwrap();
    let at_b = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    for round in 1..=3_u64 {
        for line in 0..100 {
            writeln!(log, "{round} {line:060}").unwrap();
        }
        wait_until("what was appended so far arrives", Duration::from_secs(60), || {
            let (here, there) = (at_b(&a.path("access.log")), at_b(&b.path("access.log")));
            if here == there { Ok(()) } else { Err(format!("{there} of {here} bytes")) }
        });
    }
    drop(log);
    cluster.settle_to(0, "the log");
    assert!(b.conflicts().is_empty());
}
