//! The rows of the screen: proxies with their servers, rates since the look before, in the wanted
//! order, those that the filter lets through.

use super::poller::Sample;
use crate::ctl::status::{Proxy, Server, Side, Standing, Status, Traffic};

/// What a row stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Front,
    Server,
    Back,
}

/// Which object it is, from one look to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Key {
    pub(super) proxy: String,
    pub(super) kind: Kind,
    /// The server's name, empty for others.
    pub(super) server: String,
}

/// A row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) status: String,
    pub(super) is_bad: bool,
    pub(super) is_out: bool,
    pub(super) weight: Option<u64>,
    pub(super) traffic: Traffic,
    /// Bytes per second since the look before.
    pub(super) in_rate: u64,
    pub(super) out_rate: u64,
    pub(super) check: String,
    pub(super) changed_s: Option<u64>,
    pub(super) address: String,
}

impl Row {
    /// What stands in the first column.
    pub(super) fn name(&self) -> String {
        match self.key.kind {
            Kind::Front => format!("{} (front)", self.key.proxy),
            Kind::Server => format!("  {}", self.key.server),
            Kind::Back => format!("{} (back)", self.key.proxy),
        }
    }

    /// The name of a server in commands.
    pub(super) fn server(&self) -> Option<String> {
        let key = &self.key;
        (key.kind == Kind::Server).then(|| format!("{}/{}", key.proxy, key.server))
    }
}

/// What the servers of a backend are ordered by; proxies stay as the configuration has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    File,
    Name,
    Status,
    Sessions,
    Queue,
    Rate,
    Bytes,
    Connect,
}

impl Sort {
    const ALL: [Sort; 8] = [
        Sort::File,
        Sort::Name,
        Sort::Status,
        Sort::Sessions,
        Sort::Queue,
        Sort::Rate,
        Sort::Bytes,
        Sort::Connect,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Sort::File => "file",
            Sort::Name => "name",
            Sort::Status => "status",
            Sort::Sessions => "sessions",
            Sort::Queue => "queue",
            Sort::Rate => "rate",
            Sort::Bytes => "bytes",
            Sort::Connect => "connect time",
        }
    }

    /// The next one, or the one before.
    pub(super) fn step(self, back: bool) -> Sort {
        let count = Sort::ALL.len();
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Sort::ALL[(at + if back { count - 1 } else { 1 }) % count]
    }

    /// Numbers come largest first, words from the beginning of the alphabet.
    fn compare(self, a: &Row, b: &Row) -> std::cmp::Ordering {
        match self {
            Sort::File => std::cmp::Ordering::Equal,
            Sort::Name => a.key.server.cmp(&b.key.server),
            Sort::Status => a.status.cmp(&b.status),
            Sort::Sessions => b.traffic.current.cmp(&a.traffic.current),
            Sort::Queue => b.traffic.queued.cmp(&a.traffic.queued),
            Sort::Rate => b.traffic.rate.cmp(&a.traffic.rate),
            Sort::Bytes => (b.in_rate + b.out_rate).cmp(&(a.in_rate + a.out_rate)),
            Sort::Connect => b.traffic.connect_ms.cmp(&a.traffic.connect_ms),
        }
    }
}

/// How the rows are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct View {
    pub(super) sort: Sort,
    pub(super) reversed: bool,
    /// Only rows whose name, status or address has it; empty for all.
    pub(super) filter: String,
}

/// The rows of a look, with rates since the one before.
pub(super) fn rows(now: &Sample, before: Option<&Sample>, view: &View) -> Vec<Row> {
    let mut rows = Vec::new();
    for proxy in &now.status.proxies {
        let earlier = before.and_then(|before| find(&before.status, &proxy.name));
        let seconds = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
        if let Some(front) = &proxy.front {
            let was = earlier.and_then(|proxy| proxy.front.as_ref());
            rows.push(side(proxy, Kind::Front, front, was, seconds));
        }
        let mut servers: Vec<Row> = proxy
            .servers
            .iter()
            .map(|server| {
                let was = earlier
                    .and_then(|proxy| proxy.servers.iter().find(|own| own.name == server.name));
                server_row(proxy, server, was, seconds)
            })
            .collect();
        servers.sort_by(|a, b| view.sort.compare(a, b));
        if view.reversed {
            servers.reverse();
        }
        rows.append(&mut servers);
        if let (Some(back), false) = (&proxy.back, proxy.servers.is_empty()) {
            let was = earlier.and_then(|proxy| proxy.back.as_ref());
            rows.push(side(proxy, Kind::Back, back, was, seconds));
        }
    }
    rows.retain(|row| passes(row, &view.filter));
    rows
}

fn find<'a>(status: &'a Status, name: &str) -> Option<&'a Proxy> {
    status.proxies.iter().find(|proxy| proxy.name == name)
}

