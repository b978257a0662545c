use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use block::BlockSource;
use formats::VmdkFile;
use rustix::fs::{MemfdFlags, memfd_create};

use super::can_be_shown;
use crate::Target;

/// A file that is nowhere but in memory, and a name by which it can be opened.
fn in_memory(bytes: &[u8]) -> (File, PathBuf) {
    let descriptor = memfd_create("input", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(descriptor);
    file.write_all(bytes).expect("room in memory");
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, path)
}

pub(super) const VMDK: Target = Target {
    words: &[
        b"KDMV",
        b"createType=\"streamOptimized\"\n",
        b"RW 64 SPARSE \"a.vmdk\"\n",
        b"\nparentCID=ffffffff\n",
    ],
    fixed_memory: 16 << 20,
    ..Target::new("vmdk", "a VMDK, opened and read", 16 << 10, |input| {
        let (_file, path) = in_memory(input);
        let disk = match VmdkFile::open(&path) {
            Ok(disk) => disk,
            Err(error) => return can_be_shown(&error),
        };
        let mut end = 0;
        let mut left: u64 = 4 << 20;
        let mut buffer = vec![0; 64 << 10];
        for (offset, len) in disk.data() {
            assert!(offset >= end && len > 0, "runs of data are in their order");
            end = offset + len;
            assert!(end <= disk.len(), "runs of data are on the disk");
            let mut at = offset;
            while at < end && left > 0 {
                let piece = (end - at).min(buffer.len() as u64);
                if disk.read_at(at, &mut buffer[..piece as usize]).is_err() {
                    break;
                }
                (at, left) = (at + piece, left.saturating_sub(piece));
            }
        }
        assert!(disk.read_at(disk.len(), &mut [0]).is_err(), "nothing is behind the end");
    })
};
