//! From a catalogue and a placement to the blocks of the volume.

use std::collections::BTreeMap;

use block::{BLOCK_SIZE, BlockMap, BlockMapBuilder, Content, Origin};
use tree::{Timestamp, Tree};

use crate::bytes::put32;
use crate::catalogue::{Body, Catalogue, Claim, Item, LostAndFound, MAX_LINKS, Owner};
use crate::checksum::{START, crc32c};
use crate::directory::Name;
use crate::extents::{ExtentList, ROOT_SIZE};
use crate::geometry::{
    BLOCK_ADDRESSES, GROUP_BLOCKS, Geometry, INODE_SIZE, MAX_BLOCKS, MIN_BLOCKS, TABLE_INODES, Unfit,
};
use crate::inode::{
    FIRST_INODE, FLAG_EXTENTS, FLAG_INDEX, Inode, JOURNAL_INODE, RESIZE_INODE, ROOT_INODE, TYPE_BLOCK_DEVICE,
    TYPE_CHAR_DEVICE, TYPE_DIRECTORY, TYPE_FIFO, TYPE_FILE, TYPE_SOCKET, inode_seed,
};
use crate::superblock::{
    Descriptor, GROUP_BLOCK_UNINIT, GROUP_INODE_UNINIT, GROUP_TABLE_ZEROED, SUPERBLOCK_AT, Totals,
    journal_superblock, superblock,
};
use crate::{Error, FS_BLOCK, Kind, Named, Object, Options, Placement, Run, Space};

const BLOCK: usize = FS_BLOCK as usize;

/// Writes `tree` as an ext4 file system of `options.size` bytes, laid out by `placement`.
///
/// File extents keep their entry's origin and refer to its content, which is not read; a last block's rest is zero and
/// in no extent. Structures have an [`Origin::Structure`]. All times of an inode are the entry's `mtime`.
pub fn write(tree: &Tree, options: &Options, placement: &dyn Placement) -> Result<BlockMap, Error> {
    check_options(options)?;
    let extra = LostAndFound::new(options);
    let catalogue = Catalogue::new(tree, &extra, options)?;
    let geometry = geometry(&catalogue, options)?;
    let claims = catalogue.claims(geometry.journal_blocks);
    let mut space = geometry.space();
    let needed: u64 = claims.iter().map(|claim| claim.object.blocks).sum();
    if needed > space.free_blocks() {
        return Err(Error::NoSpace {
            needed: smallest(&catalogue, options, blocks_of(options))?,
            size: options.size,
        });
    }
    Writer::new(&catalogue, options, &geometry).write(claims, &mut space, placement)
}

/// Bytes of the smallest volume that takes `tree`, in whole MiB; `options.size` counts for nothing. A placement that
/// leaves gaps may need more. Where mke2fs's journal gets larger, a slightly larger volume may have less room.
pub fn minimum_size(tree: &Tree, options: &Options) -> Result<u64, Error> {
    let options = Options { size: MAX_BLOCKS * FS_BLOCK, ..options.clone() };
    check_options(&options)?;
    let extra = LostAndFound::new(&options);
    smallest(&Catalogue::new(tree, &extra, &options)?, &options, MIN_BLOCKS)
}

/// Bytes of the smallest volume of at least `from` blocks that takes the files.
fn smallest(catalogue: &Catalogue<'_>, options: &Options, from: u64) -> Result<u64, Error> {
    const STEP: u64 = 256;
    let files: u64 = catalogue.claims(0).iter().map(|claim| claim.object.blocks).sum();
    let mut blocks = files.max(from).next_multiple_of(STEP);
    while blocks <= MAX_BLOCKS {
        let missing = match geometry(catalogue, &Options { size: blocks * FS_BLOCK, ..options.clone() }) {
            Ok(geometry) => (files + geometry.journal_blocks).saturating_sub(geometry.space().free_blocks()),
            Err(Error::Size { .. } | Error::TooManyInodes { .. }) => STEP,
            Err(error) => return Err(error),
        };
        if missing == 0 {
            return Ok(blocks * FS_BLOCK);
        }
        blocks += missing.next_multiple_of(STEP);
    }
    Ok(blocks * FS_BLOCK)
}

