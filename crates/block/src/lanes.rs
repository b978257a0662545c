#![allow(
    unsafe_code,
    reason = "the processor's SHA instructions can only be used after asking for them at run time"
)]
//! SHA-256 of several messages of one length at once. One message cannot keep a core's SHA unit busy: each round waits for the one
//! before. Four messages side by side take less than half the time that they take one after another.

/// Bytes of one step of SHA-256.
const STEP: usize = 64;

/// The SHA-256 states of `N` messages after their first bytes, which are as many whole steps for each; `None` where the processor
/// has no SHA instructions.
pub(crate) fn compress<const N: usize>(messages: [&[u8]; N]) -> Option<[[u32; 8]; N]> {
    assert!(messages.iter().all(|message| message.len() == messages[0].len()), "messages of one length");
    assert!(messages[0].len().is_multiple_of(STEP), "whole steps");
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("sha")
        && std::is_x86_feature_detected!("sse4.1")
        && std::is_x86_feature_detected!("ssse3")
    {
        let mut states = [x86::INITIAL; N];
        // SAFETY: the processor has just been asked for all that the function is compiled for.
        unsafe { x86::compress(&mut states, messages) };
        return Some(states);
    }
    None
}

/// One more step for one state.
pub(crate) fn step(state: &mut [u32; 8], bytes: &[u8; STEP]) {
    #[cfg(target_arch = "x86_64")]
    {
        let mut states = [*state];
        // SAFETY: a state comes from `compress`, which asked the processor.
        unsafe { x86::compress(&mut states, [bytes]) };
        *state = states[0];
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (state, bytes);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
    };

    use super::STEP;

    /// FIPS 180-4, 5.3.3.
    pub(super) const INITIAL: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    /// FIPS 180-4, 4.2.2.
    #[rustfmt::skip]
    const K: [u32; 64] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ];

    /// Adds whole steps of messages of one length to their states.
    ///
    /// # Safety
    /// The processor has the named instructions; the messages have one length, a multiple of [`STEP`].
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    pub(super) unsafe fn compress<const N: usize>(states: &mut [[u32; 8]; N], messages: [&[u8]; N]) {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        // The instructions want the state as (A, B, E, F) and (C, D, G, H).
        let mut abef = [_mm_setzero_si128(); N];
        let mut cdgh = abef;
        for lane in 0..N {
            // SAFETY: eight numbers are 32 bytes.
            let (dcba, hgfe) =
                unsafe { (load(states[lane].as_ptr().cast()), load(states[lane][4..].as_ptr().cast())) };
            let cdab = _mm_shuffle_epi32(dcba, 0xb1);
            let efgh = _mm_shuffle_epi32(hgfe, 0x1b);
            abef[lane] = _mm_alignr_epi8(cdab, efgh, 8);
            cdgh[lane] = _mm_blend_epi16(efgh, cdab, 0xf0);
        }
        for at in (0..messages[0].len()).step_by(STEP) {
            let (abef_before, cdgh_before) = (abef, cdgh);
            let mut words = [[_mm_setzero_si128(); 4]; N];
            for lane in 0..N {
                for (quarter, word) in words[lane].iter_mut().enumerate() {
                    // SAFETY: the step that begins at `at` has 64 bytes in each message.
                    let bytes = unsafe { load(messages[lane].as_ptr().add(at + quarter * 16)) };
                    *word = _mm_shuffle_epi8(bytes, swap);
                }
            }
            macro_rules! four_rounds {
                ($($group:literal)*) => { $(
                    // SAFETY: `K` has 16 groups of four numbers.
                    let k = unsafe { load(K.as_ptr().add($group * 4).cast()) };
                    for lane in 0..N {
                        let words = &mut words[lane];
                        let (new, second, third, last) = ($group % 4, ($group + 1) % 4, ($group + 2) % 4, ($group + 3) % 4);
                        if $group >= 4 {
                            let sigma = _mm_sha256msg1_epu32(words[new], words[second]);
                            let sum = _mm_add_epi32(sigma, _mm_alignr_epi8(words[last], words[third], 4));
                            words[new] = _mm_sha256msg2_epu32(sum, words[last]);
                        }
                        let sum = _mm_add_epi32(words[new], k);
                        cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], sum);
                        abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(sum, 0x0e));
                    }
                )* };
            }
            four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for lane in 0..N {
                abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
                cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
            }
        }
        for lane in 0..N {
            let feba = _mm_shuffle_epi32(abef[lane], 0x1b);
            let dchg = _mm_shuffle_epi32(cdgh[lane], 0xb1);
            let (first, second) = (_mm_blend_epi16(feba, dchg, 0xf0), _mm_alignr_epi8(dchg, feba, 8));
            // SAFETY: eight numbers are 32 bytes.
            unsafe {
                _mm_storeu_si128(states[lane].as_mut_ptr().cast(), first);
                _mm_storeu_si128(states[lane][4..].as_mut_ptr().cast(), second);
            }
        }
    }

    /// 16 bytes from anywhere.
    ///
    /// # Safety
    /// 16 bytes can be read there.
    #[target_feature(enable = "sse2")]
    unsafe fn load(from: *const u8) -> __m128i {
        // SAFETY: as the caller promises.
        unsafe { _mm_loadu_si128(from.cast()) }
    }
}
