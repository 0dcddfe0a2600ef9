//! The screen, drawn: two lines of the process, the table, a line of keys or questions. Made for 80
//! by 24; what is wider has more columns.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Table, TableState};

use super::app::{App, Mode};
use super::rows::{Kind, Row};
use crate::base::text::{known, short, span};
use crate::ctl::options::Verdict;
use crate::ctl::report;

/// A column: its title, how wide it is, and what stands in it.
struct Column {
    title: &'static str,
    width: u16,
    cell: fn(&Row) -> String,
}

/// As many of them as fit, from the left; those before `CHECK` are 70 wide.
#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    Column { title: "NAME", width: 16, cell: Row::name },
    Column { title: "STATUS", width: 9, cell: |row| row.status.clone() },
    Column { title: "WGT", width: 3, cell: |row| row.weight.map_or_else(String::new, |n| n.to_string()) },
    Column { title: "  CUR", width: 5, cell: |row| right(&short(row.traffic.current), 5) },
    Column { title: " QUE", width: 4, cell: |row| right(&short(row.traffic.queued), 4) },
    Column { title: "NEW/s", width: 5, cell: |row| right(&short(row.traffic.rate), 5) },
    Column { title: " IN/s", width: 5, cell: |row| right(&short(row.in_rate), 5) },
    Column { title: "OUT/s", width: 5, cell: |row| right(&short(row.out_rate), 5) },
    Column { title: "CONN", width: 4, cell: |row| right(&known(row.traffic.connect_ms), 4) },
    Column { title: " TIME", width: 5, cell: |row| right(&row.traffic.session_ms.map_or_else(|| "-".into(), short), 5) },
    Column { title: "CHECK", width: 6, cell: |row| row.check.clone() },
    Column { title: "  ERR", width: 5, cell: |row| right(&short(row.traffic.connect_errors + row.traffic.response_errors), 5) },
    Column { title: "RETRY", width: 5, cell: |row| right(&short(row.traffic.retries), 5) },
    Column { title: "TOTAL", width: 5, cell: |row| right(&short(row.traffic.total), 5) },
    Column { title: "FOR", width: 7, cell: |row| row.changed_s.map_or_else(String::new, span) },
    Column { title: "LIMIT", width: 5, cell: |row| right(&row.traffic.limit.map_or_else(|| "-".into(), short), 5) },
    Column { title: "ADDRESS", width: 24, cell: |row| row.address.clone() },
];

const KEYS: &str = " q quit  s sort  / filter  p pause  d drain  m maint  e enable  ? help";

const HELP: &str = "\
 Up Down j k     select a row        Home End PgUp PgDn too
 s S r           sort by the next or the last column, reverse
 /               show only rows with a text; Enter keeps it, Esc doesn't
 p, space        pause, and go on
 + -             look less often, or more often
 d               drain the server: no new connections, open ones go on
 m               maintenance: neither connections nor checks
 e               enable the server again
 q, Esc, Ctrl-C  quit

 CUR sessions now, QUE waiting, NEW/s new sessions per second,
 IN/s OUT/s bytes per second to and from servers,
 CONN TIME averages in ms of connecting and of whole sessions
";

/// A text at the right end of a column.
fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

/// Draws all of it; what the table shows of is remembered for the keys that turn pages.
pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .split(frame.area());
    let [head, body, foot] = [areas[0], areas[1], areas[2]];
    frame.render_widget(Paragraph::new(heading(app)), head);
    app.page = usize::from(body.height.saturating_sub(1));
    table(app, frame, body);
    frame.render_widget(Paragraph::new(footer(app)), foot);
    if app.mode == Mode::Help {
        help(frame);
    }
}

fn heading(app: &App) -> Vec<Line<'static>> {
    let Some(now) = &app.now else {
        let why = app.lost.clone();
        let text = why.unwrap_or_else(|| "connecting".to_owned());
        return vec![Line::styled(
            format!(" {text}"),
            Style::new().fg(Color::Yellow),
        )];
    };
    let info = &now.status.info;
    let process = format!(
        " {} {}  pid {}  up {}  conns {}/{}  {}/s  idle {}%",
        info.text("Name"),
        info.text("Version"),
        info.text("Pid"),
        info.text("Uptime"),
        info.text("CurrConns"),
        info.text("Maxconn"),
        info.text("ConnRate"),
        info.text("Idle_pct"),
    );
    if let Some(why) = &app.lost {
        let text = format!(" LOST, trying again: {why}");
        let style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        return vec![Line::raw(process), Line::styled(text, style)];
    }
    let verdict = now.status.verdict();
    let color = match verdict {
        Verdict::Ok => Color::Green,
        Verdict::Warning => Color::Yellow,
        Verdict::Critical | Verdict::Unknown => Color::Red,
    };
    let mut how = vec![format!(
        "by {}{}",
        app.view.sort.name(),
        if app.view.reversed { ", reversed" } else { "" }
    )];
    if !app.view.filter.is_empty() {
        how.push(format!("with '{}'", app.view.filter));
    }
    if app.paused {
        how.push("PAUSED".to_owned());
    }
    let headline = report::headline(&now.status);
    let headline = headline.trim_end();
    let text = format!(" [{}] {headline}", how.join("  "));
    vec![
        Line::raw(process),
        Line::styled(text, Style::new().fg(color)),
    ]
}

