//! What the bytes that came so far mean as an answer.
//!
//! Each file reads one protocol's answers from what its specification says. A verdict depends on
//! the bytes alone, never on how they were split on their way; what is incomplete asks for more.
//! Nothing that a server sends may panic, and nothing is looked at beyond `ANSWER_BYTES_MAX`.

mod content;
pub(super) mod dns;
mod http;
pub(super) mod krpc;
mod ldap;
mod mysql;
mod pgsql;
mod redis;
mod smtp;
mod tls;

use crate::config::plan::{Answer, CheckStatus, Ending};

pub(super) use content::digits;

/// Most characters that are told of what a server said.
const TOLD_CHARS_MAX: usize = 160;

/// What the bytes so far mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    /// Nothing yet.
    More,
    /// It is the answer that is wanted.
    Passed(Passed),
    /// It is another one.
    Failed(Failed),
}

/// The answer that is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Passed {
    /// How many bytes it has; 0 = they stay for the next step.
    pub(super) consumed: usize,
    /// The server's code.
    pub(super) code: Option<u16>,
    /// What it said.
    pub(super) text: String,
    /// How the connection ends after this answer, if not as the script says.
    pub(super) ending: Option<Ending>,
}

/// An answer that isn't wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Failed {
    /// The status, if not that of the step.
    pub(super) status: Option<CheckStatus>,
    /// The server's code.
    pub(super) code: Option<u16>,
    /// What it said.
    pub(super) text: String,
}

impl Judgement {
    /// Not of the protocol.
    fn invalid(text: impl Into<String>) -> Judgement {
        Judgement::Failed(Failed {
            text: text.into(),
            ..Failed::default()
        })
    }

    /// Of the protocol, and a refusal.
    fn refused(code: Option<u16>, text: impl Into<String>) -> Judgement {
        Judgement::Failed(Failed {
            status: Some(CheckStatus::L7Status),
            code,
            text: text.into(),
        })
    }

    fn passed(consumed: usize, code: Option<u16>, text: impl Into<String>) -> Judgement {
        Judgement::Passed(Passed {
            consumed,
            code,
            text: text.into(),
            ending: None,
        })
    }
}

/// Judges the bytes so far; `last` = no more will come.
pub(super) fn judge(answer: &Answer, bytes: &[u8], last: bool) -> Judgement {
    match answer {
        Answer::Content(wanted) => content::judge("TCPCHK", wanted, bytes, last),
        Answer::Http(wanted) => http::judge(wanted, bytes, last),
        Answer::Redis => redis::judge(bytes, last),
        Answer::Smtp => smtp::judge(bytes, last),
        Answer::MysqlGreeting => mysql::greeting(bytes),
        Answer::MysqlLogin => mysql::login(bytes),
        Answer::Pgsql => pgsql::judge(bytes),
        Answer::Ldap => ldap::judge(bytes),
        Answer::Tls => tls::judge(bytes),
    }
}

/// Judges a datagram, to which nothing is added any more.
pub(super) fn judge_datagram(answer: &Answer, bytes: &[u8]) -> Judgement {
    match answer {
        Answer::Content(wanted) => content::judge("UDPCHK", wanted, bytes, true),
        other => judge(other, bytes, true),
    }
}

/// A server's words as they can be told: bounded, in one line.
fn told(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().take(TOLD_CHARS_MAX).map(plain).collect();
    text.trim().to_owned()
}

