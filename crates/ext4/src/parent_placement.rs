//! Places against a parent: an image of which somebody has a snapshot already, so that only blocks of 512 KiB that are not the same *at
//! the same index* have to be sent to him.
//!
//! What lies together follows from names, as [`path_placement`](crate::path_placement) says. Where it lies follows from the parent:
//!
//! - **Slots that are kept.** A slot of a chunk that begins with the same piece of the same file as a slot of the parent takes its place, and
//!   so every slot whose content is unchanged does.
//! - **Slots that change anyway.** Other slots take first those in which the parent had something and nobody keeps them: an index that
//!   nobody uses any more differs, too. Only then come free ones, by hash, as without a parent.
//! - **Inodes and folders** keep number and block by path. New ones take those that became free, then room in blocks of 512 KiB where
//!   some did, then the first that there is: near each other, not by family.
//!
//! Nothing is promised of a parent: what cannot be kept is placed as if there were none, and so is everything where chunks do not fit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use tree::TreePath;

use crate::path_placement::{
    Chunk, Families, LEAST_WINDOW, SLOT, SLOT_INODES, claim, free_slots, place_journal, runs, tries, window,
};
use crate::{Kind, Named, NoRoom, Object, PathPlacement, Placement, Run, Space};

/// Most pieces into which a chunk is cut to fill slots that change anyway: an inode has room for four.
const PIECES: usize = 3;
/// Slots that may hold single blocks of folders in any volume; in large ones an eighth of all.
const FOLDER_SLOTS: usize = 64;

/// Where things lie in a parent, in blocks of 4 KiB from the start of the volume that is laid out now. It may say anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentPlaces {
    /// Inode numbers by path.
    pub numbers: BTreeMap<TreePath, u32>,
    /// The blocks of folders that have one.
    pub folders: BTreeMap<TreePath, u64>,
    /// What lies at the beginning of a block of 512 KiB: a path, and how many blocks into its content; and that block's first.
    pub slots: BTreeMap<(TreePath, u64), u64>,
    /// The first blocks of the blocks of 512 KiB that are not all zero.
    pub used: BTreeSet<u64>,
}

/// [`PathPlacement`] with everything that a parent has, too, in the parent's place.
#[derive(Clone, Copy, Debug)]
pub struct ParentPlacement<'a> {
    /// Where things lie in the parent.
    pub parent: &'a ParentPlaces,
}

/// What a slot of the volume is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Nothing, and the parent has nothing there.
    Free,
    /// Nothing, but the parent has something there: the index differs, whatever comes there.
    Differs,
    /// Blocks of folders.
    Folders,
    /// A chunk's.
    Chunk,
}

/// The slots of a volume that no fixed structure takes.
struct Slots {
    /// First blocks, sorted.
    starts: Vec<u64>,
    uses: Vec<Use>,
    /// Those that are [`Use::Differs`].
    differing: BTreeSet<usize>,
}

impl Slots {
    fn new(space: &Space, parent: &ParentPlaces) -> Self {
        let starts: Vec<u64> = free_slots(space).collect();
        let of = |start: &u64| if parent.used.contains(start) { Use::Differs } else { Use::Free };
        let uses: Vec<Use> = starts.iter().map(of).collect();
        let differing = (0..uses.len()).filter(|at| uses[*at] == Use::Differs).collect();
        Self { starts, uses, differing }
    }

    fn set(&mut self, at: usize, to: Use) {
        self.uses[at] = to;
        self.differing.remove(&at);
    }

    /// The slot that begins with this block.
    fn at(&self, start: u64) -> Option<usize> {
        self.starts.binary_search(&start).ok()
    }

    /// The slot that a block lies in.
    fn around(&self, block: u64) -> Option<usize> {
        self.at(block - block % SLOT)
    }

    fn is_open(&self, at: usize) -> bool {
        matches!(self.uses.get(at), Some(Use::Free | Use::Differs))
    }

