//! The power goes at every operation.

use std::collections::HashSet;

use crate::check::{Depth, examine};
use crate::disk::Luck;
use crate::machine::{Flaw, Machine, Point};
use crate::rng::Rng;
use crate::scenarios::{ALONE, Scenario, TEN, THREADS, TOGETHER};
use crate::world::World;
use crate::{say, thorough};

/// How many moments and states were looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) operations: u64,
    pub(crate) moments: u64,
    pub(crate) states: u64,
    pub(crate) gone_on: u64,
}

impl Counted {
    pub(crate) fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.moments += other.moments;
        self.states += other.states;
        self.gone_on += other.gone_on;
    }
}

/// How much a sweep looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// States that survive by chance, for each moment.
    pub(crate) chances: usize,
    /// Of so many states one is used on after the restart.
    pub(crate) go_on: usize,
    /// Of so many moments one is looked at.
    pub(crate) moments: usize,
}

impl Effort {
    pub(crate) fn usual() -> Self {
        if thorough() {
            Self { chances: 24, go_on: 2, moments: 1 }
        } else {
            Self { chances: 3, go_on: 12, moments: 1 }
        }
    }
}

/// Runs a scenario on a machine with a flaw and looks at what every moment would leave.
pub(crate) fn sweep(scenario: &Scenario, seed: u64, flaw: Flaw, effort: Effort) -> Result<Counted, String> {
    let world = World::new((scenario.options)(), seed);
    // A flaw is there from the start, and so are the moments that show syncs which are left out.
    let flawed = flaw != Flaw::None;
    let from_start = matches!(flaw, Flaw::Ignores(_) | Flaw::IgnoresNth(_));
    world.machine().set_flaw(flaw);
    if from_start {
        world.machine().record();
    }
    (scenario.before)(&world).map_err(|error| format!("{}, before: {error}", scenario.name))?;
    if !from_start {
        world.machine().record();
    }
    let outcome = (scenario.run)(&world);
    if !flawed {
        outcome.map_err(|error| format!("{}, seed {seed}: {error}", scenario.name))?;
    }
    look(scenario.name, world.machine(), seed, effort)
}

/// Looks at what every recorded moment of a machine would leave.
pub(crate) fn look(name: &str, machine: &Machine, seed: u64, effort: Effort) -> Result<Counted, String> {
    let points = machine.points();
    let mut counted = Counted { operations: machine.operations(), ..Counted::default() };
    let mut rng = Rng::new(seed);
    let mut seen = HashSet::new();
    // Before a flaw shows there is nothing to be found.
    let from = machine.ignored().unwrap_or(0);
    for point in points.iter().filter(|point| point.operation >= from) {
        if !rng.one_in(effort.moments) {
            continue;
        }
        counted.moments += 1;
        for luck in lucks(point, effort, &mut rng) {
            let disk = point.disk.survivor(luck);
            let depth = if rng.one_in(effort.go_on) { Depth::GoOn } else { Depth::Restore };
            // Temporary files are nothing that a snapshot is restored from.
            let without = (depth == Depth::Restore).then_some("tmp");
            if !seen.insert((disk.fingerprint(without), point.ledger.version(), depth)) {
                continue;
            }
            counted.states += 1;
            counted.gone_on += u64::from(depth == Depth::GoOn);
            examine(disk, &point.ledger, depth).map_err(|wrong| {
                let Point { operation, next, .. } = point;
                format!("{name}, seed {seed}: power lost before operation {operation} ({next}), {luck:?} left: {wrong}")
            })?;
        }
    }
    Ok(counted)
}

/// What may survive of a moment.
fn lucks(point: &Point, effort: Effort, rng: &mut Rng) -> Vec<Luck> {
    let mut lucks = vec![Luck::Nothing, Luck::All];
    if !point.disk.is_durable() {
        lucks.push(Luck::Names);
        let names = point.disk.changed_names();
        if effort.chances > 8 || names <= 2 {
            lucks.extend((0..names).flat_map(|name| [Luck::OnlyName(name), Luck::AllNamesBut(name)]));
        } else {
            lucks.extend([Luck::OnlyName(rng.below(names)), Luck::AllNamesBut(rng.below(names))]);
        }
        lucks.extend((0..effort.chances).map(|_| Luck::Chance(rng.next())));
    }
    lucks
}

fn report(name: &str, counted: Counted) {
    let Counted { operations, moments, states, gone_on } = counted;
    say(&format!(
        "power lost, {name}: {operations} operations, {moments} moments that differ, {states} surviving states, {gone_on} of them used on"
    ));
}

#[test]
fn one_program() {
    let mut all = Counted::default();
    for scenario in ALONE {
        let counted = sweep(scenario, 1, Flaw::None, Effort::usual()).unwrap();
        report(scenario.name, counted);
        all.add(counted);
    }
    report("all of one program", all);
    assert!(all.operations > 500, "{all:?}");
}

#[test]
fn programs_at_once() {
    let seeds = if thorough() { 60 } else { 6 };
    let effort = if thorough() {
        Effort { chances: 2, go_on: 20, moments: 2 }
    } else {
        Effort { chances: 1, go_on: 30, moments: 8 }
    };
    for scenario in TOGETHER {
        let mut all = Counted::default();
        for seed in 0..seeds {
            all.add(sweep(scenario, seed, Flaw::None, effort).unwrap());
        }
        report(&format!("{} in {seeds} orders", scenario.name), all);
    }
}

#[test]
fn threads_of_one_program() {
    let rounds = if thorough() { 10 } else { 2 };
    let mut all = Counted::default();
    for seed in 0..rounds {
        all.add(sweep(&THREADS, seed, Flaw::None, Effort::usual()).unwrap());
    }
    report(THREADS.name, all);
}

/// Whoever comes while others make the store finds it, however far they are.
#[test]
fn ten_programs_make_one_store_in_any_order() {
    let orders = if thorough() { 2000 } else { 60 };
    for seed in 0..orders {
        let world = World::new((TEN.options)(), seed);
        let put = (TEN.run)(&world).and_then(|()| world.open()?.store.list());
        assert_eq!(put.unwrap_or_else(|error| panic!("order {seed}: {error}")).len(), 10);
    }
}
