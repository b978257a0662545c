//! Where the fixed structures of a volume lie: superblocks, group descriptors, bitmaps, inode tables.
//!
//! A volume is cut into groups of 32,768 blocks. Group 0, group 1 and the groups whose numbers are powers of 3, 5 and
//! 7 begin with a copy of the superblock, the group descriptors and the blocks reserved for more descriptors. The
//! bitmaps and inode tables of 16 groups lie together, at the start of the first of them:
//!
//! ```text
//! group 0                                                                          group 1 (a copy)      group 2
//! ├ superblock │ descriptors │ reserved │ 16+16 bitmaps │ (free) │ 16 tables │ free … ├ superblock … │ free … ├ free …
//!   1            1 or more     to a multiple of 512 KiB            from one on
//! ```
//!
//! In volumes of some size a group's table is a multiple of 512 KiB, so that no such block holds two things.

use block::BLOCK_SIZE;

use crate::{FS_BLOCK, Run, Space};

/// Blocks in a group: as many as one bitmap has bits.
pub(crate) const GROUP_BLOCKS: u64 = FS_BLOCK * 8;
/// Bytes of an inode.
pub(crate) const INODE_SIZE: usize = 256;
/// Inodes in one block of an inode table.
pub(crate) const TABLE_INODES: u32 = FS_BLOCK as u32 / INODE_SIZE as u32;
/// Most inodes in a group: as many as one bitmap has bits.
const MAX_GROUP_INODES: u64 = FS_BLOCK * 8;
/// Most inodes in a volume, with room for rounding: their numbers have 32 bits.
const MAX_INODES: u64 = 1 << 31;
/// Bytes of a group descriptor.
pub(crate) const DESCRIPTOR_SIZE: usize = 64;
/// Descriptors in a block.
const BLOCK_DESCRIPTORS: u64 = FS_BLOCK / DESCRIPTOR_SIZE as u64;
/// Block numbers in a block.
pub(crate) const BLOCK_ADDRESSES: u64 = FS_BLOCK / 4;
/// Base-2 logarithm of the number of groups whose bitmaps and tables lie together.
pub(crate) const LOG_FLEX_GROUPS: u8 = 4;
/// A last group must have this many blocks beyond its own structures to be used.
const LAST_GROUP_SPARE: u64 = 50;
/// Blocks of 512 KiB, the grid on which deduplication works.
const GRID: u64 = BLOCK_SIZE / FS_BLOCK;
/// Smallest volume, as mke2fs: below it there is no room for a journal.
pub(crate) const MIN_BLOCKS: u64 = 2048;
/// Largest volume: 16 TiB.
pub(crate) const MAX_BLOCKS: u64 = 1 << 32;

/// Sizes and places of the fixed structures.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    /// Blocks in use; a last group too small for its own structures is left out.
    pub(crate) blocks: u64,
    pub(crate) groups: u32,
    pub(crate) descriptor_blocks: u64,
    pub(crate) reserved_descriptor_blocks: u64,
    pub(crate) group_inodes: u32,
    /// Blocks of one group's inode table.
    pub(crate) table_blocks: u64,
    /// By group, as the following two.
    pub(crate) block_bitmaps: Vec<u64>,
    pub(crate) inode_bitmaps: Vec<u64>,
    pub(crate) inode_tables: Vec<u64>,
    /// The block that lists the reserved descriptor blocks, when the volume can have such.
    pub(crate) resize_block: Option<u64>,
    pub(crate) journal_blocks: u64,
}

/// Why there is no geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The volume cannot hold the structures it needs.
    TooSmall,
    /// The groups cannot hold so many inodes; the most they can.
    TooManyInodes(u64),
}

