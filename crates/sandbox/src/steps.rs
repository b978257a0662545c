use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Gid, MemfdFlags, Mode, OFlags, Uid};
use rustix::io;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_change, move_mount,
    open_tree, unmount,
};
use rustix::net::{AddressFamily, SocketType};

use crate::sys;

fn errno(error: std::io::Error) -> io::Errno {
    io::Errno::from_io_error(&error).unwrap_or(io::Errno::IO)
}

/// One thing done in the new namespaces before the program starts. All is decided, and all memory allocated, before
/// the fork; [`Step::take`] makes system calls only.
#[derive(Debug)]
pub(crate) enum Step {
    /// Cuts this mount namespace off from the host's: nothing mounted from now on is seen outside.
    PrivateMounts,
    /// Makes a detached copy of a file or of a folder with all mounts below it.
    Hold {
        slot: usize,
        source: CString,
        /// MOUNT_ATTR_* to set on the copy.
        attributes: u64,
    },
    /// Mounts a held copy.
    Put {
        slot: usize,
        target: CString,
        /// Onto a link itself, not onto what it names. Kernels that cannot are forgiven.
        on_link: bool,
    },
    /// Makes a mounted folder the root; the old one stays reachable for mounts until [`Step::LeaveOldRoot`].
    PivotInto(CString),
    /// Takes the old root away for good.
    LeaveOldRoot,
    /// Names the machine.
    HostName(CString),
    /// Brings the loopback interface up.
    Loopback,
    /// Mounts a new file system.
    Mount { kind: &'static CStr, target: CString, flags: MountFlags, data: &'static CStr },
    /// Takes a mount away, with all below it.
    Unmount(CString),
    /// Makes a folder, unless there is something of that name.
    Folder { path: CString, mode: u32, owner: Option<(u32, u32)> },
    /// Makes a file, unless there is something of that name.
    File { path: CString, mode: u32, bytes: Vec<u8> },
    /// Makes a symbolic link.
    Link { path: CString, target: CString },
    /// Lets the kernel start foreign programs, for as long as the slot is held.
    ForeignPrograms {
        slot: usize,
        handler: &'static [u8],
        /// The line for binfmt_misc's `register`.
        registration: Vec<u8>,
    },
}

/// The descriptor under which the kernel opens the handler while it is registered. Free: see [`sys::keep_only`].
pub(crate) const HANDLER_DESCRIPTOR: i32 = 100;

