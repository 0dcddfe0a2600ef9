//! Servers that connection IDs name (`quic-lb`): draft-ietf-quic-load-balancers-21, configurations
//! without a key.
//!
//! A server writes its ID at the same place into each connection ID that it gives out, so a client
//! stays with it wherever its packets come from. What a client made up itself names nobody: the
//! first packets of a connection are balanced, also where their bytes happen to be some server's.
//! The draft would send these there; but then clients could choose their server, and whoever drains
//! a server would still see it get connections. What names nobody goes with its flow, which is the
//! draft's table by address and port, or begins one as `balance` says.

use std::collections::HashMap;

use super::quic::{self, Form};
use crate::config::plan::{Back, QuicLb};

/// The three bits of the first byte that say which configuration a connection ID is of.
const CONFIGURATION_SHIFT: u32 = 5;
/// The configuration of a server without one: its connection IDs name nobody. All others are the
/// one that `quic-lb` describes, so servers may rotate through them while they keep its layout.
const NO_CONFIGURATION: u8 = 0b111;

/// A server's ID with zeros behind it; all of a backend are of one length.
type Id = [u8; QuicLb::END_MAX];

/// The servers of a backend by their IDs.
#[derive(Debug)]
pub(in crate::lb) struct ServerIds {
    place: QuicLb,
    /// Their places in the backend.
    servers: HashMap<Id, usize>,
}

impl ServerIds {
    /// Those of a backend; `None` = no server has one.
    pub(in crate::lb) fn new(back: &Back) -> Option<ServerIds> {
        let place = back.quic_lb?;
        let ids = back.servers.iter().map(|server| &server.quic_id[..]);
        let known = ids.enumerate().filter_map(|(index, id)| {
            let is_one = !id.is_empty() && id.len() == usize::from(place.length);
            Some((padded(id).filter(|_| is_one)?, index))
        });
        let servers: HashMap<_, _> = known.collect();
        (!servers.is_empty()).then_some(ServerIds { place, servers })
    }

    /// The server that a datagram names: one that has given out the connection ID.
    pub(in crate::lb) fn find(&self, datagram: &[u8]) -> Option<usize> {
        let begin = usize::from(self.place.offset);
        let end = begin + usize::from(self.place.length);
        // How long connection IDs are in short headers doesn't matter behind the server's ID.
        let header = quic::read(datagram, end)?;
        match header.form {
            Form::Short | Form::Long => {}
            Form::Opening | Form::Negotiation => return None,
        }
        let id = header.destination.get(begin..end)?;
        // Where the ID begins with the first byte, there are no such bits.
        if begin > 0 && header.destination[0] >> CONFIGURATION_SHIFT == NO_CONFIGURATION {
            return None;
        }
        self.servers.get(&padded(id)?).copied()
    }
}

