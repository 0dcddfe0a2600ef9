//! The lines about checks and changes of servers, in the words that HAProxy's users search for.

use super::probe::{AgentResult, ProbeResult, status_text};
use crate::config::plan::Check;
use crate::health::Transition;
use crate::lb::Usable;

/// What the lines say of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) backend: &'a str,
    pub(super) server: &'a str,
    pub(super) is_backup: bool,
}

/// What a change of a server meant to sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effect {
    /// Servers that are left.
    pub(super) usable: Usable,
    /// Sessions of the server.
    pub(super) sessions: u32,
    /// Waiting sessions that were given to it, or that no longer wait for it alone.
    pub(super) requeued: usize,
    /// Sessions that wait.
    pub(super) queued: usize,
}

impl Subject<'_> {
    /// How lines about it begin.
    fn named(self) -> String {
        let kind = if self.is_backup { "Backup " } else { "" };
        format!("{kind}Server {}/{}", self.backend, self.server)
    }
}

impl Effect {
    fn counts(self) -> String {
        let Usable { active, backup } = self.usable;
        format!("{active} active and {backup} backup servers")
    }

    fn on_backup(self) -> &'static str {
        if self.usable.on_backup() {
            " Running on backup."
        } else {
            ""
        }
    }

    /// What a server that is gone leaves.
    fn left(self) -> String {
        let (counts, on_backup) = (self.counts(), self.on_backup());
        let Effect {
            sessions,
            requeued,
            queued,
            ..
        } = self;
        format!(
            "{counts} left.{on_backup} {sessions} sessions active, {requeued} requeued, {queued} \
             remaining in queue."
        )
    }

    /// What there is beside a server that is there.
    fn online(self) -> String {
        let (counts, on_backup) = (self.counts(), self.on_backup());
        let Effect {
            requeued, queued, ..
        } = self;
        format!(
            "{counts} online.{on_backup} {requeued} sessions requeued, {queued} total in queue."
        )
    }
}

/// A server came up or went down. The reason begins with a comma, or with ` via `, or is empty
/// where another line has said it.
pub(super) fn transition(
    subject: Subject<'_>,
    to: Transition,
    reason: &str,
    effect: Effect,
) -> String {
    let named = subject.named();
    match to {
        Transition::Down => format!("{named} is DOWN{reason}. {}", effect.left()),
        Transition::Up => format!("{named} is UP{reason}. {}", effect.online()),
    }
}

/// A server gets no new connections until it is well; `reason` as above.
pub(super) fn stopping(subject: Subject<'_>, reason: &str, effect: Effect) -> String {
    format!(
        "{} is stopping{reason}. {}",
        subject.named(),
        effect.online()
    )
}

/// A server that is up goes into maintenance; `via` is empty or ` via ` and a server.
pub(super) fn maintenance(subject: Subject<'_>, via: &str, effect: Effect) -> String {
    let (named, left) = (subject.named(), effect.left());
    format!("{named} is going DOWN for maintenance{via}. {left}")
}

/// The same for one that is down.
pub(super) fn was_down_now_maintenance(subject: Subject<'_>, via: &str) -> String {
    let named = subject.named();
    format!("{named} was DOWN and now enters maintenance{via}.")
}

/// A server leaves maintenance, that of its own (`forced`) or of the server that it tracks.
pub(super) fn left_maintenance(
    subject: Subject<'_>,
    is_up: bool,
    drains: bool,
    forced: bool,
) -> String {
    let (named, state) = (subject.named(), up_or_down(is_up));
    let admin = if drains { "DRAIN" } else { "READY" };
    let forced = if forced { "forced " } else { "" };
    format!("{named} is {state}/{admin} (leaving {forced}maintenance).")
}

/// A server stays in maintenance although the one that it tracks has left it.
pub(super) fn still_maintenance(subject: Subject<'_>) -> String {
    format!("{} remains in forced maintenance.", subject.named())
}

/// A server takes no new connections from now on.
pub(super) fn drain(subject: Subject<'_>, via: &str, effect: Effect) -> String {
    let (named, online) = (subject.named(), effect.online());
    format!("{named} enters drain state{via}. {online}")
}

/// A server is no longer in drain.
pub(super) fn left_drain(subject: Subject<'_>, is_up: bool) -> String {
    let (named, state) = (subject.named(), up_or_down(is_up));
    format!("{named} is {state} (leaving forced drain).")
}

/// A server stays in drain, by its own state or because of the one that it tracks.
pub(super) fn still_drain(subject: Subject<'_>, via: Option<&str>) -> String {
    let named = subject.named();
    match via {
        None => format!("{named} remains in forced drain mode."),
        Some(via) => {
            format!("{named} is leaving forced drain but remains in drain mode via {via}.")
        }
    }
}

fn up_or_down(is_up: bool) -> &'static str {
    if is_up { "UP" } else { "DOWN" }
}

