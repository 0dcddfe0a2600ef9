//! The words behind `tidegate ctl`, by clap, and the exit codes that they end with.

use clap::{Args, Subcommand};
use std::time::Duration;

use crate::base::duration;

/// Where the runtime socket is unless it is told: what the configurations in `conf/` have.
pub(super) const DEFAULT_SOCKET: &str = "/run/tidegate.sock";

/// The variable that names another one.
pub(super) const SOCKET_VARIABLE: &str = "TIDEGATE_SOCKET";

/// What a monitoring plugin would end with, and what each command means by it is in the help.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// All is well, or done.
    Ok = 0,
    /// A server is down, a frontend takes no connection.
    Warning = 1,
    /// A backend has no server.
    Critical = 2,
    /// It can't be told: no connection, an answer that makes no sense, a word that is wrong.
    Unknown = 3,
}

impl Verdict {
    /// As monitoring plugins write it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "OK",
            Verdict::Warning => "WARNING",
            Verdict::Critical => "CRITICAL",
            Verdict::Unknown => "UNKNOWN",
        }
    }

    /// As an exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// `tidegate ctl`: a running balancer, asked and told by its runtime socket.
#[derive(Clone, PartialEq, Debug, Args)]
#[command(
    after_help = "Exit status: 0 all well, or done; 1 a server is down, or a frontend takes no \
connections; 2 a backend has no server; 3 unknown: no connection, refused, wrong usage.\nWorks with \
HAProxy too, where it has the command."
)]
pub struct Options {
    /// The runtime socket: a path, abns@NAME or HOST:PORT. Else $TIDEGATE_SOCKET, else
    /// /run/tidegate.sock.
    #[arg(long, value_name = "ADDRESS", global = true)]
    pub socket: Option<String>,
    /// Prints JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for the socket, such as 5s.
    #[arg(long, value_name = "TIME", global = true, default_value = "5s", value_parser = duration::bounded)]
    pub timeout: Duration,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// A command of `ctl`.
#[derive(Clone, PartialEq, Debug, Subcommand)]
pub enum Action {
    /// Says whether all servers are up, with a line each
    Check,
    /// The same with all that is known of process, frontends and servers
    Detailed,
    /// How the load is distributed over the servers of each backend
    Load(Load),
    /// Checks every so many seconds and says what has changed
    Monitor(Monitor),
    /// Gives a server no new connections; open ones go on
    Drain(Leave),
    /// Gives a server connections again
    Ready(Named),
    /// Takes a server out for maintenance: no connections, no checks
    Maint(Leave),
    /// Sets the weight of a server
    Weight(Weight),
    /// Gives a server its weight back in steps
    Ramp(Ramp),
    /// Lists the open sessions
    Sessions(Listing),
    /// Lists the flows of datagrams
    Flows(Listing),
    /// Has the configuration read again, in the running process
    Reload,
    /// A live screen of all of it
    Top(Top),
    /// Sends a command as it is and prints the answer
    Run(Run),
}

/// `ctl load`
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Load {
    /// Counts the sessions of this time from now on, such as 10s, not those since the start.
    #[arg(long, value_name = "TIME", value_parser = duration::bounded)]
    pub over: Option<Duration>,
}

/// `ctl monitor`
#[derive(Clone, PartialEq, Debug, Args)]
#[command(
    after_help = "Until interrupted; the exit status is that of the last look, as with check."
)]
pub struct Monitor {
    /// Seconds between two looks.
    #[arg(value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Ends after so many looks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

/// A server.
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Named {
    /// BACKEND/SERVER, or the server's name where only one backend has it.
    #[arg(value_name = "SERVER")]
    pub server: String,
}

/// `ctl drain`, `ctl maint`
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Leave {
    /// BACKEND/SERVER, or the server's name where only one backend has it.
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// Waits until its last session has ended, so long at most; after that the exit status is 1.
    #[arg(long, value_name = "TIME", value_parser = duration::bounded)]
    pub wait: Option<Duration>,
}

/// `ctl weight`
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Weight {
    /// BACKEND/SERVER, or the server's name where only one backend has it.
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// 0 to 256, or a part of the configured weight such as 50%.
    #[arg(value_name = "WEIGHT", value_parser = weight)]
    pub weight: String,
}

/// `ctl ramp`
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Ramp {
    /// BACKEND/SERVER, or the server's name where only one backend has it.
    #[arg(value_name = "SERVER")]
    pub server: String,
    /// Parts of its weight in percent, rising to 100.
    #[arg(long, value_name = "LIST", default_value = "10,25,50,75,100", value_parser = steps)]
    pub steps: String,
    /// How long each step lasts.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::bounded)]
    pub every: Duration,
    /// Ends the steps: the server has its whole weight at once.
    #[arg(long, conflicts_with_all = ["steps", "every"])]
    pub cancel: bool,
}

/// `ctl sessions`, `ctl flows`
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Listing {
    /// Only those of this frontend.
    #[arg(long, value_name = "NAME")]
    pub frontend: Option<String>,
    /// Only those of this backend.
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Only those of this server: BACKEND/SERVER, or its name.
    #[arg(long, value_name = "SERVER")]
    pub server: Option<String>,
    /// So many lines at most; what is left out is counted.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
}

/// `ctl top`
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Top {
    /// Time between two looks.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
}

/// `ctl run`
#[derive(Clone, PartialEq, Debug, Args)]
pub struct Run {
    /// The command; several words may be several arguments.
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// The screen is drawn ten times a second at most.
fn interval(text: &str) -> Result<Duration, String> {
    match duration::bounded(text)? {
        time if time < Duration::from_millis(100) => Err("100ms is the least".to_owned()),
        time => Ok(time),
    }
}

fn weight(text: &str) -> Result<String, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse::<u32>() {
        Ok(number) if text.ends_with('%') || number <= 256 => Ok(text.to_owned()),
        _ => Err("a weight is 0 to 256, or a part of the configured one such as 50%".to_owned()),
    }
}

fn steps(text: &str) -> Result<String, String> {
    let parsed: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
    match parsed {
        Ok(steps)
            if steps.is_sorted_by(|a, b| a < b) && steps.last() == Some(&100) && steps[0] > 0 =>
        {
            Ok(text.to_owned())
        }
        _ => Err("steps are percentages that rise to 100, such as 10,50,100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_is_not_drawn_too_often() {
        assert!(interval("99ms").is_err() && interval("100ms").is_ok());
    }

    #[test]
    fn weights_and_steps_are_looked_at_before_they_are_sent() {
        assert!(weight("0").is_ok() && weight("256").is_ok() && weight("300%").is_ok());
        assert!(weight("257").is_err() && weight("x").is_err() && weight("1 ; quit").is_err());
        assert!(steps("100").is_ok() && steps("10,50,100").is_ok());
        for wrong in [
            "",
            "50",
            "0,100",
            "50,10,100",
            "50,50,100",
            "10,x,100",
            "10,101,100",
        ] {
            assert!(steps(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn verdicts_are_ordered_by_what_they_mean() {
        assert!(Verdict::Ok < Verdict::Warning && Verdict::Warning < Verdict::Critical);
        assert_eq!(Verdict::Unknown.code(), 3);
    }
}
