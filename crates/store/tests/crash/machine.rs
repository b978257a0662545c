//! A machine with a simulated disk, whose power may go at any operation.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use store::fs::{Bytes, Entry, FileHandle, FileSystem, Held, LockKind};

use crate::disk::Disk;
use crate::flawed::Rule;
use crate::ledger::{Ledger, Shared};
use crate::turns::{Turns, actor};

/// What an operation does, as far as faults care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Looks at things.
    Reads,
    /// May need room.
    Grows,
    /// Changes something, and needs no room.
    Shrinks,
}

/// An operation that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Its number.
    pub(crate) at: u64,
    pub(crate) error: io::ErrorKind,
    /// Whether all that follow fail as well.
    pub(crate) lasts: bool,
}

impl Fault {
    /// Whether an operation of this kind can fail in this way.
    pub(crate) fn can_hit(error: io::ErrorKind, kind: Kind) -> bool {
        match error {
            io::ErrorKind::StorageFull => kind == Kind::Grows,
            io::ErrorKind::ReadOnlyFilesystem => kind != Kind::Reads,
            _ => true,
        }
    }
}

/// Something that the machine does wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flaw {
    #[default]
    None,
    /// Syncs of this description do nothing.
    Ignores(String),
    /// The n-th sync does nothing.
    IgnoresNth(usize),
    /// Locks of this file are given to everybody.
    Unlocked(&'static str),
    /// Programs break a rule of the commit.
    Breaks(Rule),
}

/// A moment at which the power may go.
pub(crate) struct Point {
    /// The number of the operation that would have come next.
    pub(crate) operation: u64,
    pub(crate) next: String,
    pub(crate) disk: Disk,
    pub(crate) ledger: Ledger,
}

pub(crate) struct Machine {
    inner: Mutex<Inner>,
    moved: Condvar,
}

struct Inner {
    disk: Disk,
    /// Holders of each lock: how many share it, or none for one alone.
    locks: HashMap<PathBuf, Vec<LockKind>>,
    turns: Option<Turns>,
    operations: u64,
    kinds: Vec<Kind>,
    fault: Option<Fault>,
    fault_hit: bool,
    /// Bytes that the disk holds.
    size: u64,
    /// Whether files are large: read where they lie.
    large: bool,
    flaw: Flaw,
    /// The syncs so far, by description.
    syncs: Vec<String>,
    /// When a sync first did nothing.
    ignored: Option<u64>,
    points: Option<Vec<Point>>,
    changed: bool,
    ledger: Shared,
}

impl Machine {
    /// A machine with what a disk has.
    pub(crate) fn new(disk: Disk, ledger: Shared) -> Arc<Self> {
        let inner = Inner {
            disk,
            locks: HashMap::new(),
            turns: None,
            operations: 0,
            kinds: Vec::new(),
            fault: None,
            fault_hit: false,
            size: u64::MAX,
            large: false,
            flaw: Flaw::None,
            syncs: Vec::new(),
            ignored: None,
            points: None,
            changed: true,
            ledger,
        };
        Arc::new(Self { inner: Mutex::new(inner), moved: Condvar::new() })
    }