/// What an agent has said or not (`option log-health-checks`).
pub(super) fn agent(subject: Subject<'_>, result: &AgentResult, is_up: bool) -> String {
    let Subject {
        backend, server, ..
    } = subject;
    let kind = if subject.is_backup { "backup " } else { "" };
    let outcome = if result.status == "L7OK" {
        "succeeded"
    } else {
        "failed"
    };
    let reason = agent_reason(result);
    let (position, state) = (u8::from(is_up), up_or_down(is_up));
    format!(
        "Agent check for {kind}server {backend}/{server} {outcome}{reason}, status: {position}/1 \
         {state}."
    )
}

/// `, reason: ..., check duration: ...ms` of an agent; its own words have the code 0.
pub(super) fn agent_reason(result: &AgentResult) -> String {
    let code = match result.status {
        "L7OK" | "L7STS" => ", code: 0",
        _ => "",
    };
    let info = match result.description.as_str() {
        "" => String::new(),
        text => format!(", info: \"{text}\""),
    };
    let (reason, duration) = (status_text(result.status), result.duration_ms);
    format!(", reason: {reason}{code}{info}, check duration: {duration}ms")
}

/// A check that changed something (`option log-health-checks`).
pub(super) fn check(
    subject: Subject<'_>,
    result: &ProbeResult,
    check: &Check,
    weight: u32,
) -> String {
    let Subject {
        backend, server, ..
    } = subject;
    let kind = if subject.is_backup { "backup " } else { "" };
    let outcome = if result.passed() {
        "succeeded"
    } else {
        "failed"
    };
    let reason = reason(result);
    let (rise, fall) = (check.rise.max(1), check.fall.max(1));
    let (position, of, state) = match result.rules.health().checked_sub(rise) {
        Some(above) if weight > 0 => (above + 1, fall, "UP"),
        Some(above) => (above + 1, fall, "DRAIN"),
        None => (result.rules.health(), rise, "DOWN"),
    };
    format!(
        "Health check for {kind}server {backend}/{server} {outcome}{reason}, status: \
         {position}/{of} {state}."
    )
}

/// `, reason: ..., check duration: ...ms`
pub(super) fn reason(result: &ProbeResult) -> String {
    // What traffic has shown took no time.
    let duration_ms = (result.status != "HANA").then_some(result.duration_ms);
    reason_of(result.status, result.code, &result.description, duration_ms)
}

/// The same of a status, its code, its text and its duration.
pub(super) fn reason_of(
    status: &str,
    code: Option<u16>,
    text: &str,
    duration_ms: Option<u64>,
) -> String {
    let mut reason = format!(", reason: {}", status_text(status));
    if let Some(code) = code {
        reason.push_str(&format!(", code: {code}"));
    }
    if !text.is_empty() {
        reason.push_str(&format!(", info: \"{}\"", plain(text)));
    }
    if let Some(ms) = duration_ms {
        reason.push_str(&format!(", check duration: {ms}ms"));
    }
    reason
}

