//! The configuration layer from outside: texts and files in, plans and exact messages out.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tidegate::config::plan::Plan;
use tidegate::config::{self, Diagnostic, Environment, Resolver, diagnostics::Severity};

/// A made-up world: two names, two users, a few variables.
struct World {
    variables: BTreeMap<&'static str, &'static str>,
    local: Vec<IpAddr>,
}

impl World {
    fn new() -> World {
        World {
            variables: BTreeMap::from([
                ("PORT", "8080"),
                ("LIST", "check inter  3s"),
                ("EMPTY", ""),
            ]),
            local: vec![IpAddr::from([192, 0, 2, 1])],
        }
    }
}

impl Resolver for World {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host {
            "app1" => Ok(vec![IpAddr::from([10, 0, 0, 1])]),
            "both" => Ok(vec![
                IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
                IpAddr::from([10, 0, 0, 2]),
            ]),
            _ => Err("name not known".to_owned()),
        }
    }
}

impl Environment for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        (name == "www").then_some(33)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        (name == "www").then_some(34)
    }

    fn local_addresses(&self) -> &[IpAddr] {
        &self.local
    }
}

fn load(text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
    config::load_text("t.cfg", text, &World::new())
}

#[test]
fn every_shipped_config_loads() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cfg") {
            let (plan, messages) = config::load(std::slice::from_ref(&path), &World::new());
            let texts: Vec<String> = messages.iter().map(|message| message.format(1)).collect();
            assert!(
                plan.is_some_and(|plan| plan.has_listener()),
                "{path:?}: {texts:#?}"
            );
            let bad = messages
                .iter()
                .any(|message| message.severity != Severity::Notice);
            assert!(!bad, "{path:?}: {texts:#?}");
            count += 1;
        }
    }
    assert!(count > 0);
}
