//! Who is spliced: options, their absence, and bounds of pipes.

use std::collections::HashSet;
use std::net::TcpStream;

use crate::support::balancer::{TempDir, run};
use crate::support::client::{self, End, local};
use crate::support::port::free_port;
use crate::support::{
    Balancer, MockServer, balancer::Setup, eventually, is_tidegate, skip, stream, turn,
};

/// A transfer in bulk, and one that is too short to be one.
const BULK: u64 = 16 << 20;
const SHORT: u64 = 48 << 10;

/// A change of a setup.
type Change = fn(Setup) -> Setup;

fn listen(server: &MockServer, lines: &str) -> (Setup, u16) {
    let port = free_port();
    let body = format!(
        "listen l\n    bind 127.0.0.1:{port}\n{lines}    server s {}\n",
        server.address()
    );
    (Setup::new(body).shards(1), port)
}

/// Bytes of exchanges `up` and `down` that went through pipes.
fn spliced(setup: Setup, port: u16, up: u64, down: u64) -> u64 {
    let balancer = setup.start();
    client::exchange(local(port), up, down, 5).unwrap();
    balancer.settle();
    if is_tidegate() {
        assert_eq!(balancer.info("PipesUsed"), 0);
        let activity = balancer.activity();
        let bytes = balancer.info("TotalSplicedBytesOut");
        assert_eq!(activity.number("spliced_bytes"), Some(bytes));
    }
    let info = balancer.stats("show info");
    let line = info.lines().find(|line| line.starts_with("TotalSplic"));
    let (_, number) = line.unwrap().split_once(": ").unwrap();
    number.parse().unwrap()
}

#[test]
fn each_option_splices_its_direction() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let of = |lines: &str, up, down| {
        let (setup, port) = listen(&server, lines);
        spliced(setup, port, up, down)
    };
    let request = "    option splice-request\n";
    let response = "    option splice-response\n";
    let most = BULK / 4 * 3;
    assert!(of(request, BULK, SHORT) > most);
    assert!(of(response, SHORT, BULK) > most);
    let auto = of("    option splice-auto\n", BULK, BULK);
    assert!(auto > BULK / 2, "{auto}");
    if skip("it splices less of a short transfer") {
        return;
    }
    // The three numbers before the stream, and the verdict after it.
    let up = of(request, SHORT, SHORT);
    assert!(up > 0 && up <= SHORT + 24, "{up}");
    let down = of(response, SHORT, SHORT);
    assert!(down > 0 && down <= SHORT + 1, "{down}");
    let both = of(&format!("{request}{response}"), SHORT, SHORT);
    assert!(both > SHORT, "{both}");
}

/// Large messages in turn need no option and no busy shard; small ones are copied.
#[test]
fn large_messages_in_turn_are_spliced_without_an_option() {
    if skip("it splices where an option asks for it") {
        return;
    }
    let _turn = turn::shared();
    let server = MockServer::echo();
    for (length, rounds) in [(256 << 10, 40), (64, 400)] {
        let (setup, port) = listen(&server, "");
        let balancer = setup.start();
        let client = client::connect_port(port);
        let mut message = vec![0; length];
        for byte in (0..=u8::MAX).cycle().take(rounds) {
            message.fill(byte);
            // Its end leaves last: the answer begins before, but in turn from then on.
            std::thread::scope(|scope| {
                scope.spawn(|| client::write(&client, &message));
                assert_eq!(client::read_bytes(&client, length), message);
            });
        }
        drop(client);
        balancer.settle();
        let bytes = balancer.info("TotalSplicedBytesOut");
        assert_eq!(bytes > 0, length > 64, "{length}: {bytes}");
    }
}

/// On the plain step a small receive takes one buffer of 4 KiB, and where memory is scarce it takes
/// no more on any step: bulk is what is there at once, not what one receive takes of it.
#[test]
fn bulk_is_found_by_small_receives_too() {
    let _turn = turn::shared();
    if skip("its receives are others") {
        return;
    }
    let server = MockServer::exchange();
    let scarce = "maxconn 9000\n    memory-limit 128m";
    for line in [scarce, "tune.ring.receive plain"] {
        let (setup, port) = listen(&server, "    option splice-auto\n");
        let bytes = spliced(setup.global(line), port, BULK, BULK);
        assert!(bytes > BULK / 2, "{line}: {bytes}");
    }
}

