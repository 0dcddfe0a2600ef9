//! The command line: HAProxy's single-dash words as a table, and our own subcommands by clap.
//!
//! Clap knows neither `-db` nor `-vv` as one word, so the flags are parsed by hand from `FLAGS`;
//! help is printed from the same table. What HAProxy has and Tidegate has not is in the table too,
//! and refused with its reason.

use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

use crate::config;
use crate::config::diagnostics::Severity;
use crate::config::plan::{Global, Plan};
use crate::control::messages::Console;
use crate::control::resolve::{SystemEnvironment, config_files};
use crate::demo;
use crate::process::{self, Settings};
use crate::ring::Caps;

/// What to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Invocation {
    /// Load the configuration and run, or only check it.
    Run(Box<Options>),
    /// `-v`
    Version,
    /// `-vv`
    VersionDetails,
    /// `-h`
    Help,
    /// `demo`
    Demo(Demo),
    /// `demo --help`, with the text.
    DemoHelp(String),
}

/// Options of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `-f`, in order.
    pub files: Vec<PathBuf>,
    /// `-c`
    pub check: bool,
    /// `-V`
    pub verbose: bool,
    /// `-q`
    pub quiet: bool,
    /// `-d`
    pub debug: bool,
    /// `-db`: stay in the foreground whatever the configuration says.
    pub foreground: bool,
    /// `-D`
    pub daemon: bool,
    /// `-p`
    pub pidfile: Option<PathBuf>,
    /// `-C`: directory to change to first.
    pub directory: Option<PathBuf>,
    /// `-n`: overrides the configured `maxconn`.
    pub maxconn: Option<u32>,
    /// `-dW`: warnings are errors.
    pub warnings_fatal: bool,
}

/// `tidegate demo`: a throw-away set-up to look at.
#[derive(Clone, PartialEq, Debug, Parser)]
#[command(
    name = "tidegate demo",
    about = "Runs a balancer with servers and load of its own"
)]
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
}

/// A second is the least in which a failure can be shown.
fn demo_duration(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time < Duration::from_secs(1) {
        return Err("at least 1s is needed".to_owned());
    }
    Ok(time)
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("'{text}' is not a time"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        unit => Err(format!("'{unit}' is not a unit of time")),
    }
}

