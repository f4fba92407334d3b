//! How the view looks.

use pleach_daemon::control::ConflictReport;
use ratatui::Frame;
use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, Wrap};

use super::state::{Said, Screen, State};
use crate::render::{self, LineKind};

const KEYS: [(&str, &str); 9] = [
    ("up, down, PgUp, PgDn, Home, End", "choose a conflict, or scroll"),
    ("1 to 9", "keep this version, on every master"),
    ("b", "keep all: the others get names of their own"),
    ("m", "keep what you have edited the file to hold"),
    ("d, Enter", "what each version changed"),
    ("r", "look again what is open"),
    ("y, n", "yes, no"),
    ("q, Esc", "back, or leave"),
    ("?", "this"),
];

/// Whether the terminal may be shown colours.
#[derive(Clone, Copy)]
pub(super) struct Look(render::Style);

impl Look {
    pub(super) fn new(style: render::Style) -> Self {
        Self(style)
    }

    fn colour(self, colour: Color) -> Style {
        match self.0 {
            render::Style::Colours => Style::new().fg(colour),
            render::Style::Plain => Style::new(),
        }
    }

    fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, look: Look) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(2)])
            .areas(frame.area());
    let count = render::count(state.open.len() as u64, "open conflict", "open conflicts");
    frame.render_widget(Line::styled(format!("{count} in {}", state.store), look.bold()), head);
    match &state.screen {
        Screen::Diff { lines, top } => draw_diff(frame, body, state, (lines, *top), look),
        _ => draw_list(frame, body, state, look),
    }
    match &state.screen {
        Screen::Sure { question, .. } => draw_question(frame, body, question, look),
        Screen::Help => {
            let lines = KEYS.iter().map(|(key, what)| Line::raw(format!(" {key:32} {what}")));
            popup(frame, body, " keys ", Text::from_iter(lines));
        }
        Screen::List | Screen::Diff { .. } => {}
    }
    draw_foot(frame, foot, state, look);
}

fn draw_list(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let Some(selected) = state.selected() else {
        let text = Line::styled("no conflicts", look.colour(Color::Green));
        return frame.render_widget(text, area);
    };
    let versions = selected.versions.len() + usize::from(selected.ancestor.is_some());
    let detail = u16::try_from(versions + 7).unwrap_or(u16::MAX).min(area.height / 2);
    let [list, detail] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(detail)]).areas(area);
    // Only what is seen is made: there may be ten thousand.
    let height = usize::from(list.height.saturating_sub(1)).max(1);
    let first =
        state.selected.saturating_sub(height / 2).min(state.open.len().saturating_sub(height));
    let shown = state.open.iter().enumerate().skip(first).take(height);
    let rows = shown.map(|(index, conflict)| row(state, index, conflict, look));
    let widths = [
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(26),
        Constraint::Length(8),
        Constraint::Length(12),
    ];
    let heads = Row::new(["", "PATH", "WHAT HAPPENED", "VERSIONS", "SINCE"]).style(look.bold());
    frame.render_widget(Table::new(rows, widths).header(heads), list);
    draw_detail(frame, detail, selected, look);
}

