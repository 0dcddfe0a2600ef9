//! Frontends, backends and listens.

use std::sync::Arc;

use super::{
    Balance, LogTarget, Pages, QuicLb, Server, SessionLines, SourceCondition, UdpBack, UdpFront,
};
use crate::base::ids::{ListenerId, ProxyId};

/// A frontend, a backend, or a listen (both).
#[derive(Clone, PartialEq, Debug)]
pub struct Proxy {
    /// Its place in `Plan::proxies`.
    pub proxy_id: ProxyId,
    /// HAProxy's numeric id (`iid`): that of the `id` line, else the next free one from 2 on.
    pub iid: u32,
    /// Whether it was given by an `id` line.
    pub iid_given: bool,
    /// `description`, empty = none.
    pub description: String,
    /// Unique name.
    pub name: Arc<str>,
    /// The section it was written as.
    pub kind: ProxyKind,
    /// The accepting side, of `frontend` and `listen`.
    pub front: Option<Front>,
    /// The connecting side, of `backend` and `listen`.
    pub back: Option<Back>,
    /// `guid`: its identity over restarts, unique in the file; empty = none.
    pub guid: String,
    /// Resolved log targets (`log global` expanded).
    pub logs: Vec<Arc<LogTarget>>,
    /// `log-tag`: the program's name in its lines; `None` = the global one.
    pub log_tag: Option<String>,
    /// What `option splice-...` ask for; a session does what its frontend or its backend asks.
    pub splice: SpliceOptions,
}

impl Proxy {
    /// The word of its `mode`.
    pub fn mode(&self) -> &'static str {
        match &self.front {
            Some(front) if front.pages.is_some() => "http",
            _ if self.is_udp() => "udp",
            _ => "tcp",
        }
    }

    /// Whether it is of `mode udp`: both sides of a proxy are.
    pub fn is_udp(&self) -> bool {
        let front = self.front.as_ref().is_some_and(|front| front.udp.is_some());
        front || self.back.as_ref().is_some_and(|back| back.udp.is_some())
    }

    /// Whether both say the same, wherever that is written.
    pub fn is_same(&self, other: &Proxy) -> bool {
        let servers = |proxy: &Proxy| proxy.back.as_ref().map(|back| back.servers.clone());
        let (own, others) = (servers(self), servers(other));
        let (own, others) = (own.unwrap_or_default(), others.unwrap_or_default());
        let mut pairs = own.iter().zip(&others);
        own.len() == others.len()
            && pairs.all(|(own, other)| own.is_same(other))
            && self.without_servers() == other.without_servers()
    }

    /// The proxy itself.
    pub(in crate::config) fn without_servers(&self) -> Proxy {
        let mut proxy = self.clone();
        if let Some(back) = &mut proxy.back {
            back.servers.clear();
        }
        proxy
    }
}

/// `option splice-auto`, `splice-request` and `splice-response`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpliceOptions {
    /// Either direction, where it costs less than copying.
    pub auto: bool,
    /// Clients' bytes, wherever it is possible.
    pub request: bool,
    /// Servers' bytes, wherever it is possible.
    pub response: bool,
}

impl SpliceOptions {
    /// Whether anything is asked for.
    pub fn any(self) -> bool {
        self.auto || self.request || self.response
    }

    /// What either of two asks for.
    pub fn or(self, other: SpliceOptions) -> SpliceOptions {
        SpliceOptions {
            auto: self.auto || other.auto,
            request: self.request || other.request,
            response: self.response || other.response,
        }
    }
}

/// The section a proxy was written as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProxyKind {
    /// `frontend`
    Frontend,
    /// `backend`
    Backend,
    /// `listen`
    Listen,
}