impl Geometry {
    /// The geometry of a volume of `volume_blocks` blocks whose files need `needed_inodes` inodes (the reserved ones
    /// among them) and that can grow to `grow_to_blocks` (`None`: as far as mke2fs lets it, about a thousandfold).
    pub(crate) fn new(
        volume_blocks: u64,
        needed_inodes: u64,
        grow_to_blocks: Option<u64>,
    ) -> Result<Self, Unfit> {
        let mut blocks = volume_blocks;
        let wanted_inodes = inode_count(volume_blocks, needed_inodes);
        loop {
            if blocks < MIN_BLOCKS {
                return Err(Unfit::TooSmall);
            }
            let most_inodes = (blocks.div_ceil(GROUP_BLOCKS) * MAX_GROUP_INODES).min(MAX_INODES);
            if needed_inodes > most_inodes {
                return Err(Unfit::TooManyInodes(most_inodes));
            }
            let sizes = Self::sizes(blocks, wanted_inodes.min(most_inodes), grow_to_blocks);
            // As mke2fs, the rule counts a group's bitmaps and table in, though they lie elsewhere.
            let rest = blocks % GROUP_BLOCKS;
            let last = sizes.base_blocks(sizes.groups - 1) + 2 + sizes.table_blocks;
            if rest == 0 || rest >= last + LAST_GROUP_SPARE {
                match sizes.laid_out() {
                    // What keeps its table on the grid did not fit any more.
                    Err(Unfit::TooSmall) if rest > 0 => {}
                    done => return done,
                }
            }
            blocks -= rest;
        }
    }

    /// The numbers of a volume of exactly `blocks` blocks, without places.
    fn sizes(blocks: u64, inodes: u64, grow_to_blocks: Option<u64>) -> Self {
        let groups = blocks.div_ceil(GROUP_BLOCKS);
        let mut table_blocks = inodes.div_ceil(groups).div_ceil(u64::from(TABLE_INODES)).max(1);
        if on_grid(blocks) {
            table_blocks =
                table_blocks.next_multiple_of(GRID).min(MAX_GROUP_INODES / u64::from(TABLE_INODES));
        }
        let descriptor_blocks = groups.div_ceil(BLOCK_DESCRIPTORS);
        Self {
            blocks,
            groups: groups as u32,
            descriptor_blocks,
            reserved_descriptor_blocks: reserved_descriptor_blocks(blocks, descriptor_blocks, grow_to_blocks),
            group_inodes: table_blocks as u32 * TABLE_INODES,
            table_blocks,
            block_bitmaps: Vec::new(),
            inode_bitmaps: Vec::new(),
            inode_tables: Vec::new(),
            resize_block: None,
            journal_blocks: journal_blocks(blocks),
        }
    }

    fn laid_out(mut self) -> Result<Self, Unfit> {
        for first in (0..self.groups).step_by(1 << LOG_FLEX_GROUPS) {
            let count = (self.groups - first).min(1 << LOG_FLEX_GROUPS);
            let mut at = u64::from(first) * GROUP_BLOCKS;
            for _ in 0..count {
                let place = self.fixed_run(&mut at, 1)?;
                self.block_bitmaps.push(place);
            }
            for _ in 0..count {
                let place = self.fixed_run(&mut at, 1)?;
                self.inode_bitmaps.push(place);
            }
            if first == 0 && self.can_resize() {
                self.resize_block = Some(self.fixed_run(&mut at, 1)?);
            }
            if on_grid(self.blocks) {
                at = at.next_multiple_of(GRID);
            }
            for _ in 0..count {
                let place = self.fixed_run(&mut at, self.table_blocks)?;
                self.inode_tables.push(place);
            }
        }
        Ok(self)
    }

    /// The next run of `blocks` blocks from `at` on that keeps clear of the superblock copies; moves `at` behind it.
    fn fixed_run(&self, at: &mut u64, blocks: u64) -> Result<u64, Unfit> {
        let mut start = *at;
        loop {
            let end = start + blocks;
            if end > self.blocks {
                return Err(Unfit::TooSmall);
            }
            let groups = start / GROUP_BLOCKS..=(end - 1) / GROUP_BLOCKS;
            let hit = groups
                .map(|group| self.base_run(group as u32))
                .find(|base| start < base.end() && base.start < end);
            match hit {
                Some(base) => start = base.end(),
                None => {
                    *at = end;
                    return Ok(start);
                }
            }
        }
    }

    /// Whether descriptor blocks are reserved through an inode; its block numbers have 32 bits.
    pub(crate) fn can_resize(&self) -> bool {
        self.blocks < MAX_BLOCKS
    }

    pub(crate) fn inodes(&self) -> u32 {
        self.groups * self.group_inodes
    }

    /// The blocks of a group, the last of which may be short.
    pub(crate) fn group_run(&self, group: u32) -> Run {
        let start = u64::from(group) * GROUP_BLOCKS;
        Run { start, blocks: GROUP_BLOCKS.min(self.blocks - start) }
    }

