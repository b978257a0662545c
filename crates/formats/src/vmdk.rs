//! VMDK in its streamOptimized form: one file, compressed grain by grain, that can be read from front to back. It is what
//! `aws ec2 import-snapshot` and ESXi take.
//!
//! ```text
//! sector 0        header          "KDMV", version 3, grain directory "at end"
//! sector 1        descriptor      20 sectors of text
//! sector 128      grain           marker (place on the disk, length) and zlib stream, padded to whole sectors
//!                 grain …
//!                 grain table     marker, then 512 places of grains: the table of the grains before it
//!                 grain, grain, …, grain table, …
//!                 grain directory marker, then the places of the tables
//!                 footer          marker, then the header again, with the place of the grain directory
//!                 end of stream   a sector of zeros
//! ```
//!
//! All numbers are little-endian, all places are in sectors of 512 bytes. A grain is 64 KiB of the disk, a grain table
//! covers 32 MiB of it. Grains without data have no place (0), neither have tables without grains. The last grain is
//! stored whole, filled up with zeros, when the disk ends within it.
//!
//! The bytes of a file follow from the disk's bytes and from [`DEFLATE`] alone: not from threads, caches, names or CPUs.
//! The file's content id is a hash of its grains.

mod cache;
mod format;
mod grains;
mod read;
mod write;

pub use cache::FileGrainCache;
pub use grains::GrainCache;
pub use read::VmdkFile;
pub use write::{Earlier, VmdkOptions, VmdkStats, write_raw_and_vmdk, write_vmdk};

/// What decides the bytes of a compressed grain: the compressor's library, its version and its level.
///
/// The library's output is the same on every CPU: what it does differently with vector instructions (clearing and
/// sliding its tables, checksums) has one result, and its parsing has no floating point.
pub const DEFLATE: (&str, &str, u32) = ("libdeflate", "1.26.1", 2);

/// Why a file cannot be read as a VMDK. Places are byte offsets in the file.
#[derive(Debug, thiserror::Error)]
pub enum VmdkError {
    /// The file begins with something else.
    #[error("this is no VMDK: it begins with bytes {found}, a VMDK with 4b444d56 (\"KDMV\")")]
    NotVmdk {
        /// The first four bytes in hexadecimal digits.
        found: String,
    },
    /// The file ends too early.
    #[error(
        "the file is cut short: {what} reaches to byte {end}, the file ends at byte {len}; fetch it again"
    )]
    Truncated {
        /// What does not fit.
        what: &'static str,
        /// Where it would end.
        end: u64,
        /// Where the file ends.
        len: u64,
    },
    /// A VMDK, but not one of the kinds that are read here.
    #[error("its {what} is {found}, {wanted} is what can be read here; convert it with `qemu-img convert`")]
    Unsupported {
        /// What is unknown.
        what: &'static str,
        /// What the file has.
        found: String,
        /// What would do.
        wanted: &'static str,
    },
    /// The file contradicts itself.
    #[error("the file is damaged: {what} at byte {at} {why}; fetch it again")]
    Damaged {
        /// Which structure.
        what: &'static str,
        /// Where it is.
        at: u64,
        /// What is wrong with it, as the end of a sentence.
        why: String,
    },
}

#[cfg(test)]
mod tests;
