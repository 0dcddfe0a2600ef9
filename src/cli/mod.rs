//! The command line: argv to exit code.
//!
//! HAProxy's single-dash words are in `flags`, our own subcommands in `commands`. What both share,
//! reading the configuration, is in `load`.

mod check;
mod commands;
mod convert;
mod flags;
mod help;
mod load;

use std::io::Write;

pub use commands::{Check, Command, Convert, Demo, Help};
pub use flags::Options;

use crate::config;
use crate::config::diagnostics::Severity;
use crate::config::plan::{Global, Plan};
use crate::control::messages::Console;
use crate::ctl;
use crate::demo;
use crate::probe_tool;
use crate::process::{self, Settings};
use crate::ring::{Caps, Wanted};

/// What to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Invocation {
    /// Load the configuration and run, or only check it.
    Run(Box<Options>),
    /// A subcommand.
    Command(Command),
    /// `-v`
    Version,
    /// `-vv`
    VersionDetails,
    /// `-h`
    Help,
    /// A subcommand's `--help`, with the text.
    CommandHelp(String),
}

/// Arguments that make no sense: all there is to print, and the exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Misuse {
    /// What is wrong, and how it is meant.
    pub text: String,
    /// What to end with.
    pub code: u8,
}

/// Parses the arguments after the program's name.
pub fn parse(arguments: &[String]) -> Result<Invocation, Misuse> {
    match arguments.first().map(String::as_str) {
        Some(word) if commands::is_command(word) => match commands::parse(arguments)? {
            commands::Parsed::Command(command) => Ok(Invocation::Command(command)),
            commands::Parsed::Text(text) => Ok(Invocation::CommandHelp(text)),
        },
        Some("--version") => Ok(Invocation::Version),
        Some("--help") => Ok(Invocation::Help),
        _ => flags::parse(arguments).map_err(|text| Misuse {
            text: format!("{text}\n\n{}", usage()),
            code: 1,
        }),
    }
}

/// Does it and returns the exit code.
pub fn execute(invocation: Invocation) -> u8 {
    match invocation {
        Invocation::Run(options) => run(*options),
        Invocation::Command(Command::Demo(demo)) => run_demo(&demo),
        Invocation::Command(Command::Check(check)) => check::run(&check),
        Invocation::Command(Command::Convert(wanted)) => convert::run(&wanted),
        Invocation::Command(Command::Ctl(options)) => ctl::run(&options),
        Invocation::Command(Command::Probe(options)) => probe_tool::run(&options),
        Invocation::Command(Command::Help(help)) => help::run(&help),
        Invocation::Version => print(&version()),
        Invocation::VersionDetails => print_details(),
        Invocation::Help => print(&usage()),
        Invocation::CommandHelp(text) => print(&text),
    }
}

/// Prints a text to standard output. A reader that goes away early has seen enough.
pub fn print(text: &str) -> u8 {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
    0
}

/// Prints a text to standard error.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}

/// `-vv`
fn print_details() -> u8 {
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
    text.push_str(&kernel());
    print(&text)
}

/// What the data plane would use of this kernel, and what each other receive step would be.
fn kernel() -> String {
    let wanted = Wanted {
        forced: None,
        without: Vec::new(),
        buffers: Global::default().ring_buffers,
    };
    let caps = match Caps::probe(&wanted) {
        Ok(caps) => caps,
        Err(error) => return format!("io_uring can't be used: {error}\n"),
    };
    let mut text = format!("Receive step: {}\n", caps.receive.name());
    for (step, found) in caps.survey(&wanted) {
        let found = found.map_or_else(|error| error.to_string(), |()| "self-test passed".into());
        text.push_str(&format!(
            "  {} (Linux {}): {found}\n",
            step.name(),
            step.since()
        ));
    }
    for (name, has) in caps.describe() {
        let has = if has { "yes" } else { "no, done without" };
        text.push_str(&format!("{}: {has}\n", name.replace('_', " ")));
    }
    text
}

/// `demo`
fn run_demo(demo: &Demo) -> u8 {
    env_logger::init();
    demo::run(demo::Options {
        duration: demo.duration,
        keep: demo.keep,
        port: demo.port,
        udp_port: demo.udp_port,
    })
}

