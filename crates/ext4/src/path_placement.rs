//! Places that follow from names, so that images with the same files have the same blocks of 512 KiB.
//!
//! Whoever keeps disks by the block (the store, EBS) keeps a block once when its bytes are the same. So files lie in
//! *chunks* of whole blocks, and a chunk's content and place follow from the paths in it alone:
//!
//! - **Families.** Files of one package lie together, for they change together; what was made while baking belongs to
//!   the package that owns the folder it is in. Within a family, files are in the order of their paths.
//! - **Cuts.** A chunk ends where the next path's hash says so, once it is filled a bit, or where the next file would not fit; a file of half a
//!   block or more begins one. A file that grows, comes or goes moves its neighbours up to the next cut, no further.
//! - **Slots.** A chunk lies where the hash of its first path says, or at the next place of its own sequence when that is taken. So
//!   what comes or goes moves little else, and what does not move keeps its inodes and bitmaps.
//! - **Versions.** Cuts, slots and regions follow from names with their versions taken out: the next kernel's modules, the next
//!   `libssl.so.3.5.2` lie where the last one's did, and move nothing else. Of several names that are one that way the first has its place.
//! - **Regions.** A family has a region of the inode tables, where its name's hash says, and an entry the number in it that the hash
//!   of its path says, or the next. The blocks of its folders have places the same way, in front of all chunks.
//! - Links and attributes have chunks of their own, and the journal lies in front of everything.
//!
//! The price is room: blocks at cuts are not full. A volume that has not so much of it is filled end to end instead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use block::{BLOCK_SIZE, Hasher, Origin};
use tree::TreePath;

use crate::geometry::{INODE_SIZE, TABLE_INODES};
use crate::{FS_BLOCK, Kind, Named, NoRoom, Object, Placement, Run, SimplePlacement, Space};

/// Blocks of 4 KiB in a slot of 512 KiB.
pub(crate) const SLOT: u64 = BLOCK_SIZE / FS_BLOCK;
/// Inodes in 512 KiB of an inode table.
pub(crate) const SLOT_INODES: u64 = BLOCK_SIZE / INODE_SIZE as u64;
/// Slots that places are chosen among at least: 4 GiB. More only where a volume's files need half of them.
pub(crate) const LEAST_WINDOW: u64 = 8192;
/// Blocks of 4 KiB that folders' places are chosen among at least: 32 MiB.
const LEAST_FOLDER_WINDOW: u64 = 64 * SLOT;
/// Blocks of 512 KiB of inode tables that numbers are chosen among at least.
const LEAST_INODE_WINDOW: u64 = 64;
/// How often a chunk tries places of its own sequence before it takes the next free one.
const TRIES: u64 = 64;

/// A chunk whose last slot is filled less than this is not cut.
const LEAST: u64 = SLOT * 3 / 8;
/// A cut is made before one in so many paths, and before one in so many families.
const ONE_IN: u64 = 32;
const ONE_IN_FAMILIES: u64 = 2;
/// A file of so many blocks begins a chunk.
const LARGE: u64 = SLOT / 2;
/// Behind a large file whose last slot is filled by so much, nothing follows in its chunk.
const TAIL: u64 = SLOT * 3 / 4;

/// Things that lie together.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Decides where it lies.
    pub(crate) hash: u64,
    /// How many slots it takes.
    pub(crate) slots: u64,
    /// What is in it, by index, and how far from its start.
    pub(crate) members: Vec<(usize, u64)>,
}

fn hash(salt: &[u8], path: &[u8]) -> u64 {
    let mut hasher = Hasher::new();
    hasher.field(salt);
    hasher.field(path);
    let [a, b, c, d, e, f, g, h, ..] = hasher.finish().0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// The hash of a name whose versions (numbers with dots between them) count for nothing.
fn hash_of_kind(salt: &[u8], name: &[u8]) -> u64 {
    let mut plain: Vec<u8> = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(byte) = rest.first() {
        let numbers = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        let version = rest[..numbers].strip_suffix(b".").unwrap_or(&rest[..numbers]);
        if byte.is_ascii_digit() && version.contains(&b'.') {
            plain.push(b'0');
            rest = &rest[version.len()..];
        } else {
            let taken = if byte.is_ascii_digit() { numbers } else { 1 };
            plain.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
        }
    }
    hash(salt, &plain)
}

/// Hashes of names, by [`hash_of_kind`], no two the same: those that come later have that of the whole name.
#[derive(Default)]
struct Hashes(BTreeSet<u64>);

impl Hashes {
    fn next(&mut self, salt: &[u8], name: &[u8]) -> u64 {
        let of_kind = hash_of_kind(salt, name);
        if self.0.insert(of_kind) { of_kind } else { hash(salt, name) }
    }
}

/// Something to be put into a chunk.
struct Piece<'a> {
    index: usize,
    path: &'a TreePath,
    size: u64,
    begins_family: bool,
}

