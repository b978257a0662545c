#![allow(unsafe_code, reason = "starting writeback has no safe interface; nothing else is done here")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Asks the kernel to begin writing a file's dirty pages of a range, without waiting. Promises nothing.
pub(crate) fn start_writeback(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: the call takes numbers alone; the descriptor is open as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
