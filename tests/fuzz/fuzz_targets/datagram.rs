//! Any bytes as a buffer that the kernel has filled with a datagram and what comes before it: what
//! is read lies within them, and is nothing that a reply could not be sent to.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::ring::received;
use tidegate::sys::datagram::control::messages;

fuzz_target!(|bytes: &[u8]| {
    for start in [0, bytes.len() / 2] {
        let area = &bytes[start..];
        let held: usize = messages(area).map(|message| message.data.len()).sum();
        assert!(held <= area.len());
    }
    // Half of the inputs have a sender, which chance alone seldom writes.
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut bytes = rest.to_vec();
    if first % 2 == 1 && bytes.len() > 18 {
        bytes[..8].copy_from_slice(&[32, 0, 0, 0, 128, 0, 0, 0]);
        bytes[16..18].copy_from_slice(&[2 + (first >> 1) % 2 * 8, 0]);
    }
    let Some(found) = received(&bytes) else {
        return;
    };
    let (offset, length) = (found.offset as usize, found.length as usize);
    assert!(offset + length <= bytes.len());
    assert!(found.segment.is_none_or(|size| size > 0 && usize::from(size) < length));
    assert_eq!(found.from.ip(), found.from.ip().to_canonical());
    assert!(found.to.is_none_or(|to| !to.is_multicast() && to == to.to_canonical()));
    if !found.truncated {
        assert_eq!(received(&bytes[..offset + length]), Some(found));
    }
});
