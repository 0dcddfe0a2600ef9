//! The words behind `tidegate probe`, by clap.

use clap::{Args, ValueEnum};
use std::time::Duration;

use crate::base::duration;

/// Most connections of a load: with ten a second it takes a month.
const CONNECTIONS_MAX: u64 = 100_000_000;

/// Most bytes that are sent before an answer: what one datagram holds.
const PAYLOAD_MAX_BYTES: usize = 65_507;

/// Most bytes of an answer that say which server it is.
const IDENTIFY_MAX_BYTES: usize = 256;

/// What datagrams say where no payload is given; an empty one is easily lost on the way.
const DATAGRAM: &[u8] = b"tidegate probe\n";

/// A test.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Test {
    /// So many connections, a few at a time: success and latency
    Load,
    /// The same, and which server has answered how often
    Distribution,
    /// A steady load while a server is taken away: what is lost, and for how long
    Failover,
    /// Many connections open at the same time
    Concurrent,
    /// Load for some seconds, as fast as it goes
    Stress,
    /// Load, distribution, concurrent, stress; failover too where there is a --command
    All,
}

/// `tidegate probe`: connections to a balancer, and what becomes of them.
#[derive(Clone, PartialEq, Debug, Args)]
#[command(
    after_help = "Exit status: 0 what was expected; 1 something that was expected is not so; 2 no \
attempt succeeded; 3 it can't be tested: wrong usage, no such address, too few descriptors."
)]
pub struct Options {
    /// What to test.
    #[arg(value_enum, value_name = "TEST")]
    pub test: Test,
    /// How long stress and failover last; 60 and 30 unless told.
    #[arg(value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: Option<u32>,
    /// HOST:PORT of the balancer.
    #[arg(long, value_name = "ADDRESS")]
    pub target: String,
    /// Datagrams: each attempt has a socket, and so a flow, of its own.
    #[arg(long)]
    pub udp: bool,
    /// How many connections: in all, or at the same time (concurrent).
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    pub connections: u64,
    /// How many attempts are made at a time.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    /// Attempts per second; as fast as it goes unless told, 100 with failover.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: Option<u32>,
    /// What is sent first: so many bytes, or a text with \r \n \t \\ \xHH in it (text:123 for one
    /// of digits).
    #[arg(long, value_name = "N|TEXT", value_parser = payload)]
    pub payload: Option<Payload>,
    /// What of the answer says which server it is: first-line, bytes:N or none. With none nothing
    /// is waited for, and a balancer without servers passes.
    #[arg(long, value_name = "HOW", default_value = "first-line", value_parser = identify)]
    pub identify: Identify,
    /// How long an attempt may take.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::bounded)]
    pub timeout: Duration,
    /// How long connections are held once all are open (concurrent).
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::bounded)]
    pub hold: Duration,
    /// What takes a server away, for a shell (failover); without it, that is up to you.
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,
    /// When the command is run.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration::bounded)]
    pub after: Duration,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
    /// Percent of the attempts that have to succeed.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub expect_success: Option<f64>,
    /// How far a server's answers may be from an even share, percent of that share.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub expect_even: Option<f64>,
    /// How many servers have to answer.
    #[arg(long, value_name = "N")]
    pub expect_servers: Option<usize>,
    /// The longest time without a success (failover).
    #[arg(long, value_name = "TIME", value_parser = duration::bounded)]
    pub expect_gap: Option<Duration>,
}

/// What is sent before an answer is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload(Vec<u8>);

/// What of an answer tells the servers apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identify {
    /// Up to the first line feed, or the end.
    FirstLine,
    /// So many bytes.
    Bytes(usize),
    /// Nothing: no answer is waited for.
    Nothing,
}

impl Options {
    /// The bytes that are sent first.
    pub(super) fn payload(&self) -> Vec<u8> {
        match &self.payload {
            Some(Payload(bytes)) => bytes.clone(),
            None if self.udp => DATAGRAM.to_vec(),
            None => Vec::new(),
        }
    }

    /// What doesn't go together.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let counts = self.expect_even.is_some() || self.expect_servers.is_some();
        let nameless = self.identify == Identify::Nothing;
        let has = |test: Test| self.test == test || self.test == Test::All;
        if nameless && (counts || self.test == Test::Distribution) {
            return Some("without --identify nothing is known of the servers");
        }
        if self.expect_gap.is_some() && !has(Test::Failover) {
            return Some("--expect-gap is for failover");
        }
        if self.command.is_some() && !has(Test::Failover) {
            return Some("--command is for failover");
        }
        if self.seconds.is_some() && !has(Test::Failover) && !has(Test::Stress) {
            return Some("seconds are for stress and failover");
        }
        None
    }
}

fn payload(text: &str) -> Result<Payload, String> {
    let bytes = match text.parse::<usize>() {
        Ok(count) if count <= PAYLOAD_MAX_BYTES => {
            // Every value but 10: a line feed would end a line in the midst of it.
            let letters = (b'a'..=b'z').cycle();
            letters.take(count).collect()
        }
        Ok(_) => return Err(format!("{PAYLOAD_MAX_BYTES} bytes are the most")),
        Err(_) => unescape(text.strip_prefix("text:").unwrap_or(text))?,
    };
    if bytes.len() > PAYLOAD_MAX_BYTES {
        return Err(format!("{PAYLOAD_MAX_BYTES} bytes are the most"));
    }
    Ok(Payload(bytes))
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                match (digit(rest.next()), digit(rest.next())) {
                    (Some(high), Some(low)) => u8::try_from(high * 16 + low).unwrap_or(0),
                    _ => return Err("\\x has two hexadecimal digits after it".to_owned()),
                }
            }
            _ => return Err("after a backslash come n, r, t, x or another one".to_owned()),
        });
    }
    Ok(bytes)
}

fn identify(text: &str) -> Result<Identify, String> {
    match text.split_once([':', ' ', '=']) {
        None if text == "first-line" => Ok(Identify::FirstLine),
        None if text == "none" => Ok(Identify::Nothing),
        Some(("bytes", count)) => match count.parse() {
            Ok(count @ 1..=IDENTIFY_MAX_BYTES) => Ok(Identify::Bytes(count)),
            _ => Err(format!(
                "1 to {IDENTIFY_MAX_BYTES} bytes say which server it is"
            )),
        },
        _ => Err("it is first-line, bytes:N or none".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("a percentage is 0 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_sizes_or_texts() {
        let bytes = |text: &str| payload(text).unwrap().0;
        assert_eq!(bytes("3"), b"abc");
        assert_eq!(bytes("text:3"), b"3");
        assert_eq!(bytes(r"GET /\r\n\x00\\"), b"GET /\r\n\0\\");
        for wrong in ["65508", r"a\q", r"\x1", r"\", r"\xzz"] {
            assert!(payload(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn servers_are_told_apart_in_three_ways() {
        assert_eq!(identify("bytes:16"), Ok(Identify::Bytes(16)));
        assert_eq!(identify("none"), Ok(Identify::Nothing));
        for wrong in ["", "bytes", "bytes:0", "bytes:257", "line"] {
            assert!(identify(wrong).is_err(), "{wrong}");
        }
        assert_eq!(percent("20%"), Ok(20.0));
        assert!(percent("101").is_err() && percent("NaN").is_err() && percent("-1").is_err());
    }
}
