/// Tools that are wanted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// What a bake boots and checks with: QEMU, firmware, ssh.
    Boot,
    /// The independent checkers that tests hold every image against.
    Check,
}

impl Set {
    /// Every set.
    pub const ALL: [Self; 2] = [Self::Boot, Self::Check];

    /// The set's name in the cache and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Check => "check",
        }
    }

    /// The packages that bring the programs; what they depend on comes along.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Boot => &["qemu-system-x86", "qemu-utils", "ovmf", "openssh-client", "socat"],
            Self::Check => &["e2fsprogs", "dosfstools", "gdisk", "mtools", "qemu-utils", "gpgv"],
        }
    }

    /// The programs that get a starter in the tree's `bin`.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Boot => &["qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen", "socat"],
            Self::Check => &[
                "e2fsck",
                "debugfs",
                "dumpe2fs",
                "mke2fs",
                "resize2fs",
                "fsck.fat",
                "sgdisk",
                "mcopy",
                "mdir",
                "qemu-img",
                "gpgv",
            ],
        }
    }
}
