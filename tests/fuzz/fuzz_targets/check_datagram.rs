//! Any datagrams as a server's answers to a check by datagrams: no panic, an end after a bounded
//! number of them, and none passes that has not what the check asks for.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tidegate::config::plan::{
    Action, Answer, Content, DatagramCheck, Expect, Pattern, RegularExpression, Step,
};
use tidegate::health::{DatagramRun, Finding, NextDatagram, Problem};

/// Datagrams that one run looks at, at the most: of each `expect` it passes over 63.
const LOOKED_AT_MAX: usize = 2 * 64;

fn steps() -> DatagramCheck {
    let expect = |pattern| {
        Action::Expect(Expect::of(Answer::Content(Content {
            pattern,
            negated: false,
            bytes_min: None,
        })))
    };
    let regex = RegularExpression::new("^a+[^b]$").expect("an expression");
    let actions = [
        Action::Send(b"first".to_vec()),
        expect(Pattern::Text("ab".to_owned())),
        Action::Send(b"second".to_vec()),
        expect(Pattern::Regex(regex)),
    ];
    let step = |(number, action)| Step {
        number,
        action,
        comment: String::new(),
    };
    DatagramCheck::Steps(Arc::from_iter((1..).zip(actions).map(step)))
}

/// What a run finds that hears these, and how many of them it looked at.
fn play(check: &DatagramCheck, ticket: u16, datagrams: &[Vec<u8>]) -> (Finding, usize) {
    let mut run = DatagramRun::new(check, ticket);
    let mut heard = datagrams.iter();
    loop {
        match run.next_act() {
            NextDatagram::Send(_) => run.sent(),
            NextDatagram::Listen => run.unrefused(),
            NextDatagram::Receive => match heard.next() {
                Some(bytes) => run.received(bytes),
                None => return (run.failed(Problem::TimedOut), datagrams.len()),
            },
            NextDatagram::End(finding) => return (finding, datagrams.len() - heard.len()),
        }
    }
}

fuzz_target!(|input: (u8, u16, Vec<Vec<u8>>)| {
    let (kind, ticket, datagrams) = input;
    let check = match kind % 3 {
        0 => steps(),
        1 => DatagramCheck::Dns("example.org".into()),
        _ => DatagramCheck::Dht,
    };
    let (finding, looked_at) = play(&check, ticket, &datagrams);
    assert!(looked_at <= LOOKED_AT_MAX);
    let id = ticket.to_be_bytes();
    let holds = |bytes: &Vec<u8>, part: &[u8]| bytes.windows(part.len()).any(|w| w == part);
    let has = |part: &[u8]| datagrams.iter().any(|bytes| holds(bytes, part));
    if finding.status.is_pass() {
        match check {
            DatagramCheck::Dns(_) => assert!(datagrams.iter().any(|bytes| bytes.starts_with(&id))),
            DatagramCheck::Dht => assert!(has(&id)),
            _ => assert!(has(b"ab") && datagrams.len() >= 2),
        }
    }
});
