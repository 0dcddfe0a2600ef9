//! What runtime commands change in a plan comes to what a file would have made of it.

use std::net::{IpAddr, SocketAddr};

use tidegate::config::edit::{add_server, carry_over, delete_server, move_server};
use tidegate::config::plan::{Back, Plan, PortRule, Server};

use crate::world::{World, plan};

const HEAD: &str = "defaults\n    timeout connect 3s\n    timeout client 4s\n    timeout server 5s\n    \
                    timeout check 700\nfrontend f\n    bind 127.0.0.1:9000\n    default_backend a\n";
/// Backends with what their servers inherit.
const SECTIONS: [(&str, &str); 3] = [
    (
        "a",
        "balance roundrobin\n    option httpchk GET /up\n    source 10.9.9.9\n",
    ),
    ("b", "balance hash src\n    hash-type consistent\n"),
    (
        "u",
        "mode udp\n    balance leastconn\n    option dns-check example.org\n",
    ),
];
/// What servers may have.
const WORDS: [&str; 7] = [
    "",
    "weight 7 maxconn 9",
    "check inter 3s",
    "check port 77 backup",
    "agent-check agent-port 99",
    "send-proxy-v2 slowstart 5s",
    "max-fails 3 check addr 10.1.1.1 port 8",
];

fn back<'a>(plan: &'a Plan, backend: &str) -> &'a Back {
    let proxy = plan.proxies.iter().find(|proxy| *proxy.name == *backend);
    proxy
        .and_then(|proxy| proxy.back.as_ref())
        .expect("a backend")
}

fn server<'a>(plan: &'a Plan, backend: &str, name: &str) -> &'a Server {
    let mut servers = back(plan, backend).servers.iter();
    servers
        .find(|server| *server.name == *name)
        .expect("a server")
}

fn split(words: &str) -> Vec<&str> {
    words.split_whitespace().collect()
}

fn add(plan: &Plan, backend: &str, name: &str, words: &str) -> Result<Plan, String> {
    let edited = add_server(plan, &World::new(), backend, name, &split(words));
    edited.map(|(plan, _)| plan)
}

fn moved(plan: &Plan, backend: &str, name: &str, to: SocketAddr) -> Result<Plan, String> {
    let port = PortRule::Fixed(to.port());
    let edited = move_server(plan, &World::new(), backend, name, to.ip(), port);
    edited.map(|(plan, _)| plan)
}

fn deleted(plan: &Plan, backend: &str, name: &str) -> Result<Plan, String> {
    delete_server(plan, &World::new(), backend, name).map(|(plan, _)| plan)
}

#[test]
fn an_added_server_has_what_its_section_says_of_servers() {
    let mut text = HEAD.to_owned();
    for (name, lines) in SECTIONS {
        text.push_str(&format!(
            "backend {name}\n    {lines}    default-server weight 50\n"
        ));
    }
    let before = plan(&text);
    let with = add(&before, "a", "n", "10.0.0.1:80 check").unwrap();
    let check = server(&with, "a", "n").check.clone().expect("a check");
    assert!(check.scripted.is_some() && check.source.is_some());
    assert_eq!(
        check.timeout_ms, 2_000,
        "the lower one of its interval and of the connect"
    );
    let with = add(&with, "u", "n", "10.0.0.1:53 check").unwrap();
    assert!(
        server(&with, "u", "n")
            .check
            .clone()
            .expect("a check")
            .datagram
            .is_some()
    );
    let with = add(&with, "b", "n", "10.0.0.1:80").unwrap();
    assert_eq!(
        server(&with, "b", "n").weight,
        1,
        "default-server is for those of the file"
    );
    // The plan that it comes from is as it was.
    assert!(back(&before, "a").servers.is_empty());
}

