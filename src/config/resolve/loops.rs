//! Finds listeners that collide and servers that are the program itself.
//!
//! A server whose address is one of our own listeners makes each connection cause another. That is
//! meant where a proxy passes connections on to another one, and runs until the descriptors are
//! used up where they come round to the first. Whether an address is ours includes wildcards: `:80`
//! takes what is sent to 127.0.0.0/8, to ::1 and to any address of the machine.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::address::Address;
use crate::config::diagnostics::{Place, Report};
use crate::config::draft::{BindDraft, Draft, Mode, ServerDraft};
use crate::config::environment::Environment;
use crate::config::plan::{Endpoint, Target};

/// Checks the listeners and servers of all proxies that aren't disabled. `goes_to` says to which
/// proxy the connections of one go.
pub(in crate::config) fn check(
    draft: &Draft,
    goes_to: impl Fn(usize) -> Option<usize>,
    environment: &dyn Environment,
    report: &mut Report,
) {
    let proxies = || {
        let all = draft.proxies.iter().enumerate();
        all.filter(|(_, proxy)| !proxy.settings.disabled)
    };
    let mut listening = Listening::default();
    for (index, proxy) in proxies() {
        for bind in &proxy.binds {
            listening.add(index, bind, report);
        }
    }
    // By proxy: the listeners whose connections come to it. Those with a PROXY header go to where
    // that says.
    let mut leading: HashMap<usize, Vec<&BindDraft>> = HashMap::new();
    for (index, proxy) in proxies() {
        if let Some(to) = goes_to(index) {
            let rule = !proxy.settings.expect_proxy.is_empty();
            let is_where_it_goes = |bind: &&BindDraft| !rule && !bind.settings.accept_proxy;
            let binds = proxy.binds.iter().filter(is_where_it_goes);
            leading.entry(to).or_default().extend(binds);
        }
    }
    let mut passes = Vec::new();
    for (index, proxy) in proxies() {
        let binds = leading.get(&index).map_or(&[][..], Vec::as_slice);
        for server in &proxy.servers {
            let mut seen = HashSet::new();
            for address in addresses(&server.address, binds) {
                let target = target(address, proxy.settings.mode);
                if let Some(own) = listening.find(&target, environment)
                    && let Some(to) = goes_to(own.proxy)
                    && seen.insert(to)
                {
                    passes.push(Pass {
                        from: index,
                        to,
                        server,
                        place: &own.place,
                    });
                }
            }
        }
    }
    for pass in circular(passes, draft.proxies.len()) {
        let proxy = &draft.proxies[pass.from];
        let what = match proxy.settings.mode {
            Mode::Udp => "datagrams",
            Mode::Tcp | Mode::Http => "connections",
        };
        let text = format!(
            "'server {}/{}' : '{}' is this program's own listener, the 'bind' at {}: {what} would \
             go round in a circle.",
            proxy.name, pass.server.name, pass.server.address_text, pass.place
        );
        report.alert(&pass.server.place, None, text);
    }
}

/// A server through which the connections of one proxy come to another, or back to the same.
struct Pass<'a> {
    from: usize,
    to: usize,
    server: &'a ServerDraft,
    place: &'a Place,
}

/// Those that are left when all are taken away, again and again, that lead to where nothing is
/// passed on from, or come from where nothing is passed on to: circles and what connects them.
fn circular(mut passes: Vec<Pass<'_>>, proxies: usize) -> Vec<Pass<'_>> {
    for backwards in [false, true] {
        let end = |pass: &Pass<'_>| {
            let (from, to) = (pass.from, pass.to);
            if backwards { (to, from) } else { (from, to) }
        };
        // Of each proxy: how many lead on from it, and which lead to it.
        let mut onward = vec![0usize; proxies];
        let mut inward = vec![Vec::new(); proxies];
        for (index, (from, to)) in passes.iter().map(end).enumerate() {
            onward[from] += 1;
            inward[to].push(index);
        }
        let mut gone = vec![false; passes.len()];
        let mut ends: Vec<usize> = (0..proxies).filter(|proxy| onward[*proxy] == 0).collect();
        while let Some(last) = ends.pop() {
            for index in std::mem::take(&mut inward[last]) {
                gone[index] = true;
                let (from, _) = end(&passes[index]);
                onward[from] -= 1;
                if onward[from] == 0 {
                    ends.push(from);
                }
            }
        }
        let mut gone = gone.into_iter();
        passes.retain(|_| gone.next() == Some(false));
    }
    passes
}

/// A listening address.
#[derive(Clone)]
struct Own {
    /// The proxy that it belongs to.
    proxy: usize,
    place: Place,
}

/// The listening addresses of a configuration.
#[derive(Default)]
struct Listening {
    exact: HashMap<Endpoint, Own>,
    /// The same by address and interface: on different ones an address is several.
    on_interfaces: HashMap<(Endpoint, Option<String>), Place>,
    /// Ports of wildcards that take IPv4, and of those that take IPv6.
    wildcard_v4: HashMap<Port, Own>,
    wildcard_v6: HashMap<Port, Own>,
}

