//! Files that differ, by path.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use block::{BLOCK_SIZE, ReadError};
use inspect::{FileSystem, Inode, Kind, Partition, PartitionContent, Run};
use rayon::prelude::*;
use tree::TreePath;

use crate::{Volume, shown};

/// The files that differ between two file systems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileChanges {
    /// How many are the same in all but perhaps their times.
    pub same: u64,
    /// How many of these have another time of last change.
    pub times: u64,
    /// The others, by path.
    pub changes: Vec<FileChange>,
}

/// A file, folder, link or device that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Its path.
    pub path: TreePath,
    /// What it is in A.
    pub before: Option<Fact>,
    /// What it is in B.
    pub after: Option<Fact>,
    /// In what it differs; empty when one of the images does not have it.
    pub aspects: Vec<Aspect>,
}

/// What can be said of a file in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is.
    pub kind: Kind,
    /// The lower 12 bits of its mode.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of its content; 0 for what is no file.
    pub size: u64,
    /// How many names it has.
    pub links: u16,
}

/// In what a file that both images have differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// It was one kind of thing and is another.
    Kind,
    /// Its bytes.
    Content,
    /// Where it leads to, as a link.
    Target,
    /// Which device it stands for.
    Device,
    /// Its mode.
    Mode,
    /// Its owner or group.
    Owner,
    /// Its extended attributes of these names.
    Attributes(Vec<String>),
    /// How many names it has.
    Names,
}

impl Aspect {
    /// A word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Attributes(_) => "attributes",
            Self::Names => "names",
        }
    }
}

impl Fact {
    fn of(inode: &Inode) -> Self {
        let size = if inode.kind == Kind::File { inode.size } else { 0 };
        let Inode { kind, mode, uid, gid, links, .. } = inode;
        Self { kind: kind.clone(), mode: *mode, uid: *uid, gid: *gid, size, links: *links }
    }

    /// `file`, `folder`, `link`, …
    pub fn word(&self) -> &'static str {
        match self.kind {
            Kind::File => "file",
            Kind::Directory => "folder",
            Kind::Symlink(_) => "link",
            Kind::CharDevice(..) | Kind::BlockDevice(..) => "device",
            Kind::Fifo => "pipe",
            Kind::Socket => "socket",
        }
    }
}

impl FileChange {
    /// `added`, `removed`, `changed`.
    pub fn word(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }

    /// Bytes of a file that came, went or has another content, in B or else in A; none for what is no file, or has the same bytes.
    pub fn bytes(&self) -> Option<u64> {
        let fact = self.after.as_ref().or(self.before.as_ref())?;
        let other = |aspect: &Aspect| matches!(aspect, Aspect::Content | Aspect::Kind);
        let differs = self.aspects.is_empty() || self.aspects.iter().any(other);
        (differs && fact.kind == Kind::File).then_some(fact.size)
    }

    /// In what it differs, in people's words: `content, mode 0644 → 0755`; what it is for one that came or went.
    pub fn detail(&self) -> String {
        let (Some(before), Some(after)) = (&self.before, &self.after) else {
            let fact = self.before.as_ref().or(self.after.as_ref());
            return match fact.map(|fact| (&fact.kind, fact.word())) {
                Some((Kind::Symlink(target), _)) => format!("link to {}", shown(target)),
                Some((_, word)) => word.to_owned(),
                None => String::new(),
            };
        };
        let target = |fact: &Fact| match &fact.kind {
            Kind::Symlink(target) => shown(target),
            Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) => format!("{major}:{minor}"),
            _ => fact.word().to_owned(),
        };
        let part = |aspect: &Aspect| match aspect {
            Aspect::Kind => format!("{} → {}", before.word(), after.word()),
            Aspect::Content if before.size == after.size => "content".to_owned(),
            Aspect::Content => {
                format!("content, {} → {}", crate::size(before.size), crate::size(after.size))
            }
            Aspect::Target | Aspect::Device => format!("{} → {}", target(before), target(after)),
            Aspect::Mode => format!("mode {:04o} → {:04o}", before.mode, after.mode),
            Aspect::Owner => {
                format!("owner {}:{} → {}:{}", before.uid, before.gid, after.uid, after.gid)
            }
            Aspect::Attributes(names) => format!("attributes {}", names.join(" ")),
            Aspect::Names => format!("names {} → {}", before.links, after.links),
        };
        self.aspects.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

/// Sums over files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Files that are the same.
    pub same: u64,
    /// How many of them have another time.
    pub times: u64,
    /// Files that only B has.
    pub added: u64,
    /// Files that only A has.
    pub removed: u64,
    /// Files that both have, and that differ.
    pub changed: u64,
    /// Bytes of those that only B has.
    pub added_bytes: u64,
    /// Bytes of those that only A has.
    pub removed_bytes: u64,
    /// Bytes, in B, of those whose content differs.
    pub changed_bytes: u64,
}

