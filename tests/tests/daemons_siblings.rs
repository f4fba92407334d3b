//! Conflicts as files beside the path, over real daemons: `pleach set conflicts siblings`.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::fs;

use pleach_tests::daemons::{
    Cluster, Master, Tree, await_open, content, resolve, shell, shown, versions,
};

/// Three masters, with conflicts as files.
fn cluster() -> Cluster {
    let cluster = Cluster::of(3);
    let set = cluster.masters[0].pleach(["set", "conflicts", "siblings", "--dir", "."]);
    let _ = set.ok();
    cluster
}

/// What the first two of them do apart, which makes so many conflicts.
fn apart(cluster: &Cluster, acts: [&str; 2], conflicts: usize) {
    cluster.cut_all();
    for (master, act) in cluster.masters.iter().zip(acts) {
        shell(master.directory(), act);
        cluster.flush(master);
    }
    cluster.heal_all();
    await_open(cluster, conflicts);
}

fn settled(cluster: &Cluster) -> Tree {
    cluster.settle("all masters are one again")
}

/// The names in the root, with what the files hold.
fn listing(master: &Master) -> Vec<(String, String)> {
    let entries = fs::read_dir(master.directory()).unwrap().map(Result::unwrap);
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != ".pleach").collect();
    names.sort();
    let read = |name: &String| fs::read_to_string(master.path(name)).unwrap_or_default();
    names.iter().map(|name| (name.clone(), read(name))).collect()
}

#[track_caller]
fn check(cluster: &Cluster, what: &str, expected: &[(&str, &str)]) {
    let wanted: Vec<(String, String)> =
        expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let as_wanted = |_: &Tree| match listing(&cluster.masters[0]) {
        now if now == wanted => Ok(()),
        now => Err(format!("{now:#?}")),
    };
    let _ = cluster.settle_as(what, as_wanted);
}

/// `page.html` was edited by a and by b; which of the two stands, and which is beside it.
fn edited() -> (Cluster, (&'static str, &'static str), String) {
    let cluster = cluster();
    shell(cluster.masters[0].directory(), "echo 0 > page.html; chmod 640 page.html");
    cluster.settle_to(0, "the page is on all");
    apart(&cluster, ["echo of a > page.html", "echo of b > page.html"], 1);
    let _ = settled(&cluster);
    let texts = match fs::read_to_string(cluster.masters[2].path("page.html")).unwrap().as_str() {
        "of a\n" => ("of a\n", "of b\n"),
        _ => ("of b\n", "of a\n"),
    };
    let author = &texts.1[3..4];
    let sibling = format!("page (conflict {author} 1).html");
    (cluster, texts, sibling)
}

#[test]
fn version_that_does_not_stand_is_a_file_beside_the_path_on_every_master() {
    let (cluster, (stands, other), sibling) = edited();
    check(&cluster, "it is shown", &[(&sibling, other), ("page.html", stands)]);
    for master in &cluster.masters {
        let conflict = shown(master, "page.html");
        let told: Vec<_> = versions(&conflict).iter().map(|v| v["sibling"].as_str()).collect();
        assert_eq!(told, [None, Some(&*sibling)], "{conflict:#}");
        assert_eq!(shown(master, &sibling), conflict, "by its own path as well");
        let text = master.pleach(["conflicts", "show", "page.html"]).ok().stdout;
        assert!(text.contains(&sibling), "{text}");
        let log = master.pleach(["log", &sibling]).ok().stdout;
        assert!(log.contains("edited"), "{log}");
    }
    let _ = resolve(&cluster.masters[2], &["page.html", "--keep", "theirs"]).ok();
    await_open(&cluster, 0);
    let left = settled(&cluster);
    assert_eq!(left.file_count(), 1, "{left:#?}");
}