fn padded(id: &[u8]) -> Option<Id> {
    let mut padded = Id::default();
    padded.get_mut(..id.len())?.copy_from_slice(id);
    Some(padded)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{self, address, naming, picked};
    use super::super::super::{Admin, Backend, Health, Outcome, Pick, PickRequest};
    use super::super::quic::{VERSION_1, VERSION_2};
    use super::*;
    use crate::base::ids::ServerId;
    use crate::config::plan::Balance;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    fn short(id: &[u8]) -> Vec<u8> {
        [&[0x41], id, &[7; 30]].concat()
    }

    /// A long header with a first byte, of a version, to a connection ID.
    fn long(first: u8, version: u32, id: &[u8]) -> Vec<u8> {
        let length = [u8::try_from(id.len()).unwrap()];
        [&[first], &version.to_be_bytes()[..], &length, id, &[0; 30]].concat()
    }

    fn named(backend: &Backend, datagram: &[u8]) -> Option<u32> {
        let server = backend.server_of_datagram(datagram);
        server.map(|server| server.id.0)
    }

    /// Vectors of revision 05 of the draft: connection IDs and the servers' IDs in them. The layout
    /// is that of revision 21, which has one of its own that is whole (the last here).
    const VECTORS: [(&str, &str); 26] = [
        ("01be", "be"),
        ("0221b7", "21"),
        ("03cadfd8", "ca"),
        ("041e0c9328", "1e"),
        ("050c8f6d9129", "0c"),
        ("02aab0", "aab0"),
        ("3ac4b106", "c4b1"),
        ("08bd3cf4a0", "bd3c"),
        ("3771d59502d6", "71d5"),
        ("1d57dee8b888f3", "57de"),
        ("0336c976", "36c976"),
        ("04aa291806", "aa2918"),
        ("0586897bd8b6", "86897b"),
        ("063625bcae4de0", "3625bc"),
        ("07966fb1f3cb535f", "966fb1"),
        ("185172fab8", "5172fab8"),
        ("2eb7ff2c9297", "b7ff2c92"),
        ("14f3eb3dd3edbe", "f3eb3dd3"),
        ("3feb31cece744b74", "eb31cece"),
        ("06b9f34c353ce23bb5", "b9f34c35"),
        ("05bdcd8d0b1d", "bdcd8d0b1d"),
        ("06aee673725a63", "aee673725a"),
        ("07bbf338ddbf37f4", "bbf338ddbf"),
        ("08fbbca64c26756840", "fbbca64c26"),
        ("09e7737c495b93894e34", "e7737c495b"),
        ("07c4605e4504cc4f", "c4605e"),
    ];

    #[test]
    fn connection_ids_of_the_draft_name_their_servers() {
        for set in VECTORS.chunks(5) {
            let ids: Vec<_> = set.iter().map(|(_, id)| bytes(id)).collect();
            let place = QuicLb {
                offset: 1,
                length: u8::try_from(ids[0].len()).unwrap(),
            };
            let all: Vec<_> = ids.iter().map(|id| &id[..]).collect();
            let backend = naming(Balance::RoundRobin, place, &all);
            for (index, (connection, _)) in (0..).zip(set) {
                let connection = bytes(connection);
                for datagram in [
                    short(&connection),
                    long(0xe0, VERSION_1, &connection),
                    long(0xf0, VERSION_2, &connection),
                    long(0xc0, 0x1a2a_3a4a, &connection),
                ] {
                    assert_eq!(named(&backend, &datagram), Some(index), "{datagram:x?}");
                }
            }
        }
    }

    const PLACE: QuicLb = QuicLb {
        offset: 1,
        length: 2,
    };

    fn three(balance: Balance) -> Backend {
        naming(balance, PLACE, &[b"aa", b"bb", b"cc"])
    }

    #[test]
    fn what_no_server_has_given_out_names_nobody() {
        let backend = three(Balance::RoundRobin);
        let own = *b"\x07bb12345";
        assert_eq!(named(&backend, &short(&own)), Some(1));
        for datagram in [
            // The first packets of a connection, and what only servers send.
            long(0xc0, VERSION_1, &own),
            long(0xd0, VERSION_1, &own),
            long(0xd0, VERSION_2, &own),
            long(0xe0, VERSION_2, &own),
            long(0xc0, 0, &own),
            // IDs of nobody, of a server without a configuration, and too short ones.
            short(b"\x07dd12345"),
            short(b"\xe7bb12345"),
            long(0xe0, VERSION_1, b"\xffbb12345"),
            long(0xe0, VERSION_1, b"\x07b"),
            long(0xe0, VERSION_1, b""),
            b"\x41\x07b".to_vec(),
            b"A".to_vec(),
            Vec::new(),
        ] {
            assert_eq!(named(&backend, &datagram), None, "{datagram:x?}");
        }
        // Every other configuration does.
        for configuration in 0..7 {
            let id = [configuration << 5 | 7, b'c', b'c', 1, 2, 3];
            assert_eq!(named(&backend, &short(&id)), Some(2));
        }
        // Without a first byte of its own, an ID may be anything.
        let place = QuicLb {
            offset: 0,
            length: 1,
        };
        let backend = naming(Balance::RoundRobin, place, &[&[0xff]]);
        assert_eq!(named(&backend, &short(&[0xff, 1])), Some(0));
    }

    #[test]
    fn a_backend_without_ids_names_nobody() {
        for backend in [
            naming(Balance::RoundRobin, PLACE, &[b"", b""]),
            testing::backend(Balance::RoundRobin, &[(1, 0)]),
        ] {
            assert_eq!(named(&backend, &short(b"\x07aa1234")), None);
        }
    }

    /// Whichever way the backend balances, and wherever the client is now.
    #[test]
    fn a_named_server_comes_before_the_algorithm() {
        for balance in testing::ALL {
            let backend = three(balance);
            let datagram = short(b"\x07bb12345");
            for n in 0..20 {
                let request = PickRequest {
                    client: address(n),
                    datagram: Some(&datagram),
                    ..PickRequest::ANY
                };
                assert_eq!(picked(&backend.pick(request)), Some(1), "{balance:?}");
            }
            // Each has taken its count, which is given back as any.
            assert_eq!((backend.active(), backend.servers[1].active()), (20, 20));
            for _ in 0..20 {
                let server = &backend.servers[1];
                assert!(backend.release(server, Outcome::Completed).is_none());
            }
            assert_eq!(backend.active(), 0);
        }
    }

    #[test]
    fn new_connections_and_strangers_are_balanced() {
        let backend = three(Balance::RoundRobin);
        let (opening, unknown) = (long(0xc0, VERSION_1, b"\x07bb12345"), short(b"\x07xx12345"));
        for datagram in [&opening, &unknown, &b"no packet".to_vec()] {
            let request = PickRequest {
                datagram: Some(datagram),
                ..PickRequest::ANY
            };
            let all: Vec<_> = (0..6).map(|_| picked(&backend.pick(request))).collect();
            assert_eq!(all, [0, 1, 2, 0, 1, 2].map(Some));
        }
    }

    #[test]
    fn a_server_in_drain_keeps_its_connections_and_one_that_is_gone_does_not() {
        let backend = three(Balance::First);
        let datagram = short(b"\x07bb12345");
        let request = PickRequest {
            datagram: Some(&datagram),
            ..PickRequest::ANY
        };
        let now = |change: &dyn Fn(&crate::lb::Server)| {
            change(&backend.servers[1]);
            assert!(backend.publish().is_empty());
            let named = named(&backend, &datagram);
            (named, picked(&backend.pick(request)))
        };
        let known = (Some(1), Some(1));
        let unknown = (None, Some(0));
        assert_eq!(now(&|server| server.set_admin(Admin::Drain)), known);
        assert_eq!(now(&|server| server.set_health(Health::Down)), unknown);
        assert_eq!(now(&|server| server.set_health(Health::Up)), known);
        assert_eq!(now(&|server| server.set_admin(Admin::Maintenance)), unknown);
        assert_eq!(now(&|server| server.set_admin(Admin::Ready)), known);
        assert_eq!(now(&|server| server.set_weight(0)), known);
        // Also where nobody takes new connections any more.
        backend
            .servers
            .iter()
            .for_each(|s| s.set_admin(Admin::Drain));
        assert!(backend.publish().is_empty());
        assert_eq!(picked(&backend.pick(request)), Some(1));
        assert!(matches!(backend.pick(PickRequest::ANY), Pick::Refuse));
    }

    #[test]
    fn a_named_server_that_is_full_is_waited_for_and_one_that_failed_avoided() {
        let backend = three(Balance::RoundRobin);
        backend.servers[1].set_maxconn(1);
        let datagram = short(b"\x07bb12345");
        let request = PickRequest {
            datagram: Some(&datagram),
            ..PickRequest::ANY
        };
        assert_eq!(picked(&backend.pick(request)), Some(1));
        let full = backend.pick(request);
        assert!(matches!(
            full,
            Pick::Wait {
                only: Some(ServerId(1))
            }
        ));
        let again = PickRequest {
            avoid: Some(ServerId(1)),
            ..request
        };
        assert_ne!(picked(&backend.pick(again)), Some(1));
    }
}