impl FileTotals {
    pub(crate) fn with(self, other: Self) -> Self {
        Self {
            same: self.same + other.same,
            times: self.times + other.times,
            added: self.added + other.added,
            removed: self.removed + other.removed,
            changed: self.changed + other.changed,
            added_bytes: self.added_bytes.saturating_add(other.added_bytes),
            removed_bytes: self.removed_bytes.saturating_add(other.removed_bytes),
            changed_bytes: self.changed_bytes.saturating_add(other.changed_bytes),
        }
    }
}

impl FileChanges {
    /// The sums. A file with several names counts once for each.
    pub fn totals(&self) -> FileTotals {
        let mut totals = FileTotals { same: self.same, times: self.times, ..FileTotals::default() };
        for change in &self.changes {
            let bytes = change.bytes().unwrap_or(0);
            let (count, sum) = match change.word() {
                "added" => (&mut totals.added, &mut totals.added_bytes),
                "removed" => (&mut totals.removed, &mut totals.removed_bytes),
                _ => (&mut totals.changed, &mut totals.changed_bytes),
            };
            *count += 1;
            *sum = sum.saturating_add(bytes);
        }
        totals
    }
}

/// A file system and the volume that it is on.
#[derive(Clone, Copy)]
struct Side<'a> {
    volume: &'a Volume,
    files: &'a FileSystem,
}

/// Compares the files of two partitions, or says why they are not known.
pub(crate) fn compare<'a>(
    a: Option<(&'a Volume, &'a Partition)>,
    b: Option<(&'a Volume, &'a Partition)>,
) -> Result<Result<FileChanges, String>, ReadError> {
    let mut sides = [None, None];
    for (side, (part, letter)) in sides.iter_mut().zip([(a, 'A'), (b, 'B')]) {
        match part.map(|(volume, partition)| (volume, &partition.content)) {
            None => {}
            Some((volume, PartitionContent::Files(files))) => *side = Some(Side { volume, files }),
            Some((_, PartitionContent::Unread(why))) => {
                let both = matches!((a, b), (Some((_, a)), Some((_, b))) if a.content == b.content);
                return Ok(Err(if both { why.clone() } else { format!("{letter}: {why}") }));
            }
        }
    }
    let empty = FileSystem { clean: true, names: Vec::new(), inodes: BTreeMap::new() };
    let [side_a, side_b] = sides;
    let (files_a, files_b) =
        (side_a.map_or(&empty, |side| side.files), side_b.map_or(&empty, |side| side.files));
    let equal = match (side_a, side_b) {
        (Some(a), Some(b)) => contents(a, b)?,
        _ => BTreeMap::new(),
    };
    let mut changes = FileChanges::default();
    for (path, number_a, number_b) in merged(&files_a.names, &files_b.names) {
        let inode_a = number_a.and_then(|number| files_a.inodes.get(&number));
        let inode_b = number_b.and_then(|number| files_b.inodes.get(&number));
        let mut aspects = Vec::new();
        if let (Some(one), Some(other)) = (inode_a, inode_b) {
            let same_bytes =
                number_a.zip(number_b).is_none_or(|pair| equal.get(&pair).copied().unwrap_or(true));
            aspects = differing(one, other, same_bytes);
            if aspects.is_empty() {
                changes.same += 1;
                // A folder's time changes with what is in it.
                changes.times += u64::from(one.mtime != other.mtime && one.kind != Kind::Directory);
                continue;
            }
        }
        let (before, after) = (inode_a.map(Fact::of), inode_b.map(Fact::of));
        changes.changes.push(FileChange { path: path.clone(), before, after, aspects });
    }
    Ok(Ok(changes))
}

/// Every path that one of two sorted lists has, with its inodes in both.
fn merged<'a>(
    a: &'a [(TreePath, u32)],
    b: &'a [(TreePath, u32)],
) -> impl Iterator<Item = (&'a TreePath, Option<u32>, Option<u32>)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (a.peek(), b.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return None,
        };
        let one = if order == Ordering::Greater { None } else { a.next() };
        let other = if order == Ordering::Less { None } else { b.next() };
        let path = one.or(other).map(|(path, _)| path)?;
        Some((path, one.map(|(_, number)| *number), other.map(|(_, number)| *number)))
    })
}

