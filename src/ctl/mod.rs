//! `tidegate ctl`: a client of the runtime socket, for people and for scripts.
//!
//! Works by HAProxy's commands and answers, over the socket and nothing else: it sees no shared
//! state and no configuration, so it serves any process that speaks this way. Blocking calls with
//! timeouts; every answer is bounded, and its text is freed of control characters before it
//! reaches a terminal. What the exit codes mean is in `options`.

mod change;
mod client;

mod listing;
mod load;
mod monitor;
mod options;
mod report;
mod status;
mod table;
mod top;
mod values;

use serde_json::json;
use std::io::Write;

pub use options::{Action, Options, Verdict};

use client::{Address, Client, Trouble};
use options::{DEFAULT_SOCKET, SOCKET_VARIABLE};
use status::Status;

/// Does what was asked for and returns the exit code.
pub fn run(options: &Options) -> u8 {
    let verdict = match client(options) {
        Ok(client) => run_with(&client, options),
        Err(text) => trouble(&Trouble::Strange(text), on_stdout(options), options.json),
    };
    verdict.code()
}

/// The client that the options, or the environment, or the usual place ask for.
fn client(options: &Options) -> Result<Client, String> {
    let variable = std::env::var(SOCKET_VARIABLE).ok();
    let told = options.socket.clone().or(variable);
    let told = told.filter(|text| !text.is_empty());
    let address = Address::parse(told.as_deref().unwrap_or(DEFAULT_SOCKET))?;
    Ok(Client::new(address, options.timeout))
}

fn run_with(client: &Client, options: &Options) -> Verdict {
    let as_json = options.json;
    let outcome = match &options.action {
        Action::Monitor(monitor) => return monitor::run(client, monitor, as_json),
        Action::Top(_) if as_json => {
            let text = "top is for people; detailed --json has its numbers";
            Err(Trouble::Strange(text.to_owned()))
        }
        Action::Top(top) => top::run(client, top),
        Action::Check => Status::ask(client).map(|status| {
            let text = if as_json {
                values::line(&values::check(&status))
            } else {
                report::check(&status)
            };
            (text, status.verdict())
        }),
        Action::Detailed => Status::ask(client).map(|status| {
            let text = if as_json {
                values::line(&values::detailed(&status))
            } else {
                report::detailed(&status)
            };
            (text, status.verdict())
        }),
        Action::Load(load) => load::run(client, load.over, as_json),
        action @ (Action::Drain(leave) | Action::Maint(leave)) => {
            change::server(client, action, &leave.server, leave.wait, as_json)
        }
        action @ Action::Ready(named) => {
            change::server(client, action, &named.server, None, as_json)
        }
        action @ Action::Weight(weight) => {
            change::server(client, action, &weight.server, None, as_json)
        }
        action @ Action::Ramp(ramp) => change::server(client, action, &ramp.server, None, as_json),
        Action::Sessions(wanted) => listing::run(client, "show sess", "sessions", wanted, as_json),
        Action::Flows(wanted) => listing::run(client, "show flows", "flows", wanted, as_json),
        Action::Reload => change::reload(client, as_json),
        Action::Run(run) => raw(client, &run.command.join(" "), as_json),
    };
    match outcome {
        Ok((text, verdict)) => {
            print(&text);
            verdict
        }
        Err(text) => trouble(&text, on_stdout(options), as_json),
    }
}

/// `ctl run`: the answer as it is.
fn raw(client: &Client, command: &str, as_json: bool) -> Result<(String, Verdict), Trouble> {
    let answer = client.ask(command)?;
    let verdict = if client::is_refusal(&answer) {
        Verdict::Unknown
    } else {
        Verdict::Ok
    };
    if as_json {
        let value = json!({
            "verdict": verdict.name(),
            "code": verdict.code(),
            "command": command,
            "answer": answer,
        });
        return Ok((values::line(&value), verdict));
    }
    Ok((answer, verdict))
}

/// Whether trouble is the answer: monitoring reads standard output only.
fn on_stdout(options: &Options) -> bool {
    options.json || options.action == Action::Check
}

/// Says what is wrong.
fn trouble(trouble: &Trouble, on_stdout: bool, as_json: bool) -> Verdict {
    let text = trouble.to_string();
    let text = match as_json {
        true => values::line(&values::trouble(&text)),
        false => report::unknown(&text),
    };
    if on_stdout {
        print(&text);
    } else {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
    Verdict::Unknown
}

/// Writes to standard output; false when nobody reads it any more.
fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_ok()
}
