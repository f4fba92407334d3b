//! `pleach conflicts -i`: the open conflicts on the whole terminal, and a key for each thing to do.
//!
//! What is shown, and what keys make of it, is in `state`; how it looks, in `draw`; here the daemon is asked. A
//! conflict is settled only if it still is what was shown.

mod draw;
mod state;

#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pleach_daemon::control::{Client, ClientError, ConflictReport, Pick, Reply, Request};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::{all, at, diff};
use crate::asking::{daemon, follow};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{place, render};
use draw::Look;
use state::{Ask, Said, Screen, State};

/// How often it is looked what is open while nobody presses a key; less often where that takes long.
const REFRESHED_EVERY: Duration = Duration::from_secs(2);
const REFRESH_SHARE: u32 = 20;

pub(in crate::commands) fn view(dir: Option<&Path>, output: &Output) -> Result<Code, Failure> {
    if !(output.is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure::usage("-i needs a terminal").next("pleach conflicts lists them"));
    }
    let root = place::root_of(dir)?;
    let mut client = daemon(&root)?;
    let open = all(&mut client)?;
    let state = State::new(root.display().to_string(), open, crate::commands::now_ms());
    let mut view = View { client, root, state, due: Instant::now() + REFRESHED_EVERY };
    let failed = |e: io::Error| Failure::new(format!("cannot draw on this terminal: {e}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let ended = view.run(&mut terminal, Look::new(output.style()));
    let restored = ratatui::try_restore().map_err(failed);
    ended.and(restored)?;
    if view.state.settled > 0 {
        follow(&mut view.client, "settled");
    }
    let (settled, open) = (view.state.settled, view.state.open.len());
    output.remark(|_| format!("{settled} settled, {open} open\n"))?;
    Ok(Code::Done)
}

struct View {
    client: Client,
    root: PathBuf,
    state: State,
    /// When it is looked again what is open.
    due: Instant,
}

impl View {
    fn run(&mut self, terminal: &mut DefaultTerminal, look: Look) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::new(format!("cannot use this terminal: {e}"));
        loop {
            self.complete()?;
            self.state.now_ms = crate::commands::now_ms();
            terminal.draw(|frame| draw::draw(frame, &self.state, look)).map_err(failed)?;
            let patience = self.due.saturating_duration_since(Instant::now());
            let ask = match event::poll(patience).map_err(failed)? {
                false => Ask::Refresh,
                true => match event::read().map_err(failed)? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => self.state.press(key),
                    _ => Ask::Nothing,
                },
            };
            match ask {
                Ask::Nothing => {}
                Ask::Refresh => self.refresh()?,
                Ask::Compare => self.compare()?,
                Ask::Settle(choice) => self.settle(choice)?,
                Ask::End => return Ok(()),
            }
        }
    }

    fn refresh(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        self.state.refreshed(all(&mut self.client)?);
        self.due = Instant::now() + REFRESHED_EVERY.max(start.elapsed() * REFRESH_SHARE);
        Ok(())
    }

    /// Asks for the selected conflict in full, if that is not known.
    fn complete(&mut self) -> Result<(), Failure> {
        let Some(conflict) = self.state.selected().filter(|_| self.state.lacks_full()) else {
            return Ok(());
        };
        let kind = conflict.kind;
        let mut here = at(&mut self.client, &conflict.path.0)?.into_iter();
        self.state.full = here.find(|here| here.kind == kind);
        Ok(())
    }

    fn compare(&mut self) -> Result<(), Failure> {
        let Some(conflict) = self.state.selected() else { return Ok(()) };
        let (path, conflict) = (&conflict.path.0, std::slice::from_ref(conflict));
        match diff::compare(&mut self.client, &self.root, path, conflict) {
            Ok(compared) => {
                let texts = compared.iter().map(|(_, text)| text);
                let lines = texts.flat_map(render::diff_lines).collect();
                self.state.screen = Screen::Diff { lines, top: 0 };
            }
            Err(failure) => self.state.said = Some(Said::Bad(failure.to_string())),
        }
        Ok(())
    }

    fn settle(&mut self, choice: Pick) -> Result<(), Failure> {
        let Some(conflict) = self.state.selected() else { return Ok(()) };
        let path = conflict.path.clone();
        if choice == Pick::Merged {
            super::look(&mut self.client, vec![path.clone()])?;
        }
        let here = self.state.open.iter().filter(|other| other.path == path);
        let ids = |report: &ConflictReport| {
            report.versions.iter().map(|version| version.id.clone()).collect::<Vec<_>>()
        };
        let expect = Some(here.flat_map(ids).collect());
        let request = Request::Resolve { path: path.clone(), choice, expect, dry_run: false };
        self.state.said = Some(match self.client.call(request) {
            Ok(Reply::Done) => {
                self.state.settled += 1;
                Said::Good(format!("settled {path}"))
            }
            Ok(_) => return Err(super::other_answer()),
            Err(ClientError::Refused(refusal)) => Said::Bad(refusal.to_string()),
            Err(error) => return Err(error.into()),
        });
        self.refresh()
    }
}