#[test]
fn what_asks_a_server_goes_where_it_goes_unless_it_has_its_own_address() {
    let before = plan(&format!(
        "{HEAD}backend a\n    server s 10.0.0.1:80 check agent-check agent-port 90 max-fails 1\n    \
         server p 10.0.0.1:80 check port 80 agent-check agent-addr 10.0.0.1 agent-port 80\n    \
         server q 10.0.0.1:80 check addr 10.0.0.1\n"
    ));
    let to: SocketAddr = "10.0.0.2:81".parse().unwrap();
    let addresses = |name| {
        let after = moved(&before, "a", name, to).unwrap();
        let server = server(&after, "a", name);
        let agent = server
            .watch
            .agent
            .as_ref()
            .map(|agent| agent.address.to_string());
        let breaker = server.passive.breaker.as_ref();
        [
            Some(server.address.to_string()),
            server.check.as_ref().map(|check| check.address.to_string()),
            agent,
            breaker.map(|breaker| breaker.probe.address.to_string()),
        ]
        .map(|address| address.unwrap_or_else(|| "-".to_owned()))
    };
    assert_eq!(
        addresses("s"),
        ["10.0.0.2:81", "10.0.0.2:81", "10.0.0.2:90", "10.0.0.2:81"]
    );
    assert_eq!(
        addresses("p"),
        ["10.0.0.2:81", "10.0.0.2:80", "10.0.0.1:80", "-"]
    );
    assert_eq!(addresses("q"), ["10.0.0.2:81", "10.0.0.1:81", "-", "-"]);
}

#[test]
fn numbers_stay_and_free_ones_are_used_again() {
    let before = plan(&format!(
        "{HEAD}backend a\n    server s1 10.0.0.1:80\n    server s2 10.0.0.1:80 id 9\n    server s3 \
         10.0.0.1:80\n"
    ));
    let sids = |plan: &Plan| -> Vec<(String, u32)> {
        let servers = back(plan, "a").servers.iter();
        servers
            .map(|server| (server.name.to_string(), server.sid))
            .collect()
    };
    let named = |pairs: &[(&str, u32)]| -> Vec<(String, u32)> {
        pairs
            .iter()
            .map(|(name, sid)| ((*name).to_owned(), *sid))
            .collect()
    };
    assert_eq!(sids(&before), named(&[("s1", 1), ("s2", 9), ("s3", 3)]));
    let after = deleted(&before, "a", "s1").unwrap();
    assert_eq!(sids(&after), named(&[("s2", 9), ("s3", 3)]));
    let after = add(&after, "a", "n1", "10.0.0.1:80").unwrap();
    let after = add(&after, "a", "n2", "10.0.0.1:80 id 5").unwrap();
    let after = add(&after, "a", "n3", "10.0.0.1:80").unwrap();
    let rest = [("s2", 9), ("s3", 3), ("n1", 1), ("n2", 5), ("n3", 2)];
    assert_eq!(sids(&after), named(&rest));
    let taken = add(&after, "a", "n4", "10.0.0.1:80 id 3").unwrap_err();
    assert_eq!(
        taken,
        "'id' : custom id 3 already used at t.cfg:12 ('server s3')."
    );
}

#[test]
fn a_server_that_is_tracked_can_not_be_left_out() {
    let text = format!(
        "{HEAD}backend a\n    server s 10.0.0.1:80 check\nbackend b\n    server t 10.0.0.1:80 track \
         a/s\n"
    );
    let fault = deleted(&plan(&text), "a", "s").unwrap_err();
    assert!(
        fault.contains("unable to find required server 's' for tracking"),
        "{fault}"
    );
}

/// A server as it should be.
#[derive(Clone)]
struct Model {
    backend: usize,
    name: String,
    address: SocketAddr,
    words: &'static str,
    sid: u32,
    /// Where the file has it; `None` = it is not in there.
    written: Option<SocketAddr>,
}

