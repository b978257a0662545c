//! Programs that use a store, on a simulated machine or a simulated object store.

use std::path::Path;
use std::sync::Arc;

use store::{
    Backend, Error, GcOptions, GcReport, LocalBackend, Options, PutOptions, PutReport, Source, Store,
    VerifyOptions, VerifyReport,
};

use crate::bucket::{Bucket, Client, Contents};
use crate::disk::Disk;
use crate::flawed::Flawed;
use crate::ledger::{Image, Ledger, Promise, Shared};
use crate::machine::{Flaw, Machine, SimulatedFs};
use crate::turns::{Turns, become_actor};

/// Where the store lies.
pub(crate) const STORE: &str = "/data/store";

/// One thread, so that a run is the same each time; packs of a few blocks, and few entries merged in memory.
pub(crate) fn small() -> Options {
    Options { threads: 1, pack_size: 12_000, merged_in_memory: 6, ..Options::default() }
}

/// What the store lies on.
#[derive(Clone)]
enum Place {
    Machine(Arc<Machine>),
    Bucket(Arc<Bucket>),
}

/// A machine or an object store, its promises, and how programs use it.
#[derive(Clone)]
pub(crate) struct World {
    place: Place,
    pub(crate) ledger: Shared,
    pub(crate) options: Options,
    /// From which the order of programs that run at once follows.
    pub(crate) seed: u64,
}

/// A program with the store open.
pub(crate) struct Program {
    world: World,
    pub(crate) store: Arc<Store>,
}

pub(crate) type Work<'a> = Box<dyn FnOnce(&World) -> Result<(), Error> + Send + 'a>;

impl World {
    /// An empty machine: the store makes the folder above it as well.
    pub(crate) fn new(options: Options, seed: u64) -> Self {
        Self::on(Disk::new(), Ledger::default(), options, seed)
    }

    /// A machine that starts with what a disk has.
    pub(crate) fn on(disk: Disk, ledger: Ledger, options: Options, seed: u64) -> Self {
        let ledger = Shared::of(ledger);
        let place = Place::Machine(Machine::new(disk, ledger.clone()));
        Self { place, ledger, options, seed }
    }

    /// An object store with these contents.
    pub(crate) fn on_bucket(contents: Contents, ledger: Ledger, options: Options, seed: u64) -> Self {
        let ledger = Shared::of(ledger);
        let place = Place::Bucket(Bucket::new(contents, ledger.clone(), seed));
        Self { place, ledger, options, seed }
    }

    pub(crate) fn machine(&self) -> &Machine {
        match &self.place {
            Place::Machine(machine) => machine,
            Place::Bucket(_) => panic!("an object store has no disk"),
        }
    }

    pub(crate) fn bucket(&self) -> Arc<Bucket> {
        match &self.place {
            Place::Machine(_) => panic!("a machine is no object store"),
            Place::Bucket(bucket) => bucket.clone(),
        }
    }

    /// Everything in the store's folders.
    pub(crate) fn objects(&self) -> Vec<String> {
        match &self.place {
            Place::Machine(machine) => machine.disk().files(Path::new(STORE)),
            Place::Bucket(bucket) => bucket.contents().keys(),
        }
    }

    /// How many collections free everything: without locks a later one deletes what an earlier one condemned.
    pub(crate) fn collections(&self) -> usize {
        match &self.place {
            Place::Machine(_) => 1,
            Place::Bucket(_) => 40,
        }
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        let machine = match &self.place {
            Place::Bucket(bucket) => return Arc::new(Client(bucket.clone())),
            Place::Machine(machine) => machine,
        };
        let fs = Box::new(SimulatedFs(machine.clone()));
        let local = Arc::new(LocalBackend::on(Path::new(STORE), fs));
        match machine.flaw() {
            Flaw::Breaks(rule) => Arc::new(Flawed::new(local, rule)),
            _ => local,
        }
    }

    /// A program that makes or opens the store.
    pub(crate) fn create(&self) -> Result<Program, Error> {
        let store = Store::create_with(self.backend(), self.options.clone())?;
        self.ledger.change(|ledger| ledger.created = true);
        Ok(Program { world: self.clone(), store: Arc::new(store) })
    }

    pub(crate) fn open(&self) -> Result<Program, Error> {
        let store = Store::open_with(self.backend(), self.options.clone())?;
        Ok(Program { world: self.clone(), store: Arc::new(store) })
    }

    /// Runs programs at once, in an order that follows from the seed; the first error of any.
    pub(crate) fn together(&self, programs: Vec<Work<'_>>) -> Result<(), Error> {
        struct Leave<'a>(&'a Place, usize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                become_actor(None);
                match self.0 {
                    Place::Machine(machine) => machine.leave(self.1),
                    Place::Bucket(bucket) => bucket.leave(self.1),
                }
            }
        }
        let set_turns = |turns| match &self.place {
            Place::Machine(machine) => machine.set_turns(turns),
            Place::Bucket(bucket) => bucket.set_turns(turns),
        };
        set_turns(Some(Turns::new(programs.len(), self.seed)));
        let results: Vec<Result<(), Error>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(programs)
                .map(|(number, program)| {
                    scope.spawn(move || {
                        become_actor(Some(number));
                        let _leave = Leave(&self.place, number);
                        program(self)
                    })
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), Error>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        set_turns(None);
        results.into_iter().collect()
    }
}

impl Program {
    pub(crate) fn put(&self, image: &Arc<Image>) -> Result<PutReport, Error> {
        self.put_as(image, false)
    }

    /// A put that knows the origin of the image's blocks.
    pub(crate) fn put_map(&self, image: &Arc<Image>) -> Result<PutReport, Error> {
        self.put_as(image, true)
    }

    fn put_as(&self, image: &Arc<Image>, known: bool) -> Result<PutReport, Error> {
        let map = image.map();
        let options = PutOptions {
            name: &image.name,
            id: store::ChosenId::Derived,
            parent: None,
            time: 0,
            progress: &(),
        };
        let source = if known { Source::Map(&map) } else { Source::Disk(&map) };
        self.world.ledger.begins(image);
        let report = self.store.put(source, &options)?;
        self.world.ledger.promise(image, Promise::There);
        Ok(report)
    }

    pub(crate) fn forget(&self, image: &Arc<Image>) -> Result<(), Error> {
        self.world.ledger.promise(image, Promise::Either);
        self.store.forget(&[image.id()])?;
        self.world.ledger.promise(image, Promise::Gone);
        Ok(())
    }

    /// A collection that waits for writers, or goes on beside them.
    pub(crate) fn gc(&self, wait: bool) -> Result<GcReport, Error> {
        self.store.execute_gc(&GcOptions { wait, progress: &() })
    }

    pub(crate) fn verify(&self) -> Result<VerifyReport, Error> {
        self.store.verify(&VerifyOptions { part: None, quarantine: true, progress: &() })
    }
}
