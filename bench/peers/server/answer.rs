//! The end points that answer requests: echo, farewell and HTTP.
//!
//! A request is answered once it is whole, and the next one is read once the answer is sent. On
//! edges: a receive that does not fill the buffer has taken all that an edge stands for, and
//! whatever comes later is an edge of its own. A connection that fails is closed: the client
//! notices and voids the run.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use memchr::memmem;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::http::{HEAD_BYTES_MAX, Pages};
use super::{EVENTS, LISTENER, Service};
use crate::load::{MESSAGE_BYTES, MESSAGE_BYTES_MAX, message_bytes};
use crate::sys;

/// One accepted connection.
struct Connection {
    stream: TcpStream,
    /// Of a request that is not whole yet.
    held: Vec<u8>,
    /// Of an answer that did not fit into the socket, and how much of it was sent since.
    unsent: Vec<u8>,
    sent: usize,
    /// Whether the connection ends with the answer that is being sent.
    closes: bool,
    /// Whether the wait also tells when the socket has room again.
    waits_for_room: bool,
}

/// What the bytes received so far ask for.
enum Request<'a> {
    /// The rest of it has to come first.
    Partial,
    Whole {
        bytes: usize,
        answer: &'a [u8],
        closes: bool,
    },
    /// Nothing that this service understands.
    Wrong,
}

/// What becomes of a connection.
#[derive(PartialEq)]
enum Next {
    Waits,
    Ends,
}

pub(super) fn answer(listener: &TcpListener, service: Service) -> io::Result<()> {
    let pages = Pages::new();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut open: Vec<Option<Connection>> = Vec::new();
    let mut events = [EpollEvent::empty(); EVENTS];
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => 0,
            outcome => outcome?,
        };
        for event in &events[..count] {
            if event.data() == LISTENER {
                while let Some(stream) = super::accept(listener)? {
                    let index = stream.as_raw_fd() as usize;
                    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
                    epoll.add(&stream, EpollEvent::new(edges, index as u64))?;
                    if open.len() <= index {
                        open.resize_with(index + 1, || None);
                    }
                    open[index] = Some(Connection::new(stream));
                }
                continue;
            }
            let slot = &mut open[event.data() as usize];
            let Some(connection) = slot else { continue };
            let next = connection.turn(service, &pages, &mut buffer);
            if next.unwrap_or(Next::Ends) == Next::Ends {
                // Closing the only descriptor of the socket also takes it out of the wait.
                *slot = None;
                continue;
            }
            if !connection.unsent.is_empty() && !connection.waits_for_room {
                connection.waits_for_room = true;
                let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                let mut event = EpollEvent::new(edges, event.data());
                epoll.modify(&connection.stream, &mut event)?;
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Connection {
        Connection {
            stream,
            held: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            closes: false,
            waits_for_room: false,
        }
    }

    /// Sends what is left of an answer, then takes and answers requests.
    fn turn(&mut self, service: Service, pages: &Pages, buffer: &mut [u8]) -> io::Result<Next> {
        if !self.unsent.is_empty() {
            self.sent += sys::send_some(&self.stream, &self.unsent[self.sent..])?;
            if self.sent < self.unsent.len() {
                return Ok(Next::Waits);
            }
            self.unsent.clear();
            self.sent = 0;
            if self.closes {
                return Ok(Next::Ends);
            }
        }
        loop {
            let received = match sys::receive(&self.stream, buffer) {
                Ok(0) => return Ok(Next::Ends),
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(Next::Waits),
                Err(errno) => return Err(errno.into()),
            };
            let piece = &buffer[..received];
            if self.held.is_empty() {
                if !self.take(service, pages, piece)? {
                    self.held.extend_from_slice(piece);
                }
            } else {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(piece);
                if self.take(service, pages, &held)? {
                    held.clear();
                }
                self.held = held;
            }
            if self.closes && self.unsent.is_empty() {
                return Ok(Next::Ends);
            }
            if !self.unsent.is_empty() || received < buffer.len() {
                return Ok(Next::Waits);
            }
        }
    }

    /// Answers the request that `received` holds; false if it is not whole yet. Clients send the
    /// next request after the answer to the last: bytes behind a request are an error.
    fn take(&mut self, service: Service, pages: &Pages, received: &[u8]) -> io::Result<bool> {
        match understand(service, pages, received) {
            Request::Partial => Ok(false),
            Request::Whole {
                bytes,
                answer,
                closes,
            } if bytes == received.len() => {
                let sent = sys::send_some(&self.stream, answer)?;
                self.unsent.extend_from_slice(&answer[sent..]);
                self.closes = closes;
                Ok(true)
            }
            Request::Whole { .. } | Request::Wrong => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn understand<'a>(service: Service, pages: &'a Pages, received: &'a [u8]) -> Request<'a> {
    if service == Service::Http {
        return match memmem::find(received, b"\r\n\r\n") {
            Some(end) => {
                let (answer, closes) = pages.find(&received[..end + 2]);
                Request::Whole {
                    bytes: end + 4,
                    answer,
                    closes,
                }
            }
            None if received.len() > HEAD_BYTES_MAX => Request::Wrong,
            None => Request::Partial,
        };
    }
    if received.len() < MESSAGE_BYTES {
        return Request::Partial;
    }
    let bytes = message_bytes(received);
    if !(MESSAGE_BYTES..=MESSAGE_BYTES_MAX).contains(&bytes) {
        return Request::Wrong;
    }
    if received.len() < bytes {
        return Request::Partial;
    }
    Request::Whole {
        bytes,
        answer: &received[..bytes],
        closes: service == Service::Farewell,
    }
}