fn geometry(catalogue: &Catalogue<'_>, options: &Options) -> Result<Geometry, Error> {
    let needed = catalogue.items.len() as u64 + u64::from(FIRST_INODE);
    let blocks = blocks_of(options);
    let grow_to = options.grow_to.map(|bytes| bytes.div_ceil(FS_BLOCK));
    Geometry::new(blocks, needed, grow_to).map_err(|unfit| match unfit {
        Unfit::TooSmall => Error::Size { size: options.size },
        Unfit::TooManyInodes(most) => Error::TooManyInodes { needed, most, size: options.size },
    })
}

fn blocks_of(options: &Options) -> u64 {
    options.size / FS_BLOCK
}

fn check_options(options: &Options) -> Result<(), Error> {
    let blocks = blocks_of(options);
    if !options.size.is_multiple_of(FS_BLOCK) || !(MIN_BLOCKS..=MAX_BLOCKS).contains(&blocks) {
        return Err(Error::Size { size: options.size });
    }
    let wrong =
        |option, value: &dyn ToString, rule| Err(Error::Option { option, value: value.to_string(), rule });
    if options.label.len() > 16 {
        return wrong("label", &options.label, "an ext4 label has at most 16 bytes");
    }
    if options.last_mounted.len() > 63 {
        return wrong("last_mounted", &options.last_mounted, "ext4 keeps at most 63 bytes of it");
    }
    if !(0..1 << 40).contains(&options.time) {
        return wrong("time", &options.time, "a superblock has seconds from 1970 on, in 40 bits");
    }
    if options.reserved_percent > 50 {
        return wrong("reserved_percent", &options.reserved_percent, "at most 50 percent can be reserved");
    }
    Ok(())
}

/// Bits of one group.
type Bitmap = Box<[u8; BLOCK]>;

/// The inode table of one group.
#[derive(Clone, Default)]
struct InodeTable {
    /// Those of its blocks that are in use.
    blocks: BTreeMap<usize, Bitmap>,
    /// One more than the index of the last inode in use.
    end: usize,
}

/// The volume in the making.
struct Writer<'w, 't> {
    catalogue: &'w Catalogue<'t>,
    options: &'w Options,
    geometry: &'w Geometry,
    /// What metadata checksums begin with.
    seed: u32,
    /// Structures as whole blocks: place, name, bytes.
    structures: Vec<(u64, &'static str, Vec<u8>)>,
    map: BlockMapBuilder,
    /// By group; none where only a superblock copy is in use.
    block_bitmaps: Vec<Option<Bitmap>>,
    /// By group; none where no inode is in use.
    inode_bitmaps: Vec<Option<Bitmap>>,
    /// By group.
    inode_tables: Vec<InodeTable>,
    /// By group.
    directories: Vec<u32>,
}

/// Where an object lies: its runs and the blocks of its extent tree.
#[derive(Clone, Default)]
struct Place {
    runs: Vec<Run>,
    nodes: Vec<u64>,
}

impl<'w, 't> Writer<'w, 't> {
    fn new(catalogue: &'w Catalogue<'t>, options: &'w Options, geometry: &'w Geometry) -> Self {
        let groups = geometry.groups as usize;
        Self {
            catalogue,
            options,
            geometry,
            seed: crc32c(START, &options.uuid),
            structures: Vec::new(),
            map: BlockMapBuilder::new(),
            block_bitmaps: vec![None; groups],
            inode_bitmaps: vec![None; groups],
            inode_tables: vec![InodeTable::default(); groups],
            directories: vec![0; groups],
        }
    }

    fn write(
        mut self,
        claims: Vec<Claim<'t>>,
        space: &mut Space,
        placement: &dyn Placement,
    ) -> Result<BlockMap, Error> {
        let numbers = self.numbers(placement)?;
        self.use_fixed_blocks()?;
        let places = self.places(&claims, space, placement)?;

        let mut item_places = vec![Place::default(); self.catalogue.items.len()];
        let mut xattr_places = vec![0; self.catalogue.xattr_blocks.len()];
        let mut journal = Place::default();
        for (claim, place) in claims.iter().zip(places) {
            match claim.owner {
                Owner::Journal => journal = place,
                Owner::Item(item) => item_places[item] = place,
                Owner::XattrBlock(block) => xattr_places[block] = place.runs[0].start,
            }
        }
        for (place, block) in self.catalogue.xattr_blocks.finish(&xattr_places, self.seed) {
            self.structures.push((place, "xattr block", block));
        }
        for reserved in 1..FIRST_INODE {
            self.use_inode(reserved);
        }
        let items = self.catalogue.items.iter().zip(&numbers).zip(item_places);
        for ((item, number), place) in items {
            self.write_item(item, *number, place, &numbers, &xattr_places);
        }
        let journal_map = self.write_journal(journal);
        self.write_resize_inode();
        self.write_groups(journal_map);
        self.finish()
    }