fn row<'a>(state: &State, index: usize, conflict: &'a ConflictReport, look: Look) -> Row<'a> {
    let is_selected = index == state.selected;
    let since = render::since(conflict);
    let row = Row::new([
        Cell::new(if is_selected { ">" } else { " " }),
        Cell::new(conflict.path.to_string()).style(look.colour(Color::Yellow)),
        Cell::new(render::happened(conflict)),
        Cell::new(conflict.versions.len().to_string()),
        Cell::new(since.map_or("earlier".to_owned(), |then| render::age(then, state.now_ms))),
    ]);
    if is_selected { row.style(Style::new().add_modifier(Modifier::REVERSED)) } else { row }
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, conflict: &ConflictReport, look: Look) {
    let title = format!(" {}: {} ", conflict.path, render::happened(conflict));
    let block = Block::bordered().title(title);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let versions = conflict.versions.iter().enumerate();
    let numbered =
        versions.map(|(index, version)| ((index + 1).to_string(), version, render::state(version)));
    let ancestor = conflict.ancestor.iter();
    let all = numbered.chain(ancestor.map(|v| (String::new(), v, "ancestor".to_owned())));
    let rows: Vec<Row<'_>> = all
        .map(|(number, version, state)| {
            let when = render::date_time(version.written_ms.unwrap_or(version.modified_ms));
            Row::new([
                Cell::new(number).style(look.bold()),
                Cell::new(render::author(version)),
                Cell::new(when),
                Cell::new(render::what(version)),
                Cell::new(version.size.map_or("-".to_owned(), render::size)),
                Cell::new(&*version.mode),
                Cell::new(state),
            ])
        })
        .collect();
    let height = u16::try_from(rows.len() + 1).unwrap_or(u16::MAX);
    let [table, why] =
        Layout::vertical([Constraint::Length(height), Constraint::Min(0)]).areas(inner);
    let widths = [
        Constraint::Length(2),
        Constraint::Length(16),
        Constraint::Length(20),
        Constraint::Fill(1),
        Constraint::Length(10),
        Constraint::Length(5),
        Constraint::Fill(2),
    ];
    let heads = ["", "WRITTEN BY", "AT", "WHAT", "SIZE", "MODE", "STATE"];
    let heads = Row::new(heads).style(look.bold());
    frame.render_widget(Table::new(rows, widths).header(heads), table);
    let reason = Paragraph::new(render::why(conflict)).style(look.dim()).wrap(Wrap { trim: true });
    frame.render_widget(reason, why);
}

fn draw_diff(
    frame: &mut Frame<'_>,
    area: Rect,
    state: &State,
    (lines, top): (&[(LineKind, String)], usize),
    look: Look,
) {
    let path = state.selected().map_or(String::new(), |conflict| format!(" {} ", conflict.path));
    let block = Block::bordered().title(path);
    let height = usize::from(block.inner(area).height);
    let shown = lines.iter().skip(top).take(height).map(|(kind, line)| {
        let style = match kind {
            LineKind::Head => look.bold(),
            LineKind::Added => look.colour(Color::Green),
            LineKind::Removed => look.colour(Color::Red),
            LineKind::Place => look.dim(),
            LineKind::Same => Style::new(),
        };
        // What is no letter is not shown.
        Line::styled(line.replace('\t', "    "), style)
    });
    frame.render_widget(Paragraph::new(Text::from_iter(shown)).block(block), area);
}

fn draw_question(frame: &mut Frame<'_>, area: Rect, question: &[String], look: Look) {
    let mut lines: Vec<Line<'_>> =
        question.iter().map(|line| Line::raw(format!(" {line} "))).collect();
    lines.push(Line::raw(""));
    lines.push(Line::styled(" y  yes     n  no ", look.bold()));
    popup(frame, area, " sure? ", Text::from(lines));
}

fn popup(frame: &mut Frame<'_>, area: Rect, title: &str, text: Text<'_>) {
    let width = u16::try_from(text.width() + 2).unwrap_or(u16::MAX).clamp(30, area.width.max(30));
    let inside = usize::from(width.saturating_sub(2)).max(1);
    let lines: usize = text.lines.iter().map(|line| line.width().div_ceil(inside).max(1)).sum();
    let height = u16::try_from(lines + 2).unwrap_or(u16::MAX);
    let [area] = Layout::horizontal([Constraint::Max(width)]).flex(Flex::Center).areas(area);
    let [area] = Layout::vertical([Constraint::Max(height)]).flex(Flex::Center).areas(area);
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(title.to_owned());
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, state: &State, look: Look) {
    let said = match &state.said {
        None => Line::raw(""),
        Some(Said::Good(text)) => Line::styled(&**text, look.colour(Color::Green)),
        Some(Said::Bad(text)) => Line::styled(&**text, look.colour(Color::Red)),
    };
    let keys = match &state.screen {
        Screen::List if state.open.is_empty() => "r look again   q leave",
        Screen::List => {
            "1-9 keep a version   b keep all   d diff   r look again   ? keys   q leave"
        }
        Screen::Diff { .. } => {
            "up, down, PgUp, PgDn scroll   1-9 keep a version   b keep all   q back"
        }
        Screen::Sure { .. } => "y yes   n no",
        Screen::Help => "any key: back",
    };
    frame.render_widget(Text::from(vec![said, Line::from(Span::styled(keys, look.dim()))]), area);
}
