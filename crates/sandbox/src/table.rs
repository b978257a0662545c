//! Which files belong to somebody else than the kernel says, or have access lists that it could not keep.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};

use crate::access_list::{AccessList, Which};
use crate::sys;

/// A user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Where a file is: its file system's device and its inode. Another file may be there once this one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    device: (u32, u32),
    inode: u64,
}

impl Place {
    /// What [`StatxFlags`] it takes.
    pub(crate) const MASK: StatxFlags = StatxFlags::INO;

    pub(crate) fn of(stat: &Statx) -> Self {
        Self { device: (stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino }
    }
}

/// What tells a file from an earlier one at the same place: the moment of its birth and the name that its file system
/// has for it. A file system may know neither.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    born: Option<(i64, u32)>,
    handle: Option<Vec<u8>>,
}

/// A file that is held open, and so stays what it is.
#[derive(Clone, Debug)]
pub(crate) struct File {
    place: Place,
    mark: Mark,
    /// The mode, with the kind of file.
    pub(crate) mode: u32,
    /// Whom the kernel says it belongs to.
    pub(crate) real: Owner,
}

impl File {
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        let mask = Place::MASK
            | StatxFlags::BTIME
            | StatxFlags::TYPE
            | StatxFlags::MODE
            | StatxFlags::UID
            | StatxFlags::GID;
        let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, mask)?;
        let knows_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        let born = knows_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec));
        Ok(Self {
            place: Place::of(&stat),
            mark: Mark { born, handle: sys::file_handle(&file) },
            mode: u32::from(stat.stx_mode),
            real: Owner { uid: stat.stx_uid, gid: stat.stx_gid },
        })
    }

    fn is_folder(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

#[derive(Debug)]
struct Entry {
    mark: Mark,
    owner: Owner,
    folder: bool,
    access: Option<AccessList>,
    default: Option<AccessList>,
}

impl Entry {
    fn list(&mut self, which: Which) -> &mut Option<AccessList> {
        match which {
            Which::Access => &mut self.access,
            Which::Default => &mut self.default,
        }
    }
}

/// The files that belong to others than root. All that is not in it belongs to whom the kernel says.
#[derive(Debug, Default)]
pub(crate) struct Table {
    files: HashMap<Place, Entry>,
    /// How many folders there are among them with a group of their own, which may be handed down.
    grouped_folders: usize,
    /// Whether there ever was an access list.
    lists: bool,
}

impl Table {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether a file at this place is in it, or was before it went.
    pub(crate) fn may_have(&self, place: Place) -> bool {
        self.files.contains_key(&place)
    }

    /// Whether a folder may hand its group down to what is made in it.
    pub(crate) fn has_grouped_folders(&self) -> bool {
        self.grouped_folders > 0
    }

    /// Whose file it is, when it is in the table.
    pub(crate) fn get(&self, file: &File) -> Option<Owner> {
        self.files.get(&file.place).filter(|entry| entry.mark == file.mark).map(|entry| entry.owner)
    }

    /// Whose file it is.
    pub(crate) fn owner(&self, file: &File) -> Owner {
        self.get(file).unwrap_or(file.real)
    }

    /// Gives a file to somebody.
    pub(crate) fn set(&mut self, file: &File, owner: Owner) {
        self.change(file, |entry| entry.owner = owner);
    }

    /// Whether a file may have access lists here.
    pub(crate) fn has_lists(&self) -> bool {
        self.lists
    }

    /// A file's access list.
    pub(crate) fn list(&self, file: &File, which: Which) -> Option<&AccessList> {
        let entry = self.files.get(&file.place).filter(|entry| entry.mark == file.mark)?;
        match which {
            Which::Access => entry.access.as_ref(),
            Which::Default => entry.default.as_ref(),
        }
    }

    /// Gives a file an access list, or takes it.
    pub(crate) fn set_list(&mut self, file: &File, which: Which, list: Option<AccessList>) {
        self.lists |= list.is_some();
        self.change(file, |entry| *entry.list(which) = list);
    }

    fn change(&mut self, file: &File, change: impl FnOnce(&mut Entry)) {
        let counts = |entry: &Entry| usize::from(entry.folder && entry.owner.gid != 0);
        let before = self.files.remove(&file.place);
        self.grouped_folders -= before.as_ref().map_or(0, counts);
        let mut entry = before.filter(|entry| entry.mark == file.mark).unwrap_or_else(|| Entry {
            mark: file.mark.clone(),
            owner: file.real,
            folder: file.is_folder(),
            access: None,
            default: None,
        });
        change(&mut entry);
        if entry.owner != file.real || entry.access.is_some() || entry.default.is_some() {
            self.grouped_folders += counts(&entry);
            self.files.insert(file.place, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAN: Owner = Owner { uid: 6, gid: 12 };

    fn file(inode: u64, second: i64, mode: u32) -> File {
        File {
            place: Place { device: (8, 1), inode },
            mark: Mark { born: Some((second, 0)), handle: None },
            mode,
            real: Owner::default(),
        }
    }

    #[test]
    fn a_file_is_known_by_place_and_birth() {
        let mut table = Table::default();
        let man = file(1, 10, 0o100_644);
        table.set(&man, MAN);
        assert_eq!(table.owner(&man), MAN);
        let later = file(1, 11, 0o100_644);
        assert!(table.may_have(later.place));
        assert_eq!((table.get(&later), table.owner(&later)), (None, Owner::default()));
        assert!(!table.may_have(file(2, 10, 0).place));
        table.set(&later, Owner { uid: 1, gid: 1 });
        assert_eq!(table.get(&man), None, "it is gone, or the other would not be there");
    }

    #[test]
    fn what_is_given_back_is_forgotten() {
        let mut table = Table::default();
        let folder = file(1, 10, 0o042_755);
        table.set(&folder, MAN);
        table.set(&folder, MAN);
        assert!(table.has_grouped_folders());
        table.set(&folder, Owner { uid: 6, gid: 0 });
        assert!(!table.has_grouped_folders() && !table.is_empty());
        table.set(&folder, Owner::default());
        assert!(table.is_empty());
    }

    #[test]
    fn a_list_goes_with_its_file() {
        let mut table = Table::default();
        let (old, new) = (file(1, 10, 0o100_644), file(1, 11, 0o100_644));
        let bytes = [2, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 0, 0, 32, 0, 4, 0, 0, 0, 0, 0];
        let list = AccessList::read(&bytes, 9).unwrap();
        table.set_list(&old, Which::Access, Some(list.clone()));
        table.set(&old, MAN);
        table.set(&old, Owner::default());
        assert_eq!(table.list(&old, Which::Access), Some(&list));
        assert_eq!((table.list(&old, Which::Default), table.list(&new, Which::Access)), (None, None));
        table.set_list(&old, Which::Access, None);
        assert!(table.is_empty() && table.has_lists());
    }

    #[test]
    fn real_files_have_marks() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        std::fs::write(&one, "").unwrap();
        std::fs::write(&other, "").unwrap();
        std::fs::hard_link(&one, folder.path().join("name")).unwrap();
        let look = |path: &std::path::Path| File::of(std::fs::File::open(path).unwrap()).unwrap();
        let mut table = Table::default();
        table.set(&look(&one), MAN);
        assert_eq!(table.get(&look(&folder.path().join("name"))), Some(MAN));
        assert_eq!(table.get(&look(&other)), None);
    }
}
