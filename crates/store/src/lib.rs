//! The block store: whole volumes as snapshots of deduplicated 512 KiB blocks.
//!
//! *What comes in:* raw images and [`block::BlockSource`]s. *What goes out:* snapshots, and images from snapshots. *What
//! it may not know:* file systems, packages, recipes, image formats.

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
mod store;
mod sys;
#[cfg(test)]
mod tests;
mod verify;

pub use backend::{
    Backend, BackendError, BackendResult, Fault, Faults, FaultyBackend, Listed, LocalBackend, Locked,
    MemoryBackend, Object, Tag, Upload,
};
#[doc(hidden)]
pub use codec::FrameFault;
pub use error::Error;
pub use format::{Record, Snapshot, SnapshotId};
pub use gc::{GcOptions, GcPlan, GcReport, PackPlan};
pub use get::{Existing, GetOptions, GetReport, Way};
pub use put::{Progress, PutOptions, PutReport, Source};
pub use read::SnapshotDisk;
pub use rebuild::RebuildReport;
pub use store::{Options, Stat, Store};
pub use verify::{DamagedBlock, DamagedObject, Hurt, Lie, VerifyOptions, VerifyReport};
