use pleach_core::values::{ConflictKind, Rule, VersionOf};
use pleach_core::vocabulary::TreePath;
use pleach_daemon::control::{ConflictReport, MasterLabel, Pick, VersionKind, VersionReport};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::{Look, draw};
use super::state::{Ask, Said, Screen, State};
use crate::render::{LineKind, Style};

const NOW: i64 = 1_795_352_711_000;

fn version(id: &str, master: &str, stands: bool) -> VersionReport {
    VersionReport {
        id: id.to_owned(),
        what: VersionKind::File,
        of: VersionOf::Content,
        master: Some(MasterLabel { id: "11".repeat(32), name: master.to_owned() }),
        written_ms: Some(NOW - 120_000),
        order: 7,
        modified_ms: NOW - 120_000,
        size: Some(2_048),
        mode: "0644".to_owned(),
        hash: Some("ab".repeat(32)),
        target: None,
        stands,
        here: None,
        elsewhere: None,
        sibling: None,
    }
}

fn conflict(path: &str) -> ConflictReport {
    ConflictReport {
        path: TreePath::parse(path.as_bytes()).unwrap().into(),
        kind: ConflictKind::Edited,
        opened_ms: Some(NOW - 60_000),
        since_ms: Some(NOW - 120_000),
        rule: Rule::LargestStamp,
        versions: vec![version("aaaaaaaa", "web1", true), version("bbbbbbbb", "web2", false)],
        ancestor: None,
    }
}

fn state(paths: &[&str]) -> State {
    let open = paths.iter().map(|path| conflict(path)).collect();
    State::new("/srv/www".to_owned(), open, NOW)
}

