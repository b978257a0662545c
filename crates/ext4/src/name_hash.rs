//! The hash of a file name by which an indexed folder is sorted: half of MD4, over signed characters.

/// A name's place in an indexed folder. Blocks are divided by `major`; `minor` only breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NameHash {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// Marks the end of a folder while it is read; no name may hash to it.
const END_OF_FOLDER: u32 = 0x7fff_ffff << 1;

const INITIAL: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Hashes `name` with the volume's `seed` (four little-endian words; all zero stands for MD4's own start).
pub(crate) fn half_md4(name: &[u8], seed: &[u8; 16]) -> NameHash {
    let (words, _) = seed.as_chunks::<4>();
    let mut state = INITIAL;
    if seed.iter().any(|byte| *byte != 0) {
        for (word, bytes) in state.iter_mut().zip(words) {
            *word = u32::from_le_bytes(*bytes);
        }
    }
    let mut rest = name;
    while !rest.is_empty() {
        mix(&mut state, &block_of(rest));
        rest = &rest[rest.len().min(32)..];
    }
    let mut major = state[1] & !1;
    if major == END_OF_FOLDER {
        major = (0x7fff_ffff - 1) << 1;
    }
    NameHash { major, minor: state[2] }
}

/// The next 32 characters of a name as eight words; what is missing is filled with the remaining length.
fn block_of(rest: &[u8]) -> [u32; 8] {
    let length = rest.len() as u32;
    let padding = (length & 0xff) * 0x0101_0101;
    let mut block = [padding; 8];
    for (word, characters) in block.iter_mut().zip(rest.chunks(4)) {
        for character in characters {
            // Signed characters, as on x86: the superblock's flags say so.
            *word = (*word << 8).wrapping_add(*character as i8 as u32);
        }
    }
    block
}

fn mix(state: &mut [u32; 4], block: &[u32; 8]) {
    const ROUNDS: [(u32, [usize; 8], [u32; 4]); 3] = [
        (0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (0x5a82_7999, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (0x6ed9_eba1, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let choose = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let majority = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let parity = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let [mut a, mut b, mut c, mut d] = *state;
    for (round, (constant, order, shifts)) in ROUNDS.iter().enumerate() {
        for (step, word) in order.iter().enumerate() {
            let mixed = match round {
                0 => choose(b, c, d),
                1 => majority(b, c, d),
                _ => parity(b, c, d),
            };
            let sum = a.wrapping_add(mixed).wrapping_add(block[*word]).wrapping_add(*constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, mixed) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(mixed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken from `debugfs -R "dx_hash -h half_md4 [-s …] name"` of e2fsprogs 1.47.0.
    #[test]
    fn names_hash_as_e2fsprogs_hashes_them() {
        let seed =
            [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff];
        let long = "n".repeat(200);
        let accents = "größe-über-alles-zwölf-und-dreißig-Zeichen";
        for (name, seed, major, minor) in [
            ("hello", [0; 16], 0x1746_da32, 0x4200_13b5),
            ("hello", seed, 0x344c_a36e, 0x2ef1_6de2),
            (&long, seed, 0xab13_a1e0, 0x1a06_7876),
            (accents, seed, 0x3cfa_9784, 0x5e17_cf16),
        ] {
            assert_eq!(half_md4(name.as_bytes(), &seed), NameHash { major, minor }, "{name}");
        }
    }
}
