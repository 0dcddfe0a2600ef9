//! The checks of protocols against the programs that speak them: well while they run, down with the
//! reason once they are stopped. Where a program is absent the test says so, see `programs`.

use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::programs::{Service, are_required, given_to, must, programs, start_postgres};
use crate::support::balancer::TempDir;
use crate::support::port::free_port;
use crate::support::{Balancer, eventually, turn};

/// A backend's name, its lines, the port of its server, and what its check says: status and code.
type Check<'a> = (&'a str, &'a str, u16, [&'a str; 2]);

/// Checks services until all say what they should; then stops them, and all checks must say that
/// nobody is there.
fn well_then_gone(checks: &[Check<'_>], services: Vec<Service>) {
    let mut body = format!("listen l\n    bind 127.0.0.1:{}\n", free_port());
    for (name, lines, port, _) in checks {
        let lines = lines.replace('\n', "\n    ");
        body.push_str(&format!(
            "backend {name}\n    {lines}\n    server s 127.0.0.1:{port} check inter 200 rise 1 \
             fall 1\n    timeout check 5s\n"
        ));
    }
    let balancer = Balancer::start(body);
    let found = |name: &str| {
        let stat = balancer.stat();
        let text = |column| stat.text(name, "s", column).to_owned();
        let status = text("check_status").trim_start_matches("* ").to_owned();
        (status, text("check_code"), text("last_chk"))
    };
    for (name, _, _, [status, code]) in checks {
        let mut last = found(name);
        let reached = crate::support::wait_for(std::time::Duration::from_secs(10), || {
            last = found(name);
            (last.0 == *status && last.1 == *code).then_some(())
        });
        assert!(reached.is_some(), "{name}: {last:?}, not {status} {code}");
    }
    drop(services);
    for (name, ..) in checks {
        eventually("it is down", || {
            let stat = balancer.stat();
            stat.text(name, "s", "status") == "DOWN" && found(name).0 == "L4CON"
        });
        assert!(found(name).2.starts_with("Connection refused"), "{name}");
    }
    balancer.settle();
}

#[test]
fn redis_is_checked() {
    let _turn = turn::shared();
    let Some([server]) = programs(["redis-server"]) else {
        return;
    };
    let start = |port: u16, extra: &[&str], dir: &TempDir| {
        let mut command = Command::new(&server);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]);
        command.arg(dir.path()).args(extra);
        Service::start(&mut command, port, Signal::SIGTERM)
    };
    let (dir, open, locked) = (TempDir::new(), free_port(), free_port());
    let services = vec![
        start(open, &[], &dir),
        start(locked, &["--requirepass", "secret"], &dir),
    ];
    let login = "option tcp-check\ntcp-check send AUTH\\ secret\\r\\n\n\
                 tcp-check expect string +OK\ntcp-check send PING\\r\\n\n\
                 tcp-check expect string +PONG\ntcp-check send info\\ replication\\r\\n\n\
                 tcp-check expect rstring role:master\ntcp-check send QUIT\\r\\n\n\
                 tcp-check expect string +OK";
    let checks = [
        ("redis", "option redis-check", open, ["L7OK", "0"]),
        ("script", login, locked, ["L7OK", "0"]),
    ];
    well_then_gone(&checks, services);
}

/// The same server refuses what it has no password of.
#[test]
fn a_redis_with_a_password_says_so() {
    let _turn = turn::shared();
    let Some([server]) = programs(["redis-server"]) else {
        return;
    };
    if crate::support::skip("HAProxy waits for its timeout") {
        return;
    }
    let (dir, port) = (TempDir::new(), free_port());
    let mut command = Command::new(server);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--save", "", "--requirepass", "secret", "--dir"]);
    command.arg(dir.path());
    let service = Service::start(&mut command, port, Signal::SIGTERM);
    let checks = [("locked", "option redis-check", port, ["L7STS", "0"])];
    well_then_gone(&checks, vec![service]);
}

