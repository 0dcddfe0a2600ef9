//! `tidegate demo`: three upstreams, a load and a balancer between them, of connections and of
//! datagrams, in one process, to look at.
//!
//! The balancer is the real one: its configuration is a text like any other, its connections go
//! through real sockets, and what the table shows are the counters that `show stat` shows. Only the
//! process's start is shared code with a private door, [`process::run_owned`].
//!
//! The show runs on a thread of its own, because the first thread waits for signals. After a third
//! of the time it kills the second upstream, after two thirds it starts it again, and it says what
//! followed.

mod datagrams;
mod failover;
mod load;
mod screen;
mod summary;
mod upstreams;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::plan::{LocalPorts, Plan};
use crate::config::{self, Environment, Resolver};
use crate::control::messages::Console;
use crate::control::resolve::SystemEnvironment;
use crate::lb::Backend;
use crate::process::{self, Handle, Settings};
use crate::sys::{clock, process as system};
use datagrams::DatagramLoad;
use failover::{Failover, VICTIM};
use load::Load;
use screen::Screen;
use upstreams::Upstreams;

/// The configuration that is run; its variables are answered by [`DemoEnvironment`].
const CONFIGURATION: &str = include_str!("../../conf/demo.cfg");

/// How often the show looks around: the resolution of the times it measures.
const LOOK: Duration = Duration::from_millis(10);

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of the show.
    pub duration: Duration,
    /// Stay afterwards.
    pub keep: bool,
    /// Port of 127.0.0.1 to listen on.
    pub port: u16,
    /// The same for datagrams.
    pub udp_port: u16,
}

/// Runs the demo; returns the exit code: 0 only if no new connection failed and every upstream was
/// served.
pub fn run(options: Options) -> u8 {
    let console = Console::new(false);
    let prepared = prepare(options, &console);
    let (plan, upstreams, socket) = match prepared {
        Ok(prepared) => prepared,
        Err(text) => {
            console.alert(&text);
            return 1;
        }
    };
    let settings = Settings {
        silent: true,
        ..Settings::default()
    };
    let mut show: Option<JoinHandle<bool>> = None;
    let code = process::run_owned(plan, settings, &console, |handle| {
        let stop = handle.clone();
        let body = move || Show::run(options, handle, upstreams, &socket);
        match std::thread::Builder::new()
            .name("show".to_owned())
            .spawn(body)
        {
            Ok(thread) => show = Some(thread),
            Err(_) => stop.stop(),
        }
    });
    match show {
        Some(thread) => match thread.join() {
            Ok(true) => code,
            Ok(false) | Err(_) => 1,
        },
        None => {
            for (port, is_taken, option) in [
                (options.port, is_taken(options.port), "--port"),
                (
                    options.udp_port,
                    is_taken_udp(options.udp_port),
                    "--udp-port",
                ),
            ] {
                if is_taken {
                    console.alert(&format!(
                        "Port {port} of 127.0.0.1 is in use: 'tidegate demo {option} N' takes another."
                    ));
                }
            }
            1
        }
    }
}

