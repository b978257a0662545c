//! What every back end must do, as one suite. A new back end passes [`check`] before a store is put on it.

use std::io;
use std::sync::Arc;

use crate::backend::{Backend, BackendError, Listed, Locked, Object, Tag};
use crate::format::Folder;
use crate::fs::{Bytes, LockKind};

/// Threads that race for one swap.
const RACERS: usize = 8;

/// The first thing that a back end did wrong, in words.
#[derive(Debug, thiserror::Error)]
#[error("{rule}: {found}")]
pub struct Broken {
    /// The rule.
    pub rule: &'static str,
    /// What was found instead.
    pub found: String,
}

type Outcome = Result<(), Broken>;

/// Checks a back end on an empty place of its own, which is left with objects in it. `lists_are_old` says that a listing
/// may lag behind; then none is looked at.
pub fn check(backend: &Arc<dyn Backend>, lists_are_old: bool) -> Outcome {
    let backend = &**backend;
    done("prepare makes a place ready, twice as well", backend.prepare(&Folder::ALL.map(Folder::name)))?;
    done("prepare makes a place ready, twice as well", backend.prepare(&Folder::ALL.map(Folder::name)))?;
    objects(backend)?;
    uploads(backend)?;
    swaps(backend)?;
    race(backend)?;
    locks(backend)?;
    if !lists_are_old {
        lists(backend)?;
    }
    deletions(backend)
}

fn done<T>(rule: &'static str, result: Result<T, BackendError>) -> Result<T, Broken> {
    result.map_err(|error| Broken { rule, found: format!("{error}: {}", error.source) })
}

fn same<T: PartialEq + std::fmt::Debug>(rule: &'static str, found: T, wanted: T) -> Outcome {
    if found == wanted {
        Ok(())
    } else {
        Err(Broken { rule, found: format!("{found:?} instead of {wanted:?}") })
    }
}

fn is_missing(rule: &'static str, backend: &dyn Backend, key: &str) -> Outcome {
    match backend.open(key) {
        Ok(_) => Err(Broken { rule, found: format!("{key} can be opened") }),
        Err(error) => same(rule, error.kind(), io::ErrorKind::NotFound),
    }
}

fn whole(rule: &'static str, object: &dyn Object) -> Result<Vec<u8>, Broken> {
    let bytes = done(rule, object.load())?.into_vec();
    bytes.map_err(|error| Broken { rule, found: format!("the whole object: {error}") })
}

fn reads_as(rule: &'static str, backend: &dyn Backend, key: &str, bytes: &[u8]) -> Outcome {
    let object = done(rule, backend.open(key))?;
    same(rule, done(rule, object.len())?, bytes.len() as u64)?;
    same(rule, whole(rule, &*object)? == bytes, true)?;
    let (from, to) = (bytes.len() / 3, bytes.len() - bytes.len() / 4);
    let mut part = vec![0; to - from];
    done(rule, object.read_at(from as u64, &mut part))?;
    same(rule, part == bytes[from..to], true)
}

fn objects(backend: &dyn Backend) -> Outcome {
    let rule = "an object that was never written is missing";
    is_missing(rule, backend, "packs/none")?;
    let rule = "whole objects are there once they are written, and may be written again";
    let large: Vec<u8> = (0..300_000u32).flat_map(|at| at.to_le_bytes()).collect();
    let both: [(&str, &[u8]); 3] = [("packs/a", b"alpha"), ("index/b", &large), ("index/empty", b"")];
    for _ in 0..2 {
        done(rule, backend.write(&both))?;
        both.iter().try_for_each(|(key, bytes)| reads_as(rule, backend, key, bytes))?;
    }
    done(rule, backend.write(&[]))?;
    let rule = "an object that is written again is whole, whatever became of it";
    for bytes in [&b"rotten!"[..], b"alpha"] {
        done(rule, backend.write(&[("packs/a", bytes)]))?;
        reads_as(rule, backend, "packs/a", bytes)?;
    }
    let rule = "a read past the end is UnexpectedEof";
    let object = done(rule, backend.open("packs/a"))?;
    let error = object.read_at(3, &mut [0; 3]).map_err(|error| error.kind());
    same(rule, error, Err(io::ErrorKind::UnexpectedEof))?;
    let rule = "create makes an object once";
    same(rule, done(rule, backend.create("format", b"one"))?, true)?;
    same(rule, done(rule, backend.create("format", b"two"))?, false)?;
    reads_as(rule, backend, "format", b"one")
}

fn uploads(backend: &dyn Backend) -> Outcome {
    let rule = "an upload is there once it is sealed";
    let mut upload = done(rule, backend.upload())?;
    let mut other = done(rule, backend.upload())?;
    let mut all = Vec::new();
    for piece in 0..40u8 {
        let bytes = vec![piece; 70_000];
        done(rule, upload.append(&bytes))?;
        done(rule, other.append(b"other"))?;
        all.extend(bytes);
    }
    done(rule, upload.flush())?;
    is_missing(rule, backend, "packs/up")?;
    done(rule, upload.append(b"end"))?;
    all.extend(b"end");
    done(rule, upload.seal("packs/up"))?;
    reads_as(rule, backend, "packs/up", &all)?;
    let rule = "an upload that is given up leaves nothing";
    drop(other);
    let rule_again = "an object that exists may be sealed again";
    let mut again = done(rule_again, backend.upload())?;
    done(rule_again, again.append(&all))?;
    done(rule_again, again.seal("packs/up"))?;
    reads_as(rule, backend, "packs/up", &all)?;
    let rule = "an object that is sealed again is whole, whatever became of it";
    for bytes in [&b"rotten!"[..], &all] {
        let mut whole = done(rule, backend.upload())?;
        done(rule, whole.append(bytes))?;
        done(rule, whole.seal("packs/up"))?;
        reads_as(rule, backend, "packs/up", bytes)?;
    }
    Ok(())
}

