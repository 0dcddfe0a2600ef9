//! The page of statistics: a plain table of what `show stat` has, for people.

use std::fmt::Write;

use super::rows::{Object, Of};
use crate::config::plan::StatsPage;
use crate::control::Shared;
use crate::control::runtime_api::info;

/// Columns that are shown, by what they are of `show stat`, and their heads.
const COLUMNS: &[(&str, &str)] = &[
    ("svname", "Name"),
    ("status", "Status"),
    ("last_chk", "Last check"),
    ("weight", "Weight"),
    ("act", "Active"),
    ("bck", "Backup"),
    ("qcur", "Queued"),
    ("qmax", "Most queued"),
    ("scur", "Sessions"),
    ("smax", "Most sessions"),
    ("slim", "Bound"),
    ("stot", "All sessions"),
    ("rate", "Per second"),
    ("rate_max", "Most per second"),
    ("bin", "Bytes in"),
    ("bout", "Bytes out"),
    ("ereq", "Bad requests"),
    ("econ", "Failed connects"),
    ("eresp", "Broken by server"),
    ("wretr", "Retries"),
    ("wredis", "Redispatches"),
    ("chkfail", "Failed checks"),
    ("chkdown", "Times down"),
    ("downtime", "Seconds down"),
    ("ctime", "Connect, ms"),
    ("ttime", "Session, ms"),
];

const STYLE: &str = "body{font:14px sans-serif}table{border-collapse:collapse;margin-bottom:1em}\
th,td{border:1px solid #ccc;padding:2px 6px;text-align:right;white-space:nowrap}\
th:first-child,td:first-child{text-align:left}tr.down{background:#fcc}tr.out{background:#ffc}\
tr.sum{background:#eee}";

/// The page of some proxies.
pub(super) fn page(shared: &Shared, page: &StatsPage, objects: &[Object]) -> String {
    let settings = &shared.world().plan.global.process;
    let mut text = String::from("<!DOCTYPE html>\n<html><head><title>Statistics</title><style>");
    let _ = write!(text, "{STYLE}</style></head><body>\n<h1>Tidegate");
    if !page.hides_version {
        let _ = write!(text, " {}", env!("CARGO_PKG_VERSION"));
    }
    text.push_str("</h1>\n");
    if let Some(node) = &page.node {
        let node = match node.is_empty() {
            true => info::node(&settings.node),
            false => node.clone(),
        };
        let _ = writeln!(text, "<p>Node: {}</p>", escaped(&node));
    }
    if let Some(description) = &page.description {
        let description = match description.is_empty() {
            true => &settings.description,
            false => description,
        };
        let _ = writeln!(text, "<p>Description: {}</p>", escaped(description));
    }
    let fields = info::fields(shared);
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| *name == wanted);
        found.map_or("", |(_, value)| value.as_str())
    };
    let _ = writeln!(
        text,
        "<p>Up for {}, process {}, {} of {} connections, {} per second, {} % idle</p>",
        field("Uptime"),
        field("Pid"),
        field("CurrConns"),
        field("Maxconn"),
        field("ConnRate"),
        field("Idle_pct"),
    );
    let mut proxy = "";
    for object in objects {
        if *object.proxy.name != *proxy {
            if !proxy.is_empty() {
                text.push_str("</table>\n");
            }
            proxy = &object.proxy.name;
            head(&mut text, object);
        }
        row(&mut text, object);
    }
    if !proxy.is_empty() {
        text.push_str("</table>\n");
    }
    text.push_str("</body></html>\n");
    text
}

fn head(text: &mut String, object: &Object) {
    let proxy = &object.proxy;
    let _ = write!(
        text,
        "<h2>{} ({})</h2>\n<table><tr>",
        escaped(&proxy.name),
        proxy.mode()
    );
    for (_, title) in COLUMNS {
        let _ = write!(text, "<th>{title}</th>");
    }
    text.push_str("</tr>\n");
}

fn row(text: &mut String, object: &Object) {
    let status = object.row.value("status");
    let class = match &object.of {
        _ if status.starts_with("DOWN") => "down",
        _ if status.starts_with("MAINT") || status.starts_with("DRAIN") => "out",
        Of::Server(_) | Of::Listener => "server",
        Of::Frontend | Of::Backend(_) => "sum",
    };
    let _ = write!(text, "<tr class=\"{class}\">");
    for (column, _) in COLUMNS {
        let _ = write!(text, "<td>{}</td>", escaped(object.row.value(column)));
    }
    text.push_str("</tr>\n");
}

/// A text that means nothing in HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_has_said_stays_text() {
        assert_eq!(
            escaped("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