/// Cuts a sequence of pieces into chunks; `salt` makes the same path another one for each kind.
fn cut<'a>(salt: &[u8], pieces: impl IntoIterator<Item = Piece<'a>>) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut hashes = Hashes::default();
    // How much the chunk in the making holds, and how much of that is in its last slot.
    let (mut size, mut last) = (0, SLOT);
    for piece in pieces {
        let name = hash_of_kind(salt, piece.path.as_bytes());
        let one_in = if piece.begins_family { ONE_IN_FAMILIES } else { ONE_IN };
        let is_large = piece.size >= LARGE;
        let ends = is_large || last + piece.size > SLOT || last >= LEAST && name.is_multiple_of(one_in);
        match chunks.last_mut() {
            Some(chunk) if !ends => chunk.members.push((piece.index, size)),
            _ => {
                size = 0;
                let hash = hashes.next(salt, piece.path.as_bytes());
                chunks.push(Chunk { hash, slots: 0, members: vec![(piece.index, 0)] });
            }
        }
        size += piece.size;
        last = (size - 1) % SLOT + 1;
        if let Some(chunk) = chunks.last_mut() {
            chunk.slots = size.div_ceil(SLOT);
        }
        if is_large && last >= TAIL {
            last = SLOT;
        }
    }
    chunks
}

/// Who owns the folders, to find families by.
pub(crate) struct Families<'a> {
    folders: BTreeMap<&'a TreePath, &'a Origin>,
}

impl<'a> Families<'a> {
    fn new(folders: impl Iterator<Item = (&'a TreePath, &'a Origin)>) -> Self {
        Self { folders: folders.collect() }
    }

