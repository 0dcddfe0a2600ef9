//! Tests of checks by datagrams.

use std::sync::Arc;

use super::*;
use crate::config::plan::{Answer, Content, Pattern};

fn wants(text: &str) -> Expect {
    Expect::of(Answer::Content(Content {
        pattern: Pattern::Text(text.to_owned()),
        negated: false,
        bytes_min: None,
    }))
}

fn steps(actions: Vec<(Action, &str)>) -> DatagramCheck {
    let numbered = (1u16..).zip(actions);
    let step = numbered.map(|(number, (action, comment))| Step {
        number,
        action,
        comment: comment.to_owned(),
    });
    DatagramCheck::Steps(Arc::from_iter(step))
}

fn send(text: &str) -> (Action, &'static str) {
    (Action::Send(text.as_bytes().to_vec()), "")
}

fn expect(text: &str) -> (Action, &'static str) {
    (Action::Expect(wants(text)), "")
}

fn told(finding: &Finding) -> String {
    let code = finding
        .code
        .map_or(String::new(), |code| format!(" {code}"));
    format!("{}{code} {}", finding.status.name(), finding.text)
}

/// What happens on the way, in short: answers come when they are waited for, then nothing.
fn play(check: &DatagramCheck, answers: &[&[u8]]) -> Vec<String> {
    let (mut run, mut seen) = (DatagramRun::new(check, 0x6161), Vec::new());
    let mut answers = answers.iter();
    loop {
        match run.next_act() {
            NextDatagram::Send(bytes) => {
                seen.push(format!("send {}", bytes.escape_ascii()));
                run.sent();
            }
            NextDatagram::Listen => {
                seen.push("listen".to_owned());
                run.unrefused();
            }
            NextDatagram::Receive => match answers.next() {
                Some(answer) => run.received(answer),
                None => {
                    seen.push(told(&run.failed(Problem::TimedOut)));
                    return seen;
                }
            },
            NextDatagram::End(finding) => {
                seen.push(told(&finding));
                return seen;
            }
        }
    }
}

fn result(check: &DatagramCheck, answers: &[&[u8]]) -> String {
    play(check, answers).pop().unwrap_or_default()
}

#[test]
fn silence_passes_where_nothing_is_waited_for() {
    let probe = DatagramCheck::Probe;
    assert_eq!(play(&probe, &[]), ["send ", "listen", "L4OK "]);
    let sends = steps(vec![send("a"), send("b")]);
    let expected = ["send a", "send b", "listen", "L4OK (udp-check)"];
    assert_eq!(play(&sends, &[]), expected);
    // After an answer too: what was sent last may be refused.
    let after = steps(vec![send("a"), expect("x"), send("b")]);
    let expected = ["send a", "send b", "listen", "L4OK (udp-check)"];
    assert_eq!(play(&after, &[b"x"]), expected);
    let mut run = DatagramRun::new(&probe, 1);
    run.next_act();
    run.sent();
    assert!(matches!(run.next_act(), NextDatagram::Listen) && run.is_unanswered());
    run.received(b"whatever");
    assert!(matches!(run.next_act(), NextDatagram::End(finding) if finding.status.is_pass()));
}

#[test]
fn a_refusal_ends_it_at_every_step() {
    let refused = || Problem::Failed("Connection refused".to_owned());
    let ping = steps(vec![send("ping"), expect("pong")]);
    let mut run = DatagramRun::new(&ping, 1);
    let at = |run: &DatagramRun<'_>| told(&run.failed(refused()));
    assert_eq!(
        at(&run),
        "L4CON Connection refused at step 1 of udp-check (send)"
    );
    run.sent();
    assert_eq!(
        at(&run),
        "L4CON Connection refused at step 2 of udp-check (expect string 'pong')"
    );
    let mut run = DatagramRun::new(&DatagramCheck::Probe, 1);
    run.sent();
    assert_eq!(at(&run), "L4CON Connection refused");
}

