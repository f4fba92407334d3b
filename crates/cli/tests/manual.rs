//! The manual: a page for each subcommand, which renders without a warning.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use support::{command, pleach, scratch};

/// The subcommands that `--help` lists.
fn subcommands(of: &[&str]) -> Vec<String> {
    let help = pleach(Path::new("/"), &[of, &["--help"]].concat());
    assert_eq!(help.code, 0, "{}", help.err);
    let listed = help.out.split_once("Commands:\n").map_or("", |(_, listed)| listed);
    let names = listed.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        name.split(' ').next().map(str::to_owned)
    });
    names.filter(|name| name != "help").collect()
}

fn written(current: &Path, to: &str) -> BTreeMap<String, String> {
    let ran = command(env!("CARGO_BIN_EXE_pleach"), current)
        .args(["man", to])
        .env("SOURCE_DATE_EPOCH", "1795352711")
        .output()
        .unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let pages = std::fs::read_dir(current.join(to)).unwrap().map(|page| {
        let page = page.unwrap();
        let name = page.file_name().into_string().unwrap();
        (name, std::fs::read_to_string(page.path()).unwrap())
    });
    pages.collect()
}

#[test]
fn every_subcommand_has_its_page() {
    let (_dir, top) = scratch();
    let pages = written(&top, "made/man1");
    let mut wanted = BTreeSet::from(["pleach.1".to_owned()]);
    for name in subcommands(&[]) {
        wanted.extend(subcommands(&[&name]).iter().map(|below| format!("pleach-{name}-{below}.1")));
        wanted.insert(format!("pleach-{name}.1"));
    }
    assert!(wanted.contains("pleach-conflicts-resolve.1") && wanted.len() > 20, "{wanted:?}");
    assert_eq!(pages.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    assert!(
        pages["pleach.1"].contains(".SH EXIT STATUS\nExit codes: 0 done"),
        "{}",
        pages["pleach.1"]
    );
    let resolve = &pages["pleach-conflicts-resolve.1"];
    assert!(resolve.contains("\\fB\\-\\-keep\\fR") && resolve.contains("2026-11-22"), "{resolve}");
    assert_eq!(written(&top, "again"), pages, "of the same date the same");
}

#[test]
fn directory_that_can_not_be_made_is_told() {
    let (_dir, top) = scratch();
    std::fs::write(top.join("file"), "").unwrap();
    let ran = pleach(&top, &["man", "file/man1"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("cannot write the manual to file/man1: "), "{}", ran.err);
}

#[test]
fn pages_render_without_a_warning() {
    let (_dir, top) = scratch();
    let pages = written(&top, "man1");
    let programs: [&[&str]; 3] = [
        &["mandoc", "-T", "lint", "-W", "warning"],
        &["groff", "-man", "-ww", "-z", "-K", "utf8", "-T", "utf8"],
        &["man", "--warnings", "-P", "cat", "-l"],
    ];
    for program in programs {
        let run = |page: &str| {
            Command::new(program[0])
                .args(&program[1..])
                .arg(page)
                .current_dir(top.join("man1"))
                .env("LC_ALL", "C.UTF-8")
                .output()
        };
        for page in pages.keys() {
            let Ok(ran) = run(page) else {
                println!("skipped: {} is not installed", program[0]);
                break;
            };
            // What man(1) prints is the page.
            let said = if program[0] == "man" { Vec::new() } else { ran.stdout };
            let said = String::from_utf8([said, ran.stderr].concat()).unwrap();
            assert_eq!((said.as_str(), ran.status.success()), ("", true), "{} {page}", program[0]);
        }
    }
}
