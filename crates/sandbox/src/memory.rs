use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{XattrFlags, setxattr};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{identity, sys};

static OWN_MOUNTS: OnceLock<bool> = OnceLock::new();

/// Gives this process mounts of its own, which nobody else sees, where that can be had. It must have one thread. Where a process
/// keeps the owners of files, all stays on the disk.
pub(crate) fn take_own_mounts() {
    if identity::entered() && !identity::pretended() {
        OWN_MOUNTS.get_or_init(|| sys::unshare(libc::CLONE_NEWNS).is_ok());
    }
}

/// A folder whose files lie in memory. Dropped, it is an empty folder again; and so it is to every other process, always.
#[derive(Debug)]
pub struct InMemory {
    folder: PathBuf,
}

impl InMemory {
    /// Lets the files of an existing, empty folder lie in memory, `most` bytes of them; `None` where that cannot be had:
    /// outside of [`crate::supervise`], with owners that a process keeps, or on a kernel whose memory keeps less of a file than a disk does.
    pub fn over(folder: &Path, most: u64) -> Option<Self> {
        if OWN_MOUNTS.get() != Some(&true) {
            return None;
        }
        let options = std::ffi::CString::new(format!("mode=0700,size={most}")).ok()?;
        mount("tmpfs", folder, "tmpfs", MountFlags::NODEV, Some(options.as_c_str())).ok()?;
        let memory = Self { folder: folder.to_owned() };
        memory.keeps_attributes().ok().map(|()| memory)
    }

    /// Attributes of users came with Linux 6.6, access lists are an option of the kernel's.
    fn keeps_attributes(&self) -> io::Result<()> {
        let probe = self.folder.join("probe");
        std::fs::write(&probe, "")?;
        setxattr(&probe, "user.probe", b"1", XattrFlags::empty())?;
        match rustix::fs::getxattr(&probe, "system.posix_acl_access", &mut [0_u8; 0]) {
            Ok(_) | Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
        std::fs::remove_file(&probe)
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // It can fail only when the mount is gone already.
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
    }
}
