//! What the balancer said of itself, as proxies with servers, and what is to be thought of it.
//!
//! No output here: `report` writes it for people, `json` for programs, `top` on a screen.

use super::client::{Client, Trouble};
use super::options::Verdict;
use super::table::{Info, Row, Table};

/// Kinds of rows, by the column `type`.
const FRONTEND: u64 = 0;
const BACKEND: u64 = 1;
const SERVER: u64 = 2;

/// The counters that frontends, backends and servers have in common.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Traffic {
    pub(super) current: u64,
    pub(super) max: u64,
    pub(super) limit: Option<u64>,
    pub(super) total: u64,
    /// New sessions in the last second.
    pub(super) rate: u64,
    pub(super) rate_max: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) queued: u64,
    /// Failed connects, failed exchanges.
    pub(super) connect_errors: u64,
    pub(super) response_errors: u64,
    pub(super) retries: u64,
    pub(super) redispatches: u64,
    /// Averages of the last sessions, milliseconds.
    pub(super) queue_ms: Option<u64>,
    pub(super) connect_ms: Option<u64>,
    pub(super) session_ms: Option<u64>,
}

impl Traffic {
    fn of(row: Row<'_>) -> Traffic {
        Traffic {
            current: row.count("scur"),
            max: row.count("smax"),
            limit: row.number("slim").filter(|limit| *limit > 0),
            total: row.count("stot"),
            rate: row.count("rate"),
            rate_max: row.count("rate_max"),
            bytes_in: row.count("bin"),
            bytes_out: row.count("bout"),
            queued: row.count("qcur"),
            connect_errors: row.count("econ"),
            response_errors: row.count("eresp"),
            retries: row.count("wretr"),
            redispatches: row.count("wredis"),
            queue_ms: row.number("qtime"),
            connect_ms: row.number("ctime"),
            session_ms: row.number("ttime"),
        }
    }
}

/// A server of a backend.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Server {
    pub(super) name: String,
    /// In HAProxy's words: `UP`, `UP 1/3`, `DOWN`, `MAINT`, `DRAIN`, `no check`.
    pub(super) status: String,
    pub(super) address: String,
    pub(super) weight: u64,
    pub(super) backup: bool,
    /// Percent of its weight while it comes back slowly.
    pub(super) throttle: Option<u64>,
    pub(super) check: String,
    pub(super) check_ms: Option<u64>,
    /// What the last check found, in words.
    pub(super) check_text: String,
    pub(super) agent: String,
    pub(super) failed_checks: u64,
    pub(super) times_down: u64,
    /// Seconds since the state changed.
    pub(super) changed_s: Option<u64>,
    pub(super) downtime_s: u64,
    pub(super) traffic: Traffic,
}

/// What a server's status means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It gets connections.
    Up,
    /// Somebody has taken it out: no fault.
    Out,
    /// It should get connections and gets none.
    Down,
}

impl Server {
    fn of(row: Row<'_>) -> Server {
        Server {
            name: row.text("svname"),
            status: row.text("status"),
            address: row.text("addr"),
            weight: row.count("weight"),
            backup: row.count("bck") > 0,
            throttle: row.number("throttle").filter(|percent| *percent < 100),
            check: row.text("check_status"),
            check_ms: row.number("check_duration"),
            check_text: row.text("last_chk"),
            agent: row.text("agent_status"),
            failed_checks: row.count("chkfail"),
            times_down: row.count("chkdown"),
            changed_s: row.number("lastchg"),
            downtime_s: row.count("downtime"),
            traffic: Traffic::of(row),
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.status.as_str() {
            // A name that doesn't resolve is nobody's wish.
            "MAINT (resolution)" | "MAINT(resolution)" => Standing::Down,
            status if status.starts_with("MAINT") || status.starts_with("DRAIN") => Standing::Out,
            status if status.starts_with("DOWN") || status.starts_with("NOLB") => Standing::Down,
            _ => Standing::Up,
        }
    }

    /// Why it is down, as far as is known: `L4CON, 12s`.
    fn reason(&self) -> String {
        let since = self.changed_s.map(crate::base::text::span);
        let parts = [Some(self.check.trim_start_matches("* ").to_owned()), since];
        let parts: Vec<String> = parts
            .into_iter()
            .flatten()
            .filter(|p| !p.is_empty())
            .collect();
        if parts.is_empty() {
            return String::new();
        }
        format!(" ({})", parts.join(", "))
    }
}

/// One side of a proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Side {
    pub(super) status: String,
    pub(super) traffic: Traffic,
}

