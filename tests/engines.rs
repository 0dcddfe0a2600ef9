//! The data path's end-to-end tests again: in each engine, on each receive step.
//!
//! Runs the end-to-end tests' own program once per variant, with lines for every configuration that
//! force it. One after the other: most of these tests wait, so a run of them fills its time.

// The program's own clock is for what can be simulated; tests measure the real one.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The modules of `tests/e2e` in which bytes take their way through a session, from accept to
/// close.
///
/// Left out: `agent`, `backups`, `balancing`, `check*`, `health`, `passive`, `slow_start` (who is
/// chosen, before a byte is read), `cli`, `logging`, `privileges`, `runtime_socket`, `supervision`,
/// `take_over`, `toml` (the process around it), `listeners*` and `proxy_protocol_refused` (before a
/// session), `proxy_protocol_programs` (whose header a program reads), `scenarios` (whole
/// installations, for most of a minute; they carry what these carry), and `kernel` and `splice`,
/// which force steps and engines themselves.
const DATA_PATH: [&str; 19] = [
    "closing",
    "endings",
    "endpoints",
    "failover",
    "integrity",
    "lifecycle",
    "limits",
    "ports",
    "programs",
    "proxy_protocol",
    "proxy_protocol_seams",
    "send_proxy",
    "short_sessions",
    "slow_readers",
    "sources",
    "spread",
    "timeouts",
    "transparent",
    "unavailable",
];

/// Longest time that one variant may take, on a machine that does other things too.
const RUN_MAX: Duration = Duration::from_secs(600);

/// Runs that wait for their turn.
static TURN: Mutex<()> = Mutex::new(());

/// The receive steps.
const LIMIT: &str = "tune.ring.receive limit";
const INCREMENTAL: &str = "tune.ring.receive incremental";
const BUNDLE: &str = "tune.ring.receive bundle";
const PLAIN: &str = "tune.ring.receive plain";
/// A ring as the oldest kernels have it.
const LEAST: &str = "tune.ring.without deferred-work registered-ring multishot-accept";
/// The engines. The run of the end-to-end tests itself has both, and chooses.
const COPY: &str = "nosplice";
const SPLICE: [&str; 2] = ["option splice-request", "option splice-response"];

/// A run of all these tests.
struct Variant {
    global: &'static [&'static str],
    defaults: &'static [&'static str],
    /// Lines of `show activity` that prove it.
    shown: &'static [&'static str],
}

macro_rules! variants {
    ($($(#[$attribute:meta])* $name:ident: $global:expr, $defaults:expr, $shown:expr;)*) => {$(
        #[test]
        $(#[$attribute])*
        fn $name() {
            let variant = Variant { global: &$global, defaults: &$defaults, shown: &$shown };
            run(stringify!($name), &variant);
        }
    )*};
}

// Each step and each engine in every run of the tests (the limit in the ordinary one), all pairs by
// `--include-ignored`.
variants! {
    #[ignore = "a minute more; the ordinary run is nearly this one"]
    limit_copied: [LIMIT, COPY], [], ["receive_step: limit"];
    #[ignore = "a minute more; the ordinary run has its step, another one its engine"]
    limit_spliced: [LIMIT], SPLICE, ["receive_step: limit"];
    incremental_copied: [INCREMENTAL, COPY], [], ["receive_step: incremental"];
    #[ignore = "a minute more; its step and its engine have a run each"]
    incremental_spliced: [INCREMENTAL], SPLICE, ["receive_step: incremental"];
    #[ignore = "a minute more; its step and its engine have a run each"]
    bundle_copied: [BUNDLE, COPY], [], ["receive_step: bundle"];
    bundle_spliced: [BUNDLE], SPLICE, ["receive_step: bundle"];
    plain_copied: [PLAIN, COPY, LEAST], [],
        ["receive_step: plain", "deferred_work: 0", "registered_ring: 0", "multishot_accept: 0"];
    #[ignore = "a minute more; its step and its engine have a run each"]
    plain_spliced: [PLAIN], SPLICE, ["receive_step: plain"];
}

/// The end-to-end tests' program, built as this one was.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(cargo);
    command.args(["test", "--test", "e2e", "--no-run"]);
    command.arg("--message-format=json");
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("run cargo");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages
        .filter(|message| message["target"]["name"] == "e2e")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs
        .next()
        .unwrap_or_else(|| panic!("cargo names no program:\n{text}\n{errors}"))
});

fn run(name: &str, variant: &Variant) {
    if std::env::var_os("TIDEGATE_BIN").is_some() {
        eprintln!("left out: another program has neither engines nor receive steps");
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    let groups = DATA_PATH.map(|group| format!("{group}::"));
    let mut command = Command::new(&*PROGRAM);
    command.args(&groups);
    command.env("TIDEGATE_TEST_GLOBAL", variant.global.join("\n"));
    command.env("TIDEGATE_TEST_DEFAULTS", variant.defaults.join("\n"));
    command.env("TIDEGATE_TEST_SHOWN", variant.shown.join("\n"));
    // A leak shows after a tenth of them too.
    command.env("TIDEGATE_SHORT_SESSIONS", "5000");
    let noted = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spliced-{name}"));
    std::fs::write(&noted, "").expect("an empty file");
    command.env("TIDEGATE_TEST_SPLICED", &noted);
    let (passed, output) = output(command, begun);
    let spliced = std::fs::read_to_string(&noted).expect("what was spliced");
    let spliced: u64 = spliced
        .lines()
        .map(|line| line.parse::<u64>().expect("a number"))
        .sum();
    let mut tests: BTreeMap<&str, u32> = BTreeMap::new();
    for line in output.lines() {
        let test = line.strip_prefix("test ");
        if let Some((group, _)) = test.and_then(|test| test.split_once("::")) {
            *tests.entry(group).or_default() += 1;
        }
    }
    let total: u32 = tests.values().sum();
    let seconds = begun.elapsed().as_secs();
    // Past the capture: a passed variant says what it was, too.
    let _ = writeln!(
        std::io::stderr(),
        "variant {name}: {total} tests in {seconds} s, {} MB spliced",
        spliced / 1_000_000
    );
    if !passed {
        let failures = output
            .find("\nfailures:")
            .map_or(&*output, |at| &output[at..]);
        panic!("variant {name} fails after {seconds} s:\n{failures}");
    }
    let copied = variant.global.contains(&COPY);
    assert_eq!(spliced == 0, copied, "{spliced} bytes were spliced");
    for group in DATA_PATH {
        assert!(
            tests.contains_key(group),
            "no test of {group} ran:\n{output}"
        );
    }
}

/// Runs a command to its end, or to the end of its time; whether it succeeded, and its output.
fn output(mut command: Command, begun: Instant) -> (bool, String) {
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut child = command.spawn().expect("run the end-to-end tests");
    let mut pipe = child.stdout.take().expect("stdout is piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    // The pipe ends with its last writer.
    while !reader.is_finished() && begun.elapsed() < RUN_MAX {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let in_time = reader.is_finished();
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().expect("wait for the end-to-end tests");
    let output = reader.join().expect("the reading thread");
    let end = if in_time {
        ""
    } else {
        "\nended: it took too long\n"
    };
    (status.success() && in_time, output + end)
}
