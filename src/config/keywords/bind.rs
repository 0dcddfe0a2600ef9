//! The parameters of `bind` lines.

use super::{HTTP_ONLY, Parameter, QUIC_ONLY, TLS_ONLY};
use crate::config::draft::BindSettings;
use crate::config::parse::bind::{
    number, positive_delay, set_congestion, set_id, set_interface, set_mss, set_nice, set_owner,
};
use crate::config::parse::threads::{set_shards, set_threads};

const OF_SOCKET: &str = "it means something on 'stats socket' lines only";

type P = Parameter<BindSettings>;

#[rustfmt::skip]
pub(in crate::config) static BIND: &[P] = &[
    P::works("accept-proxy", "", "Expects a PROXY header, version 1 or 2, and takes the client's address from it.", |_, bind, _, _| {
        bind.accept_proxy = true;
        Ok(())
    }),
    P::works("backlog", "<number>", "Length of the kernel's accept queue.", |_, bind, name, value| {
        bind.backlog = Some(number(name, value)?);
        Ok(())
    }).default("that of the proxy"),
    P::works("cc", "<algorithm>", "Congestion control, by the kernel's name of it.", set_congestion)
        .default("the kernel's"),
    P::works("defer-accept", "", "Accept a client only once it has sent something.", |_, bind, _, _| {
        bind.defer_accept = true;
        Ok(())
    }),
    P::works("gid", "<number>", "Group of a Unix socket.", set_owner),
    P::works("group", "<name>", "Group of a Unix socket, by name.", set_owner),
    P::works("id", "<number>", "Number of the socket in its frontend, from 1 on, as statistics show it.", set_id)
        .default("its place among the frontend's, or the next free number"),
    P::works("interface", "<name>", "Accepts only what comes in on this interface.", set_interface)
        .default("all interfaces"),
    P::works("maxconn", "<number>", "Most connections at a time.", |_, bind, name, value| {
        bind.maxconn = number(name, value)?;
        Ok(())
    }).default("no bound of its own"),
    P::works("mode", "<octal>", "File mode of a Unix socket.", set_owner),
    P::works("mss", "<bytes>", "Largest segment (TCP_MAXSEG), 1 to 65535; the kernel takes 88 to 32767.", set_mss)
        .default("the kernel's"),
    P::works("name", "<name>", "Name for statistics.", |_, bind, _, value| {
        value.clone_into(&mut bind.name);
        Ok(())
    }),
    P::works("nice", "<number>", "Share of a turn's bulk bytes that each connection gets, from -1024, twice the usual, to 1024, a quarter.", set_nice)
        .default("0"),
    P::works("shards", "<number>|by-thread|by-group", "Number of sockets: one for each thread, one for all, or so many; threads share them evenly.", set_shards)
        .default("'tune.listener.default-shards'"),
    P::works("tcp-ut", "<time>", "Longest time that sent data may stay unacknowledged.", |_, bind, name, value| {
        bind.tcp_user_timeout_ms = positive_delay(name, value)?;
        Ok(())
    }).default("the kernel's"),
    P::works("tfo", "", "TCP Fast Open: takes data that comes with the SYN.", |_, bind, _, _| {
        bind.fast_open = true;
        Ok(())
    }),
    P::works("thread", "[1/]<threads>[,...]", "Which shards serve the listener: numbers from 1, ranges, 'all', 'odd', 'even'.", set_threads)
        .default("all"),
    P::works("transparent", "", "May be bound to addresses that aren't the machine's.", |_, bind, _, _| {
        bind.transparent = true;
        Ok(())
    }),
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
    P::needed("namespace", "<name>", "Network namespace to listen in."),
    P::later("proto", "<name>", "Protocol."),
    P::needed("tcp-md5sig", "<password>", "Signed segments (RFC 2385)."),
    P::later("guid-prefix", "<text>", "Identity over restarts."),
    P::later("label", "<text>", "A name shared by listeners."),
    P::never("ssl", "", "TLS is not terminated here; it is passed through"),
    P::no_effect("expose-fd", "listeners", OF_SOCKET),
    P::no_effect("level", "user|operator|admin", OF_SOCKET),
    P::no_effect("severity-output", "none|number|string", OF_SOCKET),
    P::never("process", "<processes>", "there is one process; write 'thread' to choose shards"),
    P::no_effect("tcp-ss", "0|1|2", "nothing reads the client's SYN yet"),
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
    P::no_effect("ca-ignore-err", "all|<number>,...", TLS_ONLY),
    P::no_effect("ca-sign-file", "<path>", TLS_ONLY),
    P::no_effect("ca-sign-pass", "<phrase>", TLS_ONLY),
    P::no_effect("ca-verify-file", "<path>", TLS_ONLY),
    P::no_effect("client-sigalgs", "<algorithms>", TLS_ONLY),
    P::no_effect("crt-ignore-err", "all|<number>,...", TLS_ONLY),
    P::no_effect("curves", "<curves>", TLS_ONLY),
    P::no_effect("default-crt", "<path>", TLS_ONLY),
    P::no_effect("ecdhe", "<curve>", TLS_ONLY),
    P::no_effect("ech", "<directory>", TLS_ONLY),
    P::no_effect("force-*", "", TLS_ONLY),
    P::no_effect("generate-certificates", "", TLS_ONLY),
    P::no_effect("ktls", "on|off", TLS_ONLY),
    P::no_effect("no-ca-names", "", TLS_ONLY),
    P::no_effect("no-sslv3", "", TLS_ONLY),
    P::no_effect("no-strict-sni", "", TLS_ONLY),
    P::no_effect("no-tls*", "", TLS_ONLY),
    P::no_effect("prefer-client-ciphers", "", TLS_ONLY),
    P::no_effect("sigalgs", "<algorithms>", TLS_ONLY),
    P::no_effect("tls-ticket-keys", "<path>", TLS_ONLY),
    P::no_effect("tls-tickets", "", TLS_ONLY),
    P::no_effect("quic-cc-algo", "<algorithm>", QUIC_ONLY),
    P::no_effect("quic-force-retry", "", QUIC_ONLY),
    P::no_effect("quic-socket", "connection|listener", QUIC_ONLY),
    P::no_effect("verify", "none|optional|required", TLS_ONLY),
];
