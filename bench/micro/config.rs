//! Texts for the configuration's parser.

use std::fmt::Write;

/// Servers of the generated file, and of each of its backends.
const SERVERS: usize = 1000;
const SERVERS_PER_BACKEND: usize = 50;

/// What is parsed, by name: the file with every keyword, and a large one.
pub(crate) fn texts() -> [(&'static str, String); 2] {
    [
        ("full.cfg", include_str!("../../conf/full.cfg").to_owned()),
        ("1000-servers", generated()),
    ]
}

/// A file as tools write them: a frontend for each backend, every server with checks and options.
pub(crate) fn generated() -> String {
    let mut text = "global\n maxconn 20000\n\ndefaults\n mode tcp\n timeout connect 5s\n \
                    timeout client 60s\n timeout server 60s\n option tcplog\n"
        .to_owned();
    for backend in 0..SERVERS / SERVERS_PER_BACKEND {
        let port = 10_000 + backend;
        let _ = write!(
            text,
            "\nfrontend f{backend}\n bind :{port}\n default_backend b{backend}\n\n\
             backend b{backend}\n balance leastconn\n option tcp-check\n \
             default-server inter 2s fall 3 rise 2\n"
        );
        for server in 1..=SERVERS_PER_BACKEND {
            let _ = writeln!(
                text,
                " server s{server} 10.1.{backend}.{server}:8080 check weight 10 maxconn 500 \
                 slowstart 30s"
            );
        }
    }
    text
}
