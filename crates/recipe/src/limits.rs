//! What EC2 takes, as AWS documents it. Kept apart and dated, for these numbers move.

/// When these limits were written down. IOPS for each GiB of io2, and that gp2 takes none, are from memory.
pub const LIMITS_DATE: &str = "2026-11-21";

/// What one type of EBS volume takes.
pub(crate) struct VolumeLimits {
    pub(crate) name: &'static str,
    /// GiB, smallest and largest.
    pub(crate) size: (u64, u64),
    /// Smallest and largest, and how many for each GiB at most; none when the type takes no IOPS.
    pub(crate) iops: Option<(u64, u64, u64)>,
    pub(crate) iops_required: bool,
    /// MiB/s, smallest and largest; none when the type takes no throughput.
    pub(crate) throughput: Option<(u64, u64)>,
    pub(crate) boot: bool,
}

/// IOPS that a gp3 volume has when none are asked for.
pub(crate) const GP3_IOPS: u64 = 3_000;
/// IOPS that a gp3 volume needs for each MiB/s of throughput.
pub(crate) const IOPS_PER_THROUGHPUT: u64 = 4;

/// In the order of [`crate::VolumeType`].
pub(crate) const VOLUMES: [VolumeLimits; 7] = [
    VolumeLimits {
        name: "gp3",
        size: (1, 65_536),
        iops: Some((3_000, 80_000, 500)),
        iops_required: false,
        throughput: Some((125, 2_000)),
        boot: true,
    },
    VolumeLimits {
        name: "gp2",
        size: (1, 16_384),
        iops: None,
        iops_required: false,
        throughput: None,
        boot: true,
    },
    VolumeLimits {
        name: "io1",
        size: (4, 16_384),
        iops: Some((100, 64_000, 50)),
        iops_required: true,
        throughput: None,
        boot: true,
    },
    VolumeLimits {
        name: "io2",
        size: (4, 65_536),
        iops: Some((100, 256_000, 1_000)),
        iops_required: true,
        throughput: None,
        boot: true,
    },
    VolumeLimits {
        name: "st1",
        size: (125, 16_384),
        iops: None,
        iops_required: false,
        throughput: None,
        boot: false,
    },
    VolumeLimits {
        name: "sc1",
        size: (125, 16_384),
        iops: None,
        iops_required: false,
        throughput: None,
        boot: false,
    },
    VolumeLimits {
        name: "standard",
        size: (1, 1_024),
        iops: None,
        iops_required: false,
        throughput: None,
        boot: true,
    },
];

/// Length of an image's name, in characters.
pub(crate) const IMAGE_NAME: (usize, usize) = (3, 128);
/// Tags that one resource may have.
pub(crate) const TAGS: usize = 50;
/// Longest tag key and tag value, in characters.
pub(crate) const TAG: (usize, usize) = (128, 256);
/// The highest number of an instance store volume.
pub(crate) const EPHEMERAL: u64 = 23;
