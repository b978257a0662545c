//! Back ends that fail: at every operation in turn, before it or after it.

use std::io::ErrorKind;

use super::collect::{VERIFY, gc, gc_times};
use super::*;
use crate::{Backend, Fault, FaultyBackend, GcOptions, derived_id};

#[test]
fn every_back_end_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn Backend> = Arc::new(LocalBackend::new(&folder.path().join("store")));
    let memory: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
    let between =
        |inner| -> Arc<dyn Backend> { Arc::new(FaultyBackend::new(inner, Box::new(|_, _| Fault::None))) };
    crate::conformance::check(&local, false).unwrap();
    crate::conformance::check(&memory, false).unwrap();
    crate::conformance::check(&between(Arc::new(MemoryBackend::new())), false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    crate::conformance::check(&between(Arc::new(LocalBackend::new(folder.path()))), false).unwrap();
}

#[test]
fn a_back_end_that_breaks_a_rule_does_not_conform() {
    let lost: Arc<dyn Backend> = Arc::new(FaultyBackend::new(
        Arc::new(MemoryBackend::new()),
        Box::new(|_, what| if what == "swap root" { Fault::After(ErrorKind::Other) } else { Fault::None }),
    ));
    let broken = crate::conformance::check(&lost, false).unwrap_err();
    assert_eq!(broken.rule, "a swap replaces what was expected and nothing else");
}

/// One that says `true` is there whatever happens next; one that fails is there or is not.
#[test]
fn a_document_is_swapped_whole_whatever_operation_fails() {
    let (first, second): (&[u8], &[u8]) = (b"first", b"second");
    for fault in [Fault::Before(ErrorKind::Other), Fault::After(ErrorKind::Other)] {
        let mut swapped = 0;
        for at in 0..20 {
            let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
            drop(Store::create_with(inner.clone(), small()).unwrap());
            let faulty = Arc::new(FaultyBackend::new(
                inner.clone(),
                Box::new(move |number, _| if number == at { fault } else { Fault::None }),
            ));
            let done = Store::open_with(faulty, small()).and_then(|store| {
                assert!(store.document()?.is_none());
                if !store.alone()?.swap_document(None, first)? {
                    return Ok(false);
                }
                let tag = store.document()?.map(|(_, tag)| tag);
                store.alone()?.swap_document(tag.as_ref(), second)
            });
            let store = Store::open_with(inner, small()).unwrap();
            let there = store.document().unwrap().map(|(bytes, _)| bytes);
            match done {
                Ok(done) => {
                    assert!(done && there.as_deref() == Some(second), "{fault:?} at {at}");
                    swapped += 1;
                }
                Err(_) => assert!(
                    [None, Some(first), Some(second)].contains(&there.as_deref()),
                    "{fault:?} at {at}"
                ),
            }
            // Whoever read something else is told.
            let tag = store.document().unwrap().map(|(_, tag)| tag);
            assert!(store.alone().unwrap().swap_document(tag.as_ref(), b"third").unwrap());
            assert!(!store.alone().unwrap().swap_document(tag.as_ref(), b"fourth").unwrap());
        }
        assert!((10..20).contains(&swapped), "{swapped} of 20 for {fault:?}");
    }
}

fn shared(seed: u64) -> BlockMap {
    disk(
        3 * BLOCK_SIZE,
        &[(0, text(1, 5000)), (BLOCK_SIZE, noise(seed, 9000)), (2 * BLOCK_SIZE, text(seed, 700))],
    )
}