/// What a flag does.
#[derive(Clone, Copy)]
enum Effect {
    Set(fn(&mut Options)),
    Take(fn(&mut Options, &str) -> Result<(), String>),
    Print(fn() -> Invocation),
    Refuse(&'static str),
}

/// A flag, its argument's name and its line of help.
struct Flag {
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    effect: Effect,
}

const fn flag(
    name: &'static str,
    argument: &'static str,
    help: &'static str,
    effect: Effect,
) -> Flag {
    Flag {
        name,
        argument,
        help,
        effect,
    }
}

const WORKER: &str = "master-worker mode is not there yet; run it under systemd or with -D";
const TAKE_OVER: &str = "taking over from a running process is not there yet";

#[rustfmt::skip]
const FLAGS: &[Flag] = &[
    flag("-f", "FILE", "reads a configuration file (repeatable); also every argument after --",
        Effect::Take(|o, v| { o.files.push(v.into()); Ok(()) })),
    flag("-c", "", "checks the configuration and exits: 0 valid, 1 errors, 2 no listener",
        Effect::Set(|o| o.check = true)),
    flag("-D", "", "goes to the background once everything is ready", Effect::Set(|o| o.daemon = true)),
    flag("-db", "", "stays in the foreground, whatever the configuration says",
        Effect::Set(|o| o.foreground = true)),
    flag("-d", "", "foreground with the program's own diagnostics", Effect::Set(|o| o.debug = true)),
    flag("-V", "", "says more (with -c: that the file is valid)", Effect::Set(|o| o.verbose = true)),
    flag("-q", "", "prints no messages", Effect::Set(|o| o.quiet = true)),
    flag("-p", "FILE", "writes the process id to a file",
        Effect::Take(|o, v| { o.pidfile = Some(v.into()); Ok(()) })),
    flag("-C", "DIR", "changes to a directory first",
        Effect::Take(|o, v| { o.directory = Some(v.into()); Ok(()) })),
    flag("-n", "N", "sets maxconn in place of the configured one", Effect::Take(|o, v| {
        let number = v.parse().map_err(|_| format!("'-n' expects a number, not '{v}'"))?;
        o.maxconn = (number > 0).then_some(number);
        Ok(())
    })),
    flag("-dW", "", "takes warnings for errors", Effect::Set(|o| o.warnings_fatal = true)),
    flag("-v", "", "prints the version", Effect::Print(|| Invocation::Version)),
    flag("-vv", "", "prints the version, the build and what this kernel can do",
        Effect::Print(|| Invocation::VersionDetails)),
    flag("-h", "", "prints this", Effect::Print(|| Invocation::Help)),
    flag("-W", "", "", Effect::Refuse(WORKER)),
    flag("-Ws", "", "", Effect::Refuse(WORKER)),
    flag("-S", "ADDRESS", "", Effect::Refuse(WORKER)),
    flag("-sf", "", "", Effect::Refuse(TAKE_OVER)),
    flag("-st", "", "", Effect::Refuse(TAKE_OVER)),
    flag("-x", "SOCKET", "", Effect::Refuse(TAKE_OVER)),
    flag("-cc", "CONDITION", "", Effect::Refuse("conditions in configurations are not there yet")),
    flag("-L", "NAME", "", Effect::Refuse("there are no peers sections")),
    flag("-m", "MB", "", Effect::Refuse("use 'tune.memory' to bound the relay's memory")),
    flag("-N", "N", "", Effect::Refuse("set 'maxconn' in the defaults section")),
    flag("-dr", "", "", Effect::Refuse("a name that can't be resolved is an error")),
    flag("-dR", "", "", Effect::Refuse("shards need SO_REUSEPORT")),
];

/// The old spellings that HAProxy itself knows for `-h`.
const HELP_WORDS: [&str; 2] = ["--help", "help"];

/// Parses the arguments after the program's name.
pub fn parse(arguments: &[String]) -> Result<Invocation, String> {
    match arguments.first().map(String::as_str) {
        Some("demo") => return parse_demo(arguments),
        Some("--version") => return Ok(Invocation::Version),
        Some(word) if HELP_WORDS.contains(&word) => return Ok(Invocation::Help),
        _ => {}
    }
    let mut options = Options::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            options.files.extend(words.map(PathBuf::from));
            break;
        }
        let Some(flag) = FLAGS.iter().find(|flag| flag.name == word) else {
            return Err(format!("unknown argument '{word}'"));
        };
        match flag.effect {
            Effect::Set(set) => set(&mut options),
            Effect::Take(take) => match words.next() {
                Some(value) => take(&mut options, value)?,
                None => return Err(format!("'{word}' expects {}", flag.argument)),
            },
            Effect::Print(print) => return Ok(print()),
            Effect::Refuse(reason) => return Err(format!("'{word}' is not supported: {reason}")),
        }
    }
    if options.files.is_empty() {
        return Err("no configuration file: give one with -f FILE".to_owned());
    }
    Ok(Invocation::Run(Box::new(options)))
}

