//! `ctl monitor`: a look every so many seconds, a line for each, and what has changed since the
//! last one. A balancer that can't be reached is a line too: it may come back.

use nix::sys::signal::Signal;
use std::time::Duration;

use super::client::{Client, Trouble};
use super::options::{Monitor, Verdict};
use super::status::Status;
use super::values;
use super::{print, report};
use crate::sys::interrupt;

/// Looks until it is interrupted, nobody reads, or it has looked often enough.
pub(super) fn run(client: &Client, options: &Monitor, as_json: bool) -> Verdict {
    let interrupted = match interrupt::watch() {
        Ok(interrupted) => interrupted,
        Err(error) => {
            let text = format!("cannot wait for signals: {error}");
            return super::trouble(&Trouble::Strange(text), true, as_json);
        }
    };
    let mut last: Option<Status> = None;
    let mut looks = 0;
    loop {
        let (text, verdict) = look(Status::ask(client), &mut last, as_json);
        let is_read = print(&text);
        looks += 1;
        if !is_read || options.count.is_some_and(|count| looks >= count) {
            return verdict;
        }
        let pause = Duration::from_secs(u64::from(options.seconds));
        let signal: Result<Signal, _> = interrupted.recv_timeout(pause);
        if signal.is_ok() {
            return verdict;
        }
    }
}

/// What there is to say of one look.
fn look(
    found: Result<Status, Trouble>,
    last: &mut Option<Status>,
    as_json: bool,
) -> (String, Verdict) {
    let now = jiff::Zoned::now()
        .strftime("%Y-%m-%dT%H:%M:%S%:z")
        .to_string();
    let status = match found {
        Ok(status) => status,
        Err(trouble) => {
            let why = trouble.to_string();
            let text = if as_json {
                let mut value = values::trouble(&why);
                value["time"] = now.into();
                values::line(&value)
            } else {
                format!("{now}  {}", report::unknown(&why))
            };
            return (text, Verdict::Unknown);
        }
    };
    let changes = last
        .as_ref()
        .map_or_else(Vec::new, |last| changes(last, &status));
    let verdict = status.verdict();
    let text = if as_json {
        let mut value = values::check(&status);
        value["time"] = now.into();
        value["changes"] = changes.into();
        values::line(&value)
    } else {
        let mut text = format!("{now}  {}", report::headline(&status));
        for change in changes {
            text.push_str(&format!("  {change}\n"));
        }
        text
    };
    *last = Some(status);
    (text, verdict)
}

/// Servers whose status is another one, and those that came and went.
fn changes(before: &Status, after: &Status) -> Vec<String> {
    fn each(status: &Status) -> impl Iterator<Item = (String, &str)> {
        status.proxies.iter().flat_map(|proxy| {
            let full = |name: &str| format!("{}/{name}", proxy.name);
            proxy
                .servers
                .iter()
                .map(move |server| (full(&server.name), server.status.as_str()))
        })
    }
    let earlier: std::collections::HashMap<String, &str> = each(before).collect();
    let later: std::collections::HashSet<String> = each(after).map(|(name, _)| name).collect();
    let mut changes = Vec::new();
    for (name, status) in each(after) {
        match earlier.get(&name) {
            Some(was) if *was != status => changes.push(format!("{name}: {was} -> {status}")),
            Some(_) => {}
            None => changes.push(format!("{name}: new, {status}")),
        }
    }
    let gone = each(before).filter(|(name, _)| !later.contains(name));
    changes.extend(gone.map(|(name, _)| format!("{name}: gone")));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::status::tests::{WEB, status};

    #[test]
    fn changes_are_told() {
        let before = status(&WEB);
        let mut last = Some(before.clone());
        let (text, verdict) = look(Ok(status(&WEB)), &mut last, false);
        assert!(
            text.contains("  OK: 2 of 3") && text.lines().count() == 1,
            "{text}"
        );
        assert_eq!(verdict, Verdict::Ok);
        let rows = [
            WEB[0],
            "web,s1,2,20,,DOWN,1,1,0,2,,,,,,,",
            WEB[2],
            "web,s4,0,0,,UP,1,1,0,2,,,,,,,",
        ];
        assert_eq!(
            changes(&before, &status(&rows)),
            ["web/s1: UP -> DOWN", "web/s4: new, UP", "web/s3: gone"]
        );
    }

    #[test]
    fn a_balancer_out_of_reach_is_a_line() {
        let mut last = Some(status(&WEB));
        let strange = || Err(Trouble::Strange("nobody there".to_owned()));
        let (text, verdict) = look(strange(), &mut last, false);
        assert!(text.ends_with("  UNKNOWN: nobody there\n"), "{text}");
        assert_eq!(verdict, Verdict::Unknown);
        let (text, _) = look(strange(), &mut last, true);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["code"], 3);
        // What was known before is compared with when it is back.
        assert!(last.is_some());
    }
}