fn is_taken(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn is_taken_udp(port: u16) -> bool {
    UdpSocket::bind(("127.0.0.1", port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn prepare(options: Options, console: &Console) -> Result<(Plan, Upstreams, PathBuf), String> {
    // Before the first thread: it would take the signals that the process waits for.
    system::block_signals().map_err(|error| format!("Cannot block signals: {error}"))?;
    let upstreams = Upstreams::start()
        .map_err(|error| format!("Cannot start the demo's upstreams: {error}"))?;
    let name = format!("tidegate-demo-{}.sock", std::process::id());
    let socket = std::env::temp_dir().join(name);
    let environment = DemoEnvironment {
        system: SystemEnvironment::new(),
        port: options.port,
        udp_port: options.udp_port,
        upstreams: upstreams.addresses,
        socket: socket.clone(),
    };
    let (plan, diagnostics) = config::load_text("demo.cfg", CONFIGURATION, &environment);
    for diagnostic in &diagnostics {
        console.line(&diagnostic.format(std::process::id()));
    }
    let plan = plan.ok_or("The demo's configuration has errors.")?;
    Ok((plan, upstreams, socket))
}

/// The system's environment with the demo's variables in it.
struct DemoEnvironment {
    system: SystemEnvironment,
    port: u16,
    udp_port: u16,
    upstreams: [SocketAddr; upstreams::COUNT],
    socket: PathBuf,
}

impl Resolver for DemoEnvironment {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        self.system.resolve(host)
    }
}

impl Environment for DemoEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "TIDEGATE_DEMO_PORT" => Some(self.port.to_string()),
            "TIDEGATE_DEMO_UDP_PORT" => Some(self.udp_port.to_string()),
            "TIDEGATE_DEMO_SOCKET" => Some(self.socket.display().to_string()),
            "TIDEGATE_DEMO_U1" => Some(self.upstreams[0].to_string()),
            "TIDEGATE_DEMO_U2" => Some(self.upstreams[1].to_string()),
            "TIDEGATE_DEMO_U3" => Some(self.upstreams[2].to_string()),
            _ => self.system.variable(name),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.system.read(path)
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        self.system.user_id(name)
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        self.system.group_id(name)
    }

    fn local_ports(&self) -> LocalPorts {
        self.system.local_ports()
    }

    fn local_addresses(&self) -> &[IpAddr] {
        self.system.local_addresses()
    }
}

/// The show while it runs.
struct Show {
    options: Options,
    handle: Handle,
    backend: Arc<Backend>,
    upstreams: Upstreams,
    load: Load,
    datagrams: DatagramLoad,
    screen: Screen,
    failover: Failover,
}

impl Show {
    /// The show from its start to the end of the process; returns whether everything went well.
    fn run(options: Options, handle: Handle, upstreams: Upstreams, socket: &Path) -> bool {
        let stop = handle.clone();
        let result = Show::start(options, handle, upstreams, socket).map(Show::play);
        stop.stop();
        match result {
            Ok(well) => well,
            Err(error) => {
                Console::new(false).alert(&format!("The demo can't go on: {error}"));
                false
            }
        }
    }

    fn start(
        options: Options,
        handle: Handle,
        upstreams: Upstreams,
        socket: &Path,
    ) -> io::Result<Show> {
        let backend = |name: &str| {
            let world = handle.shared.world();
            let backends = world.backends.iter().flatten();
            let mut named = backends.filter(|backend| *backend.proxy.name == *name);
            let found = named.next().map(Arc::clone);
            found.ok_or_else(|| io::Error::other(format!("no backend {name}")))
        };
        let (of_streams, of_datagrams) = (backend("demo")?, backend("demo-udp")?);
        let target = SocketAddr::from(([127, 0, 0, 1], options.port));
        let mut screen = Screen::new();
        screen.say(&summary::introduction(&options, socket));
        let shared = Arc::clone(&handle.shared);
        let load = Load::start(target, move || shared.is_stopping())?;
        let target = SocketAddr::from(([127, 0, 0, 1], options.udp_port));
        let shared = Arc::clone(&handle.shared);
        let datagrams = DatagramLoad::start(target, of_datagrams, move || shared.is_stopping())?;
        Ok(Show {
            failover: Failover::new(clock::now(), options.duration),
            options,
            handle,
            backend: of_streams,
            upstreams,
            load,
            datagrams,
            screen,
        })
    }

    fn play(mut self) -> bool {
        let looks = crossbeam::channel::tick(LOOK);
        let began = clock::now();
        let mut draw_at = began;
        while !self.handle.shared.is_stopping() {
            let now = clock::now();
            if now >= began + self.options.duration {
                break;
            }
            let lines = self.failover.step(
                now,
                &self.backend,
                &self.upstreams,
                &self.load,
                &self.datagrams,
            );
            for line in lines {
                self.screen.say(&line);
            }
            self.datagrams.look(VICTIM);
            if now >= draw_at {
                let (seen, datagrams) = (self.load.seen(), self.datagrams.seen());
                self.screen
                    .draw(now, now - began, &self.backend, &seen, &datagrams);
                draw_at = draw_at + Duration::from_secs(1);
            }
            let _ = looks.recv();
        }
        let played = clock::now() - began;
        self.load.stop();
        self.datagrams.stop();
        let (seen, datagrams) = (self.load.seen(), self.datagrams.seen());
        let text = summary::summary(
            &self.options,
            played,
            &self.backend,
            &seen,
            &datagrams,
            &self.failover,
        );
        self.screen.say(&text);
        if self.options.keep {
            self.screen.say(&summary::staying(&self.options));
            while !self.handle.shared.is_stopping() {
                let _ = looks.recv();
            }
        }
        summary::went_well(&seen, &datagrams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_loads_with_the_demos_addresses() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let environment = DemoEnvironment {
            system: SystemEnvironment::new(),
            port: 7999,
            udp_port: 7998,
            upstreams: [address(1), address(2), address(3)],
            socket: PathBuf::from("/tmp/x.sock"),
        };
        let (plan, diagnostics) = config::load_text("demo.cfg", CONFIGURATION, &environment);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let plan = plan.unwrap();
        let text = format!("{:?}", plan.listeners[0].endpoint);
        assert!(text.contains("7999"), "{text}");
        assert_eq!(plan.listeners[1].endpoint.to_string(), "udp@127.0.0.1:7998");
        for proxy in &plan.proxies {
            let servers = &proxy.back.as_ref().unwrap().servers;
            for (index, server) in servers.iter().enumerate() {
                assert_eq!(&*server.name, upstreams::name(index));
                assert!(server.check.is_some());
            }
            assert_eq!(servers.len(), upstreams::COUNT);
        }
    }
}
