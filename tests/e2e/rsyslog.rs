//! A real rsyslog gets the lines: by UDP and by Unix sockets, in the old and in the new form.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::programs::programs;
use crate::support::balancer::{Setup, TempDir};
use crate::support::client::{self, connect_port};
use crate::support::port::free_port;
use crate::support::{MockServer, Syslog, turn, wait_for};

/// Sessions of the test; each has a line at each of the targets.
const SESSIONS: usize = 40;

/// rsyslogd with a configuration of its own, in the foreground.
struct Rsyslog {
    child: Child,
    dir: TempDir,
    port: u16,
}

impl Rsyslog {
    fn start(program: &Path) -> Rsyslog {
        let dir = TempDir::new();
        // Free for datagrams when it was asked.
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        let port = probe.local_addr().expect("its address").port();
        drop(probe);
        let path = dir.path().display().to_string();
        // What is local has no host before the tag, unless it is read as what comes by the network.
        let config = format!(
            "global(workDirectory=\"{path}\")\n\
             module(load=\"imudp\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             template(name=\"fields\" type=\"string\" string=\"%syslogfacility-text%|\
             %syslogseverity-text%|%hostname%|%programname%|%procid%|%protocol-version%|\
             %structured-data%|%msg%\\n\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             input(type=\"imuxsock\" Socket=\"{path}/local\" RateLimit.Interval=\"0\")\n\
             input(type=\"imuxsock\" Socket=\"{path}/full\" RateLimit.Interval=\"0\" \
             UseSpecialParser=\"off\" ParseHostname=\"on\")\n\
             *.* action(type=\"omfile\" file=\"{path}/lines\" template=\"fields\" \
             asyncWriting=\"off\" flushOnTXEnd=\"on\")\n"
        );
        let file = dir.write("rsyslog.conf", &config);
        let pid = dir.path().join("pid");
        let child = Command::new(program)
            .arg("-n")
            .arg("-f")
            .arg(file)
            .arg("-i")
            .arg(pid)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start rsyslogd");
        let rsyslog = Rsyslog { child, dir, port };
        let bound = format!("0100007F:{port:04X}");
        let ready = wait_for(Duration::from_secs(20), || {
            let table = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
            let sockets = ["local", "full"]
                .iter()
                .all(|name| rsyslog.path(name).exists());
            (sockets && table.contains(&bound)).then_some(())
        });
        assert!(ready.is_some(), "rsyslogd does not listen");
        rsyslog
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// The lines that it has written, one per message.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("lines")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn rsyslog_reads_every_field() {
    let Some([program]) = programs(["rsyslogd"]) else {
        return;
    };
    let _turn = turn::shared();
    let rsyslog = Rsyslog::start(&program);
    let (server, raw, port) = (MockServer::echo(), Syslog::start(), free_port());
    let full = rsyslog.path("full").display().to_string();
    let balancer = Setup::new(format!(
        "listen front\n    bind 127.0.0.1:{port}\n    log-tag edge\n    \
         log {raw} format raw local0\n    \
         log 127.0.0.1:{udp} format rfc3164 local1\n    \
         log 127.0.0.1:{udp} format rfc5424 local2\n    \
         log {local} format local local3\n    \
         log {full} format rfc3164 local4\n    \
         log {full} format rfc5424 local5\n    \
         log-format-sd '%{{+Q,+E}}o [ex@1 port=%[src_port] text=%[str(\"a]b\")]]'\n    \
         log-format '%cp {{\"front\": %{{+Q}}f, \"end\": \"%ts\"}} 100%% %B'\n    \
         server s {server}\n",
        raw = raw.address(),
        udp = rsyslog.port,
        local = rsyslog.path("local").display(),
        server = server.address(),
    ))
    .global("log-send-hostname balancer.example")
    .start();
    let mut ports = Vec::new();
    for _ in 0..SESSIONS {
        let client = connect_port(port);
        client::echo(&client, b"12345");
        ports.push(client.local_addr().unwrap().port());
    }
    balancer.settle();
    let all = wait_for(Duration::from_secs(20), || {
        let lines = rsyslog.lines();
        let ours = lines.iter().filter(|line| line.contains("|edge|"));
        (ours.count() >= SESSIONS * 5).then_some(lines)
    });
    let lines = all.unwrap_or_else(|| panic!("{:#?}", rsyslog.lines()));
    let pid = balancer.pid();
    for port in ports {
        let message = raw.wait_line(&format!("{port} {{"));
        let data = format!("[ex@1 port=\"{port}\" text=\"a\\]b\"]");
        for (facility, version, structured, text) in [
            ("local1", 0, "-", format!(" {message}")),
            ("local2", 1, data.as_str(), message.clone()),
            ("local4", 0, "-", format!(" {message}")),
            ("local5", 1, data.as_str(), message.clone()),
        ] {
            let line = format!(
                "{facility}|info|balancer.example|edge|{pid}|{version}|{structured}|{text}"
            );
            let found = lines.iter().filter(|candidate| **candidate == line).count();
            assert_eq!(found, 1, "{line}\n{:#?}", lines);
        }
        // It puts the name of its own machine where a line has none.
        let end = format!("|edge|{pid}|0|-| {message}");
        let local = |line: &&String| line.starts_with("local3|info|") && line.ends_with(&end);
        assert_eq!(lines.iter().filter(local).count(), 1, "{end}\n{lines:#?}");
    }
}