fn press(state: &mut State, code: KeyCode) -> Ask {
    state.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn screen(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, Look::new(Style::Plain))).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width.max(1)));
    let lines = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn list_shows_what_is_open_and_the_versions_of_what_is_selected() {
    let mut state = state(&["site/index.php", "site/style.css"]);
    state.full = Some(ConflictReport {
        ancestor: Some(version("cccccccc", "web1", false)),
        ..conflict("site/index.php")
    });
    insta::assert_snapshot!(screen(&state, 110, 18), @r"
    2 open conflicts in /srv/www
      PATH                                                        WHAT HAPPENED              VERSIONS SINCE
    > site/index.php                                              edited on two masters      2        2 min ago
      site/style.css                                              edited on two masters      2        2 min ago





    ┌ site/index.php: edited on two masters ─────────────────────────────────────────────────────────────────────┐
    │   WRITTEN BY       AT                   WHAT             SIZE       MODE  STATE                            │
    │1  web1             2026-11-22 13:03:11  file             2.0 KiB    0644  stands                           │
    │2  web2             2026-11-22 13:03:11  file             2.0 KiB    0644  kept aside                       │
    │   web1             2026-11-22 13:03:11  file             2.0 KiB    0644  ancestor                         │
    │aaaaaaaa stands because its stamp is the largest                                                            │
    └────────────────────────────────────────────────────────────────────────────────────────────────────────────┘

    1-9 keep a version   b keep all   d diff   r look again   ? keys   q leave
    ");
}

#[test]
fn version_is_kept_once_it_is_confirmed() {
    let mut state = state(&["site/index.php", "site/style.css"]);
    assert_eq!(press(&mut state, KeyCode::Down), Ask::Nothing);
    assert_eq!(press(&mut state, KeyCode::Char('2')), Ask::Nothing);
    let shown = screen(&state, 110, 18);
    assert!(shown.contains("Keep version 2, by web2, on every master?"), "{shown}");
    assert!(shown.contains(" site/style.css "), "{shown}");
    assert_eq!(press(&mut state, KeyCode::Enter), Ask::Nothing, "too easily pressed");
    assert_eq!(press(&mut state, KeyCode::Char('n')), Ask::Nothing);
    assert_eq!(state.screen, Screen::List);
    press(&mut state, KeyCode::Char('2'));
    let settled = press(&mut state, KeyCode::Char('y'));
    assert_eq!(settled, Ask::Settle(Pick::Version("bbbbbbbb".to_owned())));
    press(&mut state, KeyCode::Char('b'));
    assert_eq!(press(&mut state, KeyCode::Char('y')), Ask::Settle(Pick::Both));
    press(&mut state, KeyCode::Char('m'));
    assert!(screen(&state, 110, 18).contains("Keep what the file holds now"));
    assert_eq!(press(&mut state, KeyCode::Char('y')), Ask::Settle(Pick::Merged));
    assert_eq!(press(&mut state, KeyCode::Char('3')), Ask::Nothing);
    assert_eq!(state.said, Some(Said::Bad("there is no version 3 here".to_owned())));
}

#[test]
fn removal_that_is_chosen_is_called_one() {
    let mut state = state(&["old"]);
    state.open[0].kind = ConflictKind::DeletedAndEdited;
    state.open[0].versions[1].of = VersionOf::Deletion;
    press(&mut state, KeyCode::Char('2'));
    let shown = screen(&state, 110, 18);
    assert!(shown.contains("Let it be gone, as web2 had it, on every master?"), "{shown}");
}

#[test]
fn selection_stays_with_its_conflict_when_others_come_and_go() {
    let mut state = state(&["a", "b", "c"]);
    press(&mut state, KeyCode::End);
    state.refreshed(vec![conflict("c"), conflict("d")]);
    assert_eq!(state.selected().unwrap().path.to_string(), "c");
    state.refreshed(vec![]);
    assert_eq!(state.selected(), None);
    assert!(screen(&state, 80, 10).contains("no conflicts"));
    assert_eq!(press(&mut state, KeyCode::Char('1')), Ask::Nothing);
    assert_eq!(press(&mut state, KeyCode::Enter), Ask::Nothing);
    assert_eq!(state.screen, Screen::List);
}

#[test]
fn diff_scrolls_to_its_end_and_no_further() {
    let mut state = state(&["a"]);
    assert_eq!(press(&mut state, KeyCode::Char('d')), Ask::Compare);
    let lines = (0..50).map(|n| (LineKind::Added, format!("+\tline {n}"))).collect();
    state.screen = Screen::Diff { lines, top: 0 };
    assert!(screen(&state, 60, 12).contains("+    line 0"), "tabs are seen");
    press(&mut state, KeyCode::End);
    press(&mut state, KeyCode::Down);
    assert!(screen(&state, 60, 12).contains("line 49"));
    press(&mut state, KeyCode::Esc);
    assert_eq!(state.screen, Screen::List);
}

#[test]
fn small_terminals_and_many_conflicts_are_drawn() {
    let paths: Vec<String> = (0..10_000).map(|n| format!("site/file{n}")).collect();
    let mut state = state(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    press(&mut state, KeyCode::End);
    assert!(screen(&state, 100, 30).contains("> site/file9999"));
    for keys in ["", "2", "n?", "q"] {
        keys.chars().for_each(|key| drop(press(&mut state, KeyCode::Char(key))));
        for (width, height) in [(1, 1), (3, 40), (200, 2), (20, 6)] {
            let _ = screen(&state, width, height);
        }
    }
}

#[test]
fn what_would_steer_the_terminal_is_not_drawn() {
    let mut state = state(&["a"]);
    state.open[0].versions[0].master.as_mut().unwrap().name = "\x1b[2Jevil".to_owned();
    assert!(!screen(&state, 100, 20).contains('\x1b'));
}

#[test]
fn view_is_left_by_its_keys() {
    let mut state = state(&["a"]);
    assert_eq!(press(&mut state, KeyCode::Char('q')), Ask::End);
    press(&mut state, KeyCode::Char('1'));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.press(control_c), Ask::End);
}
