//! What a frontend in `mode http` answers by itself: metrics, statistics, that it is alive.

use std::net::IpAddr;
use std::sync::Arc;

use super::Networks;

/// Clients that such a frontend has at once; a higher `maxconn` is taken for this.
pub const PAGE_CLIENTS_MAX: u32 = 100;

/// The pages of a frontend.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pages {
    /// `http-request use-service prometheus-exporter`: when metrics are the answer.
    pub exporters: Vec<PageCondition>,
    /// `stats ...`, where it is switched on.
    pub stats: Option<StatsPage>,
    /// `monitor-uri`.
    pub monitor_uri: Option<String>,
    /// `timeout http-request`, 0 = not set.
    pub timeout_request_ms: u32,
    /// `timeout http-keep-alive`, 0 = not set.
    pub timeout_keep_alive_ms: u32,
}

impl Pages {
    /// Whether there is anything to answer with.
    pub fn is_empty(&self) -> bool {
        self.exporters.is_empty() && self.stats.is_none() && self.monitor_uri.is_none()
    }
}

/// The page of statistics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatsPage {
    /// What its addresses begin with.
    pub uri: String,
    /// Seconds after which a browser asks again, 0 = it doesn't.
    pub refresh_s: u32,
    /// Names of proxies that are shown; empty = all, `.` = the page's own.
    pub scope: Vec<String>,
    /// Shows the name of the instance, or this one.
    pub node: Option<String>,
    /// Shows the description of the instance, or this one.
    pub description: Option<String>,
    /// Doesn't show the program's version.
    pub hides_version: bool,
    /// What a browser calls the login.
    pub realm: String,
    /// `<user>:<password>` of who may see it; empty = everybody.
    pub logins: Vec<String>,
}

impl Default for StatsPage {
    fn default() -> Self {
        StatsPage {
            uri: "/haproxy?stats".to_owned(),
            refresh_s: 0,
            scope: Vec::new(),
            node: None,
            description: None,
            hides_version: false,
            realm: "Tidegate Statistics".to_owned(),
            logins: Vec::new(),
        }
    }
}

impl StatsPage {
    /// Whether a proxy is shown on the page of the proxy `own`.
    pub fn shows(&self, proxy: &str, own: &str) -> bool {
        let named = |name: &String| name == proxy || (name == "." && proxy == own);
        self.scope.is_empty() || self.scope.iter().any(named)
    }
}

/// When a rule for a request holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageCondition {
    /// `unless`: when none of the alternatives does.
    pub unless: bool,
    /// One of them must hold, with all of its terms.
    pub alternatives: Vec<Vec<PageTerm>>,
}

/// A part of a condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageTerm {
    /// It must not hold.
    pub negated: bool,
    /// What it asks for.
    pub asks: PageAsks,
}

/// What a part of a condition asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageAsks {
    /// The path is one of these.
    Path(Vec<String>),
    /// The path begins with one of these.
    PathBegin(Vec<String>),
    /// The client's address is in one of these sets.
    Source(Vec<Arc<Networks>>),
}

impl PageCondition {
    /// Whether it holds for a path and a client, who has no address on a Unix socket.
    pub fn holds(&self, path: &str, source: Option<IpAddr>) -> bool {
        let term = |term: &PageTerm| {
            let found = match &term.asks {
                PageAsks::Path(paths) => paths.iter().any(|wanted| wanted == path),
                PageAsks::PathBegin(paths) => paths.iter().any(|begin| path.starts_with(begin)),
                PageAsks::Source(sets) => {
                    source.is_some_and(|ip| sets.iter().any(|set| set.contains(ip)))
                }
            };
            found != term.negated
        };
        let any = self.alternatives.iter().any(|terms| terms.iter().all(term));
        any != self.unless
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Network;

    fn path(negated: bool, path: &str) -> PageTerm {
        let asks = PageAsks::Path(vec![path.to_owned()]);
        PageTerm { negated, asks }
    }

    #[test]
    fn a_condition_joins_its_terms() {
        let local: Networks = Network::parse("127.0.0.0/8").into_iter().collect();
        let source = PageTerm {
            negated: false,
            asks: PageAsks::Source(vec![Arc::new(local)]),
        };
        let begin = PageTerm {
            negated: false,
            asks: PageAsks::PathBegin(vec!["/m/".to_owned()]),
        };
        let condition = |unless| PageCondition {
            unless,
            alternatives: vec![
                vec![path(false, "/metrics"), source.clone()],
                vec![begin.clone(), path(true, "/m/not")],
            ],
        };
        let here = "127.0.0.1".parse().ok();
        let there = "192.0.2.1".parse().ok();
        for (asked, source, holds) in [
            ("/metrics", here, true),
            ("/metrics", there, false),
            ("/metrics", None, false),
            ("/metricsx", here, false),
            ("/m/x", there, true),
            ("/m/not", there, false),
        ] {
            assert_eq!(condition(false).holds(asked, source), holds, "{asked}");
            assert_eq!(condition(true).holds(asked, source), !holds, "{asked}");
        }
    }
}
