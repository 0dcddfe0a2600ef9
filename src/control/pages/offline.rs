//! The frontend of pages of a plan without sockets, threads and traffic: bytes go in as a client
//! would send them, and its answers come out. For the fuzzer and for measuring.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::{Site, client};
use crate::base::ids::{ListenerId, ShardId};
use crate::config::plan::Plan;
use crate::control::{Facts, Shared};
use crate::limits;
use crate::ring::Caps;
use crate::shard::{Bounds, ControlPort, LogQueue, ShardPort, World};
use crate::sys::clock;

/// Bytes on their way to the client, and from it.
const PIPE_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Offline {
    runtime: Runtime,
    site: Rc<Site>,
}

impl Offline {
    /// The pages of the plan's first listener.
    pub fn new(plan: Plan) -> io::Result<Offline> {
        let bounds = Bounds {
            maxconn: 1,
            memory_max: 0,
            pipes_max: 0,
        };
        let world = World::new(
            Arc::new(plan),
            vec![Arc::new(ShardPort::new(ShardId(0), 1)?)],
            Arc::new(ControlPort::new(1)?),
            Arc::new(LogQueue::new(1)?),
            bounds,
            clock::unix_ms_at_zero(),
        );
        let facts = Facts {
            started: clock::now(),
            started_unix_s: clock::unix_ms() / 1000,
            descriptors_max: 0,
            descriptors_needed: 0,
            memory_limit: 0,
            caps: Caps::least(0),
        };
        let shared = Arc::new(Shared::new(world, facts));
        let answers = Arc::new(Semaphore::new(limits::PAGE_ANSWERS_MAX));
        let world = shared.world();
        let owner = world.listener(ListenerId(0)).map(|one| one.proxy_id);
        let front = owner.and_then(|owner| world.frontend(owner));
        let site = front.map(|front| Site::new(&shared, front, &answers));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        Ok(Offline {
            runtime,
            site: Rc::new(site.ok_or(io::ErrorKind::NotFound)?),
        })
    }

    /// What a client gets that sends these bytes, and then nothing more.
    pub fn converse(&self, bytes: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (theirs, ours) = tokio::io::duplex(PIPE_BYTES);
            let (mut from, mut to) = tokio::io::split(theirs);
            let sends = async move {
                // Who is refused is not read to the end.
                let _ = to.write_all(bytes).await;
                let _ = to.shutdown().await;
            };
            let reads = async {
                let mut answer = Vec::new();
                let _ = from.read_to_end(&mut answer).await;
                answer
            };
            let (_, _, answer) = tokio::join!(client(&self.site, ours, None), sends, reads);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::control::resolve::SystemEnvironment;

    fn offline(lines: &str) -> Offline {
        let text = format!("frontend f\n mode http\n bind :1\n timeout client 1s\n{lines}");
        let (plan, said) = config::load_text("t.cfg", text, &SystemEnvironment::new());
        Offline::new(plan.unwrap_or_else(|| panic!("{said:?}"))).expect("a frontend of pages")
    }

    /// The numbers of the answers, in their order.
    fn statuses(offline: &Offline, bytes: &str) -> Vec<u16> {
        let answer = String::from_utf8(offline.converse(bytes.as_bytes())).expect("text");
        let heads = answer.split("HTTP/1.").skip(1);
        heads
            .map(|head| head[2..5].parse().expect("a number"))
            .collect()
    }

    #[test]
    fn requests_of_one_client_are_answered_in_turn() {
        let pages = offline(" monitor-uri /a\n http-request use-service prometheus-exporter\n");
        let asked = "GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 2\r\n\r\nxyGET \
                     /?scope=x HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(statuses(&pages, asked), [200, 405, 400, 200]);
        assert_eq!(
            statuses(&pages, "GET / HTTP/1.0\r\n\r\nGET /a HTTP/1.1\r\n\r\n"),
            [200]
        );
        assert_eq!(statuses(&pages, "\r\nnothing\r\n\r\n"), [400]);
        assert!(statuses(&pages, "").is_empty());
    }

    #[test]
    fn a_page_is_at_addresses_that_begin_like_its_own() {
        let pages = offline(" stats uri /s?x\n stats auth a:b\n");
        let with = "Authorization: basic YTpi\r\n";
        for (target, headers, status) in [
            ("/s?x", with, 200),
            ("/s?x;csv", with, 200),
            ("/s?xy&csv", with, 200),
            ("/s?x", "", 401),
            ("/s", with, 404),
            ("http://a.test/s?x", with, 200),
        ] {
            let asked = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            assert_eq!(statuses(&pages, &asked), [status], "{target}");
        }
    }
}