/// A text between quotes, in one line: what a server says may hold anything.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '"' || c.is_control() {
            plain.push_str(&format!("<{:02X}>", u32::from(c)));
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::address::Address;
    use crate::base::ids::ServerId;
    use crate::health::Rules;

    fn subject(is_backup: bool) -> Subject<'static> {
        Subject {
            backend: "bk",
            server: "s1",
            is_backup,
        }
    }

    fn refused(health: u16) -> ProbeResult {
        ProbeResult {
            server: ServerId(0),
            status: "L4CON",
            code: None,
            duration_ms: 0,
            description: "Connection refused".to_owned(),
            counted_failure: true,
            rules: Rules::new(2, 9).at(health),
            restarts: 0,
        }
    }

    fn connected(health: u16) -> ProbeResult {
        ProbeResult {
            status: "L4OK",
            description: String::new(),
            ..refused(health)
        }
    }

    fn effect(active: usize, backup: usize) -> Effect {
        Effect {
            usable: Usable { active, backup },
            sessions: 4,
            requeued: 2,
            queued: 3,
        }
    }

    #[test]
    fn a_change_of_a_server() {
        let down = |subject, said: bool, effect| {
            let reason = if said {
                String::new()
            } else {
                reason(&refused(0))
            };
            transition(subject, Transition::Down, &reason, effect)
        };
        assert_eq!(
            down(subject(false), false, effect(1, 0)),
            "Server bk/s1 is DOWN, reason: Layer4 connection problem, info: \"Connection \
             refused\", check duration: 0ms. 1 active and 0 backup servers left. 4 sessions \
             active, 2 requeued, 3 remaining in queue."
        );
        assert_eq!(
            down(subject(false), true, effect(0, 2)),
            "Server bk/s1 is DOWN. 0 active and 2 backup servers left. Running on backup. 4 \
             sessions active, 2 requeued, 3 remaining in queue."
        );
        assert_eq!(
            down(subject(true), true, effect(0, 0)),
            "Backup Server bk/s1 is DOWN. 0 active and 0 backup servers left. 4 sessions active, \
             2 requeued, 3 remaining in queue."
        );
        let up =
            |subject, effect| transition(subject, Transition::Up, &reason(&connected(4)), effect);
        assert_eq!(
            up(subject(false), effect(2, 0)),
            "Server bk/s1 is UP, reason: Layer4 check passed, check duration: 0ms. 2 active and \
             0 backup servers online. 2 sessions requeued, 3 total in queue."
        );
        assert_eq!(
            up(subject(true), effect(0, 1)),
            "Backup Server bk/s1 is UP, reason: Layer4 check passed, check duration: 0ms. 0 \
             active and 1 backup servers online. Running on backup. 2 sessions requeued, 3 total \
             in queue."
        );
    }

    #[test]
    fn a_reason_has_the_servers_code_and_words() {
        let said = ProbeResult {
            status: "L7STS",
            code: Some(503),
            description: "Service \"x\"\tdown".to_owned(),
            duration_ms: 2,
            ..refused(0)
        };
        assert_eq!(
            reason(&said),
            ", reason: Layer7 wrong status, code: 503, info: \"Service <22>x<22><09>down\", check \
             duration: 2ms"
        );
    }

    #[test]
    fn a_check() {
        let plan = Check::of(Address::Ip("127.0.0.1:1".parse().unwrap()));
        let line = |backup, result, weight| check(subject(backup), &result, &plan, weight);
        assert_eq!(
            line(false, connected(4), 1),
            "Health check for server bk/s1 succeeded, reason: Layer4 check passed, check \
             duration: 0ms, status: 3/3 UP."
        );
        assert_eq!(
            line(true, refused(3), 1),
            "Health check for backup server bk/s1 failed, reason: Layer4 connection problem, \
             info: \"Connection refused\", check duration: 0ms, status: 2/3 UP."
        );
        assert!(line(false, refused(0), 1).ends_with(", status: 0/2 DOWN."));
        assert!(line(false, connected(1), 1).ends_with(", status: 1/2 DOWN."));
        assert!(line(false, connected(4), 0).ends_with(", status: 3/3 DRAIN."));
    }

    #[test]
    fn operators_and_tracked_servers() {
        let server = subject(false);
        assert_eq!(
            transition(server, Transition::Down, " via chk/a", effect(1, 0)),
            "Server bk/s1 is DOWN via chk/a. 1 active and 0 backup servers left. 4 sessions \
             active, 2 requeued, 3 remaining in queue."
        );
        assert_eq!(
            maintenance(server, " via chk/a", effect(0, 1)),
            "Server bk/s1 is going DOWN for maintenance via chk/a. 0 active and 1 backup servers \
             left. Running on backup. 4 sessions active, 2 requeued, 3 remaining in queue."
        );
        assert_eq!(
            was_down_now_maintenance(subject(true), ""),
            "Backup Server bk/s1 was DOWN and now enters maintenance."
        );
        assert_eq!(
            left_maintenance(server, true, false, true),
            "Server bk/s1 is UP/READY (leaving forced maintenance)."
        );
        assert_eq!(
            left_maintenance(server, false, true, false),
            "Server bk/s1 is DOWN/DRAIN (leaving maintenance)."
        );
        assert_eq!(
            drain(server, "", effect(1, 0)),
            "Server bk/s1 enters drain state. 1 active and 0 backup servers online. 2 sessions \
             requeued, 3 total in queue."
        );
        assert_eq!(
            left_drain(server, true),
            "Server bk/s1 is UP (leaving forced drain)."
        );
        assert_eq!(
            still_drain(server, Some("chk/a")),
            "Server bk/s1 is leaving forced drain but remains in drain mode via chk/a."
        );
        assert!(still_drain(server, None).ends_with(" remains in forced drain mode."));
        assert!(still_maintenance(server).ends_with(" remains in forced maintenance."));
    }

    #[test]
    fn an_agent() {
        let result = |status, description: &str| AgentResult {
            server: ServerId(0),
            status,
            duration_ms: 1,
            description: description.to_owned(),
            answer: None,
        };
        let down = result("L7STS", "via agent : down (why)");
        assert_eq!(
            agent(subject(false), &down, false),
            "Agent check for server bk/s1 failed, reason: Layer7 wrong status, code: 0, info: \
             \"via agent : down (why)\", check duration: 1ms, status: 0/1 DOWN."
        );
        let refused = result("L4CON", "Connection refused");
        assert_eq!(
            agent(subject(true), &refused, true),
            "Agent check for backup server bk/s1 failed, reason: Layer4 connection problem, info: \
             \"Connection refused\", check duration: 1ms, status: 1/1 UP."
        );
    }
}
