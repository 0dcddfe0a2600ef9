//! Any bytes as the beginning of a stream with a PROXY header: what a part of them says holds for
//! the whole, and what is kept is well formed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::flow::proxy_protocol::parse::{Parsed, parse};
use tidegate::flow::proxy_protocol::tlv::fields;
use tidegate::limits::PROXY_HEADER_MAX;

fuzz_target!(|bytes: &[u8]| {
    // Half of the inputs begin as a header of version 2 does: chance alone seldom gets so far.
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let bytes = match first % 2 {
        0 => rest.to_vec(),
        _ => [&tidegate::flow::proxy_protocol::SIGNATURE[..], rest].concat(),
    };
    let whole = parse(&bytes, PROXY_HEADER_MAX);
    if let Parsed::Header(header, length) = &whole {
        assert!(*length <= bytes.len() && *length <= PROXY_HEADER_MAX);
        assert_eq!(parse(&bytes[..*length], PROXY_HEADER_MAX), whole);
        let kept = header.tlvs.as_deref().unwrap_or_default();
        assert!(kept.len() < *length && fields(kept).all(|field| field.is_ok()));
        assert!(header.tlvs.is_none() || !kept.is_empty());
    }
    // A part is the beginning of a header, or says what the whole says.
    let step = (bytes.len() / 64).max(1);
    for length in (0..bytes.len()).step_by(step) {
        let part = parse(&bytes[..length], PROXY_HEADER_MAX);
        assert!(part == Parsed::More || part == whole, "{length} of {bytes:?}");
    }
});
