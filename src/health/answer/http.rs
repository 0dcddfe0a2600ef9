//! Responses of HTTP/1, RFC 9112: a status line, fields, and a body as far as it is looked for.

use std::borrow::Cow;

use super::content::contains;
use super::{Judgement, line, told};
use crate::config::plan::{HttpAnswer, HttpWanted};

pub(super) fn judge(wanted: &HttpAnswer, bytes: &[u8], last: bool) -> Judgement {
    let mut rest = bytes;
    let head = loop {
        match head(rest) {
            // What announces another response is none.
            Head::Of(head) if (100..200).contains(&head.code) && head.code != 101 => {
                rest = rest.get(head.bytes..).unwrap_or_default();
            }
            Head::Of(head) => break head,
            Head::More if last => return Judgement::invalid(""),
            Head::More => return Judgement::More,
            Head::Invalid => return Judgement::invalid(""),
        }
    };
    let by_body = |matches: &dyn Fn(&[u8]) -> bool| {
        let body = body(&head, rest.get(head.bytes..).unwrap_or_default());
        let complete = body.complete || last;
        if body.bytes.is_empty() {
            return match complete {
                true => Judgement::invalid("HTTP content check could not find a response body"),
                false => Judgement::More,
            };
        }
        match (matches(&body.bytes), wanted.negated) {
            (true, false) => Judgement::passed(0, Some(head.code), ""),
            (true, true) => Judgement::invalid("HTTP check matched unwanted content"),
            (false, _) if !complete => Judgement::More,
            (false, true) => Judgement::passed(0, Some(head.code), ""),
            (false, false) => Judgement::invalid("HTTP content check did not match"),
        }
    };
    let by_status = |matches: bool| {
        if matches == wanted.negated {
            return Judgement::refused(Some(head.code), told(head.reason));
        }
        Judgement::passed(0, Some(head.code), "")
    };
    match &wanted.wanted {
        HttpWanted::Statuses(ranges) => by_status(
            ranges
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&head.code)),
        ),
        HttpWanted::StatusRegex(expression) => {
            by_status(expression.is_match(head.code.to_string().as_bytes()))
        }
        HttpWanted::Text(text) => by_body(&|body| contains(body, text.as_bytes())),
        HttpWanted::Regex(expression) => by_body(&|body| expression.is_match(body)),
    }
}

/// A response up to its body.
struct Response<'a> {
    code: u16,
    reason: &'a [u8],
    /// Bytes up to the body.
    bytes: usize,
    framing: Framing,
}

/// Where a body ends, RFC 9112 section 6.3.
#[derive(Clone, Copy)]
enum Framing {
    Length(u64),
    Chunked,
    Close,
}

enum Head<'a> {
    More,
    Of(Response<'a>),
    Invalid,
}

fn head(bytes: &[u8]) -> Head<'_> {
    let start = b"HTTP/";
    let common = bytes.len().min(start.len());
    if bytes[..common] != start[..common] {
        return Head::Invalid;
    }
    let Some((status, mut at)) = line(bytes) else {
        return Head::More;
    };
    let Some((code, reason)) = status_line(status) else {
        return Head::Invalid;
    };
    let mut framing = match code {
        100..200 | 204 | 304 => Some(Framing::Length(0)),
        _ => None,
    };
    while let Some((field, length)) = line(bytes.get(at..).unwrap_or_default()) {
        at += length;
        if field.is_empty() {
            return Head::Of(Response {
                code,
                reason,
                bytes: at,
                framing: framing.unwrap_or(Framing::Close),
            });
        }
        let Some(colon) = field.iter().position(|byte| *byte == b':') else {
            return Head::Invalid;
        };
        let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|v| v.parse().ok());
            let Some(length) = length else {
                return Head::Invalid;
            };
            framing = framing.or(Some(Framing::Length(length)));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding")
            && !matches!(framing, Some(Framing::Length(0)))
        {
            let chunked = value.to_ascii_lowercase().ends_with(b"chunked");
            framing = Some(if chunked {
                Framing::Chunked
            } else {
                Framing::Close
            });
        }
    }
    Head::More
}

/// `HTTP/1.1 200 OK`; the reason may be missing, even the blank before it.
fn status_line(line: &[u8]) -> Option<(u16, &[u8])> {
    let rest = line.strip_prefix(b"HTTP/")?;
    let [b'0'..=b'9', b'.', b'0'..=b'9', b' ', rest @ ..] = rest else {
        return None;
    };
    let (digits, rest) = rest.split_at_checked(3)?;
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] => reason,
        _ => return None,
    };
    let code = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (code >= 100).then_some((code, reason))
}

struct Body<'a> {
    bytes: Cow<'a, [u8]>,
    complete: bool,
}

/// What there is of the body.
fn body<'a>(head: &Response<'_>, bytes: &'a [u8]) -> Body<'a> {
    match head.framing {
        Framing::Close => Body {
            bytes: bytes.into(),
            complete: false,
        },
        Framing::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let there = bytes.get(..length);
            Body {
                bytes: there.unwrap_or(bytes).into(),
                complete: there.is_some(),
            }
        }
        Framing::Chunked => chunks(bytes),
    }
}

/// The body in chunks, RFC 9112 section 7.1; what can't be one ends it.
fn chunks(mut bytes: &[u8]) -> Body<'_> {
    let mut body = Vec::new();
    loop {
        let Some((size, length)) = line(bytes) else {
            return Body {
                bytes: body.into(),
                complete: false,
            };
        };
        let digits = size.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(digits.trim_ascii()).ok();
        let size = size.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(size @ 1..) = size else {
            return Body {
                bytes: body.into(),
                complete: true,
            };
        };
        let rest = bytes.get(length..).unwrap_or_default();
        let chunk = rest.get(..size);
        body.extend_from_slice(chunk.unwrap_or(rest));
        let after = rest.get(size..).and_then(line);
        let Some((_, end)) = after else {
            return Body {
                bytes: body.into(),
                complete: false,
            };
        };
        bytes = rest.get(size + end..).unwrap_or_default();
    }
}