    /// Superblock copy, descriptors and reserved blocks at the start of a group; a run of zero blocks when it has none.
    pub(crate) fn base_run(&self, group: u32) -> Run {
        Run { start: u64::from(group) * GROUP_BLOCKS, blocks: self.base_blocks(group) }
    }

    fn base_blocks(&self, group: u32) -> u64 {
        if has_superblock(group) { 1 + self.descriptor_blocks + self.reserved_descriptor_blocks } else { 0 }
    }

    /// The groups with copies of the superblock, without group 0.
    pub(crate) fn backup_groups(&self) -> impl Iterator<Item = u32> {
        (1..self.groups).filter(|group| has_superblock(*group))
    }

    /// Every block with a fixed use, sorted.
    pub(crate) fn fixed_runs(&self) -> Vec<Run> {
        let mut runs: Vec<_> =
            (0..self.groups).map(|group| self.base_run(group)).filter(|run| run.blocks > 0).collect();
        runs.extend(self.group_structures());
        runs.sort();
        runs
    }

    /// Bitmaps, tables and the resize block: what is not at the start of its own group.
    pub(crate) fn group_structures(&self) -> impl Iterator<Item = Run> {
        let single = self.block_bitmaps.iter().chain(&self.inode_bitmaps).chain(&self.resize_block);
        let tables = self.inode_tables.iter().map(|start| Run { start: *start, blocks: self.table_blocks });
        single.map(|start| Run { start: *start, blocks: 1 }).chain(tables)
    }

    /// What is free before anything is placed.
    pub(crate) fn space(&self) -> Space {
        Space::new(self.blocks, self.fixed_runs())
    }

    /// Blocks that no file can ever use: fixed structures and the journal.
    pub(crate) fn overhead(&self) -> u64 {
        let base: u64 = (0..self.groups).map(|group| self.base_blocks(group)).sum();
        base + u64::from(self.groups) * (2 + self.table_blocks) + self.journal_blocks
    }
}

/// How many inodes a volume should have: mke2fs's number, or an eighth more than needed.
fn inode_count(volume_blocks: u64, needed: u64) -> u64 {
    let bytes_per_inode = match (volume_blocks * FS_BLOCK) >> 40 {
        0..4 => 16_384,
        4..16 => 32_768,
        _ => 65_536,
    };
    (volume_blocks * FS_BLOCK / bytes_per_inode).max(needed + needed / 8)
}

fn has_superblock(group: u32) -> bool {
    let is_power = |base: u32| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power)
}

/// Whether a volume has room enough to keep structures apart: 256 MiB or more.
fn on_grid(blocks: u64) -> bool {
    blocks >= 512 * GRID
}

/// How many blocks to reserve for the descriptors of a larger volume. Where mke2fs's number allows, a few fewer or
/// more, so that what follows a superblock copy begins on the 512 KiB grid.
fn reserved_descriptor_blocks(blocks: u64, descriptor_blocks: u64, grow_to_blocks: Option<u64>) -> u64 {
    if blocks >= MAX_BLOCKS {
        return 0;
    }
    let stock = (blocks * 1024).min(MAX_BLOCKS - 1);
    let wanted_blocks = grow_to_blocks.unwrap_or(stock).clamp(blocks, MAX_BLOCKS - 1);
    let wanted_groups = wanted_blocks.div_ceil(GROUP_BLOCKS);
    let wanted =
        wanted_groups.div_ceil(BLOCK_DESCRIPTORS).saturating_sub(descriptor_blocks).min(BLOCK_ADDRESSES);
    let base = 1 + descriptor_blocks;
    let total = base + wanted;
    let down = total - total % GRID;
    let up = total.next_multiple_of(GRID);
    let may_round_down = grow_to_blocks.is_none() || wanted == BLOCK_ADDRESSES;
    if may_round_down && down >= base && total - down <= total / 16 {
        down - base
    } else if up - base <= BLOCK_ADDRESSES && on_grid(blocks) {
        up - base
    } else {
        wanted
    }
}

/// The size of the journal, as mke2fs.
fn journal_blocks(blocks: u64) -> u64 {
    const STEPS: [(u64, u64); 8] = [
        (32_768, 1024),
        (262_144, 4096),
        (524_288, 8192),
        (4_194_304, 16_384),
        (8_388_608, 32_768),
        (16_777_216, 65_536),
        (33_554_432, 131_072),
        (u64::MAX, 262_144),
    ];
    STEPS.into_iter().find(|(below, _)| blocks < *below).map_or(262_144, |(_, journal)| journal)
}

