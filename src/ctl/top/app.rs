//! What the screen shows and what keys do, as a value: no terminal, no socket, no clock.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::time::Duration;

use super::poller::{News, Order, Sample};
use super::rows::{self, Key, Row, Sort, View};
use crate::ctl::change::State;

/// Longest text of a filter.
const FILTER_MAX: usize = 64;

/// Times between two looks that `+` and `-` choose from, milliseconds.
const INTERVALS_MS: [u64; 7] = [250, 500, 1000, 2000, 5000, 10_000, 30_000];

/// What a key asks for beyond the screen itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Nothing,
    Quit,
    Order(Order),
}

/// What keys mean at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Table,
    Help,
    /// A filter is typed; the text that it had before.
    Filter(String),
    /// A change of a server waits for a yes.
    Confirm(String, State),
}

/// The screen.
#[derive(Debug)]
pub(super) struct App {
    pub(super) now: Option<Sample>,
    before: Option<Sample>,
    pub(super) view: View,
    pub(super) mode: Mode,
    pub(super) paused: bool,
    /// Why there is no answer, while there is none.
    pub(super) lost: Option<String>,
    /// What was last done.
    pub(super) message: String,
    pub(super) interval: Duration,
    selected: Option<Key>,
    /// Rows that fit, for the keys that turn pages.
    pub(super) page: usize,
}

impl App {
    pub(super) fn new(interval: Duration) -> App {
        App {
            now: None,
            before: None,
            view: View {
                sort: Sort::File,
                reversed: false,
                filter: String::new(),
            },
            mode: Mode::Table,
            paused: false,
            lost: None,
            message: String::new(),
            interval,
            selected: None,
            page: 10,
        }
    }

