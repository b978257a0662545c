use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A form in which a file holds a disk that is not the disk's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// VMware's.
    Vmdk,
    /// QEMU's.
    Qcow2,
}

impl Container {
    /// What a file is, by its first bytes; `None` for any other, a raw disk for one.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut sign = Vec::new();
        File::open(path)?.take(4).read_to_end(&mut sign)?;
        Ok(match sign.as_slice() {
            b"KDMV" => Some(Self::Vmdk),
            b"QFI\xfb" => Some(Self::Qcow2),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_by_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (bytes, expected) in [
            (&b"KDMV\x03"[..], Some(Container::Vmdk)),
            (b"QFI\xfb\0", Some(Container::Qcow2)),
            (b"KDM", None),
            (b"", None),
            (b"\xeb\x63\x90\x10", None),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Container::of(&path).unwrap(), expected, "{bytes:?}");
        }
        assert!(Container::of(&folder.path().join("none")).is_err());
    }
}
