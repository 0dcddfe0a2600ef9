//! A scripted check as a pure machine: what to do next, and what the bytes so far mean for it.
//!
//! The probe thread carries out what `Run::next_act` says and tells what came of it. Nothing here
//! waits or knows how bytes were split on their way: an answer is judged anew with every piece,
//! until it is decided or `ANSWER_BYTES_MAX` are there.

use std::fmt::Write;

use super::answer::{self, Judgement};
use crate::config::plan::{
    Action, Answer, CheckStatus, ConnectStep, Ending, Expect, Manner, Pattern, Script, Step,
};

/// Most bytes of an answer that are looked at: HAProxy's `tune.bufsize`. Who sends more is judged
/// by these.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What a script found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// In HAProxy's words.
    pub status: CheckStatus,
    /// The server's own code, where its protocol has one.
    pub code: Option<u16>,
    /// What there is to say of it.
    pub text: String,
}

/// What is to be done.
#[derive(Debug)]
pub enum Next<'a> {
    /// Connect; then `connected` or `failed`.
    Connect(&'a ConnectStep),
    /// Send it all; then `sent` or `failed`.
    Send(&'a [u8]),
    /// Receive up to so many bytes; then `received`, `closed` or `failed`.
    Receive(usize),
    /// Nothing: this is the result. A connection that is still there ends so.
    End(Finding, Ending),
}

/// Why something could not be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// It took too long.
    TimedOut,
    /// The connection failed or broke, with the system's words for it.
    Failed(String),
}

/// One run of a script.
#[derive(Debug)]
pub struct Run<'a> {
    script: &'a Script,
    at: usize,
    answer: Vec<u8>,
    closed: bool,
    /// What the last step that was carried out says if nothing comes after it.
    result: Finding,
    ending: Option<Ending>,
}

impl<'a> Run<'a> {
    /// A run before its first step.
    pub fn new(script: &'a Script) -> Run<'a> {
        Run {
            script,
            at: 0,
            answer: Vec::new(),
            closed: false,
            result: Finding {
                status: CheckStatus::L4Ok,
                code: None,
                text: String::new(),
            },
            ending: None,
        }
    }

    /// What is to be done now.
    pub fn next_act(&mut self) -> Next<'a> {
        while let Some(step) = self.script.steps.get(self.at) {
            let expect = match &step.action {
                Action::Connect(connect) => return Next::Connect(connect),
                Action::Send(bytes) => return Next::Send(bytes),
                Action::Expect(expect) => expect,
            };
            if self.closed && self.answer.is_empty() {
                let text = self.told_of("TCPCHK got an empty response", step, true);
                return reset(finding(status_of(expect, None), None, text));
            }
            let room = ANSWER_BYTES_MAX.saturating_sub(self.answer.len());
            let last = self.closed || room == 0;
            match answer::judge(&expect.answer, &self.answer, last) {
                Judgement::More if last => {
                    let text = self.told_of("incomplete answer", step, false);
                    return reset(finding(status_of(expect, None), None, text));
                }
                Judgement::More => return Next::Receive(room),
                Judgement::Failed(failed) => {
                    let text = self.failure(expect, step, failed.text);
                    let status = status_of(expect, failed.status);
                    return reset(finding(status, failed.code, text));
                }
                Judgement::Passed(passed) => {
                    self.answer.drain(..passed.consumed.min(self.answer.len()));
                    let text = match &expect.on_success {
                        Some(text) => text.clone(),
                        None => self.usual(passed.text),
                    };
                    self.result = finding(expect.ok, passed.code, text);
                    self.ending = passed.ending;
                    self.at += 1;
                }
            }
        }
        let ending = self.ending.take();
        let ending = ending.unwrap_or_else(|| self.script.ending.clone());
        Next::End(self.result.clone(), ending)
    }

    /// The connect of this step is made.
    pub fn connected(&mut self) {
        self.answer.clear();
        self.closed = false;
        let written = self.step().is_some_and(|step| step.number > 0);
        let alone = self.script.steps.len() == 1 && !written;
        let text = if alone {
            String::new()
        } else {
            self.usual(String::new())
        };
        self.done(CheckStatus::L4Ok, text);
    }

