//! A runtime socket without a socket and without shards: what is answered to any bytes, for tests
//! and for fuzzing.

use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::command::SeverityOutput;
use super::listen::Grant;
use super::{Client, Server, session};
use crate::base::ids::ShardId;
use crate::config::plan::{Level, Plan};
use crate::control::listeners::Registry;
use crate::control::{Facts, Shared};
use crate::limits;
use crate::ring::Caps;
use crate::shard::{Bounds, ControlPort, LogQueue, ShardPort, World};
use crate::sys::clock;

/// Bytes on their way in one direction.
const PIPE_BYTES: usize = 64 * 1024;

impl Client for DuplexStream {
    fn as_unix(&mut self) -> Option<&mut tokio::net::UnixStream> {
        None
    }
}

/// See the module.
#[derive(Debug)]
pub struct Rehearsal {
    shared: Arc<Shared>,
}

impl Rehearsal {
    /// Of a plan, whose listeners nobody opens.
    pub fn new(plan: Plan) -> io::Result<Rehearsal> {
        let world = World::new(
            Arc::new(plan),
            vec![Arc::new(ShardPort::new(ShardId(0), 64)?)],
            Arc::new(ControlPort::new(64)?),
            Arc::new(LogQueue::new(limits::LOG_RECORDS_MAX)?),
            Bounds {
                maxconn: 100,
                memory_max: 0,
                pipes_max: 0,
            },
            clock::unix_ms_at_zero(),
        );
        let facts = Facts {
            started: clock::now(),
            started_unix_s: clock::unix_ms() / 1000,
            descriptors_max: 0,
            descriptors_needed: 0,
            memory_limit: 0,
            caps: Caps::least(8),
        };
        let shared = Arc::new(Shared::new(world, facts));
        shared.reload.close();
        Ok(Rehearsal { shared })
    }

    /// What a client of a level is answered that sends these bytes and ends.
    pub async fn answer(&self, level: Level, input: &[u8]) -> Vec<u8> {
        let (mut client, served) = tokio::io::duplex(PIPE_BYTES);
        let server = Server {
            shared: Arc::clone(&self.shared),
            registry: Arc::new(Mutex::new(Registry::default())),
        };
        let grant = Grant {
            level,
            exposes_listeners: false,
            is_master: false,
            severity_output: SeverityOutput::None,
        };
        let speak = async {
            let (mut reader, mut writer) = tokio::io::split(&mut client);
            let send = async {
                // It may end before all was sent.
                let _ = writer.write_all(input).await;
                let _ = writer.shutdown().await;
            };
            let mut answer = Vec::new();
            let (_, _) = tokio::join!(send, reader.read_to_end(&mut answer));
            answer
        };
        let (_, answer) = tokio::join!(session::serve(served, &server, grant), speak);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash;
    use crate::config;
    use crate::control::resolve::SystemEnvironment;

    const TEXT: &str = "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1s\n    \
        timeout server 1s\nfrontend fe\n    bind 127.0.0.1:1\n    default_backend be\nbackend be\n    \
        balance source\n    server s1 127.0.0.1:2 weight 3\n    server s2 127.0.0.1:3\n    \
        server s3 127.0.0.1:4 backup\nbackend ring\n    balance hash src\n    hash-type consistent\n    \
        hash-balance-factor 150\n    server s1 127.0.0.1:2\n    server s2 127.0.0.1:3 disabled\n";

    fn rehearsal() -> Rehearsal {
        let (plan, said) = config::load_text("t.cfg", TEXT, &SystemEnvironment::new());
        Rehearsal::new(plan.unwrap_or_else(|| panic!("{said:?}"))).unwrap()
    }

    fn answers(inputs: &[&str]) -> Vec<String> {
        let rehearsal = rehearsal();
        tokio_uring::start(async move {
            let mut answers = Vec::new();
            for input in inputs {
                let answer = rehearsal.answer(Level::Admin, input.as_bytes()).await;
                answers.push(String::from_utf8(answer).unwrap());
            }
            answers
        })
    }

    #[test]
    fn a_last_line_without_a_line_feed_is_a_line() {
        let all = answers(&["show cli level", "show cli level\n", "show cli level\r\n"]);
        assert_eq!(all, ["admin\n\n"; 3]);
    }

    #[test]
    fn nothing_is_answered_by_nothing() {
        assert_eq!(answers(&["", "\n", " ; \n"]), ["", "\n", "\n"]);
    }

    #[test]
    fn the_choice_of_a_key_is_explained() {
        let all = answers(&[
            "show balance be key 10.0.0.1",
            "show balance be",
            "show balance ring key 10.0.0.1:80",
            "show balance ring key x",
            "show balance nosuch",
            "show balance be key",
        ]);
        let be = "backend: be\nalgorithm: source, map-based\ntable: 2 active servers, 4 turns\n\
                  server: s1 weight 3 share 75.0% connections 0 limit -\n\
                  server: s2 weight 1 share 25.0% connections 0 limit -\n\
                  not chosen: s3 backup, no check\n";
        // 10.0.0.1 as a number, modulo 4: the second turn of s1, s1, s1, s2.
        let key = "key: 10.0.0.1\nhash: 0x000000000a000001\nplace: turn 1 of 4\nowner: s1\n\
                   chosen: s1\n\n";
        assert_eq!(all[0], format!("{be}{key}"));
        assert_eq!(all[1], format!("{be}next: s1\n\n"));
        assert!(
            all[2].contains("algorithm: hash, consistent sdbm, bounded to 150%\n"),
            "{}",
            all[2]
        );
        assert!(all[2].contains("not chosen: s2 MAINT\n"), "{}", all[2]);
        assert!(all[2].contains("\nowner: s1\nchosen: s1\n"), "{}", all[2]);
        assert_eq!(
            all[3],
            "A key is an address here, with or without a port.\n\n"
        );
        assert_eq!(all[4], "No such backend.\n\n");
        assert_eq!(all[5], "Usage: show balance <backend> [key <key>]\n\n");
    }

    /// Words of commands in any order, with bytes of chance between them: whatever is sent, the
    /// session ends, and each of its answers with an empty line.
    #[test]
    fn any_bytes_are_answered() {
        const WORDS: [&str; 24] = [
            "show",
            "stat",
            "info",
            "typed",
            "json",
            "help",
            "prompt",
            "p",
            "<<",
            "<<END",
            "END",
            ";",
            "\n",
            "\n\n",
            "\\",
            " ",
            "set",
            "severity-output",
            "servers",
            "state",
            "be",
            "-1",
            "balance",
            "\u{0}\u{ff}",
        ];
        let rehearsal = rehearsal();
        let inputs: Vec<String> = (0..300)
            .map(|seed| {
                let word = |n| WORDS[(hash::sequence(seed, n) % WORDS.len() as u64) as usize];
                (0..20).map(|n| format!("{} ", word(n))).collect()
            })
            .collect();
        tokio_uring::start(async move {
            for input in inputs {
                let answer = rehearsal.answer(Level::Admin, input.as_bytes()).await;
                let ended = answer.is_empty() || answer.ends_with(b"\n") || answer.ends_with(b"> ");
                assert!(ended, "{input:?}: {:?}", String::from_utf8_lossy(&answer));
            }
        });
    }
}