    /// The rows to show.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(now) = &self.now else {
            return Vec::new();
        };
        rows::rows(now, self.before.as_ref(), &self.view)
    }

    /// Which of them is selected: the one of before, where it still is, else the first.
    pub(super) fn selected(&self, rows: &[Row]) -> Option<usize> {
        let same = |row: &Row| Some(&row.key) == self.selected.as_ref();
        let place = rows.iter().position(same);
        place.or((!rows.is_empty()).then_some(0))
    }

    /// Takes what the poller tells.
    pub(super) fn tell(&mut self, news: News) {
        match news {
            News::Sample(sample) => {
                self.lost = None;
                if !self.paused {
                    self.before = self.now.replace(*sample);
                }
            }
            News::Lost(why) => self.lost = Some(why),
            News::Done(command, Ok(())) => self.message = format!("done: {command}"),
            News::Done(_, Err(why)) => {
                self.message = format!("not done: {}", why.lines().next().unwrap_or(""));
            }
        }
    }

    /// Takes a key.
    pub(super) fn key(&mut self, mut key: KeyEvent) -> Effect {
        // Where the key for it sends what it did in the days of paper.
        if key.code == KeyCode::Char('h') && key.modifiers == KeyModifiers::CONTROL {
            key = KeyCode::Backspace.into();
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Effect::Quit,
                _ => Effect::Nothing,
            };
        }
        match std::mem::replace(&mut self.mode, Mode::Table) {
            Mode::Table => self.key_in_table(key.code),
            // Any key leaves the help.
            Mode::Help => Effect::Nothing,
            Mode::Filter(before) => self.key_in_filter(key.code, before),
            Mode::Confirm(server, state) => match key.code {
                KeyCode::Char('y' | 'Y') => {
                    let command = format!("set server {server} state {}", state.word());
                    Effect::Order(Order::Command(command))
                }
                _ => {
                    self.message = "left as it is".to_owned();
                    Effect::Nothing
                }
            },
        }
    }

    fn key_in_table(&mut self, code: KeyCode) -> Effect {
        self.message.clear();
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Effect::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char('s') => self.view.sort = self.view.sort.step(false),
            KeyCode::Char('S') => self.view.sort = self.view.sort.step(true),
            KeyCode::Char('r') => self.view.reversed = !self.view.reversed,
            KeyCode::Char('/') => self.mode = Mode::Filter(self.view.filter.clone()),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('d') => self.confirm(State::Drain),
            KeyCode::Char('m') => self.confirm(State::Maint),
            KeyCode::Char('e') => self.confirm(State::Ready),
            KeyCode::Char('+') => return self.change_interval(true),
            KeyCode::Char('-') => return self.change_interval(false),
            KeyCode::Down | KeyCode::Char('j') => self.select(|at, _| at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(|at, _| at.saturating_sub(1)),
            KeyCode::PageDown => self.select(|at, page| at + page),
            KeyCode::PageUp => self.select(|at, page| at.saturating_sub(page)),
            KeyCode::Home => self.select(|_, _| 0),
            KeyCode::End => self.select(|_, _| usize::MAX),
            _ => {}
        }
        Effect::Nothing
    }

    fn key_in_filter(&mut self, code: KeyCode, before: String) -> Effect {
        match code {
            KeyCode::Enter => return Effect::Nothing,
            KeyCode::Esc => {
                self.view.filter = before;
                return Effect::Nothing;
            }
            KeyCode::Backspace => {
                self.view.filter.pop();
            }
            KeyCode::Char(letter) if self.view.filter.len() < FILTER_MAX => {
                self.view.filter.push(letter);
            }
            _ => {}
        }
        self.mode = Mode::Filter(before);
        Effect::Nothing
    }

    fn confirm(&mut self, state: State) {
        let rows = self.rows();
        let server = self
            .selected(&rows)
            .and_then(|at| rows.get(at))
            .and_then(Row::server);
        match server {
            Some(server) => self.mode = Mode::Confirm(server, state),
            None => self.message = "select a server first".to_owned(),
        }
    }

    fn select(&mut self, step: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        let Some(last) = rows.len().checked_sub(1) else {
            return;
        };
        let at = self.selected(&rows).unwrap_or(0);
        let at = step(at, self.page.max(1)).min(last);
        self.selected = rows.into_iter().nth(at).map(|row| row.key);
    }

    fn change_interval(&mut self, slower: bool) -> Effect {
        let ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let mut all = INTERVALS_MS.iter();
        let next = if slower {
            all.find(|own| **own > ms)
        } else {
            all.rfind(|own| **own < ms)
        };
        match next {
            Some(ms) => {
                self.interval = Duration::from_millis(*ms);
                Effect::Order(Order::Interval(self.interval))
            }
            None => Effect::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::status::tests::WEB;
    use crate::ctl::top::rows::tests::sample;

    fn app() -> App {
        let mut app = App::new(Duration::from_secs(1));
        app.tell(News::Sample(Box::new(sample(0, &WEB))));
        app
    }

    fn press(app: &mut App, keys: &str) -> Effect {
        let mut effect = Effect::Nothing;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                letter => KeyCode::Char(letter),
            };
            effect = app.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        effect
    }

    fn selected(app: &App) -> String {
        let rows = app.rows();
        rows[app.selected(&rows).unwrap()].name().trim().to_owned()
    }

    #[test]
    fn a_server_is_changed_after_a_yes_and_not_without() {
        let mut app = app();
        assert_eq!(press(&mut app, "d"), Effect::Nothing);
        assert_eq!(
            (app.mode.clone(), app.message.as_str()),
            (Mode::Table, "select a server first")
        );
        press(&mut app, "jd");
        assert_eq!(app.mode, Mode::Confirm("web/s1".into(), State::Drain));
        let sent = |command: &str| Effect::Order(Order::Command(command.into()));
        assert_eq!(press(&mut app, "y"), sent("set server web/s1 state drain"));
        assert_eq!(
            (press(&mut app, "mn"), app.mode.clone()),
            (Effect::Nothing, Mode::Table)
        );
        assert_eq!(
            press(&mut app, "jey"),
            sent("set server web/s2 state ready")
        );
        app.tell(News::Done(
            "x".into(),
            Err("Permission denied\nmore".into()),
        ));
        assert_eq!(app.message, "not done: Permission denied");
    }

    #[test]
    fn the_selection_stays_with_its_server() {
        let mut app = app();
        press(&mut app, "jj");
        assert_eq!(selected(&app), "s2");
        press(&mut app, "r");
        assert_eq!(selected(&app), "s2");
        // It is gone: the first row.
        app.tell(News::Sample(Box::new(sample(
            1000,
            &[WEB[0], WEB[1], WEB[4]],
        ))));
        assert_eq!(selected(&app), "web (front)");
        app.key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
        assert_eq!(selected(&app), "web (back)");
    }

    #[test]
    fn a_filter_is_typed_kept_and_given_up() {
        let mut app = app();
        press(&mut app, "/s1q");
        assert_eq!((app.rows().len(), app.view.filter.as_str()), (0, "s1q"));
        press(&mut app, "\x08\n");
        assert_eq!((app.rows().len(), app.mode.clone()), (1, Mode::Table));
        press(&mut app, "/2\x1b");
        assert_eq!(app.view.filter, "s1");
        assert_eq!(press(&mut app, "q"), Effect::Quit);
    }

    #[test]
    fn a_pause_holds_what_is_shown() {
        let mut app = app();
        press(&mut app, "p");
        app.tell(News::Sample(Box::new(sample(1000, &WEB[..1]))));
        assert_eq!(app.rows().len(), 5);
        app.tell(News::Lost("gone".into()));
        assert_eq!(app.lost.as_deref(), Some("gone"));
        press(&mut app, "p");
        app.tell(News::Sample(Box::new(sample(2000, &WEB[..1]))));
        assert_eq!((app.rows().len(), app.lost.clone()), (1, None));
    }

    #[test]
    fn the_interval_has_steps_and_ends() {
        let mut app = app();
        let to = |ms| Effect::Order(Order::Interval(Duration::from_millis(ms)));
        assert_eq!(press(&mut app, "+"), to(2000));
        assert_eq!(press(&mut app, "--"), to(500));
        assert_eq!(press(&mut app, "-"), to(250));
        assert_eq!(press(&mut app, "-"), Effect::Nothing);
        assert_eq!(press(&mut app, "?"), Effect::Nothing);
        assert_eq!(
            (app.mode.clone(), press(&mut app, "q")),
            (Mode::Help, Effect::Nothing)
        );
    }
}
