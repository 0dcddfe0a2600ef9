//! What is compared: targets by name, their programs and versions.
//!
//! A target's name is `BASE[-splice|-copy][-THREADS]`: a program, what it is told of splicing, how
//! many threads or workers it has (one, if nothing is said). The base is one of the programs known
//! here or the name of a `--peer`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::Arguments;

/// Threads that one target may have.
const THREADS_MAX: usize = 64;

/// Config language and behaviour of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// No balancer: the load generator talks to the end points. The ceiling of the test bed.
    #[value(skip)]
    Direct,
    Tidegate,
    Haproxy,
    Nginx,
    Envoy,
}

impl Kind {
    /// Whether the program can be told to splice.
    fn can_splice(self) -> bool {
        matches!(self, Kind::Tidegate | Kind::Haproxy)
    }

    fn name(self) -> String {
        self.to_possible_value()
            .map_or("direct".to_owned(), |value| value.get_name().to_owned())
    }

    /// What a balancer gets when the process that started it dies. nginx ends its workers on
    /// SIGTERM, and leaves them behind when it is killed.
    pub(crate) fn orphan_signal(self) -> Signal {
        match self {
            Kind::Nginx => Signal::SIGTERM,
            Kind::Direct | Kind::Tidegate | Kind::Haproxy | Kind::Envoy => Signal::SIGKILL,
        }
    }
}

/// What a program is told of splicing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Splicing {
    /// Nothing: haproxy copies then, and Tidegate does as it finds better.
    #[default]
    Unsaid,
    /// `option splice-auto`.
    Auto,
    /// `nosplice`.
    Never,
}

impl Splicing {
    fn suffix(self) -> &'static str {
        match self {
            Splicing::Unsaid => "",
            Splicing::Auto => "-splice",
            Splicing::Never => "-copy",
        }
    }
}

/// A further program to compare with: `NAME=KIND:PATH`.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    name: String,
    kind: Kind,
    program: PathBuf,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Peer, String> {
        let parts = text.split_once('=').and_then(|(name, rest)| {
            let (kind, program) = rest.split_once(':')?;
            Some((name, kind, program))
        });
        let (name, kind, program) = parts.ok_or("not NAME=KIND:PATH")?;
        let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '.' || letter == '_';
        // A hyphen begins the rest of a target's name.
        if name.is_empty() || !name.chars().all(plain) {
            return Err("a name is made of letters, digits, '.' and '_'".to_owned());
        }
        if ["direct", "tidegate", "haproxy", "nginx"].contains(&name) {
            return Err(format!("{name} has an option of its own"));
        }
        Ok(Peer {
            name: name.to_owned(),
            kind: Kind::from_str(kind, false)?,
            program: program.into(),
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, kind) = (&self.name, self.kind.name());
        write!(f, "{name}={kind}:{}", self.program.display())
    }
}

/// A target as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TargetName {
    base: String,
    splicing: Splicing,
    /// None if not said.
    threads: Option<usize>,
}

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<TargetName, String> {
        let mut parts = text.split('-').peekable();
        let base = parts.next().unwrap_or_default().to_owned();
        let splicing = match parts.peek() {
            Some(&"splice") => Splicing::Auto,
            Some(&"copy") => Splicing::Never,
            _ => Splicing::Unsaid,
        };
        if splicing != Splicing::Unsaid {
            parts.next();
        }
        let threads = parts.next().map(parse_threads).transpose()?;
        match parts.next() {
            None => Ok(TargetName {
                base,
                splicing,
                threads,
            }),
            Some(_) => Err("not BASE[-splice|-copy][-THREADS]".to_owned()),
        }
    }
}

/// A number of threads or workers.
pub(crate) fn parse_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=THREADS_MAX) => Ok(threads),
        _ => Err(format!("{text:?} is no number from 1 to {THREADS_MAX}")),
    }
}

/// One row of the comparison.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    base: String,
    pub(crate) kind: Kind,
    pub(crate) splicing: Splicing,
    pub(crate) threads: usize,
    /// None without a balancer.
    pub(crate) program: Option<PathBuf>,
}

impl Target {
    pub(crate) fn name(&self) -> String {
        let threads = match self.threads {
            1 => String::new(),
            threads => format!("-{threads}"),
        };
        format!("{}{threads}", self.single_name())
    }

    /// The name without the number of threads.
    pub(crate) fn single_name(&self) -> String {
        format!("{}{}", self.base, self.splicing.suffix())
    }

