//! The suite finds what it is there to find: without any single sync, lock, order or check, it fails.

use std::collections::BTreeMap;
use std::sync::Arc;

use store::{Error, Options};

use crate::disk::Luck;
use crate::flawed::{Flawed, Rule};
use crate::ledger::Image;
use crate::machine::Flaw;
use crate::power::{Effort, sweep};
use crate::say;
use crate::scenarios::{COLLECT, COLLECTORS, MANY, ORIGINS, PUTS, Scenario, TEN, WRITERS};
use crate::world::{World, small};

/// What the suite says of a flaw. Each looks where it can show: syncs that are left out may take anything with them that is not
/// durable, some of which only a verification misses; what programs do wrong beside each other shows without any power cut.
fn found(scenarios: &[&Scenario], seeds: u64, flaw: &Flaw) -> Option<String> {
    let effort = match flaw {
        Flaw::None | Flaw::Ignores(_) | Flaw::Breaks(_) => Effort { chances: 6, go_on: 4, moments: 1 },
        Flaw::IgnoresNth(_) => Effort { chances: 2, go_on: 1, moments: 1 },
        Flaw::Unlocked(_) => Effort { chances: 0, go_on: 50, moments: 4 },
    };
    let runs = scenarios.iter().flat_map(|scenario| (0..seeds).map(move |seed| (scenario, seed)));
    runs.into_iter().find_map(|(scenario, seed)| sweep(scenario, seed, flaw.clone(), effort).err())
}

/// The syncs that a scenario does, by description.
fn syncs(scenario: &Scenario) -> Vec<String> {
    let world = World::new((scenario.options)(), 0);
    world.machine().record();
    (scenario.before)(&world).unwrap();
    (scenario.run)(&world).unwrap();
    world.machine().syncs()
}

/// The one sync that a store could do without, because the next one it makes is of the same folder. The back end's own contract
/// needs it: see [`a_prepared_place_is_durable`].
const PREPARED: &str = "sync_folder /data/store with packs";

#[test]
fn no_kind_of_sync_can_be_left_out() {
    // The first scenario that has a sync is the one to miss it.
    let mut all: BTreeMap<String, &Scenario> = BTreeMap::new();
    for scenario in [&PUTS, &ORIGINS, &COLLECT, &MANY] {
        for what in syncs(scenario) {
            all.entry(what).or_insert(scenario);
        }
    }
    assert!(all.remove(PREPARED).is_some() && all.len() > 15, "{all:?}");
    let mut missed = Vec::new();
    for (what, scenario) in all {
        match found(&[scenario], 1, &Flaw::Ignores(what.clone())) {
            Some(violation) => say(&format!("without {what}: {violation}")),
            None => missed.push(what),
        }
    }
    assert!(missed.is_empty(), "nothing is lost without {missed:#?}");
}

#[test]
fn no_single_sync_can_be_left_out() {
    let all = syncs(&ORIGINS);
    let mut missed = Vec::new();
    for (number, what) in all.iter().enumerate().filter(|(_, what)| *what != PREPARED) {
        if found(&[&ORIGINS], 1, &Flaw::IgnoresNth(number)).is_none() {
            missed.push(format!("{number}: {what}"));
        }
    }
    say(&format!(
        "without any one of the {} syncs of {}: {} unnoticed",
        all.len(),
        ORIGINS.name,
        missed.len()
    ));
    assert!(missed.is_empty(), "of {} syncs nothing is lost without {missed:#?}", all.len());
}

#[test]
fn a_prepared_place_is_durable() {
    let left = |flaw| {
        let world = World::new(small(), 0);
        world.machine().set_flaw(flaw);
        world.backend().prepare(&["packs", "index"]).unwrap();
        world.backend().write(&[("packs/a", b"alpha")]).unwrap();
        let after =
            World::on(world.machine().disk().survivor(Luck::Nothing), world.ledger.look(), small(), 0);
        after
            .backend()
            .open("packs/a")
            .and_then(|object| object.load())
            .map(|bytes| bytes.into_vec().unwrap())
    };
    assert_eq!(left(Flaw::None).unwrap(), b"alpha");
    for what in
        [PREPARED, "sync_folder /", "sync_folder /data", "sync_folder /data/store/packs", "sync_files of a ?"]
    {
        let lost = left(Flaw::Ignores(what.to_owned()));
        assert!(lost.is_err() || lost.is_ok_and(|bytes| bytes.is_empty()), "nothing is lost without {what}");
        say(&format!("without {what}: an object that was written is lost"));
    }
}

#[test]
fn no_lock_can_be_left_out() {
    for lock in ["swap.lock", "store.lock"] {
        let violation = found(&[&WRITERS, &TEN, &COLLECTORS], 40, &Flaw::Unlocked(lock));
        say(&format!(
            "without {lock}: {}",
            violation.unwrap_or_else(|| panic!("nothing is lost without {lock}"))
        ));
    }
}

#[test]
fn nothing_can_be_written_after_the_root() {
    for (folder, scenario) in [
        ("packs", &PUTS),
        ("index", &PUTS),
        ("snapshots", &PUTS),
        ("catalog", &MANY),
        ("claims", &ORIGINS),
        ("origins", &ORIGINS),
    ] {
        let violation = found(&[scenario], 1, &Flaw::Breaks(Rule::Late(folder)));
        let violation =
            violation.unwrap_or_else(|| panic!("nothing is lost when {folder} come after the root"));
        say(&format!("{folder} after the root: {violation}"));
    }
}

/// What is written again must be whole: a put may bring the very objects that rotted since they were first written.
#[test]
fn what_is_there_cannot_be_left() {
    for uploads in [false, true] {
        let bucket = World::on_bucket(Default::default(), Default::default(), small(), 0).backend();
        let leaving: Arc<dyn store::Backend> = Arc::new(Flawed::new(bucket, Rule::Leaves { uploads }));
        let broken = store::conformance::check(&leaving, true).unwrap_err();
        assert!(broken.rule.contains("again is whole"), "{broken}");
        say(&format!("when what is there is left: {broken}"));
    }
}

/// A processor that damages a frame: with the reading back nothing is committed, without it something is.
#[test]
fn frames_must_be_read_back() {
    let fault = |frame: &mut Vec<u8>| {
        let middle = frame.len() / 2;
        frame[middle] ^= 1;
    };
    let world = World::new(Options { frame_fault: Some(fault), ..small() }, 0);
    let program = world.create().unwrap();
    assert!(matches!(program.put(&Image::new("a", &[1])), Err(Error::Compression { .. })));
    assert!(program.store.list().unwrap().is_empty());
    let violation = found(&[&PUTS], 1, &Flaw::Breaks(Rule::BadFrame)).unwrap();
    say(&format!("without reading frames back: {violation}"));
}
