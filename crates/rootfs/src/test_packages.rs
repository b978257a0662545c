//! Small packages for tests, made in memory.

use std::path::{Path, PathBuf};

use crate::package::{Package, PackageFile};

/// A package to be made: its control fields after the usual ones, its control files, its members.
#[derive(Default)]
pub(crate) struct TestPackage {
    name: &'static str,
    fields: String,
    control: Vec<(&'static str, &'static str)>,
    members: Vec<(tar::Header, Vec<u8>)>,
}

impl TestPackage {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    pub(crate) fn field(mut self, field: &str) -> Self {
        self.fields.push_str(field);
        self.fields.push('\n');
        self
    }

    pub(crate) fn control(mut self, name: &'static str, text: &'static str) -> Self {
        self.control.push((name, text));
        self
    }

    fn member(mut self, path: &str, kind: tar::EntryType, link: &str, mode: u32, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        // An ordinary user can give files to nobody else.
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        self.members.push((header, bytes.to_vec()));
        self
    }

    pub(crate) fn file(self, path: &str, mode: u32, bytes: &[u8]) -> Self {
        self.member(path, tar::EntryType::Regular, "", mode, bytes)
    }

    pub(crate) fn folder(self, path: &str, mode: u32) -> Self {
        self.member(path, tar::EntryType::Directory, "", mode, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.member(path, tar::EntryType::Symlink, target, 0o777, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.member(path, tar::EntryType::Link, target, 0o644, b"")
    }

    pub(crate) fn device(self, path: &str) -> Self {
        self.member(path, tar::EntryType::Char, "", 0o666, b"")
    }

    /// Writes the .deb and reads its control archive.
    pub(crate) fn make(self, folder: &Path) -> Package {
        Package::read(&self.write(folder)).unwrap()
    }

    fn write(self, folder: &Path) -> PackageFile {
        let control = format!(
            "Package: {}\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n{}Description: a test\n",
            self.name, self.fields
        );
        let mut control_tar = tar::Builder::new(Vec::new());
        for (name, text) in self.control.iter().copied().chain([("control", control.as_str())]) {
            let mut header = tar::Header::new_gnu();
            header.set_path(format!("./{name}")).unwrap();
            header.set_mode(0o755);
            header.set_size(text.len() as u64);
            header.set_cksum();
            control_tar.append(&header, text.as_bytes()).unwrap();
        }
        let mut data_tar = tar::Builder::new(Vec::new());
        for (header, bytes) in &self.members {
            data_tar.append(header, bytes.as_slice()).unwrap();
        }
        let mut deb = b"!<arch>\n".to_vec();
        for (name, bytes) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", control_tar.into_inner().unwrap()),
            ("data.tar", data_tar.into_inner().unwrap()),
        ] {
            deb.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 1_234_567, 0, 0, 100_644, bytes.len())
                    .into_bytes(),
            );
            deb.extend(&bytes);
            if bytes.len() % 2 == 1 {
                deb.push(b'\n');
            }
        }
        let path: PathBuf = folder.join(format!("{}.deb", self.name));
        std::fs::write(&path, deb).unwrap();
        PackageFile {
            name: self.name.into(),
            version: "1.0".into(),
            architecture: "all".into(),
            path,
            auto: false,
        }
    }
}
