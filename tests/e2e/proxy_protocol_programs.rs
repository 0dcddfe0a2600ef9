//! PROXY headers of real programs: haproxy and nginx as senders, curl as a client.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::programs::{Service, must, programs};
use crate::support::balancer::TempDir;
use crate::support::client::{self, connect_from, local};
use crate::support::port::free_port;
use crate::support::{Balancer, MockServer, Syslog, turn};

/// Where Debian has nginx's stream module, if it isn't built in.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
/// Who the senders are connected to from: not their own address.
const CLIENT: [u8; 4] = [127, 0, 0, 77];

/// A balancer that wants headers, before a server.
fn receiver(server: &MockServer) -> (Balancer, Syslog, u16) {
    let (syslog, port) = (Syslog::start(), free_port());
    let balancer = Balancer::start(format!(
        "listen l\n    bind 127.0.0.1:{port} accept-proxy\n    log {} local0\n    \
         option tcplog\n    server s {}\n",
        syslog.address(),
        server.address()
    ));
    (balancer, syslog, port)
}

/// Exchanges with the server through a sender, and looks whom the balancer takes them to be from.
fn exchange_through(sender: u16, syslog: &Syslog) {
    for seed in 1..=4 {
        let client = connect_from(IpAddr::from(CLIENT), local(sender)).unwrap();
        let own = client.local_addr().unwrap();
        client::exchange_on(client, 3 << 20, 1 << 20, seed).unwrap();
        let line = syslog.take_session();
        assert_eq!(line.client, own.to_string(), "{line:?}");
    }
}

#[test]
fn haproxy_sends_headers() {
    let _turn = turn::shared();
    let Some([haproxy]) = programs(["haproxy"]) else {
        return;
    };
    let server = MockServer::exchange();
    for how in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,authority",
    ] {
        let (balancer, syslog, port) = receiver(&server);
        let (dir, sender) = (TempDir::new(), free_port());
        let config = dir.write(
            "sender.cfg",
            &format!(
                "global\n    nbthread 1\ndefaults\n    mode tcp\n    timeout connect 5s\n    \
                 timeout client 20s\n    timeout server 20s\nlisten s\n    \
                 bind 127.0.0.1:{sender}\n    unique-id-format %[uuid()]\n    \
                 server t 127.0.0.1:{port} {how}\n"
            ),
        );
        let mut command = Command::new(&haproxy);
        command.arg("-db").arg("-f").arg(config);
        let _service = Service::start(&mut command, sender, Signal::SIGTERM);
        exchange_through(sender, &syslog);
        balancer.settle();
    }
}

#[test]
fn haproxy_checks_with_local_headers() {
    let _turn = turn::shared();
    let Some([haproxy]) = programs(["haproxy"]) else {
        return;
    };
    let server = MockServer::exchange();
    let (balancer, syslog, port) = receiver(&server);
    let (dir, sender) = (TempDir::new(), free_port());
    let config = dir.write(
        "sender.cfg",
        &format!(
            "global\n    nbthread 1\ndefaults\n    mode tcp\n    timeout connect 5s\n    \
             timeout client 20s\n    timeout server 20s\nlisten s\n    \
             bind 127.0.0.1:{sender}\n    server t 127.0.0.1:{port} check inter 100ms \
             send-proxy-v2 check-send-proxy\n"
        ),
    );
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(config);
    let service = Service::start(&mut command, sender, Signal::SIGTERM);
    // A check is from the sender itself. It is reset at once, and by then may have no address to
    // ask for.
    let line = syslog.take_session();
    let own = ["127.0.0.1:", "-:"];
    let is_own = own.iter().any(|begin| line.client.starts_with(begin));
    assert!(is_own && line.frontend == "l", "{line:?}");
    drop(service);
    let refused = syslog.lines();
    let is_refusal = |line: &String| line.contains("PROXY protocol");
    assert!(!refused.iter().any(is_refusal), "{refused:#?}");
    balancer.settle();
}

#[test]
fn nginx_sends_headers() {
    let _turn = turn::shared();
    let Some([nginx]) = programs(["nginx"]) else {
        return;
    };
    let server = MockServer::exchange();
    let (balancer, syslog, port) = receiver(&server);
    let (dir, sender) = (TempDir::new(), free_port());
    let root = dir.path().display();
    let user = if Uid::effective().is_root() {
        "user root;"
    } else {
        ""
    };
    let module = if Path::new(STREAM_MODULE).is_file() {
        format!("load_module {STREAM_MODULE};")
    } else {
        String::new()
    };
    let config = dir.write(
        "nginx.conf",
        &format!(
            "{module} {user} daemon off; master_process off; pid {root}/pid;\n\
             error_log {root}/error; events {{ }}\n\
             stream {{ server {{ listen 127.0.0.1:{sender}; proxy_protocol on;\n\
             proxy_half_close on;\n\
             proxy_pass 127.0.0.1:{port}; }} }}\n"
        ),
    );
    let mut command = Command::new(nginx);
    let start = dir.path().join("start");
    command.arg("-e").arg(start).arg("-c").arg(config);
    let _service = Service::start(&mut command, sender, Signal::SIGTERM);
    exchange_through(sender, &syslog);
    balancer.settle();
}

#[test]
fn curl_sends_a_header() {
    let _turn = turn::shared();
    let Some([curl]) = programs(["curl"]) else {
        return;
    };
    // Answers only what begins as a request does.
    let server = MockServer::start(|mut stream: TcpStream| {
        let mut request = [0; 4];
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
        if stream.read_exact(&mut request).is_ok() && &request == b"GET " {
            let _ = stream.write_all(answer.as_bytes());
        }
        let _ = stream.shutdown(Shutdown::Write);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let (balancer, syslog, port) = receiver(&server);
    let url = format!("http://127.0.0.1:{port}/");
    let interface = IpAddr::from(CLIENT).to_string();
    let options = ["-sSf", "-m", "20", "--haproxy-protocol", "--interface"];
    let output = must(Command::new(&curl).args(options).args([&interface, &url]));
    assert_eq!(output.stdout, b"hello");
    let line = syslog.take_session();
    assert!(line.client.starts_with(&interface), "{line:?}");
    // Without the header it gets nothing.
    let output = Command::new(&curl).args(["-sS", "-m", "20", &url]).output();
    assert!(!output.unwrap().status.success());
    balancer.settle();
}
