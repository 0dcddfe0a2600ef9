//! `udp-check` lines: what is sent to a server of datagrams, and what it has to answer.

use super::tcp_check::{Words, binary, bounded, comment, expect, unknown};
use super::{Call, Outcome, Parser};
use crate::config::draft_check::{Rule, RuleStep};

/// The longest datagram of IPv4: 65,535 bytes without the headers of IP and UDP.
const DATAGRAM_BYTES_MAX: usize = 65_507;

const KINDS: &str = "'comment', 'send', 'send-binary', 'expect'";

pub(in crate::config) fn udp_check(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let mut words = Words::new(call, 1);
    let rule = match call.arg(0) {
        "comment" => comment(call)?,
        kind @ ("send" | "send-binary") => {
            let word = words.required("expects what to send")?;
            let bytes = match kind {
                "send" => Ok(word.text.as_bytes().to_vec()),
                _ => binary(&word.text),
            };
            let bytes = bytes.map_err(|fault| words.about(word, fault))?;
            if bytes.len() > DATAGRAM_BYTES_MAX {
                let text = format!("a datagram has at most {DATAGRAM_BYTES_MAX} bytes.");
                return Err(words.about(word, text));
            }
            let comment = words.only_comment()?;
            Rule::Step(RuleStep::Send(bytes), comment)
        }
        "expect" => {
            let (expect, comment) = expect(&mut words)?;
            Rule::Step(RuleStep::Expect(expect), comment)
        }
        word => return Err(unknown(call, word, KINDS)),
    };
    let rules = &mut parser.current.settings.check_kind.udp;
    let is_first = rules.own_steps().next().is_none();
    if is_first && matches!(rule, Rule::Step(RuleStep::Expect(_), _)) {
        let text = "'udp-check expect' : the first step must be a 'send': nobody answers before.";
        return Err(call.complain(0, text));
    }
    bounded(call, rules.list.len())?;
    rules.push(rule);
    Ok(())
}