fn swaps(backend: &dyn Backend) -> Outcome {
    let rule = "a swap replaces what was expected and nothing else";
    same(rule, done(rule, backend.read_swapped("root"))?, None)?;
    same(rule, done(rule, backend.swap("root", Some(&Tag("0".to_owned())), b"x"))?, false)?;
    same(rule, done(rule, backend.swap("root", None, b"first"))?, true)?;
    same(rule, done(rule, backend.swap("root", None, b"x"))?, false)?;
    let (bytes, first) = current(rule, backend)?;
    same(rule, bytes, b"first".to_vec())?;
    same(rule, done(rule, backend.swap("root", Some(&first), b"second"))?, true)?;
    same(rule, done(rule, backend.swap("root", Some(&first), b"x"))?, false)?;
    let (bytes, second) = current(rule, backend)?;
    same(rule, bytes, b"second".to_vec())?;
    same("other bytes have another tag", first == second, false)
}

fn current(rule: &'static str, backend: &dyn Backend) -> Result<(Vec<u8>, Tag), Broken> {
    done(rule, backend.read_swapped("root"))?.ok_or(Broken { rule, found: "no object".to_owned() })
}

/// Every racer adds its letter until all are in: none may be lost.
fn race(backend: &dyn Backend) -> Outcome {
    let rule = "of swaps that race one wins and none is lost";
    let run = |racer: usize| -> Outcome {
        loop {
            let (mut bytes, tag) = current(rule, backend)?;
            bytes.push(b'a' + racer as u8);
            if done(rule, backend.swap("root", Some(&tag), &bytes))? {
                return Ok(());
            }
        }
    };
    let results: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..RACERS).map(|racer| scope.spawn(move || run(racer))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Outcome>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    });
    results.into_iter().collect::<Outcome>()?;
    let (bytes, _) = current(rule, backend)?;
    let mut letters = bytes[b"second".len().min(bytes.len())..].to_vec();
    letters.sort_unstable();
    same(rule, letters, (0..RACERS).map(|racer| b'a' + racer as u8).collect())
}

fn locks(backend: &dyn Backend) -> Outcome {
    let rule = "a lock is shared or held alone, until it is dropped";
    let lock = |kind| done(rule, backend.lock(kind, false));
    let Locked::Held(first) = lock(LockKind::Shared)? else {
        let Locked::Unknown = lock(LockKind::Exclusive)? else {
            return Err(Broken { rule, found: "there are locks of one kind only".to_owned() });
        };
        return Ok(());
    };
    let Locked::Held(second) = lock(LockKind::Shared)? else {
        return Err(Broken { rule, found: "no second shared holder".to_owned() });
    };
    drop(first);
    let Locked::Busy = lock(LockKind::Exclusive)? else {
        return Err(Broken { rule, found: "held alone beside another".to_owned() });
    };
    drop(second);
    let Locked::Held(alone) = lock(LockKind::Exclusive)? else {
        return Err(Broken { rule, found: "not held although free".to_owned() });
    };
    let Locked::Busy = lock(LockKind::Shared)? else {
        return Err(Broken { rule, found: "shared with one who holds it alone".to_owned() });
    };
    drop(alone);
    Ok(())
}

fn lists(backend: &dyn Backend) -> Outcome {
    let rule = "a folder's list has its objects with their lengths, by key";
    let listed = |key: &str, len| Listed { key: key.to_owned(), len };
    let packs = done(rule, backend.list("packs"))?;
    same(rule, packs, vec![listed("packs/a", 5), listed("packs/up", 40 * 70_000 + 3)])?;
    let index = done(rule, backend.list("index"))?;
    same(rule, index, vec![listed("index/b", 1_200_000), listed("index/empty", 0)])?;
    same(rule, done(rule, backend.list("catalog"))?, Vec::new())
}

fn deletions(backend: &dyn Backend) -> Outcome {
    let rule = "what is deleted is gone, and deleting it again does no harm; what was open before stays whole or fails";
    let open = done(rule, backend.open("packs/a"))?;
    for _ in 0..2 {
        done(rule, backend.delete(&["packs/a", "index/b"]))?;
    }
    is_missing(rule, backend, "packs/a")?;
    if let Ok(Ok(bytes)) = open.load().map(Bytes::into_vec) {
        same(rule, bytes, b"alpha".to_vec())?;
    }
    done("a sweep leaves objects alone", backend.sweep())?;
    reads_as("a sweep leaves objects alone", backend, "index/empty", b"")
}
