//! `show stat`: HAProxy's table, as CSV, as typed lines or as JSON.
//!
//! Readers of the CSV go by position, so the header is fixed and a column without a value is empty.
//! What we have beyond HAProxy's columns stands behind them, where its modules have theirs: the
//! datagrams of proxies in mode udp. Rows come in HAProxy's order: a proxy's FRONTEND, those of its
//! listeners that have statistics (`option socket-stats`), its servers, its BACKEND.

use super::command::{Answer, Call, Command, Run};
use super::rows::{backend_row, frontend_row, listener_row, listeners, server_row};
use super::table::{Row, header};
use super::typed::{Format, Shape};
use crate::config::plan::{Level, Proxy};
use crate::control::Shared;
use crate::lb::{Admin, Backend, Health, Server};
use crate::shard::Frontend;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "stat"], level: Level::User,
        usage: "show stat [desc|json|no-maint|typed|up]*",
        help: "report counters for each proxy and server",
        run: Run::Now(show) },
];

/// Bits of the `type` argument.
const TYPE_FRONTEND: i64 = 1;
const TYPE_BACKEND: i64 = 2;
const TYPE_SERVER: i64 = 4;
const TYPE_LISTENER: i64 = 8;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Filter<'a> {
    proxy: Option<&'a str>,
    types: i64,
    sid: i64,
    up: bool,
    no_maintenance: bool,
    format: Format,
}

impl Filter<'_> {
    fn wants_server(&self, server: &Server) -> bool {
        let is_down = server.health() == Health::Down;
        let is_out = server.admin() == Admin::Maintenance;
        self.types & TYPE_SERVER != 0
            && (self.sid < 0 || self.sid == i64::from(server.plan.sid))
            && !(self.up && (is_down || is_out))
            && !(self.no_maintenance && is_out)
    }
}

fn show(call: &mut Call<'_>) -> Answer {
    let filter = match parse(call.words) {
        Ok(filter) => filter,
        Err(text) => return Answer::error(text),
    };
    let mut table = Table::new(filter.format);
    let world = &call.shared.world();
    let matching = |proxy: &&std::sync::Arc<Proxy>| matches_proxy(proxy, filter.proxy);
    let mut proxies = world.plan.proxies.iter().filter(matching).peekable();
    let by_name = filter.proxy.is_some_and(|word| number(word).is_none());
    if by_name && proxies.peek().is_none() {
        return Answer::error("No such proxy.");
    }
    for proxy in proxies {
        let index = usize::from(proxy.proxy_id.0);
        if let Some(Some(front)) = world.frontends.get(index) {
            let level = call.session.level;
            frontend_rows(&mut table, call.shared, level, front, &filter);
        }
        if let Some(Some(backend)) = world.backends.get(index) {
            backend_rows(
                &mut table,
                call.shared,
                call.session.level,
                backend,
                &filter,
            );
        }
    }
    Answer::Text(table.finish())
}

fn frontend_rows(
    table: &mut Table,
    shared: &Shared,
    level: Level,
    front: &Frontend,
    filter: &Filter<'_>,
) {
    if filter.types & TYPE_FRONTEND != 0 {
        table.push(&frontend_row(shared, front));
    }
    if filter.types & TYPE_LISTENER == 0 {
        return;
    }
    for listening in listeners(&shared.world(), front) {
        if filter.sid < 0 || filter.sid == i64::from(listening.plan.socket_id) {
            table.push(&listener_row(shared, front, listening, level));
        }
    }
}

fn backend_rows(
    table: &mut Table,
    shared: &Shared,
    level: Level,
    backend: &Backend,
    filter: &Filter<'_>,
) {
    for server in backend.servers.iter() {
        if filter.wants_server(server) {
            table.push(&server_row(shared, backend, server, level));
        }
    }
    if filter.types & TYPE_BACKEND != 0 {
        table.push(&backend_row(shared, backend, level));
    }
}

/// The rows as they are written.
struct Table {
    format: Format,
    rows: usize,
    text: String,
}

impl Table {
    fn new(format: Format) -> Table {
        let text = match format.shape {
            Shape::Plain => header(),
            Shape::Typed => String::new(),
            Shape::Json => "[".to_owned(),
        };
        Table {
            format,
            rows: 0,
            text,
        }
    }

    fn push(&mut self, row: &Row) {
        row.write(&mut self.text, self.format, self.rows == 0);
        self.rows += 1;
    }

    fn finish(mut self) -> String {
        if self.format.shape == Shape::Json {
            self.text.push_str("]\n");
        }
        self.text
    }
}

fn parse<'a>(words: &[&'a str]) -> Result<Filter<'a>, &'static str> {
    let mut filter = Filter {
        proxy: None,
        types: -1,
        sid: -1,
        up: false,
        no_maintenance: false,
        format: Format::PLAIN,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "up" => filter.up = true,
            "no-maint" => filter.no_maintenance = true,
            "domain" => match words.next() {
                Some(&"proxy") => {}
                _ => return Err("Invalid statistics domain."),
            },
            format if filter.format.take(format) => {}
            proxy => {
                let mut number = || words.next().and_then(|word| word.parse().ok());
                let (Some(types), Some(sid)) = (number(), number()) else {
                    return Err("Usage: show stat [{<iid>|<proxy>} <type> <sid>]");
                };
                filter.proxy = (proxy != "-1").then_some(proxy);
                (filter.types, filter.sid) = (types, sid);
            }
        }
    }
    Ok(filter)
}

/// The number that a proxy is named by.
fn number(word: &str) -> Option<u32> {
    word.strip_prefix('#').unwrap_or(word).parse().ok()
}

fn matches_proxy(proxy: &Proxy, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|word| *word == *proxy.name || number(word) == Some(proxy.iid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let filter = parse(&["fe", "1", "-1"]).unwrap();
        assert_eq!(
            (filter.proxy, filter.types, filter.sid),
            (Some("fe"), 1, -1)
        );
        assert_eq!(parse(&["-1", "4", "-1", "up"]).unwrap().proxy, None);
        assert!(parse(&["fe"]).is_err() && parse(&["domain", "dns"]).is_err());
        let filter = parse(&["domain", "proxy", "typed", "desc"]).unwrap();
        assert_eq!(filter.format.shape, Shape::Typed);
        assert!(filter.format.with_words);
    }
}
