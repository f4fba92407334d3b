//! `pleach man DIR`: the manual, made of what `--help` says.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::render;

/// Seconds since 1970 that stand for today, so that what is built twice is the same
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
const DATE_VARIABLE: &str = "SOURCE_DATE_EPOCH";

pub(super) fn run(dir: &Path, output: &Output) -> Result<Code, Failure> {
    let failed =
        |e: io::Error| Failure::new(format!("cannot write the manual to {}: {e}", dir.display()));
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let pages = pages(&command, &date()).map_err(failed)?;
    std::fs::create_dir_all(dir).map_err(failed)?;
    for (name, page) in &pages {
        std::fs::write(dir.join(name), page).map_err(failed)?;
    }
    let pages = render::count(pages.len() as u64, "page", "pages");
    output.remark(|_| format!("{pages} written to {}\n", dir.display()))?;
    Ok(Code::Done)
}

/// The pages of a command and its subcommands, with the names of their files.
fn pages(command: &Command, date: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    let mut ahead = vec![command.clone()];
    while let Some(command) = ahead.pop() {
        ahead.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        let page = Man::new(command)
            .date(date)
            .source(concat!("pleach ", env!("CARGO_PKG_VERSION")))
            .manual("pleach");
        let mut text = Vec::new();
        page.render(&mut text)?;
        pages.push((page.get_filename(), plain(&text)));
    }
    Ok(pages)
}

/// With `.sp` for blank lines and the line breaks beside them, which mandoc(1) warns of, and with the usual name
/// for what is said of exit codes (man-pages(7)).
fn plain(page: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = Vec::new();
    for line in page.trim_ascii_end().split(|&byte| byte == b'\n') {
        match (line, lines.last().copied()) {
            (b"", Some(b".br")) => {
                lines.pop();
                lines.push(b".sp");
            }
            (b"", _) => lines.push(b".sp"),
            (b".br", Some(b".sp")) => {}
            (b".SH EXTRA", _) => lines.push(b".SH EXIT STATUS"),
            _ => lines.push(line),
        }
    }
    lines.push(b"");
    lines.join(&b'\n')
}

fn date() -> String {
    let given = std::env::var(DATE_VARIABLE).ok().and_then(|seconds| seconds.parse::<i64>().ok());
    let unix_ms = given.map_or_else(super::now_ms, |seconds| seconds.saturating_mul(1_000));
    render::date_time(unix_ms).chars().take(10).collect()
}
