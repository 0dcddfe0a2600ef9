//! Before a session: the PROXY header that a listener or a rule asks for.
//!
//! The header is looked at where it is, in the socket's own buffer, and taken off it only when it
//! is whole: so the session that follows begins with the client's first byte and nothing else has
//! to know of it. What is missing is waited for by a poll that tells of every arrival; the bytes
//! that are there already must not make it fire again and again. Meanwhile the connection counts
//! in all limits, and in no statistics of sessions.

use std::sync::atomic::Ordering::Relaxed;

use super::record::Refusal;
use super::refusals::LastRefusal;
use super::session::{Session, State};
use super::{Frontend, Shard};
use crate::flow::proxy_protocol::Header;
use crate::flow::proxy_protocol::parse::{Fault, Parsed, parse};
use crate::flow::{Cause, Close, Phase, Side, Who};
use crate::limits;
use crate::ring::{Completion, Errno, Fd, Interest, Kernel, Op, Token};

/// Bytes of the first look: most headers have less, and what follows them need not be copied.
const FIRST_LOOK: usize = 256;

/// What a look at the socket finds.
enum Look {
    Header(Header),
    /// A part of one, perhaps of no bytes.
    Part(usize),
    Refused(Refusal),
}

impl<K: Kernel> Shard<K> {
    /// Whether a client has to send a header. Rules ask for its own address, which is then noted.
    pub(super) fn header_is_due(&self, acceptor: usize, session: &mut Session) -> bool {
        let front = session.frontend.proxy.front.as_ref().expect("a frontend");
        if self.acceptors[acceptor].accepts_proxy {
            return true;
        }
        if front.expect_proxy.is_empty() {
            return false;
        }
        if front.expect_proxy.iter().any(|rule| rule.asks()) {
            session.client = self.kernel.peer_address(session.fd(Side::Client));
        }
        let ip = session.client.map(|address| address.ip());
        front.expect_proxy.iter().any(|rule| rule.holds(ip))
    }

    /// Begins the wait for a header, which ends at once if it is there.
    pub(super) fn await_header(&mut self, slot: u32) {
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        let wait_ms = wait_ms(&session.frontend);
        if !session.frontend.proxy.logs.is_empty() && session.client.is_none() {
            // While it can be asked for: after a reset a socket has forgotten it.
            session.client = self.kernel.peer_address(session.fd(Side::Client));
        }
        session.state = State::Prelude {
            deadline: now.after_ms(wait_ms),
        };
        self.look_for_header(slot, false);
        if self.waits_for_header(slot) {
            self.watch_for_header(slot);
            self.retime(slot);
        }
    }

    fn waits_for_header(&self, slot: u32) -> bool {
        let session = self.sessions.at(slot);
        session.is_some_and(|session| matches!(session.state, State::Prelude { .. }))
    }

