//! A running balancer, and the end point process: started, watched and ended by pid.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::{self, Route, Size};
use crate::sample::{Context, Void};
use crate::server::Service;
use crate::server::datagrams::Ends;
use crate::sys;
use crate::target::Target;
use crate::usage;

/// How long a balancer may take until its listeners answer, and until it is gone.
const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(3);

/// Who runs where.
#[derive(Debug)]
pub(crate) struct Cpus {
    /// One for each thread, from CPU 0 on.
    pub(crate) balancer: Vec<usize>,
    /// The next one for load generator and end points; those of the balancer where there is no
    /// other.
    pub(crate) load: Vec<usize>,
    pub(crate) shared: bool,
}

impl Cpus {
    /// Divides the CPUs for a balancer of so many threads, and moves this process to the load's.
    pub(crate) fn divide(threads: usize) -> Result<Cpus, Void> {
        let balancer: Vec<usize> = (0..threads).collect();
        if sys::pin(&[threads]).is_ok() {
            return Ok(Cpus {
                balancer,
                load: vec![threads],
                shared: false,
            });
        }
        // One thread is measured alone or not at all; the last CPU says whether all are there.
        if threads == 1 || sys::pin(&[threads - 1]).is_err() {
            let least = threads.max(2);
            return Err(Void(format!("{threads} threads need {least} CPUs")));
        }
        sys::pin(&balancer)?;
        Ok(Cpus {
            load: balancer.clone(),
            balancer,
            shared: true,
        })
    }
}

/// A balancer process (with its workers) that listens.
pub(crate) struct Balancer {
    name: String,
    child: Child,
    messages: PathBuf,
    routes: Vec<Route>,
}

impl Balancer {
    /// Starts it on its CPUs and waits until every listener accepts.
    pub(crate) fn start(
        target: &Target,
        program: &Path,
        servers: &[(Service, u16)],
        size: Size,
        directory: &Path,
        cpus: &Cpus,
    ) -> Result<Balancer, Void> {
        let routes = routes(servers)?;
        let config = config::write(target, program, &routes, size, directory)?;
        let messages = directory.join(format!("{}.messages", target.name()));
        let mut command = target.command(program, &config);
        command
            .stdin(Stdio::null())
            .stdout(File::create(&messages)?);
        command.stderr(File::options().append(true).open(&messages)?);
        sys::end_with_parent(&mut command, target.kind.orphan_signal());
        // A child inherits the CPUs of the thread that starts it.
        sys::pin(&cpus.balancer).context("pin to the balancer's CPUs")?;
        let spawned = command.spawn();
        sys::pin(&cpus.load).context("pin to the load's CPUs")?;
        let child = spawned.context(format!("start {}", program.display()))?;
        let mut balancer = Balancer {
            name: target.name(),
            child,
            messages,
            routes,
        };
        balancer.wait_until_ready()?;
        match usage::stray_thread(&balancer.pids(), &cpus.balancer) {
            None => Ok(balancer),
            Some(stray) => Err(Void(format!("{} does not stay: {stray}", balancer.name))),
        }
    }

    pub(crate) fn address(&self, service: Service) -> SocketAddr {
        let route = self.routes.iter().find(|route| route.service == service);
        let port = route.expect("every service has a route").listen_port;
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// The process and its workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        usage::family(self.child.id())
    }

