//! Making new inputs of old ones.

use std::ops::Range;

/// Random numbers that follow from a seed (SplitMix64): the same seed, the same inputs.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }

    /// A range of `0..len` that is short more often than long.
    fn range(&mut self, len: usize) -> Range<usize> {
        let longest = match self.below(4) {
            0 => len,
            1 => len.min(64),
            _ => len.min(8),
        };
        let count = 1 + self.below(longest);
        let start = self.below(len.saturating_sub(count) + 1);
        start..(start + count).min(len)
    }
}

/// Bytes that mean something in many formats.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\n\r\t /.:;,=-_#\"'%$\\({[<";
/// Numbers at whose sides programs differ.
const NUMBERS: &[u64] = &[
    0,
    1,
    7,
    8,
    127,
    128,
    255,
    256,
    511,
    512,
    4095,
    4096,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

/// What mutations draw on besides chance.
pub(crate) struct Sources<'a> {
    /// The format's own words.
    pub(crate) words: &'a [&'a [u8]],
    /// Comparisons that did not hold when the input ran.
    pub(crate) comparisons: &'a [(u64, u64)],
    /// Another input of the corpus.
    pub(crate) other: &'a [u8],
    /// Inputs are cut at this length.
    pub(crate) longest: usize,
}

/// Changes `input` in one to sixteen ways.
pub(crate) fn mutate(input: &mut Vec<u8>, random: &mut Random, sources: &Sources<'_>) {
    for _ in 0..1usize << random.below(5) {
        change(input, random, sources);
    }
    input.truncate(sources.longest);
}

fn change(input: &mut Vec<u8>, random: &mut Random, sources: &Sources<'_>) {
    if input.is_empty() {
        let word = random.pick(sources.words).copied().unwrap_or(b"0");
        input.extend_from_slice(word);
        return;
    }
    let at = random.below(input.len());
    match random.below(15) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.next() as u8,
        2 => input[at] = random.pick(BYTES).copied().unwrap_or(0),
        3 => input[at] = input[at].wrapping_add(random.below(9) as u8).wrapping_sub(4),
        4 => {
            let byte = random.pick(BYTES).copied().unwrap_or(0);
            let count = random.range(64).len();
            insert(input, at, &vec![byte; count]);
        }
        5 => drop(input.drain(random.range(input.len()))),
        6 => {
            let from = random.range(input.len());
            let piece = input[from].to_vec();
            overwrite(input, at, &piece);
        }
        7 => {
            let from = random.range(input.len());
            let piece = input[from].to_vec();
            insert(input, at, &piece);
        }
        8 => {
            let word = random.pick(sources.words).copied().unwrap_or_default();
            insert(input, at, word);
        }
        9 => {
            let word = random.pick(sources.words).copied().unwrap_or_default();
            overwrite(input, at, word);
        }
        10 => {
            let number = number(random);
            let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
            let width = 1 << random.below(4);
            let bytes = if random.one_in(2) { &little[..width] } else { &big[8 - width..] };
            overwrite(input, at, bytes);
        }
        11 => digits(input, at, random),
        12 => {
            let from = random.range(sources.other.len());
            let piece = sources.other.get(from).unwrap_or_default();
            if random.one_in(2) { insert(input, at, piece) } else { overwrite(input, at, piece) }
        }
        13 => lines(input, random),
        _ => compared(input, random, sources.comparisons),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

fn overwrite(input: &mut [u8], at: usize, piece: &[u8]) {
    input[at..].iter_mut().zip(piece).for_each(|(place, byte)| *place = *byte);
}

fn number(random: &mut Random) -> u64 {
    let number = random.pick(NUMBERS).copied().unwrap_or(0);
    match random.below(4) {
        0 => number.wrapping_add(random.below(5) as u64).wrapping_sub(2),
        1 => random.next() >> random.below(64),
        _ => number,
    }
}

/// Puts another number where digits stand at or after `at`.
fn digits(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) else {
        return;
    };
    let count = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = number(random);
    let text = match random.below(3) {
        0 => format!("{number}"),
        1 => format!("{number:o}"),
        _ => format!("{number:x}"),
    };
    if random.one_in(2) {
        // In its field's width, as archives want it.
        let text = format!("{text:0>count$}");
        overwrite(&mut input[..start + count], start, &text.as_bytes()[text.len() - count..]);
    } else {
        input.splice(start..start + count, text.bytes());
    }
}

/// Moves, repeats or drops a line.
fn lines(input: &mut Vec<u8>, random: &mut Random) {
    let mut lines: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
    let (one, other) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(3) {
        0 => lines.swap(one, other),
        1 => lines.insert(one, lines[other]),
        _ => drop(lines.remove(one)),
    }
    *input = lines.concat();
}

/// Where the input holds one side of a comparison, puts the other.
fn compared(input: &mut Vec<u8>, random: &mut Random, comparisons: &[(u64, u64)]) {
    let Some((one, other)) = random.pick(comparisons).copied() else { return };
    let (from, to) = if random.one_in(2) { (one, other) } else { (other, one) };
    let width = match from.max(to) {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    let text = |number: u64| number.to_string().into_bytes();
    let (from, to) = match random.below(3) {
        0 => (from.to_le_bytes()[..width].to_vec(), to.to_le_bytes()[..width].to_vec()),
        1 => (from.to_be_bytes()[8 - width..].to_vec(), to.to_be_bytes()[8 - width..].to_vec()),
        _ => (text(from), text(to)),
    };
    let places: Vec<usize> =
        input.windows(from.len()).enumerate().filter(|(_, piece)| *piece == from).map(|(at, _)| at).collect();
    if let Some(at) = random.pick(&places).copied() {
        input.splice(at..at + from.len(), to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_none_is_too_long() {
        let sources = Sources {
            words: &[b"word"],
            comparisons: &[(104, 7), (0x6568, 1)],
            other: b"other",
            longest: 100,
        };
        let run = || {
            let (mut random, mut input, mut all) = (Random::new(7), b"hello 123\nworld".to_vec(), Vec::new());
            for _ in 0..20_000 {
                mutate(&mut input, &mut random, &sources);
                assert!(input.len() <= sources.longest);
                all.push(input.clone());
            }
            all
        };
        let all = run();
        assert_eq!(all, run());
        assert!(all.iter().any(|input| input.windows(4).any(|piece| piece == b"word")));
    }
}