    /// The bytes of this step are sent.
    pub fn sent(&mut self) {
        // An answer to what was sent before is none to this. The messages of a protocol say
        // themselves where they end.
        if self.script.manner != Manner::Protocol {
            self.answer.clear();
        }
        let text = self.usual(String::new());
        self.done(CheckStatus::L7Ok, text);
    }

    /// So much came.
    pub fn received(&mut self, bytes: &[u8]) {
        let room = ANSWER_BYTES_MAX.saturating_sub(self.answer.len());
        self.answer
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The server has ended the connection.
    pub fn closed(&mut self) {
        self.closed = true;
    }

    /// Whether something has come that this step can be judged by.
    pub fn has_answer(&self) -> bool {
        !self.answer.is_empty()
    }

    /// What it means that this step could not be carried out.
    pub fn failed(&self, problem: Problem) -> Finding {
        let Some(step) = self.step() else {
            return self.result.clone();
        };
        let (timeout, failure) = match &step.action {
            Action::Connect(_) => (CheckStatus::L4Timeout, CheckStatus::L4Failed),
            Action::Send(_) => (CheckStatus::L7Timeout, CheckStatus::SocketError),
            Action::Expect(expect) => (expect.timeout, CheckStatus::SocketError),
        };
        let (status, text) = match problem {
            Problem::TimedOut => (timeout, String::new()),
            Problem::Failed(text) => (failure, text),
        };
        let text = match self.script.manner {
            Manner::Steps => format!("{text} at {}", place("tcp-check", step)),
            Manner::Http | Manner::Protocol => text,
        };
        finding(status, None, text)
    }

    fn step(&self) -> Option<&'a Step> {
        self.script.steps.get(self.at)
    }

    fn done(&mut self, status: CheckStatus, text: String) {
        self.result = finding(status, None, text);
        self.ending = None;
        self.at += 1;
    }

    /// What is said of a success: of a script that has steps of its own, only that it was one.
    fn usual(&self, text: String) -> String {
        match self.script.manner {
            Manner::Steps => "(tcp-check)".to_owned(),
            Manner::Http | Manner::Protocol => text,
        }
    }

    /// A text with the step that it is about.
    fn told_of(&self, text: &str, step: &Step, quoted: bool) -> String {
        match self.script.manner {
            Manner::Steps => at_step(text, step, quoted),
            Manner::Http | Manner::Protocol => text.to_owned(),
        }
    }

    fn failure(&self, expect: &Expect, step: &Step, text: String) -> String {
        let of_own = own_failure(expect, step);
        of_own.unwrap_or_else(|| self.told_of(&text, step, false))
    }
}

/// A text with the step of a script that it is about.
pub(super) fn at_step(text: &str, step: &Step, quoted: bool) -> String {
    let mut text = format!("{text} at step {}", step.number);
    let comment = &step.comment;
    // Writing to a string can't fail.
    let _ = match (comment.is_empty(), quoted) {
        (true, _) => Ok(()),
        (false, true) => write!(text, " comment: '{comment}'"),
        (false, false) => write!(text, " comment: {comment}"),
    };
    text
}

/// What a step says itself of another answer than the one it waits for.
pub(super) fn own_failure(expect: &Expect, step: &Step) -> Option<String> {
    let own = expect.on_error.as_ref()?;
    Some(match step.comment.is_empty() {
        true => own.clone(),
        false => format!("{own} comment: {}", step.comment),
    })
}

/// The status of an answer that isn't wanted: the step's own word, else what the answer is.
pub(super) fn status_of(expect: &Expect, answer: Option<CheckStatus>) -> CheckStatus {
    expect.error.or(answer).unwrap_or(CheckStatus::L7Response)
}

fn reset(finding: Finding) -> Next<'static> {
    Next::End(finding, Ending::Reset)
}

/// A finding; only the statuses that speak of an answer have a code.
pub(super) fn finding(status: CheckStatus, code: Option<u16>, text: String) -> Finding {
    let code = match status {
        CheckStatus::L7Ok | CheckStatus::L7Status => Some(code.unwrap_or(0)),
        _ => None,
    };
    Finding { status, code, text }
}