    /// Runs of neighbouring slots that differ anyway: first and how many.
    fn runs_that_differ(&self) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for at in &self.differing {
            match found.last_mut() {
                Some((first, count)) if *first + *count == *at => *count += 1,
                _ => found.push((*at, 1)),
            }
        }
        found
    }

    /// Takes `count` slots: those that differ anyway, in one run or a few, else free ones in one run that `hash` chooses among the first
    /// `window`, else whatever there is.
    fn take(&mut self, count: usize, hash: u64, window: usize) -> Option<Vec<usize>> {
        let taken = self.find(count, hash, window)?;
        taken.iter().for_each(|at| self.set(*at, Use::Chunk));
        Some(taken)
    }

    fn find(&self, count: usize, hash: u64, window: usize) -> Option<Vec<usize>> {
        let mut differing = self.runs_that_differ();
        let fitting = differing.iter().filter(|(_, room)| *room >= count);
        if let Some((first, _)) = fitting.min_by_key(|(first, room)| (*room, *first)) {
            return Some((*first..first + count).collect());
        }
        differing.sort_by_key(|(first, room)| (std::cmp::Reverse(*room), *first));
        let pieces: Vec<usize> = differing
            .iter()
            .take(PIECES)
            .flat_map(|(first, room)| *first..first + room)
            .take(count)
            .collect();
        if pieces.len() == count {
            return Some(pieces);
        }
        let fits = |first: &usize| {
            let uses = self.uses.get(*first..*first + count);
            uses.is_some_and(|uses| uses.iter().all(|taken| *taken == Use::Free))
        };
        let window = window.min(self.uses.len());
        let free = if window == 0 { None } else { tries(hash, window).find(fits) };
        if let Some(first) = free.or_else(|| (0..self.uses.len()).find(fits)) {
            return Some((first..first + count).collect());
        }
        let any: Vec<usize> = (0..self.uses.len()).filter(|at| self.is_open(*at)).take(count).collect();
        (any.len() == count).then_some(any)
    }
}

