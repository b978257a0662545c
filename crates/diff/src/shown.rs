//! How strangers' names are shown, and sizes.

/// Bytes of a stranger as text that can be shown anywhere on one line: what is no printable UTF-8 (or turns the direction of
/// writing, or cannot be seen) stands as `\x` and two digits for each byte, a backslash as two. Nothing is lost.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |bytes: &[u8], text: &mut String| {
        for byte in bytes {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                character if character.is_control() || unseen(character) => {
                    escape(character.encode_utf8(&mut [0; 4]).as_bytes(), &mut text);
                }
                character => text.push(character),
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text
}

/// Characters that have no look of their own, or change that of others.
fn unseen(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A number of bytes as people write it.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths, so that no float rounds otherwise elsewhere.
    let mut unit = 0;
    let mut scale = 1024_u128;
    let tenths = |scale: u128| (u128::from(bytes) * 10 + scale / 2) / scale;
    while tenths(scale) >= 10_240 && unit + 1 < UNITS.len() {
        (unit, scale) = (unit + 1, scale * 1024);
    }
    let tenths = tenths(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A count with its thousands apart: `24,012`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 block`, `2 blocks`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_in_a_name_and_nothing_is_lost() {
        assert_eq!(shown("/srv/é ü.txt".as_bytes()), "/srv/é ü.txt");
        assert_eq!(shown(b"a\x1b[31m\nb\xff\\x"), "a\\x1b[31m\\x0ab\\xff\\\\x");
        assert_eq!(shown("a\u{202e}b\u{200b}".as_bytes()), "a\\xe2\\x80\\xaeb\\xe2\\x80\\x8b");
        assert_ne!(shown(b"\\xff"), shown(b"\xff"));
    }

    #[test]
    fn sizes_and_counts_are_rounded_and_parted() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1_572_864, "1.5 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((counted(1, "block"), counted(0, "block")), ("1 block".to_owned(), "0 blocks".to_owned()));
    }
}
