//! Any bytes as a QUIC packet: the connection ID that is found is the part of it where its header
//! says, and what follows the header changes nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::lb::datagram::quic::{CID_LENGTH_MAX, Form, VERSION_1, VERSION_2, read};

fuzz_target!(|input: (u8, &[u8])| {
    let (short_length, bytes) = input;
    let short_length = usize::from(short_length) % (CID_LENGTH_MAX + 1);
    any(bytes, short_length);
    // Chance alone seldom makes a known version.
    if let Some((first, rest)) = bytes.split_first() {
        for version in [VERSION_1, VERSION_2, 0] {
            let packet = [&[first | 0x80], &version.to_be_bytes()[..], rest].concat();
            any(&packet, short_length);
        }
    }
});

fn any(bytes: &[u8], short_length: usize) {
    let Some(header) = read(bytes, short_length) else {
        return;
    };
    let is_short = bytes[0] & 0x80 == 0;
    assert_eq!(header.form == Form::Short, is_short);
    let (begin, length) = match is_short {
        true => (1, short_length),
        false => (6, usize::from(bytes[5])),
    };
    let end = begin + length;
    assert_eq!(header.destination, &bytes[begin..end]);
    let known = [VERSION_1, VERSION_2].map(u32::to_be_bytes);
    if !is_short && known.iter().any(|version| bytes[1..5] == version[..]) {
        assert!(length <= CID_LENGTH_MAX);
    }
    let header_end = match is_short {
        true => end,
        false => end + 1 + usize::from(bytes[end]),
    };
    assert_eq!(read(&bytes[..header_end], short_length), Some(header));
    assert_eq!(read(&bytes[..header_end - 1], short_length), None);
}