#[cfg(test)]
mod tests {
    use block::{GIB, MIB};
    use proptest::prelude::*;

    use super::*;

    fn stock(bytes: u64) -> Geometry {
        let blocks = bytes / FS_BLOCK;
        Geometry::new(blocks, 0, None).unwrap()
    }

    #[test]
    fn superblock_copies_are_in_groups_1_and_powers_of_3_5_7() {
        let groups: Vec<_> = (0..400).filter(|group| has_superblock(*group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]);
    }

    #[test]
    fn what_follows_a_superblock_copy_begins_on_the_grid() {
        for (size, reserved) in
            [(GIB, 126), (4 * GIB, 510), (6 * GIB, 766), (40 * GIB, 1018), (1024 * GIB, 1023)]
        {
            let geometry = stock(size);
            assert_eq!(geometry.reserved_descriptor_blocks, reserved, "{size}");
            assert_eq!(geometry.base_blocks(1) % GRID, 0);
        }
        assert_eq!(
            stock(8 * MIB).reserved_descriptor_blocks,
            0,
            "small volumes are not filled up to the grid"
        );
        assert_eq!(stock(64 * MIB).reserved_descriptor_blocks, 7);
    }

    #[test]
    fn growth_that_was_asked_for_is_possible() {
        for (size, grow_to) in [(4, 5), (4, 64), (4, 4096), (100, 8000), (1, 1)] {
            let geometry =
                Geometry::new(size * GIB / FS_BLOCK, 1000, Some(grow_to * GIB / FS_BLOCK)).unwrap();
            let descriptors = geometry.descriptor_blocks + geometry.reserved_descriptor_blocks;
            assert!(
                descriptors * BLOCK_DESCRIPTORS * GROUP_BLOCKS * FS_BLOCK >= grow_to * GIB,
                "{size} to {grow_to}"
            );
        }
    }

    #[test]
    fn a_last_group_too_small_for_a_table_on_the_grid_is_left_out() {
        // The first group of its sixteen, with room for bitmaps and table, but not for the gap between them.
        let groups = 1184;
        let rest = 564;
        let geometry = Geometry::new(groups * GROUP_BLOCKS + rest, 0, None).unwrap();
        assert_eq!(geometry.blocks, groups * GROUP_BLOCKS);
        let enough = Geometry::new(groups * GROUP_BLOCKS + rest + GRID, 0, None).unwrap();
        assert_eq!(enough.blocks, groups * GROUP_BLOCKS + rest + GRID);
    }

    #[test]
    fn a_last_group_too_small_for_its_structures_is_left_out() {
        // With an eighth more, three groups need tables of 512 blocks.
        let table = 512;
        let with_rest = |rest| Geometry::new(2 * GROUP_BLOCKS + rest, 21_845, None).unwrap();
        assert_eq!(with_rest(2 + table + LAST_GROUP_SPARE - 1).groups, 2);
        assert_eq!(with_rest(2 + table + LAST_GROUP_SPARE).groups, 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn fixed_structures_keep_clear_of_each_other(
            blocks in prop_oneof![MIN_BLOCKS..1 << 18, 1_u64 << 18..1 << 26],
            inodes in prop_oneof![0_u64..1 << 16, 0_u64..1 << 22],
            grow_to in prop::option::of(0_u64..1 << 34),
        ) {
            let geometry = match Geometry::new(blocks, inodes, grow_to) {
                Ok(geometry) => geometry,
                Err(unfit) => {
                    prop_assert!(inodes * 2 > blocks, "{unfit:?}: only many inodes do not fit");
                    return Ok(());
                }
            };
            prop_assert!(u64::from(geometry.inodes()) >= inodes);
            prop_assert!(geometry.blocks <= blocks && blocks - geometry.blocks < GROUP_BLOCKS);
            prop_assert!(geometry.reserved_descriptor_blocks <= BLOCK_ADDRESSES);
            let runs = geometry.fixed_runs();
            prop_assert!(runs.windows(2).all(|pair| pair[0].end() <= pair[1].start));
            prop_assert!(runs.last().is_some_and(|last| last.end() <= geometry.blocks));
            let used: u64 = runs.iter().map(|run| run.blocks).sum();
            prop_assert_eq!(used + geometry.journal_blocks, geometry.overhead() + 1, "and the resize block");
        }
    }
}