fn table(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let mut width = 0;
    let columns: Vec<&Column> = COLUMNS
        .iter()
        .take_while(|column| {
            // With a blank between two.
            width += column.width + 1;
            width <= area.width + 1
        })
        .collect();
    let rows = app.rows();
    let cells = rows.iter().map(|row| {
        let cells = columns
            .iter()
            .map(|column| fitted((column.cell)(row), column.width));
        ratatui::widgets::Row::new(cells.collect::<Vec<_>>()).style(style(row))
    });
    let titles = columns.iter().map(|column| column.title);
    let head = ratatui::widgets::Row::new(titles.collect::<Vec<_>>());
    let widths = columns
        .iter()
        .map(|column| Constraint::Length(column.width));
    let table = Table::new(cells.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .header(head.style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED)))
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(app.selected(&rows));
    frame.render_stateful_widget(table, area, &mut state);
}

/// A cell that is cut shows that it is.
fn fitted(text: String, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}~")
}

fn style(row: &Row) -> Style {
    let style = Style::new();
    match row.key.kind {
        _ if row.is_bad => style.fg(Color::Red),
        _ if row.is_out => style.fg(Color::Yellow),
        Kind::Front | Kind::Back => style.add_modifier(Modifier::BOLD),
        Kind::Server => style,
    }
}

fn footer(app: &App) -> Line<'static> {
    let asked = Style::new().add_modifier(Modifier::REVERSED);
    match &app.mode {
        Mode::Filter(_) => Line::styled(format!(" filter: {}_", app.view.filter), asked),
        Mode::Confirm(server, state) => {
            Line::styled(format!(" {} {server}? y/n", state.word()), asked)
        }
        Mode::Table | Mode::Help if !app.message.is_empty() => {
            Line::styled(format!(" {}", app.message), asked)
        }
        Mode::Table | Mode::Help => Line::raw(KEYS),
    }
}

fn help(frame: &mut Frame<'_>) {
    let all = frame.area();
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX);
    let (width, height) = (all.width.min(76), all.height.min(lines + 2));
    let area = Rect {
        x: (all.width - width) / 2,
        y: (all.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" keys; any key closes this ");
    frame.render_widget(Paragraph::new(HELP).block(block), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::status::tests::WEB;
    use crate::ctl::top::poller::News;
    use crate::ctl::top::rows::tests::sample;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use std::time::Duration;

    fn drawn(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(app, frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y: u16| {
            let cells = (0..width).map(|x| buffer[(x, y)].symbol().to_owned());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }

    fn app() -> App {
        let mut app = App::new(Duration::from_secs(1));
        app.tell(News::Sample(Box::new(sample(0, &WEB))));
        app
    }

    #[test]
    fn eighty_columns_have_the_most_important_ones() {
        let lines = drawn(&mut app(), 80, 24);
        assert!(lines[0].starts_with(" Tidegate 0.1.0  pid 7"), "{lines:#?}");
        assert!(
            lines[1].starts_with(" [by file] OK: 2 of 3 servers up"),
            "{lines:#?}"
        );
        let titles: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!((titles[0], *titles.last().unwrap()), ("NAME", "CHECK"));
        assert!(
            lines[4].starts_with("  s1             UP        1       2"),
            "{lines:#?}"
        );
        assert_eq!(lines[23], KEYS);
    }

    #[test]
    fn wide_screens_have_more_and_small_ones_do_not_matter() {
        let lines = drawn(&mut app(), 200, 10);
        assert!(lines[2].ends_with("ADDRESS"), "{lines:#?}");
        for (width, height) in [(1, 1), (5, 3), (20, 2), (79, 4)] {
            let mut app = app();
            drawn(&mut app, width, height);
            app.key(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::NONE));
            drawn(&mut app, width, height);
        }
    }

    #[test]
    fn a_lost_connection_shows_with_what_was_last_known() {
        let mut app = app();
        app.tell(News::Lost("cannot connect".to_owned()));
        let lines = drawn(&mut app, 80, 24);
        assert_eq!(lines[1], " LOST, trying again: cannot connect");
        assert!(lines[4].contains("s1"), "{lines:#?}");
    }

    #[test]
    fn help_covers_and_a_question_is_asked() {
        let mut app = app();
        app.key(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::NONE));
        let lines = drawn(&mut app, 80, 24);
        assert!(
            lines.iter().any(|line| line.contains("drain the server")),
            "{lines:#?}"
        );
        for key in ['x', 'j', 'd'] {
            app.key(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE));
        }
        assert_eq!(drawn(&mut app, 80, 24)[23], " drain web/s1? y/n");
    }
}
