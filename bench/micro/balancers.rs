//! Backends to choose from, made of configuration text as any other, and clients that come.

use std::net::{Ipv4Addr, SocketAddr};

use tidegate::config;
use tidegate::control::resolve::SystemEnvironment;
use tidegate::lb::{Backend, PickRequest, Seeds};

/// Sizes of the backends.
pub(crate) const SERVERS: [usize; 3] = [3, 100, 1000];

/// Every algorithm by the lines that ask for it.
pub(crate) const ALGORITHMS: [(&str, &str); 14] = [
    ("roundrobin", "balance roundrobin"),
    ("static-rr", "balance static-rr"),
    ("leastconn", "balance leastconn"),
    ("first", "balance first"),
    ("random", "balance random"),
    ("peak-ewma", "balance peak-ewma"),
    ("source", "balance source"),
    ("hash-map", "balance hash src,ipmask(24)"),
    ("source-ring", "balance source\n hash-type consistent"),
    ("source-maglev", "balance source\n hash-type maglev"),
    ("hash-ring", "balance hash src_port\n hash-type consistent"),
    ("hash-maglev", "balance hash src_port\n hash-type maglev"),
    (
        "bounded-ring",
        "balance source\n hash-type consistent\n hash-balance-factor 150",
    ),
    (
        "bounded-maglev",
        "balance source\n hash-type maglev\n hash-balance-factor 150",
    ),
];

/// A running backend with so many equal servers, balanced as `lines` say.
pub(crate) fn backend(lines: &str, servers: usize) -> Backend {
    let mut text = format!("backend bench\n mode tcp\n {lines}\n");
    text.push_str(" timeout connect 1s\n timeout server 1s\n");
    for n in 0..servers {
        let (high, low) = (n / 250, n % 250 + 1);
        text.push_str(&format!(" server s{n} 10.0.{high}.{low}:80\n"));
    }
    let file = std::env::temp_dir().join(format!("tidegate-micro-{}.cfg", std::process::id()));
    std::fs::write(&file, text).expect("the temporary directory takes a file");
    let (plan, diagnostics) = config::load(std::slice::from_ref(&file), &SystemEnvironment::new());
    std::fs::remove_file(&file).expect("the file was written");
    let plan = plan.unwrap_or_else(|| panic!("{diagnostics:?}"));
    let proxy = plan.proxies[0].clone();
    let seeds = Seeds {
        hash: plan.global.hash_seed,
        draws: 1,
    };
    Backend::new(proxy, 1, seeds, u32::MAX, 0)
}

/// Clients with addresses that differ, one after the other.
pub(crate) struct Clients {
    next: u32,
}

impl Clients {
    /// From the first one on.
    pub(crate) fn new() -> Clients {
        Clients { next: 0xc612_0000 }
    }

    /// What the next one asks of a backend.
    pub(crate) fn next_request(&mut self) -> PickRequest<'static> {
        // A step that visits every address before it repeats one.
        self.next = self.next.wrapping_add(0x9e37_79b1);
        let client = Ipv4Addr::from_bits(self.next);
        PickRequest {
            client: Some(SocketAddr::from((client, 40_000))),
            local: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 80))),
            datagram: None,
            avoid: None,
        }
    }
}
