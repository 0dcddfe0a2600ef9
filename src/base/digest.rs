//! Hash functions of HAProxy's language, so that a key gives the number there that it gives here.
//!
//! They make 32 bits of a few bytes. None of them withstands an attacker, and some spread badly:
//! what places servers mixes their result once more (see `hash`). Each is checked against the
//! converters of a running haproxy.

/// The hash of the sdbm database: each byte after 65,599 times what was before.
pub fn sdbm(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |hash: u32, byte| {
        hash.wrapping_mul(65_599).wrapping_add(u32::from(*byte))
    })
}

/// Daniel J. Bernstein's: each byte after 33 times what was before.
pub fn djb2(bytes: &[u8]) -> u32 {
    bytes.iter().fold(5_381, |hash: u32, byte| {
        hash.wrapping_mul(33).wrapping_add(u32::from(*byte))
    })
}

/// Two words that each byte changes, that change places, and that say how far they are rotated
/// next.
pub fn wt6(bytes: &[u8]) -> u32 {
    let mut words = (0xa53c_965a_u32, 0x5ca6_953a_u32);
    let mut turns = (6, 18);
    for byte in bytes {
        let byte = u32::from(*byte);
        let changed = (!(words.0 ^ byte), !words.1.wrapping_add(byte));
        words = (
            changed.1.rotate_left(turns.0),
            changed.0.rotate_left(turns.1),
        );
        let mixed = ((words.0 >> 16) ^ words.1) & 0xffff;
        turns = (mixed & 0x1f, mixed >> 11);
    }
    words.0 ^ words.1
}

/// The CRC of Ethernet and zip.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc_table(0xedb8_8320);
    crc(&TABLE, bytes)
}

/// The CRC of Castagnoli, iSCSI and PROXY headers.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc_table(0x82f6_3b78);
    crc(&TABLE, bytes)
}

fn crc(table: &[u32; 256], bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)]
    })
}

/// What the eight bits of each byte add, for a polynomial with its bits reversed.
const fn crc_table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (polynomial * (crc & 1));
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// HAProxy's `avalanche`: Bob Jenkins' integer hash, in which every bit changes about half of the
/// others, times a prime near three quarters of the range.
pub fn avalanche(hash: u32) -> u32 {
    let add = |hash: u32, constant, shift| hash.wrapping_add(constant).wrapping_add(hash << shift);
    let hash = add(hash, 0x7ed5_5d16, 12);
    let hash = hash ^ 0xc761_c23c ^ (hash >> 19);
    let hash = add(hash, 0x1656_67b1, 5);
    let hash = hash.wrapping_add(0xd3a2_646c) ^ (hash << 9);
    let hash = add(hash, 0xfd70_46c5, 3);
    let hash = hash ^ 0xb55a_4f09 ^ (hash >> 16);
    hash.wrapping_mul(3_221_225_473)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the converters of haproxy 2.6 give for two addresses and two ports, as they are and
    /// with `avalanche`.
    #[test]
    fn numbers_are_those_of_haproxy() {
        let port = |port: i64| port.to_be_bytes();
        let check = |function: fn(&[u8]) -> u32, bytes: &[u8], plain, mixed| {
            assert_eq!(function(bytes), plain, "{bytes:?}");
            assert_eq!(avalanche(plain), mixed, "{bytes:?}");
        };
        let one = [127, 0, 0, 1];
        check(sdbm, &one, 350_326_466, 3_622_138_380);
        check(djb2, &one, 2_091_037_605, 3_988_247_591);
        check(wt6, &one, 2_242_437_889, 1_473_902_194);
        check(crc32, &one, 1_696_554_816, 1_038_299_657);
        check(crc32c, &one, 3_232_754_105, 240_433_822);
        let high = [127, 200, 3, 255];
        check(sdbm, &high, 2_002_824_517, 2_789_015_407);
        check(djb2, &high, 2_091_255_758, 2_581_518_596);
        check(wt6, &high, 3_474_643_360, 3_792_644_513);
        check(crc32, &high, 2_341_147_744, 435_944_976);
        check(crc32c, &high, 3_746_388_013, 4_086_339_662);
        check(sdbm, &port(49_683), 12_726_225, 868_938_018);
        check(djb2, &port(49_683), 2_075_353_882, 2_770_735_208);
        check(wt6, &port(49_683), 3_611_812_524, 1_276_339_184);
        check(crc32, &port(49_683), 407_907_195, 1_022_912_123);
        check(crc32c, &port(51_145), 1_236_187_706, 59_057_188);
    }

    /// The check values of the CRC catalogue.
    #[test]
    fn checksums_of_the_digits() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
