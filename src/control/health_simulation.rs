//! Servers that track one another, with checks and agents, under random findings: what is in force
//! after each agrees with a model that says what a server is, not how it gets there.

use std::sync::Arc;

use super::probe::{AgentResult, Finding, ProbeResult};
use super::resolve::SystemEnvironment;
use super::{Facts, Shared, apply, batch};
use crate::base::hash;
use crate::base::ids::{ProxyId, ShardId};
use crate::base::time::Moment;
use crate::config;
use crate::health::{Answer, Outcome, Rules, Transition};
use crate::lb::{self, Admin, Health, Pick, PickRequest, Server};
use crate::limits;
use crate::shard::{Bounds, ControlPort, LogQueue, ShardPort, World};

/// Random words and outcomes of one simulation.
const STEPS: u64 = 400;
const SEEDS: u64 = 200;

/// Numbers from a seed.
struct Random {
    seed: u64,
    next: u64,
}

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.next += 1;
        hash::sequence(self.seed, self.next) % bound
    }
}

/// A server as it should be.
#[derive(Debug)]
struct Model {
    name: String,
    /// The place of the server that it tracks.
    tracks: Option<usize>,
    rise: u32,
    fall: u32,
    begins_up: bool,
    /// How many in a row change it the first time.
    first: u32,
    checked: bool,
    has_agent: bool,
    own: Admin,
    agent_up: bool,
    /// Whether its circuit is closed.
    traffic_up: bool,
    check_up: bool,
    /// Outcomes in a row that speak against what it is.
    row: u32,
    /// Nothing has changed it, and nothing has confirmed it.
    fresh: bool,
}

impl Model {
    fn begin(&mut self) {
        (self.check_up, self.row, self.fresh) = (self.begins_up, 0, true);
    }

    fn observe(&mut self, passed: bool) {
        if passed == self.check_up {
            // Only a success confirms a server that begins up at once: the first failure of one
            // that begins down leaves it at the bottom.
            (self.row, self.fresh) = (0, false);
            return;
        }
        self.row += 1;
        let needed = match (self.fresh, self.check_up) {
            (true, _) => self.first,
            (false, true) => self.fall,
            (false, false) => self.rise,
        };
        if self.row == needed {
            (self.check_up, self.row, self.fresh) = (passed, 0, false);
        }
    }
}

