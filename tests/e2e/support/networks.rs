//! Networks of their own: threads in network namespaces, and the `ip` program in them.
//!
//! Nothing of the host's network changes, and all is gone when the threads end. That needs root.

use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::unistd::{Pid, Uid, gettid};

use super::sys;

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.expect("run ip");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {stderr}");
}

/// Whether the tests may do what they need: containers often have root without the rights. Says so
/// if not.
pub(crate) fn may_have_networks() -> bool {
    let try_it = || {
        let arguments = "link add near0 type veth peer name far0".split(' ');
        let ip = || Command::new("ip").args(arguments).output();
        sys::leave_network().is_ok() && ip().is_ok_and(|output| output.status.success())
    };
    let thread = std::thread::spawn(try_it);
    let may = Uid::effective().is_root() && thread.join().expect("no panic");
    if !may {
        eprintln!("left out: a network namespace with a veth pair needs root, rights and `ip`");
    }
    may
}

type Work = Box<dyn FnOnce() + Send>;

/// A namespace: a thread that lives in it and does what it is told.
pub(crate) struct Network {
    thread: Pid,
    tell: Option<Sender<Work>>,
    done: Receiver<()>,
    joined: Option<JoinHandle<()>>,
}

impl Network {
    /// One with nothing but a loopback device.
    pub(crate) fn new() -> Network {
        let (tell, told) = channel::<Work>();
        let (finished, done) = channel();
        let (name, named) = channel();
        let thread = std::thread::spawn(move || {
            sys::leave_network().expect("a network namespace");
            ip("link set lo up");
            name.send(gettid()).expect("somebody waits");
            while let Ok(work) = told.recv() {
                work();
                finished.send(()).expect("somebody waits");
            }
        });
        Network {
            thread: named.recv().expect("a namespace"),
            tell: Some(tell),
            done,
            joined: Some(thread),
        }
    }

    /// Has something done in it, and waits.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (give, given) = channel();
        let work: Work = Box::new(move || drop(give.send(work())));
        let tell = self.tell.as_ref().expect("it lives");
        tell.send(work).expect("the network has failed before");
        self.done
            .recv()
            .expect("the work in the network has failed");
        given.recv().expect("a result")
    }

    /// Runs `ip` in it.
    pub(crate) fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.run(move || ip(&arguments));
    }

    /// Connects it with another one by a pair of devices with such names and addresses
    /// (`10.0.0.1/24`), of both families.
    pub(crate) fn connect(&self, other: &Network, devices: [&str; 2], addresses: [[&str; 2]; 2]) {
        let [near, far] = devices;
        self.ip(&format!("link add {near} type veth peer name {far}"));
        self.ip(&format!("link set {far} netns {}", other.thread));
        for (network, (device, addresses)) in [self, other]
            .into_iter()
            .zip(devices.into_iter().zip(addresses))
        {
            for address in addresses {
                // Otherwise an address of IPv6 is of no use for a second.
                let nodad = if address.contains(':') { " nodad" } else { "" };
                network.ip(&format!("addr add {address} dev {device}{nodad}"));
            }
            network.ip(&format!("link set {device} up"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.tell = None;
        if let Some(thread) = self.joined.take() {
            // What failed there has failed the test already.
            let _ = thread.join();
        }
    }
}
