//! `tidegate ctl` as tests call it, and a runtime socket that answers as a test wants.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::balancer::TempDir;

/// The program, which speaks also to another balancer that is under test.
pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tidegate"))
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Outcome {
    /// What was printed, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str]) -> Outcome {
    let output = Command::new(program())
        .args(arguments)
        .env_remove("TIDEGATE_SOCKET")
        .stdin(Stdio::null())
        .output()
        .expect("run the program");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// `ctl --socket SOCKET ...`, with a timeout that a busy machine keeps.
pub(crate) fn ctl(socket: &Path, arguments: &[&str]) -> Outcome {
    let socket = socket.to_str().expect("a path in UTF-8");
    let mut all = vec!["ctl", "--timeout", "30s", "--socket", socket];
    all.extend(arguments);
    run(&all)
}

/// A runtime socket that answers each line as it is told; its thread ends with the process.
pub(crate) struct Scripted {
    dir: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Answers the lines of clients, one per connection, by `answer`.
    pub(crate) fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let dir = TempDir::new();
        let listener = UnixListener::bind(dir.path().join("stats")).expect("bind");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let line = line.trim_end().to_owned();
                let text = answer(&line);
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
                let _ = stream.write_all(text.as_bytes());
            }
        });
        Scripted { dir, asked }
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("stats")
    }

    /// What was asked so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
