//! The commands that show something of the process.

use super::command::{Answer, Call, Command, Run};
use super::{activity, info, listening, stat};
use crate::config::plan::Level;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "activity"], level: Level::Operator, usage: "show activity",
        help: "what the shards and the process hold and do",
        run: Run::Now(|call| Answer::Text(activity::show(call.shared))) },
    Command { words: &["show", "info"], level: Level::User, usage: "show info",
        help: "report information about the running process",
        run: Run::Now(|call| Answer::Text(info::show(call.shared, call.words))) },
    Command { words: &["show", "listeners"], level: Level::Operator, usage: "show listeners",
        help: "list the listening sockets with their queues and drops",
        run: Run::Now(|call| Answer::Text(listening::show(call.shared))) },
    Command { words: &["show", "proc"], level: Level::User, usage: "show proc",
        help: "list the processes: this one, in the roles of HAProxy's master and worker",
        run: Run::Now(|call| Answer::Text(info::processes(call.shared))) },
    Command { words: &["show", "stat"], level: Level::User, usage: "show stat [no-maint|up]*",
        help: "report counters for each proxy and server",
        run: Run::Now(show_stat) },
    Command { words: &["show", "version"], level: Level::User, usage: "show version",
        help: "report the version of this program",
        run: Run::Now(|_| Answer::info(env!("CARGO_PKG_VERSION"))) },
];

fn show_stat(call: &mut Call<'_>) -> Answer {
    Answer::Text(stat::show(call.shared, call.session.level, call.words))
}
