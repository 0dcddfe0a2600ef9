//! The config texts that make every program do the same thing.
//!
//! Equal for all: one listener with one upstream per service, a backlog of 4096, connect timeout
//! 5 s, idle timeouts 60 s, no checks, no logs, nothing said about socket buffers and congestion
//! control, so that the system's defaults hold. Tidegate reads the same text as haproxy.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::server::Service;
use crate::target::{Kind, Splicing, Target};

/// Accept queue of every listener.
const BACKLOG: u32 = 4096;

/// Longest datagram of a workload, and some more.
const DATAGRAM_BYTES_MAX: u32 = 9_000;

/// A listener and the end points behind it; only those of UDP may be several.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) service: Service,
    pub(crate) listen_port: u16,
    pub(crate) server_ports: Vec<u16>,
}

/// What a balancer must have room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) connections: u64,
    /// Flows of UDP.
    pub(crate) flows: u64,
    /// Whether a flow ends with its first reply.
    pub(crate) one_reply: bool,
}

/// Writes a target's config file.
pub(crate) fn write(
    target: &Target,
    program: &Path,
    routes: &[Route],
    size: Size,
    directory: &Path,
) -> std::io::Result<PathBuf> {
    let (ending, text) = match target.kind {
        Kind::Nginx => ("conf", nginx_text(target, program, routes, size, directory)),
        // Envoy tells the language by the ending.
        Kind::Envoy => ("json", envoy_document(routes, size).to_string()),
        Kind::Direct | Kind::Tidegate | Kind::Haproxy => {
            ("cfg", haproxy_text(target, routes, size))
        }
    };
    let file = directory.join(format!("{}.{ending}", target.name()));
    std::fs::write(&file, text)?;
    Ok(file)
}

fn haproxy_text(target: &Target, routes: &[Route], size: Size) -> String {
    let (threads, connections) = (target.threads, size.connections);
    let (global, defaults) = match target.splicing {
        Splicing::Unsaid => ("", ""),
        Splicing::Auto => ("", "    option splice-auto\n"),
        Splicing::Never => ("    nosplice\n", ""),
    };
    let mut text = format!(
        "global\n    nbthread {threads}\n    maxconn {connections}\n{global}\n\
         defaults\n{defaults}    mode tcp\n    maxconn {connections}\n    backlog {BACKLOG}\n    \
         timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
    );
    for route in routes {
        let (name, listen) = (route.service.name(), route.listen_port);
        let _ = write!(text, "\nlisten {name}\n    bind 127.0.0.1:{listen}\n");
        if route.service == Service::Datagrams {
            let _ = write!(text, "    mode udp\n    maxconn {}\n", size.flows);
            if size.one_reply {
                text.push_str("    udp-responses 1\n");
            }
        }
        for (index, server) in route.server_ports.iter().enumerate() {
            let _ = writeln!(text, "    server s{} 127.0.0.1:{server}", index + 1);
        }
    }
    text
}

fn nginx_text(
    target: &Target,
    program: &Path,
    routes: &[Route],
    size: Size,
    directory: &Path,
) -> String {
    let mut text = String::new();
    if let Some(module) = nginx_stream_module(program) {
        let _ = writeln!(text, "load_module {module};");
    }
    // As root nginx would give its worker to another user; the peers stay what they were started
    // as.
    if nix::unistd::geteuid().is_root() {
        text.push_str("user root;\n");
    }
    let _ = write!(
        text,
        "daemon off;\nworker_processes {};\npid {}/{}.pid;\nerror_log stderr crit;\n\
         events {{\n    worker_connections {};\n}}\n\
         stream {{\n    access_log off;\n    proxy_connect_timeout 5s;\n    proxy_timeout 60s;\n",
        target.threads,
        directory.display(),
        target.name(),
        // nginx counts both sides of a session; a few more for its listeners and channel.
        size.connections.max(size.flows) * 2 + 32,
    );
    for route in routes {
        let (name, port) = (route.service.name(), route.listen_port);
        let _ = writeln!(text, "    upstream {name} {{");
        for server in &route.server_ports {
            let _ = writeln!(text, "        server 127.0.0.1:{server};");
        }
        let rest = match (route.service, size.one_reply) {
            (Service::Datagrams, false) => "udp reuseport rcvbuf=4m;",
            (Service::Datagrams, true) => "udp reuseport rcvbuf=4m; proxy_responses 1;",
            _ => &format!("backlog={BACKLOG};"),
        };
        let _ = writeln!(
            text,
            "    }}\n    server {{ listen 127.0.0.1:{port} {rest} proxy_pass {name}; }}"
        );
    }
    text.push_str("}\n");
    text
}

/// Where the stream module is, if this nginx was built to load it at run time.
fn nginx_stream_module(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-V").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !text.contains("--with-stream=dynamic") {
        return None;
    }
    let value = |option: &str| {
        text.split_whitespace()
            .find_map(|word| word.strip_prefix(option).map(str::to_owned))
    };
    let folder =
        value("--modules-path=").or_else(|| Some(format!("{}/modules", value("--prefix=")?)))?;
    Some(format!("{folder}/ngx_stream_module.so"))
}

fn envoy_document(routes: &[Route], size: Size) -> Value {
    let connections = size.connections.max(size.flows);
    let listener = |route: &Route| match route.service {
        Service::Datagrams => envoy_datagram_listener(route),
        _ => envoy_listener(route),
    };
    let listeners: Vec<Value> = routes.iter().map(listener).collect();
    let clusters: Vec<Value> = routes
        .iter()
        .map(|route| envoy_cluster(route, connections))
        .collect();
    // Without an admin listener nobody else's port can be taken.
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

fn envoy_address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn envoy_listener(route: &Route) -> Value {
    let name = route.service.name();
    let relay = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
        "idle_timeout": "60s",
    });
    json!({
        "name": name,
        "address": envoy_address(route.listen_port),
        "tcp_backlog_size": BACKLOG,
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": relay,
        }] }],
    })
}

fn envoy_datagram_listener(route: &Route) -> Value {
    const TYPES: &str = "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3";
    let name = route.service.name();
    let to_cluster = json!({ "@type": format!("{TYPES}.Route"), "cluster": name });
    let relay = json!({
        "@type": format!("{TYPES}.UdpProxyConfig"),
        "stat_prefix": name,
        "idle_timeout": "60s",
        // 1,500 by default, on either side.
        "upstream_socket_config": { "max_rx_datagram_size": DATAGRAM_BYTES_MAX },
        "matcher": { "on_no_match": { "action": { "name": "route", "typed_config": to_cluster } } },
    });
    let mut address = envoy_address(route.listen_port);
    address["socket_address"]["protocol"] = json!("UDP");
    json!({
        "name": name,
        "address": address,
        "udp_listener_config": {
            "downstream_socket_config": {
                "max_rx_datagram_size": DATAGRAM_BYTES_MAX,
                "prefer_gro": true,
            },
        },
        "listener_filters": [{
            "name": "envoy.filters.udp_listener.udp_proxy",
            "typed_config": relay,
        }],
    })
}

fn envoy_cluster(route: &Route, connections: u64) -> Value {
    let name = route.service.name();
    let endpoint = |port: &u16| json!({ "endpoint": { "address": envoy_address(*port) } });
    let endpoints: Vec<Value> = route.server_ports.iter().map(endpoint).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        // 1024 of each by default, which the others' maxconn is not.
        "circuit_breakers": { "thresholds": [{
            "max_connections": connections,
            "max_pending_requests": connections,
        }] },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": endpoints }],
        },
    })
}
