/// Tools that are wanted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// What x86_64 images are booted and checked with: QEMU, firmware, ssh.
    Boot,
    /// The same for aarch64 images.
    BootAarch64,
    /// The independent checkers that tests hold every image against.
    Check,
    /// Others who make images, for comparisons. Its root has all that a shell needs, and programs run in there, not
    /// by starters.
    Peer,
    /// The emulators of foreign programs: one static file each.
    Emulate,
    /// Others who deduplicate images, for comparisons.
    Stores,
    /// One more of them, which no stable suite has.
    Desync,
}

impl Set {
    /// What bakes and most tests need.
    pub const USUAL: [Self; 2] = [Self::Boot, Self::Check];

    /// The set's name in the cache and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::BootAarch64 => "boot-aarch64",
            Self::Check => "check",
            Self::Peer => "peer",
            Self::Emulate => "emulate",
            Self::Stores => "stores",
            Self::Desync => "desync",
        }
    }

    /// The suite that its packages come from.
    pub fn suite(self) -> &'static str {
        match self {
            Self::Desync => "sid",
            _ => "trixie",
        }
    }

    /// The packages that bring the programs; what they depend on comes along.
    pub(crate) fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Boot => &["qemu-system-x86", "qemu-utils", "ovmf", "openssh-client", "socat"],
            Self::BootAarch64 => {
                &["qemu-system-arm", "qemu-utils", "qemu-efi-aarch64", "openssh-client", "socat"]
            }
            Self::Check => {
                &["e2fsprogs", "dosfstools", "gdisk", "mtools", "qemu-utils", "gpgv", "python3-botocore"]
            }
            Self::Peer => &[
                "mmdebstrap",
                "apt",
                "dosfstools",
                "e2fsprogs",
                "gdisk",
                "mount",
                "mtools",
                // What every Debian system has, and no package names among what it depends on.
                "base-files",
                "base-passwd",
                "bash",
                "coreutils",
                "dash",
                "debianutils",
                "diffutils",
                "dpkg",
                "findutils",
                "grep",
                "gzip",
                "hostname",
                "libc-bin",
                "sed",
                "tar",
                "util-linux",
                "xz-utils",
                "zstd",
            ],
            Self::Emulate => &["qemu-user"],
            Self::Stores => &["borgbackup", "casync", "restic", "zstd"],
            Self::Desync => &["desync"],
        }
    }

    /// The only files that are unpacked; empty: all of them.
    pub(crate) fn only(self) -> &'static [&'static str] {
        match self {
            Self::Boot | Self::BootAarch64 | Self::Check | Self::Peer | Self::Stores | Self::Desync => &[],
            // Of half a gigabyte, for every machine that there ever was.
            Self::Emulate => &["usr/bin/qemu-aarch64", "usr/bin/qemu-x86_64"],
        }
    }

    /// The programs that get a starter in the tree's `bin`.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Boot => &["qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen", "socat"],
            Self::BootAarch64 => &["qemu-system-aarch64", "qemu-img", "ssh", "ssh-keygen", "socat"],
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
                "python3",
            ],
            Self::Stores => &["casync", "python3", "restic", "zstd"],
            Self::Desync => &["desync"],
            Self::Peer | Self::Emulate => &[],
        }
    }

    /// Folders that the tree has besides those of its packages: where things are mounted. A mount point that one
    /// sandbox makes and takes away would pull the mount from under another one in the same tree.
    pub(crate) fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Boot | Self::BootAarch64 | Self::Check | Self::Emulate | Self::Stores | Self::Desync => &[],
            Self::Peer => &["dev", "mnt", "proc", "run", "srv", "sys", "tmp"],
        }
    }

    /// Files that the tree has besides those of its packages: path and text.
    pub(crate) fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Boot | Self::BootAarch64 | Self::Check | Self::Emulate | Self::Stores | Self::Desync => &[],
            // base-passwd makes these when it is configured, which nobody does here.
            Self::Peer => &[
                ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/bin/false\n"),
                ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ],
        }
    }
}
