//! `ramp server`: a server returns in steps, and `show ramp`. Both are ours.

use super::command::{Answer, Call, Command, Run};
use super::subject;
use crate::config::plan::Level;
use crate::config::time_ms;
use crate::control::steps::{self, Steps};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["ramp", "server"], level: Level::Admin, usage: "ramp server <bk>/<srv> <steps>|cancel",
        help: "let a server have its share in steps: 10,25,50,100 every 60s", run: Run::Now(ramp) },
    Command { words: &["show", "ramp"], level: Level::Operator, usage: "show ramp",
        help: "list the servers that return in steps", run: Run::Now(|call| Answer::Text(steps::show(call.shared))) },
];

const USAGE: &str = "Usage: ramp server <backend>/<server> {<percent>[,<percent>]* every <time> | \
                     cancel}, the percentages rising from 1 to 100.";

fn ramp(call: &mut Call<'_>) -> Answer {
    let (backend, server) = match subject::server(call.shared, call.words.first()) {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    if call.words.get(1) == Some(&"cancel") {
        return match steps::cancel(call.shared, &backend, &server) {
            true => Answer::Nothing,
            false => Answer::error("This server doesn't return in steps."),
        };
    }
    let Some(steps) = parse(call.words.get(1..).unwrap_or(&[])) else {
        return Answer::error(USAGE);
    };
    match steps::begin(call.shared, &backend, &server, steps) {
        Ok(()) => Answer::Nothing,
        Err(text) => Answer::error(text),
    }
}

fn parse(words: &[&str]) -> Option<Steps> {
    let [percents, "every", time] = words else {
        return None;
    };
    let percents: Result<Vec<u8>, _> = percents.split(',').map(str::parse).collect();
    Steps::new(percents.ok()?, time_ms(time).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_and_have_a_time() {
        assert!(parse(&["10,25,50,75,100", "every", "60s"]).is_some());
        assert!(parse(&["100", "every", "1"]).is_some());
        for wrong in [
            &["10,25"][..],
            &["10,25", "every"],
            &["10,25", "each", "5s"],
            &["25,10", "every", "5s"],
            &["10,10", "every", "5s"],
            &["0,50", "every", "5s"],
            &["50,101", "every", "5s"],
            &["50,", "every", "5s"],
            &["50,100", "every", "0"],
            &["50,100", "every", "x"],
            &["50,100", "every", "5s", "more"],
        ] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
