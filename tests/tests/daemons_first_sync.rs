//! Directories full of files become one: by joining empty, and by joining with a copy.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use pleach_tests::daemons::{
    Cluster, Master, Tree, long, odd_tree, pleach, real_tree, shell, touch_all, write,
};

/// Files of real source code: enough for batches and fetching in CI, a whole cache at length.
fn real_files() -> usize {
    if long() { 20_000 } else { 3_000 }
}

fn bytes_sent(cluster: &Cluster) -> u64 {
    let sent = |status: &pleach_tests::daemons::Status| {
        status.list("/masters").iter().filter_map(|other| other["bytes_sent"].as_u64()).sum::<u64>()
    };
    cluster.masters.iter().map(|master| sent(&master.status())).sum()
}

#[test]
fn tree_of_one_arrives_whole_at_two_that_were_empty() {
    let cluster = Cluster::holding(3, |number, master| {
        if number == 0 {
            real_tree(&master.path("src"), real_files());
            odd_tree(&master.path("odd"));
        }
    });
    let tree = cluster.settle_to(0, "the real tree is on all");
    assert!(tree.file_count() >= real_files());
    for master in &cluster.masters {
        let counted = master.status().number("/tree/files");
        assert_eq!(counted, tree.file_count() as u64, "status counts what is there");
        assert!(master.conflicts().is_empty(), "{:?}", master.conflicts());
        assert!(master.status().list("/problems").is_empty(), "{:#}", master.status().0);
    }
    let verified = pleach(["verify", cluster.masters[1].directory().to_str().unwrap(), "--json"]);
    assert_eq!(verified.ok().json()["damaged"].as_array().map(Vec::len), Some(0));
}

#[test]
fn copies_that_join_make_no_conflict_and_send_next_to_nothing() {
    let source = tempfile::tempdir().unwrap();
    let files = real_tree(&source.path().join("src"), real_files() / 2);
    odd_tree(&source.path().join("odd"));
    let size = Tree::read(source.path()).unwrap().entries.values().map(|e| e.size).sum::<u64>();
    let cluster = Cluster::holding(3, |_, master| {
        shell(source.path(), &format!("cp -a . '{}'", master.directory().display()));
    });
    let tree = cluster.settle_as("copies are one", |tree| {
        let wanted = Tree::read(source.path()).map_err(|error| error.to_string())?;
        if tree.clone().without_directory_times() == wanted.without_directory_times() {
            Ok(())
        } else {
            Err("something changed by joining".to_owned())
        }
    });
    assert!(tree.file_count() >= files);
    for master in &cluster.masters {
        assert!(master.conflicts().is_empty(), "{:?}", master.conflicts());
    }
    let (sent, bound) = (bytes_sent(&cluster), size / 4 + (1 << 20));
    assert!(sent < bound, "{sent} bytes sent for {size} bytes that all had");
}

#[test]
fn two_that_join_at_once_through_two_members_with_files_of_their_own_become_one_with_them() {
    let mut cluster = Cluster::holding(2, |number, master| {
        if number == 0 {
            real_tree(&master.path("src"), real_files() / 3);
        }
    });
    cluster.settle_to(0, "the first two");
    let scratch = cluster.scratch.path().to_owned();
    let mut joiners = [Master::new(&scratch, "c"), Master::new(&scratch, "d")];
    let source = cluster.masters[0].directory().display();
    // One holds a copy, both have made a file of one name.
    shell(joiners[1].directory(), &format!("cp -a '{source}/src' ."));
    for joiner in &joiners {
        write(&joiner.path("mine"), joiner.name());
        write(&joiner.path(&format!("of {}", joiner.name())), "own");
    }
    std::thread::scope(|scope| {
        for (joiner, inviter) in joiners.iter_mut().zip(&cluster.masters) {
            scope.spawn(|| {
                joiner.join(inviter);
                joiner.start();
            });
        }
    });
    cluster.masters.extend(joiners);
    cluster.await_connected();
    let tree = cluster.settle("all four");
    for path in ["of c", "of d", "mine"] {
        assert!(tree.entries.contains_key(std::path::Path::new(path)), "{path}");
    }
    for master in &cluster.masters {
        let paths: Vec<_> = master.conflicts().iter().map(|open| open["path"].clone()).collect();
        assert_eq!(paths, ["mine"], "on {}", master.name());
    }
}

#[test]
fn changes_travel_from_and_to_every_master() {
    let cluster = Cluster::of(3);
    for master in &cluster.masters {
        write(&master.path(&format!("of {}/file", master.name())), master.name());
    }
    let tree = cluster.settle_as("each has the files of all", |tree| match tree.file_count() {
        3 => Ok(()),
        count => Err(format!("{count} files")),
    });
    assert_eq!(tree.entries.len(), 6);
    for (number, master) in cluster.masters.iter().enumerate() {
        touch_all(master.directory(), &format!("again-by-{number}"));
        cluster.settle_to(number, "an edit of every file is on all");
    }
    shell(cluster.masters[2].directory(), "rm -r of*");
    let tree = cluster.settle_to(2, "all is gone on all");
    assert!(tree.entries.is_empty());
}

#[test]
fn master_that_was_away_catches_up_and_brings_its_own() {
    let mut cluster = Cluster::of(3);
    write(&cluster.masters[0].path("d/before"), "before");
    cluster.settle_to(0, "a first file");
    cluster.masters[2].stop();
    shell(
        cluster.masters[0].directory(),
        "mv d e; echo more > e/more; mkdir -p x/y; chmod 600 e/before",
    );
    shell(cluster.masters[2].directory(), "echo away > d/away; ln -s away d/link");
    cluster.masters[2].start();
    cluster.settle_as("what both did is on all", |tree| {
        let wanted = ["e/before", "e/more", "e/away", "e/link", "x/y"];
        let missing =
            wanted.iter().find(|path| !tree.entries.contains_key(std::path::Path::new(path)));
        missing.map_or(Ok(()), |path| Err(format!("{path} is missing")))
    });
    assert!(cluster.masters[0].conflicts().is_empty());
}