/// Loads the configuration, then checks or runs it.
fn run(mut options: Options) -> u8 {
    let console = Console::new(options.quiet);
    if let Some(directory) = &options.directory
        && let Err(error) = std::env::set_current_dir(directory)
    {
        let directory = directory.display();
        console.alert(&format!("Cannot change to {directory}: {error}"));
        return 1;
    }
    if options.debug {
        env_logger::builder()
            .filter_level(log::LevelFilter::Debug)
            .init();
    } else {
        env_logger::init();
    }
    for notice in &options.notices {
        console.say(Severity::Notice, notice);
    }
    if let Some(condition) = &options.condition {
        return evaluate(condition, &options, &console);
    }
    let Some(plan) = load(&options, &console) else {
        return 1;
    };
    options.quiet |= is_quiet(&plan, &options);
    if options.check {
        return checked(&plan, &options);
    }
    if !plan.has_listener() {
        console.alert("No listener: there is nothing to do.");
        return 1;
    }
    let loader = load::loader(&options);
    let background = options.daemon || plan.global.daemon;
    let foreground = options.foreground || options.debug || options.supervised;
    let settings = Settings {
        daemon: background && !foreground,
        pidfile: options.pidfile,
        maxconn: options.maxconn,
        memory_limit: options.memory_limit,
        worker: options.worker || plan.global.process.master_worker,
        take_over: options.take_over,
        silent: false,
        loader: Some(loader),
    };
    process::run(plan, settings, &console.or_quiet(options.quiet))
}

/// `-cc`: 0 true, 1 false, 2 for what can't be decided.
fn evaluate(condition: &str, options: &Options, console: &Console) -> u8 {
    match config::condition(condition, &load::environment(options)) {
        Ok(holds) => u8::from(!holds),
        Err(text) => {
            console.alert(&format!("config : {text}"));
            2
        }
    }
}

/// Loads the files and prints what there is to say about them.
fn load(options: &Options, console: &Console) -> Option<Plan> {
    let loaded = match load::load(options) {
        Ok(loaded) => loaded,
        Err(text) => {
            console.alert(&format!("config : {text}"));
            return None;
        }
    };
    let silenced = console.or_quiet(true);
    let is_silenced = |plan: &Plan| is_quiet(plan, options);
    let console = if loaded.plan.as_ref().is_some_and(is_silenced) {
        &silenced
    } else {
        console
    };
    let pid = std::process::id();
    for diagnostic in &loaded.diagnostics {
        console.introduce();
        console.line(&diagnostic.format(pid));
    }
    let warned = loaded.is_warned();
    let plan = loaded.plan?;
    if warned && (options.warnings_fatal || plan.global.process.zero_warning) {
        console.alert("config : Some warnings were found and 'zero-warning' is set. Aborting.");
        return None;
    }
    if warned && options.check && !console.is_quiet() {
        print("Warnings were found.");
    }
    Some(plan)
}

/// Whether the file asks for silence, and the command line doesn't ask for more.
fn is_quiet(plan: &Plan, options: &Options) -> bool {
    plan.global.process.quiet && !options.verbose
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
fn version() -> String {
    format!(
        "Tidegate version {} - layer-4 balancer on io_uring",
        env!("CARGO_PKG_VERSION")
    )
}

/// The flags and the subcommands.
fn usage() -> String {
    format!(
        "{}\nUsage: tidegate -f FILE [-f FILE ...] [flags]\n       tidegate COMMAND [options]\n\n\
         Flags, as HAProxy has them:\n{}\n\
         Commands (a file that is called like one is reached by -f; COMMAND --help says more):\n{}",
        version(),
        flags::help(),
        commands::help()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Invocation, Misuse> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn a_file_that_is_called_like_a_command_is_reached_by_its_flag() {
        let is_run = |text| matches!(parsed(text), Ok(Invocation::Run(_)));
        assert!(is_run("-f check") && is_run("-- demo") && !is_run("check demo"));
    }

    #[test]
    fn a_wrong_flag_is_answered_with_the_usage() {
        let text = parsed("-f a -zz").unwrap_err().text;
        assert!(text.starts_with("unknown argument '-zz'"), "{text}");
        for part in ["Usage: tidegate", "  -sf PID...", "  -dM ", "  check "] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // The usage of a command is clap's.
        assert!(!parsed("check").unwrap_err().text.contains("-sf"));
    }
}
