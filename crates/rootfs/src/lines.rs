//! What a program prints, as lines that can be shown.

use block::without_escapes;

/// A longer line is cut into several.
const LONGEST: usize = 16 << 10;

/// Makes lines of the pieces that a program's output comes in. Holds one line at most, however much a program prints.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Takes the next piece and hands each line on that is whole now.
    pub(crate) fn push(&mut self, mut piece: &[u8], take: &mut dyn FnMut(String)) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.add(&piece[..end], take);
            self.end(take);
            piece = &piece[end + 1..];
        }
        self.add(piece, take);
    }

    /// Hands on what stands behind the last line break.
    pub(crate) fn finish(mut self, take: &mut dyn FnMut(String)) {
        if !self.open.is_empty() {
            self.end(take);
        }
    }

    fn add(&mut self, mut piece: &[u8], take: &mut dyn FnMut(String)) {
        while self.open.len() + piece.len() > LONGEST {
            let (now, later) = piece.split_at(LONGEST - self.open.len());
            self.open.extend_from_slice(now);
            self.end(take);
            piece = later;
        }
        self.open.extend_from_slice(piece);
    }

    fn end(&mut self, take: &mut dyn FnMut(String)) {
        let line = String::from_utf8_lossy(&self.open);
        take(without_escapes(line.trim_end_matches('\r')));
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, &mut |line| all.push(line));
        }
        lines.finish(&mut |line| all.push(line));
        all
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        assert_eq!(lines(&[b"on", b"e\r\ntwo\n\nla", b"st"]), ["one", "two", "", "last"]);
        assert_eq!(lines(&[b"one\n"]), ["one"]);
        assert_eq!(lines(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_line_without_end_is_cut_and_one_of_commands_is_plain() {
        let endless = vec![b'x'; 3 * LONGEST / 2];
        let all = lines(&[&endless, &endless, b"\n"]);
        assert_eq!(all.iter().map(String::len).collect::<Vec<_>>(), [LONGEST; 3]);
        assert_eq!(lines(&[b"\x1b]0;title\x07red \x1b[31malert\x1b[0m\n"]), ["red alert"]);
    }
}
