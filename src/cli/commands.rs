//! The subcommands, by clap.

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

use super::Misuse;
use crate::base::duration;
use crate::config::convert::Format;
use crate::ctl;
use crate::probe_tool;

/// What clap sees: the words after the program's name, the first of them a subcommand.
#[derive(Clone, PartialEq, Debug, Parser)]
#[command(name = "tidegate", disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// A subcommand.
#[derive(Clone, PartialEq, Debug, Subcommand)]
pub enum Command {
    /// Runs a balancer with servers and load of its own
    Demo(Demo),
    /// Checks configuration files and shows the lines at fault
    Check(Check),
    /// Turns a configuration into another format: HAProxy's language, TOML; nginx's is read
    Convert(Convert),
    /// Asks and tells a running balancer by its runtime socket: status, servers, a live screen
    Ctl(Box<ctl::Options>),
    /// Drives connections at a balancer: success, distribution, latency, failover
    Probe(Box<probe_tool::Options>),
    /// Explains a keyword of the configuration
    Help(Help),
}

/// `tidegate demo`: a throw-away set-up to look at.
#[derive(Clone, PartialEq, Debug, clap::Args)]
pub struct Demo {
    /// How long, such as 15s or 2m.
    #[arg(long = "for", value_name = "TIME", value_parser = demo_duration, default_value = "15s")]
    pub duration: Duration,
    /// Keep balancing after that, until interrupted.
    #[arg(long)]
    pub keep: bool,
    /// Port of 127.0.0.1 to listen on.
    #[arg(long, value_name = "N", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Port of 127.0.0.1 for datagrams.
    #[arg(long, value_name = "N", default_value_t = 6881, value_parser = clap::value_parser!(u16).range(1..))]
    pub udp_port: u16,
}

/// `tidegate check`: the configuration's problems, for people.
#[derive(Clone, PartialEq, Debug, clap::Args)]
#[command(after_help = "Exit status: 0 valid, 1 errors, 2 valid and no listener.")]
pub struct Check {
    /// Files, or directories whose *.cfg files are read, in this order.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// `tidegate convert`: a configuration in another format.
#[derive(Clone, PartialEq, Debug, clap::Args)]
#[command(
    after_help = "What could not be carried over is said; where that matters the exit \
                        status is 1, and the text is written all the same."
)]
pub struct Convert {
    /// The file to read; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The file to write instead of standard output.
    #[arg(short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Its format: haproxy, toml or nginx. Guessed from its name and text unless given.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub from: Option<Format>,
    /// The wanted format: haproxy or toml; the other one unless given.
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub to: Option<Format>,
}

fn format(name: &str) -> Result<Format, String> {
    let known = || {
        let names: Vec<&str> = Format::NAMES.iter().map(|(name, _)| *name).collect();
        format!("the formats are {}", names.join(", "))
    };
    Format::named(name).ok_or_else(known)
}

/// `tidegate help`: the keyword table, asked.
#[derive(Clone, PartialEq, Debug, clap::Args)]
pub struct Help {
    /// A keyword, a parameter, or the first word of a family such as 'timeout'; without one, the
    /// list of what works.
    #[arg(value_name = "KEYWORD")]
    pub words: Vec<String>,
    /// Lists every word of HAProxy's that isn't there yet.
    #[arg(long, conflicts_with = "words")]
    pub missing: bool,
}

/// The names of the subcommands: a file that is called like one is reached by -f.
const NAMES: &[&str] = &["demo", "check", "convert", "ctl", "probe", "help"];

/// Whether the first argument is a subcommand.
pub(super) fn is_command(word: &str) -> bool {
    NAMES.contains(&word)
}

/// What a subcommand's arguments turn out to be.
pub(super) enum Parsed {
    /// To be run.
    Command(Command),
    /// `--help`: the text to print.
    Text(String),
}

/// Parses the arguments, the first of which is a subcommand.
pub(super) fn parse(arguments: &[String]) -> Result<Parsed, Misuse> {
    let words = std::iter::once("tidegate").chain(arguments.iter().map(String::as_str));
    match CommandLine::try_parse_from(words) {
        Ok(line) => Ok(Parsed::Command(line.command)),
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            Ok(Parsed::Text(error.to_string()))
        }
        Err(error) => Err(Misuse {
            text: error.to_string(),
            code: misuse_code(arguments.first().map_or("", String::as_str)),
        }),
    }
}

/// What a wrong word ends with: 1 is an answer of the commands that monitoring may call.
fn misuse_code(command: &str) -> u8 {
    match command {
        "ctl" => ctl::Verdict::Unknown.code(),
        "probe" => probe_tool::CANNOT,
        _ => 1,
    }
}

/// A line for each subcommand.
pub(super) fn help() -> String {
    let command = <CommandLine as clap::CommandFactory>::command();
    let lines = command.get_subcommands().map(|command| {
        let about = command.get_about().map(ToString::to_string);
        format!(
            "  {:<19} {}\n",
            command.get_name(),
            about.unwrap_or_default()
        )
    });
    lines.collect()
}

/// A second is the least in which a failure can be shown.
fn demo_duration(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    if time < Duration::from_secs(1) {
        return Err("at least 1s is needed".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Parsed, Misuse> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn demo_has_its_own_options() {
        let Ok(Parsed::Command(Command::Demo(demo))) = parsed("demo --for 2m --keep") else {
            panic!()
        };
        assert_eq!((demo.duration, demo.keep), (Duration::from_secs(120), true));
        assert_eq!((demo.port, demo.udp_port), (8080, 6881));
        for wrong in ["--for x", "--for 200ms", "--port 0", "--port 70000"] {
            assert!(parsed(&format!("demo {wrong}")).is_err(), "{wrong}");
        }
        assert!(matches!(parsed("demo --help"), Ok(Parsed::Text(_))));
    }

    #[test]
    fn what_monitoring_calls_ends_with_a_code_of_its_own() {
        let code = |text: &str| match parsed(text) {
            Err(misuse) => misuse.code,
            Ok(_) => 0,
        };
        assert_eq!(code("ctl"), 3);
        assert_eq!(code("ctl monitor 0"), 3);
        assert_eq!(code("ctl weight b/s 300"), 3);
        assert_eq!(code("probe load"), 3);
        assert_eq!(code("check"), 1);
        assert_eq!(code("probe stress 5 --target h:1"), 0);
        assert_eq!(code("ctl --socket /x monitor 5 --json"), 0);
    }

    #[test]
    fn names_are_those_that_clap_knows() {
        let command = <CommandLine as clap::CommandFactory>::command();
        let known: Vec<&str> = command.get_subcommands().map(|c| c.get_name()).collect();
        assert_eq!(known, NAMES);
        assert!(NAMES.iter().all(|name| help().contains(name)));
    }

    #[test]
    fn check_needs_a_file() {
        assert!(parsed("check").is_err());
        assert!(matches!(
            parsed("check a b"),
            Ok(Parsed::Command(Command::Check(_)))
        ));
    }
}