fn text_of(servers: &[Model], address: impl Fn(&Model) -> Option<SocketAddr>) -> String {
    let mut text = HEAD.to_owned();
    for (index, (name, lines)) in SECTIONS.iter().enumerate() {
        text.push_str(&format!("backend {name}\n    {lines}"));
        for server in servers.iter().filter(|server| server.backend == index) {
            if let Some(address) = address(server) {
                text.push_str(&format!(
                    "    server {} {address} {}\n",
                    server.name, server.words
                ));
            }
        }
    }
    text
}

fn compare(plan: &Plan, servers: &[Model], step: &str) {
    let expected = crate::world::plan(&text_of(servers, |server| Some(server.address)));
    for (index, (name, _)) in SECTIONS.iter().enumerate() {
        let (own, like) = (back(plan, name), back(&expected, name));
        assert_eq!(own.servers.len(), like.servers.len(), "{step}");
        let models = servers.iter().filter(|server| server.backend == index);
        for ((own, like), model) in own.servers.iter().zip(&like.servers).zip(models) {
            let like = Server {
                server_id: own.server_id,
                sid: model.sid,
                ..(**like).clone()
            };
            assert!(own.is_same(&like), "{step}: {own:?}\n{like:?}");
        }
    }
}

/// Commands and reloads in any order: what they come to is what a file makes of the servers that
/// there should be, but for their numbers.
#[test]
fn edits_in_any_order_come_to_what_a_file_makes_of_them() {
    for seed in 0..40u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut below = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        let address = |n: usize| SocketAddr::new(IpAddr::from([10, 0, 0, n as u8]), 80);
        let mut files: Vec<Model> = Vec::new();
        for backend in 0..SECTIONS.len() {
            for number in 0..3 {
                files.push(Model {
                    backend,
                    name: format!("s{number}"),
                    address: address(number + 1),
                    words: WORDS[below(2)],
                    sid: number as u32 + 1,
                    written: Some(address(number + 1)),
                });
            }
        }
        let written = text_of(&files, |server| server.written);
        let (mut present, mut servers) = (plan(&written), files.clone());
        for step in 0..40 {
            let backend = below(SECTIONS.len());
            let (of, name) = (SECTIONS[backend].0, format!("s{}", below(6)));
            let to = address(below(9) + 1);
            let known = servers
                .iter()
                .position(|one| one.backend == backend && one.name == name);
            let words = WORDS[below(WORDS.len())];
            let what = below(10);
            let step = format!("seed {seed}, step {step}: {what} {of}/{name} {to} {words}");
            let edited = match what {
                0..4 => add(&present, of, &name, &format!("{to} {words}")),
                4..6 => deleted(&present, of, &name),
                6..9 => moved(&present, of, &name, to),
                _ => {
                    let mut next = plan(&written);
                    carry_over(&present, &mut next, &World::new());
                    Ok(next)
                }
            };
            match (what, known) {
                (0..4, None) => {
                    let used = |sid| servers.iter().any(|s| s.backend == backend && s.sid == sid);
                    let sid = (1..).find(|sid| !used(*sid)).unwrap_or(0);
                    let (address, written) = (to, None);
                    servers.push(Model {
                        backend,
                        name,
                        address,
                        words,
                        sid,
                        written,
                    });
                }
                (4..6, Some(at)) => drop(servers.remove(at)),
                (6..9, Some(at)) => servers[at].address = to,
                (9, _) => {
                    let mut next = files.clone();
                    for one in &mut next {
                        let same = |old: &&Model| {
                            old.written.is_some()
                                && (old.backend, &old.name) == (one.backend, &one.name)
                        };
                        if let Some(old) = servers.iter().find(same) {
                            one.address = old.address;
                        }
                    }
                    servers = next;
                }
                _ => {
                    let why = edited
                        .err()
                        .unwrap_or_else(|| panic!("{step}: it was done"));
                    let exists = "Already exists a server with the same name in backend.";
                    assert!(why == exists || why == "No such server.", "{step}: {why}");
                    continue;
                }
            }
            present = edited.unwrap_or_else(|fault| panic!("{step}: {fault}"));
            compare(&present, &servers, &step);
        }
    }
}
