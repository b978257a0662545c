//! A simulated object store: conditional writes, lists that lag, replies that are lost, requests that arrive late.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use block::{Digest, Hasher};
use store::fs::{Bytes, LockKind};
use store::{Backend, BackendError, BackendResult, Listed, Locked, Object, Tag, Upload};

use crate::ledger::{Ledger, Shared};
use crate::rng::Rng;
use crate::turns::{Turns, actor};

/// Operations for which a list may not show a change.
const LAG: u64 = 80;

/// What goes wrong with a request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// It is refused: nothing happens.
    Refused,
    /// It is done and its reply is lost.
    NoReply,
    /// Its reply is lost, and it is done later, at any time or never.
    Late,
}

/// Which requests go wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    None,
    /// The request of this number.
    At(u64, Mishap),
    /// One in so many, in any way.
    OneIn(usize),
    /// From its n-th request on a program is gone; what becomes of the first that it does not see the end of.
    Dies {
        program: usize,
        at: u64,
        last: Mishap,
    },
}

/// What is there.
#[derive(Clone, Default)]
pub(crate) struct Contents {
    objects: BTreeMap<String, Arc<Vec<u8>>>,
    /// Requests that may still arrive.
    late: Vec<Request>,
    /// When objects came or went lately, and what a list that lags says of them.
    changes: Vec<(u64, String, Option<u64>)>,
}

#[derive(Clone, Debug)]
enum Request {
    Put(String, Arc<Vec<u8>>),
    /// With the tag that must be there, if any may.
    Swap(String, Option<Tag>, Arc<Vec<u8>>),
    Delete(String),
}

impl Contents {
    /// What is there when some late requests arrive: none, all, or those that chance picks, in any order.
    pub(crate) fn survivor(&self, chance: Option<u64>) -> Self {
        let mut after = self.clone();
        let mut late = std::mem::take(&mut after.late);
        if let Some(seed) = chance {
            let mut rng = Rng::new(seed);
            while !late.is_empty() {
                let request = late.swap_remove(rng.below(late.len()));
                if seed == 0 || rng.one_in(2) {
                    after.apply(&request, 0);
                }
            }
        }
        after.changes.clear();
        after
    }

    /// The keys of all named objects.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.objects.keys().filter(|key| key.contains('/')).cloned().collect()
    }

    /// Gives one object the bytes that it had before.
    pub(crate) fn take_back(&mut self, key: &str, before: &Self) {
        self.objects.insert(key.to_owned(), before.objects[key].clone());
    }

    /// Changes one byte of every object of a folder.
    pub(crate) fn rot(&mut self, folder: &str, at: usize) {
        for (_, bytes) in self.objects.iter_mut().filter(|(key, _)| key.starts_with(&format!("{folder}/"))) {
            Arc::make_mut(bytes)[at] ^= 0x10;
        }
    }

    pub(crate) fn has_late(&self) -> bool {
        !self.late.is_empty()
    }

    pub(crate) fn fingerprint(&self) -> Digest {
        let mut hasher = Hasher::new();
        for (key, bytes) in &self.objects {
            hasher.field(key.as_bytes());
            hasher.field(bytes);
        }
        hasher.finish()
    }

    /// Does what is asked; says whether the condition held.
    fn apply(&mut self, request: &Request, now: u64) -> bool {
        let (key, new) = match request {
            Request::Put(key, bytes) => (key, Some(bytes)),
            Request::Swap(key, expected, bytes) => {
                if self.objects.get(key).map(|bytes| tag(bytes)) != *expected {
                    return false;
                }
                (key, Some(bytes))
            }
            Request::Delete(key) => (key, None),
        };
        let before = match new {
            Some(bytes) => self.objects.insert(key.clone(), bytes.clone()),
            None => self.objects.remove(key),
        };
        self.changes.push((now, key.clone(), before.map(|bytes| bytes.len() as u64)));
        true
    }
}

fn tag(bytes: &[u8]) -> Tag {
    Tag(Digest::of(bytes).to_hex())
}

/// A moment, as [`crate::machine::Point`] is one.
pub(crate) struct Moment {
    pub(crate) operation: u64,
    pub(crate) next: String,
    pub(crate) contents: Contents,
    pub(crate) ledger: Ledger,
}

/// The object store, as all programs share it.
pub(crate) struct Bucket {
    inner: Mutex<Inner>,
    moved: Condvar,
}

struct Inner {
    contents: Contents,
    turns: Option<Turns>,
    operations: u64,
    /// Requests that change something, of all programs and of each.
    changes: u64,
    changes_of: BTreeMap<usize, u64>,
    trouble: Trouble,
    rng: Rng,
    moments: Option<Vec<Moment>>,
    changed: bool,
    ledger: Shared,
}

