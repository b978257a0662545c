//! The object store is slow, forgets replies and lists yesterday; programs race and vanish.

use std::collections::HashSet;
use std::sync::Arc;

use store::{Backend, Error};

use crate::bucket::{Bucket, Client, Contents, Mishap, Moment, Trouble};
use crate::check::{Checked, Depth, go_on, promises, start};
use crate::ledger::{Image, Ledger};
use crate::power::Counted;
use crate::rng::Rng;
use crate::scenarios::{COLLECT, COLLECTORS, MANY, ORIGINS, PUTS, Scenario, TEN, WRITERS};
use crate::world::{World, small};
use crate::{say, thorough};

/// Looks at what is there, as [`crate::check::examine`] does.
fn examine(contents: Contents, ledger: &Ledger, depth: Depth, seed: u64) -> Checked {
    let world = World::on_bucket(contents, ledger.clone(), small(), seed);
    let program = start(&world)?;
    promises(&program, ledger)?;
    if depth == Depth::GoOn {
        go_on(&world, &program)?;
    }
    Ok(())
}

/// Runs a scenario and looks at every so-manyth moment.
fn sweep(
    scenario: &Scenario,
    seed: u64,
    trouble: Trouble,
    moments: usize,
    from_start: bool,
) -> Result<Counted, String> {
    let world = World::on_bucket(Contents::default(), Ledger::default(), (scenario.options)(), seed);
    let failed = |error: Error| format!("{}, seed {seed}: {error}", scenario.name);
    (scenario.before)(&world).map_err(failed)?;
    let bucket = world.bucket();
    bucket.record();
    bucket.set_trouble(trouble);
    match (scenario.run)(&world) {
        // What a slow program was doing may have to be begun again, and the program may give up.
        Ok(()) | Err(Error::Overtaken | Error::Busy { .. }) => {}
        Err(error) if matches!(trouble, Trouble::None) => return Err(failed(error)),
        Err(_) => {}
    }
    bucket.set_trouble(Trouble::None);
    let mut counted = Counted { operations: bucket.requests().0, ..Counted::default() };
    let mut rng = Rng::new(seed);
    let mut seen = HashSet::new();
    let all = bucket.moments();
    for (at, moment) in all.iter().enumerate() {
        let last = at + 1 == all.len();
        if !(last || from_start && rng.one_in(moments)) {
            continue;
        }
        counted.moments += 1;
        let Moment { operation, next, contents, ledger } = moment;
        let mut chances = vec![None];
        if contents.has_late() {
            chances.extend([Some(0), Some(rng.next()), Some(rng.next())]);
        }
        for chance in chances {
            let contents = contents.survivor(chance);
            let depth = if rng.one_in(8) || last { Depth::GoOn } else { Depth::Restore };
            if !seen.insert((contents.fingerprint(), ledger.version(), depth)) {
                continue;
            }
            counted.states += 1;
            counted.gone_on += u64::from(depth == Depth::GoOn);
            examine(contents, ledger, depth, rng.next()).map_err(|wrong| {
                format!(
                    "{}, seed {seed}, {trouble:?}: before request {operation} ({next}), late requests {chance:?}: {wrong}",
                    scenario.name
                )
            })?;
        }
    }
    Ok(counted)
}

fn report(name: &str, counted: Counted) {
    let Counted { operations, moments, states, gone_on } = counted;
    say(&format!(
        "object store, {name}: {operations} requests, {moments} moments, {states} states, {gone_on} of them used on"
    ));
}

/// How many requests of a scenario change something.
fn changes(scenario: &Scenario, seed: u64) -> u64 {
    let world = World::on_bucket(Contents::default(), Ledger::default(), (scenario.options)(), seed);
    (scenario.before)(&world).unwrap();
    world.bucket().record();
    // The count alone matters here.
    let _ = (scenario.run)(&world);
    world.bucket().requests().1
}

#[test]
fn all_programs_vanish_at_every_request() {
    let mut all = Counted::default();
    for scenario in [&PUTS, &COLLECT, &MANY, &ORIGINS] {
        all.add(sweep(scenario, 1, Trouble::None, 1, true).unwrap());
    }
    report("one program", all);
}

#[test]
fn every_request_goes_wrong_in_every_way() {
    let every = if thorough() { 1 } else { 6 };
    for scenario in [&PUTS, &COLLECT, &MANY, &ORIGINS] {
        let mut all = Counted::default();
        let mut rng = Rng::new(7);
        for at in 0..changes(scenario, 1) {
            for mishap in [Mishap::Refused, Mishap::NoReply, Mishap::Late] {
                if rng.one_in(every) {
                    all.add(sweep(scenario, 1, Trouble::At(at, mishap), 40, true).unwrap());
                }
            }
        }
        report(&format!("mishaps in {}", scenario.name), all);
    }
}

#[test]
fn programs_race() {
    let seeds = if thorough() { 500 } else { 8 };
    for scenario in [&WRITERS, &COLLECTORS, &TEN] {
        for (words, trouble) in [("in time", Trouble::None), ("with mishaps", Trouble::OneIn(15))] {
            let mut all = Counted::default();
            for seed in 0..seeds {
                all.add(sweep(scenario, seed, trouble, 25, true).unwrap());
            }
            report(&format!("{} {words} in {seeds} orders", scenario.name), all);
        }
    }
}

#[test]
fn one_of_several_programs_vanishes() {
    let seeds = if thorough() { 300 } else { 12 };
    for scenario in [&WRITERS, &COLLECTORS, &TEN] {
        let mut all = Counted::default();
        let mut rng = Rng::new(3);
        for seed in 0..seeds {
            let last = [Mishap::Refused, Mishap::NoReply, Mishap::Late][rng.below(3)];
            let trouble = Trouble::Dies { program: rng.below(4), at: rng.below(14) as u64, last };
            all.add(sweep(scenario, seed, trouble, 40, true).unwrap());
        }
        report(&format!("{}, one vanishes", scenario.name), all);
    }
}

/// The same put, in the same generation, brings objects of the same names as those that rotted.
#[test]
fn a_put_replaces_what_rotted() {
    let image = Image::new("a", &[1, 2, 3]);
    for (folder, at) in [("snapshots", 60), ("packs", 100)] {
        let world = World::on_bucket(Contents::default(), Ledger::default(), small(), 0);
        let program = world.create().unwrap();
        let before = world.bucket().contents();
        program.put(&image).unwrap();
        let mut rotten = world.bucket().contents();
        rotten.rot(folder, at);
        // A put that was interrupted before its root: what it wrote is there, and rots.
        if folder == "packs" {
            rotten.take_back("root", &before);
        }
        let world = World::on_bucket(rotten, Ledger::default(), small(), 0);
        let program = world.open().unwrap();
        program.put(&image).unwrap();
        promises(&program, &world.ledger.look()).unwrap();
        go_on(&world, &program).unwrap();
    }
}

#[test]
fn the_object_store_conforms() {
    let world = World::on_bucket(Contents::default(), Ledger::default(), small(), 0);
    let bucket: Arc<Bucket> = world.bucket();
    let backend: Arc<dyn Backend> = Arc::new(Client(bucket));
    store::conformance::check(&backend, true).unwrap();
}
