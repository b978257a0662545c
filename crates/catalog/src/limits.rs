//! What EC2 takes, as AWS documents it. The only place with these numbers.

/// When these limits were written down. IOPS for each GiB of io2, and that gp2 takes none, are from memory.
pub const LIMITS_DATE: &str = "2026-11-21";

/// What one type of EBS volume takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeLimits {
    /// GiB, smallest and largest.
    pub size: (u64, u64),
    /// Smallest and largest IOPS, and how many for each GiB at most; none when the type takes no IOPS.
    pub iops: Option<(u64, u64, u64)>,
    /// Whether IOPS must be given.
    pub iops_required: bool,
    /// MiB/s, smallest and largest; none when the type takes no throughput.
    pub throughput: Option<(u64, u64)>,
    /// Whether a machine boots from it.
    pub boot: bool,
}

const PLAIN: VolumeLimits =
    VolumeLimits { size: (1, 16_384), iops: None, iops_required: false, throughput: None, boot: true };

pub(crate) const GP3: VolumeLimits = VolumeLimits {
    size: (1, 65_536),
    iops: Some((3_000, 80_000, 500)),
    throughput: Some((125, 2_000)),
    ..PLAIN
};
pub(crate) const GP2: VolumeLimits = PLAIN;
pub(crate) const IO1: VolumeLimits =
    VolumeLimits { size: (4, 16_384), iops: Some((100, 64_000, 50)), iops_required: true, ..PLAIN };
pub(crate) const IO2: VolumeLimits =
    VolumeLimits { size: (4, 65_536), iops: Some((100, 256_000, 1_000)), iops_required: true, ..PLAIN };
pub(crate) const ST1: VolumeLimits = VolumeLimits { size: (125, 16_384), boot: false, ..PLAIN };
pub(crate) const SC1: VolumeLimits = ST1;
pub(crate) const STANDARD: VolumeLimits = VolumeLimits { size: (1, 1_024), ..PLAIN };

/// IOPS that a volume has when its type takes them, does not require them and none are asked for (gp3). However small
/// it is, it has these.
pub const DEFAULT_IOPS: u64 = 3_000;
/// IOPS that a gp3 volume needs for each MiB/s of throughput.
pub const IOPS_PER_THROUGHPUT: u64 = 4;
/// Length of an image's name, in characters, smallest and largest.
pub const IMAGE_NAME: (usize, usize) = (3, 128);
/// Longest description, in characters.
pub const MAX_DESCRIPTION: usize = 255;
/// Tags that one resource may have.
pub const MAX_TAGS: usize = 50;
/// Longest tag key, in characters, as the API's own model says; pages elsewhere say 128.
pub const MAX_TAG_KEY: usize = 127;
/// Longest tag value, in characters.
pub const MAX_TAG_VALUE: usize = 256;
/// The highest number of an instance store volume.
pub const MAX_EPHEMERAL: u8 = 23;