impl Step {
    /// Does it. Must not allocate: it runs in a forked process.
    pub(crate) fn take(&self, held: &mut [Option<OwnedFd>]) -> io::Result<()> {
        match self {
            Step::PrivateMounts => {
                mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            }
            Step::Hold { slot, source, attributes } => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_RECURSIVE;
                let copy = open_tree(CWD, source.as_c_str(), flags)?;
                if *attributes != 0 {
                    sys::mount_setattr(&copy, *attributes).map_err(errno)?;
                }
                let place = held.get_mut(*slot).ok_or(io::Errno::BADF)?;
                *place = Some(copy);
                Ok(())
            }
            Step::Put { slot, target, on_link } => {
                let copy = held.get(*slot).and_then(Option::as_ref).ok_or(io::Errno::BADF)?;
                let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                if !on_link {
                    flags |= MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                }
                match move_mount(copy, c"", CWD, target.as_c_str(), flags) {
                    Err(_) if *on_link => Ok(()),
                    result => result,
                }
            }
            Step::PivotInto(root) => {
                rustix::process::chdir(root.as_c_str())?;
                rustix::process::pivot_root(c".", c".")
            }
            Step::LeaveOldRoot => {
                unmount(c".", UnmountFlags::DETACH)?;
                rustix::process::chdir(c"/")
            }
            Step::HostName(name) => {
                rustix::system::sethostname(name.to_bytes())?;
                rustix::system::setdomainname(b"(none)")
            }
            Step::Loopback => {
                let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
                sys::loopback_up(socket).map_err(errno)
            }
            Step::Mount { kind, target, flags, data } => {
                mount(*kind, target.as_c_str(), *kind, *flags, Some(*data))
            }
            Step::Unmount(target) => unmount(target.as_c_str(), UnmountFlags::DETACH),
            Step::Folder { path, mode, owner } => {
                match rustix::fs::mkdirat(CWD, path.as_c_str(), Mode::from_raw_mode(*mode)) {
                    Err(io::Errno::EXIST) => return Ok(()),
                    result => result?,
                }
                if let Some((uid, gid)) = owner {
                    let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                    rustix::fs::chownat(CWD, path.as_c_str(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                    // Neither mkdir nor chown leaves set-group-id alone.
                    rustix::fs::chmodat(CWD, path.as_c_str(), Mode::from_raw_mode(*mode), AtFlags::empty())?;
                }
                Ok(())
            }
            Step::File { path, mode, bytes } => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = match rustix::fs::openat(CWD, path.as_c_str(), flags, Mode::from_raw_mode(*mode)) {
                    Err(io::Errno::EXIST) => return Ok(()),
                    result => result?,
                };
                write_all(&file, bytes)
            }
            Step::Link { path, target } => rustix::fs::symlinkat(target.as_c_str(), CWD, path.as_c_str()),
            Step::ForeignPrograms { slot, handler, registration } => {
                let place = held.get_mut(*slot).ok_or(io::Errno::BADF)?;
                *place = Some(register_foreign(handler, registration)?);
                Ok(())
            }
        }
    }
}

/// Registers a handler in the user namespace's own binfmt_misc, which exists as long as the mount that is returned or
/// that of another sandbox. Nobody can see it: it is mounted nowhere.
fn register_foreign(handler: &[u8], registration: &[u8]) -> io::Result<OwnedFd> {
    let context = fsopen(c"binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let memory = rustix::fs::memfd_create(c"handler", MemfdFlags::CLOEXEC)?;
    write_all(&memory, handler)?;
    // What is open for writing cannot be executed.
    let path = sys::descriptor_path(&memory);
    let readable = rustix::fs::openat(CWD, path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    drop(memory);
    let readable = sys::at_number(readable, HANDLER_DESCRIPTOR).map_err(errno)?;
    let register = rustix::fs::openat(&mount, c"register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    // In one piece. Another sandbox of this process may have registered the same handler.
    match rustix::io::retry_on_intr(|| rustix::io::write(&register, registration)) {
        Ok(_) | Err(io::Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    drop(readable);
    Ok(mount)
}

fn write_all(file: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::PrivateMounts => write!(f, "part its mounts from the host's"),
            Step::Hold { source, .. } => write!(f, "take hold of {}", source.to_string_lossy()),
            Step::Put { target, .. } => write!(f, "lay something over {}", target.to_string_lossy()),
            Step::PivotInto(root) => write!(f, "make {} its root", root.to_string_lossy()),
            Step::LeaveOldRoot => write!(f, "leave the host's root"),
            Step::HostName(name) => write!(f, "name itself {}", name.to_string_lossy()),
            Step::Loopback => write!(f, "bring its loopback interface up"),
            Step::Mount { kind, target, .. } => {
                write!(f, "mount {} on {}", kind.to_string_lossy(), target.to_string_lossy())
            }
            Step::Unmount(target) => write!(f, "unmount {}", target.to_string_lossy()),
            Step::Folder { path, .. } => write!(f, "make the folder {}", path.to_string_lossy()),
            Step::File { path, .. } => write!(f, "write {}", path.to_string_lossy()),
            Step::Link { path, .. } => write!(f, "make the link {}", path.to_string_lossy()),
            Step::ForeignPrograms { .. } => {
                write!(f, "let programs of another architecture run by a private binfmt_misc")
            }
        }
    }
}
