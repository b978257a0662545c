//! Whether a store keeps its promises after a restart.

use std::sync::Arc;

use block::{BLOCK_SIZE, BlockSource as _};
use store::{Error, Store};

use crate::disk::Disk;
use crate::ledger::{Image, Ledger, Promise, block};
use crate::world::{Program, World, small};

/// What is wrong, in words.
pub(crate) type Checked = Result<(), String>;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Depth {
    /// The store opens, and every snapshot is what was promised.
    Restore,
    /// Then all work goes on: verifying, putting, collecting; in the end everything is forgotten and no byte is left.
    GoOn,
}

pub(crate) fn failed<T>(what: &str, result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {}", in_words(&error)))
}

fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut error = error.source();
    while let Some(inner) = error {
        text = format!("{text}: {inner}");
        error = inner.source();
    }
    text
}

/// Starts a machine with what survived and looks.
pub(crate) fn examine(disk: Disk, ledger: &Ledger, depth: Depth) -> Checked {
    let world = World::on(disk, ledger.clone(), small(), 0);
    let program = start(&world)?;
    promises(&program, &world.ledger.look())?;
    if depth == Depth::GoOn {
        go_on(&world, &program)?;
    }
    Ok(())
}

/// Opens the store as a person would who knows what happened to it.
pub(crate) fn start(world: &World) -> Result<Program, String> {
    let ledger = world.ledger.look();
    if ledger.broken {
        failed("rebuilding", Store::rebuild(&world.backend()))?;
        world.ledger.change(|ledger| ledger.rebuilt());
    }
    match world.open() {
        Err(Error::NotAStore { .. }) if !ledger.created => {
            failed("making a store where one was half made", world.create())
        }
        opened => failed("opening", opened),
    }
}

/// Looks at every snapshot.
pub(crate) fn promises(program: &Program, ledger: &Ledger) -> Checked {
    let records = failed("listing", program.store.list())?;
    for (id, (image, promise)) in &*ledger.snapshots {
        let Some(record) = records.iter().find(|record| record.id == *id) else {
            match promise {
                Promise::Either | Promise::Gone => continue,
                Promise::There | Promise::Hurt => {
                    return Err(format!("{}, committed, is not there", image.name));
                }
            }
        };
        if *promise == Promise::Gone {
            return Err(format!("{}, forgotten, is there again", image.name));
        }
        match same(program, record, image) {
            Err(error) if *promise == Promise::Hurt && error.contains("damaged") => {}
            compared => compared?,
        }
    }
    match records.iter().find(|record| !ledger.snapshots.contains_key(&record.id)) {
        Some(record) => Err(format!("{}, which nobody put, is there", record.name)),
        None => Ok(()),
    }
}

/// Compares a snapshot with its image, bit for bit.
fn same(program: &Program, record: &store::Record, image: &Image) -> Checked {
    let disk = failed("opening a snapshot", program.store.disk(record))?;
    if disk.len() != image.size() {
        return Err(format!("{} has another size", image.name));
    }
    let mut read = vec![0; BLOCK_SIZE as usize];
    for (at, seed) in (0..).zip(&image.blocks) {
        let done = disk.read_at(at * BLOCK_SIZE, &mut read);
        done.map_err(|error| format!("{}, block {at}: {error}", image.name))?;
        let bytes = if *seed == 0 { Arc::default() } else { block(*seed).1 };
        let (data, rest) = read.split_at(bytes.len());
        if data != *bytes || rest.iter().any(|byte| *byte != 0) {
            return Err(format!("{}, block {at}: reads as something else", image.name));
        }
    }
    Ok(())
}

/// Goes on using the store, to its end.
pub(crate) fn go_on(world: &World, program: &Program) -> Checked {
    let ledger = world.ledger.look();
    let report = failed("verifying", program.verify())?;
    let hurt = ledger.images(Promise::Hurt);
    if hurt.is_empty() && !report.is_whole() {
        return Err(format!("a verification finds damage: {report:?}"));
    }
    for image in hurt.iter().chain(&ledger.images(Promise::Either)) {
        failed("putting again", program.put(image))?;
    }
    let mut blocks: Vec<u64> =
        ledger.snapshots.values().filter_map(|(image, _)| image.blocks.first().copied()).collect();
    blocks.truncate(2);
    blocks.push(99_000);
    let next = Image::new("next", &blocks);
    failed("putting", program.put(&next))?;
    collect(world, program)?;
    let ledger = world.ledger.look();
    promises(program, &ledger)?;
    let report = failed("verifying after a collection", program.verify())?;
    if !report.is_whole() {
        return Err(format!("a verification after a collection finds damage: {report:?}"));
    }
    for image in ledger.images(Promise::There) {
        failed("forgetting", program.forget(&image))?;
    }
    collect(world, program)?;
    match &world.objects()[..] {
        [] => Ok(()),
        left => Err(format!("left in an empty store: {left:?}")),
    }
}

/// Collects until there is nothing to do.
pub(crate) fn collect(world: &World, program: &Program) -> Checked {
    let mut plan = failed("planning", program.store.plan_gc(&()))?;
    for _ in 0..world.collections() {
        failed("collecting", program.gc(true))?;
        plan = failed("planning", program.store.plan_gc(&()))?;
        if plan.is_empty() && failed("counting", program.store.stat())?.condemned_packs == 0 {
            return Ok(());
        }
    }
    Err(format!("collections find no end: {plan:?}"))
}
