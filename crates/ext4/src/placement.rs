use std::ops::RangeInclusive;

use block::{BLOCK_SIZE, Content, Origin};
use tree::TreePath;

use crate::{FS_BLOCK, Run, Space};

/// What a placed object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The journal: zeros but for its first block.
    Journal,
    /// The names in a folder.
    Directory,
    /// The target of a symbolic link that is too long for its inode.
    Symlink,
    /// Extended attributes that do not fit into an inode, of the entry at the path and all with the same ones.
    Xattrs,
    /// The content of a regular file.
    File,
}

/// Something that wants blocks of the volume.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// What it is.
    pub kind: Kind,
    /// How many blocks of 4 KiB it wants; never zero.
    pub blocks: u64,
    /// The entry it belongs to; the root for the journal.
    pub path: &'a TreePath,
    /// The content of a file: its length and its id, not to be read here.
    pub content: Option<&'a Content>,
    /// Who made the entry.
    pub origin: &'a Origin,
}

/// An entry that wants an inode number.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its path; of a file with several names the one that the tree has the file at.
    pub path: &'a TreePath,
    /// Who made it.
    pub origin: &'a Origin,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// The volume's free blocks do not suffice in the way in which the placement wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Decides where on the volume everything lies that has no fixed place, and which inode is whose.
///
/// Superblocks, group descriptors, bitmaps and inode tables have fixed places; they are not in the [`Space`] that a
/// placement sees. The same arguments must always give the same answer. Every answer is checked: a block outside the
/// free runs, given twice, or missing is refused with [`Error::Placement`](crate::Error::Placement).
pub trait Placement {
    /// Gives each object its runs: in the object's order, together exactly as many blocks as it wants.
    ///
    /// Objects come in a fixed order: journal, folders, symbolic links, attributes, files, each kind sorted by path.
    /// Blocks that are not taken out of `space` stay free: gaps are allowed.
    fn place(&self, objects: &[Object<'_>], space: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom>;

    /// Gives blocks, in any runs, to the extent trees of objects that have more than four pieces. Called once, after
    /// [`Placement::place`], with what that left free.
    fn place_extent_trees(&self, blocks: u64, space: &mut Space) -> Result<Vec<Run>, NoRoom> {
        space.take_pieces(blocks, 0).ok_or(NoRoom)
    }

    /// Gives each entry its inode number, all different, out of `free`. The entries come in the tree's order, each
    /// file with several names once; the root and `lost+found` have fixed numbers and are not among them. There are
    /// always as many free numbers as entries, and mostly many more. A number decides where in the inode tables an
    /// entry stands, and stands in its folder: numbers that stay keep those blocks as they are.
    fn number(&self, entries: &[Named<'_>], free: RangeInclusive<u32>) -> Vec<u32> {
        free.take(entries.len()).collect()
    }
}

/// Everything end to end: first folders, long symbolic links and attributes, then the journal, then files in the
/// tree's order from a boundary of 512 KiB on, each in one piece where a free run is long enough.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimplePlacement;

impl Placement for SimplePlacement {
    fn place(&self, objects: &[Object<'_>], space: &mut Space) -> Result<Vec<Vec<Run>>, NoRoom> {
        let order = [Kind::Directory, Kind::Symlink, Kind::Xattrs, Kind::Journal, Kind::File];
        let mut placed = vec![Vec::new(); objects.len()];
        let mut from = 0;
        for kind in order {
            if kind == Kind::File {
                from = u64::next_multiple_of(from, BLOCK_SIZE / FS_BLOCK);
            }
            for (object, runs) in objects.iter().zip(&mut placed).filter(|(object, _)| object.kind == kind) {
                *runs = space.take_pieces(object.blocks, from).ok_or(NoRoom)?;
                from = runs.last().map_or(from, |run| run.end());
            }
        }
        Ok(placed)
    }
}
