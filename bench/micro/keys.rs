//! What a datagram is balanced by: read for every flow, and for every datagram where connection
//! IDs name servers.

use std::hint::black_box;

use criterion::{Criterion, Throughput};

use tidegate::lb::datagram::{krpc, quic};

/// A query for the peers of a torrent, as common nodes send it (BEP 5, with a version).
const GET_PEERS: &[u8] = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e\
    1:q9:get_peers1:t2:aa1:v4:LT\x01\x021:y1:qe";

/// The beginning of a client's first packet (RFC 9001, appendix A.2).
const INITIAL: &[u8] = b"\xc0\0\0\0\x01\x08\x83\x94\xc8\xf0\x3e\x51\x57\x08\0\0\x44\x9e";

/// A packet with a short header.
const SHORT: &[u8] = b"\x41\x83\x94\xc8\xf0\x3e\x51\x57\x08 and what is encrypted";

/// Bytes of connection IDs in short headers.
const SHORT_LENGTH: usize = 8;

/// `krpc` is one message, `quic` a packet with a long header and one with a short one.
pub(crate) fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("key");
    group.throughput(Throughput::Elements(1));
    group.bench_function("krpc", |bencher| {
        bencher.iter(|| krpc::key(black_box(GET_PEERS)).expect("it has a key"));
    });
    group.throughput(Throughput::Elements(2));
    group.bench_function("quic", |bencher| {
        let read = |packet| quic::read(black_box(packet), SHORT_LENGTH).expect("it is a packet");
        bencher.iter(|| (read(INITIAL), read(SHORT)));
    });
}
