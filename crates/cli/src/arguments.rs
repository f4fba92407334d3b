//! What can be asked of `pleach`: the command line, parsed and checked.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueHint};
use pleach_daemon::Multiaddr;
use pleach_daemon::config::parse_duration;
use pleach_daemon::control::Pick;

use crate::output::Format;
use crate::when::{self, When};

/// One directory tree, identical on several servers, all of which may write to it.
#[derive(Debug, Parser)]
#[command(name = "pleach", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not converged in time (wait), \
                        4 there are conflicts (conflicts --check)."
)]
pub(crate) struct Arguments {
    /// Print facts as one JSON value.
    #[arg(long, global = true)]
    json: bool,
    /// Act as if started in this directory.
    #[arg(short = 'C', long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) directory: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Arguments {
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Init or join if needed, then run in the foreground; prints how others join.
    Up(Up),
    /// Make DIR, with what it holds, the first master of a new store.
    Init(Init),
    /// Make DIR a master of the ticket's store, and bring its tree; DIR may hold files: they merge.
    Join(Join),
    /// Run in the foreground; SIGTERM and Ctrl-C stop it cleanly.
    Daemon(Daemon),
    /// Print a ticket, on one line, good for one master.
    Invite(Invite),
    /// Masters, who is connected, how far behind each is, work in hand, problems.
    Status(Store),
    /// Return once every connected master has on its disk what this one had when asked.
    Wait(Wait),
    /// The open conflicts, a line each; show one; settle some.
    #[command(args_conflicts_with_subcommands = true)]
    Conflicts(Conflicts),
    /// Who changed what, when, on which master; the newest first.
    Log(Log),
    /// The versions of a file, the newest first; also of one that is gone.
    Versions {
        /// A path in a store.
        path: PathBuf,
    },
    /// Make a file, or all that a directory held, be as it was; also what is gone. On every master, and on the disk
    /// of this one when the command ends.
    Restore(Restore),
    /// The members of the store; remove one.
    #[command(args_conflicts_with_subcommands = true)]
    Masters(Masters),
    /// What of a mass deletion waits for you here; let it pass, or take it back.
    Guard(Guard),
    /// The store's settings, the same on every master; set one (`set conflicts siblings`: versions as files).
    Set(Set),
    /// Re-read every file against the store; report bit rot and heal it from the other masters.
    Verify(Store),
    /// One JSON line for each thing that happens.
    Events(Store),
    /// Three masters in a scratch directory, a partition, a conflict, and how it heals.
    Demo(Demo),
    /// Write the manual to a directory: pleach(1), and a page for each subcommand.
    Man {
        /// The directory; made if it is not there.
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Print what makes a shell complete the arguments of pleach.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct Store {
    /// A directory in the store [default: the current one].
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

/// How a daemon runs.
#[derive(Debug, Args)]
pub(crate) struct Running {
    /// Listen here instead of where the settings say; may be given more than once.
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) listen: Vec<Multiaddr>,
    /// What to log: a level (error, warn, info, debug, trace), or target=level,… as RUST_LOG has it.
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Join the store of this ticket, if DIR is no master yet.
    #[arg(long, value_name = "TICKET")]
    pub(crate) join: Option<String>,
    /// What people shall call this master [default: the host's name].
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) running: Running,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// What people shall call this master [default: the host's name].
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// The directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// What `pleach invite` printed on a master of the store.
    pub(crate) ticket: String,
    /// What people shall call this master [default: the host's name].
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// The directory.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) running: Running,
}

#[derive(Debug, Args)]
pub(crate) struct Invite {
    #[command(flatten)]
    pub(crate) store: Store,
    /// How long the ticket is good for.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = expiry)]
    pub(crate) expires: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) store: Store,
    /// How long to wait at most; then it says who has not got it, and why, and exits with 3.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Conflicts {
    #[command(subcommand)]
    pub(crate) act: Option<ConflictsAct>,
    #[command(flatten)]
    pub(crate) store: Store,
    /// Exit with 4 if there are any.
    #[arg(long)]
    pub(crate) check: bool,
    /// Look at them and settle them on the whole terminal, a key for each thing to do.
    #[arg(short, long, conflicts_with = "check")]
    pub(crate) interactive: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConflictsAct {
    /// The versions at PATH: who, when, size, what they go back to, which stands and why.
    Show {
        /// A path in a store.
        path: PathBuf,
        /// Print the bytes of this version and nothing else: its id or the beginning of it, or `ancestor`.
        #[arg(long, value_name = "VERSION", value_parser = version)]
        content: Option<String>,
    },
    /// What the versions at PATH changed, line by line; or merge them with a tool.
    Diff {
        /// A path in a store.
        path: PathBuf,
        /// Run this merge tool, and take what it makes as the resolution: meld, vimdiff, nvimdiff, kdiff3, or
        /// a line for the shell with $BASE, $LOCAL, $REMOTE and $MERGED in it, as git has them.
        #[arg(long, value_name = "CMD")]
        tool: Option<String>,
    },
    /// Settle the conflicts at PATH, on every master, and on the disk of this one when the command ends.
    Resolve(Resolve),
}

#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// Paths in a store, or patterns over them with `*`, `?`, `**` and sets in brackets.
    #[arg(required_unless_present = "all", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Settle every open conflict of the store that holds the current directory.
    #[arg(long, conflicts_with = "paths")]
    pub(crate) all: bool,
    /// What shall stand: a version's id or its beginning; `ours`, what this master wrote; `theirs`, what another
    /// wrote; `both`, the others beside it under names of their own; `merged`, what the file holds now, if you
    /// have edited it since.
    #[arg(long, value_name = "VERSION|ours|theirs|both|merged", value_parser = pick)]
    pub(crate) keep: Pick,
    /// Say what would be settled, and settle nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Settle only if these are the versions that are open, all of them and no others: their ids, or the
    /// beginnings of those, with commas between.
    #[arg(long, value_name = "VERSION,…", value_delimiter = ',', value_parser = version, conflicts_with = "all")]
    pub(crate) expect: Vec<String>,
    /// Settle whatever is open by then, and take it as done where nothing is.
    #[arg(long, conflicts_with = "expect")]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// A file or directory in a store, which may be gone; of a directory, what it holds and held too
    /// [default: the store that holds the current directory].
    pub(crate) path: Option<PathBuf>,
    /// Nothing older: so long ago (2h, 3d), or a time in UTC (2026-11-23 17:40:02).
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) since: Option<When>,
    /// Only what was done on this master: its name, or its id or the beginning of that.
    #[arg(long, value_name = "NAME")]
    pub(crate) master: Option<String>,
    /// How many entries at most.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
}

