//! What the sessions of a server may say about its health.

use super::Check;

/// Passive health of a server; by default traffic says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Passive {
    /// `observe layer4`: errors in a row are told to the server's checks.
    pub observe: Option<Observe>,
    /// What takes the server out without a check's word, and how it comes back.
    pub breaker: Option<Breaker>,
}

/// `observe layer4` of a server that is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observe {
    /// `error-limit`, 10 by default: errors in a row after which `on-error` acts, 1 at least.
    pub error_limit: u32,
    /// `on-error`.
    pub on_error: OnError,
}

/// What errors of traffic do to the checks of a server, and so to the server. All of them bring
/// the next check forward to `fastinter`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnError {
    /// `fastinter`: nothing more.
    FastInter,
    /// `fail-check`: they count as one failed check.
    #[default]
    FailCheck,
    /// `sudden-death`: and the next failure takes the server down.
    SuddenDeath,
    /// `mark-down`: the server is down.
    MarkDown,
}

/// A circuit breaker: failed connections take the server out, and a probe of its own address
/// brings it back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Breaker {
    /// `max-fails`: failed connections within `fail_timeout_ms` that open the circuit; 0 = it is
    /// opened by `on-error mark-down` alone.
    pub max_fails: u16,
    /// `fail-timeout`: time in which failures count, and time before each probe of a server that is
    /// out.
    pub fail_timeout_ms: u32,
    /// The probe: a connect to the server's own address, whatever `addr` and `port` say.
    pub probe: Check,
}
