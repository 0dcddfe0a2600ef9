//! Argv to exit code.

use std::process::ExitCode;
use tidegate::cli;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(match cli::parse(&arguments) {
        Ok(invocation) => cli::execute(invocation),
        Err(misuse) => {
            cli::complain(&misuse.text);
            misuse.code
        }
    })
}
