//! An error at every operation, and the program goes on.

use std::io::ErrorKind;

use store::Error;

use crate::check::{Depth, collect, examine, failed, promises, start};
use crate::disk::{Disk, Luck};
use crate::ledger::{Image, Ledger, Promise};
use crate::machine::{Fault, Kind};
use crate::rng::Rng;
use crate::scenarios::{ALONE, FULL, LITTLE, Scenario, TOGETHER};
use crate::world::World;
use crate::{say, thorough};

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    operations: u64,
    faults: u64,
    reported: u64,
}

/// What was there before the scenario ran, so that each run begins with the same.
struct Begin {
    disk: Disk,
    ledger: Ledger,
    kinds: Vec<Kind>,
}

fn begin(scenario: &Scenario, seed: u64) -> Begin {
    let world = World::new((scenario.options)(), seed);
    (scenario.before)(&world).unwrap();
    let (disk, ledger) = (world.machine().disk(), world.ledger.look());
    world.machine().record();
    (scenario.run)(&world).unwrap();
    Begin { disk, ledger, kinds: world.machine().kinds() }
}

/// Runs a scenario with an error at one operation, or from it on. The scenario ends at the first error that is reported; then the disk
/// works again, and the program goes on with the store that it has open. And the power goes.
fn fail(scenario: &Scenario, seed: u64, begin: &Begin, fault: Fault, rng: &mut Rng) -> Result<bool, String> {
    let world = World::on(begin.disk.clone(), begin.ledger.clone(), (scenario.options)(), seed);
    world.machine().record();
    world.machine().set_fault(Some(fault));
    let outcome = (scenario.run)(&world);
    if !world.machine().fault_hit() {
        return outcome.map(|()| false).map_err(|error| format!("without an error: {error}"));
    }
    world.machine().set_fault(None);
    world.machine().make_room();
    if let Err(error) = &outcome {
        told(fault, error)?;
    }
    let ledger = world.ledger.look();
    let disk = world.machine().disk();
    let program = start(&world)?;
    promises(&program, &world.ledger.look())?;
    // The power goes at the end.
    for luck in [Luck::Nothing, Luck::Chance(rng.next())] {
        let mut ledger = ledger.clone();
        ledger.created &= outcome.is_ok();
        let depth = if rng.one_in(3) { Depth::GoOn } else { Depth::Restore };
        examine(disk.survivor(luck), &ledger, depth)
            .map_err(|wrong| format!("then power lost, {luck:?} left: {wrong}"))?;
    }
    // What failed works when it is tried again, and what was half done is done or cleared away.
    if !rng.one_in(3) {
        return Ok(outcome.is_err());
    }
    let ledger = world.ledger.look();
    let hurt = ledger.images(Promise::Hurt);
    if !hurt.is_empty() {
        failed("verifying first", program.verify())?;
    }
    for image in ledger.images(Promise::Either).iter().chain(&hurt) {
        failed("trying again", program.put(image))?;
    }
    collect(&world, &program)?;
    promises(&program, &world.ledger.look())?;
    let report = failed("verifying", program.verify())?;
    if !report.is_whole() {
        return Err(format!("after trying again: {report:?}"));
    }
    Ok(outcome.is_err())
}

/// An error says what happened.
fn told(fault: Fault, error: &Error) -> Result<(), String> {
    let right = match fault.error {
        ErrorKind::StorageFull => matches!(error, Error::Full { .. }),
        ErrorKind::ReadOnlyFilesystem => matches!(error, Error::ReadOnly { .. }),
        _ => true,
    };
    if right { Ok(()) } else { Err(format!("{:?} is told as {error}", fault.error)) }
}

const FAULTS: [(ErrorKind, bool); 5] = [
    (ErrorKind::StorageFull, false),
    (ErrorKind::StorageFull, true),
    (ErrorKind::Other, false),
    (ErrorKind::Other, true),
    (ErrorKind::ReadOnlyFilesystem, true),
];

/// Every operation of a scenario, with every error that it can have; of so many one.
fn sweep(scenario: &Scenario, seed: u64, one_in: usize) -> Counted {
    let begin = begin(scenario, seed);
    let mut counted = Counted { operations: begin.kinds.len() as u64, ..Counted::default() };
    let mut rng = Rng::new(seed);
    for (at, kind) in (0..).zip(&begin.kinds) {
        for (error, lasts) in FAULTS {
            if !Fault::can_hit(error, *kind) || !rng.one_in(one_in) {
                continue;
            }
            let fault = Fault { at, error, lasts };
            counted.faults += 1;
            match fail(scenario, seed, &begin, fault, &mut rng) {
                Ok(reported) => counted.reported += u64::from(reported),
                Err(wrong) => panic!("{}, seed {seed}, {fault:?}: {wrong}", scenario.name),
            }
        }
    }
    counted
}

fn report(name: &str, counted: Counted) {
    let Counted { operations, faults, reported } = counted;
    say(&format!("errors, {name}: {operations} operations, {faults} errors, {reported} ended the work"));
}

#[test]
fn an_error_at_every_operation() {
    for scenario in ALONE {
        let one_in = if thorough() { 1 } else { 12 };
        report(scenario.name, sweep(scenario, 1, one_in));
    }
}

#[test]
fn an_error_while_others_work() {
    let (seeds, one_in) = if thorough() { (20, 10) } else { (2, 150) };
    for scenario in TOGETHER {
        for seed in 0..seeds {
            report(scenario.name, sweep(scenario, seed, one_in));
        }
    }
}

/// What a collection does with so much room.
#[test]
fn a_full_disk_is_collected() {
    for room in [0, 512, 1024, 1536, 2048, LITTLE, 6000, 20_000] {
        let world = World::new((FULL.options)(), 1);
        (FULL.before)(&world).unwrap();
        let program = world.open().unwrap();
        world.machine().leave_room(30_000);
        let many: Vec<u64> = (31..51).collect();
        let put = program.put(&Image::new("too much", &many));
        assert!(matches!(put, Err(Error::Full { .. })), "{put:?}");
        world.machine().leave_room(room);
        let before = world.machine().disk().used();
        let collected = program.gc(true);
        let freed = before.saturating_sub(world.machine().disk().used());
        say(&format!("with {room} bytes of room a collection frees {freed} of {before}: {collected:?}"));
        promises(&program, &world.ledger.look()).unwrap();
        assert!(collected.is_ok() || room < LITTLE && matches!(collected, Err(Error::Full { .. })));
        // All that is not needed goes, what must be copied for it as well.
        assert!(freed > before / 2 || collected.is_err(), "{freed} bytes with {room} of room");
        world.machine().make_room();
        collect(&world, &program).unwrap();
        promises(&program, &world.ledger.look()).unwrap();
        assert!(program.verify().unwrap().is_whole());
    }
}
