//! What shards ask of the network for datagrams, the receiving excepted.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Datagram, LENGTH_MAX, Network, PORT_FIRST, SEGMENTS_MAX, Socket, Target, Way};
use crate::base::source::Foreign;
use crate::ring::datagram::{DatagramOptions, Outgoing, Undelivered, UndeliveredReason};

impl Network {
    /// A shard sends.
    pub(in crate::ring::scripted) fn send_datagrams(
        &mut self,
        fd: i32,
        outgoing: &Outgoing<'_>,
    ) -> Result<(), i32> {
        let settings = self.datagrams.settings.clone();
        let full = self.random.chance(settings.full);
        let unreachable = self.random.chance(settings.unreachable);
        let no_way = self.random.pick(&[libc::ENETUNREACH, libc::EHOSTUNREACH]);
        let cut = !self.random.chance(settings.segments_refused);
        let uncut = self.random.pick(&[libc::EINVAL, libc::EIO, libc::EMSGSIZE]);
        let room = self.random.pick(&[libc::EAGAIN, libc::ENOBUFS]);
        let socket = self.datagram_socket(fd);
        let to = match (outgoing.to, socket.connected) {
            (None, Some(to)) | (Some(to), None) => to,
            (None, None) => panic!("a datagram to nobody"),
            (Some(_), Some(_)) => panic!("a connected socket knows its peer"),
        };
        let from = socket.leaves_from(outgoing.from, to);
        assert_eq!(from.is_ipv6(), to.is_ipv6(), "a datagram of two families");
        let bytes: Vec<u8> = outgoing
            .parts
            .iter()
            .flat_map(|part| part.to_vec())
            .collect();
        let traffic_class = outgoing.traffic_class;
        let (listens, fragment) = (socket.listens, socket.fragment);
        let pieces: Vec<Datagram> = match outgoing.segment {
            Some(0) => panic!("datagrams of no length sent together"),
            Some(size) => bytes.chunks(size.into()).map(<[u8]>::to_vec).collect(),
            None => vec![bytes.clone()],
        }
        .into_iter()
        .map(|bytes| Datagram {
            from,
            to,
            traffic_class,
            bytes,
        })
        .collect();
        let error = std::mem::take(&mut socket.error);
        let unfragmented_max = settings.unfragmented_max;
        let result = match outgoing.segment {
            _ if error != 0 => Err(error),
            _ if full => Err(room),
            _ if unreachable => Err(no_way),
            Some(_) if !cut => Err(uncut),
            Some(size) if pieces.len() > SEGMENTS_MAX || usize::from(size) > unfragmented_max => {
                Err(libc::EINVAL)
            }
            None if !fragment && bytes.len() > unfragmented_max => Err(libc::EMSGSIZE),
            _ if bytes.len() > LENGTH_MAX => Err(libc::EMSGSIZE),
            _ => Ok(()),
        };
        for piece in pieces {
            self.note_passed(listens, Way::Out(result), &piece);
            let length = piece.bytes.len();
            if result.is_err() {
                continue;
            }
            if fragment || length <= settings.path_max {
                self.send_on_its_way(piece);
            } else {
                let room = u32::try_from(settings.path_max).expect("bytes of a datagram");
                let reason = UndeliveredReason::TooLarge(room);
                self.tell_sender(&piece, libc::EMSGSIZE, reason);
            }
        }
        result
    }

    /// A shard opens a socket towards servers.
    pub(in crate::ring::scripted) fn open_datagrams(
        &mut self,
        options: &DatagramOptions,
    ) -> Result<i32, i32> {
        let odds = self.datagrams.settings.open_refused;
        if self.random.chance(odds) {
            let errors = [libc::EMFILE, libc::ENOBUFS, libc::EADDRINUSE];
            return Err(self.random.pick(&errors));
        }
        let any = SocketAddr::new(
            match options.ipv6 {
                true => IpAddr::from([0; 16]),
                false => Ipv4Addr::UNSPECIFIED.into(),
            },
            0,
        );
        let (ip, ports) = match options.source.map(|source| (source, source.foreign)) {
            None => (any.ip(), None),
            Some((_, Some(Foreign::Fixed(address)))) => {
                let port = Some(address.port()).filter(|port| *port != 0);
                (address.ip(), port.map(|port| (port, port)))
            }
            Some((_, Some(_))) => panic!("a socket for a client that isn't named"),
            Some((source, None)) => (source.ip.unwrap_or(any.ip()), source.ports),
        };
        if ip.is_ipv6() != options.ipv6 {
            return Err(libc::EAFNOSUPPORT);
        }
        let shared = options.connected.is_some() && ip != any.ip();
        let taken = |port: &u16| {
            let mut sockets = self.datagrams.sockets.iter();
            sockets.any(|socket| {
                let same = socket.bound == SocketAddr::new(ip, *port);
                let beside = shared && socket.connected.is_some();
                socket.open && same && !(beside && socket.connected != options.connected)
            })
        };
        let port = match ports {
            Some((low, high)) => (low..=high).find(|port| !taken(port)),
            None => {
                let made = self.datagrams.ports_made;
                let next = (0..u16::MAX - PORT_FIRST)
                    .map(|n| PORT_FIRST + made.wrapping_add(n) % (u16::MAX - PORT_FIRST));
                next.into_iter().find(|port| !taken(port))
            }
        };
        let port = port.ok_or(libc::EADDRINUSE)?;
        self.datagrams.ports_made = self.datagrams.ports_made.wrapping_add(1);
        let target = self.add_datagram_socket(Socket {
            bound: SocketAddr::new(ip, port),
            connected: options.connected,
            fragment: options.fragment,
            listens: false,
            open: true,
            queue: VecDeque::new(),
            dropped: 0,
            error: 0,
            undelivered: VecDeque::new(),
        });
        let opened = self.open_descriptor(target);
        if opened.is_none() {
            self.datagrams.sockets.pop();
        }
        self.note(|| format!("  opened {opened:?} on {ip} {port}"));
        opened.ok_or(libc::EMFILE)
    }

    pub(in crate::ring::scripted) fn close_datagrams(&mut self, index: usize) {
        let socket = &mut self.datagrams.sockets[index];
        socket.open = false;
        socket.queue.clear();
    }

    pub(in crate::ring::scripted) fn next_undelivered(&mut self, fd: i32) -> Option<Undelivered> {
        let next = self.datagram_socket(fd).undelivered.pop_front()?;
        if matches!(next.reason, UndeliveredReason::TooLarge(_)) {
            self.datagrams.told_too_large += 1;
        }
        Some(next)
    }

    pub(in crate::ring::scripted) fn datagrams_dropped(&mut self, fd: i32) -> u32 {
        self.datagram_socket(fd).dropped
    }

    /// Own address and peer of a datagram socket; `None` if it is something else.
    pub(in crate::ring::scripted) fn datagram_addresses(
        &mut self,
        fd: i32,
    ) -> Option<(SocketAddr, Option<SocketAddr>)> {
        match self.descriptor(fd).target {
            Target::Datagrams(index) => {
                let socket = &self.datagrams.sockets[index];
                Some((socket.bound, socket.connected))
            }
            Target::Stream(_) | Target::Listener(_) => None,
        }
    }
}