    fn guard(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn disk(&self) -> Disk {
        self.guard().disk.clone()
    }

    pub(crate) fn change_disk(&self, change: impl FnOnce(&mut Disk)) {
        let mut inner = self.guard();
        change(&mut inner.disk);
        inner.changed = true;
    }

    /// Makes the disk so small that this much is free.
    pub(crate) fn leave_room(&self, bytes: u64) {
        let mut inner = self.guard();
        inner.size = inner.disk.used() + bytes;
    }

    /// Has programs treat all files as they treat large ones.
    pub(crate) fn enlarge_files(&self) {
        self.guard().large = true;
    }

    /// Makes the disk as large as anything.
    pub(crate) fn make_room(&self) {
        self.guard().size = u64::MAX;
    }

    /// From now on every operation is a moment at which the power may go. Counts from 0.
    pub(crate) fn record(&self) {
        let mut inner = self.guard();
        inner.points = Some(Vec::new());
        (inner.operations, inner.changed) = (0, true);
        inner.kinds.clear();
        inner.syncs.clear();
    }

    /// The operation after which a sync first did nothing, if one did.
    pub(crate) fn ignored(&self) -> Option<u64> {
        self.guard().ignored
    }

    /// What was recorded, the moment after the last operation included.
    pub(crate) fn points(&self) -> Vec<Point> {
        let mut inner = self.guard();
        inner.note("the end".to_owned());
        inner.points.take().unwrap_or_default()
    }

    pub(crate) fn operations(&self) -> u64 {
        self.guard().operations
    }

    /// Of each operation since [`Machine::record`] what it does.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.guard().kinds.clone()
    }

    pub(crate) fn syncs(&self) -> Vec<String> {
        self.guard().syncs.clone()
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        let mut inner = self.guard();
        (inner.fault, inner.fault_hit) = (fault, false);
    }

    pub(crate) fn fault_hit(&self) -> bool {
        self.guard().fault_hit
    }

    pub(crate) fn set_flaw(&self, flaw: Flaw) {
        self.guard().flaw = flaw;
    }

    pub(crate) fn flaw(&self) -> Flaw {
        self.guard().flaw.clone()
    }

    pub(crate) fn set_turns(&self, turns: Option<Turns>) {
        self.guard().turns = turns;
    }

    /// The calling program is at its end.
    pub(crate) fn leave(&self, me: usize) {
        let mut inner = self.guard();
        let Inner { turns, locks, .. } = &mut *inner;
        if let Some(turns) = turns {
            turns.done(me, |path, kind| is_free(locks, path, kind));
        }
        drop(inner);
        self.moved.notify_all();
    }

    /// Waits for the caller's turn.
    fn turn(&self, lock: Option<(PathBuf, LockKind)>) -> MutexGuard<'_, Inner> {
        let mut inner = self.guard();
        let Some(me) = actor() else {
            while let Some((path, kind)) = &lock
                && !is_free(&inner.locks, path, *kind)
            {
                inner = self.moved.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
            return inner;
        };
        let Inner { turns: Some(turns), locks, .. } = &mut *inner else { return inner };
        turns.wait(me, lock, |path, kind| is_free(locks, path, kind));
        self.moved.notify_all();
        while inner.turns.as_ref().is_some_and(|turns| !turns.is_mine(me)) {
            inner = self.moved.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner
    }

    /// Begins an operation: the caller's turn, a moment at which the power may go, and maybe a fault.
    fn begin(&self, kind: Kind, what: impl FnOnce() -> String) -> (MutexGuard<'_, Inner>, Option<io::Error>) {
        let mut inner = self.turn(None);
        let fault = inner.begin(kind, what);
        (inner, fault)
    }
}

fn is_free(locks: &HashMap<PathBuf, Vec<LockKind>>, path: &Path, kind: LockKind) -> bool {
    locks.get(path).is_none_or(|holders| {
        holders.is_empty() || kind == LockKind::Shared && !holders.contains(&LockKind::Exclusive)
    })
}

impl Inner {
    fn begin(&mut self, kind: Kind, what: impl FnOnce() -> String) -> Option<io::Error> {
        let number = self.operations;
        if self.points.is_some() {
            self.note(what());
        }
        self.operations += 1;
        self.kinds.push(kind);
        self.changed |= kind != Kind::Reads;
        let fault = self.fault.filter(|fault| {
            let now = if fault.lasts { number >= fault.at } else { number == fault.at };
            now && Fault::can_hit(fault.error, kind)
        })?;
        self.fault_hit = true;
        Some(fault.error.into())
    }

