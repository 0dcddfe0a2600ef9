//! Datagrams on the scripted network.

use std::io;

use super::Scripted;
use crate::ring::datagram::{
    Arrival, DatagramKernel, DatagramOptions, Inbox, Outgoing, Payload, Undelivered,
};
use crate::ring::{Completion, Errno, Fd, Token};

impl DatagramKernel for Scripted {
    fn prepare_datagrams(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn receive_datagrams(&mut self, _fd: Fd, _inbox: Inbox, _token: Token) {}

    fn arrival(&mut self, _inbox: Inbox, _completion: &Completion) -> Option<Arrival> {
        None
    }

    fn payload(&self, _payload: Payload) -> &[u8] {
        &[]
    }

    fn return_buffer(&mut self, _inbox: Inbox, _buffer: u16) {}

    fn inbox_available(&self, _inbox: Inbox) -> usize {
        0
    }

    fn send_datagrams(&self, _fd: Fd, _outgoing: &Outgoing<'_>) -> Result<(), Errno> {
        Err(Errno(libc::ENOSYS))
    }

    fn open_datagram_socket(&self, _options: &DatagramOptions) -> Result<Fd, Errno> {
        Err(Errno(libc::ENOSYS))
    }

    fn undelivered(&self, _fd: Fd) -> Option<Undelivered> {
        None
    }

    fn datagrams_dropped(&self, _fd: Fd) -> u32 {
        0
    }
}