/// A port, of datagrams or of streams.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Port {
    Stream(u16),
    Datagram(u16),
}

/// An IP address and its port.
fn ip_and_port(endpoint: &Endpoint) -> Option<(IpAddr, Port)> {
    match endpoint {
        Endpoint::Address(Address::Ip(address)) => {
            Some((address.ip(), Port::Stream(address.port())))
        }
        Endpoint::Datagram(address) => Some((address.ip(), Port::Datagram(address.port()))),
        Endpoint::Address(Address::Unix(_) | Address::Abstract(_)) | Endpoint::Descriptor(_) => {
            None
        }
    }
}

impl Listening {
    /// Adds a bind's addresses; says which of them are taken already.
    fn add(&mut self, proxy: usize, bind: &BindDraft, report: &mut Report) {
        let own = Own {
            proxy,
            place: bind.place.clone(),
        };
        for endpoint in &bind.endpoints {
            let address = canonical(endpoint);
            let key = (address.clone(), bind.settings.interface.clone());
            if let Some(other) = self.on_interfaces.get(&key) {
                let what = match endpoint {
                    Endpoint::Address(address) => format!("address '{address}'"),
                    Endpoint::Descriptor(number) => format!("descriptor 'fd@{number}'"),
                    Endpoint::Datagram(address) => format!("address 'udp@{address}'"),
                };
                let text = format!("'bind' : {what} is already used by the 'bind' at {other}.");
                report.alert(&bind.place, None, text);
                continue;
            }
            self.on_interfaces.insert(key, own.place.clone());
            self.exact.entry(address).or_insert_with(|| own.clone());
            let Some((ip, port)) = ip_and_port(endpoint) else {
                continue;
            };
            if !ip.is_unspecified() {
                continue;
            }
            if ip.is_ipv6() {
                self.wildcard_v6.entry(port).or_insert_with(|| own.clone());
            }
            // The kernel's default is that an IPv6 wildcard takes IPv4 as well.
            if ip.is_ipv4() || bind.settings.v6only != Some(true) {
                self.wildcard_v4.entry(port).or_insert_with(|| own.clone());
            }
        }
    }

    /// The listener that takes what is sent to an address.
    fn find(&self, target: &Endpoint, environment: &dyn Environment) -> Option<&Own> {
        if let Some(own) = self.exact.get(&canonical(target)) {
            return Some(own);
        }
        let (ip, port) = ip_and_port(target)?;
        let ip = ip.to_canonical();
        let ours = environment
            .local_addresses()
            .iter()
            .any(|local| local.to_canonical() == ip);
        if !ip.is_loopback() && !ours {
            return None;
        }
        match ip {
            IpAddr::V4(_) => self.wildcard_v4.get(&port),
            IpAddr::V6(_) => self.wildcard_v6.get(&port),
        }
    }
}

/// Where a server may be, for clients of the `binds` that lead to it.
fn addresses<'a>(
    target: &'a Target,
    binds: &'a [&BindDraft],
) -> Box<dyn Iterator<Item = Address> + 'a> {
    match target {
        Target::Fixed(address) => Box::new(std::iter::once(address.clone())),
        Target::OfClient { .. } => {
            Box::new(destinations(binds).filter_map(|destination| target.of_client(destination)))
        }
        Target::Unresolved => Box::new(std::iter::empty()),
    }
}

/// Where clients of `binds` may have connected to. A wildcard stands for its machine; what a
/// transparent one takes was meant for others.
fn destinations(binds: &[&BindDraft]) -> impl Iterator<Item = SocketAddr> {
    let usual = binds.iter().filter(|bind| !bind.settings.transparent);
    let endpoints = usual.flat_map(|bind| &bind.endpoints);
    endpoints.filter_map(|endpoint| {
        let (Endpoint::Address(Address::Ip(address)) | Endpoint::Datagram(address)) = endpoint
        else {
            return None;
        };
        let ip: IpAddr = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Some(SocketAddr::new(ip, address.port()))
    })
}

/// An IPv4 address written in IPv6 is the same address.
fn canonical(endpoint: &Endpoint) -> Endpoint {
    match endpoint {
        Endpoint::Address(Address::Ip(address)) => {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            Endpoint::Address(Address::Ip(address))
        }
        Endpoint::Datagram(address) => {
            Endpoint::Datagram(SocketAddr::new(address.ip().to_canonical(), address.port()))
        }
        other => other.clone(),
    }
}

/// Where a server of a proxy of a mode is sent to.
fn target(address: Address, mode: Mode) -> Endpoint {
    match (mode, address) {
        (Mode::Udp, Address::Ip(address)) => Endpoint::Datagram(address),
        (_, address) => Endpoint::Address(address),
    }
}
