//! The parameters of `bind` lines.

use super::{HTTP_ONLY, Parameter, TLS_ONLY};
use crate::config::draft::BindSettings;
use crate::config::parse_bind::{number, positive_delay, set_owner};

const OF_SOCKET: &str = "it belongs to 'stats socket' lines";

type P = Parameter<BindSettings>;

#[rustfmt::skip]
pub(in crate::config) static BIND: &[P] = &[
    P::works("backlog", "<number>", "Length of the kernel's accept queue.", |_, bind, name, value| {
        bind.backlog = Some(number(name, value)?);
        Ok(())
    }).default("that of the proxy"),
    P::works("defer-accept", "", "Accept a client only once it has sent something.", |_, bind, _, _| {
        bind.defer_accept = true;
        Ok(())
    }),
    P::works("gid", "<number>", "Group of a Unix socket.", set_owner),
    P::works("group", "<name>", "Group of a Unix socket, by name.", set_owner),
    P::works("maxconn", "<number>", "Most connections at a time.", |_, bind, name, value| {
        bind.maxconn = number(name, value)?;
        Ok(())
    }).default("no bound of its own"),
    P::works("mode", "<octal>", "File mode of a Unix socket.", set_owner),
    P::works("name", "<name>", "Name for statistics.", |_, bind, _, value| {
        value.clone_into(&mut bind.name);
        Ok(())
    }),
    P::works("tcp-ut", "<time>", "Longest time that sent data may stay unacknowledged.", |_, bind, name, value| {
        bind.tcp_user_timeout_ms = positive_delay(name, value)?;
        Ok(())
    }).default("the kernel's"),
    P::works("uid", "<number>", "Owner of a Unix socket.", set_owner),
    P::works("user", "<name>", "Owner of a Unix socket, by name.", set_owner),
    P::works("v4v6", "", "An IPv6 wildcard takes IPv4 too.", |_, bind, _, _| {
        bind.v6only = Some(false);
        Ok(())
    }),
    P::works("v6only", "", "An IPv6 wildcard takes IPv6 only.", |_, bind, _, _| {
        bind.v6only = Some(true);
        Ok(())
    }),

    P::needed("accept-netscaler-cip", "<magic>", "Expects a NetScaler header with the client's address."),
    P::needed("accept-proxy", "", "Expects a PROXY header with the client's address."),
    P::later("cc", "<algorithm>", "Congestion control."),
    P::later("guid-prefix", "<text>", "Identity over restarts."),
    P::later("id", "<number>", "Number in statistics."),
    P::needed("interface", "<name>", "Network interface to listen on."),
    P::later("label", "<text>", "A name shared by listeners."),
    P::later("mss", "<bytes>", "Largest segment."),
    P::needed("namespace", "<name>", "Network namespace to listen in."),
    P::later("nice", "<-1024..1024>", "Priority of the connections."),
    P::later("proto", "<name>", "Protocol."),
    P::later("shards", "<number>|by-thread|by-group", "Sockets of the listener."),
    P::needed("tcp-md5sig", "<password>", "Signed segments (RFC 2385)."),
    P::later("tcp-ss", "0|1|2", "Keeps the client's SYN."),
    P::later("tfo", "", "TCP Fast Open."),
    P::later("thread", "<threads>", "Which shards serve the listener."),
    P::needed("transparent", "", "Accepts connections to addresses that aren't ours."),
    P::never("expose-fd", "listeners", OF_SOCKET),
    P::never("level", "<level>", OF_SOCKET),
    P::never("severity-output", "<form>", OF_SOCKET),
    P::never("ssl", "", "TLS is not terminated here; it is passed through"),
    P::no_effect("process", "<processes>", "there is one process"),
    P::no_effect("idle-ping", "<time>", HTTP_ONLY),
    P::no_effect("allow-0rtt", "", TLS_ONLY),
    P::no_effect("alpn", "<protocols>", TLS_ONLY),
    P::no_effect("ca-file", "<path>", TLS_ONLY),
    P::no_effect("ciphers", "<ciphers>", TLS_ONLY),
    P::no_effect("ciphersuites", "<ciphers>", TLS_ONLY),
    P::no_effect("crl-file", "<path>", TLS_ONLY),
    P::no_effect("crt", "<path>", TLS_ONLY),
    P::no_effect("crt-list", "<path>", TLS_ONLY),
    P::no_effect("no-alpn", "", TLS_ONLY),
    P::no_effect("npn", "<protocols>", TLS_ONLY),
    P::no_effect("ssl-max-ver", "<version>", TLS_ONLY),
    P::no_effect("ssl-min-ver", "<version>", TLS_ONLY),
    P::no_effect("strict-sni", "", TLS_ONLY),
    P::no_effect("verify", "none|optional|required", TLS_ONLY),
];
