//! The hash of hash balancing: small, the same on every machine and in every version.
//!
//! Which server a client gets must not change with a restart, an upgrade or the CPU, and two
//! balancers with the same configuration must agree. The hash is therefore fixed here, and its seed
//! is public (`Plan::global.hash_seed`). It spreads well but withstands no attacker: tables that
//! strangers fill need a hash with a secret key instead.
//!
//! The mixing step is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable
//! pseudorandom number generators", OOPSLA 2014, with the constants of Stafford's variant 13): a
//! bijection of 64 bits in which every input bit flips every output bit with a probability near one
//! half.

/// 2^64 divided by the golden ratio: the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes a word: equal words give equal results, and different words always different ones.
#[inline]
pub fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The `index`-th number of the SplitMix64 sequence that starts at `seed`.
#[inline]
pub fn sequence(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// Hashes bytes, eight at a time as little-endian words; the length counts too, so that trailing
/// zeros make a difference.
pub fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(seed.wrapping_add(GOLDEN) ^ bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = mix(state.wrapping_add(GOLDEN) ^ u64::from_le_bytes(word));
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published first outputs of SplitMix64 from seed 0, and values that must never change.
    #[test]
    fn is_the_same_for_ever() {
        assert_eq!(sequence(0, 0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(sequence(0, 1), 0x6e78_9e6a_a1b9_65f4);
        assert_eq!(sequence(0, 2), 0x06c4_5d18_8009_454f);
        assert_eq!(hash_bytes(0, b""), 0xe220_a839_7b1d_cdaf);
        assert_eq!(hash_bytes(0, &[127, 0, 0, 1]), 0x4a72_1c70_a868_ff9f);
        assert_eq!(hash_bytes(1, &[127, 0, 0, 1]), 0x0a3f_8744_3b4c_e1cb);
        assert_eq!(
            hash_bytes(0, b"2001:db8::1 and more"),
            0xacc3_d9d9_687d_43f5
        );
    }

    #[test]
    fn length_and_seed_count() {
        assert_ne!(hash_bytes(0, &[1]), hash_bytes(0, &[1, 0]));
        assert_ne!(hash_bytes(0, &[0; 8]), hash_bytes(0, &[0; 16]));
        assert_ne!(hash_bytes(0, b"same"), hash_bytes(1, b"same"));
    }

    /// Every bit of an IPv4 address flips about half of the result's 64 bits.
    #[test]
    fn neighbours_differ_in_half_their_bits() {
        for bit in 0..32 {
            let mut flips = 0;
            for address in 0..1000u32 {
                let other = address ^ (1 << bit);
                let a = hash_bytes(7, &address.to_be_bytes());
                let b = hash_bytes(7, &other.to_be_bytes());
                flips += (a ^ b).count_ones();
            }
            // 64,000 fair coins have a standard deviation of 126: six of them on either side.
            assert!((31_240..=32_760).contains(&flips), "bit {bit}: {flips}");
        }
    }
}
