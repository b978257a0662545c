//! What programs do while the power may go.

use std::path::Path;
use std::sync::Arc;

use store::{Error, Options, Store};

use crate::ledger::{Image, Promise};
use crate::world::{STORE, Work, World, small};

/// Work that is done in one order, or in an order that follows from the world's seed.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) options: fn() -> Options,
    /// What happened before: without faults, its moments are not looked at.
    pub(crate) before: fn(&World) -> Result<(), Error>,
    pub(crate) run: fn(&World) -> Result<(), Error>,
}

fn nothing(_: &World) -> Result<(), Error> {
    Ok(())
}

fn image(name: &str, blocks: &[u64]) -> Arc<Image> {
    Image::new(name, blocks)
}

/// The least: a store is made, two images that share blocks are put, one of them again.
pub(crate) const PUTS: Scenario = Scenario {
    name: "puts",
    options: small,
    before: nothing,
    run: |world| {
        let program = world.create()?;
        program.put(&image("a", &[1, 2, 0, 3]))?;
        program.put(&image("b", &[2, 4]))?;
        program.put(&image("a", &[1, 2, 0, 3]))?;
        program.put(&image("a", &[5, 2]))?;
        Ok(())
    },
};

/// Packs that nobody needs, packs under half live, leftovers; then the store goes on being used.
pub(crate) const COLLECT: Scenario = Scenario {
    name: "forget and collect",
    options: small,
    before: |world| {
        let program = world.create()?;
        program.put(&image("large", &[11, 12, 13, 14, 15, 16, 17, 18]))?;
        program.put(&image("part", &[12, 15]))?;
        program.put(&image("gone", &[21, 22, 23])).map(drop)
    },
    run: |world| {
        let program = world.open()?;
        program.forget(&image("large", &[11, 12, 13, 14, 15, 16, 17, 18]))?;
        program.gc(true)?;
        program.put(&image("more", &[12, 11, 31]))?;
        program.forget(&image("gone", &[21, 22, 23]))?;
        program.gc(true)?;
        program.gc(true)?;
        program.put(&image("gone", &[21, 22, 23]))?;
        Ok(())
    },
};

/// So many snapshots that they move into pages, and tables are merged.
pub(crate) const MANY: Scenario = Scenario {
    name: "many snapshots",
    options: small,
    before: |world| {
        let program = world.create()?;
        (0..14).try_for_each(|at| program.put(&image(&format!("s{at}"), &[40 + at % 5])).map(drop))
    },
    run: |world| {
        let program = world.open()?;
        for at in 14..20 {
            program.put(&image(&format!("s{at}"), &[40 + at % 7, 50 + at % 3]))?;
        }
        program.forget(&image("s3", &[43]))?;
        program.forget(&image("s17", &[43, 52]))?;
        program.gc(true)?;
        Ok(())
    },
};

/// Blocks whose origin is known, and what is claimed of them.
pub(crate) const ORIGINS: Scenario = Scenario {
    name: "known origins",
    options: small,
    before: nothing,
    run: |world| {
        let program = world.create()?;
        program.put_map(&image("a", &[1, 2, 3]))?;
        program.put_map(&image("b", &[1, 4, 3]))?;
        program.forget(&image("a", &[1, 2, 3]))?;
        program.gc(true)?;
        program.put_map(&image("c", &[2, 4]))?;
        Ok(())
    },
};

/// A block rots; it is found, put into quarantine and healed.
pub(crate) const HEAL: Scenario = Scenario {
    name: "verify and heal",
    options: small,
    before: |world| {
        let program = world.create()?;
        program.put(&image("a", &[1, 2, 3]))?;
        program.put(&image("b", &[2, 4]))?;
        let packs = world.machine().disk().list(&Path::new(STORE).join("packs")).expect("packs");
        let path = |name: &str| Path::new(STORE).join("packs").join(name);
        // The first frame begins behind the header.
        world.machine().change_disk(|disk| packs.iter().for_each(|(name, ..)| disk.flip(&path(name), 100)));
        let hurt = [image("a", &[1, 2, 3]), image("b", &[2, 4])];
        hurt.iter().for_each(|image| world.ledger.promise(image, Promise::Hurt));
        Ok(())
    },
    run: |world| {
        let program = world.open()?;
        program.verify()?;
        program.put(&image("b", &[2, 4]))?;
        program.put(&image("a", &[1, 2, 3]))?;
        program.put(&image("b", &[2, 4]))?;
        program.gc(true)?;
        program.verify()?;
        program.gc(true)?;
        Ok(())
    },
};

/// The root is lost, and later the index.
pub(crate) const REBUILD: Scenario = Scenario {
    name: "rebuild",
    options: small,
    before: |world| {
        let program = world.create()?;
        program.put_map(&image("a", &[1, 2, 3]))?;
        program.put(&image("b", &[2, 4]))?;
        program.put(&image("c", &[5]))?;
        program.forget(&image("c", &[5]))?;
        world.ledger.change(|ledger| ledger.broken = true);
        let root = Path::new(STORE).join("root");
        world.machine().change_disk(|disk| disk.flip(&root, 40));
        Ok(())
    },
    run: |world| {
        Store::rebuild(&world.backend())?;
        world.ledger.change(|ledger| ledger.rebuilt());
        let program = world.open()?;
        program.put(&image("d", &[1, 4, 6]))?;
        program.gc(true)?;
        let tables = world.machine().disk().list(&Path::new(STORE).join("index")).expect("the index");
        let path = |name: &str| Path::new(STORE).join("index").join(name);
        world.ledger.change(|ledger| ledger.broken = true);
        world.machine().change_disk(|disk| tables.iter().for_each(|(name, ..)| disk.flip(&path(name), 3)));
        Store::rebuild(&world.backend())?;
        world.ledger.change(|ledger| ledger.rebuilt());
        world.open()?.gc(true)?;
        Ok(())
    },
};