/// The first line without its end, and how many bytes it has with it.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{Content, HttpAnswer, HttpWanted, Pattern, RegularExpression};

    /// What is made of bytes that come in pieces of `size`, and then the end.
    fn in_pieces(answer: &Answer, bytes: &[u8], size: usize) -> Judgement {
        let mut end = 0;
        while end < bytes.len() {
            end = (end + size).min(bytes.len());
            let judgement = judge(answer, &bytes[..end], false);
            if judgement != Judgement::More {
                return judgement;
            }
        }
        judge(answer, bytes, true)
    }

    /// The verdict in short, the same for every way to split the bytes.
    fn verdict(answer: &Answer, bytes: &[u8]) -> String {
        let whole = in_pieces(answer, bytes, bytes.len().max(1));
        for size in 1..bytes.len() {
            assert_eq!(in_pieces(answer, bytes, size), whole, "pieces of {size}");
        }
        let code = |code: Option<u16>| code.map_or(String::new(), |code| format!(" {code}"));
        match whole {
            Judgement::More => "incomplete".to_owned(),
            Judgement::Passed(passed) => {
                let ending = if passed.ending.is_some() {
                    " close"
                } else {
                    ""
                };
                let length = passed.consumed;
                format!("ok {length}{}{ending}: {}", code(passed.code), passed.text)
            }
            Judgement::Failed(failed) => {
                let status = failed.status.map_or("bad", CheckStatus::name);
                format!("{status}{}: {}", code(failed.code), failed.text)
            }
        }
    }

    fn check(answer: &Answer, table: &[(&[u8], &str)]) {
        for (bytes, expected) in table {
            let text = bytes.escape_ascii();
            assert_eq!(verdict(answer, bytes), *expected, "{text}");
        }
    }

    #[test]
    fn redis() {
        check(
            &Answer::Redis,
            &[
                (b"+PONG\r\n", "ok 7: Redis server is ok"),
                (b"-NOAUTH no\r\n", "L7STS: -NOAUTH no"),
                (b"-LOADING", "L7STS: -LOADING"),
                (b"+PON", "L7STS: +PON"),
                (b"\x00\x01\r\n", "L7STS: "),
            ],
        );
    }

    #[test]
    fn smtp() {
        check(
            &Answer::Smtp,
            &[
                (b"220 mx ready\r\nmore", "ok 14 220: mx ready"),
                (b"250-mx\r\n250-A\r\n250 B\r\n", "ok 22 250: mx"),
                (b"221\r\n", "ok 5 221: "),
                (b"421 busy", "L7STS 421: busy"),
                (b"554 no\n", "L7STS 554: no"),
                (b"250-a\r\n25", "bad: 25"),
                (b"22", "bad: 22"),
                (b"SSH-2.0-x\r\n", "bad: SSH-2.0-x"),
                (b"2200 x\r\n", "bad: 2200 x"),
                (b"\r\n", "bad: "),
            ],
        );
    }

    /// A packet of MySQL.
    fn packet(payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[length, 0, 0, 0], payload].concat()
    }

    #[test]
    fn mysql() {
        let greeting = packet(b"\x0a8.0.36\0\x07\0\0\0salt");
        let error = packet(b"\xff\x15\x04#28000Access denied");
        let old = packet(b"\xff\x10\x04Too many\nconnections");
        check(
            &Answer::MysqlGreeting,
            &[
                (&greeting, "ok 20: "),
                (&error, "L7STS 1045: Access denied"),
                (&old, "L7STS 1040: Too many connections"),
                (&greeting[..9], "incomplete"),
                (&packet(b"\x0aunended"), "bad: not a MySQL greeting"),
                (&packet(b"\xff"), "bad: not a MySQL error"),
                (b"HTTP/1.1 400\r\n\r\n", "bad: not a MySQL packet"),
                (&[0, 0, 0, 0], "bad: not a MySQL packet"),
            ],
        );
        check(
            &Answer::MysqlLogin,
            &[
                (&packet(&[0, 0, 0, 2, 0]), "ok 9: "),
                (&packet(b"\xfeother\0"), "ok 11 close: "),
                (&error, "L7STS 1045: Access denied"),
                (&packet(&[7]), "bad: not a MySQL answer"),
            ],
        );
    }

    #[test]
    fn pgsql() {
        let error = b"E\0\0\0\x1bSFATAL\0VFATAL\0Mno way\0\0";
        check(
            &Answer::Pgsql,
            &[
                (b"R\0\0\0\x08\0\0\0\0S", "ok 9: PostgreSQL server is ok"),
                (
                    b"R\0\0\0\x0c\0\0\0\x05salt",
                    "ok 13 close: PostgreSQL server is ok",
                ),
                (error, "bad: FATAL: no way"),
                (b"E\0\0\0\x05\0", "bad: PostgreSQL unknown error"),
                (b"R\0\0\0\x04", "L7STS: PostgreSQL unknown error"),
                (b"R\xff\xff\xff\xff", "L7STS: PostgreSQL unknown error"),
                (b"R\0\0\0\x08\0", "incomplete"),
                (b"HTTP/1.1", "L7STS: PostgreSQL unknown error"),
            ],
        );
    }

    #[test]
    fn ldap() {
        let ok = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
        let long = b"\x30\x84\0\0\0\x10\x02\x01\x01\x61\x84\0\0\0\x07\x0a\x01\0\x04\0\x04\0";
        let refused = b"\x30\x0e\x02\x01\x01\x61\x09\x0a\x01\x08\x04\x00\x04\x02no";
        let ended = b"\x30\x0e\x02\x01\x00\x78\x09\x0a\x01\x34\x04\x00\x04\x02no";
        check(
            &Answer::Ldap,
            &[
                (ok, "ok 14: "),
                (long, "ok 22: "),
                (refused, "L7STS 8: LDAP result 8: no"),
                (ended, "L7STS 52: LDAP result 52: no"),
                (&ok[..9], "incomplete"),
                (b"HTTP", "bad: Not LDAPv3 protocol"),
                (b"\x30HTTP", "incomplete"),
                (b"\x30\x80\x02", "bad: Not LDAPv3 protocol"),
                (b"\x30\x84\xff\xff\xff\xff", "bad: Not LDAPv3 protocol"),
                (b"\x30\x03\x02\x7f\x01", "bad: Not LDAPv3 protocol"),
            ],
        );
    }

    #[test]
    fn tls() {
        check(
            &Answer::Tls,
            &[
                (b"\x16\x03\x03\x00\x31\x02", "ok 0: "),
                (b"\x15\x03\x01\x00\x02", "ok 0: "),
                (b"\x16\x03\x01", "incomplete"),
                (b"\x16\x47ET", "bad: not a TLS record"),
                (b"HTTP", "bad: not a TLS record"),
            ],
        );
    }

    fn http_answer(wanted: HttpWanted, negated: bool) -> Answer {
        Answer::Http(HttpAnswer { wanted, negated })
    }

    #[test]
    fn http_statuses() {
        let statuses = |negated| http_answer(HttpWanted::Statuses(vec![(200, 399)]), negated);
        check(
            &statuses(false),
            &[
                (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "ok 0 200: "),
                (b"HTTP/1.0 302\n\n", "ok 0 302: "),
                (b"HTTP/1.1 503 Not now\r\n\r\n", "L7STS 503: Not now"),
                (
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
                    "ok 0 204: ",
                ),
                (b"HTTP/1.1 101 Switch\r\n\r\n", "L7STS 101: Switch"),
                (b"HTTP/1.1 200 OK\r\n", "bad: "),
                (b"HTTP/1.1 200 OK\r\nnothing\r\n\r\n", "bad: "),
                (b"HTTP/1.1 2000 OK\r\n\r\n", "bad: "),
                (b"HTTP/1.1 099 OK\r\n\r\n", "bad: "),
                (b"SSH-2.0\r\n", "bad: "),
            ],
        );
        check(
            &statuses(true),
            &[
                (b"HTTP/1.1 200 OK\r\n\r\n", "L7STS 200: OK"),
                (b"HTTP/1.1 404 No\r\n\r\n", "ok 0 404: "),
            ],
        );
        let expression = RegularExpression::new("^[23]0[0-4]$").unwrap();
        check(
            &http_answer(HttpWanted::StatusRegex(expression), false),
            &[
                (b"HTTP/1.1 302 OK\r\n\r\n", "ok 0 302: "),
                (b"HTTP/1.1 305 OK\r\n\r\n", "L7STS 305: OK"),
            ],
        );
    }

    #[test]
    fn http_bodies() {
        let text = |negated| http_answer(HttpWanted::Text("up".to_owned()), negated);
        let none = "bad: HTTP content check could not find a response body";
        check(
            &text(false),
            &[
                (b"HTTP/1.1 500 x\r\nContent-Length: 5\r\n\r\nis up", "ok 0 500: "),
                (
                    b"HTTP/1.1 200 up\r\nup: up\r\nContent-Length: 4\r\n\r\ndown",
                    "bad: HTTP content check did not match",
                ),
                (
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxxup",
                    "bad: HTTP content check did not match",
                ),
                (b"HTTP/1.0 200 OK\r\n\r\nit is up", "ok 0 200: "),
                (
                    b"HTTP/1.0 200 OK\r\n\r\nit is not",
                    "bad: HTTP content check did not match",
                ),
                (b"HTTP/1.1 204 up\r\n\r\nup", none),
                (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", none),
                (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "bad: "),
                (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\nu\r\n1\r\np\r\n0\r\n\r\n",
                    "ok 0 200: ",
                ),
                (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nup",
                    "ok 0 200: ",
                ),
                (
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nup",
                    none,
                ),
            ],
        );
        check(
            &text(true),
            &[
                (
                    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nis up",
                    "bad: HTTP check matched unwanted content",
                ),
                (
                    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndown",
                    "ok 0 200: ",
                ),
            ],
        );
    }

    fn content(pattern: Pattern, negated: bool, bytes_min: Option<u32>) -> Answer {
        Answer::Content(Content {
            pattern,
            negated,
            bytes_min,
        })
    }

    #[test]
    fn contents() {
        let text = |text: &str| Pattern::Text(text.to_owned());
        check(
            &content(text("foo"), false, None),
            &[
                (b"a foo", "ok 0: "),
                (b"fo", "bad: TCPCHK did not match content 'foo'"),
            ],
        );
        check(
            &content(text("foo"), true, None),
            &[
                (b"a foo", "bad: TCPCHK matched unwanted content 'foo'"),
                (b"fo", "ok 0: "),
            ],
        );
        let expression = |text| RegularExpression::new(text).unwrap();
        check(
            &content(Pattern::Regex(expression("f.o")), false, None),
            &[
                (b"a f\xffo", "ok 0: "),
                (b"bar", "bad: TCPCHK did not match content (regex)"),
            ],
        );
        check(
            &content(Pattern::BinaryRegex(expression("^00FF")), false, None),
            &[
                (b"\x00\xffa", "ok 0: "),
                (b"\x00", "bad: TCPCHK did not match content (binary regex)"),
            ],
        );
        let binary = Pattern::Binary(vec![0, 255]);
        check(
            &content(binary, false, None),
            &[
                (b"a\x00\xff", "ok 0: "),
                (b"a", "bad: TCPCHK did not match content (binary)"),
            ],
        );
    }

    #[test]
    fn a_minimum_decides_when_to_look() {
        let wanted = |bytes_min| {
            let pattern = Pattern::Text("foo".to_owned());
            content(pattern, false, Some(bytes_min))
        };
        let more =
            |bytes_min, bytes: &[u8]| judge(&wanted(bytes_min), bytes, false) == Judgement::More;
        // As many as the pattern has, and as many as are asked for.
        assert!(more(0, b"") && more(0, b"fo") && !more(0, b"bar") && !more(0, b"foo"));
        assert!(more(5, b"foo") && more(5, b"food") && !more(5, b"foods"));
        let nothing = judge(
            &content(Pattern::Text(String::new()), true, Some(0)),
            b"",
            false,
        );
        assert_eq!(nothing, Judgement::More);
    }

    #[test]
    fn what_is_told_is_bounded_and_in_one_line() {
        assert_eq!(told(b" a\tb\r\n"), "a b");
        let long = told(&[b'x'; 1000]);
        assert_eq!(long.len(), TOLD_CHARS_MAX);
        assert_eq!(told(&[0xff; 3]), "\u{fffd}".repeat(3));
    }
}