    /// Inode numbers by item, as the placement chooses them.
    fn numbers(&self, placement: &dyn Placement) -> Result<Vec<u32>, Error> {
        let lost_and_found = self.catalogue.lost_and_found;
        let free_from = FIRST_INODE + u32::from(lost_and_found.is_some());
        let is_fixed = |at: usize| at == 0 || Some(at) == lost_and_found;
        let items = self.catalogue.items.iter().enumerate();
        let entries = items.filter(|(at, _)| !is_fixed(*at)).map(|(_, item)| Named {
            path: item.path,
            origin: &item.entry.origin,
            is_folder: matches!(item.body, Body::Directory(_)),
        });
        let entries: Vec<_> = entries.collect();
        let last = self.geometry.inodes();
        let chosen = placement.number(&entries, free_from..=last);
        let wrong = |problem| Err(Error::Placement { what: "inode numbers".into(), problem });
        if chosen.len() != entries.len() {
            return wrong("there must be one number for each entry");
        }
        let mut sorted = chosen.clone();
        sorted.sort_unstable();
        if sorted.first().is_some_and(|number| *number < free_from) || sorted.last() > Some(&last) {
            return wrong("a number is not free");
        }
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return wrong("a number was given twice");
        }
        let mut chosen = chosen.into_iter();
        let numbers = (0..self.catalogue.items.len()).map(|at| match at {
            0 => ROOT_INODE,
            at if is_fixed(at) => FIRST_INODE,
            _ => chosen.next().unwrap_or_default(),
        });
        Ok(numbers.collect())
    }

    /// Places for all objects and their extent trees, checked and marked as used.
    fn places(
        &mut self,
        claims: &[Claim<'t>],
        space: &mut Space,
        placement: &dyn Placement,
    ) -> Result<Vec<Place>, Error> {
        let no_room = |_| match smallest(self.catalogue, self.options, blocks_of(self.options) + 1) {
            Ok(needed) => Error::NoSpace { needed, size: self.options.size },
            Err(error) => error,
        };
        let objects: Vec<Object<'_>> = claims.iter().map(|claim| claim.object).collect();
        let placed = placement.place(&objects, space).map_err(no_room)?;
        if placed.len() != objects.len() {
            let problem = "there must be one list of runs for each object";
            return Err(Error::Placement { what: "all objects".into(), problem });
        }
        for (object, runs) in objects.iter().zip(&placed) {
            self.use_runs(runs, object.blocks, || format!("{:?} `/{}`", object.kind, object.path))?;
        }
        let node_counts: Vec<_> = objects
            .iter()
            .zip(&placed)
            .map(
                |(object, runs)| {
                    if object.kind == Kind::Xattrs { 0 } else { ExtentList::new(runs).node_count() }
                },
            )
            .collect();
        let all_nodes = node_counts.iter().sum();
        let node_runs = match all_nodes {
            0 => Vec::new(),
            _ => placement.place_extent_trees(all_nodes, space).map_err(no_room)?,
        };
        self.use_runs(&node_runs, all_nodes, || "extent trees".into())?;
        let mut nodes = node_runs.iter().flat_map(|run| run.start..run.end());
        let with_nodes = placed.into_iter().zip(node_counts).map(|(runs, count)| {
            let nodes = nodes.by_ref().take(count as usize).collect();
            Place { runs, nodes }
        });
        Ok(with_nodes.collect())
    }

    /// Marks runs as used that together must have `blocks` blocks.
    fn use_runs(&mut self, runs: &[Run], blocks: u64, what: impl Fn() -> String) -> Result<(), Error> {
        for run in runs {
            self.use_blocks(*run).map_err(|problem| Error::Placement { what: what(), problem })?;
        }
        if runs.iter().map(|run| run.blocks).sum::<u64>() != blocks {
            let problem = "the runs have more or fewer blocks than are wanted";
            return Err(Error::Placement { what: what(), problem });
        }
        Ok(())
    }

    /// Marks a run as used; an error when it lies outside the volume or a block of it is in use already.
    fn use_blocks(&mut self, run: Run) -> Result<(), &'static str> {
        if run.blocks == 0 || run.start.checked_add(run.blocks).is_none_or(|end| end > self.geometry.blocks) {
            return Err("a run is empty or outside the volume");
        }
        let mut at = run.start;
        while at < run.end() {
            let group = (at / GROUP_BLOCKS) as u32;
            let range = self.geometry.group_run(group);
            let end = run.end().min(range.end());
            let bitmap = self.block_bitmaps[group as usize]
                .get_or_insert_with(|| new_block_bitmap(self.geometry, group));
            if !set_bits(bitmap, (at - range.start) as usize, (end - range.start) as usize) {
                return Err("a block is in use already");
            }
            at = end;
        }
        Ok(())
    }

