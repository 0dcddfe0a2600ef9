//! The lines about checks and changes of servers, in the words that HAProxy's users search for.

use super::probe::ProbeResult;
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

/// A server came up or went down. The reason begins with a comma, or is empty where another line
/// has said it.
pub(super) fn transition(
    subject: Subject<'_>,
    to: Transition,
    reason: &str,
    effect: Effect,
) -> String {
    let Subject {
        backend, server, ..
    } = subject;
    let kind = if subject.is_backup { "Backup " } else { "" };
    let Effect {
        usable,
        sessions,
        requeued,
        queued,
    } = effect;
    let on_backup = if usable.on_backup() {
        " Running on backup."
    } else {
        ""
    };
    let counts = format!(
        "{} active and {} backup servers",
        usable.active, usable.backup
    );
    if to == Transition::Down {
        format!(
            "{kind}Server {backend}/{server} is DOWN{reason}. {counts} left.{on_backup} {sessions} \
             sessions active, {requeued} requeued, {queued} remaining in queue."
        )
    } else {
        format!(
            "{kind}Server {backend}/{server} is UP{reason}. {counts} online.{on_backup} {requeued} \
             sessions requeued, {queued} total in queue."
        )
    }
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
    let (position, of, state) = match result.health.checked_sub(rise) {
        Some(above) if weight > 0 => (above + 1, fall, "UP"),
        Some(above) => (above + 1, fall, "DRAIN"),
        None => (result.health, rise, "DOWN"),
    };
    format!(
        "Health check for {kind}server {backend}/{server} {outcome}{reason}, status: \
         {position}/{of} {state}."
    )
}

/// `, reason: ..., check duration: ...ms`
pub(super) fn reason(result: &ProbeResult) -> String {
    let code = match result.code {
        None => String::new(),
        Some(code) => format!(", code: {code}"),
    };
    let info = match result.description.as_str() {
        "" => String::new(),
        text => format!(", info: \"{}\"", plain(text)),
    };
    let (reason, duration) = (result.reason(), result.duration_ms);
    format!(", reason: {reason}{code}{info}, check duration: {duration}ms")
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
    use crate::base::ids::ProxyId;

    fn subject(is_backup: bool) -> Subject<'static> {
        Subject {
            backend: "bk",
            server: "s1",
            is_backup,
        }
    }

    fn refused(health: u16) -> ProbeResult {
        ProbeResult {
            proxy: ProxyId(0),
            server_index: 0,
            status: "L4CON",
            code: None,
            duration_ms: 0,
            description: "Connection refused".to_owned(),
            counted_failure: true,
            health,
            transition: None,
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
}