#[test]
fn a_session_does_what_its_frontend_or_its_backend_asks() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    for (front, back) in [("request", "response"), ("response", "request")] {
        let port = free_port();
        let body = format!(
            "frontend f\n    bind 127.0.0.1:{port}\n    option splice-{front}\n    \
             default_backend b\nbackend b\n    option splice-{back}\n    server s {}\n",
            server.address()
        );
        let bytes = spliced(Setup::new(body).shards(1), port, BULK, BULK);
        assert!(bytes > BULK / 4 * 7, "{bytes}");
    }
}

#[test]
fn what_is_switched_off_is_not_spliced() {
    let _turn = turn::shared();
    let server = MockServer::exchange();
    let lines = "    option splice-request\n    option splice-response\n    option splice-auto\n";
    let setups: [(&str, Change); 3] = [
        ("nosplice", |setup| setup.global("nosplice")),
        ("-dS", |setup| setup.arguments(&["-dS"])),
        ("maxpipes 0", |setup| setup.global_of_ours("maxpipes 0")),
    ];
    for (name, change) in setups {
        if name == "maxpipes 0" && skip("0 is its default") {
            continue;
        }
        let (setup, port) = listen(&server, lines);
        assert_eq!(spliced(change(setup), port, BULK, BULK), 0, "{name}");
    }
    // Without an option only what a busy shard reads in bulk.
    let (setup, port) = listen(
        &server,
        "    option splice-auto\n    no option splice-auto\n",
    );
    assert_eq!(spliced(setup, port, SHORT, SHORT), 0);
}

/// Sessions whose clients don't read: as many as fill their pipes have one.
fn blocked(balancer: &Balancer, port: u16, count: u64, length: u64) -> Vec<TcpStream> {
    let clients: Vec<TcpStream> = (0..count)
        .map(|_| {
            let client = client::connect_port(port);
            // The server's side of the checked exchange: nothing up, a stream down.
            for number in [0, length, 7] {
                client::write(&client, &u64::to_be_bytes(number));
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
            client
        })
        .collect();
    eventually("all are open", || {
        balancer.stat().number("l", "s", "scur") == count
    });
    clients
}

/// Reads what `blocked` has asked for.
fn unblock(clients: Vec<TcpStream>, length: u64) {
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || {
                stream::receive(&mut &client, !7, length).unwrap();
                assert_eq!(client::read_end(&client), (vec![1], End::Fin));
            });
        }
    });
}

#[test]
fn whoever_gets_no_pipe_is_copied() {
    const LENGTH: u64 = 12 << 20;
    let _turn = turn::shared();
    if skip("its pipes are counted otherwise") {
        return;
    }
    for most in [1, 2] {
        let server = MockServer::exchange();
        let (setup, port) = listen(&server, "    option splice-response\n");
        let balancer = setup.global(format!("maxpipes {most}")).start();
        assert_eq!(balancer.info("Maxpipes"), most);
        let clients = blocked(&balancer, port, 6, LENGTH);
        eventually("all pipes are used", || balancer.info("PipesUsed") == most);
        eventually("somebody got none", || {
            let activity = balancer.activity();
            activity.number("pipes_refused") > Some(0)
                || activity.number("copied_out_bytes") > Some(0)
        });
        assert_eq!(balancer.info("PipesUsed"), most);
        unblock(clients, LENGTH);
        balancer.settle();
        assert_eq!(balancer.info("PipesUsed"), 0);
        assert!(balancer.activity().number("spliced_bytes") > Some(0));
    }
}