impl Bucket {
    pub(crate) fn new(contents: Contents, ledger: Shared, seed: u64) -> Arc<Self> {
        let inner = Inner {
            contents,
            turns: None,
            operations: 0,
            changes: 0,
            changes_of: BTreeMap::new(),
            trouble: Trouble::None,
            rng: Rng::new(seed),
            moments: None,
            changed: true,
            ledger,
        };
        Arc::new(Self { inner: Mutex::new(inner), moved: Condvar::new() })
    }

    fn guard(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contents(&self) -> Contents {
        self.guard().contents.clone()
    }

    pub(crate) fn record(&self) {
        let mut inner = self.guard();
        inner.moments = Some(Vec::new());
        (inner.operations, inner.changes, inner.changed) = (0, 0, true);
        inner.changes_of.clear();
    }

    pub(crate) fn moments(&self) -> Vec<Moment> {
        let mut inner = self.guard();
        inner.note("the end".to_owned());
        inner.moments.take().unwrap_or_default()
    }

    /// Requests since [`Bucket::record`]: all, and those that change something.
    pub(crate) fn requests(&self) -> (u64, u64) {
        let inner = self.guard();
        (inner.operations, inner.changes)
    }

    pub(crate) fn set_trouble(&self, trouble: Trouble) {
        self.guard().trouble = trouble;
    }

    pub(crate) fn set_turns(&self, turns: Option<Turns>) {
        self.guard().turns = turns;
    }

    pub(crate) fn leave(&self, me: usize) {
        if let Some(turns) = &mut self.guard().turns {
            turns.done(me, |_, _| true);
        }
        self.moved.notify_all();
    }

    /// Waits for the caller's turn and begins a request.
    fn begin(&self, what: &str, key: &str) -> BackendResult<MutexGuard<'_, Inner>> {
        let mut inner = self.guard();
        if let (Some(me), Some(turns)) = (actor(), &mut inner.turns) {
            turns.wait(me, None, |_, _| true);
            self.moved.notify_all();
            while inner.turns.as_ref().is_some_and(|turns| !turns.is_mine(me)) {
                inner = self.moved.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
        inner.note(format!("{what} {key}"));
        inner.operations += 1;
        if !inner.contents.late.is_empty() && inner.rng.one_in(12) {
            let at = inner.rng.next() as usize % inner.contents.late.len();
            let request = inner.contents.late.swap_remove(at);
            let now = inner.operations;
            inner.contents.apply(&request, now);
            inner.changed = true;
        }
        match inner.is_dead() {
            true => Err(failed(key, io::ErrorKind::BrokenPipe)),
            false => Ok(inner),
        }
    }

    /// A request that changes something.
    fn change(&self, what: &str, request: Request) -> BackendResult<bool> {
        let key = match &request {
            Request::Put(key, _) | Request::Swap(key, ..) | Request::Delete(key) => key.clone(),
        };
        let mut inner = self.begin(what, &key)?;
        let mishap = inner.mishap();
        let now = inner.operations;
        inner.changed = true;
        match mishap {
            None => Ok(inner.contents.apply(&request, now)),
            Some(mishap) => {
                match mishap {
                    Mishap::Refused => {}
                    Mishap::NoReply => drop(inner.contents.apply(&request, now)),
                    Mishap::Late => inner.contents.late.push(request),
                }
                Err(failed(&key, io::ErrorKind::TimedOut))
            }
        }
    }
}

fn failed(key: &str, kind: io::ErrorKind) -> BackendError {
    BackendError { place: key.to_owned(), action: "a request to the object store", source: kind.into() }
}

impl Inner {
    fn note(&mut self, next: String) {
        let Some(moments) = &mut self.moments else { return };
        let ledger = self.ledger.look();
        if self.changed || moments.last().is_none_or(|last| last.ledger != ledger) {
            let contents = self.contents.clone();
            moments.push(Moment { operation: self.operations, next, contents, ledger });
            self.changed = false;
        }
    }

    fn is_dead(&self) -> bool {
        match (self.trouble, actor()) {
            (Trouble::Dies { program, at, .. }, Some(me)) => {
                me == program && self.changes_of.get(&me).is_some_and(|done| *done > at)
            }
            _ => false,
        }
    }

    fn mishap(&mut self) -> Option<Mishap> {
        let number = self.changes;
        self.changes += 1;
        let me = actor().unwrap_or(0);
        let own = self.changes_of.entry(me).or_default();
        *own += 1;
        let own = *own - 1;
        match self.trouble {
            Trouble::At(at, mishap) if at == number => Some(mishap),
            Trouble::OneIn(n) if self.rng.one_in(n) => {
                Some([Mishap::Refused, Mishap::NoReply, Mishap::Late][self.rng.below(3)])
            }
            Trouble::Dies { program, at, last } if program == me && own == at => Some(last),
            _ => None,
        }
    }
}

/// The object store, as one program sees it.
pub(crate) struct Client(pub(crate) Arc<Bucket>);

impl Backend for Client {
    fn place(&self) -> String {
        "bucket".to_owned()
    }

    fn prepare(&self, _: &[&str]) -> BackendResult<()> {
        Ok(())
    }

    fn write(&self, objects: &[(&str, &[u8])]) -> BackendResult<()> {
        objects.iter().try_for_each(|(key, bytes)| {
            self.0.change("put", Request::Put((*key).to_owned(), Arc::new(bytes.to_vec()))).map(drop)
        })
    }

    fn create(&self, key: &str, bytes: &[u8]) -> BackendResult<bool> {
        self.swap(key, None, bytes)
    }

    fn upload(&self) -> BackendResult<Box<dyn Upload>> {
        Ok(Box::new(Parts { bucket: self.0.clone(), bytes: Vec::new() }))
    }

    fn open(&self, key: &str) -> BackendResult<Arc<dyn Object>> {
        let inner = self.0.begin("head", key)?;
        if !inner.contents.objects.contains_key(key) {
            return Err(failed(key, io::ErrorKind::NotFound));
        }
        Ok(Arc::new(Remote { bucket: self.0.clone(), key: key.to_owned() }))
    }

    fn read_swapped(&self, key: &str) -> BackendResult<Option<(Vec<u8>, Tag)>> {
        let inner = self.0.begin("get", key)?;
        Ok(inner.contents.objects.get(key).map(|bytes| (bytes.to_vec(), tag(bytes))))
    }

    fn swap(&self, key: &str, expected: Option<&Tag>, bytes: &[u8]) -> BackendResult<bool> {
        let request = Request::Swap(key.to_owned(), expected.cloned(), Arc::new(bytes.to_vec()));
        self.0.change("swap", request)
    }

    fn list(&self, folder: &str) -> BackendResult<Vec<Listed>> {
        let mut inner = self.0.begin("list", folder)?;
        let prefix = format!("{folder}/");
        let Inner { contents, rng, operations, .. } = &mut *inner;
        let there = contents.objects.iter().filter(|(key, _)| key.starts_with(&prefix));
        let mut shown: BTreeMap<String, u64> =
            there.map(|(key, bytes)| (key.clone(), bytes.len() as u64)).collect();
        // Latest first: what is shown of an object is of one moment.
        for (when, key, before) in contents.changes.iter().rev() {
            if key.starts_with(&prefix) && when + LAG > *operations && rng.one_in(3) {
                match before {
                    Some(len) => shown.insert(key.clone(), *len),
                    None => shown.remove(key),
                };
            }
        }
        Ok(shown.into_iter().map(|(key, len)| Listed { key, len }).collect())
    }

    fn delete(&self, keys: &[&str]) -> BackendResult<()> {
        keys.iter().try_for_each(|key| self.0.change("delete", Request::Delete((*key).to_owned())).map(drop))
    }

    fn unfinished(&self) -> BackendResult<u64> {
        Ok(0)
    }

    fn sweep(&self) -> BackendResult<u64> {
        Ok(0)
    }

    fn lock(&self, _: LockKind, _: bool) -> BackendResult<Locked> {
        Ok(Locked::Unknown)
    }
}

struct Parts {
    bucket: Arc<Bucket>,
    bytes: Vec<u8>,
}

impl Upload for Parts {
    fn append(&mut self, bytes: &[u8]) -> BackendResult<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> BackendResult<()> {
        Ok(())
    }

    fn seal(self: Box<Self>, key: &str) -> BackendResult<()> {
        self.bucket.change("complete", Request::Put(key.to_owned(), Arc::new(self.bytes))).map(drop)
    }
}

struct Remote {
    bucket: Arc<Bucket>,
    key: String,
}

impl Remote {
    fn bytes(&self) -> BackendResult<Arc<Vec<u8>>> {
        let inner = self.bucket.begin("get", &self.key)?;
        let bytes = inner.contents.objects.get(&self.key).cloned();
        bytes.ok_or_else(|| failed(&self.key, io::ErrorKind::NotFound))
    }
}

impl Object for Remote {
    fn len(&self) -> BackendResult<u64> {
        Ok(self.bytes()?.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> BackendResult<()> {
        let bytes = self.bytes()?;
        let from = usize::try_from(offset).ok().and_then(|start| bytes.get(start..start + buf.len()));
        buf.copy_from_slice(from.ok_or_else(|| failed(&self.key, io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn load(&self) -> BackendResult<Bytes> {
        Ok(self.bytes()?.to_vec().into())
    }
}
