//! A check by datagrams as a pure machine: what to do next, and what a datagram means for it.
//!
//! A datagram per `send`, and a datagram that answers per `expect`. What comes twice, or answers
//! another question, is passed over; so many of them are no longer an accident. The network can
//! refuse a datagram (ICMP) at any time, and that ends the check. Who waits for nothing has only
//! that to go by: silence then passes.

use std::borrow::Cow;

use super::answer::{Judgement, dns, judge_datagram, krpc};
use super::script::{at_step, finding, own_failure, place, status_of};
use super::{Finding, Problem};
use crate::config::plan::{Action, CheckStatus, DatagramCheck, Expect, Step};

/// Datagrams that are passed over while one answer is waited for.
const PASSED_OVER_MAX: u32 = 64;

/// What is to be done.
#[derive(Debug)]
pub enum NextDatagram<'a> {
    /// Send it as one datagram; then `sent` or `failed`.
    Send(Cow<'a, [u8]>),
    /// Wait for a datagram; then `received` or `failed`. Half of the time without one, what was
    /// sent since the last one is sent again.
    Receive,
    /// Wait for a moment whether the network refuses what was sent; then `unrefused` or `failed`.
    Listen,
    /// Nothing: this is the result.
    End(Finding),
}

/// What is at hand.
enum Act<'a> {
    Send(Cow<'a, [u8]>),
    Expect(&'a Expect),
    DnsAnswer,
    DhtAnswer,
    Over,
}

/// One run of a check.
#[derive(Debug)]
pub struct DatagramRun<'a> {
    check: &'a DatagramCheck,
    /// What the ids of this run's questions are made from.
    ticket: u16,
    at: usize,
    /// The answer that the last `expect` took: it may come again.
    taken: Option<Vec<u8>>,
    passed_over: u32,
    /// Something was sent that no answer has come to.
    unanswered: bool,
    result: Finding,
    ended: Option<Finding>,
}

impl<'a> DatagramRun<'a> {
    /// A run before its first step. The ticket is another one each time.
    pub fn new(check: &'a DatagramCheck, ticket: u16) -> DatagramRun<'a> {
        DatagramRun {
            check,
            ticket,
            at: 0,
            taken: None,
            passed_over: 0,
            unanswered: false,
            result: finding(CheckStatus::L4Ok, None, String::new()),
            ended: None,
        }
    }

    /// What is to be done now.
    pub fn next_act(&mut self) -> NextDatagram<'a> {
        if let Some(finding) = &self.ended {
            return NextDatagram::End(finding.clone());
        }
        match self.act() {
            Ok(Act::Send(bytes)) => NextDatagram::Send(bytes),
            Ok(Act::Expect(_) | Act::DnsAnswer | Act::DhtAnswer) => NextDatagram::Receive,
            Ok(Act::Over) if self.unanswered => NextDatagram::Listen,
            Ok(Act::Over) => NextDatagram::End(self.result.clone()),
            Err(fault) => NextDatagram::End(fault),
        }
    }

