//! Datagrams one way, as fast as the sender can: what arrives is counted by the end points.
//!
//! Loss is no error here: nobody asks the sender to wait. What arrives is compared.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use super::{bulk, long_message, stamp};
use crate::sample::{Context, Void};
use crate::sys::{self, Batch};

/// Bytes of a datagram: what fits into every path, as QUIC has it.
pub(crate) const DATAGRAM_BYTES: usize = 1_200;
/// Flows that send in turn.
pub(crate) const FLOWS: u32 = 4;
/// Datagrams of one call of a sender, and of one train.
const BATCH: usize = 64;
pub(crate) const TRAIN: usize = 16;
/// How long nothing must arrive any more after the last one was sent.
const QUIET: Duration = Duration::from_millis(50);
const QUIET_WAIT_MAX: Duration = Duration::from_secs(3);

/// What the end points have received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) datagrams: u64,
    pub(crate) wrong: u64,
}

impl Arrived {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn to_bytes(self) -> [u8; Arrived::BYTES] {
        let mut bytes = [0; Arrived::BYTES];
        bytes[..8].copy_from_slice(&self.datagrams.to_le_bytes());
        bytes[8..].copy_from_slice(&self.wrong.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; Arrived::BYTES]) -> Arrived {
        let number = |at: usize| {
            let number = bytes[at..].first_chunk().copied();
            u64::from_le_bytes(number.unwrap_or_default())
        };
        Arrived {
            datagrams: number(0),
            wrong: number(8),
        }
    }
}

struct Flow {
    socket: UdpSocket,
    batch: Batch,
    sequence: u64,
}

/// Senders of datagrams, each to the same address.
pub(crate) struct OneWay {
    flows: Vec<Flow>,
    /// Datagrams of a slot of a batch.
    per_slot: usize,
    /// Asks the end points for their count.
    control: UdpSocket,
    pub(crate) sent: u64,
}

impl OneWay {
    /// Opens the flows; `trains` has the kernel cut what each call sends, and `control` is where
    /// the end points tell what arrived.
    pub(crate) fn open(
        address: SocketAddrV4,
        control: SocketAddr,
        trains: bool,
    ) -> Result<OneWay, Void> {
        let pattern = bulk::pattern();
        let per_slot = if trains { TRAIN } else { 1 };
        let mut flows = Vec::new();
        for index in 0..FLOWS {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            if trains {
                sys::cut_sends(&socket, DATAGRAM_BYTES as i32).context("UDP_SEGMENT")?;
            }
            let length = per_slot * DATAGRAM_BYTES;
            let mut batch = Batch::new(BATCH / per_slot, length + 64);
            let datagram = long_message(index, DATAGRAM_BYTES, &pattern);
            for slot in 0..batch.slots() {
                let bytes = batch.set(slot, length, address);
                for piece in bytes.chunks_mut(DATAGRAM_BYTES) {
                    piece.copy_from_slice(&datagram);
                }
            }
            flows.push(Flow {
                socket,
                batch,
                sequence: 0,
            });
        }
        let asking = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        asking.connect(control)?;
        asking.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(OneWay {
            flows,
            per_slot,
            control: asking,
            sent: 0,
        })
    }

    /// Sends until the deadline.
    pub(crate) fn run_until(&mut self, deadline: Instant) -> Result<(), Void> {
        while Instant::now() < deadline {
            for flow in &mut self.flows {
                let slots = flow.batch.slots();
                for slot in 0..slots {
                    for piece in flow.batch.bytes_mut(slot).chunks_mut(DATAGRAM_BYTES) {
                        flow.sequence += 1;
                        stamp(piece, flow.sequence);
                    }
                }
                let sent = flow.batch.send(&flow.socket, slots).context("send")?;
                self.sent += (sent * self.per_slot) as u64;
            }
        }
        Ok(())
    }

    /// What has arrived so far.
    pub(crate) fn arrived(&self) -> Result<Arrived, Void> {
        let mut bytes = [0; Arrived::BYTES];
        self.control.send(&[0]).context("ask the end points")?;
        self.control
            .recv(&mut bytes)
            .context("count of the end points")?;
        Ok(Arrived::from_bytes(bytes))
    }

    /// What has arrived when nothing more does.
    pub(crate) fn arrived_in_the_end(&self) -> Result<Arrived, Void> {
        let deadline = Instant::now() + QUIET_WAIT_MAX;
        let mut before = self.arrived()?;
        loop {
            std::thread::sleep(QUIET);
            let now = self.arrived()?;
            if now == before {
                return Ok(now);
            }
            if Instant::now() >= deadline {
                return Err(Void("datagrams do not stop to arrive".to_owned()));
            }
            before = now;
        }
    }
}
