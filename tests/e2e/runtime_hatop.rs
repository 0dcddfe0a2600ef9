//! hatop, HAProxy's terminal monitor, unchanged in front of the runtime socket: it finds its way
//! about the tables, and its command line works.
//!
//! Where hatop is absent the test says so and passes, unless `TIDEGATE_REQUIRE_PROGRAMS=1`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::pty::{Winsize, openpty};

use crate::programs::programs;
use crate::spread::{count_sequential, named};
use crate::support::port::free_port;
use crate::support::{Balancer, Stopwatch, terminal, turn, wait_for};

/// Longest wait for something on the screen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts of hatop until one is served in time: it gives up on a command after a second, which
/// a busy machine may take.
const STARTS: u32 = 20;

/// hatop in a terminal of its own.
struct Terminal {
    hatop: Child,
    keys: File,
    pieces: Receiver<Vec<u8>>,
    /// What was written, control sequences apart.
    seen: String,
}

impl Terminal {
    fn start(program: &Path, socket: &Path) -> Terminal {
        let size = Winsize {
            ws_row: 40,
            ws_col: 140,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(&size, None).expect("a pseudo terminal");
        let side = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        let hatop = Command::new(program)
            .arg("-s")
            .arg(socket)
            .env("TERM", "xterm")
            .env("LANG", "C.UTF-8")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("start hatop");
        drop(pair.slave);
        let keys = File::from(pair.master);
        let mut screen = keys.try_clone().expect("a descriptor");
        let (sender, pieces) = channel();
        // It ends with the last descriptor of the other side.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(count) = screen.read(&mut piece) {
                if count == 0 || sender.send(piece[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            hatop,
            keys,
            pieces,
            seen: String::new(),
        }
    }

    /// Waits until all of these were written since the last key; false if hatop has ended.
    fn shows(&mut self, texts: &[&str]) -> bool {
        let watch = Stopwatch::start();
        while !texts.iter().all(|text| self.seen.contains(text)) {
            let left = PATIENCE.saturating_sub(watch.elapsed());
            match self.pieces.recv_timeout(left) {
                Ok(piece) => self.seen.push_str(&plain(&piece)),
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("no {texts:?} in {:?}", self.seen),
            }
        }
        true
    }

    fn press(&mut self, keys: &str) {
        self.seen.clear();
        // If it has ended, that is seen where its screen is waited for.
        let _ = self.keys.write_all(keys.as_bytes());
    }

    /// What hatop is asked here, in order; false if it ended on its way.
    fn walk(&mut self) -> bool {
        // The status of all, the head with what `show info` says.
        if !self.shows(&["Version:", "fe", "s1", "s2", "BACKEND", "STATUS", "MAINT"]) {
            return false;
        }
        self.press("2");
        if !self.shows(&["RATE", "LBTOT"]) {
            return false;
        }
        self.press("5");
        if !self.shows(&["haproxy command line"]) {
            return false;
        }
        self.press("show cli level\r");
        if !self.shows(&["admin"]) {
            return false;
        }
        // Escape and a number leave the command line.
        self.press("\u{1b}4");
        if !self.shows(&["ECONN"]) {
            return false;
        }
        self.press("q");
        let ended = wait_for(PATIENCE, || self.hatop.try_wait().expect("wait for hatop"));
        ended.is_some_and(|status| status.success())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.hatop.kill();
        let _ = self.hatop.wait();
    }
}

/// What was written without control sequences, each of which may have moved the cursor.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            plain.push(letter);
            continue;
        }
        // `ESC [ ... letter`, or `ESC ( letter` and the like.
        if letters.next() == Some('[') {
            while letters.next_if(|l| !l.is_ascii_alphabetic()).is_some() {}
        }
        letters.next();
        plain.push(' ');
    }
    plain
}

#[test]
fn hatop_shows_the_servers_and_takes_commands() {
    let _turn = turn::shared();
    if terminal::is_missing() {
        return;
    }
    let Some([program]) = programs(["hatop"]) else {
        return;
    };
    let (servers, lines) = named(&["weight 10", "backup", "disabled"]);
    let port = free_port();
    let balancer = Balancer::start(format!(
        "frontend fe\n    bind 127.0.0.1:{port}\n    default_backend be\n\
         backend be\n    balance roundrobin\n{lines}"
    ));
    count_sequential(port, 5);
    let mut told = Vec::new();
    let done = (0..STARTS).any(|_| {
        let mut terminal = Terminal::start(&program, balancer.stats_path());
        let done = terminal.walk();
        if !done {
            let reason = std::mem::take(&mut terminal.seen);
            assert!(reason.contains("timed out"), "hatop has ended: {reason:?}");
            told.push(reason);
        }
        done
    });
    assert!(done, "{told:?}");
    drop(servers);
    balancer.settle();
}