fn passes(row: &Row, filter: &str) -> bool {
    let filter = filter.to_lowercase();
    let full = format!("{}/{}", row.key.proxy, row.key.server);
    [full.as_str(), &row.name(), &row.status, &row.address]
        .iter()
        .any(|text| text.to_lowercase().contains(&filter))
}

/// Per second; counters that were cleared begin anew.
fn rate(now: u64, before: Option<u64>, seconds: f64) -> u64 {
    match before {
        Some(before) if seconds > 0.0 && now >= before => {
            ((now - before) as f64 / seconds).round() as u64
        }
        _ => 0,
    }
}

fn side(proxy: &Proxy, kind: Kind, side: &Side, was: Option<&Side>, seconds: f64) -> Row {
    let traffic = &side.traffic;
    let was = was.map(|side| &side.traffic);
    Row {
        key: Key {
            proxy: proxy.name.clone(),
            kind,
            server: String::new(),
        },
        status: side.status.clone(),
        is_bad: !matches!(side.status.as_str(), "UP" | "OPEN"),
        is_out: false,
        weight: None,
        traffic: traffic.clone(),
        in_rate: rate(traffic.bytes_in, was.map(|was| was.bytes_in), seconds),
        out_rate: rate(traffic.bytes_out, was.map(|was| was.bytes_out), seconds),
        check: String::new(),
        changed_s: None,
        address: String::new(),
    }
}

fn server_row(proxy: &Proxy, server: &Server, was: Option<&Server>, seconds: f64) -> Row {
    let traffic = &server.traffic;
    let was = was.map(|server| &server.traffic);
    Row {
        key: Key {
            proxy: proxy.name.clone(),
            kind: Kind::Server,
            server: server.name.clone(),
        },
        status: server.status.clone(),
        is_bad: server.standing() == Standing::Down,
        is_out: server.standing() == Standing::Out,
        weight: Some(server.weight),
        traffic: traffic.clone(),
        in_rate: rate(traffic.bytes_in, was.map(|was| was.bytes_in), seconds),
        out_rate: rate(traffic.bytes_out, was.map(|was| was.bytes_out), seconds),
        check: server.check.clone(),
        changed_s: server.changed_s,
        address: server.address.clone(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::time::Moment;
    use crate::ctl::status::tests::{WEB, status};

    pub(in crate::ctl::top) fn sample(at_ms: u64, rows: &[&str]) -> Sample {
        Sample {
            at: Moment(0).after_ms(at_ms),
            status: status(rows),
        }
    }

    pub(in crate::ctl::top) fn view(sort: Sort, filter: &str) -> View {
        View {
            sort,
            reversed: false,
            filter: filter.to_owned(),
        }
    }

    fn names(rows: &[Row]) -> Vec<String> {
        rows.iter()
            .map(|row| row.name().trim().to_owned())
            .collect()
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let later = WEB.map(|row| row.replace(",600,1200,", ",1600,1700,"));
        let later = sample(2000, &later.each_ref().map(String::as_str));
        let found = rows(&later, Some(&sample(0, &WEB)), &view(Sort::File, ""));
        let s1 = &found[1];
        assert_eq!((s1.in_rate, s1.out_rate), (500, 250));
        // Without a look before, and after counters were cleared, there is no rate.
        assert_eq!(rows(&later, None, &view(Sort::File, ""))[1].in_rate, 0);
        assert_eq!(
            rows(&sample(3000, &WEB), Some(&later), &view(Sort::File, ""))[1].in_rate,
            0
        );
    }

    #[test]
    fn servers_are_ordered_within_their_backend() {
        let now = sample(0, &WEB);
        let order = |view: &View| names(&rows(&now, None, view))[1..4].to_vec();
        assert_eq!(order(&view(Sort::File, "")), ["s1", "s2", "s3"]);
        assert_eq!(order(&view(Sort::Connect, "")), ["s2", "s1", "s3"]);
        let reversed = View {
            reversed: true,
            ..view(Sort::Sessions, "")
        };
        assert_eq!(order(&reversed), ["s3", "s2", "s1"]);
        assert_eq!(order(&view(Sort::Status, "")), ["s3", "s1", "s2"]);
        let mut sort = Sort::File;
        for _ in Sort::ALL {
            sort = sort.step(false);
        }
        assert_eq!((sort, Sort::File.step(true)), (Sort::File, Sort::Connect));
    }

    #[test]
    fn a_filter_looks_at_names_and_states() {
        let now = sample(0, &WEB);
        let found = |filter: &str| names(&rows(&now, None, &view(Sort::File, filter)));
        assert_eq!(found("S2"), ["s2"]);
        assert_eq!(found("maint"), ["s3"]);
        assert_eq!(found("web").len(), 5);
        assert_eq!(found("web/s"), ["s1", "s2", "s3"]);
        assert_eq!(found("nothing"), Vec::<String>::new());
    }
}