    fn use_fixed_blocks(&mut self) -> Result<(), Error> {
        // A kernel makes up the bitmaps of other groups by itself, but not of the first, nor of a short last one.
        for group in [0, self.geometry.groups - 1] {
            self.block_bitmaps[group as usize].get_or_insert_with(|| new_block_bitmap(self.geometry, group));
        }
        for run in self.geometry.group_structures() {
            self.use_blocks(run)
                .map_err(|problem| Error::Placement { what: "group structures".into(), problem })?;
        }
        Ok(())
    }

    fn use_inode(&mut self, number: u32) {
        let (group, index) = self.locate(number);
        let inodes = self.geometry.group_inodes as usize;
        let bitmap = self.inode_bitmaps[group].get_or_insert_with(|| {
            let mut bitmap = Box::new([0; BLOCK]);
            set_bits(&mut bitmap, inodes, BLOCK * 8);
            bitmap
        });
        set_bits(bitmap, index, index + 1);
        let table = &mut self.inode_tables[group];
        table.end = table.end.max(index + 1);
    }

    /// Group of an inode and its index in the group.
    fn locate(&self, number: u32) -> (usize, usize) {
        let inodes = self.geometry.group_inodes;
        (((number - 1) / inodes) as usize, ((number - 1) % inodes) as usize)
    }

    fn put_inode(&mut self, number: u32, inode: &Inode) {
        self.use_inode(number);
        let (group, index) = self.locate(number);
        let raw = inode.encode(inode_seed(self.seed, number));
        let (block, within) = (index / TABLE_INODES as usize, index % TABLE_INODES as usize);
        let block = self.inode_tables[group].blocks.entry(block).or_insert_with(|| Box::new([0; BLOCK]));
        block[within * INODE_SIZE..][..INODE_SIZE].copy_from_slice(&raw);
        self.directories[group] += u32::from(inode.mode & 0o170_000 == TYPE_DIRECTORY);
    }

    /// The extent root of something at `place`; its nodes go to the structures.
    fn put_extents(&mut self, place: &Place, number: u32) -> [u8; ROOT_SIZE] {
        let seed = inode_seed(self.seed, number);
        let (root, nodes) = ExtentList::new(&place.runs).tree(&mut place.nodes.iter().copied(), seed);
        self.structures.extend(nodes.into_iter().map(|(block, node)| (block, "extent tree", node)));
        root
    }

    /// Puts whole blocks of a structure into the runs of its place.
    fn put_structure(&mut self, place: &Place, name: &'static str, bytes: &[u8]) {
        let mut rest = bytes;
        for run in &place.runs {
            let (head, tail) = rest.split_at(rest.len().min(run.blocks as usize * BLOCK));
            if !head.is_empty() {
                self.structures.push((run.start, name, head.to_vec()));
            }
            rest = tail;
        }
    }

