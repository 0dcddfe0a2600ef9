//! The made-up world that configurations are loaded in, and what all tests do with it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tidegate::config::plan::{Back, Front, LocalPorts, Plan};
use tidegate::config::{self, Diagnostic, Environment, Options, Resolver};

/// A made-up world: a few names, two users, a few variables.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) variables: BTreeMap<&'static str, &'static str>,
    /// Files by name; any other is the machine's.
    pub(crate) files: BTreeMap<PathBuf, String>,
    pub(crate) local: Vec<IpAddr>,
    /// Every name but `nosuch.invalid` has an address.
    pub(crate) knows_all: bool,
}

impl World {
    pub(crate) fn new() -> World {
        let variables = [("PORT", "8080"), ("LIST", "check inter  3s"), ("EMPTY", "")];
        World {
            variables: BTreeMap::from(variables),
            local: vec![IpAddr::from([192, 0, 2, 1])],
            ..World::default()
        }
    }

    /// The same in which every name has an address, and none is the machine's own.
    pub(crate) fn that_knows_all() -> World {
        World {
            knows_all: true,
            local: Vec::new(),
            ..World::new()
        }
    }
}

impl Resolver for World {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host {
            "app1" => Ok(vec![IpAddr::from([10, 0, 0, 1])]),
            "app2" => Ok(vec![IpAddr::from([10, 0, 0, 2])]),
            "app3" => Ok(vec![IpAddr::from([10, 0, 0, 3])]),
            "both" => Ok(vec![
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
                IpAddr::from([10, 0, 0, 2]),
            ]),
            // Differs from name to name, so that a plan shows which it was.
            _ if self.knows_all && host != "nosuch.invalid" => {
                let mix = |sum: u8, byte: u8| sum.wrapping_mul(31).wrapping_add(byte);
                Ok(vec![IpAddr::from([10, 0, 1, host.bytes().fold(7, mix)])])
            }
            _ => Err("name not known".to_owned()),
        }
    }
}

impl Environment for World {
    fn options(&self) -> Options {
        self.options
    }

    fn local_peer(&self) -> String {
        "here".to_owned()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.get(path) {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => std::fs::read(path),
        }
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        match name {
            "www" => Some(33),
            "root" => Some(0),
            _ => None,
        }
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        match name {
            "www" => Some(34),
            "root" => Some(0),
            _ => None,
        }
    }

    fn local_addresses(&self) -> &[IpAddr] {
        &self.local
    }

    fn local_ports(&self) -> LocalPorts {
        LocalPorts {
            reserved: vec![(61_000, 61_009)],
            ..LocalPorts::default()
        }
    }
}

pub(crate) fn load(text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
    config::load_text("t.cfg", text, &World::new())
}

/// The plan of a text that must load without an error.
pub(crate) fn plan(text: &str) -> Plan {
    let (plan, messages) = load(text);
    plan.unwrap_or_else(|| panic!("{text}\n{}", printed(&messages)))
}

/// A proxy's front, from lines of a `listen`.
pub(crate) fn front(lines: &str) -> (Front, Plan) {
    let plan = plan(&format!("listen l\n{lines}\n"));
    (plan.proxies[0].front.clone().unwrap(), plan)
}

/// A proxy's back, from lines of a `backend`.
pub(crate) fn back(lines: &str) -> Back {
    plan(&format!("backend b\n{lines}\n")).proxies[0]
        .back
        .clone()
        .unwrap()
}

/// The messages as they are printed, less what is the same in all.
pub(crate) fn printed(messages: &[Diagnostic]) -> String {
    let line = |message: &Diagnostic| {
        let text = message.format(7).replacen(" (7) : config : ", " ", 1);
        format!("{text}\n")
    };
    messages.iter().map(line).collect()
}

/// A case of `tests/data/messages.txt`: `=== title`, a config, `---`, the messages it gets.
pub(crate) struct Case {
    pub(crate) title: String,
    pub(crate) text: String,
    pub(crate) expected: String,
}

pub(crate) fn cases(data: &str) -> Vec<Case> {
    let case = |part: &str| {
        let (title, rest) = part.split_once('\n').expect("a case has a title");
        let (text, expected) = match rest.strip_prefix("---\n") {
            Some(expected) => ("", expected),
            None => {
                let (text, expected) = rest.split_once("\n---\n").expect("a case has a ---");
                (text, expected)
            }
        };
        let text = if text.is_empty() {
            String::new()
        } else {
            format!("{text}\n")
        };
        Case {
            title: title.to_owned(),
            text,
            expected: expected.to_owned(),
        }
    };
    data.split("=== ").skip(1).map(case).collect()
}

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// CPU time of this thread so far; other programs on the machine don't count.
pub(crate) fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::from(now)
}