/// Where a step is and what it does, in HAProxy's words.
pub(super) fn place(keyword: &str, step: &Step) -> String {
    if step.number == 0 {
        return format!("initial connection step of {keyword}");
    }
    let what = match &step.action {
        Action::Connect(connect) => match connect.port {
            Some(port) => format!("connect port {port}"),
            None => "connect".to_owned(),
        },
        Action::Send(_) => "send".to_owned(),
        Action::Expect(expect) => match &expect.answer {
            Answer::Content(content) => match &content.pattern {
                Pattern::Text(text) => format!("expect string '{text}'"),
                Pattern::Binary(bytes) => format!("expect binary '{}'", answer::digits(bytes)),
                Pattern::Regex(_) => "expect regex".to_owned(),
                Pattern::BinaryRegex(_) => "expect binary regex".to_owned(),
            },
            _ => "expect".to_owned(),
        },
    };
    let mut text = format!("step {} of {keyword} ({what})", step.number);
    if !step.comment.is_empty() {
        let _ = write!(text, " comment: '{}'", step.comment);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::Content;

    fn wants(text: &str) -> Action {
        Action::Expect(Expect::of(Answer::Content(Content {
            pattern: Pattern::Text(text.to_owned()),
            negated: false,
            bytes_min: None,
        })))
    }

    fn send(text: &str) -> Action {
        Action::Send(text.as_bytes().to_vec())
    }

    fn connect(port: Option<u16>) -> Action {
        Action::Connect(ConnectStep {
            port,
            ..ConnectStep::default()
        })
    }

    /// A script whose steps have comments where they aren't empty.
    fn script(actions: Vec<(Action, &str)>) -> Script {
        let steps = (1u16..)
            .zip(actions)
            .map(|(number, (action, comment))| Step {
                number,
                action,
                comment: comment.to_owned(),
            });
        Script {
            manner: Manner::Steps,
            steps: steps.collect(),
            ending: Ending::Reset,
        }
    }

    /// What happens on the way, in short; answers come when they are asked for, then the end.
    fn play(script: &Script, answers: &[&str]) -> Vec<String> {
        let (mut run, mut told) = (Run::new(script), Vec::new());
        let mut answers = answers.iter();
        loop {
            match run.next_act() {
                Next::Connect(_) => {
                    told.push("connect".to_owned());
                    run.connected();
                }
                Next::Send(bytes) => {
                    told.push(format!("send {}", bytes.escape_ascii()));
                    run.sent();
                }
                Next::Receive(_) => match answers.next() {
                    Some(answer) => run.received(answer.as_bytes()),
                    None => run.closed(),
                },
                Next::End(finding, _) => {
                    let code = finding
                        .code
                        .map_or(String::new(), |code| format!(" {code}"));
                    told.push(format!("{}{code} {}", finding.status.name(), finding.text));
                    return told;
                }
            }
        }
    }

    fn result(script: &Script, answers: &[&str]) -> String {
        play(script, answers).pop().unwrap_or_default()
    }

    #[test]
    fn steps_follow_each_other() {
        let ping = script(vec![
            (connect(None), ""),
            (send("PING\r\n"), ""),
            (wants("+PONG"), "is it there"),
        ]);
        let told = play(&ping, &["+PO", "NG\r\n"]);
        assert_eq!(told, ["connect", "send PING\\r\\n", "L7OK 0 (tcp-check)"]);
        assert_eq!(
            result(&ping, &["-ERR"]),
            "L7RSP TCPCHK did not match content '+PONG' at step 3 comment: is it there"
        );
        assert_eq!(
            result(&ping, &[]),
            "L7RSP TCPCHK got an empty response at step 3 comment: 'is it there'"
        );
        let two = script(vec![
            (connect(None), ""),
            (wants("foo"), ""),
            (wants("foo bar"), ""),
            (send("x"), ""),
            (wants("foo"), ""),
        ]);
        // What two steps look at is one answer; what is sent begins another.
        assert_eq!(result(&two, &["foo bar", "foo"]), "L7OK 0 (tcp-check)");
        assert!(result(&two, &["foo bar", "bar"]).ends_with("content 'foo' at step 5"));
    }

    #[test]
    fn a_script_that_waits_for_nothing_tells_of_what_it_did_last() {
        let only_connects = script(vec![(connect(None), "")]);
        assert_eq!(result(&only_connects, &[]), "L4OK (tcp-check)");
        let sends = script(vec![(connect(None), ""), (send("QUIT"), "")]);
        assert_eq!(result(&sends, &[]), "L7OK 0 (tcp-check)");
        let mut bare = script(vec![(connect(None), "")]);
        bare.steps[0].number = 0;
        assert_eq!(result(&bare, &[]), "L4OK ");
    }

    #[test]
    fn texts_and_statuses_of_ones_own() {
        let mut expect = Expect {
            ok: CheckStatus::L6Ok,
            error: Some(CheckStatus::L7Status),
            timeout: CheckStatus::L6Timeout,
            on_success: Some("fine".to_owned()),
            on_error: Some("bad".to_owned()),
            ..match wants("foo") {
                Action::Expect(expect) => expect,
                _ => unreachable!(),
            }
        };
        let of = |expect: &Expect, comment| {
            script(vec![
                (connect(None), ""),
                (Action::Expect(expect.clone()), comment),
            ])
        };
        assert_eq!(result(&of(&expect, ""), &["foo"]), "L6OK fine");
        assert_eq!(result(&of(&expect, ""), &["bar"]), "L7STS 0 bad");
        assert_eq!(
            result(&of(&expect, "why"), &["bar"]),
            "L7STS 0 bad comment: why"
        );
        expect.on_error = None;
        let script = of(&expect, "");
        let mut run = Run::new(&script);
        run.connected();
        let late = run.failed(Problem::TimedOut);
        assert_eq!(
            (late.status, late.text.as_str()),
            (
                CheckStatus::L6Timeout,
                " at step 2 of tcp-check (expect string 'foo')"
            )
        );
    }

    #[test]
    fn what_failed_is_told_with_its_place() {
        let mut script = script(vec![
            (connect(None), ""),
            (send("x"), ""),
            (connect(Some(25)), "the other"),
            (wants("foo"), ""),
        ]);
        script.steps[0].number = 0;
        let refused = || Problem::Failed("Connection refused".to_owned());
        let mut run = Run::new(&script);
        let finding = run.failed(refused());
        assert_eq!(finding.status, CheckStatus::L4Failed);
        let text = "Connection refused at initial connection step of tcp-check";
        assert_eq!(finding.text, text);
        run.connected();
        let finding = run.failed(Problem::TimedOut);
        assert_eq!(finding.text, " at step 2 of tcp-check (send)");
        run.sent();
        let text =
            "Connection refused at step 3 of tcp-check (connect port 25) comment: 'the other'";
        assert_eq!(run.failed(refused()).text, text);
        run.connected();
        let broken = run.failed(Problem::Failed("Connection reset by peer".to_owned()));
        assert_eq!(broken.status, CheckStatus::SocketError);
        script.manner = Manner::Protocol;
        assert_eq!(
            Run::new(&script).failed(refused()).text,
            "Connection refused"
        );
    }

    #[test]
    fn who_sends_too_much_is_judged_by_the_beginning() {
        let script = script(vec![(connect(None), ""), (wants("foo"), "")]);
        let mut run = Run::new(&script);
        run.connected();
        let (mut pieces, mut got) = (0, 0);
        loop {
            match run.next_act() {
                Next::Receive(room) => {
                    assert_eq!(room, ANSWER_BYTES_MAX - got);
                    run.received(&[b'x'; 1000]);
                    got = (got + 1000).min(ANSWER_BYTES_MAX);
                    pieces += 1;
                }
                Next::End(finding, _) => {
                    assert_eq!(finding.status, CheckStatus::L7Response);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(pieces, ANSWER_BYTES_MAX.div_ceil(1000));
    }
}