/// A day in the life of a store. What was acknowledged is in `there` or `gone`.
fn day(store: &Arc<Store>, there: &mut Vec<(String, BlockMap)>, gone: &mut Vec<String>) -> Result<(), Error> {
    let gc = |store: &Store| store.execute_gc(&GcOptions { wait: true, progress: &() });
    for seed in 0..3 {
        let (name, map) = (format!("s{seed}"), shared(seed));
        store.put(Source::Map(&map), &named(&name))?;
        there.push((name, map));
    }
    // Of a day before.
    if let Ok(copy) = store.find("copy") {
        there.retain(|(name, _)| name != "copy");
        store.forget(&[copy.id])?;
    }
    let original = store.find("s2")?;
    store.alone()?.copy_snapshot(original.id, derived_id("copy", original.digest), "copy", 0)?;
    there.push(("copy".to_owned(), shared(2)));
    there.retain(|(name, _)| name != "s2");
    store.forget(&[original.id])?;
    gone.push("s2".to_owned());
    let record = store.find("s1")?;
    there.retain(|(name, _)| name != "s1");
    store.forget(&[record.id])?;
    gone.push("s1".to_owned());
    gc(store)?;
    store.put(Source::Disk(&shared(7)), &named("s7"))?;
    there.push(("s7".to_owned(), shared(7)));
    gc(store)?;
    gc(store)?;
    Ok(())
}

/// Runs the day with one fault at each of its operations in turn: all that was acknowledged is there afterwards, the store goes on
/// working, and collections find an end.
fn every_operation(inner: &dyn Fn() -> Arc<dyn Backend>, fault: Fault) -> u64 {
    let mut at = 0;
    loop {
        let inner = inner();
        drop(Store::create_with(inner.clone(), small()).unwrap());
        let faulty = Arc::new(FaultyBackend::new(
            inner.clone(),
            Box::new(move |number, _| if number == at { fault } else { Fault::None }),
        ));
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        let outcome = Store::open_with(faulty.clone(), small())
            .map(Arc::new)
            .and_then(|store| day(&store, &mut there, &mut gone));
        let store = Arc::new(Store::open_with(inner, small()).unwrap());
        let check = || {
            for (name, map) in &there {
                let back = store.disk(&store.find(name).unwrap()).unwrap();
                assert!(bytes_of(&back) == bytes_of(map), "{name} after {fault:?} at {at}");
            }
            for name in &gone {
                assert!(
                    matches!(store.find(name), Err(Error::NoSnapshot { .. })),
                    "{name} after {fault:?} at {at}"
                );
            }
            let report = store.verify(&VERIFY).unwrap();
            assert!(report.is_whole(), "after {fault:?} at {at}: {report:?}");
        };
        check();
        let again = shared(99);
        put(&store, "again", &again);
        gc_times(&store, 4);
        check();
        assert_eq!(gc(&store), crate::GcReport::default(), "after {fault:?} at {at}");
        if outcome.is_ok() && faulty.operations() <= at {
            return at;
        }
        at += 1;
    }
}

#[test]
fn a_fault_at_any_operation_loses_nothing() {
    for fault in [Fault::Before(ErrorKind::Other), Fault::After(ErrorKind::TimedOut)] {
        let operations = every_operation(&|| Arc::new(MemoryBackend::new()), fault);
        assert!(operations > 100, "{operations}");
    }
}

#[test]
fn old_lists_lose_nothing() {
    let memory = MemoryBackend::new();
    let stale: Arc<dyn Backend> = Arc::new(FaultyBackend::new(
        Arc::new(memory.clone()),
        Box::new(|number, _| if !number.is_multiple_of(3) { Fault::Stale } else { Fault::None }),
    ));
    let store = Arc::new(Store::create_with(stale, small()).unwrap());
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        day(&store, &mut there, &mut gone).unwrap();
        for (name, map) in there.drain(..) {
            let back = store.disk(&store.find(&name).unwrap()).unwrap();
            assert!(bytes_of(&back) == bytes_of(&map), "{name}");
        }
    }
}

#[test]
fn a_full_or_read_only_store_says_so() {
    for (kind, wanted) in [
        (ErrorKind::StorageFull, "no space left"),
        (ErrorKind::ReadOnlyFilesystem, "read-only"),
        (ErrorKind::PermissionDenied, "no permission"),
    ] {
        let memory: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        drop(Store::create(memory.clone()).unwrap());
        let full = FaultyBackend::new(
            memory,
            Box::new(move |_, what| if what == "append" { Fault::Before(kind) } else { Fault::None }),
        );
        let store = Store::open_with(Arc::new(full), small()).unwrap();
        let error = store.put(Source::Disk(&shared(1)), &named("one")).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}