/// A proxy: what listens, what has servers, or both.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Proxy {
    pub(super) name: String,
    pub(super) mode: String,
    pub(super) front: Option<Side>,
    pub(super) back: Option<Side>,
    pub(super) servers: Vec<Server>,
}

impl Proxy {
    /// How many servers get connections; backup servers count when they are in use.
    pub(super) fn servers_up(&self) -> usize {
        let up = |server: &&Server| server.standing() == Standing::Up;
        self.servers.iter().filter(up).count()
    }

    /// Whether it has servers, none of which can be used.
    fn has_no_server(&self) -> bool {
        let is_down = self.back.as_ref().is_some_and(|back| back.status == "DOWN");
        !self.servers.is_empty() && (is_down || self.servers_up() == 0)
    }
}

/// Something that isn't as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// `backend web`, `server web/s1`, `frontend web`
    pub(super) place: String,
    pub(super) text: String,
}

/// All of it at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Status {
    pub(super) info: Info,
    pub(super) proxies: Vec<Proxy>,
}

impl Status {
    /// Asks for it.
    pub(super) fn ask(client: &Client) -> Result<Status, Trouble> {
        let [info, table] = client.ask_each(["show info", "show stat"])?;
        Status::parse(&info, &table)
    }

    /// From the answers to `show info` and `show stat`.
    pub(super) fn parse(info: &str, table: &str) -> Result<Status, Trouble> {
        let mut status = Status {
            info: Info::parse(info)?,
            proxies: Vec::new(),
        };
        for row in Table::parse(table)?.rows() {
            let name = row.text("pxname");
            // A proxy's rows follow each other.
            if status.proxies.last().is_none_or(|last| last.name != name) {
                status.proxies.push(Proxy {
                    name,
                    mode: row.text("mode"),
                    ..Proxy::default()
                });
            }
            let Some(proxy) = status.proxies.last_mut() else {
                continue;
            };
            let side = || Side {
                status: row.text("status"),
                traffic: Traffic::of(row),
            };
            match row.number("type") {
                Some(FRONTEND) => proxy.front = Some(side()),
                Some(BACKEND) => proxy.back = Some(side()),
                Some(SERVER) => proxy.servers.push(Server::of(row)),
                // Single listening sockets have rows of their own in HAProxy where that is asked
                // for; their frontend has the sum.
                _ => {}
            }
        }
        Ok(status)
    }