    /// An error with the last words of the program, if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), Void> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let text = fs::read_to_string(&self.messages).unwrap_or_default();
        let mut last: Vec<&str> = text.lines().rev().take(3).collect();
        last.reverse();
        Err(Void(format!(
            "{} ended ({status}): {}",
            self.name,
            last.join(" / ")
        )))
    }

    fn wait_until_ready(&mut self) -> Result<(), Void> {
        let deadline = Instant::now() + START_MAX;
        let routes = self.routes.iter();
        let ports: Vec<(Service, u16)> = routes
            .map(|route| (route.service, route.listen_port))
            .collect();
        for (service, port) in ports {
            let listens = match service {
                Service::Datagrams => usage::receives,
                _ => usage::listens,
            };
            // Looked up, not tried: a connection would be passed on to the server.
            while !listens(port) {
                self.check_alive()?;
                if Instant::now() > deadline {
                    let (name, seconds) = (&self.name, START_MAX.as_secs());
                    return Err(Void(format!("{name} does not listen after {seconds} s")));
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let family = usage::family(self.child.id());
        end(&mut self.child, &family);
    }
}

/// Listen ports that nobody has now, one per service.
fn routes(servers: &[(Service, u16)]) -> Result<Vec<Route>, Void> {
    let mut held: Vec<OwnedFd> = Vec::new();
    let mut routes: Vec<Route> = Vec::new();
    for (service, server_port) in servers.iter().copied() {
        let before = routes.iter_mut().find(|route| route.service == service);
        if let Some(route) = before {
            route.server_ports.push(server_port);
            continue;
        }
        let any = (Ipv4Addr::LOCALHOST, 0);
        let listen_port = if service == Service::Datagrams {
            let socket = UdpSocket::bind(any)?;
            let port = socket.local_addr()?.port();
            held.push(socket.into());
            port
        } else {
            let listener = TcpListener::bind(any)?;
            let port = listener.local_addr()?.port();
            held.push(listener.into());
            port
        };
        routes.push(Route {
            service,
            listen_port,
            server_ports: vec![server_port],
        });
    }
    Ok(routes)
}

/// Asks a child to end, waits, and kills what is left of its family.
pub(crate) fn end(child: &mut Child, family: &[u32]) {
    let signal = |pid: u32, signal: Signal| {
        // A pid that is gone already is what we want.
        let _ = kill(Pid::from_raw(pid as i32), signal);
    };
    if let Ok(None) = child.try_wait() {
        signal(child.id(), Signal::SIGTERM);
    }
    let deadline = Instant::now() + STOP_MAX;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    for pid in family {
        // Workers that outlived the process that started them have the same pid still; the list was
        // made while they ran, seconds ago.
        if *pid != child.id() || matches!(child.try_wait(), Ok(None)) {
            signal(*pid, Signal::SIGKILL);
        }
    }
    let _ = child.wait();
}

/// The end points, in a process of their own on the load's CPU.
pub(crate) struct EndPoints {
    child: Child,
    pub(crate) ports: Vec<u16>,
}

impl EndPoints {
    /// Those of the streams, one of each service of ours.
    pub(crate) fn start(realtime: bool) -> Result<EndPoints, Void> {
        let more: &[&str] = if realtime { &["--realtime"] } else { &[] };
        EndPoints::spawn(more, Service::OWN.len())
    }

    /// Servers of UDP; the last port is that of the one that tells what has arrived.
    pub(crate) fn start_datagrams(ends: Ends, count: usize) -> Result<EndPoints, Void> {
        let name = ends.to_possible_value();
        let name = name.as_ref().map_or("", PossibleValue::get_name);
        let count_text = count.to_string();
        EndPoints::spawn(&["--ends", name, "--ends-count", &count_text], count + 1)
    }

    fn spawn(more: &[&str], ports: usize) -> Result<EndPoints, Void> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--role", "server"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        sys::end_with_parent(&mut command, Signal::SIGKILL);
        let mut child = command.spawn().context("start the end points")?;
        let mut line = String::new();
        let output = child.stdout.take().expect("it was asked to be piped");
        BufReader::new(output).read_line(&mut line)?;
        let found: Vec<u16> = line.split_whitespace().flat_map(str::parse).collect();
        let end_points = EndPoints {
            child,
            ports: found,
        };
        if end_points.ports.len() != ports {
            return Err(Void("the end points did not start".to_owned()));
        }
        Ok(end_points)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for EndPoints {
    fn drop(&mut self) {
        // Its input closes, on which it ends.
        drop(self.child.stdin.take());
        let family = [self.child.id()];
        end(&mut self.child, &family);
    }
}
