//! Pages with commands: what is run on three masters has to print what the page says it does.
//!
//! Ids are other ones each time, and stand for the same all through the page; times, ages and the order of
//! stamps are compared by their shape, columns whatever their width.
#![allow(clippy::unwrap_used, reason = "a test ends where its scaffolding fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Cluster, pleach_path, wait_until, write};

/// Does what a page says, and sees whether what it says is printed is.
///
/// # Panics
///
/// When it isn't, or when there are fewer steps than so many.
pub fn follow(page: &str, steps_min: usize) {
    let cluster = Cluster::named(&["web1", "web2", "web3"], |_, _| {});
    let mut ids = Ids::default();
    let mut apart = false;
    let steps = steps(page);
    assert!(steps.len() > steps_min, "only {} steps are found", steps.len());
    for step in steps {
        match step {
            Step::Apart => {
                cluster.settle("what was before is on all");
                cluster.cut_all();
                // Who acts later on the page has the larger stamps here, too.
                let ahead = &cluster.masters[1];
                for bump in 0..8 {
                    write(&ahead.path(".ahead"), bump.to_string());
                    cluster.flush(ahead);
                }
                std::fs::remove_file(ahead.path(".ahead")).unwrap();
                cluster.flush(ahead);
                apart = true;
            }
            Step::Together => {
                cluster.heal_all();
                cluster.settle("they are one again");
                apart = false;
            }
            Step::Run { master, command, output } => {
                let master = cluster.masters.iter().find(|other| other.name() == master).unwrap();
                let acts = ["resolve", "--tool", "restore"];
                let is_act = acts.iter().any(|act| command.contains(act));
                let mut run = || {
                    let printed = shell(master.directory(), &ids.in_command(command));
                    ids.compare(&output, &printed).map_err(|wrong| format!("$ {command}\n{wrong}"))
                };
                if is_act || output.is_empty() {
                    run().unwrap_or_else(|wrong| panic!("{wrong}"));
                } else {
                    // What was done on another master may be on its way.
                    wait_until("the page is right", Duration::from_secs(60), run);
                }
                if apart {
                    cluster.flush(master);
                }
            }
        }
    }
}

/// What the page has for a test.
enum Step<'a> {
    /// The masters are cut from each other.
    Apart,
    /// They meet again.
    Together,
    /// A command on a master, and what it prints.
    Run { master: &'a str, command: &'a str, output: Vec<&'a str> },
}

fn steps(page: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut in_console = false;
    for line in page.lines() {
        match line {
            "<!-- test: apart -->" => steps.push(Step::Apart),
            "<!-- test: together -->" => steps.push(Step::Together),
            "```console" => in_console = true,
            "```" => in_console = false,
            line if !in_console => assert!(!line.starts_with("<!-- test"), "{line}"),
            line => match (line.split_once("$ "), steps.last_mut()) {
                (Some((master, command)), _) if master.starts_with("web") => {
                    steps.push(Step::Run { master, command, output: Vec::new() });
                }
                (_, Some(Step::Run { output, .. })) => output.push(line),
                _ => panic!("{line}: no command prints this"),
            },
        }
    }
    steps
}

fn shell(directory: &Path, command: &str) -> String {
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", pleach_path().parent().unwrap().display());
    let ran =
        Command::new("sh").args(["-c", command]).current_dir(directory).env("PATH", path).output();
    let ran = ran.unwrap();
    let (out, err) =
        (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
    out + &err
}

/// The ids of the page, and what they are called this time.
#[derive(Clone, Default)]
struct Ids(BTreeMap<String, String>);

fn is_id(word: &str) -> bool {
    let is_digit = |letter: char| matches!(letter, '0'..='9' | 'a'..='f');
    (8..=12).contains(&word.len()) && word.chars().all(is_digit)
}

fn words(line: &str) -> Vec<String> {
    let line = line.replace("just now", "0 s ago");
    line.split_whitespace().map(str::to_owned).collect()
}

fn split(word: &str) -> (&str, &str, &str) {
    let is_edge = |letter: char| "[](),;:".contains(letter);
    let inner = word.trim_matches(is_edge);
    let at = word.find(inner).unwrap_or(0);
    (&word[..at], inner, &word[at + inner.len()..])
}

impl Ids {
    fn in_command(&self, command: &str) -> String {
        let name = |word: &str| self.0.get(word).cloned().unwrap_or_else(|| word.to_owned());
        command.split(' ').map(name).collect::<Vec<_>>().join(" ")
    }

    fn fits(&mut self, page: &str, actual: &str) -> bool {
        let (page, actual) = (words(page), words(actual));
        page.len() == actual.len()
            && page.iter().zip(&actual).enumerate().all(|(at, (page_word, actual))| {
                let unit = page.get(at + 1).map_or("", String::as_str);
                self.word_fits(page_word, actual, unit)
            })
    }

    fn word_fits(&mut self, page: &str, actual: &str, next: &str) -> bool {
        let (before, word, after) = split(page);
        let (actual_before, actual_word, actual_after) = split(actual);
        if (before, after) != (actual_before, actual_after) {
            return false;
        }
        if is_id(word) && is_id(actual_word) {
            return self.0.entry(word.to_owned()).or_insert_with(|| actual_word.to_owned())
                == actual_word;
        }
        let shape = |word: &str| word.replace(|letter: char| letter.is_ascii_digit(), "0");
        let is_number = |word: &str| word.chars().all(|letter| letter.is_ascii_digit());
        let is_time = word.contains(['-', ':']) && shape(word) == shape(actual_word);
        let is_age = is_number(word) && is_number(actual_word) && next.starts_with(['s', 'm']);
        // Whose clock is ahead is nobody's business.
        let is_clock =
            ["earlier", "later"].contains(&word) && ["earlier", "later"].contains(&actual_word);
        let is_order = is_number(word) && is_number(actual_word) && word.len() > 3;
        word == actual_word || is_clock || is_time || is_age || is_order
    }

    /// What the page says is printed, all of it and nothing else.
    fn compare(&mut self, page: &[&str], actual: &str) -> Result<(), String> {
        let mut ids = self.clone();
        let lines: Vec<&str> = actual.lines().collect();
        let fits = lines.len() == page.len()
            && page.iter().zip(&lines).all(|(page, actual)| ids.fits(page, actual));
        if !fits {
            return Err(format!("the page says\n{}\nand it is\n{actual}", page.join("\n")));
        }
        *self = ids;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_tells_what_differs() {
        let mut ids = Ids::default();
        let page = ["web1  2   [91d20f7e] 5 s ago at 2026-11-23", "[91d20f7e] again"];
        assert!(
            ids.compare(&page, "web1 2 [00aa11bb]  57 s ago at 2027-01-01\n[00aa11bb] again\n")
                .is_ok()
        );
        assert_eq!(ids.in_command("keep 91d20f7e"), "keep 00aa11bb");
        for wrong in [
            "web1 2 [00aa11bb] 57 s ago at 2027-01-01\n",
            "web1 3 [00aa11bb] 57 s ago at 2027-01-01\n[00aa11bb] again\n",
            "web1 2 [00aa11bb] 57 s ago at 2027-01-01\n[cccccccc] again\n",
            "web2 2 [00aa11bb] 57 s ago at 2027-01-01\n[00aa11bb] again\n",
        ] {
            assert!(ids.compare(&page, wrong).is_err(), "{wrong}");
        }
    }
}
