//! What is compared, and the config text that makes it do the same thing.
//!
//! Equal for all: one thread or worker, three listeners (one per service) with one upstream each, a
//! backlog of 4096, connect timeout 5 s, idle timeouts 60 s, no checks, no logs, default socket
//! buffers, no splicing option. Tidegate reads the same text as haproxy.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::Arguments;
use crate::server::Service;

/// One column of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Target {
    /// No balancer: the load generator talks to the end points. The ceiling of the test bed.
    Direct,
    Tidegate,
    Haproxy,
    Nginx,
}

/// A listener and the end point behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) service: Service,
    pub(crate) listen_port: u16,
    pub(crate) server_port: u16,
}

impl Target {
    pub(crate) const ALL: [Target; 4] = [
        Target::Direct,
        Target::Tidegate,
        Target::Haproxy,
        Target::Nginx,
    ];

    /// Those that Tidegate is compared with.
    pub(crate) const PEERS: [Target; 2] = [Target::Haproxy, Target::Nginx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::Tidegate => "tidegate",
            Target::Haproxy => "haproxy",
            Target::Nginx => "nginx",
        }
    }

    pub(crate) fn program(self, arguments: &Arguments) -> Option<&Path> {
        match self {
            Target::Direct => None,
            Target::Tidegate => Some(&arguments.tidegate),
            Target::Haproxy => Some(&arguments.haproxy),
            Target::Nginx => Some(&arguments.nginx),
        }
    }

    /// The first line that the program prints about its version; None if it cannot be started.
    pub(crate) fn version(self, program: &Path) -> Option<String> {
        let output = Command::new(program).arg("-v").output().ok()?;
        let mut text = output.stdout;
        text.extend(output.stderr);
        let text = String::from_utf8_lossy(&text).into_owned();
        Some(text.lines().next().unwrap_or("says no version").to_owned())
    }

    /// Arguments that start the program in the foreground with a config file.
    pub(crate) fn command(self, program: &Path, config: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Target::Nginx => command.arg("-e").arg("stderr").arg("-c").arg(config),
            Target::Direct | Target::Tidegate | Target::Haproxy => {
                command.arg("-db").arg("-f").arg(config)
            }
        };
        command
    }

    /// The config file, for at most `connections` connections at once.
    pub(crate) fn config(
        self,
        program: &Path,
        routes: &[Route],
        connections: u64,
        directory: &Path,
    ) -> String {
        match self {
            Target::Nginx => nginx_config(program, routes, connections, directory),
            Target::Direct | Target::Tidegate | Target::Haproxy => {
                haproxy_config(routes, connections)
            }
        }
    }
}

fn haproxy_config(routes: &[Route], connections: u64) -> String {
    let mut text = format!(
        "global\n    nbthread 1\n    maxconn {connections}\n\n\
         defaults\n    mode tcp\n    maxconn {connections}\n    backlog 4096\n    \
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

fn nginx_config(program: &Path, routes: &[Route], connections: u64, directory: &Path) -> String {
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
        "daemon off;\nworker_processes 1;\npid {}/nginx.pid;\nerror_log stderr crit;\n\
         events {{\n    worker_connections {};\n}}\n\
         stream {{\n    access_log off;\n    proxy_connect_timeout 5s;\n    proxy_timeout 60s;\n",
        directory.display(),
        // nginx counts both sides of a session; a few more for its listeners and channel.
        connections * 2 + 32,
    );
    for route in routes {
        let _ = writeln!(
            text,
            "    server {{ listen 127.0.0.1:{} backlog=4096; proxy_pass 127.0.0.1:{}; }}",
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