#[test]
fn nginx_is_checked_by_http_and_by_a_hello_of_tls() {
    let _turn = turn::shared();
    let Some([nginx, openssl]) = programs(["nginx", "openssl"]) else {
        return;
    };
    let (dir, plain, tls) = (TempDir::new(), free_port(), free_port());
    let root = dir.path().display();
    let certificate = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=check.test",
        "-keyout",
    ];
    let key = dir.path().join("key");
    let mut command = Command::new(openssl);
    command.args(certificate).arg(&key);
    must(command.arg("-out").arg(dir.path().join("cert")));
    dir.write("health", "all is well");
    let user = match Uid::effective().is_root() {
        true => "user root;",
        false => "",
    };
    let config = dir.write(
        "nginx.conf",
        &format!(
            "{user} daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
             events {{ }}\nhttp {{ access_log off; client_body_temp_path {root}/body;\n\
             proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
             uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
             server {{ listen 127.0.0.1:{plain}; root {root}; }}\n\
             server {{ listen 127.0.0.1:{tls} ssl; ssl_certificate {root}/cert;\n\
             ssl_certificate_key {root}/key; root {root}; }} }}\n"
        ),
    );
    let mut command = Command::new(nginx);
    command.arg("-e").arg(dir.path().join("start"));
    let service = Service::start(command.arg("-c").arg(config), plain, Signal::SIGTERM);
    let body = "option httpchk GET /health HTTP/1.1\nhttp-check send hdr Host check.test\n\
                http-check expect string well";
    let script = "option tcp-check\ntcp-check send HEAD\\ /\\ HTTP/1.0\\r\\n\\r\\n\n\
                  tcp-check expect rstring ^HTTP/1.1\\ [1-5]";
    let checks = [
        // A directory without an index, and what isn't there.
        ("forbidden", "option httpchk GET /", plain, ["L7STS", "403"]),
        (
            "missing",
            "option httpchk GET /nothing",
            plain,
            ["L7STS", "404"],
        ),
        (
            "file",
            "option httpchk HEAD /health",
            plain,
            ["L7OK", "200"],
        ),
        ("body", body, plain, ["L7OK", "200"]),
        ("script", script, plain, ["L7OK", "0"]),
        ("tls", "option ssl-hello-chk", tls, ["L6OK", ""]),
        ("no_tls", "option httpchk", tls, ["L7STS", "400"]),
    ];
    well_then_gone(&checks, vec![service]);
}

#[test]
fn postgresql_is_checked() {
    let _turn = turn::shared();
    let (dir, port) = (TempDir::new(), free_port());
    // One user is let in, one is asked for a password, and nobody else is anybody.
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all asked 127.0.0.1/32 scram-sha-256\n";
    let Some(service) = start_postgres(&dir, port, "postgres", Some(rules)) else {
        return;
    };
    let checks = [
        (
            "postgres",
            "option pgsql-check user postgres",
            port,
            ["L7OK", "0"],
        ),
        (
            "asked",
            "option pgsql-check user asked",
            port,
            ["L7OK", "0"],
        ),
        (
            "nobody",
            "option pgsql-check user nobody",
            port,
            ["L7RSP", ""],
        ),
    ];
    well_then_gone(&checks, vec![service]);
}

#[test]
fn mariadb_is_checked() {
    let _turn = turn::shared();
    let Some([install, server]) = programs(["mariadb-install-db", "mariadbd"]) else {
        return;
    };
    let (dir, port) = (TempDir::new(), free_port());
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut install = Command::new(install);
    let mut server = Command::new(server);
    for command in [&mut install, &mut server] {
        command.arg("--no-defaults").args([
            "--skip-name-resolve",
            "--innodb-flush-method=nosync",
            "--innodb-buffer-pool-size=8M",
            "--innodb-log-file-size=4M",
        ]);
        command.arg(format!("--datadir={}", data.display()));
    }
    if Uid::effective().is_root() {
        given_to(&data, "mysql");
        install.arg("--user=mysql");
        server.arg("--user=mysql");
    }
    must(install.args(["--auth-root-authentication-method=normal", "--skip-test-db"]));
    let users = dir.write(
        "users.sql",
        "CREATE USER 'probe'@'127.0.0.1' IDENTIFIED BY '';\n\
         CREATE USER 'locked'@'127.0.0.1' IDENTIFIED BY 'secret';\n",
    );
    server.arg(format!("--init-file={}", users.display()));
    server.arg(format!("--socket={}", data.join("socket").display()));
    server.arg(format!("--pid-file={}", data.join("pid").display()));
    server
        .arg(format!("--port={port}"))
        .arg("--bind-address=127.0.0.1");
    let service = Service::start(&mut server, port, Signal::SIGKILL);
    let checks = [
        ("greeting", "option mysql-check", port, ["L7OK", "0"]),
        (
            "probe",
            "option mysql-check user probe",
            port,
            ["L7OK", "0"],
        ),
        (
            "new",
            "option mysql-check user probe post-80",
            port,
            ["L7OK", "0"],
        ),
        (
            "locked",
            "option mysql-check user locked",
            port,
            ["L7STS", "1045"],
        ),
    ];
    // `post-80` is newer than the HAProxy that these tests may run against.
    let known = |check: &&Check<'_>| crate::support::is_tidegate() || check.0 != "new";
    let checks: Vec<Check<'_>> = checks.iter().filter(known).copied().collect();
    well_then_gone(&checks, vec![service]);
}