    /// Whether the disk has room for more bytes in a file, or for a file.
    fn has_room(&self, growth: Option<(u64, u64)>) -> bool {
        self.size == u64::MAX || self.disk.used_with(growth) <= self.size
    }

    /// Notes a moment, unless it is like the last.
    fn note(&mut self, next: String) {
        let Some(points) = &mut self.points else { return };
        let ledger = self.ledger.look();
        if self.changed || points.last().is_none_or(|last| last.ledger != ledger) {
            points.push(Point { operation: self.operations, next, disk: self.disk.clone(), ledger });
            self.changed = false;
        }
    }

    /// Whether a sync is done.
    fn sync_counts(&mut self, what: String) -> bool {
        let ignored = match &self.flaw {
            Flaw::Ignores(ignored) => *ignored == what,
            Flaw::IgnoresNth(ignored) => *ignored == self.syncs.len(),
            _ => false,
        };
        if ignored {
            self.ignored.get_or_insert(self.operations);
        }
        self.syncs.push(what);
        !ignored
    }
}

/// The machine's file system, as one program sees it.
#[derive(Clone)]
pub(crate) struct SimulatedFs(pub(crate) Arc<Machine>);

struct File {
    machine: Arc<Machine>,
    id: u64,
}

thread_local! {
    /// Whether this thread is in [`FileSystem::sync_files`].
    static SEVERAL: Cell<bool> = const { Cell::new(false) };
}

/// Bytes of the end of a table.
const TABLE_END: usize = 72;

/// What kind of object a file is, by the words that it begins with, or a table's end.
fn object_kind(bytes: &[u8]) -> &'static str {
    let end = bytes.len().saturating_sub(TABLE_END);
    let magic = |at: usize| bytes.get(at..at + 8).unwrap_or_default();
    match (magic(0), magic(end), bytes.get(end + 16)) {
        (b"BKHPACK\n", ..) => "pack",
        (b"BKHSNAP\n", ..) => "snapshot",
        (b"BKHROOT\n", ..) => "root",
        (b"BKHLIST\n", ..) => "list of snapshots",
        (b"BKHCLAIM", ..) => "list of claims",
        (b"bakehous", ..) => "format",
        (_, b"BKHTABL\n", Some(1)) => "table of blocks",
        (_, b"BKHTABL\n", Some(_)) => "table of origins",
        _ => "?",
    }
}

impl Machine {
    fn sync_file(&self, id: u64, call: &str) -> io::Result<()> {
        let (mut inner, fault) = self.begin(Kind::Grows, || format!("{call} file {id}"));
        if let Some(error) = fault {
            inner.disk.drop_dirty(id);
            return Err(error);
        }
        let what = format!("{call} of a {}", object_kind(&inner.disk.bytes(id)));
        if inner.sync_counts(what) {
            inner.disk.sync(id);
        }
        Ok(())
    }
}

impl FileHandle for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let (mut inner, fault) = self.machine.begin(Kind::Grows, || format!("append to file {}", self.id));
        let full =
            (!inner.has_room(Some((self.id, bytes.len() as u64)))).then(|| io::ErrorKind::StorageFull.into());
        let fault = fault.or(full);
        let written = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        inner.disk.append(self.id, written);
        fault.map_or(Ok(()), Err)
    }

    fn sync(&self) -> io::Result<()> {
        self.machine.sync_file(self.id, if SEVERAL.get() { "sync_files" } else { "sync" })
    }

    fn len(&self) -> io::Result<u64> {
        let (inner, fault) = self.machine.begin(Kind::Reads, || format!("length of file {}", self.id));
        fault.map_or_else(|| Ok(inner.disk.len(self.id)), Err)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (inner, fault) = self.machine.begin(Kind::Reads, || format!("read file {}", self.id));
        fault.map_or_else(|| inner.disk.read_at(self.id, offset, buf), Err)
    }

    fn load(&self) -> io::Result<Bytes> {
        let len = self.len()?;
        let bytes = Bytes::in_file(Arc::new(Self { machine: self.machine.clone(), id: self.id }), len);
        if self.machine.guard().large { Ok(bytes) } else { Ok(bytes.into_vec()?.into()) }
    }
}