    pub(crate) fn of_objects(objects: &[Object<'a>]) -> Self {
        let folders = objects.iter().filter(|object| object.kind == Kind::Directory);
        Self::new(folders.map(|folder| (folder.path, folder.origin)))
    }

    /// The family of an entry: kind and name.
    fn of<'o>(&self, path: &TreePath, origin: &'o Origin) -> (u8, &'o str)
    where
        'a: 'o,
    {
        let mut origin = origin;
        let mut above = path.parent();
        while let (Origin::Configured, Some(folder)) = (origin, above) {
            if let Some(owner @ Origin::Package(_)) = self.folders.get(&folder) {
                origin = owner;
            }
            above = folder.parent();
        }
        match origin {
            Origin::Package(name) => (0, name),
            Origin::Recipe(name) => (1, name),
            Origin::Configured | Origin::Structure(_) => (2, ""),
        }
    }

    /// The regions of the families of these entries: index, path, who made it.
    fn regions<'p>(
        &self,
        salt: &[u8],
        entries: impl Iterator<Item = (usize, &'p TreePath, &'p Origin)>,
    ) -> Vec<Region<'p>>
    where
        'a: 'p,
    {
        let mut families: BTreeMap<(u8, &str), Vec<(usize, &'p TreePath)>> = BTreeMap::new();
        for (index, path, origin) in entries {
            families.entry(self.of(path, origin)).or_default().push((index, path));
        }
        let mut hashes = Hashes::default();
        let mut name = |kind: u8, name: &str| hashes.next(&[salt, &[kind]].concat(), name.as_bytes());
        let regions = families.into_iter();
        regions.map(|((kind, family), members)| Region { hash: name(kind, family), members }).collect()
    }

    /// The pieces family by family.
    fn sorted<'p>(&self, pieces: impl Iterator<Item = (Piece<'p>, &'p Origin)>) -> Vec<Piece<'p>>
    where
        'a: 'p,
    {
        let mut families: BTreeMap<(u8, &str), Vec<Piece<'p>>> = BTreeMap::new();
        for (piece, origin) in pieces {
            families.entry(self.of(piece.path, origin)).or_default().push(piece);
        }
        let mut sorted: Vec<Piece<'p>> = Vec::new();
        for mut family in families.into_values() {
            if let Some(first) = family.first_mut() {
                first.begins_family = true;
            }
            sorted.append(&mut family);
        }
        sorted
    }
}

/// Gives every chunk its first slot, among `count`: those with more slots first, each by its hash. When they do not all find a
/// place that way they lie end to end.
fn find_slots(chunks: &[Chunk], count: usize) -> Option<Vec<usize>> {
    if chunks.iter().map(|chunk| chunk.slots).sum::<u64>() > count as u64 {
        return None;
    }
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    order.sort_by_key(|at| {
        let chunk = &chunks[*at];
        (std::cmp::Reverse(chunk.slots.next_power_of_two()), chunk.hash, *at)
    });
    let mut taken = vec![false; count];
    let mut found = vec![0; chunks.len()];
    for at in order {
        let Chunk { hash, slots, .. } = chunks[at];
        let fits = |slot: &usize| {
            taken.get(*slot..*slot + slots as usize).is_some_and(|slots| !slots.contains(&true))
        };
        let Some(slot) = tries(hash, count).find(fits) else {
            return Some(end_to_end(chunks));
        };
        taken[slot..slot + slots as usize].fill(true);
        found[at] = slot;
    }
    Some(found)
}

fn end_to_end(chunks: &[Chunk]) -> Vec<usize> {
    let mut next = 0;
    let place = |chunk: &Chunk| {
        let slot = next;
        next += chunk.slots as usize;
        slot
    };
    chunks.iter().map(place).collect()
}

/// The smallest window of at least `least` of which `wanted` take two thirds at most, by doubling.
pub(crate) fn window(least: u64, wanted: u64) -> u64 {
    least.max((wanted + wanted / 2).next_power_of_two())
}

/// Places that follow from names, so that images with the same files have the same blocks of 512 KiB: files of a package
/// together, in runs of whole blocks that begin and lie where hashes of their paths say; inode numbers and folders' blocks
/// by package and path, too. A volume without room for the gaps is filled end to end, as by [`SimplePlacement`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PathPlacement;

impl PathPlacement {
    /// The chunks of everything but the journal and what has a place in `placed` already.
    pub(crate) fn chunks(objects: &[Object<'_>], families: &Families<'_>, placed: &[Vec<Run>]) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let kinds: [(Kind, &[u8]); 4] = [
            (Kind::Directory, b"folders"),
            (Kind::Symlink, b"links"),
            (Kind::Xattrs, b"attributes"),
            (Kind::File, b"files"),
        ];
        for (kind, salt) in kinds {
            let of_kind = objects.iter().enumerate().zip(placed);
            let of_kind = of_kind.filter(|((_, object), runs)| object.kind == kind && runs.is_empty());
            let pieces = of_kind.map(|((index, object), _)| {
                let piece = Piece { index, path: object.path, size: object.blocks, begins_family: false };
                (piece, object.origin)
            });
            let pieces = match kind {
                Kind::File => families.sorted(pieces),
                _ => pieces.map(|(piece, _)| piece).collect(),
            };
            chunks.extend(cut(salt, pieces));
        }
        chunks
    }

