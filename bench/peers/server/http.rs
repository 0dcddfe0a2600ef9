//! The answers of the HTTP end point: `/64`, `/64k`, and anything else is not found.
//!
//! Just enough of HTTP/1.1 for a load generator: requests without a body, one after the other,
//! answers with their length, `Connection: close` respected. Both ends of a test use this module,
//! so that a client can compare what it gets with what was sent.

use memchr::memmem;

use crate::load::bulk;

/// Bytes of a request's head from which on it is none.
pub(super) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Small,
    Large,
}

impl Page {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Page::Small => "/64",
            Page::Large => "/64k",
        }
    }

    fn body_bytes(self) -> usize {
        match self {
            Page::Small => 64,
            Page::Large => 64 * 1024,
        }
    }
}

/// A whole answer with a page, head and body.
pub(crate) fn answer(page: Page, closes: bool) -> Vec<u8> {
    let body = &bulk::pattern()[..page.body_bytes()];
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n{}\r\n",
        body.len(),
        if closes { "Connection: close\r\n" } else { "" },
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// All answers, made once.
pub(super) struct Pages {
    answers: [(Page, bool, Vec<u8>); 4],
}

const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

impl Pages {
    pub(super) fn new() -> Pages {
        let kinds = [
            (Page::Small, false),
            (Page::Small, true),
            (Page::Large, false),
            (Page::Large, true),
        ];
        Pages {
            answers: kinds.map(|(page, closes)| (page, closes, answer(page, closes))),
        }
    }

    /// The answer to a request's head, and whether the connection ends with it.
    pub(super) fn find(&self, head: &[u8]) -> (&[u8], bool) {
        let closes = memmem::find(head, b"\r\nConnection: close\r\n").is_some();
        let path = head
            .strip_prefix(b"GET ")
            .and_then(|rest| rest.split(|byte| *byte == b' ').next());
        let found = self
            .answers
            .iter()
            .find(|(page, ends, _)| *ends == closes && Some(page.path().as_bytes()) == path);
        match found {
            Some((_, _, answer)) => (answer, closes),
            None => (NOT_FOUND, true),
        }
    }
}
