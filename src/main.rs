//! Argv to exit code.

use std::process::ExitCode;
use tidegate::cli::{self, Invocation};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(match cli::parse(&arguments) {
        Ok(invocation) => run(invocation),
        Err(text) => {
            eprintln!("{text}\n\n{}", cli::help());
            1
        }
    })
}

fn run(invocation: Invocation) -> u8 {
    match invocation {
        Invocation::Run(options) => cli::run(*options),
        Invocation::Version => cli::print(&cli::version()),
        Invocation::VersionDetails => cli::print_details(),
        Invocation::Help => cli::print(&cli::help()),
        Invocation::Demo(demo) => cli::run_demo(&demo),
        Invocation::DemoHelp(text) => cli::print(&text),
    }
}
