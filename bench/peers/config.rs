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

/// A listener and the end point behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) service: Service,
    pub(crate) listen_port: u16,
    pub(crate) server_port: u16,
}

/// Writes a target's config file, for at most `connections` connections at once.
pub(crate) fn write(
    target: &Target,
    program: &Path,
    routes: &[Route],
    connections: u64,
    directory: &Path,
) -> std::io::Result<PathBuf> {
    let (ending, text) = match target.kind {
        Kind::Nginx => (
            "conf",
            nginx_text(target, program, routes, connections, directory),
        ),
        // Envoy tells the language by the ending.
        Kind::Envoy => ("json", envoy_document(routes, connections).to_string()),
        Kind::Direct | Kind::Tidegate | Kind::Haproxy => {
            ("cfg", haproxy_text(target, routes, connections))
        }
    };
    let file = directory.join(format!("{}.{ending}", target.name()));
    std::fs::write(&file, text)?;
    Ok(file)
}

fn haproxy_text(target: &Target, routes: &[Route], connections: u64) -> String {
    let threads = target.threads;
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
        let (name, listen, server) = (route.service.name(), route.listen_port, route.server_port);
        let _ = write!(
            text,
            "\nlisten {name}\n    bind 127.0.0.1:{listen}\n    server s1 127.0.0.1:{server}\n"
        );
    }
    text
}

fn nginx_text(
    target: &Target,
    program: &Path,
    routes: &[Route],
    connections: u64,
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
        connections * 2 + 32,
    );
    for route in routes {
        let _ = writeln!(
            text,
            "    server {{ listen 127.0.0.1:{} backlog={BACKLOG}; proxy_pass 127.0.0.1:{}; }}",
            route.listen_port, route.server_port
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

fn envoy_document(routes: &[Route], connections: u64) -> Value {
    let listeners: Vec<Value> = routes.iter().map(envoy_listener).collect();
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

fn envoy_cluster(route: &Route, connections: u64) -> Value {
    let name = route.service.name();
    let endpoint = json!({ "endpoint": { "address": envoy_address(route.server_port) } });
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
            "endpoints": [{ "lb_endpoints": [endpoint] }],
        },
    })
}