fn parse_demo(arguments: &[String]) -> Result<Invocation, String> {
    match Demo::try_parse_from(arguments) {
        Ok(demo) => Ok(Invocation::Demo(demo)),
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            Ok(Invocation::DemoHelp(error.to_string()))
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Prints a text to standard output.
#[expect(clippy::print_stdout, reason = "this is the command line")]
pub fn print(text: &str) -> u8 {
    println!("{}", text.trim_end());
    0
}

/// `-vv`
pub fn print_details() -> u8 {
    let mut text = version();
    text.push_str(&format!(
        "\nTarget: {} {}, {} build\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    ));
    match Caps::probe(None, Global::default().ring_buffers) {
        Ok(caps) => {
            text.push_str(&format!("Receive step: {}\n", caps.receive.name()));
            caps.findings
                .iter()
                .for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        Err(error) => text.push_str(&format!("io_uring can't be used: {error}\n")),
    }
    print(&text)
}

/// `demo`
pub fn run_demo(demo: &Demo) -> u8 {
    env_logger::init();
    demo::run(demo::Options {
        duration: demo.duration,
        keep: demo.keep,
        port: demo.port,
    })
}

/// Loads the configuration, then checks or runs it.
pub fn run(options: Options) -> u8 {
    let console = Console::new(options.quiet);
    if let Some(directory) = &options.directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        console.alert(&format!(
            "Cannot change to {}: {error}",
            directory.display()
        ));
        return 1;
    }
    if options.debug {
        env_logger::builder()
            .filter_level(log::LevelFilter::Debug)
            .init();
    } else {
        env_logger::init();
    }
    let loaded = load(&options, &console);
    let Some(plan) = loaded else { return 1 };
    if options.check {
        return checked(&plan, &options);
    }
    if !plan.has_listener() {
        console.alert("No listener: there is nothing to do.");
        return 1;
    }
    let daemon = (options.daemon || plan.global.daemon) && !options.foreground && !options.debug;
    let settings = Settings {
        daemon,
        pidfile: options.pidfile,
        maxconn: options.maxconn,
        silent: false,
    };
    process::run(plan, settings, &console)
}

/// Loads the files and prints what there is to say about them.
fn load(options: &Options, console: &Console) -> Option<Plan> {
    let files = match config_files(&options.files) {
        Ok(files) => files,
        Err(error) => {
            console.alert(&format!("Cannot read a configuration directory: {error}"));
            return None;
        }
    };
    let (plan, diagnostics) = config::load(&files, &SystemEnvironment::new());
    let pid = std::process::id();
    let mut warned = false;
    for diagnostic in &diagnostics {
        console.introduce();
        console.line(&diagnostic.format(pid));
        warned |= diagnostic.severity == Severity::Warning;
    }
    if warned && options.warnings_fatal {
        console.alert("Some warnings were found and '-dW' takes them for errors. Aborting.");
        return None;
    }
    if warned && options.check && !options.quiet {
        print("Warnings were found.");
    }
    plan
}

/// What `-c` says of a valid configuration.
fn checked(plan: &Plan, options: &Options) -> u8 {
    if !plan.has_listener() {
        if !options.quiet {
            print("Configuration file has no error but will not start (no listener) => exit(2).");
        }
        return 2;
    }
    if options.verbose && !options.quiet {
        print("Configuration file is valid");
    }
    0
}

/// Version line, as `haproxy -v` has it.
pub fn version() -> String {
    format!(
        "Tidegate version {} - layer-4 balancer on io_uring",
        env!("CARGO_PKG_VERSION")
    )
}

/// The flags and the subcommands.
pub fn help() -> String {
    let mut text = version();
    text.push_str("\nUsage: tidegate -f FILE [-f FILE ...] [options]\n");
    text.push_str("       tidegate demo [--for TIME] [--keep] [--port N]\n\n");
    for flag in FLAGS
        .iter()
        .filter(|flag| !matches!(flag.effect, Effect::Refuse(_)))
    {
        let head = format!("{} {}", flag.name, flag.argument);
        text.push_str(&format!("  {head:<10} {}\n", flag.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn single_dash_words_are_whole_words() {
        let parsed = parse(&words(
            "-db -V -f a.cfg -p /run/x.pid -n 100 -- b.cfg c.cfg",
        ))
        .unwrap();
        let Invocation::Run(options) = parsed else {
            panic!("{parsed:?}")
        };
        assert!(options.foreground && options.verbose && !options.debug && !options.daemon);
        assert_eq!(
            options.files,
            ["a.cfg", "b.cfg", "c.cfg"].map(PathBuf::from)
        );
        assert_eq!(options.maxconn, Some(100));
        assert_eq!(parse(&words("-vv")), Ok(Invocation::VersionDetails));
        assert_eq!(parse(&words("-v")), Ok(Invocation::Version));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |text: &str| parse(&words(text)).unwrap_err();
        assert_eq!(error("-f"), "'-f' expects FILE");
        assert_eq!(error("-zz"), "unknown argument '-zz'");
        assert!(error("-f a -W").contains("not supported"));
        assert!(error("-c").contains("-f FILE"));
        assert!(error("-f a -n x").contains("expects a number"));
    }

    #[test]
    fn demo_has_its_own_options() {
        let Ok(Invocation::Demo(demo)) = parse(&words("demo --for 2m --keep")) else {
            panic!()
        };
        assert_eq!((demo.duration, demo.keep), (Duration::from_secs(120), true));
        assert_eq!(demo.port, 8080);
        for wrong in ["--for x", "--for 200ms", "--port 0", "--port 70000"] {
            assert!(parse(&words(&format!("demo {wrong}"))).is_err(), "{wrong}");
        }
        assert!(matches!(
            parse(&words("demo --help")),
            Ok(Invocation::DemoHelp(_))
        ));
    }

    #[test]
    fn every_flag_stands_once_in_the_table() {
        for (index, flag) in FLAGS.iter().enumerate() {
            assert!(
                FLAGS[..index].iter().all(|other| other.name != flag.name),
                "{}",
                flag.name
            );
        }
    }
}
