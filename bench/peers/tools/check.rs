//! Answers that are compared byte by byte while a program of others makes the load: it does not
//! look at bytes itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::sample::{Context, Void};
use crate::server::http::{self, Page};

/// Pause between two checks: seldom enough to be nothing beside the load.
const EVERY: Duration = Duration::from_millis(20);

/// An answer that takes longer is missing.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Does `work` and repeats `check` meanwhile, at least once. Returns what the work has made and how
/// often it was checked.
pub(super) fn beside<T>(
    work: impl FnOnce() -> Result<T, Void>,
    mut check: impl FnMut() -> Result<(), Void> + Send,
) -> Result<(T, u64), Void> {
    check().context("before the load")?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let checker = scope.spawn(|| {
            let mut count = 1;
            while !over.load(Ordering::Relaxed) {
                check().context("beside the load")?;
                count += 1;
                thread::sleep(EVERY);
            }
            Ok::<u64, Void>(count)
        });
        let made = work();
        over.store(true, Ordering::Relaxed);
        let checked = checker
            .join()
            .unwrap_or_else(|_| Err(Void("the thread that checks panicked".to_owned())));
        // The load's own error says more than what followed from it.
        Ok((made?, checked?))
    })
}

/// Gets one page again and again, on one connection or on a new one each time.
pub(super) struct HttpCheck {
    address: SocketAddr,
    request: String,
    expected: Vec<u8>,
    closes: bool,
    kept: Option<TcpStream>,
}

impl HttpCheck {
    pub(super) fn new(address: SocketAddr, page: Page, closes: bool) -> HttpCheck {
        let close = if closes { "Connection: close\r\n" } else { "" };
        HttpCheck {
            address,
            request: format!("GET {} HTTP/1.1\r\nHost: peers\r\n{close}\r\n", page.path()),
            expected: http::answer(page, closes),
            closes,
            kept: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Void> {
        let mut stream = take_or_connect(&mut self.kept, self.address)?;
        let request = self.request.as_bytes();
        exchange(&mut stream, request, &self.expected)?;
        if !self.closes {
            self.kept = Some(stream);
        }
        Ok(())
    }
}

/// Sets a key to a value that was never there before, and gets it.
pub(super) struct RedisCheck {
    address: SocketAddr,
    turn: u64,
    kept: Option<TcpStream>,
}

impl RedisCheck {
    pub(super) fn new(address: SocketAddr) -> RedisCheck {
        RedisCheck {
            address,
            turn: 0,
            kept: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), Void> {
        let mut stream = take_or_connect(&mut self.kept, self.address)?;
        self.turn += 1;
        let value = format!("{:064}", self.turn);
        let set = format!("*3\r\n$3\r\nSET\r\n$5\r\ncheck\r\n$64\r\n{value}\r\n");
        exchange(&mut stream, set.as_bytes(), b"+OK\r\n")?;
        let get = b"*2\r\n$3\r\nGET\r\n$5\r\ncheck\r\n";
        exchange(&mut stream, get, format!("$64\r\n{value}\r\n").as_bytes())?;
        self.kept = Some(stream);
        Ok(())
    }
}

fn take_or_connect(kept: &mut Option<TcpStream>, address: SocketAddr) -> Result<TcpStream, Void> {
    if let Some(stream) = kept.take() {
        return Ok(stream);
    }
    let stream = TcpStream::connect_timeout(&address, ANSWER_MAX).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, request: &[u8], expected: &[u8]) -> Result<(), Void> {
    stream.write_all(request).context("send a request")?;
    let mut answer = vec![0; expected.len()];
    stream
        .read_exact(&mut answer)
        .context("receive an answer")?;
    if answer != expected {
        return Err(Void("an answer has wrong bytes".to_owned()));
    }
    Ok(())
}
