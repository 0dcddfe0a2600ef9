//! The answer to `PING`: a simple string of RESP, the protocol of Redis.

use super::{Judgement, line, told};

pub(super) fn judge(bytes: &[u8], last: bool) -> Judgement {
    match line(bytes) {
        Some((b"+PONG", length)) => Judgement::passed(length, None, "Redis server is ok"),
        Some((line, _)) => Judgement::refused(None, told(line)),
        None if last => Judgement::refused(None, told(bytes)),
        None => Judgement::More,
    }
}