fn differing(a: &Inode, b: &Inode, same_bytes: bool) -> Vec<Aspect> {
    let mut aspects = Vec::new();
    let mut differs = |aspect: Aspect, really: bool| {
        if really {
            aspects.push(aspect);
        }
    };
    let one_kind = std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind);
    differs(Aspect::Kind, !one_kind);
    differs(Aspect::Content, one_kind && !same_bytes);
    let is_link = matches!(a.kind, Kind::Symlink(_));
    differs(Aspect::Target, one_kind && is_link && a.kind != b.kind);
    differs(Aspect::Device, one_kind && !is_link && a.kind != b.kind);
    differs(Aspect::Mode, a.mode != b.mode);
    differs(Aspect::Owner, (a.uid, a.gid) != (b.uid, b.gid));
    differs(Aspect::Names, a.kind == Kind::File && b.kind == Kind::File && a.links != b.links);
    let (own, other) = (a.attributes(), b.attributes());
    if own != other {
        let mut names: Vec<&[u8]> = own.keys().chain(other.keys()).copied().collect();
        names.retain(|name| own.get(name) != other.get(name));
        names.sort_unstable();
        names.dedup();
        aspects.push(Aspect::Attributes(names.into_iter().map(shown).collect()));
    }
    aspects.sort();
    aspects
}

/// Whether files of one path have one content, by their inodes. Each pair of inodes is looked at once.
fn contents(a: Side<'_>, b: Side<'_>) -> Result<BTreeMap<(u32, u32), bool>, ReadError> {
    let mut pairs: Vec<(u32, u32)> =
        merged(&a.files.names, &b.files.names).filter_map(|(_, a, b)| a.zip(b)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let pairs = pairs.into_par_iter().filter_map(|(number_a, number_b)| {
        let (one, other) = (a.files.inodes.get(&number_a)?, b.files.inodes.get(&number_b)?);
        let files = one.kind == Kind::File && other.kind == Kind::File;
        files.then(|| Ok(((number_a, number_b), same_bytes(a.volume, one, b.volume, other)?)))
    });
    pairs.collect()
}

/// Whether two files hold the same bytes. What lies in the same blocks at the same offset is not read, nor are blocks of zeros.
fn same_bytes(a: &Volume, one: &Inode, b: &Volume, other: &Inode) -> Result<bool, ReadError> {
    if one.size != other.size {
        return Ok(false);
    }
    let (mut runs_a, mut runs_b) = (Cursor::new(&one.runs), Cursor::new(&other.runs));
    let (mut buffer_a, mut buffer_b) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < one.size {
        let (piece_a, piece_b) = (runs_a.piece(at), runs_b.piece(at));
        let len = piece_a.len.min(piece_b.len).min(one.size - at);
        let id = |volume: &Volume, piece: &Piece| piece.place.and_then(|place| volume.id_at(place));
        let (id_a, id_b) = (id(a, &piece_a), id(b, &piece_b));
        let inside = |piece: &Piece| piece.place.map(|place| place % BLOCK_SIZE);
        let known = match (id_a, id_b) {
            (None, None) => true,
            (Some(a), Some(b)) => a == b && inside(&piece_a) == inside(&piece_b),
            _ => false,
        };
        if !known {
            read(a, id_a.and(piece_a.place), len, &mut buffer_a)?;
            read(b, id_b.and(piece_b.place), len, &mut buffer_b)?;
            if buffer_a != buffer_b {
                return Ok(false);
            }
        }
        at += len;
    }
    Ok(true)
}

/// Fills `buffer` with bytes of a disk, or with zeros for a place that has none.
fn read(volume: &Volume, place: Option<u64>, len: u64, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    buffer.clear();
    buffer.resize(len as usize, 0);
    let Some(from) = place else { return Ok(()) };
    volume.disk.read_at(from, buffer).map_err(|source| ReadError { from, to: from + len, source })
}

/// The runs of a file on the way from its beginning to its end.
struct Cursor<'a> {
    runs: &'a [Run],
}

/// Bytes of a file that lie in one block of the disk, or a hole.
struct Piece {
    place: Option<u64>,
    len: u64,
}

impl<'a> Cursor<'a> {
    fn new(runs: &'a [Run]) -> Self {
        Self { runs }
    }

    /// What there is from byte `at` on, never before an earlier one.
    fn piece(&mut self, at: u64) -> Piece {
        while self.runs.first().is_some_and(|run| run.at + run.len <= at) {
            self.runs = &self.runs[1..];
        }
        match self.runs.first() {
            // A hole may be longer than there is memory: only what has a place is read, and that is a block at the most.
            Some(run) if run.at > at => Piece { place: None, len: run.at - at },
            None => Piece { place: None, len: u64::MAX },
            Some(run) => {
                let place = run.place + (at - run.at);
                let len = (run.at + run.len - at).min(BLOCK_SIZE - place % BLOCK_SIZE);
                Piece { place: Some(place), len }
            }
        }
    }
}
