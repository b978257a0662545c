//! The block store: whole volumes as snapshots of deduplicated 512 KiB blocks.
//!
//! *What comes in:* raw images and [`block::BlockSource`]s; blocks of a [`block::BlockMap`] whose contents were seen before are
//! neither read nor hashed. *What goes out:* snapshots, raw images made from them, and snapshots as disks to read from
//! ([`SnapshotDisk`]). *What it may not know:* file systems, packages, recipes, image formats but raw.
//!
//! [`Store::put`], [`Store::get`], [`Store::disk`], [`Store::list`], [`Store::forget`], [`Store::plan_gc`] with [`Store::execute_gc`],
//! [`Store::verify`], [`Store::rebuild`] and [`Store::stat`] are all there is to it. A store lies on a [`Backend`]: a folder
//! ([`LocalBackend`], over the one trait [`fs::FileSystem`]), memory ([`MemoryBackend`]), or what else passes
//! [`conformance::check`].
//!
//! # Objects
//!
//! A volume is cut into blocks of 524,288 bytes, the last one padded with zeros. A block's id is its SHA-256; blocks of zeros have none
//! and are nowhere. All numbers are little-endian. A name is `gggggggg-` and 64 hexadecimal digits: the generation in which its writer
//! began and a SHA-256. Names are the keys of immutable objects, so no name ever stands for two contents, and none comes back
//! after its object was deleted: who writes the same bytes later does so in a later generation.
//!
//! | key | what | layout |
//! | --- | --- | --- |
//! | `format` | `bakehouse store 1` and a line feed: a store of version 1 | text |
//! | `root` | names all that belongs to the store; the only object that changes | [`format::Root`] |
//! | `packs/<name>` | blocks, about 64 MiB together, and their own index at the end | [`format::Pack`] |
//! | `index/<name>` | a sorted table: block → pack, offset, length | [`format::Table`] |
//! | `snapshots/<name>` | name, id, size, parent, time, digest, and the sorted map index → block | [`format::Snapshot`] |
//! | `catalog/<name>` | a page of the list of snapshots; the root itself holds the latest | [`format::Catalog`] |
//! | `origins/<name>` | a sorted table: origin of a block → block | [`format::Table`] |
//! | `claims/<name>` | contents whose digest was claimed by who brought them, and where they lie | [`format::Claims`] |
//!
//! The digest in a pack's name is that of its header and index, in every other name that of the object's bytes. A frame needs no
//! checksum of its own: its block's id is one. An unknown version of `format`, the root or any other object is an error that
//! names it ([`Error::Newer`], [`format::FormatError::Newer`]). A format never changes; a new one gets a new number.
//!
//! Tables come in layers, newest last in the root. A commit adds one with what is new and merges it with those before it that are
//! not much larger: n entries lie in about log n tables, and an entry is written about log n times. A table of more than 4 MiB
//! is looked up where it lies, with a read or two of what is needed; opening a store reads the root alone.
//!
//! # What a put does
//!
//! Holes are found by `SEEK_DATA` and never read. Threads take four blocks at a time, read them, test them for zeros, hash them side by side
//! and look them up; what is new they compress (zstd, or raw when that gains under 3 %), decompress and compare. Results are taken in the
//! order of the disk by whoever has the next one, so packs are the same for any number of threads. A thread waits when it is too far
//! ahead of the slowest: memory is bounded by the number of threads.
//!
//! A block of a [`block::BlockMap`] has an origin: where in it which part of which content lies. Its key is looked up in the table of origins, and
//! a known one gives the block's id with no byte read. What made an origin known was bytes that were read and hashed by block; the
//! claim that they are those contents is kept in `claims`, and [`Store::verify`] hashes the contents from the blocks and compares. An
//! origin of which any content does not lie whole on the disk, so that it could not be proved, is not kept.
//!
//! # Why nothing that was committed is lost
//!
//! 1. Packs, tables and the snapshot are made durable, each with its name, before the root that names them; the root is swapped in one step
//!    and made durable; only then a put says that it is done. Objects of one commit become durable in any order among each other:
//!    nothing reads them before the root does. Whatever is interrupted leaves the last root, which names whole objects.
//! 2. The root is changed by compare-and-swap: of two who change it, the slower looks at the other's root and begins its change again. A swap
//!    whose answer is an error may have come about: its author looks for its effect and swaps once more, so that what it reports is durable.
//! 3. What the root does not name may be deleted, and nothing else. But a writer counts on blocks that the root named when it began, and
//!    on objects that it wrote and the root does not name yet. Hence generations: every collection that changes anything moves
//!    the store from generation g to g + 1, or to g + 2 when it has the store to itself (6). A writer remembers the generation in which it began, and its commit fails once the store is two
//!    further ([`Error::Overtaken`]; `put` then begins again).
//! 4. A collection marks all blocks of all snapshots. Packs without a marked block are *condemned*: the new root lists them, and who begins from
//!    then on treats their blocks as absent. They are deleted by a later collection if they are still unmarked then: it moves
//!    the store on, so that writers from before the list, the only ones that could count on these blocks, can commit no more. A condemned pack that such a
//!    writer used in time is marked and comes off the list. The compare-and-swap makes sure that no snapshot was missed by the mark.
//! 5. Objects that the index never knew, of writers under way or interrupted, carry their writer's generation in their names: two generations
//!    later nobody can commit them.
//! 6. On a folder a collection holds the store's lock alone (`flock`; writers share it from before they read the root until after their commit). Then there are
//!    no writers, and what is not marked is deleted at once, after the root that no longer names it is durable. It moves the store on by
//!    two generations all the same: should there be a writer whom the lock does not keep out (some network file systems), that one
//!    cannot commit. When others do hold
//!    the lock and it is not to wait, it goes by 4 and 5.
//! 7. A collection refuses to run when any snapshot or table cannot be read or any block has no place. Of a block at several places one that was just
//!    read whole is kept, and the index forgets the others. A block that cannot be copied because it is damaged keeps its pack.
//! 8. Where a collection that has the store to itself finds no room it goes in steps, each a whole collection by these rules: a root two generations on,
//!    after which it deletes what no root names; then packs without a marked block; then, with the room of all these, packs that must be copied.
//!
//! No clock is read, and no lock file's age is guessed. Readers take no lock: what they have open stays, and what they miss they look up in a
//! fresh root.
//!
//! # What a power cut leaves of a folder
//!
//! A file's bytes are durable when it is synced, its name when its folder is synced, and neither makes the other so. Where the power may go
//! in a put, and what is then on the disk ("perhaps": there, gone or torn, each for itself):
//!
//! | after | of the last root | the new snapshot | left over for a collection |
//! | --- | --- | --- | --- |
//! | frames appended to `tmp/` | whole | not there | perhaps the file |
//! | the pack synced | whole | not there | perhaps the name in `tmp/` |
//! | the pack renamed to `packs/` | whole | not there | perhaps either name |
//! | `packs/` synced | whole | not there | the pack |
//! | tables and snapshot written, synced, renamed | whole | not there | perhaps their names |
//! | their folders synced | whole | not there | all objects of the commit |
//! | the new root written and synced in `tmp/` | whole | not there | all objects of the commit |
//! | the root renamed | whole, or replaced | not there, or whole | the objects of the root that is not there |
//! | the store's folder synced: `put` returns | replaced | there, whole | what the new root no longer names |
//!
//! A forget and the noting of damage are the last two rows. A collection is all of them, with copies of blocks for new ones; then it deletes, which is
//! never synced: what comes back is left over for the next collection. A new store makes its folder and those above it that are missing, syncs
//! the one above each, makes its own folders and syncs itself, then makes `root` and then `format`: what has a `format` is whole.
//!
//! `tests/crash` does all of this on a simulated machine that stops at every operation, with errors at every operation, and on a
//! simulated object store, and shows that it would notice if any sync, lock, order or the reading back of frames were left out.
//! A list that is old does no harm but one: a root that is lost ([`Store::rebuild`]) can only be made from what a list shows.
//!
//! # What is done about damage
//!
//! Every block is checked when it is read, every table entry and object by a checksum; [`Store::verify`] checks all of it or the n-th of m
//! parts, names each damaged block and the snapshots that it hurts, and puts it into quarantine: its bytes stay, but a put that has the block
//! stores it again, which heals every snapshot with it. Tables, lists and the root can be made anew from packs and snapshots ([`Store::rebuild`]).

mod alone;
mod backend;
mod codec;
mod commit;
pub mod conformance;
mod error;
pub mod format;
pub mod fs;
mod gc;
mod get;
mod mark;
mod origin;
mod put;
mod read;
mod rebuild;
mod simulate;
mod store;
mod sys;
#[cfg(test)]
mod tests;
mod verify;

pub use alone::Alone;
pub use backend::{
    Backend, BackendError, BackendResult, Fault, Faults, FaultyBackend, Listed, LocalBackend, Locked,
    MemoryBackend, Object, Tag, Upload,
};
#[doc(hidden)]
pub use codec::FrameFault;
pub use error::Error;
pub use format::{Record, Snapshot, SnapshotId, derived_id};
pub use gc::{GcOptions, GcPlan, GcReport, PackPlan};
pub use get::{Existing, GetOptions, GetReport, Way};
pub use put::{ChosenId, Progress, PutOptions, PutReport, Source, check_name};
pub use read::SnapshotDisk;
pub use rebuild::{RebuildReport, Repaired};
pub use store::{Options, Stat, Store};
pub use verify::{DamagedBlock, DamagedObject, Hurt, Lie, VerifyOptions, VerifyReport};
