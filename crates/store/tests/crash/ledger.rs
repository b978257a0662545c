//! What the store has promised.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use block::{BLOCK_SIZE, BlockMap, BlockMapBuilder, Content, Digest, Origin, block_id, snapshot_digest};
use store::{SnapshotId, derived_id};

use crate::rng::Rng;

/// A disk image: for each of its blocks the seed of its bytes, 0 for a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) blocks: Vec<u64>,
}

type Known = HashMap<u64, (Digest, Arc<Vec<u8>>)>;

/// Blocks that were made already.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Default::default);

/// The id of a block and its bytes without the zeros that follow.
pub(crate) fn block(seed: u64) -> (Digest, Arc<Vec<u8>>) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let made = known.entry(seed).or_insert_with(|| {
        let mut rng = Rng::new(seed);
        let len = 700 + rng.below(4000);
        let mut block = rng.bytes(len);
        let bytes = Arc::new(block.clone());
        block.resize(BLOCK_SIZE as usize, 0);
        (block_id(&block).expect("noise is not zero"), bytes)
    });
    made.clone()
}

impl Image {
    pub(crate) fn new(name: &str, blocks: &[u64]) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), blocks: blocks.to_vec() })
    }

    pub(crate) fn size(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_SIZE
    }

    /// Index and seed of each block that is no hole.
    pub(crate) fn data(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..).zip(&self.blocks).filter(|(_, seed)| **seed != 0).map(|(at, seed)| (at, *seed))
    }

    pub(crate) fn map(&self) -> BlockMap {
        let mut builder = BlockMapBuilder::new();
        for (at, seed) in self.data() {
            let content = Content::from_bytes(block(seed).1.to_vec());
            builder.push_all(at * BLOCK_SIZE, content, Origin::Structure("test"));
        }
        builder.finish(self.size()).expect("blocks do not overlap")
    }

    pub(crate) fn id(&self) -> SnapshotId {
        let blocks = self.data().map(|(at, seed)| (at, block(seed).0));
        derived_id(&self.name, snapshot_digest(self.size(), blocks))
    }
}

/// What holds of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// It is on its way in or out: there and whole, or not there.
    Either,
    /// It was committed: it is there and whole.
    There,
    /// It was forgotten: it is not there.
    Gone,
    /// The disk under it rotted: it is there, and a block of it may be said to be damaged, but never reads as something else.
    Hurt,
}

/// All promises at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    version: u64,
    /// Whether making the store returned.
    pub(crate) created: bool,
    /// Whether root or index were destroyed, so that they must be rebuilt.
    pub(crate) broken: bool,
    pub(crate) snapshots: Arc<BTreeMap<SnapshotId, (Arc<Image>, Promise)>>,
}

impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

/// The ledger while programs run.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    pub(crate) fn of(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    pub(crate) fn look(&self) -> Ledger {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Ledger)) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.version += 1;
        change(&mut ledger);
    }

    pub(crate) fn promise(&self, image: &Arc<Image>, promise: Promise) {
        self.change(|ledger| ledger.promise(image, promise));
    }

    /// A put of the image begins: it breaks no promise that stands.
    pub(crate) fn begins(&self, image: &Arc<Image>) {
        let before = self.look().snapshots.get(&image.id()).map(|(_, promise)| *promise);
        if !matches!(before, Some(Promise::There | Promise::Hurt)) {
            self.promise(image, Promise::Either);
        }
    }
}

impl Ledger {
    /// Differs when anything was promised between.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn promise(&mut self, image: &Arc<Image>, promise: Promise) {
        Arc::make_mut(&mut self.snapshots).insert(image.id(), (image.clone(), promise));
    }

    /// The store was rebuilt: what was forgotten and not collected may be back.
    pub(crate) fn rebuilt(&mut self) {
        self.broken = false;
        for image in self.images(Promise::Gone) {
            self.promise(&image, Promise::Either);
        }
    }

    /// Images of which this holds.
    pub(crate) fn images(&self, wanted: Promise) -> Vec<Arc<Image>> {
        let all = self.snapshots.values().filter(|(_, promise)| *promise == wanted);
        all.map(|(image, _)| image.clone()).collect()
    }
}
