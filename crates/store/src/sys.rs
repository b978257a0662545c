#![allow(
    unsafe_code,
    reason = "mapping files and starting writeback have no safe interface; nothing else is done here"
)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

/// A whole file, mapped for reading.
pub(crate) struct Map {
    start: NonNull<c_void>,
    len: usize,
}

impl Map {
    /// Maps the first `len` bytes of a file, which must have them. Files of a store are written once, before they get
    /// their names, and never change or shrink afterwards.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { start: NonNull::dangling(), len });
        }
        // SAFETY: a fresh, private, read-only mapping at an address of the kernel's choice touches no memory that
        // anything else knows.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Has the kernel read all pages. An error where the disk cannot give one; kernels before 5.14 do not tell.
    pub(crate) fn populate(&self) -> io::Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        // SAFETY: the range is that of a live mapping, and reading its pages ahead changes nothing in them.
        match unsafe { madvise(self.start.as_ptr(), self.len, Advice::LinuxPopulateRead) } {
            Err(Errno::INVAL) | Ok(()) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of a live mapping that ends with `self`, or of an empty slice.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping is ours alone and no slice of it outlives `self`. An error would leave it mapped.
            let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
        }
    }
}

// SAFETY: the mapping is read-only memory that belongs to no thread.
unsafe impl Send for Map {}
// SAFETY: as above; reading it from several threads at once is sound.
unsafe impl Sync for Map {}

/// Asks the kernel to begin writing a file's dirty pages of a range, without waiting. Promises nothing.
pub(crate) fn start_writeback(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: the call takes numbers alone; the descriptor is open as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