impl ParentPlacement<'_> {
    /// Places for folders of one block, by index: the parent's, then the nearest to them. `None`: the parent has none that can be
    /// kept, or has them all over the volume.
    fn folders(&self, objects: &[Object<'_>], slots: &mut Slots) -> Option<Vec<(usize, u64)>> {
        let folders = objects.iter().enumerate();
        let folders: Vec<_> =
            folders.filter(|(_, object)| object.kind == Kind::Directory && object.blocks == 1).collect();
        let mut taken = BTreeSet::new();
        let mut places = Vec::new();
        let mut new = Vec::new();
        for (index, folder) in folders {
            let block = self.parent.folders.get(folder.path).copied();
            let block = block.filter(|block| slots.around(*block).is_some() && taken.insert(*block));
            match block {
                Some(block) => places.push((index, block)),
                None => new.push(index),
            }
        }
        let used: BTreeSet<usize> = taken.iter().filter_map(|block| slots.around(*block)).collect();
        if used.is_empty() || used.len() > FOLDER_SLOTS.max(slots.starts.len() / 8) {
            return None;
        }
        let gone: BTreeSet<u64> =
            self.parent.folders.values().copied().filter(|block| !taken.contains(block)).collect();
        let dirty: BTreeSet<usize> = gone.iter().filter_map(|block| slots.around(*block)).collect();
        let in_use = |block: &u64| slots.around(*block).is_some_and(|at| used.contains(&at));
        let blocks = |at: &usize| slots.starts[*at]..slots.starts[*at] + SLOT;
        // The parent's other slots may be wanted by what lies in them.
        let of = |wanted| {
            let all = slots.uses.iter().enumerate().filter(move |(_, taken)| **taken == wanted);
            all.map(|(at, _)| at).filter(|at| !used.contains(at))
        };
        let others = of(Use::Free).chain(of(Use::Differs));
        let free = gone.iter().copied().filter(in_use);
        let free = free.chain(used.intersection(&dirty).flat_map(blocks));
        let free = free.chain(used.difference(&dirty).flat_map(blocks));
        let mut free = free.chain(others.flat_map(|at| blocks(&at))).filter(|block| taken.insert(*block));
        for index in new {
            places.push((index, free.next()?));
        }
        drop(free);
        for (_, block) in &places {
            if let Some(at) = slots.around(*block) {
                slots.set(at, Use::Folders);
            }
        }
        Some(places)
    }

    /// The slots of the parent that the slots of a chunk begin like, where they are still open.
    fn kept(&self, chunk: &Chunk, objects: &[Object<'_>], slots: &Slots) -> Vec<Option<usize>> {
        let begin = (0..chunk.slots).map(|slot| {
            let at = slot * SLOT;
            let member = chunk.members.partition_point(|(_, offset)| *offset <= at).checked_sub(1)?;
            let (index, offset) = chunk.members[member];
            let object = &objects[index];
            let begins = object.kind != Kind::Xattrs && at - offset < object.blocks;
            let key = (object.path.clone(), at - offset);
            let start = self.parent.slots.get(&key).filter(|_| begins)?;
            slots.at(*start).filter(|at| slots.is_open(*at))
        });
        begin.collect()
    }

    /// Slots for all chunks; `None` when they do not fit.
    fn slots(&self, chunks: &[Chunk], objects: &[Object<'_>], slots: &mut Slots) -> Option<Vec<Vec<u64>>> {
        let mut found: Vec<Vec<Option<usize>>> = Vec::new();
        for chunk in chunks {
            let mut kept = self.kept(chunk, objects, slots);
            for place in &mut kept {
                // A parent may say of two files that they begin the same slot.
                *place = place.filter(|at| slots.is_open(*at));
                if let Some(at) = place {
                    slots.set(*at, Use::Chunk);
                }
            }
            found.push(kept);
        }
        // What is missing, in stretches: chunk, first slot, how many.
        let mut missing: Vec<(usize, usize, usize)> = Vec::new();
        for (chunk, places) in found.iter().enumerate() {
            for (slot, _) in places.iter().enumerate().filter(|(_, place)| place.is_none()) {
                match missing.last_mut() {
                    Some((last, first, count)) if *last == chunk && *first + *count == slot => *count += 1,
                    _ => missing.push((chunk, slot, 1)),
                }
            }
        }
        missing.sort_by_key(|(chunk, first, count)| {
            (std::cmp::Reverse(*count), chunks[*chunk].hash, *chunk, *first)
        });
        let window = window(LEAST_WINDOW, chunks.iter().map(|chunk| chunk.slots).sum());
        let window = usize::try_from(window).unwrap_or(usize::MAX);
        for (chunk, first, count) in missing {
            let taken = slots.take(count, chunks[chunk].hash.wrapping_add(first as u64), window)?;
            for (place, at) in found[chunk][first..].iter_mut().zip(taken) {
                *place = Some(at);
            }
        }
        let starts =
            |places: Vec<Option<usize>>| places.into_iter().flatten().map(|at| slots.starts[at]).collect();
        Some(found.into_iter().map(starts).collect())
    }
}

impl Placement for ParentPlacement<'_> {
    fn place(&self, objects: &[Object<'_>], space: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom> {
        let whole = space.clone();
        let mut placed = place_journal(objects, space)?;
        let families = Families::of_objects(objects);
        let mut slots = Slots::new(space, self.parent);
        if let Some(places) = self.folders(objects, &mut slots) {
            for (index, start) in places {
                placed[index] = vec![Run { start, blocks: 1 }];
            }
        } else if let Some((places, used)) = PathPlacement::folders(objects, &families, &slots.starts) {
            (0..used).for_each(|at| slots.set(at, Use::Folders));
            for (index, start) in places {
                placed[index] = vec![Run { start, blocks: 1 }];
            }
        }
        let chunks = PathPlacement::chunks(objects, &families, &placed);
        let Some(found) = self.slots(&chunks, objects, &mut slots) else {
            *space = whole;
            return PathPlacement.place(objects, space);
        };
        for (chunk, starts) in chunks.iter().zip(found) {
            for (index, offset) in &chunk.members {
                placed[*index] = runs(&starts, *offset, objects[*index].blocks);
            }
        }
        claim(objects, &placed, space)?;
        Ok(placed)
    }

    fn number(&self, entries: &[Named<'_>], free: RangeInclusive<u32>) -> Vec<u32> {
        let mut taken = BTreeSet::new();
        let kept: Vec<Option<u32>> = entries
            .iter()
            .map(|entry| {
                let number = self.parent.numbers.get(entry.path).copied();
                number.filter(|number| free.contains(number) && taken.insert(*number))
            })
            .collect();
        if taken.is_empty() {
            return PathPlacement.number(entries, free);
        }
        let gone: BTreeSet<u32> = self.parent.numbers.values().copied().collect();
        let gone: BTreeSet<u32> =
            gone.into_iter().filter(|number| free.contains(number) && !taken.contains(number)).collect();
        // Blocks of 512 KiB of the tables, as far as they have their usual size.
        let block = |number: u32| u64::from(number - 1) / SLOT_INODES;
        let numbers = |block: u64| {
            let first = u32::try_from(block * SLOT_INODES + 1).unwrap_or(u32::MAX);
            let last = u32::try_from((block + 1) * SLOT_INODES).unwrap_or(u32::MAX);
            first.max(*free.start())..=last.min(*free.end())
        };
        let dirty: BTreeSet<u64> = gone.iter().map(|number| block(*number)).collect();
        let others = (block(*free.start())..=block(*free.end())).filter(|block| !dirty.contains(block));
        let rest = dirty.iter().copied().chain(others).flat_map(numbers);
        let mut next = gone.iter().copied().chain(rest).filter(|number| taken.insert(*number));
        // There are at least as many free numbers as entries.
        kept.into_iter().map(|kept| kept.or_else(|| next.next()).unwrap_or(0)).collect()
    }
}