#[test]
fn without_descriptors_for_pipes_bytes_are_copied() {
    const LENGTH: u64 = 12 << 20;
    let _turn = turn::shared();
    if skip("it has other descriptors") {
        return;
    }
    let server = MockServer::exchange();
    let (setup, port) = listen(&server, "    option splice-response\n");
    let balancer = setup.start();
    let clients: Vec<TcpStream> = (0..4).map(|_| client::connect_port(port)).collect();
    eventually("all are open", || {
        balancer.stat().number("l", "s", "scur") == 4
    });
    // The limit is one of numbers: not even one that is free between two others is to be had. The
    // runtime socket is asked again when there are more.
    let numbers = std::fs::read_dir(format!("/proc/{}/fd", balancer.pid())).unwrap();
    let names = numbers.map(|entry| entry.unwrap().file_name());
    let taken: HashSet<usize> = names
        .filter_map(|name| name.to_str()?.parse().ok())
        .collect();
    let free = (0..).find(|number| !taken.contains(number)).unwrap();
    balancer.limit_descriptors(free);
    for client in &clients {
        for number in [0, LENGTH, 7] {
            client::write(client, &u64::to_be_bytes(number));
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    unblock(clients, LENGTH);
    balancer.limit_descriptors(20_000);
    let activity = balancer.activity();
    assert!(activity.number("pipes_refused") > Some(0));
    assert_eq!(activity.number("spliced_bytes"), Some(0));
    // They are back, and so are pipes, which are not asked for again at once.
    eventually("pipes are back", || {
        client::exchange(local(port), 1, BULK, 3).unwrap();
        balancer.activity().number("spliced_bytes") > Some(0)
    });
    balancer.settle();
}

/// `pipe-user-pages-soft` bounds the pages of all pipes of a user without privileges; beyond it
/// pipes are small, and bytes arrive all the same.
#[test]
fn a_user_without_privileges_keeps_to_its_pages() {
    const NOBODY: u32 = 65_534;
    const LENGTH: u64 = 4 << 20;
    let _turn = turn::alone();
    if skip("its pipes are counted otherwise") || !nix::unistd::geteuid().is_root() {
        return;
    }
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/fs/{name}"));
    let pages: u64 = read("pipe-user-pages-soft")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let server = MockServer::exchange();
    let start = |line: &str| {
        let (setup, port) = listen(&server, "    option splice-response\n");
        let setup = setup.global(format!("uid {NOBODY}")).global(line);
        (setup.start(), port)
    };
    let (balancer, _) = start("maxconn 9000");
    let computed = balancer.info("Maxpipes");
    assert!(computed > 0 && computed <= 9_000 / 4, "{computed}");
    // At 1 MiB a pipe, half of what the user may have.
    assert!(
        pages == 0 || computed <= pages / 256 / 2,
        "{computed} of {pages} pages"
    );
    drop(balancer);
    // More than there are pages for: what is asked for is tried.
    let most = if pages == 0 { 100 } else { pages / 256 + 20 };
    let (balancer, port) = start(&format!("maxpipes {most}"));
    assert_eq!(balancer.info("Maxpipes"), most);
    let clients = blocked(&balancer, port, most, LENGTH);
    eventually("pipes are used up", || {
        balancer.info("PipesUsed") + 1 >= pages.div_ceil(256).min(most)
            || balancer.activity().number("pipes_refused") > Some(0)
    });
    unblock(clients, LENGTH);
    balancer.settle();
}

#[test]
fn pipes_that_do_not_fit_are_refused_where_limits_are_strict() {
    let _turn = turn::shared();
    if skip("it counts otherwise") {
        return;
    }
    let server = MockServer::exchange();
    let dir = TempDir::new();
    let setup = || {
        let (setup, port) = listen(&server, "    option splice-response\n");
        let setup = setup.global("maxconn 100").global("maxpipes 1000000000");
        (setup, port)
    };
    let file = dir.write("a.cfg", &setup().0.text(dir.path()));
    let (code, _, errors) = run(&["-f", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("2000000000 for pipes"), "{errors}");
    let (setup, port) = setup();
    let balancer = setup.global("no strict-limits").start();
    assert_eq!(balancer.info("Maxconn"), 100);
    assert_eq!(balancer.info("Maxpipes"), 25);
    let errors = balancer.stderr();
    assert!(errors.contains("[WARNING]"), "{errors}");
    client::exchange(local(port), 1, BULK, 3).unwrap();
    balancer.settle();
}