#[test]
fn each_expect_takes_one_datagram() {
    let two = steps(vec![send("a"), expect("x"), send("b"), expect("y")]);
    let passed = ["send a", "send b", "L7OK 0 (udp-check)"];
    assert_eq!(play(&two, &[b"x", b"y"]), passed);
    // The first answer came twice, as it does where the question was sent again.
    assert_eq!(play(&two, &[b"x", b"x", b"y"]), passed);
    assert_eq!(
        result(&two, &[b"x", b"z"]),
        "L7RSP UDPCHK did not match content 'y' at step 4"
    );
    assert_eq!(
        result(&two, &[b""]),
        "L7RSP UDPCHK did not match content 'x' at step 2"
    );
    assert_eq!(
        result(&two, &[b"x"]),
        "L7TOUT  at step 4 of udp-check (expect string 'y')"
    );
    // One datagram isn't a part of another.
    let whole = steps(vec![send("a"), expect("xy")]);
    assert!(result(&whole, &[b"x", b"y"]).starts_with("L7RSP"));
    let both = steps(vec![send("a"), expect("x"), expect("y")]);
    assert_eq!(result(&both, &[b"x", b"y"]), "L7OK 0 (udp-check)");
}

#[test]
fn statuses_and_texts_of_ones_own() {
    let own = Expect {
        error: Some(CheckStatus::L7Status),
        timeout: CheckStatus::L4Timeout,
        on_success: Some("fine".to_owned()),
        on_error: Some("bad".to_owned()),
        ..wants("x")
    };
    let check = steps(vec![send("a"), (Action::Expect(own), "why")]);
    assert_eq!(result(&check, &[b"x"]), "L7OK 0 fine");
    assert_eq!(result(&check, &[b"y"]), "L7STS 0 bad comment: why");
    assert!(result(&check, &[]).starts_with("L4TOUT"));
}

#[test]
fn a_query_has_the_runs_own_id() {
    let check = DatagramCheck::Dns("example.org".into());
    let answer = |flags: u8, id: &[u8; 2]| {
        let rest = b"\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
        [&id[..], &[0x81, flags], rest].concat()
    };
    assert_eq!(result(&check, &[&answer(0x80, b"aa")]), "L7OK 0 NOERROR");
    assert_eq!(result(&check, &[&answer(0x82, b"aa")]), "L7STS 2 SERVFAIL");
    let late = answer(0x82, b"ab");
    let both = [&late[..], &answer(0x83, b"aa")];
    assert_eq!(result(&check, &both), "L7OK 3 NXDOMAIN");
    assert_eq!(result(&check, &[]), "L7TOUT ");
    assert_eq!(
        result(&check, &[&late]),
        "L7RSP nothing but datagrams that don't answer"
    );
    let no_name = DatagramCheck::Dns("a..b".into());
    assert_eq!(result(&no_name, &[]), "SOCKERR 'a..b' is no name of DNS");
}

#[test]
fn a_ping_has_the_runs_own_transaction() {
    let pong: &[u8] = b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re";
    let error: &[u8] = b"d1:eli202e6:brokene1:t2:aa1:y1:ee";
    assert_eq!(result(&DatagramCheck::Dht, &[pong]), "L7OK 0 ");
    assert_eq!(result(&DatagramCheck::Dht, &[b"hello", pong]), "L7OK 0 ");
    assert_eq!(result(&DatagramCheck::Dht, &[error]), "L7STS 202 broken");
    assert_eq!(result(&DatagramCheck::Dht, &[]), "L7TOUT ");
}

/// Who floods is not listened to for the whole time.
#[test]
fn what_is_passed_over_is_bounded() {
    let floods = [b"noise".as_slice(); 2 * PASSED_OVER_MAX as usize];
    for check in [DatagramCheck::Dht, DatagramCheck::Dns("".into())] {
        let told = result(&check, &floods);
        assert_eq!(told, "L7RSP too many datagrams that don't answer");
        let pong = b"d1:rd2:id20:mnopqrstuvwxyz123456e1:t2:aa1:y1:re";
        let most = floods[..PASSED_OVER_MAX as usize - 1].iter().copied();
        let then: Vec<&[u8]> = most.chain([&pong[..]]).collect();
        let told = result(&check, &then);
        assert_eq!(told == "L7OK 0 ", check == DatagramCheck::Dht, "{told}");
    }
}