// Its own `--version` takes the place of the program's.
#[derive(Debug, Args)]
#[command(disable_version_flag = true)]
pub(crate) struct Restore {
    /// A file or directory in a store, which may be gone. What was made since stays.
    pub(crate) path: PathBuf,
    /// This version: its id, or the beginning of it [default: what was deleted, as it was last].
    #[arg(id = "former", long = "version", value_name = "VERSION", value_parser = version_id, conflicts_with = "at")]
    pub(crate) version: Option<String>,
    /// As it was then: so long ago (2h, 3d), or at a time in UTC (2026-11-23 17:40:02).
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    pub(crate) at: Option<When>,
    /// Say what would be restored, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait at most for bytes that other masters have; then what is here is restored.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Masters {
    #[command(subcommand)]
    pub(crate) act: Option<MastersAct>,
    #[command(flatten)]
    pub(crate) store: Store,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MastersAct {
    /// Remove a member: it is disconnected, and what it writes from then on is refused.
    Remove {
        /// Its name, or its id or the beginning of that.
        name: String,
        #[command(flatten)]
        store: Store,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Guard {
    #[command(flatten)]
    pub(crate) store: Store,
    /// It was meant: remove it on all masters.
    #[arg(long, conflicts_with = "undo")]
    pub(crate) allow: bool,
    /// It was not: bring it back here, from the other masters.
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// The setting [default: all are listed].
    pub(crate) key: Option<String>,
    /// What it is to be [default: what it is is shown].
    pub(crate) value: Option<String>,
    /// A directory in the store [default: the current one].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Where to make the three masters; removed at the end unless --keep [default: a new one].
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) scratch: Option<PathBuf>,
    /// Leave the three masters where they are.
    #[arg(long)]
    pub(crate) keep: bool,
    /// What to log, as `daemon` has it.
    #[arg(long, value_name = "FILTER", default_value = "off")]
    pub(crate) log: String,
}

fn expiry(text: &str) -> Result<Duration, String> {
    let year = Duration::from_secs(366 * 24 * 3600);
    match parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("a ticket must be good for some time".to_owned()),
        Ok(duration) if duration > year => Err("a ticket is good for a year at most".to_owned()),
        other => other.map_err(|e| e.to_string()),
    }
}

fn pick(text: &str) -> Result<Pick, String> {
    match text {
        "ours" => Ok(Pick::Ours),
        "theirs" => Ok(Pick::Theirs),
        "both" => Ok(Pick::Both),
        "merged" => Ok(Pick::Merged),
        id if !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(Pick::Version(id.to_ascii_lowercase()))
        }
        _ => Err("expected a version's id (`pleach conflicts show PATH` has them), `ours`, \
                  `theirs`, `both` or `merged`"
            .to_owned()),
    }
}

fn version(text: &str) -> Result<String, String> {
    match text {
        "ancestor" => Ok(text.to_owned()),
        id if !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(id.to_ascii_lowercase())
        }
        _ => Err("expected a version's id: `pleach conflicts show PATH` has them".to_owned()),
    }
}

fn version_id(text: &str) -> Result<String, String> {
    match text {
        id if !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(id.to_ascii_lowercase())
        }
        _ => Err("expected a version's id: `pleach versions PATH` has them".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn kept_version_is_an_id_or_a_word() {
        assert_eq!(pick("OURS").ok(), None);
        assert_eq!(pick("ours"), Ok(Pick::Ours));
        assert_eq!(pick("1F3a"), Ok(Pick::Version("1f3a".to_owned())));
        assert!(pick("").is_err());
    }

    #[test]
    fn ticket_without_a_time_or_for_ages_is_refused() {
        assert!(expiry("0").is_err());
        assert!(expiry("400d").is_err());
        assert_eq!(expiry("24h"), Ok(Duration::from_secs(86_400)));
    }
}
