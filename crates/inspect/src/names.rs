//! The names of a file system in the making, with a limit.

use tree::TreePath;

use crate::Fault;

/// The longest path, as system calls take it.
const LONGEST: usize = 4096;

/// Names that were found. Paths that take far more memory than the disk has data are refused.
pub(crate) struct Names {
    names: Vec<(TreePath, u32)>,
    room: u64,
}

impl Names {
    /// None yet, of a disk with so many bytes of data.
    pub(crate) fn new(data: u64) -> Self {
        Self { names: Vec::new(), room: (4 << 20) + data.saturating_mul(32) }
    }

    /// The path of a name in a folder.
    pub(crate) fn below(&self, folder: &TreePath, name: &[u8]) -> Result<TreePath, Fault> {
        match folder.join(name) {
            Ok(path) if path.as_bytes().len() < LONGEST => Ok(path),
            Ok(_) => Err(Fault::Damaged("a path is longer than 4095 bytes".to_owned())),
            Err(_) => Err(Fault::Damaged("a folder has a name that is none".to_owned())),
        }
    }

    /// Adds a name and its inode.
    pub(crate) fn push(&mut self, path: TreePath, number: u32) -> Result<(), Fault> {
        let Some(room) = self.room.checked_sub(path.as_bytes().len() as u64 + 32) else {
            return Err(Fault::Damaged("its names take far more room than its folders".to_owned()));
        };
        self.room = room;
        self.names.push((path, number));
        Ok(())
    }

    /// All of them, each folder right before what it holds.
    pub(crate) fn sorted(mut self) -> Result<Vec<(TreePath, u32)>, Fault> {
        self.names.sort_by(|(one, _), (other, _)| one.cmp(other));
        match self.names.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            true => Err(Fault::Damaged("a folder has a name twice".to_owned())),
            false => Ok(self.names),
        }
    }
}
