//! Surveys: looking at the disk, and what was found becoming a change.

use super::{Blocked, Engine, Output, Turn};
use crate::snapshot::Survey;
use crate::values::{Act, Acts, Contents, Event, Looked};
use crate::vocabulary::TreePath;

/// How many paths an event names.
const EVENT_PATHS_MAX: usize = 64;

impl Engine {
    pub(super) fn start_survey(&mut self, now: u64) {
        let scopes = self.agenda.take_due(now);
        let survey = Box::new(Survey::new(scopes));
        self.continue_survey(now, survey);
    }

    pub(super) fn looked(&mut self, now: u64, looked: Looked) {
        match std::mem::replace(&mut self.turn, Turn::Idle) {
            Turn::Looking(mut survey) => {
                survey.absorb(&self.base, looked);
                self.continue_survey(now, survey);
            }
            // The driver answers what was asked; anything else is its mistake and harmless.
            other => self.turn = other,
        }
    }

    fn continue_survey(&mut self, now: u64, mut survey: Box<Survey>) {
        if self.frozen.is_some() {
            return;
        }
        match survey.next_look(&self.base) {
            Some(look) => {
                self.turn = Turn::Looking(survey);
                self.queued.push(Output::Look(look));
            }
            None => self.finish_survey(now, *survey),
        }
    }

    fn finish_survey(&mut self, now: u64, survey: Survey) {
        let snapshot = survey.finish(&self.base, self.replica.tree(), &self.disturbed);
        for path in &snapshot.looked {
            let events = self.problems.looked_at(path);
            self.queued.extend(events.into_iter().map(Output::Event));
        }
        for problem in &snapshot.problems {
            let blocked = Blocked::Path(problem.path.clone());
            if let Some(event) = self.problems.note(now, blocked, problem.clone()) {
                self.event(event);
            }
        }
        for scope in &snapshot.reread {
            let delay = self.agenda.unsettled_delay(now, scope.path());
            self.agenda.again(now, scope.clone(), delay);
        }
        for path in &snapshot.edited {
            self.agenda.published(now, path);
        }
        let paths = event_paths(&snapshot.acts, &snapshot.paths);
        let count = snapshot.acts.acts.len() as u64;
        let performed = match self.replica.perform(&snapshot.acts) {
            Some((local, performed)) => {
                self.event(Event::LocalChange { paths, acts: count });
                let contents: Contents = snapshot.contents.clone();
                self.publish(local, contents);
                performed
            }
            None => Vec::new(),
        };
        let adopted = snapshot.settle(&mut self.base, &performed);
        self.touched.extend(adopted);
    }
}

fn event_paths(acts: &Acts, paths: &[TreePath]) -> Vec<TreePath> {
    debug_assert_eq!(acts.acts.len(), paths.len(), "each act has its path");
    let is_touch = |act: &Act| matches!(act, Act::Touch { .. });
    let named = acts.acts.iter().zip(paths).filter(|(act, _)| !is_touch(act));
    named.map(|(_, path)| path.clone()).take(EVENT_PATHS_MAX).collect()
}
