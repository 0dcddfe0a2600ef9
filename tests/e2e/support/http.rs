//! A client of frontends in `mode http`, and what it makes of metrics.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use super::client::{connect_port, write};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names are in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// Asks for a page over a connection of its own.
pub(crate) fn get(port: u16, target: &str) -> Answer {
    ask(
        port,
        &format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"),
    )
}

/// Sends bytes and reads one answer.
pub(crate) fn ask(port: u16, request: &str) -> Answer {
    let client = connect_port(port);
    write(&client, request.as_bytes());
    let is_head = request.starts_with("HEAD ");
    read(&mut BufReader::new(&client), is_head).expect("an answer")
}

/// Reads an answer; `None` = the connection has ended. One to `HEAD` has no body.
pub(crate) fn read(from: &mut BufReader<&TcpStream>, is_head: bool) -> Option<Answer> {
    let mut first = String::new();
    if from.read_line(&mut first).ok()? == 0 {
        return None;
    }
    let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if headers.contains_key("transfer-encoding") && !is_head {
        while let Some(chunk) = chunk(from) {
            body.extend(chunk);
        }
    } else if !is_head {
        let length = headers.get("content-length").and_then(|n| n.parse().ok());
        body = vec![0; length.unwrap_or(0)];
        from.read_exact(&mut body).expect("the body");
    }
    Some(Answer {
        status: status.unwrap_or_else(|| panic!("no status: {first}")),
        headers,
        body: String::from_utf8(body).expect("text"),
    })
}

/// A piece of a body that comes in pieces; `None` after the last.
fn chunk(from: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    from.read_line(&mut line).expect("a length");
    let length = usize::from_str_radix(line.trim(), 16).expect("a length");
    let mut bytes = vec![0; length + 2];
    from.read_exact(&mut bytes).expect("a chunk");
    bytes.truncate(length);
    (length > 0).then_some(bytes)
}

/// The samples of an exposition, by how they are written: `name{label="value"}`.
#[derive(Debug)]
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Scrapes `/metrics` with parameters.
    pub(crate) fn scrape(port: u16, parameters: &str) -> Samples {
        let answer = get(port, &format!("/metrics{parameters}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        Samples::parse(&answer.body)
    }

    /// Reads an exposition.
    pub(crate) fn parse(text: &str) -> Samples {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            (name.to_owned(), value)
        };
        let mut samples = BTreeMap::new();
        for (name, value) in lines.map(sample) {
            let twice = samples.insert(name.clone(), value);
            assert!(twice.is_none(), "{name} is there twice");
        }
        Samples(samples)
    }

    /// A sample that has to be there.
    pub(crate) fn value(&self, name: &str) -> f64 {
        let found = self.find(name);
        found.unwrap_or_else(|| panic!("no {name} in {:?}", self.0.keys()))
    }

    /// A sample.
    pub(crate) fn find(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// The sum of all samples of a metric.
    pub(crate) fn sum(&self, metric: &str) -> f64 {
        let of_metric = |name: &&String| name.split('{').next() == Some(metric);
        let found = self.0.iter().filter(|(name, _)| of_metric(name));
        found.map(|(_, value)| value).sum()
    }

    /// The names without their labels.
    pub(crate) fn metrics(&self) -> std::collections::BTreeSet<&str> {
        let names = self.0.keys();
        names
            .map(|name| name.split('{').next().unwrap_or_default())
            .collect()
    }
}