    fn watch_for_header(&mut self, slot: u32) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        session.prelude_polled = true;
        session.in_kernel += 1;
        let token = Token::session(Op::Prelude, session.key);
        let fd = session.fd(Side::Client);
        self.kernel.poll(fd, Interest::Read, true, token);
    }

    /// Something has arrived, or the poll has ended.
    pub(super) fn on_prelude(&mut self, slot: u32, completion: Completion) {
        let session = self.sessions.at_mut(slot).expect("a live session");
        if !completion.more {
            session.prelude_polled = false;
            session.in_kernel -= 1;
        }
        match session.state {
            State::Closing => self.finish_if_quiet(slot),
            State::Prelude { .. } => {
                let readiness = self.kernel.readiness(completion.result);
                let ended = readiness.ended || readiness.failed || readiness.hung_up;
                self.look_for_header(slot, ended);
                if !completion.more && self.waits_for_header(slot) {
                    self.watch_for_header(slot);
                }
            }
            // The last word of a poll that the header has made superfluous.
            State::Waiting { .. }
            | State::Connecting { .. }
            | State::ConnectEnding { .. }
            | State::Resting { .. }
            | State::Relaying
            | State::Flushing { .. } => {}
        }
    }

    /// The wait is over. What came at the last moment counts.
    pub(super) fn header_timed_out(&mut self, slot: u32) {
        match self.look(slot, false) {
            Look::Header(header) => self.header_found(slot, header),
            Look::Refused(refusal) => self.refuse_header(slot, refusal),
            Look::Part(length) => {
                let began = length > 0;
                self.refuse_header(slot, Refusal::TimedOut { began });
            }
        }
    }

    /// Looks whether the header is there; `ended` = nothing more will come.
    fn look_for_header(&mut self, slot: u32, ended: bool) {
        match self.look(slot, ended) {
            Look::Header(header) => self.header_found(slot, header),
            Look::Refused(refusal) => self.refuse_header(slot, refusal),
            Look::Part(_) => {}
        }
    }

    fn look(&mut self, slot: u32, ended: bool) -> Look {
        let session = self.sessions.at(slot).expect("a live session");
        let fd = session.fd(Side::Client);
        let mut length = FIRST_LOOK;
        loop {
            let buffer = &mut self.header_bytes[..length];
            let seen = match self.kernel.peek(fd, buffer) {
                Ok(0) => return Look::Refused(Refusal::Closed),
                Ok(seen) => seen,
                Err(Errno(libc::EAGAIN | libc::EINTR)) if !ended => return Look::Part(0),
                Err(_) => return Look::Refused(Refusal::Broken),
            };
            match parse(&buffer[..seen], limits::PROXY_HEADER_MAX) {
                Parsed::Header(header, length) => {
                    return match self.take_header(fd, length) {
                        true => Look::Header(header),
                        false => Look::Refused(Refusal::Broken),
                    };
                }
                Parsed::More if seen == length && length < self.header_bytes.len() => {
                    length = self.header_bytes.len();
                }
                Parsed::More if ended => return Look::Refused(Refusal::CutOff),
                Parsed::More => return Look::Part(seen),
                Parsed::Fault(fault) => {
                    return Look::Refused(match fault {
                        Fault::NotProxy => Refusal::NotProxy,
                        Fault::Invalid => Refusal::Invalid,
                        Fault::Protocol => Refusal::Protocol,
                    });
                }
            }
        }
    }

    /// Takes a header off the socket: all of it, or the connection is useless.
    fn take_header(&mut self, fd: Fd, length: usize) -> bool {
        let mut taken = 0;
        while taken < length {
            // Urgent data, which nobody sends, would be in the way.
            match self.kernel.take(fd, &mut self.header_bytes[taken..length]) {
                Ok(0) | Err(_) => return false,
                Ok(count) => taken += count,
            }
        }
        true
    }

    /// The session begins, with the addresses that the header says.
    fn header_found(&mut self, slot: u32, header: Header) {
        let now = self.now;
        let session = self.sessions.at_mut(slot).expect("a live session");
        if let Some((source, destination)) = header.addresses {
            session.client = Some(source);
            session.local = Some(destination);
        }
        session.tlvs = header.tlvs;
        let waited_ms = now.ms_since(session.accepted_at);
        session.prelude_ms = u32::try_from(waited_ms).unwrap_or(u32::MAX);
        session.active_at = [now; 2];
        session.written_at = [now; 2];
        if session.prelude_polled {
            let token = Token::session(Op::Prelude, session.key);
            self.kernel.cancel(token);
        }
        self.begin(slot);
    }

    fn refuse_header(&mut self, slot: u32, refusal: Refusal) {
        let gauges = self.gauges();
        let gauge = match refusal {
            Refusal::NotProxy | Refusal::Invalid | Refusal::Protocol => {
                &gauges.proxy_headers_malformed
            }
            Refusal::TimedOut { .. } => &gauges.proxy_headers_timed_out,
            Refusal::CutOff | Refusal::Closed | Refusal::Broken => &gauges.proxy_headers_closed,
        };
        gauge.fetch_add(1, Relaxed);
        self.note_refusal(slot, refusal);
        self.log_refusal(slot, refusal);
        let cause = match refusal {
            Refusal::TimedOut { .. } => Cause::TimedOut,
            _ => Cause::Aborted,
        };
        let (who, phase) = (Who::Client, Phase::Request);
        self.begin_close(slot, Close { who, phase, cause });
    }
}

impl<K: Kernel> Shard<K> {
    /// Keeps it for `show errors`, if the client has sent something.
    fn note_refusal(&mut self, slot: u32, why: Refusal) {
        if !why.has_bytes() {
            return;
        }
        self.note_addresses(slot);
        let unix_ms = self.unix_ms();
        let session = self.sessions.at(slot).expect("a live session");
        let listener_id = self.acceptors[usize::from(session.acceptor)].listener_id;
        session.frontend.refusals.note(LastRefusal {
            unix_ms,
            listener_id,
            client: session.client,
            why,
        });
    }
}

/// How long a header is waited for.
fn wait_ms(frontend: &Frontend) -> u64 {
    let front = frontend.proxy.front.as_ref().expect("a frontend");
    let set = [front.timeout_client_hs_ms, front.timeout_client_ms];
    let first = set.into_iter().find(|ms| *ms > 0);
    first.map_or(limits::PROXY_HEADER_WAIT_MS, u64::from)
}