    /// The backends: what has servers.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies
            .iter()
            .filter(|proxy| !proxy.servers.is_empty())
    }

    /// What isn't as it should be, the worst first.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |verdict, place: String, text: String| {
            findings.push(Finding {
                verdict,
                place,
                text,
            });
        };
        for proxy in &self.proxies {
            let name = &proxy.name;
            if proxy.has_no_server() {
                let text = match proxy.servers.len() {
                    1 => "its only server can't be used".to_owned(),
                    count => format!("none of its {count} servers can be used"),
                };
                find(Verdict::Critical, format!("backend {name}"), text);
            }
            for server in &proxy.servers {
                if server.standing() == Standing::Down {
                    let text = format!("{}{}", server.status, server.reason());
                    find(
                        Verdict::Warning,
                        format!("server {name}/{}", server.name),
                        text,
                    );
                }
            }
            match proxy.front.as_ref().map(|front| front.status.as_str()) {
                Some("FULL") => {
                    let text = "full: it is at its limit of connections".to_owned();
                    find(Verdict::Warning, format!("frontend {name}"), text);
                }
                Some("STOP") => {
                    let text = "stopped: it takes no new connections".to_owned();
                    find(Verdict::Warning, format!("frontend {name}"), text);
                }
                _ => {}
            }
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.verdict));
        findings
    }

    /// The worst of it.
    pub(super) fn verdict(&self) -> Verdict {
        let findings = self.findings();
        findings.first().map_or(Verdict::Ok, |worst| worst.verdict)
    }

    /// The full name of a server that was given as BACKEND/SERVER, or by its own name where only
    /// one backend has it.
    pub(super) fn resolve(&self, named: &str) -> Result<(String, &Server), Trouble> {
        let mut found = Vec::new();
        for proxy in &self.proxies {
            for server in &proxy.servers {
                let full = format!("{}/{}", proxy.name, server.name);
                if full == named || (server.name == named && !named.contains('/')) {
                    found.push((full, server));
                }
            }
        }
        match found.len() {
            0 => Err(Trouble::Refused(format!("there is no server '{named}'"))),
            1 => Ok(found.remove(0)),
            _ => {
                let names: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
                let names = names.join(", ");
                Err(Trouble::Refused(format!(
                    "'{named}' may be {names}: name its backend too"
                )))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ctl) const INFO: &str = "Name: Tidegate\nVersion: 0.1.0\nPid: 7\nUptime: 0d 0h00m04s\n\
                        Maxconn: 100\nCurrConns: 3\nConnRate: 2\n";
    const HEAD: &str = "# pxname,svname,scur,stot,slim,status,weight,act,bck,type,check_status,lastchg,ctime,bin,bout,qcur,\n";

    /// A status of rows with the columns of `HEAD`.
    pub(in crate::ctl) fn status(rows: &[&str]) -> Status {
        let table = format!("{HEAD}{}\n", rows.join("\n"));
        Status::parse(INFO, &table).unwrap()
    }

    pub(in crate::ctl) const WEB: [&str; 5] = [
        "web,FRONTEND,3,30,100,OPEN,,,,0,,,,1000,2000,,",
        "web,s1,2,20,,UP,1,1,0,2,L4OK,60,1,600,1200,0,",
        "web,s2,1,10,,no check,1,1,0,2,,60,2,400,800,0,",
        "web,s3,0,0,,MAINT,1,0,0,2,L4OK,5,,0,0,0,",
        "web,BACKEND,3,30,10,UP,2,2,0,1,,60,1,1000,2000,0,",
    ];

    #[test]
    fn rows_become_proxies_with_servers() {
        let status = status(&WEB);
        let web = &status.proxies[0];
        assert_eq!((status.proxies.len(), web.servers.len()), (1, 3));
        assert_eq!(web.front.as_ref().unwrap().traffic.limit, Some(100));
        assert_eq!(web.servers[0].traffic.current, 2);
        assert_eq!(web.servers[0].traffic.connect_ms, Some(1));
        assert_eq!(web.servers_up(), 2);
        // Nobody minds a server that was taken out.
        assert_eq!(
            (status.findings(), status.verdict()),
            (Vec::new(), Verdict::Ok)
        );
    }

    #[test]
    fn what_is_wrong_is_found_and_the_worst_comes_first() {
        let status = status(&[
            "a,FRONTEND,3,30,100,FULL,,,,0,,,,0,0,,",
            "b,s1,0,0,,DOWN 1/2,1,0,0,2,* L4TOUT,7200,,0,0,0,",
            "b,s2,0,0,,UP 1/3,1,1,0,2,L4OK,60,,0,0,0,",
            "b,BACKEND,0,0,10,UP,1,1,0,1,,60,,0,0,0,",
            "c,s1,0,0,,DRAIN,1,0,0,2,L4OK,5,,0,0,0,",
            "c,BACKEND,0,0,10,DOWN,0,0,0,1,,60,,0,0,0,",
            "d,s1,0,0,,MAINT (resolution),1,0,0,2,,,,0,0,0,",
            "d,s2,0,0,,UP,1,0,1,2,L4OK,5,,0,0,0,",
            "d,BACKEND,0,0,10,UP,1,0,1,1,,60,,0,0,0,",
        ]);
        let found: Vec<(Verdict, String, String)> = status
            .findings()
            .into_iter()
            .map(|f| (f.verdict, f.place, f.text))
            .collect();
        let found: Vec<(Verdict, &str, &str)> = found
            .iter()
            .map(|(v, p, t)| (*v, p.as_str(), t.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    Verdict::Critical,
                    "backend c",
                    "its only server can't be used"
                ),
                (
                    Verdict::Warning,
                    "frontend a",
                    "full: it is at its limit of connections"
                ),
                (Verdict::Warning, "server b/s1", "DOWN 1/2 (L4TOUT, 2h0m)"),
                (Verdict::Warning, "server d/s1", "MAINT (resolution)"),
            ]
        );
        assert_eq!(status.verdict(), Verdict::Critical);
    }

    #[test]
    fn a_server_is_named_in_full_or_by_a_name_that_only_it_has() {
        let status = status(&[
            "a,s1,0,0,,UP,1,1,0,2,,,,0,0,0,",
            "b,s1,0,0,,UP,1,1,0,2,,,,0,0,0,",
            "b,s2,0,0,,UP,1,1,0,2,,,,0,0,0,",
        ]);
        assert_eq!(status.resolve("s2").unwrap().0, "b/s2");
        assert_eq!(status.resolve("a/s1").unwrap().0, "a/s1");
        let text = status.resolve("s1").unwrap_err().to_string();
        assert!(text.contains("a/s1, b/s1"), "{text}");
        for wrong in ["s3", "a/s2", "", "a/"] {
            assert!(status.resolve(wrong).is_err(), "{wrong}");
        }
    }
}
