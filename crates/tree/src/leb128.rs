//! Whole numbers in as few bytes as they need: seven bits a byte, the lowest first, the top bit set in all but the last.

/// Why bytes are no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// They end within it.
    #[error("it ends early")]
    Ends,
    /// It is longer than it need be; a number has one form.
    #[error("a number is too long")]
    TooLong,
    /// It has more than 64 bits.
    #[error("a number of more than 64 bits")]
    TooLarge,
}

/// Writes a number.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front of `bytes`; where it is none, what was looked at is gone.
pub fn take(bytes: &mut &[u8]) -> Result<u64, NumberError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(NumberError::Ends)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return if bits == 0 && shift > 0 { Err(NumberError::TooLong) } else { Ok(number) };
        }
    }
    Err(NumberError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_have_the_bytes_that_the_standard_gives() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (624_485, &[0xe5, 0x8e, 0x26]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn what_is_no_number_is_told() {
        assert_eq!(take(&mut &b""[..]), Err(NumberError::Ends));
        assert_eq!(take(&mut &b"\x80"[..]), Err(NumberError::Ends));
        assert_eq!(take(&mut &b"\x80\0"[..]), Err(NumberError::TooLong));
        assert_eq!(take(&mut &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"[..]), Err(NumberError::TooLarge));
        assert_eq!(take(&mut &[0x80; 30][..]), Err(NumberError::TooLarge));
    }

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop::collection::vec((any::<u64>(), 0_u32..64), 0..8)) {
            let numbers: Vec<u64> = numbers.into_iter().map(|(number, shift)| number >> shift).collect();
            let mut bytes = Vec::new();
            numbers.iter().for_each(|number| put(&mut bytes, *number));
            let mut rest = &bytes[..];
            for number in numbers {
                prop_assert_eq!(take(&mut rest), Ok(number));
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn a_number_has_one_form(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut rest = &bytes[..];
            if let Ok(number) = take(&mut rest) {
                let mut again = Vec::new();
                put(&mut again, number);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
