//! What the view shows, and what keys make of it. Pure: it asks for things to be done, and does none.

use pleach_core::values::VersionOf;
use pleach_daemon::control::{ConflictReport, Pick, VersionReport};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::render::{self, LineKind};

/// How far the keys for pages go.
const PAGE_LINES: usize = 15;

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Nothing,
    /// Read what is open.
    Refresh,
    /// Compare the versions of the selected conflict.
    Compare,
    /// Settle the selected conflict so.
    Settle(Pick),
    End,
}

/// What is on the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// What is open, and the versions of the one that is selected.
    List,
    /// What the versions changed; the first line that is shown.
    Diff { lines: Vec<(LineKind, String)>, top: usize },
    /// A question before something is settled.
    Sure { choice: Pick, question: Vec<String> },
    /// The keys.
    Help,
}

/// What came of the last thing that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Good(String),
    Bad(String),
}

pub(super) struct State {
    /// The store's directory, for people.
    pub(super) store: String,
    pub(super) open: Vec<ConflictReport>,
    pub(super) selected: usize,
    /// The selected one in full.
    pub(super) full: Option<ConflictReport>,
    pub(super) screen: Screen,
    pub(super) said: Option<Said>,
    pub(super) settled: usize,
    pub(super) now_ms: i64,
}

impl State {
    pub(super) fn new(store: String, open: Vec<ConflictReport>, now_ms: i64) -> Self {
        Self {
            store,
            open,
            selected: 0,
            full: None,
            screen: Screen::List,
            said: None,
            settled: 0,
            now_ms,
        }
    }

    /// The selected conflict, in full if that is known.
    pub(super) fn selected(&self) -> Option<&ConflictReport> {
        let listed = self.open.get(self.selected)?;
        let full = self.full.as_ref().filter(|full| is_same(full, listed));
        Some(full.unwrap_or(listed))
    }

    /// Whether the selected conflict is to be asked for in full.
    pub(super) fn lacks_full(&self) -> bool {
        let listed = self.open.get(self.selected);
        listed.is_some_and(|listed| !self.full.as_ref().is_some_and(|full| is_same(full, listed)))
    }

    /// Takes in what is open now. The selection stays with its conflict, or near it.
    pub(super) fn refreshed(&mut self, open: Vec<ConflictReport>) {
        let selected = self.open.get(self.selected);
        let again = selected.and_then(|was| {
            open.iter().position(|now| now.path == was.path && now.kind == was.kind)
        });
        self.selected = again.unwrap_or(self.selected).min(open.len().saturating_sub(1));
        self.open = open;
    }

    /// What a key asks for.
    pub(super) fn press(&mut self, key: KeyEvent) -> Ask {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Ask::End;
        }
        match &mut self.screen {
            Screen::List => self.press_in_list(key.code),
            Screen::Diff { lines, top } => {
                let last = lines.len().saturating_sub(1);
                if let Some(to) = moved(key.code, *top, last) {
                    *top = to;
                    return Ask::Nothing;
                }
                match key.code {
                    KeyCode::Esc | KeyCode::Left | KeyCode::Char('q' | 'd' | 'h') => {
                        self.screen = Screen::List;
                        Ask::Nothing
                    }
                    other => self.choose(other),
                }
            }
            Screen::Sure { choice, .. } => {
                let choice = choice.clone();
                match key.code {
                    KeyCode::Char('y' | 'Y') => {
                        self.screen = Screen::List;
                        Ask::Settle(choice)
                    }
                    KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {
                        self.screen = Screen::List;
                        self.said = None;
                        Ask::Nothing
                    }
                    _ => Ask::Nothing,
                }
            }
            Screen::Help => {
                self.screen = Screen::List;
                Ask::Nothing
            }
        }
    }

    fn press_in_list(&mut self, key: KeyCode) -> Ask {
        let last = self.open.len().saturating_sub(1);
        if let Some(to) = moved(key, self.selected, last) {
            self.selected = to;
            self.said = None;
            return Ask::Nothing;
        }
        match key {
            KeyCode::Char('q') | KeyCode::Esc => Ask::End,
            KeyCode::Char('r') => Ask::Refresh,
            KeyCode::Char('d' | 'l') | KeyCode::Enter | KeyCode::Right if !self.open.is_empty() => {
                Ask::Compare
            }
            KeyCode::Char('?') => {
                self.screen = Screen::Help;
                Ask::Nothing
            }
            other => self.choose(other),
        }
    }

    /// Asks whether what a key chooses is to be.
    fn choose(&mut self, key: KeyCode) -> Ask {
        let Some(conflict) = self.selected() else { return Ask::Nothing };
        let (choice, what, then) = match key {
            KeyCode::Char('b') => (
                Pick::Both,
                "Keep all versions".to_owned(),
                "What stands stays; the others get names of their own beside it.".to_owned(),
            ),
            KeyCode::Char('m') => (
                Pick::Merged,
                "Keep what the file holds now, as you have edited it".to_owned(),
                "What is open beside it is closed.".to_owned(),
            ),
            KeyCode::Char(digit @ '1'..='9') => {
                let number = digit as usize - '0' as usize;
                let Some(version) = conflict.versions.get(number - 1) else {
                    self.said = Some(Said::Bad(format!("there is no version {number} here")));
                    return Ask::Nothing;
                };
                let what = match version.of {
                    VersionOf::Deletion => {
                        format!("Let it be gone, as {} had it", render::author(version))
                    }
                    _ => format!("Keep version {number}, by {}", render::author(version)),
                };
                (Pick::Version(version.id.clone()), what, consequence(version))
            }
            _ => return Ask::Nothing,
        };
        let question = vec![conflict.path.to_string(), format!("{what}, on every master?"), then];
        self.screen = Screen::Sure { choice, question };
        self.said = None;
        Ask::Nothing
    }
}

/// Where a key for moving leads, if it is one.
fn moved(key: KeyCode, from: usize, last: usize) -> Option<usize> {
    let to = match key {
        KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => from + 1,
        KeyCode::PageUp => from.saturating_sub(PAGE_LINES),
        KeyCode::PageDown | KeyCode::Char(' ') => from + PAGE_LINES,
        KeyCode::Home | KeyCode::Char('g') => 0,
        KeyCode::End | KeyCode::Char('G') => last,
        _ => return None,
    };
    Some(to.min(last))
}

/// What becomes of the rest if this version is kept.
fn consequence(version: &VersionReport) -> String {
    let kept = "stays in .pleach/versions as long as the settings say";
    match (version.of, &version.elsewhere) {
        (VersionOf::Deletion, _) => {
            format!("It is removed, with all that is in it; what goes {kept}.")
        }
        (_, Some(path)) => format!("It is moved to {path}."),
        (_, None) => format!("What is replaced {kept}."),
    }
}

/// Whether two reports are of the same conflict with the same versions.
fn is_same(full: &ConflictReport, listed: &ConflictReport) -> bool {
    let ids = |report: &ConflictReport| {
        report
            .versions
            .iter()
            .map(|version| (version.order, version.written_ms))
            .collect::<Vec<_>>()
    };
    full.path == listed.path && full.kind == listed.kind && ids(full) == ids(listed)
}