    fn act(&self) -> Result<Act<'a>, Finding> {
        let act = match (self.check, self.at) {
            (DatagramCheck::Probe, 0) => Act::Send(Cow::Borrowed(&[])),
            (DatagramCheck::Steps(_), _) => match self.step().map(|step| &step.action) {
                Some(Action::Send(bytes)) => Act::Send(Cow::Borrowed(bytes)),
                Some(Action::Expect(expect)) => Act::Expect(expect),
                Some(Action::Connect(_)) | None => Act::Over,
            },
            (DatagramCheck::Dns(_), 0) => Act::Send(Cow::Owned(self.query()?)),
            (DatagramCheck::Dns(_), 1) => Act::DnsAnswer,
            (DatagramCheck::Dht, 0) => Act::Send(Cow::Owned(krpc::ping(self.ticket.to_be_bytes()))),
            (DatagramCheck::Dht, 1) => Act::DhtAnswer,
            (DatagramCheck::Probe | DatagramCheck::Dns(_) | DatagramCheck::Dht, _) => Act::Over,
        };
        Ok(act)
    }

    fn query(&self) -> Result<Vec<u8>, Finding> {
        let DatagramCheck::Dns(name) = self.check else {
            return Ok(Vec::new());
        };
        let fault = || format!("'{name}' is no name of DNS");
        dns::query(name, self.ticket)
            .ok_or_else(|| finding(CheckStatus::SocketError, None, fault()))
    }

    /// The datagram of this step is sent.
    pub fn sent(&mut self) {
        self.unanswered = true;
        let text = match self.check {
            DatagramCheck::Steps(_) => "(udp-check)",
            _ => "",
        };
        // Nobody has confirmed anything yet.
        self.result = finding(CheckStatus::L4Ok, None, text.to_owned());
        self.at += 1;
    }

    /// A datagram came. While the network is listened to, that is more than was asked for.
    pub fn received(&mut self, bytes: &[u8]) {
        let judgement = match self.act() {
            Ok(Act::Expect(expect)) => match judge_datagram(&expect.answer, bytes) {
                // The network, or what was sent again, has doubled an answer.
                Judgement::Failed(_) if self.taken.as_deref() == Some(bytes) => Judgement::More,
                judgement => judgement,
            },
            Ok(Act::DnsAnswer) => match self.query() {
                Ok(query) => dns::judge(&query, bytes),
                Err(_) => Judgement::More,
            },
            Ok(Act::DhtAnswer) => krpc::judge(self.ticket.to_be_bytes(), bytes),
            Ok(Act::Over) => return self.unrefused(),
            Ok(Act::Send(_)) | Err(_) => return,
        };
        match judgement {
            Judgement::More => {
                self.passed_over += 1;
                if self.passed_over >= PASSED_OVER_MAX {
                    let text = "too many datagrams that don't answer";
                    self.ended = Some(finding(CheckStatus::L7Response, None, text.to_owned()));
                }
            }
            Judgement::Passed(passed) => {
                self.taken = Some(bytes.to_vec());
                self.passed_over = 0;
                self.unanswered = false;
                let (ok, text) = match self.expected() {
                    None => (CheckStatus::L7Ok, passed.text),
                    Some((_, expect)) => {
                        let usual = || "(udp-check)".to_owned();
                        let text = expect.on_success.clone().unwrap_or_else(usual);
                        (expect.ok, text)
                    }
                };
                self.result = finding(ok, passed.code, text);
                self.at += 1;
            }
            Judgement::Failed(failed) => {
                let (status, text) = match self.expected() {
                    None => (failed.status, failed.text),
                    Some((step, expect)) => {
                        let usual = || at_step(&failed.text, step, false);
                        let text = own_failure(expect, step).unwrap_or_else(usual);
                        (Some(status_of(expect, failed.status)), text)
                    }
                };
                let status = status.unwrap_or(CheckStatus::L7Response);
                self.ended = Some(finding(status, failed.code, text));
            }
        }
    }

    /// The network was listened to for long enough.
    pub fn unrefused(&mut self) {
        self.unanswered = false;
    }

    /// Whether what was sent is worth sending again: nothing has come to it.
    pub fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// What it means that this step could not be carried out.
    pub fn failed(&self, problem: Problem) -> Finding {
        let expected = self.expected();
        let (status, text) = match problem {
            Problem::Failed(text) => (CheckStatus::L4Failed, text),
            Problem::TimedOut if self.passed_over > 0 => {
                let text = "nothing but datagrams that don't answer";
                (CheckStatus::L7Response, text.to_owned())
            }
            Problem::TimedOut => {
                let usual = CheckStatus::L7Timeout;
                let status = expected.map_or(usual, |(_, expect)| expect.timeout);
                (status, String::new())
            }
        };
        let text = match self.step() {
            Some(step) => format!("{text} at {}", place("udp-check", step)),
            None => text,
        };
        finding(status, None, text)
    }

    fn step(&self) -> Option<&'a Step> {
        match self.check {
            DatagramCheck::Steps(steps) => steps.get(self.at),
            DatagramCheck::Probe | DatagramCheck::Dns(_) | DatagramCheck::Dht => None,
        }
    }

    fn expected(&self) -> Option<(&'a Step, &'a Expect)> {
        let step = self.step()?;
        match &step.action {
            Action::Expect(expect) => Some((step, expect)),
            Action::Connect(_) | Action::Send(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