    /// Whether it is one of those that Tidegate is compared with.
    pub(crate) fn is_peer(&self) -> bool {
        !matches!(self.kind, Kind::Direct | Kind::Tidegate)
    }

    /// Whether it is what ratios refer to.
    pub(crate) fn is_reference(&self) -> bool {
        self.base == "haproxy" && self.splicing == Splicing::Unsaid
    }

    /// The line that the program prints about its version; None if it cannot be started.
    pub(crate) fn version(&self, program: &Path) -> Option<String> {
        let option = match self.kind {
            Kind::Envoy => "--version",
            Kind::Direct | Kind::Tidegate | Kind::Haproxy | Kind::Nginx => "-v",
        };
        let output = Command::new(program).arg(option).output().ok()?;
        let mut text = output.stdout;
        text.extend(output.stderr);
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        let line = line.unwrap_or("says no version");
        // Envoy begins with the path it was called by.
        let start = match self.kind {
            Kind::Envoy => line.find("version:").unwrap_or(0),
            Kind::Direct | Kind::Tidegate | Kind::Haproxy | Kind::Nginx => 0,
        };
        Some(line[start..].to_owned())
    }

    /// Arguments that start the program in the foreground with a config file.
    pub(crate) fn command(&self, program: &Path, config: &Path) -> Command {
        let mut command = Command::new(program);
        match self.kind {
            Kind::Nginx => command.args(["-e", "stderr", "-c"]).arg(config),
            Kind::Envoy => command
                .args(["--concurrency", &self.threads.to_string()])
                .args(["--disable-hot-restart", "--log-level", "error", "-c"])
                .arg(config),
            Kind::Direct | Kind::Tidegate | Kind::Haproxy => {
                command.args(["-db", "-f"]).arg(config)
            }
        };
        command
    }
}

/// The targets of a run: those that were asked for, or all that are known.
pub(crate) fn chosen(arguments: &Arguments) -> Result<Vec<Target>, String> {
    let names = if arguments.target.is_empty() {
        all_names(arguments)
    } else {
        arguments.target.clone()
    };
    let mut targets: Vec<Target> = Vec::new();
    for name in &names {
        let threads = match name.threads {
            Some(threads) => vec![threads],
            None if name.base == "direct" || arguments.threads.is_empty() => vec![1],
            None => arguments.threads.clone(),
        };
        for threads in threads {
            let target = resolve(arguments, name, threads)?;
            if !targets.iter().any(|other| other.name() == target.name()) {
                targets.push(target);
            }
        }
    }
    Ok(targets)
}

/// Everything there is; in a quick run nothing twice.
fn all_names(arguments: &Arguments) -> Vec<TargetName> {
    let mut names = Vec::new();
    let mut add = |base: &str, kind: Kind| {
        for splicing in [Splicing::Unsaid, Splicing::Auto, Splicing::Never] {
            let differs = match splicing {
                Splicing::Unsaid => true,
                Splicing::Auto => kind.can_splice() && !arguments.quick,
                Splicing::Never => kind == Kind::Tidegate && !arguments.quick,
            };
            if differs {
                names.push(TargetName {
                    base: base.to_owned(),
                    splicing,
                    threads: None,
                });
            }
        }
    };
    add("direct", Kind::Direct);
    add("tidegate", Kind::Tidegate);
    add("haproxy", Kind::Haproxy);
    add("nginx", Kind::Nginx);
    for peer in &arguments.peer {
        add(&peer.name, peer.kind);
    }
    names
}

fn resolve(arguments: &Arguments, name: &TargetName, threads: usize) -> Result<Target, String> {
    let base = name.base.as_str();
    let (kind, program) = match base {
        "direct" => (Kind::Direct, None),
        "tidegate" => (Kind::Tidegate, Some(&arguments.tidegate)),
        "haproxy" => (Kind::Haproxy, Some(&arguments.haproxy)),
        "nginx" => (Kind::Nginx, Some(&arguments.nginx)),
        _ => match arguments.peer.iter().find(|peer| peer.name == base) {
            Some(peer) => (peer.kind, Some(&peer.program)),
            None => return Err(format!("no target {base:?}, and no --peer of that name")),
        },
    };
    if name.splicing != Splicing::Unsaid && !kind.can_splice() {
        return Err(format!("{base} does not splice"));
    }
    if kind == Kind::Direct && threads > 1 {
        return Err("direct has no threads".to_owned());
    }
    Ok(Target {
        base: base.to_owned(),
        kind,
        splicing: name.splicing,
        threads,
        program: program.cloned(),
    })
}
