//! The block store: whole volumes as snapshots of deduplicated 512 KiB blocks.
//!
//! *What comes in:* raw images and [`block::BlockSource`]s. *What goes out:* snapshots, and images from snapshots. *What
//! it may not know:* file systems, packages, recipes, image formats.

mod backend;
pub mod fs;
mod sys;

pub use backend::{
    Backend, BackendError, BackendResult, Listed, LocalBackend, Locked, MemoryBackend, Object, Tag, Upload,
};
