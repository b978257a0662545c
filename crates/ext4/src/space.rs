use std::collections::BTreeMap;

/// A run of blocks of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    /// Its first block.
    pub start: u64,
    /// How many blocks; never zero.
    pub blocks: u64,
}

impl Run {
    /// The first block after the run.
    pub fn end(self) -> u64 {
        self.start + self.blocks
    }
}

/// The free blocks of a volume, as runs. A [`Placement`](crate::Placement) takes from it.
#[derive(Clone, Debug)]
pub struct Space {
    /// End of each free run by its start. Runs neither touch nor overlap.
    free: BTreeMap<u64, u64>,
    free_blocks: u64,
    volume_blocks: u64,
}

impl Space {
    /// A volume of `volume_blocks` blocks of which the `used` ones are taken. `used` is sorted and does not overlap.
    pub(crate) fn new(volume_blocks: u64, used: impl IntoIterator<Item = Run>) -> Self {
        let mut space = Self { free: BTreeMap::new(), free_blocks: 0, volume_blocks };
        let mut at = 0;
        for run in used {
            space.free_up(at, run.start);
            at = at.max(run.end());
        }
        space.free_up(at, volume_blocks);
        space
    }

    fn free_up(&mut self, start: u64, end: u64) {
        if start < end {
            self.free.insert(start, end);
            self.free_blocks += end - start;
        }
    }

    /// All blocks of the volume, free or not.
    pub fn volume_blocks(&self) -> u64 {
        self.volume_blocks
    }

    /// Free blocks.
    pub fn free_blocks(&self) -> u64 {
        self.free_blocks
    }

    /// The free runs in the order in which they lie on the volume.
    pub fn free_runs(&self) -> impl Iterator<Item = Run> {
        self.free.iter().map(|(&start, &end)| Run { start, blocks: end - start })
    }

    /// Takes exactly this run; `false`, and nothing is taken, when a block of it is not free.
    pub fn claim(&mut self, run: Run) -> bool {
        let Some((&start, &end)) = self.free.range(..=run.start).next_back() else { return false };
        if run.blocks == 0 || run.end() > end {
            return false;
        }
        self.free.remove(&start);
        self.free_blocks -= end - start;
        self.free_up(start, run.start);
        self.free_up(run.end(), end);
        true
    }

    /// Takes `blocks` blocks in one piece: the first that is free from block `from` on, else the first of the volume.
    pub fn take(&mut self, blocks: u64, from: u64) -> Option<Run> {
        if blocks == 0 {
            return None;
        }
        let run = Run { start: self.find(blocks, from).or_else(|| self.find(blocks, 0))?, blocks };
        self.claim(run).then_some(run)
    }

    fn find(&self, blocks: u64, from: u64) -> Option<u64> {
        let around = self.free.range(..from).next_back().map(|(_, &end)| (from, end));
        let after = self.free.range(from..).map(|(&start, &end)| (start, end));
        around.into_iter().chain(after).find(|(start, end)| start + blocks <= *end).map(|(start, _)| start)
    }

    /// Takes `blocks` blocks, in one piece where that is possible, else in the pieces that come from block `from` on
    /// and then from the start of the volume. `None`, and nothing is taken, when there are not so many.
    pub fn take_pieces(&mut self, blocks: u64, from: u64) -> Option<Vec<Run>> {
        if blocks == 0 {
            return Some(Vec::new());
        }
        if blocks > self.free_blocks {
            return None;
        }
        if let Some(run) = self.take(blocks, from) {
            return Some(vec![run]);
        }
        let mut runs = Vec::new();
        let mut missing = blocks;
        while missing > 0 {
            let start = self.find(1, from).or_else(|| self.find(1, 0))?;
            let (_, &end) = self.free.range(..=start).next_back()?;
            let run = Run { start, blocks: missing.min(end - start) };
            self.claim(run);
            missing -= run.blocks;
            runs.push(run);
        }
        Some(runs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(start: u64, blocks: u64) -> Run {
        Run { start, blocks }
    }

    #[test]
    fn what_is_used_is_not_free() {
        let space = Space::new(100, [run(0, 10), run(20, 5), run(90, 10)]);
        assert_eq!(space.free_runs().collect::<Vec<_>>(), [run(10, 10), run(25, 65)]);
        assert_eq!(space.free_blocks(), 75);
    }

    #[test]
    fn one_piece_is_taken_where_it_fits_first() {
        let mut space = Space::new(100, [run(0, 10), run(20, 5), run(90, 10)]);
        assert_eq!(space.take(4, 30), Some(run(30, 4)));
        assert_eq!(space.take(4, 30), Some(run(34, 4)));
        assert_eq!(space.take(10, 88), Some(run(10, 10)), "nothing fits after 88");
        assert_eq!(space.take(53, 0), None);
        assert_eq!(space.take_pieces(53, 40), Some(vec![run(40, 50), run(25, 3)]));
        assert_eq!(space.free_runs().collect::<Vec<_>>(), [run(28, 2), run(38, 2)]);
        assert!(!space.claim(run(27, 2)));
        assert!(!space.claim(run(29, 2)));
        assert!(space.claim(run(28, 2)));
        assert_eq!(space.take_pieces(3, 0), None);
    }

    proptest! {
        #[test]
        fn no_block_is_given_twice(asks in prop::collection::vec((1u64..40, 0u64..300), 1..30)) {
            let mut space = Space::new(300, [run(7, 3), run(100, 1), run(150, 50)]);
            let mut given = vec![false; 300];
            for (blocks, from) in asks {
                let before = space.free_blocks();
                let Some(runs) = space.take_pieces(blocks, from) else {
                    prop_assert!(before < blocks);
                    continue;
                };
                prop_assert_eq!(runs.iter().map(|run| run.blocks).sum::<u64>(), blocks);
                prop_assert_eq!(space.free_blocks(), before - blocks);
                for block in runs.iter().flat_map(|run| run.start..run.end()) {
                    prop_assert!(!std::mem::replace(&mut given[block as usize], true));
                    prop_assert!(!(7..10).contains(&block) && block != 100 && !(150..200).contains(&block));
                }
            }
        }
    }
}
