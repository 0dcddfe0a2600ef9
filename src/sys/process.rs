//! What the process asks of the system at start: descriptors, CPUs, memory, daemon, service
//! manager.
//!
//! Nothing here is called on the data path. Forking must happen before any thread exists.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setsid};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::OnceLock;

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub fn raise_descriptors() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err() {
        return Ok(soft);
    }
    Ok(hard)
}

/// Sets the limit of open descriptors, the hard one too where it is lower; that takes a privilege.
pub fn set_descriptors(wanted: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(
        Resource::RLIMIT_NOFILE,
        wanted,
        hard.max(wanted),
    )?)
}

/// Confines the process to a directory.
pub fn confine(directory: &Path) -> io::Result<()> {
    std::env::set_current_dir(directory)?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Confines the process to an empty directory that nobody else can find.
pub fn confine_nowhere() -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let name = format!("tidegate-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o555).create(&directory)?;
    let entered = std::env::set_current_dir(&directory);
    std::fs::remove_dir(&directory)?;
    entered?;
    nix::unistd::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Gives up every supplementary group, if there are any.
pub fn drop_groups() -> io::Result<()> {
    if nix::unistd::getgroups()?.is_empty() {
        return Ok(());
    }
    Ok(nix::unistd::setgroups(&[])?)
}

/// Takes a group for good. Must be called before any thread is started.
pub fn set_group(id: u32) -> io::Result<()> {
    Ok(nix::unistd::setgid(Gid::from_raw(id))?)
}

/// Becomes a user for good. Must be called before any thread is started.
pub fn set_user(id: u32) -> io::Result<()> {
    Ok(nix::unistd::setuid(Uid::from_raw(id))?)
}

/// Sends a signal to another process; one that is gone needs none.
pub fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    match nix::sys::signal::kill(Pid::from_raw(pid), signal) {
        Err(nix::errno::Errno::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a process of a user without privileges may signal a process, kill(2). Of one that is
/// gone nothing is known: no.
pub fn may_signal(user: u32, pid: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let ids = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    let mut ids = ids.unwrap_or("").split_whitespace();
    // Real, effective, saved, of the file system.
    let [real, _, saved] = [ids.next(), ids.next(), ids.next()];
    let user = user.to_string();
    real == Some(user.as_str()) || saved == Some(user.as_str())
}

/// CPUs this process may run on, in rising order.
pub fn allowed_cpus() -> Vec<usize> {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count())
            .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
            .collect(),
        // More CPUs than the set can name: the count is known, the names are not needed then.
        Err(_) => (0..std::thread::available_parallelism().map_or(1, |n| n.get())).collect(),
    }
}

/// Pins the calling thread to some CPUs.
pub fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// RAM of the machine in bytes, 0 if unknown.
pub fn memory_total() -> u64 {
    field_kb("/proc/meminfo", "MemTotal:").unwrap_or(0) * 1024
}

/// Has the allocator give large pieces back to the system when they are freed. Without it the bound
/// from which on it does rises with every piece that is freed, up to 32 MiB, mallopt(3).
pub fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers; no thread has been started that could allocate meanwhile.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10)
    };
}

/// Resident memory of this process in KiB, 0 if unknown.
pub fn resident_kb() -> u64 {
    field_kb("/proc/self/status", "VmRSS:").unwrap_or(0)
}

fn field_kb(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Open descriptors of this process, without the one that reads the list.
pub fn descriptors_open() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// Name of the host as it was when first asked for: later the process may be confined.
pub fn host_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| String::new(), |name| name.trim().to_owned())
    })
}

/// Signals that the process waits for, blocked in this thread and those it starts afterwards.
pub fn block_signals() -> io::Result<SigSet> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGHUP,
        // What HAProxy sends to a predecessor whose address it can't bind; by default they stop a
        // process.
        Signal::SIGTTOU,
        Signal::SIGTTIN,
    ] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(set)
}

/// Which half of a fork the caller is.
#[derive(Debug)]
pub enum Daemon {
    /// The started process; the child has reported and this is the exit code to return.
    Parent(u8),
    /// The daemon, which reports through the value when it is ready.
    Child(ReadyReport),
}

/// The daemon's way to tell its parent that it is ready; dropped without it = failed.
#[derive(Debug)]
pub struct ReadyReport {
    to_parent: File,
    /// What takes the terminal's place, opened while the process is not confined.
    null: Option<File>,
}

impl ReadyReport {
    /// Lets the parent return success, and leaves the terminal.
    pub fn ready(mut self) {
        let _ = self.to_parent.write_all(&[0]);
        if let Some(null) = &self.null {
            for standard in 0..3 {
                // SAFETY: dup2 takes no pointers; both numbers are open descriptors of this process
                // (the standard ones may be closed, dup2 opens them then).
                let _ = unsafe { libc::dup2(null.as_raw_fd(), standard) };
            }
        }
    }
}

/// Forks. Must be called before any thread is started. The parent waits until the child is ready or
/// has ended.
pub fn daemonize() -> io::Result<Daemon> {
    let (receiver, sender) = io::pipe()?;
    // SAFETY: no other thread exists yet (the caller's duty, kept by `process::run`, which forks
    // before it starts any), so the child may allocate and lock like any program.
    let forked = unsafe { fork() }?;
    match forked {
        ForkResult::Child => {
            drop(receiver);
            let _ = setsid();
            let null = OpenOptions::new().read(true).write(true).open("/dev/null");
            Ok(Daemon::Child(ReadyReport {
                to_parent: File::from(OwnedFd::from(sender)),
                null: null.ok(),
            }))
        }
        ForkResult::Parent { child } => {
            drop(sender);
            let mut report = [0u8; 1];
            if matches!(File::from(OwnedFd::from(receiver)).read(&mut report), Ok(1)) {
                return Ok(Daemon::Parent(report[0]));
            }
            Ok(Daemon::Parent(match nix::sys::wait::waitpid(child, None) {
                Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => u8::try_from(code).unwrap_or(1),
                _ => 1,
            }))
        }
    }
}

/// The service manager that listens (`NOTIFY_SOCKET`), if one does.
///
/// It is reached at its first use: later the process may be confined, and its path out of reach.
fn service_manager() -> Option<&'static UnixDatagram> {
    static MANAGER: OnceLock<Option<UnixDatagram>> = OnceLock::new();
    let reach = || {
        let name = std::env::var_os("NOTIFY_SOCKET")?;
        let text = name.to_string_lossy();
        let address = match text.strip_prefix('@') {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name.as_bytes()),
            None => SocketAddr::from_pathname(Path::new(&name)),
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect_addr(&address.ok()?).ok()?;
        // A manager that doesn't read must not hold the start up.
        socket.set_nonblocking(true).ok()?;
        Some(socket)
    };
    MANAGER.get_or_init(reach).as_ref()
}

/// Whether a service manager listens. What it is told afterwards reaches it from everywhere.
pub fn reach_service_manager() -> bool {
    service_manager().is_some()
}

/// Tells the service manager a state (`READY=1`, `STOPPING=1`) if one listens.
pub fn notify_service(state: &str) {
    if let Some(socket) = service_manager() {
        let _ = socket.send(state.as_bytes());
    }
}
