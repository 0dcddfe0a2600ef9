//! A program in a terminal of its own: keys are typed, and what stands on the screen is read back
//! through the escape sequences that put it there.

use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use super::clock::wait_for;

/// Longest wait for something to stand on the screen: the program may get no core for a while.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program and its terminal; it is ended when dropped.
pub(crate) struct Terminal {
    child: Child,
    master: std::fs::File,
    /// Kept open, so that the terminal and its settings outlive the program.
    slave: std::fs::File,
    device: PathBuf,
    screen: Arc<Mutex<vt100::Parser>>,
}

/// Whether this host has no pseudo terminals (a container without devpts), which is said loudly.
pub(crate) fn is_missing() -> bool {
    let missing = openpty(None, None).err();
    if let Some(error) = missing {
        eprintln!("SKIPPED: there are no pseudo terminals here: {error}");
    }
    missing.is_some()
}

impl Terminal {
    /// Starts it as the leader of the terminal's session: a change of size and a lost line reach
    /// it by signals, as they do from a real one.
    pub(crate) fn start(program: &Path, arguments: &[&str], rows: u16, columns: u16) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).expect("a terminal");
        let (master, slave) = (
            std::fs::File::from(pair.master),
            std::fs::File::from(pair.slave),
        );
        let device = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd()))
            .expect("the terminal's name");
        let end = || Stdio::from(slave.try_clone().expect("clone the terminal"));
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(program)
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env("LANG", "C.UTF-8")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("start in a terminal");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            cells(rows),
            cells(columns),
            0,
        )));
        let shown = Arc::clone(&screen);
        let mut output = master.try_clone().expect("clone the terminal");
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut piece) {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.process(&piece[..count]);
            }
        });
        Terminal {
            child,
            master,
            slave,
            device,
            screen,
        }
    }

    /// Presses keys.
    pub(crate) fn press(&self, keys: &str) {
        (&self.master).write_all(keys.as_bytes()).expect("type");
    }

    /// What stands on the screen, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, columns) = screen.screen().size();
        let rows = screen.screen().rows(0, columns.get());
        rows.map(|row| row.trim_end().to_owned()).collect()
    }

    /// Waits until the screen is as it should be, and returns its lines.
    pub(crate) fn wait(&self, what: &str, is_right: impl Fn(&[String]) -> bool) -> Vec<String> {
        let right = wait_for(PATIENCE, || {
            Some(self.lines()).filter(|lines| is_right(lines))
        });
        right.unwrap_or_else(|| panic!("{what}:\n{}", self.lines().join("\n")))
    }

    /// Waits until all of these stand on the screen; false if the program has ended without.
    pub(crate) fn shows(&mut self, texts: &[&str]) -> bool {
        let seen = wait_for(PATIENCE, || {
            let has_ended = self.child.try_wait().expect("wait").is_some();
            let screen = self.lines().join("\n");
            let is_shown = texts.iter().all(|text| screen.contains(text));
            (is_shown || has_ended).then_some(is_shown)
        });
        seen.unwrap_or_else(|| panic!("no {texts:?} in:\n{}", self.lines().join("\n")))
    }

    /// Makes it another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        {
            let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            screen.screen_mut().set_size(cells(rows), cells(columns));
        }
        let status = Command::new("stty")
            .arg("-F")
            .arg(&self.device)
            .args(["rows", &rows.to_string(), "cols", &columns.to_string()])
            .status()
            .expect("run stty");
        assert!(status.success(), "stty: {status}");
    }

    /// Waits until the program takes single keys.
    pub(crate) fn wait_raw(&self) {
        let is_raw = || {
            let settings = tcgetattr(self.slave.as_fd()).expect("settings");
            (!settings.local_flags.contains(LocalFlags::ICANON)).then_some(())
        };
        assert!(wait_for(PATIENCE, is_raw).is_some(), "it takes whole lines");
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("signal the program");
    }

    /// Waits for its end.
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        let status = wait_for(PATIENCE, || self.child.try_wait().expect("wait"));
        status.unwrap_or_else(|| panic!("it goes on:\n{}", self.lines().join("\n")))
    }

    /// Fails unless the terminal is as it was: echo, whole lines, the first screen, a cursor.
    pub(crate) fn assert_restored(&self) {
        let flags = tcgetattr(self.slave.as_fd()).expect("settings").local_flags;
        let wanted = LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG;
        assert!(flags.contains(wanted), "{flags:?}");
        let restored = wait_for(PATIENCE, || {
            let parser = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            let screen = parser.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        });
        assert!(restored.is_some(), "the screen is still there");
    }
}

/// At least one.
fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).expect("a terminal has cells")
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