    fn write_item(
        &mut self,
        item: &Item<'t>,
        number: u32,
        place: Place,
        numbers: &[u32],
        xattr_places: &[u64],
    ) {
        let meta = &item.entry.meta;
        let data: u64 = place.runs.iter().map(|run| run.blocks).sum();
        let mut inode = Inode {
            mode: item.file_type | meta.mode & 0o7777,
            uid: meta.uid,
            gid: meta.gid,
            size: 0,
            links: link_count(item.links),
            time: meta.mtime,
            blocks: data + place.nodes.len() as u64 + u64::from(item.xattr_block.is_some()),
            flags: 0,
            map: [0; ROOT_SIZE],
            xattr_block: item.xattr_block.map_or(0, |block| xattr_places[block]),
            xattrs: item.inline_xattrs.clone(),
        };
        match &item.body {
            Body::Inline { size, map } => {
                inode.size = *size;
                inode.map = *map;
            }
            Body::File(content) => {
                inode.size = content.len();
                inode.flags = FLAG_EXTENTS;
                inode.map = self.put_extents(&place, number);
                let mut from = 0;
                for run in &place.runs {
                    let len = (run.blocks * FS_BLOCK).min(content.len() - from);
                    let origin = item.entry.origin.clone();
                    self.map.push(run.start * FS_BLOCK, len, (*content).clone(), from, origin);
                    from += len;
                }
            }
            Body::SlowSymlink(target) => {
                inode.size = target.len() as u64;
                inode.flags = FLAG_EXTENTS;
                inode.map = self.put_extents(&place, number);
                let mut block = target.to_vec();
                block.resize(BLOCK, 0);
                self.put_structure(&place, "symlink", &block);
            }
            Body::Directory(folder) => {
                let items = &self.catalogue.items;
                let named = |(name, at): &(&'t [u8], usize)| Name {
                    name,
                    inode: numbers[*at],
                    file_type: folder_type(items[*at].file_type),
                };
                let names: Vec<_> = folder.names.iter().map(named).collect();
                let seed = inode_seed(self.seed, number);
                let bytes = folder.shape.encode(&names, number, numbers[folder.parent], seed);
                inode.size = bytes.len() as u64;
                inode.flags = FLAG_EXTENTS | if folder.shape.is_indexed() { FLAG_INDEX } else { 0 };
                inode.map = self.put_extents(&place, number);
                self.put_structure(&place, "directory", &bytes);
            }
        }
        self.put_inode(number, &inode);
    }

    /// An inode of the file system's own, without a map yet.
    fn own_inode(&self, size: u64, blocks: u64) -> Inode {
        Inode {
            mode: TYPE_FILE | 0o600,
            uid: 0,
            gid: 0,
            size,
            links: 1,
            time: Timestamp::from_seconds(self.options.time),
            blocks,
            flags: 0,
            map: [0; ROOT_SIZE],
            xattr_block: 0,
            xattrs: None,
        }
    }

    /// An empty journal; its map.
    fn write_journal(&mut self, place: Place) -> [u8; ROOT_SIZE] {
        let blocks = self.geometry.journal_blocks;
        let mut inode = self.own_inode(blocks * FS_BLOCK, blocks + place.nodes.len() as u64);
        inode.flags = FLAG_EXTENTS;
        inode.map = self.put_extents(&place, JOURNAL_INODE);
        self.put_inode(JOURNAL_INODE, &inode);
        let first = journal_superblock(self.options, self.geometry);
        self.put_structure(&place, "journal", &first);
        inode.map
    }

    /// The inode that holds the reserved descriptor blocks as the double-indirect part of a file: its indirect blocks
    /// are the reserved blocks of group 0, and each of them lists its copies in the backup groups.
    fn write_resize_inode(&mut self) {
        let Some(resize_block) = self.geometry.resize_block else { return };
        let backups: Vec<_> = self.geometry.backup_groups().collect();
        let reserved = self.geometry.reserved_descriptor_blocks;
        let size = (12 + BLOCK_ADDRESSES + BLOCK_ADDRESSES * BLOCK_ADDRESSES) * FS_BLOCK;
        let mut inode = self.own_inode(size, 1 + reserved * (1 + backups.len() as u64));
        // Twelve direct blocks and one indirect come before the double-indirect one.
        put32(&mut inode.map, 13 * 4, resize_block as u32);
        self.put_inode(RESIZE_INODE, &inode);

        let mut list = vec![0; BLOCK];
        let first = 1 + self.geometry.descriptor_blocks;
        for block in first..first + reserved {
            let slot = (block - 1) % BLOCK_ADDRESSES;
            put32(&mut list, slot as usize * 4, block as u32);
            let mut copies = vec![0; BLOCK];
            for (slot, group) in backups.iter().enumerate() {
                let copy = u64::from(*group) * GROUP_BLOCKS + block;
                put32(&mut copies, slot * 4, copy as u32);
            }
            self.structures.push((block, "reserved group descriptors", copies));
        }
        self.structures.push((resize_block, "reserved group descriptors", list));
    }