/// The accepting side of a proxy.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Front {
    /// Its listeners, indices of `Plan::listeners`.
    pub listeners: Vec<ListenerId>,
    /// Where its connections go; a `listen` without `default_backend` names itself. `None` =
    /// refused with `SC` and `<NOSRV>` as HAProxy does.
    pub default_backend: Option<ProxyId>,
    /// `maxconn`, 0 = only the process's limit.
    pub maxconn: u32,
    /// `rate-limit sessions`: new sessions per second, 0 = any number.
    pub session_rate: u32,
    /// `timeout client`, 0 = infinite.
    pub timeout_client_ms: u32,
    /// `timeout client-fin`, 0 = not set.
    pub timeout_client_fin_ms: u32,
    /// `timeout client-hs`, 0 = not set.
    pub timeout_client_hs_ms: u32,
    /// `tcp-request connection expect-proxy layer4`: a PROXY header comes first from clients for
    /// which one of them holds.
    pub expect_proxy: Vec<SourceCondition>,
    /// `option tcpka` or `clitcpka`.
    pub keepalive: Option<KeepAlive>,
    /// The form of sessions' log lines, and when they are written.
    pub lines: SessionLines,
    /// `option dontlognull`: sessions without a byte from the client are not logged.
    pub dontlognull: bool,
    /// `option dontlog-normal`: nor are those that went well.
    pub dontlog_normal: bool,
    /// `option log-separate-errors`: those that didn't are logged with the level `err`.
    pub log_separate_errors: bool,
    /// `option nolinger`: client connections end by a reset.
    pub nolinger: bool,
    /// `option independent-streams`: what is sent to a client does not show that it is alive.
    pub independent_streams: bool,
    /// What `mode udp` adds.
    pub udp: Option<UdpFront>,
    /// What it answers by itself, in `mode http`.
    pub pages: Option<Pages>,
}

/// TCP keep-alive settings; `None` = the kernel's own value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KeepAlive {
    /// Seconds before the first probe (`clitcpka-idle`, `srvtcpka-idle`).
    pub idle_s: Option<u32>,
    /// Seconds between probes (`-intvl`).
    pub interval_s: Option<u32>,
    /// Probes before giving up (`-cnt`).
    pub count: Option<u32>,
}

/// The connecting side of a proxy.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Back {
    /// `balance` with all that belongs to it.
    pub balance: Balance,
    /// `quic-lb`: a server that a connection ID names comes before what `balance` says.
    pub quic_lb: Option<QuicLb>,
    /// `server` lines in order.
    pub servers: Vec<Arc<Server>>,
    /// `timeout connect`, 0 = infinite.
    pub timeout_connect_ms: u32,
    /// `timeout server`, 0 = infinite.
    pub timeout_server_ms: u32,
    /// `timeout server-fin`, 0 = not set.
    pub timeout_server_fin_ms: u32,
    /// `timeout queue`, 0 = as `timeout connect`.
    pub timeout_queue_ms: u32,
    /// `retries`, 3 by default.
    pub retries: u16,
    /// `option redispatch [interval]`: `None` = off; negative = counted from the last retry.
    pub redispatch: Option<i16>,
    /// `option allbackups`: all usable backup servers share the load, not only the first.
    pub allbackups: bool,
    /// `option log-health-checks`: a line per check that changes something.
    pub log_health_checks: bool,
    /// `fullconn`: sessions of the backend at which its servers reach their `maxconn`; 0 = a tenth
    /// of what its frontends may bring.
    pub fullconn: u32,
    /// `option tcpka` or `srvtcpka`.
    pub keepalive: Option<KeepAlive>,
    /// `timeout tunnel`: in place of `timeout client` and `timeout server` once the server is
    /// connected; 0 = not set.
    pub timeout_tunnel_ms: u32,
    /// `option nolinger`: server connections end by a reset.
    pub nolinger: bool,
    /// `option independent-streams`: what is sent to a server does not show that it is alive.
    pub independent_streams: bool,
    /// `option abortonclose`: a client that closes before it has a server is given up.
    pub abortonclose: bool,
    /// `option tcp-smart-connect`: the handshake's last ACK leaves with the first data.
    pub smart_connect: bool,
    /// What `mode udp` adds; `None` = `mode tcp`.
    pub udp: Option<UdpBack>,
}