#[test]
fn sibling_is_edited_removed_and_renamed_each_on_another_master() {
    let (cluster, (stands, _), sibling) = edited();
    let [a, b, c] = &cluster.masters[..] else { panic!("three masters") };
    // By a rename, as editors save.
    shell(c.directory(), &format!("echo better > .tmp; mv .tmp '{sibling}'"));
    check(&cluster, "the edit is there", &[(&sibling, "better\n"), ("page.html", stands)]);
    shell(b.directory(), &format!("echo best > '{sibling}'; chmod 600 '{sibling}'"));
    check(&cluster, "the next one too", &[(&sibling, "best\n"), ("page.html", stands)]);
    let conflict = shown(a, "page.html");
    let edited = versions(&conflict).iter().find(|v| v["stands"] == false).unwrap();
    assert_eq!(content(a, "page.html", edited["id"].as_str().unwrap()).ok().stdout, "best\n");
    let tree = settled(&cluster);
    let mode = |name: &str| tree.entries[std::path::Path::new(name)].mode;
    assert_ne!(mode(&sibling), mode("page.html"), "{tree:#?}");
    shell(a.directory(), &format!("mv '{sibling}' mine.html"));
    check(&cluster, "it has its own name", &[("mine.html", "best\n"), ("page.html", stands)]);
    await_open(&cluster, 0);
    apart(&cluster, ["echo 1 > mine.html", "echo 2 > mine.html"], 1);
    let tree = settled(&cluster);
    let name = tree.entries.keys().find_map(|path| {
        let name = path.to_str().unwrap();
        name.starts_with("mine (conflict ").then(|| name.to_owned())
    });
    fs::remove_file(c.path(&name.unwrap())).unwrap();
    await_open(&cluster, 0);
    assert_eq!(settled(&cluster).file_count(), 2);
}

#[test]
fn what_shares_its_name_is_beside_it_and_goes_with_its_path() {
    let cluster = cluster();
    apart(&cluster, ["echo of a > news; ln -s a link", "echo of b > news; ln -s b link"], 2);
    let tree = settled(&cluster);
    let names: Vec<_> = tree.entries.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(names[0].starts_with("link (conflict ") || names[1].starts_with("link (conflict "));
    let sibling = names.iter().find(|name| name.starts_with("link (")).unwrap();
    assert!(fs::read_link(cluster.masters[2].path(sibling)).is_ok(), "a link stays one");
    shell(cluster.masters[1].directory(), "mv news old");
    let tree = cluster.settle_as("the version goes with its file", |tree| {
        let names: Vec<_> = tree.entries.keys().map(|path| path.to_str().unwrap()).collect();
        let went = names.iter().any(|name| name.starts_with("old (conflict "));
        let stayed = names.iter().any(|name| name.starts_with("news"));
        if went && !stayed { Ok(()) } else { Err(format!("{names:?}")) }
    });
    assert_eq!(tree.entries.len(), 4);
    shell(cluster.masters[2].directory(), "rm old link");
    await_open(&cluster, 0);
    assert_eq!(settled(&cluster).entries.len(), 0);
}

#[test]
fn longest_names_have_siblings_too_and_hidden_ones_are_not_lost() {
    let cluster = cluster();
    let long = format!("{}.php", "é".repeat(125) + "x");
    assert_eq!(long.len(), 255);
    let short = "x".repeat(255);
    let acts = ["a", "b"].map(|who| format!("echo of {who} > '{long}'; echo of {who} > {short}"));
    apart(&cluster, [&acts[0], &acts[1]], 2);
    let tree = settled(&cluster);
    let names: Vec<_> = tree.entries.keys().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    let siblings: Vec<_> = names.iter().filter(|name| name.contains(" (conflict ")).collect();
    assert_eq!(siblings.len(), 2, "{names:?}");
    assert!(siblings.iter().all(|name| name.len() <= 255), "{names:?}");
    assert!(siblings.iter().any(|name| name.ends_with(" 1).php")), "{names:?}");
    let set = |value: &str| {
        let _ = cluster.masters[1].pleach(["set", "conflicts", value, "--dir", "."]).ok();
    };
    set("hidden");
    let hidden = cluster.settle_as("they vanish", |tree| match tree.entries.len() {
        2 => Ok(()),
        count => Err(format!("{count} entries")),
    });
    assert_eq!(hidden.file_count(), 2);
    await_open(&cluster, 2);
    set("siblings");
    let again = cluster.settle_as("they are there again", |tree| match tree.entries.len() {
        4 => Ok(()),
        count => Err(format!("{count} entries")),
    });
    let without_times = |tree: Tree| tree.without_directory_times();
    assert_eq!(without_times(again), without_times(tree), "with the same bytes");
}