    /// Bitmaps, tables, descriptors and superblocks: all that depends on what is in use.
    fn write_groups(&mut self, journal_map: [u8; ROOT_SIZE]) {
        let geometry = self.geometry;
        let mut totals = Totals { free_blocks: 0, free_inodes: 0, journal_map };
        let mut descriptors = Vec::with_capacity(geometry.groups as usize * 64);
        for group in 0..geometry.groups {
            let at = group as usize;
            let mut descriptor = Descriptor {
                block_bitmap: geometry.block_bitmaps[at],
                inode_bitmap: geometry.inode_bitmaps[at],
                inode_table: geometry.inode_tables[at],
                free_blocks: (geometry.group_run(group).blocks - geometry.base_run(group).blocks) as u32,
                free_inodes: geometry.group_inodes,
                directories: self.directories[at],
                unused_inodes: geometry.group_inodes,
                flags: GROUP_TABLE_ZEROED,
                ..Descriptor::default()
            };
            match self.block_bitmaps[at].take() {
                Some(bitmap) => {
                    descriptor.free_blocks = zero_bits(&bitmap[..]);
                    descriptor.block_bitmap_checksum = crc32c(self.seed, &bitmap[..]);
                    self.structures.push((descriptor.block_bitmap, "block bitmap", bitmap.to_vec()));
                }
                None => descriptor.flags |= GROUP_BLOCK_UNINIT,
            }
            match self.inode_bitmaps[at].take() {
                Some(bitmap) => {
                    let used = &bitmap[..geometry.group_inodes as usize / 8];
                    let InodeTable { blocks, end } = std::mem::take(&mut self.inode_tables[at]);
                    descriptor.free_inodes = zero_bits(used);
                    descriptor.unused_inodes -= end as u32;
                    descriptor.inode_bitmap_checksum = crc32c(self.seed, used);
                    self.structures.push((descriptor.inode_bitmap, "inode bitmap", bitmap.to_vec()));
                    let start = descriptor.inode_table;
                    let blocks = blocks.into_iter();
                    self.structures.extend(
                        blocks.map(|(block, bytes)| (start + block as u64, "inode table", bytes.to_vec())),
                    );
                }
                None => descriptor.flags |= GROUP_INODE_UNINIT,
            }
            totals.free_blocks += u64::from(descriptor.free_blocks);
            totals.free_inodes += descriptor.free_inodes;
            descriptors.extend_from_slice(&descriptor.encode(group, self.seed));
        }
        let first = superblock(self.options, geometry, &totals, 0);
        self.put_superblock(SUPERBLOCK_AT, &first, FS_BLOCK, descriptors);
        self.write_copies(journal_map);
    }

    /// The copies of the superblock and the descriptors tell of the file system before there were files in it, as those that
    /// mke2fs leaves: kernels never bring them up to date, and a check that must use one believes neither its counts nor its marks.
    /// So they stay the same, whatever is in the file system.
    fn write_copies(&mut self, journal_map: [u8; ROOT_SIZE]) {
        let geometry = self.geometry;
        let options = Options { time: 0, ..self.options.clone() };
        let totals = Totals {
            free_blocks: geometry.blocks.saturating_sub(geometry.overhead()),
            free_inodes: geometry.inodes() - (FIRST_INODE - 1),
            journal_map,
        };
        let mut descriptors = Vec::with_capacity(geometry.groups as usize * 64);
        for group in 0..geometry.groups {
            let at = group as usize;
            let descriptor = Descriptor {
                block_bitmap: geometry.block_bitmaps[at],
                inode_bitmap: geometry.inode_bitmaps[at],
                inode_table: geometry.inode_tables[at],
                free_blocks: (geometry.group_run(group).blocks - geometry.base_run(group).blocks) as u32,
                free_inodes: geometry.group_inodes,
                unused_inodes: geometry.group_inodes,
                flags: GROUP_TABLE_ZEROED | GROUP_BLOCK_UNINIT | GROUP_INODE_UNINIT,
                ..Descriptor::default()
            };
            descriptors.extend_from_slice(&descriptor.encode(group, self.seed));
        }
        for group in geometry.backup_groups() {
            let start = geometry.group_run(group).start * FS_BLOCK;
            let copy = superblock(&options, geometry, &totals, group);
            self.put_superblock(start, &copy, start + FS_BLOCK, descriptors.clone());
        }
    }

