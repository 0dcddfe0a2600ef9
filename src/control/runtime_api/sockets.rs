//! `_getsocks`: the listening sockets on their way to a successor (`-x`).
//!
//! Private to Tidegate, as HAProxy's is to HAProxy. A batch is its length in four bytes, to which
//! the descriptors are attached, and the names of their keys, a line each; a batch of length 0 is
//! the last. The successor adopts what has the name of a listener of its own.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};

use super::Client;
use super::listen::Grant;
use crate::config::plan::Level;
use crate::control::listeners::Registry;
use crate::sys::socket::{self, DESCRIPTORS_PER_MESSAGE_MAX};

const COMMAND: &str = "_getsocks";

/// Longest wait of a successor for any one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names of a batch: a line each, of a length that no key reaches.
const NAMES_BYTES_MAX: usize = DESCRIPTORS_PER_MESSAGE_MAX * 4096;

/// The client, if it asks for the listening sockets and may have them.
pub(super) fn asked_for<'a, S: Client>(
    line: &str,
    client: &'a mut S,
    grant: Grant,
) -> Option<&'a mut tokio::net::UnixStream> {
    let may = grant.exposes_listeners && grant.level == Level::Admin;
    client.as_unix().filter(|_| may && line.trim() == COMMAND)
}

/// Sends duplicates of all sockets.
pub(super) async fn send(
    client: &mut tokio::net::UnixStream,
    registry: &Mutex<Registry>,
    handed_over: &AtomicBool,
    timeout: Duration,
) -> io::Result<()> {
    let sockets = duplicates(registry)?;
    for batch in sockets.chunks(DESCRIPTORS_PER_MESSAGE_MAX) {
        let names: String = batch.iter().map(|(name, _)| format!("{name}\n")).collect();
        let length = u32::try_from(names.len()).unwrap_or(u32::MAX).to_be_bytes();
        let descriptors: Vec<BorrowedFd<'_>> = batch.iter().map(|(_, s)| s.as_fd()).collect();
        let sending = client.async_io(Interest::WRITABLE, || {
            socket::send_descriptors(client.as_fd(), &length, &descriptors)
        });
        tokio::time::timeout(timeout, sending)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        super::session::write(client, names.as_bytes(), timeout).await?;
    }
    super::session::write(client, &0u32.to_be_bytes(), timeout).await?;
    handed_over.store(true, Relaxed);
    client.shutdown().await
}

fn duplicates(registry: &Mutex<Registry>) -> io::Result<Vec<(String, OwnedFd)>> {
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    registry
        .export()
        .map(|(key, socket)| Ok((key.name(), socket.try_clone_to_owned()?)))
        .collect()
}

/// Asks the process behind a runtime socket for its listening sockets.
pub fn fetch(path: &Path) -> io::Result<Vec<(String, OwnedFd)>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{COMMAND}\n").as_bytes())?;
    let refused = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
    let mut sockets = Vec::new();
    loop {
        let mut length = [0; 4];
        let mut descriptors = Vec::new();
        let count = socket::receive_descriptors(stream.as_fd(), &mut length, &mut descriptors)?;
        stream.read_exact(&mut length[count..])?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 {
            return Ok(sockets);
        }
        if length > NAMES_BYTES_MAX {
            // The beginning of a text.
            return Err(refused(
                "it doesn't hand its sockets out; its 'stats socket' needs 'level admin' and \
                 'expose-fd listeners'",
            ));
        }
        let mut names = vec![0; length];
        stream.read_exact(&mut names)?;
        let names = String::from_utf8(names).map_err(|_| refused("unreadable names"))?;
        if names.lines().count() != descriptors.len() {
            return Err(refused("descriptors are missing"));
        }
        sockets.extend(names.lines().map(str::to_owned).zip(descriptors));
    }
}