struct Simulation {
    shared: Arc<Shared>,
    servers: Vec<Arc<Server>>,
    models: Vec<Model>,
    machines: Vec<Option<(Rules, u32)>>,
    random: Random,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut random = Random { seed, next: 0 };
        let mut models = Vec::new();
        let mut text = "defaults\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n\
                        listen a\n bind 127.0.0.1:9\n balance roundrobin\n"
            .to_owned();
        let count = 3 + random.below(8) as usize;
        for index in 0..count {
            if index == count / 2 {
                text.push_str("backend b\n balance roundrobin\n");
            }
            let backend = if index < count / 2 { "a" } else { "b" };
            text.push_str(&format!(" server s{index} 127.0.0.1:1"));
            let tracks =
                (index > 0 && random.below(2) == 0).then(|| random.below(index as u64) as usize);
            let (rise, fall) = (1 + random.below(3) as u32, 1 + random.below(3) as u32);
            let (state, begins_up, first) = match random.below(4) {
                0 => ("fully-up", true, fall),
                1 => ("up", true, 1),
                2 => ("down", false, 1),
                _ => ("fully-down", false, rise),
            };
            let has_agent = tracks.is_none() && random.below(2) == 0;
            let checked = tracks.is_none() && (!has_agent || random.below(2) == 0);
            let disabled = random.below(5) == 0;
            if let Some(tracked) = tracks {
                let backend = if tracked < count / 2 { "a" } else { "b" };
                text.push_str(&format!(" track {backend}/s{tracked}"));
            }
            if checked {
                text.push_str(&format!(
                    " check rise {rise} fall {fall} init-state {state}"
                ));
            }
            if has_agent {
                text.push_str(" agent-check agent-port 2");
            }
            if disabled {
                text.push_str(" disabled");
            }
            text.push('\n');
            let own = if disabled {
                Admin::Maintenance
            } else {
                Admin::Ready
            };
            models.push(Model {
                name: format!("{backend}/s{index}"),
                tracks,
                rise,
                fall,
                begins_up: begins_up || !checked,
                first,
                checked,
                has_agent,
                own,
                agent_up: true,
                traffic_up: true,
                check_up: begins_up || !checked,
                row: 0,
                fresh: true,
            });
        }
        let (plan, diagnostics) = config::load_text("t.cfg", &text, &SystemEnvironment::new());
        let plan = plan.unwrap_or_else(|| panic!("{text}\n{diagnostics:?}"));
        let port = Arc::new(ShardPort::new(ShardId(0), 4096).unwrap());
        let queue = Arc::new(LogQueue::new(limits::LOG_RECORDS_MAX).unwrap());
        let control = Arc::new(ControlPort::new(4).unwrap());
        let world = World::new(
            Arc::new(plan),
            vec![port],
            control,
            queue,
            Bounds {
                maxconn: 10,
                memory_max: 0,
                pipes_max: 0,
            },
            0,
        );
        let facts = Facts {
            started: Moment(0),
            started_unix_s: 0,
            descriptors_max: 0,
            descriptors_needed: 0,
            memory_limit: 0,
            caps: crate::ring::Caps::least(8),
        };
        let shared = Arc::new(Shared::new(world, facts));
        let world = shared.world();
        let backends = world.backends.iter().flatten();
        let servers: Vec<_> = backends
            .flat_map(|backend| backend.servers.clone())
            .collect();
        let machine = |server: &Arc<Server>| {
            let check = server.plan.check.as_ref()?;
            Some((Rules::of(check), 0))
        };
        let machines = servers.iter().map(machine).collect();
        Simulation {
            shared,
            servers,
            models,
            machines,
            random,
        }
    }

    /// What the state of a server should be, with that of those that it tracks.
    fn expected(&self, index: usize) -> (Admin, bool) {
        let model = &self.models[index];
        let own_up = model.check_up && model.agent_up && model.traffic_up;
        match model.tracks {
            None => (model.own, own_up),
            Some(tracked) => {
                let (admin, up) = self.expected(tracked);
                (model.own.max(admin), own_up && up)
            }
        }
    }

    fn step(&mut self) {
        let index = self.random.below(self.servers.len() as u64) as usize;
        let (checked, has_agent) = (self.models[index].checked, self.models[index].has_agent);
        if self.random.below(5) == 0 {
            self.fail_or_recover(index);
        } else if has_agent && (!checked || self.random.below(2) == 0) {
            self.ask(index);
        } else if checked {
            self.probe(index);
        }
    }

    /// Its circuit opens or closes.
    fn fail_or_recover(&mut self, index: usize) {
        let up = self.random.below(2) == 0;
        let says = if up { Transition::Up } else { Transition::Down };
        let (proxy, _) = self.place(index);
        let world = self.shared.world();
        let backend = world.backend(proxy).unwrap();
        apply::traffic(&self.shared, backend, &self.servers[index], says, "");
        self.models[index].traffic_up = up;
    }

    fn place(&self, index: usize) -> (ProxyId, usize) {
        let half = self.servers.len() / 2;
        let (proxy, place) = if index < half {
            (0, index)
        } else {
            (1, index - half)
        };
        (ProxyId(proxy), place)
    }

    /// As the probe thread does it.
    fn probe(&mut self, index: usize) {
        let server = Arc::clone(&self.servers[index]);
        let passed = self.random.below(2) == 0;
        let Some((rules, restarts)) = &mut self.machines[index] else {
            return;
        };
        if server.restarts() != *restarts {
            let check = server.plan.check.as_ref().unwrap();
            (*rules, *restarts) = (Rules::of(check), server.restarts());
        }
        if server.admin() == Admin::Maintenance {
            return;
        }
        let outcome = if passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        rules.observe(outcome);
        let (rules, restarts) = (*rules, *restarts);
        let id = self.servers[index].id;
        let result = ProbeResult {
            server: id,
            status: if passed { "L4OK" } else { "L4CON" },
            code: None,
            duration_ms: 0,
            description: String::new(),
            counted_failure: !passed,
            rules,
            restarts,
        };
        if self.random.below(20) == 0 {
            // One of an earlier time that comes late.
            let restarts = restarts.wrapping_sub(1);
            let rules = rules.at(if rules.is_up() { 0 } else { rules.top() });
            apply::apply_finding(
                &self.shared,
                Finding::Probe(ProbeResult {
                    rules,
                    restarts,
                    ..result.clone()
                }),
            );
        }
        apply::apply_finding(&self.shared, Finding::Probe(result));
        self.models[index].observe(passed);
    }

    fn ask(&mut self, index: usize) {
        let words = [
            "up",
            "down",
            "ready",
            "drain",
            "maint",
            "50%",
            "up ready",
            "down maint",
            "",
        ];
        let line = words[self.random.below(words.len() as u64) as usize];
        let admins = |simulation: &Simulation| -> Vec<Admin> {
            let servers = 0..simulation.models.len();
            servers.map(|index| simulation.expected(index).0).collect()
        };
        let before = admins(self);
        let model = &mut self.models[index];
        for word in line.split(' ') {
            match word {
                "up" => model.agent_up = true,
                "down" => model.agent_up = false,
                "ready" => model.own = Admin::Ready,
                "drain" => model.own = Admin::Drain,
                "maint" => model.own = Admin::Maintenance,
                _ => {}
            }
        }
        if before[index] == Admin::Maintenance && model.own != Admin::Maintenance {
            model.begin();
        }
        // What sessions have shown is forgotten, also of those that track it.
        for (other, after) in admins(self).into_iter().enumerate() {
            let has_left = before[other] == Admin::Maintenance && after != Admin::Maintenance;
            self.models[other].traffic_up |= has_left;
        }
        let server = self.servers[index].id;
        let result = AgentResult {
            server,
            status: "CHECKED",
            duration_ms: 0,
            description: String::new(),
            answer: Some(Answer::parse(line.as_bytes())),
        };
        apply::apply_finding(&self.shared, Finding::Agent(result));
    }

    fn compare(&self, seed: u64, step: u64) {
        for (index, server) in self.servers.iter().enumerate() {
            let (admin, up) = self.expected(index);
            let name = &self.models[index].name;
            let got = server.admin();
            assert_eq!(
                got, admin,
                "seed {seed}, step {step}: {name} {:#?}",
                self.models
            );
            // In maintenance it shows to nobody.
            let same = admin == Admin::Maintenance || (server.health() != Health::Down) == up;
            assert!(
                same,
                "seed {seed}, step {step}: {name} up: {up} {:#?}",
                self.models
            );
        }
        for backend in self.shared.world().backends.iter().flatten() {
            let request = PickRequest {
                client: None,
                local: None,
                datagram: None,
                avoid: None,
            };
            match backend.pick(request) {
                Pick::Server(server) => {
                    assert!(
                        server.usable(),
                        "seed {seed}, step {step}: a client goes there"
                    );
                    let _ = backend.release(&server, lb::Outcome::Completed);
                }
                Pick::Wait { .. } | Pick::Refuse => {
                    let usable = backend.usable_servers();
                    assert!(
                        usable.is_none(),
                        "seed {seed}, step {step}: nobody is served"
                    );
                }
            }
        }
    }
}

#[test]
fn what_is_in_force_is_what_was_said() {
    let (mut downs, mut drains, mut maintained) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut simulation = Simulation::new(seed);
        simulation.compare(seed, 0);
        for step in 1..=STEPS {
            // What is found at the same time is applied as one batch.
            let shared = Arc::clone(&simulation.shared);
            let count = 1 + simulation.random.below(4) * simulation.random.below(2);
            batch::together(&shared, || (0..count).for_each(|_| simulation.step()));
            simulation.compare(seed, step);
        }
        for server in &simulation.servers {
            downs += apply::report_of(server).downs;
            drains += u64::from(server.admin() == Admin::Drain);
            maintained += u64::from(server.admin() == Admin::Maintenance);
        }
    }
    // A simulation in which nothing happens finds nothing.
    assert!(downs > SEEDS && drains > 0 && maintained > 0);
}
