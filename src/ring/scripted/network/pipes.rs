//! Pipes of the network: bounded, with splices that move less than they could.

use std::collections::VecDeque;

use super::super::socket::{Read, SocketId};
use super::Network;

/// First descriptor: apart from sockets.
const DESCRIPTOR_FIRST: usize = 1_000_000;

/// A pipe.
#[derive(Debug, Default)]
pub(super) struct VirtualPipe {
    bytes: VecDeque<u8>,
    size: usize,
}

impl Network {
    /// Makes a pipe: its two descriptors and its size, which may be less than was asked for.
    pub(in super::super) fn make_pipe(&mut self, size: u32) -> Result<([i32; 2], u32), i32> {
        if self.random.chance(self.settings.pipe_refused) {
            return Err(self.random.pick(&[libc::EMFILE, libc::ENFILE]));
        }
        let size = match self.random.chance(self.settings.pipe_refused) {
            true => 8 << 10,
            false => size,
        };
        let pipe = Some(VirtualPipe {
            bytes: VecDeque::new(),
            size: size as usize,
        });
        let place = self.pipes.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.pipes.push(None);
            self.pipes.len() - 1
        });
        self.pipes[place] = pipe;
        let output = i32::try_from(DESCRIPTOR_FIRST + 2 * place).expect("few pipes");
        self.note(|| format!("  pipe {output} of {size}"));
        Ok(([output, output + 1], size))
    }

    /// Pipes open now.
    pub fn pipes_open(&self) -> usize {
        self.pipes.iter().flatten().count()
    }

    fn place(&self, fd: i32) -> usize {
        let place = usize::try_from(fd).ok();
        let place = place.and_then(|fd| fd.checked_sub(DESCRIPTOR_FIRST));
        place.unwrap_or_else(|| panic!("descriptor {fd} is not a pipe")) / 2
    }

    fn pipe(&mut self, fd: i32) -> &mut VirtualPipe {
        let place = self.place(fd);
        let pipe = self.pipes.get_mut(place).and_then(Option::as_mut);
        pipe.unwrap_or_else(|| panic!("pipe {fd} is not open"))
    }

    /// Closes both ends of a pipe.
    pub(in super::super) fn close_pipe(&mut self, fd: i32) {
        let left = self.pipe(fd).bytes.len();
        self.note(|| format!("  close of pipe {fd} with {left} bytes"));
        let place = self.place(fd);
        self.pipes[place] = None;
    }

    /// A socket that can't be spliced.
    fn is_unfit(&self, id: SocketId) -> bool {
        self.settings.splice_unfit && id.0 % 5 == 3
    }

    /// Moves from a socket into a pipe.
    pub(in super::super) fn splice_in(
        &mut self,
        id: SocketId,
        fd: i32,
        length: u32,
    ) -> Result<usize, i32> {
        assert!(length > 0, "a splice of nothing");
        let pipe = self.pipe(fd);
        let mut room = pipe.size - pipe.bytes.len();
        if self.is_unfit(id) {
            return Err(libc::EINVAL);
        }
        if room == 0 || self.random.chance(self.settings.spurious) {
            return Err(libc::EAGAIN);
        }
        if self.random.chance(200) {
            // Small pieces take a whole page each.
            room = 1 + self.random.place(room);
        }
        match self.read(id, room.min(length as usize)) {
            Read::Bytes(bytes) => {
                let count = bytes.len();
                self.pipe(fd).bytes.extend(bytes);
                Ok(count)
            }
            Read::End => Ok(0),
            Read::Empty => Err(libc::EAGAIN),
            Read::Error(errno) => Err(errno),
        }
    }

    /// Moves from a pipe to a socket.
    pub(in super::super) fn splice_out(
        &mut self,
        fd: i32,
        id: SocketId,
        length: u32,
    ) -> Result<usize, i32> {
        let mut most = self.pipe(fd).bytes.len().min(length as usize);
        assert!(most > 0, "a splice out of an empty pipe");
        if self.is_unfit(id) {
            return Err(libc::EINVAL);
        }
        if self.random.chance(200) {
            most = 1 + self.random.place(most);
        }
        let bytes: Vec<u8> = self.pipe(fd).bytes.iter().take(most).copied().collect();
        let count = self.write(id, &[&bytes])?;
        self.pipe(fd).bytes.drain(..count);
        // Nothing tells that the socket is full but the next call.
        if count == 0 {
            Err(libc::EAGAIN)
        } else {
            Ok(count)
        }
    }

    /// Takes bytes out of a pipe.
    pub(in super::super) fn read_pipe(&mut self, fd: i32, buffer: &mut [u8]) -> Result<usize, i32> {
        let most = self.pipe(fd).bytes.len().min(buffer.len());
        if most == 0 {
            return Err(libc::EAGAIN);
        }
        let count = 1 + self.random.place(most);
        for (to, byte) in buffer.iter_mut().zip(self.pipe(fd).bytes.drain(..count)) {
            *to = byte;
        }
        Ok(count)
    }
}