    fn put_superblock(&mut self, at: u64, raw: &[u8], descriptors_at: u64, descriptors: Vec<u8>) {
        self.map.push_all(at, Content::from_bytes(raw.to_vec()), Origin::Structure("superblock"));
        let origin = Origin::Structure("group descriptors");
        self.map.push_all(descriptors_at, Content::from_bytes(descriptors), origin);
    }

    /// Joins structures of one name that lie side by side, within the 512 KiB grid, and makes the map.
    fn finish(mut self) -> Result<BlockMap, Error> {
        self.structures.sort_by_key(|(block, _, _)| *block);
        let mut rest = self.structures.into_iter().peekable();
        while let Some((start, name, mut bytes)) = rest.next() {
            while let Some((_, _, more)) = rest
                .next_if(|(next, other, _)| *other == name && *next == start + (bytes.len() / BLOCK) as u64)
            {
                bytes.extend_from_slice(&more);
            }
            let mut at = start * FS_BLOCK;
            let mut pieces = bytes.as_slice();
            while !pieces.is_empty() {
                let to_grid = (BLOCK_SIZE - at % BLOCK_SIZE) as usize;
                let (piece, more) = pieces.split_at(pieces.len().min(to_grid));
                self.map.push_sparse(at, piece, &Origin::Structure(name));
                at += piece.len() as u64;
                pieces = more;
            }
        }
        Ok(self.map.finish(self.options.size)?)
    }
}

/// The bitmap of a group in which nothing but a superblock copy is in use; bits past a short group's end are set.
fn new_block_bitmap(geometry: &Geometry, group: u32) -> Bitmap {
    let mut bitmap = Box::new([0; BLOCK]);
    set_bits(&mut bitmap, 0, geometry.base_run(group).blocks as usize);
    set_bits(&mut bitmap, geometry.group_run(group).blocks as usize, BLOCK * 8);
    bitmap
}

/// Sets the bits from `start` up to `end`; whether all of them were clear.
fn set_bits(bitmap: &mut [u8; BLOCK], start: usize, end: usize) -> bool {
    let mut clear = true;
    let mut at = start;
    while at < end {
        let stop = end.min((at / 8 + 1) * 8);
        let bits = (0xff_u8 << (at % 8)) & (0xff_u8 >> (7 - (stop - 1) % 8));
        clear &= bitmap[at / 8] & bits == 0;
        bitmap[at / 8] |= bits;
        at = stop;
    }
    clear
}

fn zero_bits(bitmap: &[u8]) -> u32 {
    bitmap.iter().map(|byte| byte.count_zeros()).sum()
}

/// The link count of an inode: 1 where a folder has more than can be told.
fn link_count(links: u64) -> u16 {
    if links > MAX_LINKS { 1 } else { links as u16 }
}

/// The type of an inode as folders write it.
fn folder_type(file_type: u16) -> u8 {
    match file_type {
        TYPE_FILE => 1,
        TYPE_DIRECTORY => 2,
        TYPE_CHAR_DEVICE => 3,
        TYPE_BLOCK_DEVICE => 4,
        TYPE_FIFO => 5,
        TYPE_SOCKET => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_links_than_can_be_told_are_one() {
        assert_eq!([2, 65_000, 65_001, 100_000].map(link_count), [2, 65_000, 1, 1]);
    }

    #[test]
    fn bits_are_set_from_start_to_end_and_told_when_they_were_set() {
        for (start, end) in [(0, 0), (0, 1), (3, 8), (3, 9), (7, 8), (8, 24), (5, 100), (0, BLOCK * 8)] {
            let mut bitmap = [0; BLOCK];
            assert!(set_bits(&mut bitmap, start, end));
            let set = |bit: usize| bitmap[bit / 8] >> (bit % 8) & 1 == 1;
            assert!((0..BLOCK * 8).all(|bit| set(bit) == (start..end).contains(&bit)), "{start}..{end}");
            assert_eq!(zero_bits(&bitmap) as usize, BLOCK * 8 - (end - start));
        }
        let mut bitmap = [0; BLOCK];
        set_bits(&mut bitmap, 10, 20);
        assert!(!set_bits(&mut bitmap, 19, 21));
        assert!(set_bits(&mut bitmap, 21, 30));
    }
}
