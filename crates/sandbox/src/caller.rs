//! A thread whose call is held, and the world as it sees it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx};
use rustix::io::Errno;

use crate::sys;
use crate::table::Place;

/// The longest path that the kernel takes, with its end.
const PATH_MAX: usize = 4096;

/// The timer slack of a thread that is root, in nanoseconds: the kernel's own. That of others is more, by their number.
pub(crate) const ROOTS_SLACK: u64 = 50_000;

/// A thread by its id. Nothing said of it holds unless its call is still held afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) thread: u32,
}

/// A file as a call names it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// An open folder's number, or AT_FDCWD.
    pub(crate) folder: i32,
    /// Empty for what the number itself stands for.
    pub(crate) path: Vec<u8>,
    /// Whether a link at its end is followed.
    pub(crate) follow: bool,
}

impl Caller {
    /// A path in its memory.
    pub(crate) fn path(self, address: u64) -> Result<Vec<u8>, Errno> {
        let mut path = vec![0; 256];
        let mut filled = 0;
        loop {
            let place = path.get_mut(filled..).unwrap_or_default();
            let read = sys::read_memory(self.thread, address.wrapping_add(filled as u64), place)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::FAULT))?;
            let end = place.get(..read).unwrap_or_default().iter().position(|byte| *byte == 0);
            if let Some(end) = end {
                path.truncate(filled + end);
                return Ok(path);
            }
            filled += read;
            if read == 0 {
                return Err(Errno::FAULT);
            }
            if filled >= PATH_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            path.resize(PATH_MAX, 0);
        }
    }

    /// Bytes of its memory.
    pub(crate) fn read(self, address: u64, bytes: &mut [u8]) -> Result<(), Errno> {
        let mut filled = 0;
        while filled < bytes.len() {
            let place = bytes.get_mut(filled..).unwrap_or_default();
            match sys::read_memory(self.thread, address.wrapping_add(filled as u64), place) {
                Ok(read) if read > 0 => filled += read,
                _ => return Err(Errno::FAULT),
            }
        }
        Ok(())
    }

    fn proc(self, what: &str) -> String {
        format!("/proc/{}/{what}", self.thread)
    }

    fn base(self, folder: i32) -> String {
        if folder == libc::AT_FDCWD { self.proc("cwd") } else { self.proc(&format!("fd/{folder}")) }
    }

    /// Opens the file, as a name only, in the caller's own view: its root, its folder, its mounts.
    pub(crate) fn open(self, named: &Named) -> Result<OwnedFd, Errno> {
        let Named { folder, path, follow } = named;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let flags = if *follow { flags } else { flags | OFlags::NOFOLLOW };
        if path.is_empty() {
            return open_name(&self.base(*folder));
        }
        if *follow && let Some(number) = descriptor_named(path) {
            return open_name(&self.proc(&format!("fd/{number}")));
        }
        if path.starts_with(b"/") {
            return open_below(&open_name(&self.proc("root"))?, path, flags, ResolveFlags::IN_ROOT);
        }
        let base = self.base(*folder);
        match open_below(&open_name(&base)?, path, flags, ResolveFlags::BENEATH) {
            // The way leads through `..` or a link with a whole path, for which the root counts.
            Err(Errno::XDEV) => {
                let read = |link: &str| rustix::fs::readlinkat(CWD, link, Vec::new());
                let (root, base) = (read(&self.proc("root"))?.into_bytes(), read(&base)?.into_bytes());
                let inside = Path::new(std::ffi::OsStr::from_bytes(&base))
                    .strip_prefix(std::ffi::OsStr::from_bytes(&root))
                    .map_err(|_| Errno::XDEV)?;
                let whole = [b"/", inside.as_os_str().as_bytes(), b"/", path].concat();
                open_below(&open_name(&self.proc("root"))?, &whole, flags, ResolveFlags::IN_ROOT)
            }
            result => result,
        }
    }

    /// Where the file is; with fewer calls than opening it, where that can be.
    pub(crate) fn place(self, named: &Named) -> Result<Place, Errno> {
        let Named { folder, path, follow } = named;
        let look = |path: &str, flags| stat(CWD, path.as_bytes(), flags).map(|stat| Place::of(&stat));
        if path.is_empty() {
            return look(&self.base(*folder), AtFlags::empty());
        }
        if !*follow && !path.contains(&b'/') && path != b".." {
            let whole = [self.base(*folder).as_bytes(), b"/", path].concat();
            return stat(CWD, &whole, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Place::of(&stat));
        }
        let file = self.open(named)?;
        stat(&file, b"", AtFlags::EMPTY_PATH).map(|stat| Place::of(&stat))
    }

    /// The bits that it takes off the mode of what it makes.
    pub(crate) fn umask(self) -> Result<u32, Errno> {
        let text = read_text(&self.proc("status"))?;
        let mask = text.lines().find_map(|line| line.strip_prefix("Umask:"));
        mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).ok_or(Errno::INVAL)
    }

    /// Its inheritable, permitted and effective capabilities, as the kernel has them.
    pub(crate) fn capabilities(self) -> Result<[u64; 3], Errno> {
        let text = read_text(&self.proc("status"))?;
        let set = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| u64::from_str_radix(value.trim(), 16).ok()).ok_or(Errno::INVAL)
        };
        Ok([set("CapInh:")?, set("CapPrm:")?, set("CapEff:")?])
    }

    /// Its id as it knows it, in its own pid namespace.
    pub(crate) fn own_id(self) -> Result<u32, Errno> {
        let text = read_text(&self.proc("status"))?;
        let ids = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
        ids.and_then(|ids| ids.split_whitespace().last()?.parse().ok()).ok_or(Errno::INVAL)
    }

    /// The number that [`Caller::mark`] gave this thread or the one that started it; 0 without.
    pub(crate) fn number(self) -> Result<u32, Errno> {
        let slack = read_text(&self.proc("timerslack_ns"))?.trim().parse::<u64>();
        let number = slack.ok().and_then(|slack| slack.checked_sub(ROOTS_SLACK));
        Ok(number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0))
    }

    /// Numbers a thread, and those that it starts from now on.
    pub(crate) fn mark(self, number: u32) -> Result<(), Errno> {
        let mut file =
            std::fs::File::options().write(true).open(self.proc("timerslack_ns")).map_err(errno)?;
        file.write_all((ROOTS_SLACK + u64::from(number)).to_string().as_bytes()).map_err(errno)
    }

    /// Which name space it is in.
    pub(crate) fn name_space(self) -> Result<Place, Errno> {
        stat(CWD, self.proc("ns/uts").as_bytes(), AtFlags::empty()).map(|stat| Place::of(&stat))
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn read_text(path: &str) -> Result<String, Errno> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path).map_err(errno)?;
    file.read_to_string(&mut text).map_err(errno)?;
    Ok(text)
}

fn open_name(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn open_below(folder: &OwnedFd, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    crate::open_below(folder, path, flags, Mode::empty(), resolve)
}

pub(crate) fn stat(folder: impl std::os::fd::AsFd, path: &[u8], flags: AtFlags) -> Result<Statx, Errno> {
    rustix::fs::statx(folder, path, flags | AtFlags::NO_AUTOMOUNT, Place::MASK)
}

/// The number of the open file that a path such as `/dev/stdout` or `/proc/self/fd/7` stands for.
fn descriptor_named(path: &[u8]) -> Option<u32> {
    let number = match path {
        b"/dev/stdin" => b"0",
        b"/dev/stdout" => b"1",
        b"/dev/stderr" => b"2",
        _ => ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"]
            .iter()
            .find_map(|folder| path.strip_prefix(folder.as_bytes()))?,
    };
    std::str::from_utf8(number).ok()?.parse().ok()
}
