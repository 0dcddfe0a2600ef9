//! Commands that change something: what is sent, and what is said of the outcome.
//!
//! The balancer answers with nothing where all went well; anything else is its reason for not doing
//! it. What a server is like afterwards is asked, not assumed.

use serde_json::{Value, json};
use std::time::Duration;

use super::client::{Client, Trouble, is_refusal};
use super::options::{Action, Verdict};
use super::status::{Server, Status};
use super::values;
use crate::base::text::counted;
use crate::sys::{clock, interrupt};

/// Between two looks at a server whose sessions are waited for.
const LOOK: Duration = Duration::from_millis(250);

/// A reload reads files, resolves names and may bind sockets.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a reason that are passed on.
const REASON_LINES_MAX: usize = 20;

/// What to do with a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Ready,
    Drain,
    Maint,
}

impl State {
    /// HAProxy's word.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Drain => "drain",
            State::Maint => "maint",
        }
    }
}

/// Sends a command that answers with nothing when it is done.
pub(super) fn order(client: &Client, command: &str) -> Result<(), Trouble> {
    let answer = client.ask(command)?;
    let reason: Vec<&str> = answer
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(if is_refusal(&answer) {
            1
        } else {
            REASON_LINES_MAX
        })
        .collect();
    if reason.is_empty() {
        return Ok(());
    }
    let reason = reason.iter().map(|line| crate::base::text::clean(line));
    let reason = reason.collect::<Vec<_>>().join("\n");
    Err(Trouble::Refused(format!("{command}: {reason}")))
}

/// The command for a change of a server, which has this full name.
fn command(action: &Action, server: &str) -> Option<String> {
    let state = |state: State| format!("set server {server} state {}", state.word());
    match action {
        Action::Ready(_) => Some(state(State::Ready)),
        Action::Drain(_) => Some(state(State::Drain)),
        Action::Maint(_) => Some(state(State::Maint)),
        Action::Weight(weight) => Some(format!("set weight {server} {}", weight.weight)),
        Action::Ramp(ramp) if ramp.cancel => Some(format!("ramp server {server} cancel")),
        Action::Ramp(ramp) => {
            let every_ms = ramp.every.as_millis();
            Some(format!(
                "ramp server {server} {} every {every_ms}ms",
                ramp.steps
            ))
        }
        _ => None,
    }
}

/// Changes a server, waits for the end of its sessions if it is asked to, and says what it is like
/// then.
pub(super) fn server(
    client: &Client,
    action: &Action,
    named: &str,
    wait: Option<Duration>,
    as_json: bool,
) -> Result<(String, Verdict), Trouble> {
    let full = Status::ask(client)?.resolve(named)?.0;
    let Some(command) = command(action, &full) else {
        return Err(Trouble::Strange("no command for a server".to_owned()));
    };
    order(client, &command)?;
    let status = match wait {
        Some(wait) => until_empty(client, &full, wait)?,
        None => Status::ask(client)?,
    };
    let server = status.resolve(&full)?.1;
    let left = server.traffic.current;
    let verdict = match wait {
        Some(_) if left > 0 => Verdict::Warning,
        _ => Verdict::Ok,
    };
    if as_json {
        return Ok((values::line(&as_value(&full, server, verdict)), verdict));
    }
    let open = counted(usize::try_from(left).unwrap_or(usize::MAX), "session");
    let status = &server.status;
    let text = format!("{full}: {status}, weight {}, {open} open\n", server.weight);
    Ok((text, verdict))
}

fn as_value(full: &str, server: &Server, verdict: Verdict) -> Value {
    json!({
        "verdict": verdict.name(),
        "code": verdict.code(),
        "server": full,
        "status": server.status,
        "weight": server.weight,
        "sessions_open": server.traffic.current,
    })
}

/// Looks until a server has no session, the time is over, or somebody interrupts it.
fn until_empty(client: &Client, full: &str, wait: Duration) -> Result<Status, Trouble> {
    let interrupted = interrupt::watch()
        .map_err(|error| Trouble::Strange(format!("cannot wait for signals: {error}")))?;
    let until = clock::now() + wait;
    loop {
        let status = Status::ask(client)?;
        let is_empty = status.resolve(full)?.1.traffic.current == 0;
        let left = until - clock::now();
        if is_empty || left.is_zero() || interrupted.recv_timeout(LOOK.min(left)).is_ok() {
            return Ok(status);
        }
    }
}

/// `ctl reload`: the answer's first line says whether it went well, the lines after it why not.
pub(super) fn reload(client: &Client, as_json: bool) -> Result<(String, Verdict), Trouble> {
    let answer = client.with_timeout(RELOAD_PATIENCE).ask("reload")?;
    if is_refusal(&answer) {
        let line = answer.lines().next().unwrap_or("");
        return Err(Trouble::Refused(crate::base::text::clean(line)));
    }
    let verdict = reloaded(&answer);
    if as_json {
        let value = json!({
            "verdict": verdict.name(),
            "code": verdict.code(),
            "answer": answer,
        });
        return Ok((values::line(&value), verdict));
    }
    Ok((answer, verdict))
}

/// HAProxy says `Success=1` or `Success=0`, then what there was to say at the start. What failed
/// has changed nothing: a warning.
fn reloaded(answer: &str) -> Verdict {
    match answer.lines().next().map(str::trim) {
        None | Some("" | "Success=1") => Verdict::Ok,
        Some(_) => Verdict::Warning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::options::{Leave, Ramp, Weight};

    #[test]
    fn commands_are_haproxys() {
        let server = "web/s1".to_owned();
        let leave = Leave {
            server: server.clone(),
            wait: None,
        };
        let weight = Weight {
            server: server.clone(),
            weight: "50%".to_owned(),
        };
        let ramp = Ramp {
            server,
            steps: "10,100".to_owned(),
            every: Duration::from_secs(60),
            cancel: false,
        };
        let sent = [
            Action::Drain(leave.clone()),
            Action::Maint(leave),
            Action::Weight(weight),
            Action::Ramp(ramp),
        ]
        .map(|action| command(&action, "web/s1").unwrap());
        assert_eq!(
            sent,
            [
                "set server web/s1 state drain",
                "set server web/s1 state maint",
                "set weight web/s1 50%",
                "ramp server web/s1 10,100 every 60000ms",
            ]
        );
        assert_eq!(command(&Action::Check, "web/s1"), None);
    }

    #[test]
    fn a_reload_that_failed_is_told_from_one_that_went_well() {
        assert_eq!(reloaded("Success=1\n--\n"), Verdict::Ok);
        assert_eq!(reloaded(""), Verdict::Ok);
        assert_eq!(reloaded("Success=0\n--\n[ALERT] x"), Verdict::Warning);
        assert_eq!(reloaded("Reload failed"), Verdict::Warning);
    }
}
