use std::iter::Fuse;

use block::KIB;

/// A file's holes are at least this large and begin at its multiples.
pub(crate) const PAGE: u64 = 4 * KIB;

/// A part of a disk that holds data: all of it lies between two neighbouring multiples of the region's size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// Which multiple of the region's size it begins at.
    pub(crate) number: u64,
    /// `(offset, len)` of the data in it, in whole pages (but for the disk's end); sorted, not touching.
    pub(crate) pieces: Vec<(u64, u64)>,
}

/// Runs of data as the regions that they touch, in order, without those that hold none.
pub(crate) struct Regions<I: Iterator> {
    runs: Fuse<I>,
    disk: u64,
    region: u64,
    /// What is left of a run that reaches into the next region, as `(start, end)`.
    rest: Option<(u64, u64)>,
    /// End of the last piece: small runs may share a page.
    done: u64,
}

impl<I: Iterator<Item = (u64, u64)>> Regions<I> {
    /// Regions of `region` bytes (a multiple of [`PAGE`]) of a disk of `disk` bytes; `runs` is sorted `(offset, len)`.
    pub(crate) fn new(runs: I, disk: u64, region: u64) -> Self {
        Self { runs: runs.fuse(), disk, region, rest: None, done: 0 }
    }

    /// The next run in whole pages, less what is done already.
    fn next_run(&mut self) -> Option<(u64, u64)> {
        if self.rest.is_some() {
            return self.rest.take();
        }
        loop {
            let (offset, len) = self.runs.next()?;
            let start = (offset / PAGE * PAGE).max(self.done);
            let end = (offset + len).next_multiple_of(PAGE).min(self.disk);
            if start < end {
                return Some((start, end));
            }
        }
    }
}

impl<I: Iterator<Item = (u64, u64)>> Iterator for Regions<I> {
    type Item = Region;

    fn next(&mut self) -> Option<Region> {
        let (mut start, mut end) = self.next_run()?;
        let number = start / self.region;
        let limit = (number + 1) * self.region;
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        loop {
            let stop = end.min(limit);
            match pieces.last_mut().filter(|(last, len)| last + *len == start) {
                Some((_, len)) => *len += stop - start,
                None => pieces.push((start, stop - start)),
            }
            self.done = stop;
            if stop < end {
                self.rest = Some((stop, end));
                break;
            }
            match self.next_run() {
                Some((next, next_end)) if next < limit => (start, end) = (next, next_end),
                rest => {
                    self.rest = rest;
                    break;
                }
            }
        }
        Some(Region { number, pieces })
    }
}