#[test]
fn slapd_is_checked() {
    let _turn = turn::shared();
    let Some([slapd]) = programs(["slapd"]) else {
        return;
    };
    let (dir, open, closed) = (TempDir::new(), free_port(), free_port());
    let start = |name: &str, port: u16, line: &str| {
        // A bind without a name needs no database.
        let config = format!("pidfile {}/{name}.pid\n{line}\n", dir.path().display());
        let config = dir.write(&format!("{name}.conf"), &config);
        let mut command = Command::new(&slapd);
        command.args(["-d", "0", "-h", &format!("ldap://127.0.0.1:{port}"), "-f"]);
        Service::start(command.arg(config), port, Signal::SIGKILL)
    };
    let services = vec![
        start("open", open, ""),
        // inappropriateAuthentication, RFC 4511 section 4.1.9.
        start("closed", closed, "disallow bind_anon"),
    ];
    let checks = [
        ("open", "option ldap-check", open, ["L7OK", "0"]),
        ("closed", "option ldap-check", closed, ["L7STS", "48"]),
    ];
    well_then_gone(&checks, services);
}

/// OpenSMTPD knows its spool and its control socket by fixed paths, so it runs in a mount namespace
/// where these are its own.
#[test]
fn opensmtpd_is_checked() {
    let _turn = turn::shared();
    let Some([smtpd, unshare, mount]) = programs(["smtpd", "unshare", "mount"]) else {
        return;
    };
    // It has to be started by root, and its directories can't be configured. A container may allow
    // not even root another namespace: a machine for tests then lends its own directories.
    let mut own_mounts = Command::new(&unshare);
    let own_mounts = own_mounts.args(["--mount", "true"]).output();
    let has_own = own_mounts.is_ok_and(|output| output.status.success());
    if !has_own && !are_required() {
        eprintln!("NOT TESTED: no mount namespace can be made for smtpd");
        return;
    }
    let (dir, port) = (TempDir::new(), free_port());
    let config = dir.write(
        "smtpd.conf",
        &format!(
            "listen on 127.0.0.1 port {port} hostname check.test\n\
             action \"drop\" relay host \"127.0.0.1\"\nmatch from local for any action \"drop\"\n"
        ),
    );
    let (mount, smtpd) = (mount.display(), smtpd.display());
    let run = format!(
        "mkdir -p -m 711 /var/spool/smtpd && exec {smtpd} -F -f {}",
        config.display()
    );
    let mounted = |place: &str| format!("{mount} -t tmpfs -o mode=755 own {place} && ");
    let mut command = if has_own {
        let script = mounted("/var/spool") + &mounted("/run") + &run;
        let mut command = Command::new(unshare);
        command.args(["--mount", "--", "sh", "-c", &script]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &run]);
        command
    };
    let service = Service::start(&mut command, port, Signal::SIGTERM);
    let checks = [
        ("helo", "option smtpchk", port, ["L7OK", "221"]),
        (
            "ehlo",
            "option smtpchk EHLO probe.test",
            port,
            ["L7OK", "221"],
        ),
    ];
    well_then_gone(&checks, vec![service]);
}
