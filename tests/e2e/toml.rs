//! A configuration in TOML, run by the real program.

use std::time::Duration;

use crate::support::balancer::{Setup, TempDir, program, skip};
use crate::support::client::{connect_port, echo};
use crate::support::port::{free_port, wait_listening};
use crate::support::{Balancer, MockServer, turn};

#[test]
fn a_toml_file_carries_bytes() {
    if skip("only Tidegate reads TOML") {
        return;
    }
    let _turn = turn::shared();
    let (port, server, dir) = (free_port(), MockServer::echo(), TempDir::new());
    let text = format!(
        r#"
[global]
nbthread = 2
stats.socket = "{}/stats level admin"

[[defaults]]
mode = "tcp"
timeout = {{ connect = "5s", client = "30s", server = "30s" }}

[frontend.front]
bind = ["127.0.0.1:{port} name edge"]
default_backend = "back"

[[backend.back.server]]
name = "only"
address = "{}"
weight = 7
"#,
        dir.path().display(),
        server.address()
    );
    let balancer = Balancer::start_file(dir, "balancer.toml", &text);
    assert!(wait_listening(port, Duration::from_secs(10)));
    let client = connect_port(port);
    echo(&client, b"by way of TOML");
    drop(client);
    balancer.settle();
    let stat = balancer.stat();
    assert_eq!(stat.text("back", "only", "weight"), "7");
    assert_eq!(stat.number("back", "only", "stot"), 1);
}

/// What `convert` makes of a text runs, and says the same on the runtime socket.
#[test]
fn a_converted_file_runs() {
    if skip("only Tidegate converts") {
        return;
    }
    let _turn = turn::shared();
    let (port, server, dir) = (free_port(), MockServer::echo(), TempDir::new());
    let body = format!(
        "listen l # nothing said\n    bind 127.0.0.1:{port}\n    server s {} weight 3\n",
        server.address()
    );
    let config = dir.write("old.cfg", &Setup::new(body).text(dir.path()));
    let toml = dir.path().join("new.toml");
    let mut command = std::process::Command::new(program());
    command.arg("convert").arg(&config).arg("-o").arg(&toml);
    let output = command.output().expect("run the program");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(stderr.contains("comments are not carried over"), "{stderr}");
    let text = std::fs::read_to_string(toml).expect("the result");
    let balancer = Balancer::start_file(dir, "balancer.toml", &text);
    assert!(wait_listening(port, Duration::from_secs(10)));
    echo(&connect_port(port), b"converted");
    balancer.settle();
    assert_eq!(balancer.stat().text("l", "s", "weight"), "3");
}