/// The disk is full: a put ends for that, and a collection must find the room for what it writes in what it deletes.
pub(crate) const FULL: Scenario = Scenario {
    name: "full disk",
    options: small,
    before: |world| {
        let program = world.create()?;
        program.put(&image("large", &[11, 12, 13, 14, 15, 16, 17, 18]))?;
        program.put(&image("part", &[12, 15]))?;
        program.put(&image("gone", &[21, 22, 23]))?;
        program.forget(&image("large", &[11, 12, 13, 14, 15, 16, 17, 18]))?;
        program.forget(&image("gone", &[21, 22, 23]))
    },
    run: |world| {
        let program = world.open()?;
        world.machine().leave_room(30_000);
        let many: Vec<u64> = (31..51).collect();
        match program.put(&image("too much", &many)) {
            Err(Error::Full { .. }) => {}
            put => put.map(drop)?,
        }
        // Others take what the failed put gave back.
        world.machine().leave_room(LITTLE);
        program.gc(true)?;
        program.put(&image("gone", &[21, 22, 23]))?;
        Ok(())
    },
};

/// Room in which a collection of [`FULL`] can begin: less than one of its frames needs.
pub(crate) const LITTLE: u64 = 3000;

/// Tables so large that they are read where they lie.
pub(crate) const LARGE: Scenario = Scenario {
    name: "large tables",
    options: small,
    before: |world| {
        let program = world.create()?;
        program.put_map(&image("a", &[1, 2, 3, 4, 5, 6, 7]))?;
        program.put_map(&image("b", &[1, 8, 3])).map(drop)
    },
    run: |world| {
        world.machine().enlarge_files();
        let program = world.open()?;
        program.put_map(&image("c", &[1, 2, 9, 4, 10, 6]))?;
        program.forget(&image("a", &[1, 2, 3, 4, 5, 6, 7]))?;
        program.gc(true)?;
        let program = world.open()?;
        program.put(&image("d", &[8, 9, 11]))?;
        program.verify()?;
        Ok(())
    },
};

/// The store as it is used by default: packs are sealed while the next ones are filled.
pub(crate) const THREADS: Scenario = Scenario {
    name: "several threads",
    options: || Options { threads: 3, ..small() },
    before: nothing,
    run: |world| {
        let program = world.create()?;
        program.put(&image("a", &(1..20).collect::<Vec<_>>()))?;
        program.put(&image("b", &[2, 40, 41]))?;
        program.forget(&image("a", &(1..20).collect::<Vec<_>>()))?;
        program.gc(true)?;
        Ok(())
    },
};

/// Writers that share blocks, one that forgets, and a collector that waits for them.
pub(crate) const WRITERS: Scenario = Scenario {
    name: "writers and a collector",
    options: small,
    before: |world| {
        let program = world.create()?;
        program.put(&image("old", &[1, 2, 3, 4]))?;
        program.put(&image("kept", &[4, 5]))?;
        Ok(())
    },
    run: |world| {
        world.together(vec![
            Box::new(|world| world.open()?.put(&image("x", &[1, 2, 60])).map(drop)),
            Box::new(|world| world.open()?.put(&image("y", &[60, 3, 61])).map(drop)),
            Box::new(|world| world.open()?.forget(&image("old", &[1, 2, 3, 4]))),
            Box::new(|world| {
                let program = world.open()?;
                program.gc(true)?;
                program.gc(true).map(drop)
            }),
        ])
    },
};

/// Collectors that go on beside writers, as on an object store, and one that frees at once when it can.
pub(crate) const COLLECTORS: Scenario = Scenario {
    name: "three collectors",
    options: small,
    before: |world| {
        let program = world.create()?;
        program.put(&image("old", &[1, 2, 3, 4]))?;
        program.put(&image("kept", &[4, 5]))?;
        program.forget(&image("old", &[1, 2, 3, 4]))?;
        Ok(())
    },
    run: |world| {
        let collect = |world: &World, wait| {
            let program = world.open()?;
            for _ in 0..3 {
                program.gc(wait)?;
            }
            Ok(())
        };
        world.together(vec![
            Box::new(move |world| collect(world, false)),
            Box::new(move |world| collect(world, false)),
            Box::new(move |world| collect(world, true)),
            Box::new(|world| {
                let program = world.open()?;
                program.put(&image("x", &[1, 2, 60]))?;
                program.put(&image("y", &[3, 61])).map(drop)
            }),
            Box::new(|world| world.open()?.put(&image("z", &[2, 3, 62])).map(drop)),
        ])
    },
};

/// Ten programs make the store and put into it, all at once.
pub(crate) const TEN: Scenario = Scenario {
    name: "ten writers",
    options: small,
    before: nothing,
    run: |world| {
        let program = |at: u64| -> Work<'_> {
            Box::new(move |world: &World| {
                let program = world.create()?;
                program.put(&image(&format!("w{at}"), &[70 + at / 2, 80 + at, 90])).map(drop)
            })
        };
        world.together((0..10).map(program).collect())
    },
};

/// Those of one program.
pub(crate) const ALONE: [&Scenario; 8] = [&PUTS, &COLLECT, &MANY, &ORIGINS, &HEAL, &REBUILD, &FULL, &LARGE];
/// Those of several.
pub(crate) const TOGETHER: [&Scenario; 3] = [&WRITERS, &COLLECTORS, &TEN];