    /// Places for folders of one block, in the first ones of `slots`, and how many slots these are; none where that would be
    /// more than an eighth of all.
    pub(crate) fn folders(
        objects: &[Object<'_>],
        families: &Families<'_>,
        slots: &[u64],
    ) -> Option<(Vec<(usize, u64)>, usize)> {
        let folders = objects.iter().enumerate();
        let folders = folders.filter(|(_, object)| object.kind == Kind::Directory && object.blocks == 1);
        let regions =
            families.regions(b"folders", folders.map(|(index, folder)| (index, folder.path, folder.origin)));
        let wanted = regions.iter().map(|region| region.room(1)).sum();
        let window = window(LEAST_FOLDER_WINDOW, wanted).min(slots.len() as u64 / 8 * SLOT);
        let places = spread(&regions, 1, 0, window)?;
        let block = |place: u64| slots[(place / SLOT) as usize] + place % SLOT;
        let places = places.into_iter().map(|(index, place)| (index, block(place))).collect();
        Some((places, (window / SLOT) as usize))
    }
}

/// Every slot of the volume that is free.
pub(crate) fn free_slots(space: &Space) -> impl Iterator<Item = u64> {
    space.free_runs().flat_map(|run| {
        let starts = (run.start.next_multiple_of(SLOT)..run.end()).step_by(SLOT as usize);
        starts.filter(move |at| at + SLOT <= run.end())
    })
}

/// Room for all objects, of which the journal has its place: in front of everything.
pub(crate) fn place_journal(objects: &[Object<'_>], space: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom> {
    let mut placed = vec![Vec::new(); objects.len()];
    let first = free_slots(space).next().unwrap_or(0);
    for (object, runs) in objects.iter().zip(&mut placed) {
        if object.kind == Kind::Journal {
            *runs = space.take_pieces(object.blocks, first).ok_or(NoRoom)?;
        }
    }
    Ok(placed)
}

/// Takes what was placed, but for the journal, out of the space.
pub(crate) fn claim(objects: &[Object<'_>], placed: &[Vec<Run>], space: &mut Space) -> Result<(), NoRoom> {
    let mut others = objects.iter().zip(placed).filter(|(object, _)| object.kind != Kind::Journal);
    if others.all(|(_, runs)| runs.iter().all(|run| space.claim(*run))) { Ok(()) } else { Err(NoRoom) }
}

impl Placement for PathPlacement {
    fn place(&self, objects: &[Object<'_>], space: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom> {
        let whole = space.clone();
        let mut placed = place_journal(objects, space)?;
        let families = Families::of_objects(objects);
        let slots: Vec<u64> = free_slots(space).collect();
        let mut slots = slots.as_slice();
        if let Some((places, used)) = Self::folders(objects, &families, slots) {
            for (index, start) in places {
                placed[index] = vec![Run { start, blocks: 1 }];
            }
            slots = &slots[used..];
        }
        let chunks = Self::chunks(objects, &families, &placed);
        let wanted = chunks.iter().map(|chunk| chunk.slots).sum();
        let window = usize::try_from(window(LEAST_WINDOW, wanted)).unwrap_or(usize::MAX);
        let slots = &slots[..slots.len().min(window)];
        let Some(found) = find_slots(&chunks, slots.len()) else {
            *space = whole;
            return SimplePlacement.place(objects, space);
        };
        for (chunk, first) in chunks.iter().zip(found) {
            for (index, offset) in &chunk.members {
                placed[*index] = runs(&slots[first..], *offset, objects[*index].blocks);
            }
        }
        claim(objects, &placed, space)?;
        Ok(placed)
    }

    fn number(&self, entries: &[Named<'_>], free: RangeInclusive<u32>) -> Vec<u32> {
        let folders = entries.iter().filter(|entry| entry.is_folder);
        let families = Families::new(folders.map(|folder| (folder.path, folder.origin)));
        let members = entries.iter().enumerate().map(|(index, entry)| (index, entry.path, entry.origin));
        let regions = families.regions(b"numbers", members);
        let wanted = regions.iter().map(|region| region.room(TABLE_INODES.into())).sum();
        let window = window(LEAST_INODE_WINDOW * SLOT_INODES, wanted).min(u64::from(*free.end()));
        // The first numbers are reserved.
        let reserved = u64::from(*free.start()) - 1;
        match spread(&regions, TABLE_INODES.into(), reserved, window) {
            Some(mut places) => {
                places.sort_unstable();
                places.into_iter().map(|(_, place)| place as u32 + 1).collect()
            }
            None => SimplePlacement.number(entries, free),
        }
    }
}

/// Things of one size of a family, each of which has a place of its own.
#[derive(Debug)]
struct Region<'a> {
    hash: u64,
    /// By index.
    members: Vec<(usize, &'a TreePath)>,
}

impl Region<'_> {
    /// How many places it has: some to spare, and whole granules.
    fn room(&self, granule: u64) -> u64 {
        let wanted = self.members.len() as u64;
        (wanted + wanted / 8).next_multiple_of(granule)
    }
}

/// Gives every region `granule`s of its own among the first `window` places, and every member a place in its region, by
/// index; `None`: there is no room for that.
fn spread(regions: &[Region<'_>], granule: u64, reserved: u64, window: u64) -> Option<Vec<(usize, u64)>> {
    let granules = (window / granule) as usize;
    let mut taken = vec![false; granules];
    taken.iter_mut().take(reserved.div_ceil(granule) as usize).for_each(|taken| *taken = true);
    let mut order: Vec<&Region<'_>> = regions.iter().collect();
    order.sort_by_key(|region| (std::cmp::Reverse(region.room(granule).next_power_of_two()), region.hash));
    let mut places = Vec::new();
    for region in order {
        let room = region.room(granule);
        let size = (room / granule) as usize;
        let choices = (granules + 1).checked_sub(size).filter(|choices| *choices > 0)?;
        let first = tries(region.hash, choices).find(|first| !taken[*first..][..size].contains(&true))?;
        taken[first..][..size].fill(true);
        places.extend(region.places(room).map(|(index, at)| (index, first as u64 * granule + at)));
    }
    Some(places)
}

impl Region<'_> {
    /// Each member's place among `room`: by the hash of its path, or the next that is free.
    fn places(&self, room: u64) -> impl Iterator<Item = (usize, u64)> {
        let mut hashes = Hashes::default();
        let wish = |(index, path): &(usize, &TreePath)| (hashes.next(b"member", path.as_bytes()), *index);
        let mut wishes: Vec<(u64, usize)> = self.members.iter().map(wish).collect();
        wishes.sort_unstable();
        let mut taken = vec![false; room as usize];
        wishes.into_iter().map(move |(hash, index)| {
            // As with linear hashing: when a region grows by some, most of its members keep their places.
            let (wide, narrow) = (room.next_power_of_two(), (room.next_power_of_two() / 2).max(1));
            let wish = if hash % wide < room { hash % wide } else { hash % narrow } as usize;
            // There are at least as many places as members.
            let at = (wish..taken.len()).chain(0..wish).find(|at| !taken[*at]).unwrap_or_default();
            taken[at] = true;
            (index, at as u64)
        })
    }
}

/// Places to try, among `count`: first those of the hash's own sequence, then one after the other.
pub(crate) fn tries(hash: u64, count: usize) -> impl Iterator<Item = usize> {
    let all = count as u64;
    let step = 1 + (hash >> 32) % all.saturating_sub(1).max(1);
    let own = (0..TRIES).map(move |n| ((hash % all + n * step) % all) as usize);
    let next = (hash % all) as usize;
    own.chain(next..count).chain(0..next)
}

/// The runs of `blocks` blocks from `offset` blocks behind the first of these slots on.
pub(crate) fn runs(slots: &[u64], offset: u64, blocks: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let (mut at, end) = (offset, offset + blocks);
    while at < end {
        let stop = end.min((at / SLOT + 1) * SLOT);
        let start = slots[(at / SLOT) as usize] + at % SLOT;
        match runs.last_mut() {
            Some(last) if last.end() == start => last.blocks += stop - at,
            _ => runs.push(Run { start, blocks: stop - at }),
        }
        at = stop;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::hash_of_kind;

    #[test]
    fn versions_count_for_nothing() {
        let same = |a: &str, b: &str| hash_of_kind(b"", a.as_bytes()) == hash_of_kind(b"", b.as_bytes());
        assert!(same("usr/lib/modules/6.12.9-cloud/x.ko", "usr/lib/modules/6.12.117-cloud/x.ko"));
        assert!(same("libssl.so.3.5", "libssl.so.3.6.12"));
        assert!(same("python3.11/re.py", "python3.13/re.py"));
        assert!(same("a1.2.", "a7.88."));
        for (a, b) in [
            ("file0001", "file0002"),
            ("ca0110.ko", "ca0132.ko"),
            ("libz.so.1", "libz.so.2"),
            ("a1.", "a2."),
            ("1.2", "1.2."),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
