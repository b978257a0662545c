//! Metadata of a partition, read in pieces that are kept for a while.

use std::collections::{BTreeMap, VecDeque};

use block::{BlockSource, ReadError};

use crate::{Fault, read_at};

/// Bytes of a piece, and how many are kept.
const PIECE: u64 = 64 << 10;
const PIECES: usize = 128;

/// The bytes of a partition.
pub(crate) struct Cached<'a> {
    source: &'a dyn BlockSource,
    /// Its first byte on the disk.
    pub(crate) offset: u64,
    /// Its bytes.
    pub(crate) len: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
    /// Those that were read first come first.
    order: VecDeque<u64>,
}

impl<'a> Cached<'a> {
    pub(crate) fn new(source: &'a dyn BlockSource, offset: u64, len: u64) -> Self {
        Self { source, offset, len, pieces: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Bytes of the disk that are no holes.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.source.data().map(|(_, len)| len).sum()
    }

    /// Fills `buffer` from byte `at` of the partition on; what reaches behind its end is damage.
    pub(crate) fn fill(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), Fault> {
        let end = at.checked_add(buffer.len() as u64).filter(|end| *end <= self.len);
        if end.is_none() {
            return Err(Fault::Damaged(format!("it refers to byte {at}, behind its end")));
        }
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let piece = &self.piece(at / PIECE)?[(at % PIECE) as usize..];
            let len = piece.len().min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&piece[..len]);
            (at, rest) = (at + len as u64, later);
        }
        Ok(())
    }

    fn piece(&mut self, number: u64) -> Result<&[u8], ReadError> {
        if !self.pieces.contains_key(&number) {
            let start = number * PIECE;
            let mut piece = vec![0; PIECE.min(self.len - start) as usize];
            read_at(self.source, self.offset + start, &mut piece)?;
            if self.order.len() >= PIECES
                && let Some(oldest) = self.order.pop_front()
            {
                self.pieces.remove(&oldest);
            }
            self.order.push_back(number);
            self.pieces.insert(number, piece);
        }
        Ok(&self.pieces[&number])
    }
}
