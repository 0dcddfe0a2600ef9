//! `clear counters`.

use super::command::{Answer, Call, Command, Run};
use crate::config::plan::Level;
use crate::control::clear;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["clear", "counters"], level: Level::Operator, usage: "clear counters [all]",
        help: "clear the maxima of statistics, or all counters", run: Run::Now(clear_counters) },
];

fn clear_counters(call: &mut Call<'_>) -> Answer {
    let all = call.words.first() == Some(&"all");
    if all && call.session.level < Level::Admin {
        return Answer::error("Permission denied");
    }
    clear::maxima(call.shared);
    if all {
        clear::counters(call.shared);
    }
    Answer::Nothing
}