struct Lock {
    machine: Arc<Machine>,
    path: PathBuf,
    kind: LockKind,
}

impl Held for Lock {}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut inner = self.machine.guard();
        if let Some(holders) = inner.locks.get_mut(&self.path)
            && let Some(at) = holders.iter().position(|kind| *kind == self.kind)
        {
            holders.swap_remove(at);
        }
        drop(inner);
        self.machine.moved.notify_all();
    }
}

impl SimulatedFs {
    fn change<T>(
        &self,
        kind: Kind,
        what: impl FnOnce() -> String,
        change: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        let (mut inner, fault) = self.0.begin(kind, what);
        fault.map_or_else(|| change(&mut inner.disk), Err)
    }

    fn file(&self, id: u64) -> Box<dyn FileHandle> {
        Box::new(File { machine: self.0.clone(), id })
    }
}

impl FileSystem for SimulatedFs {
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let what = || format!("create {}", path.display());
        let (mut inner, fault) = self.0.begin(Kind::Grows, what);
        let full = (!inner.has_room(None)).then(|| io::ErrorKind::StorageFull.into());
        fault.or(full).map_or_else(|| inner.disk.create(path), Err).map(|id| self.file(id))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let what = || format!("open {}", path.display());
        let id = self.change(Kind::Reads, what, |disk| disk.find(path))?;
        id.map(|id| self.file(id)).ok_or(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let what = || format!("rename {} to {}", from.display(), to.display());
        self.change(Kind::Grows, what, |disk| disk.rename(from, to))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change(Kind::Shrinks, || format!("unlink {}", path.display()), |disk| disk.unlink(path))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let what = || format!("create folder {}", path.display());
        self.change(Kind::Grows, what, |disk| disk.create_folder(path))
    }

    fn sync_files(&self, files: &[&dyn FileHandle]) -> io::Result<()> {
        SEVERAL.set(true);
        let done = files.iter().try_for_each(|file| file.sync());
        SEVERAL.set(false);
        done
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let (mut inner, fault) = self.0.begin(Kind::Grows, || format!("sync folder {}", path.display()));
        if let Some(error) = fault {
            return Err(error);
        }
        let changed = inner.disk.changed(path);
        let for_whom = ["root", "format", "packs"].into_iter().find(|name| changed.contains(name));
        let what = match for_whom {
            Some(name) => format!("sync_folder {} with {name}", path.display()),
            None => format!("sync_folder {}", path.display()),
        };
        if inner.sync_counts(what) {
            inner.disk.sync_folder(path)?;
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let listed =
            self.change(Kind::Reads, || format!("list {}", path.display()), |disk| disk.list(path))?;
        Ok(listed.into_iter().map(|(name, len, folder)| Entry { name, len, folder }).collect())
    }

    fn lock(&self, path: &Path, kind: LockKind, wait: bool) -> io::Result<Option<Box<dyn Held>>> {
        let (mut inner, fault) = self.0.begin(Kind::Grows, || format!("lock {}", path.display()));
        if let Some(error) = fault {
            return Err(error);
        }
        match inner.disk.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => drop(made?),
        }
        let unlocked = matches!(&inner.flaw, Flaw::Unlocked(name) if path.ends_with(name));
        while !unlocked && !is_free(&inner.locks, path, kind) {
            if !wait {
                return Ok(None);
            }
            drop(inner);
            inner = self.0.turn(Some((path.to_owned(), kind)));
        }
        inner.locks.entry(path.to_owned()).or_default().push(kind);
        Ok(Some(Box::new(Lock { machine: self.0.clone(), path: path.to_owned(), kind })))
    }
}
