//! CRC-32C (Castagnoli) as ext4 uses it: reflected, begun with a seed and never inverted at the end.

/// Seed of a checksum that follows from nothing before it.
pub(crate) const START: u32 = !0;

const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[k][b]` is the checksum of byte `b` followed by `k` zero bytes: eight bytes go through in one step.
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg());
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut step = 1;
    while step < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[step - 1][byte];
            tables[step][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        step += 1;
    }
    tables
};

/// Goes on with the checksum `sum` over `bytes`.
pub(crate) fn crc32c(mut sum: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mixed = u64::from_le_bytes(*word) ^ u64::from(sum);
        sum = 0;
        for (place, byte) in mixed.to_le_bytes().into_iter().enumerate() {
            sum ^= TABLES[7 - place][usize::from(byte)];
        }
    }
    for byte in rest {
        sum = (sum >> 8) ^ TABLES[0][usize::from(low_byte(sum) ^ byte)];
    }
    sum
}

fn low_byte(sum: u32) -> u8 {
    (sum & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(!crc32c(START, b"123456789"), 0xe306_9283);
    }

    #[test]
    fn rfc_3720_vectors() {
        assert_eq!(!crc32c(START, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(START, &[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(!crc32c(START, &rising), 0x46dd_794e);
    }

    proptest! {
        #[test]
        fn a_checksum_may_be_taken_in_pieces(
            bytes in prop::collection::vec(any::<u8>(), 0..100), cut in 0usize..100,
        ) {
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(crc32c(crc32c(START, head), tail), crc32c(START, &bytes));
        }
    }
}
