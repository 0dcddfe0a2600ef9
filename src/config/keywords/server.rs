//! The parameters of `server` and `default-server` lines.

use super::{CONNECTS, HTTP_ONLY, Parameter, QUIC_ONLY, TLS_ONLY};
use crate::config::draft::ServerSettings;
use crate::config::parse::bind::{number, positive_delay};
use crate::config::parse::health::{
    agent_address, agent_send, check_address, init_state, interval, on_marked, port, positive,
    track,
};
use crate::config::parse::passive::{error_limit, fail_timeout, max_fails, observe, on_error};
use crate::config::parse::send_proxy::{options as proxy_options, send_proxy};
use crate::config::parse::server::{
    congestion, guid, hash_key, id, init_addr, resolve_prefer, weight,
};
use crate::config::parse::slow_start::{
    rate as slow_start_rate, slow_start, steps as slow_start_steps,
};
use crate::config::parse::source::{server_interface, server_source, server_usesrc};
use crate::config::parse::udp::quic_id;

type P = Parameter<ServerSettings>;

/// A word that asks for what is so anyway.
const fn already(name: &'static str, help: &'static str) -> P {
    P::works(name, "", help, |_, _, _, _| Ok(()))
}

#[rustfmt::skip]
pub(in crate::config) static SERVER: &[P] = &[
    P::works("addr", "<address>", "Address to check, if not the server's own: a host, a port or both, or a Unix socket.", check_address),
    P::works("agent-addr", "<address>", "Address of the agent.", agent_address)
        .default("the server's"),
    P::works("agent-check", "", "Ask an agent for the server's state, weight and 'maxconn'.", |_, server, _, _| {
        server.agent.asked = true;
        Ok(())
    }).default("no agent"),
    P::works("agent-inter", "<time>", "Time between questions to the agent.", interval)
        .default("2s"),
    P::works("agent-port", "<port>", "Port of the agent.", port),
    P::works("agent-send", "<text>", "What the agent is asked; it may have to end with \\n.", agent_send)
        .default("nothing"),
    P::works("backup", "", "Used only when no server without 'backup' is usable: the first such one, or all with 'option allbackups'.", |_, server, _, _| {
        server.backup = true;
        Ok(())
    }),
    P::works("cc", "<algorithm>", "Congestion control of connections to the server.", congestion)
        .default("the kernel's"),
    P::works("check", "", "Check the server by connecting to it.", |_, server, _, _| {
        server.check = true;
        Ok(())
    }).default("no check: the server counts as up"),
    P::works("check-send-proxy", "", "Checks send a PROXY header too; with 'send-proxy' they do, unless they have an 'addr' or a 'port' of their own.", send_proxy),
    P::works("disabled", "", "Start in maintenance.", |_, server, _, _| {
        server.disabled = true;
        Ok(())
    }),
    P::works("downinter", "<time>", "Time between checks of a server that is down.", interval)
        .default("'inter'"),
    P::works("enabled", "", "Undoes an inherited 'disabled'.", |_, server, _, _| {
        server.disabled = false;
        Ok(())
    }),
    P::works("error-limit", "<number>", "Failed connections in a row after which 'on-error' acts; a passed check ends the row too.", error_limit)
        .default("10"),
    P::works("fail-timeout", "<time>", "Time in which 'max-fails' counts, and time before each probe of a server that is out; a second at most once the backend has none left.", fail_timeout)
        .default("10s")
        .ours(),
    P::works("fall", "<number>", "Failed checks in a row until the server is down.", |_, server, name, value| {
        server.fall = positive(name, value)?;
        Ok(())
    }).default("3"),
    P::works("fastinter", "<time>", "Time between checks of a server that is on its way up or down.", interval)
        .default("'inter'"),
    P::works("guid", "<text>", "Identity of the server over restarts, unique in the file.", guid)
        .default("none"),
    P::works("hash-key", "id|id32|addr|addr-port|guid", "What a server's place under 'hash-type consistent' or 'maglev' comes from.", hash_key)
        .default("addr-port, so that balancers agree whatever the order of their servers; HAProxy's is id"),
    P::works("id", "<number>", "Number of the server in statistics, unique in its backend.", id)
        .default("the next free one, from 1 on"),
    P::works("init-addr", "last|libc|none|<ip>,...", "Where the address of a name comes from at the start, in order.", init_addr)
        .default("last,libc"),
    P::works("interface", "<name>", "Interface that the packets of its 'source' leave by.", server_interface),
    P::works("init-state", "fully-up|up|down|fully-down|none", "What the server is before its first check at the start, and after maintenance: 'up' and 'down' change with that check, 'fully-up' takes 'fall' failures, 'fully-down' takes 'rise' successes.", init_state)
        .default("up"),
    P::works("inter", "<time>", "Time between checks.", interval)
        .default("2s"),
    P::works("maxconn", "<number>", "Most connections to the server at a time; 0 = no bound.", |_, server, name, value| {
        server.maxconn = number(name, value)?;
        Ok(())
    }).default("0"),
    P::works("max-fails", "<number>", "Failed connections within 'fail-timeout' after which the server is out, checked or not and be it the last one, until a probe has connected to it; 0 = any number.", max_fails)
        .default("1 with 'fail-timeout', else 0")
        .ours(),
    P::works("maxqueue", "<number>", "Most sessions that wait for this server alone, as 'balance source' has it; others go to any. 0 = no bound.", |_, server, name, value| {
        server.maxqueue = number(name, value)?;
        Ok(())
    }).default("0"),
    P::works("minconn", "<number>", "What 'maxconn' is while the backend has few sessions; it grows with them, up to 'maxconn' at 'fullconn'.", |_, server, name, value| {
        server.minconn = number(name, value)?;
        Ok(())
    }).default("'maxconn'"),
    P::works("no-agent-check", "", "Undoes an inherited 'agent-check'.", |_, server, _, _| {
        server.agent.asked = false;
        Ok(())
    }),
    P::works("no-backup", "", "Undoes an inherited 'backup'.", |_, server, _, _| {
        server.backup = false;
        Ok(())
    }),
    P::works("no-check", "", "Undoes an inherited 'check'.", |_, server, _, _| {
        server.check = false;
        Ok(())
    }),
    P::works("observe", "none|layer4|layer7", "What of its traffic is told to the server's checks: failed connections, with 'layer4'; 'layer7' is for HTTP.", observe)
        .default("none"),
    P::works("on-error", "fastinter|fail-check|sudden-death|mark-down", "What 'error-limit' errors do: the next check comes after 'fastinter'; they count as a failed check; the next failed check takes the server down; it is down.", on_error)
        .default("fail-check"),
    P::works("on-marked-down", "shutdown-sessions", "Ends the sessions of the server when it goes down or into maintenance.", on_marked)
        .default("sessions go on"),
    P::works("on-marked-up", "shutdown-backup-sessions", "Ends the sessions of backup servers when this one comes up.", on_marked)
        .default("sessions go on"),
    P::works("port", "<port>", "Port to check, if not the server's own.", port),
    P::works("no-check-send-proxy", "", "Undoes an inherited 'check-send-proxy'.", send_proxy),
    P::works("no-send-proxy", "", "Undoes an inherited 'send-proxy'.", send_proxy),
    P::works("no-send-proxy-v2", "", "Undoes an inherited 'send-proxy-v2'.", send_proxy),
    P::works("no-send-proxy-v2-ssl", "", "Undoes an inherited 'send-proxy-v2-ssl'.", send_proxy),
    P::works("no-send-proxy-v2-ssl-cn", "", "Undoes an inherited 'send-proxy-v2-ssl-cn'.", send_proxy),
    P::works("proxy-v2-options", "crc32c|unique-id|authority|ssl,...", "What a PROXY header of version 2 holds beside addresses. 'ssl' and its kin ('cert-cn', 'ssl-cipher', 'cert-sig', 'cert-key') come to one: that there is no TLS.", proxy_options)
        .default("addresses only"),
    P::works("quic-id", "<hex>", "What the connection IDs that the server gives out have at the place of 'quic-lb'.", quic_id)
        .default("none: no connection ID names it").ours(),
    P::works("resolve-prefer", "ipv4|ipv6", "Family that is taken of a name that has both.", resolve_prefer)
        .default("the system's order"),
    P::works("rise", "<number>", "Passed checks in a row until the server is up.", |_, server, name, value| {
        server.rise = positive(name, value)?;
        Ok(())
    }).default("2"),
    P::works("slowstart", "<time>", "Time in which a server that was down or in maintenance gets to its whole weight and 'maxconn'.", slow_start),
    P::works("slowstart-connrate", "<number>", "Most new connections per second to the server during its 'slowstart', whatever the algorithm; 0 = no bound.", slow_start_rate)
        .default("0").ours(),
    P::works("slowstart-steps", "<percent>,...", "Rising parts, up to 100, that 'slowstart' goes through for equally long; 0 = in proportion to the time.", slow_start_steps)
        .default("0").ours(),
    P::works("send-proxy", "", "The server gets a PROXY header of version 1 before the client's bytes.", send_proxy),
    P::works("send-proxy-v2", "", "The same of version 2.", send_proxy),
    P::works("send-proxy-v2-ssl", "", "The same, and that there is no TLS.", send_proxy),
    P::works("send-proxy-v2-ssl-cn", "", "The same as 'send-proxy-v2-ssl'.", send_proxy),
    P::works("source", "<address>[:<port>[-<port>]]", "Address and ports to connect and check from.", server_source)
        .default("'source' of the backend"),
    P::works("tcp-ut", "<time>", "Longest time that sent data may stay unacknowledged.", |_, server, name, value| {
        server.tcp_user_timeout_ms = positive_delay(name, value)?;
        Ok(())
    }).default("the kernel's"),
    P::works("track", "[<backend>/]<server>", "Takes the state of another server, in place of checks.", track),
    P::works("usesrc", "client|clientip|<address>[:<port>]", "Whose address connections have instead of that of the 'source' before it, which is then that of checks: the client's with its port, the client's, another one.", server_usesrc),
    P::works("weight", "<0..256>", "Share of the load.", weight)
        .default("1"),
    already("no-check-ssl", "Undoes an inherited 'check-ssl'."),
    already("no-ssl", "Undoes an inherited 'ssl'."),
    already("no-tfo", "Undoes an inherited 'tfo'."),
    already("no-verifyhost", "Undoes an inherited 'verifyhost'."),
    already("non-stick", "Keeps the server out of stick tables."),
    already("stick", "Undoes an inherited 'non-stick'."),
    already("strict-maxconn", "'maxconn' bounds connections; it always does here."),

    P::later("check-proto", "<name>", "Protocol of the check.")
        .meaning(CONNECTS),
    P::later("check-sni", "<name>", "Server name of a TLS check."),
    P::later("check-ssl", "", "The check speaks TLS.")
        .meaning(CONNECTS),
    P::later("check-via-socks4", "", "The check goes through the SOCKS4 proxy.")
        .meaning(CONNECTS),
    P::later("from", "<name>", "A named 'default-server' to start from."),
    P::later("name", "<name>", "Names a 'default-server' line, for 'from'."),
    P::needed("namespace", "<name>", "Network namespace to connect in."),
    P::later("resolve-net", "<network>,...", "Networks preferred in DNS answers."),
    P::later("resolve-opts", "<option>,...", "How DNS answers are used."),
    P::later("resolvers", "<section>", "Resolves the name at run time.")
        .meaning("the name is resolved once, at the start"),
    P::needed("set-proxy-v2-tlv*", "<format>", "Adds a field to the PROXY header."),
    P::needed("socks4", "<address>", "Connects through a SOCKS4 proxy."),
    P::needed("tcp-md5sig", "<password>", "Signed segments (RFC 2385)."),
    P::never("ssl", "", "TLS towards servers is not implemented"),
    P::no_effect("tfo", "", "a client's bytes leave once the server is connected, so that an attempt that fails can be repeated"),
    P::no_effect("log-proto", "<protocol>", "it concerns log servers only"),
    P::no_effect("log-bufsize", "<bytes>", "it concerns log servers only"),
    P::no_effect("shard", "<number>", "it concerns peers only"),
    P::no_effect("allow-0rtt", "", TLS_ONLY),
    P::no_effect("alpn", "<protocols>", TLS_ONLY),
    P::no_effect("ca-file", "<path>", TLS_ONLY),
    P::no_effect("check-alpn", "<protocols>", TLS_ONLY),
    P::no_effect("check-sni-auto", "", TLS_ONLY),
    P::no_effect("ciphers", "<ciphers>", TLS_ONLY),
    P::no_effect("ciphersuites", "<ciphers>", TLS_ONLY),
    P::no_effect("client-sigalgs", "<algorithms>", TLS_ONLY),
    P::no_effect("crl-file", "<path>", TLS_ONLY),
    P::no_effect("crt", "<path>", TLS_ONLY),
    P::no_effect("curves", "<curves>", TLS_ONLY),
    P::no_effect("force-*", "", TLS_ONLY),
    P::no_effect("ktls", "on|off", TLS_ONLY),
    P::no_effect("no-check-sni-auto", "", TLS_ONLY),
    P::no_effect("no-renegotiate", "", TLS_ONLY),
    P::no_effect("no-sni-auto", "", TLS_ONLY),
    P::no_effect("no-ssl-reuse", "", TLS_ONLY),
    P::no_effect("no-sslv3", "", TLS_ONLY),
    P::no_effect("no-tls*", "", TLS_ONLY),
    P::no_effect("npn", "<protocols>", TLS_ONLY),
    P::no_effect("renegotiate", "", TLS_ONLY),
    P::no_effect("sigalgs", "<algorithms>", TLS_ONLY),
    P::no_effect("sni", "<expression>", TLS_ONLY),
    P::no_effect("sni-auto", "", TLS_ONLY),
    P::no_effect("ssl-max-ver", "<version>", TLS_ONLY),
    P::no_effect("ssl-min-ver", "<version>", TLS_ONLY),
    P::no_effect("ssl-reuse", "", TLS_ONLY),
    P::no_effect("tls-tickets", "", TLS_ONLY),
    P::no_effect("verify", "none|required", TLS_ONLY),
    P::no_effect("verifyhost", "<name>", TLS_ONLY),
    P::no_effect("quic-cc-algo", "<algorithm>", QUIC_ONLY),
    P::no_effect("check-pool-conn-name", "<name>", HTTP_ONLY),
    P::no_effect("check-reuse-pool", "", HTTP_ONLY),
    P::no_effect("cookie", "<value>", HTTP_ONLY),
    P::no_effect("idle-ping", "<time>", HTTP_ONLY),
    P::no_effect("max-reuse", "<number>", HTTP_ONLY),
    P::no_effect("pool-conn-name", "<name>", HTTP_ONLY),
    P::no_effect("pool-low-conn", "<number>", HTTP_ONLY),
    P::no_effect("pool-max-conn", "<number>", HTTP_ONLY),
    P::no_effect("pool-purge-delay", "<time>", HTTP_ONLY),
    P::no_effect("proto", "<name>", HTTP_ONLY),
    P::no_effect("redir", "<prefix>", HTTP_ONLY),
    P::no_effect("ws", "<mode>", HTTP_ONLY),
];
