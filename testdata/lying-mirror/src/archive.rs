//! A repository in a folder, as a mirror would serve it.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use block::Digest;

use crate::keys::{NOW, TestKey, Wish};

/// A folder with the files of an archive, signed by a key of its own. It goes when this is dropped.
pub struct Archive {
    /// The archive's root.
    pub folder: tempfile::TempDir,
    /// What signs it.
    pub key: TestKey,
}

/// A package to put into an archive.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Further fields of its control file, each ending in a line break.
    pub fields: String,
    /// Its files: path without a slash at the beginning, and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Where it is in the archive; below `pool/` when not given.
    pub filename: Option<String>,
}

impl Package {
    /// A package for all architectures with one small file.
    pub fn new(name: &str, version: &str) -> Self {
        let file = (format!("usr/share/doc/{name}/README"), format!("{name} {version}\n").into_bytes());
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            fields: String::new(),
            files: vec![file],
            filename: None,
        }
    }

    /// The same with more fields.
    pub fn with(mut self, fields: &str) -> Self {
        self.fields.push_str(fields);
        self
    }

    fn control(&self) -> String {
        format!(
            "Package: {}\nVersion: {}\nArchitecture: all\nMaintainer: Test <test@example.org>\n{}Description: test\n",
            self.name, self.version, self.fields
        )
    }

    /// Its .deb file.
    pub fn deb(&self) -> Vec<u8> {
        deb(&self.control(), &self.files)
    }
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the archive");
        Self { folder, key: TestKey::new(&Wish::default()) }
    }

    /// A file of it.
    pub fn path(&self, tail: &str) -> PathBuf {
        self.folder.path().join(tail)
    }

    /// Writes a file of it.
    pub fn write(&self, tail: &str, bytes: &[u8]) {
        let path = self.path(tail);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, bytes));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Its address as a folder.
    pub fn uri(&self) -> String {
        format!("file://{}", self.folder.path().display())
    }

    /// Writes a suite with one Packages file for amd64; `head` are the first fields of its Release. Signed at [`NOW`].
    pub fn suite(&self, suite: &str, head: &str, packages: &str) {
        self.signed_suite(suite, head, &["amd64"], packages, NOW);
    }

    /// Writes a suite with the same Packages file for each architecture, signed at a time.
    pub fn signed_suite(&self, suite: &str, head: &str, architectures: &[&str], packages: &str, made: i64) {
        let (xz, gz) = (compress(packages, true), compress(packages, false));
        let mut list = String::new();
        for architecture in architectures {
            for (ending, bytes) in [("", packages.as_bytes()), (".xz", &xz), (".gz", &gz)] {
                let path = format!("main/binary-{architecture}/Packages{ending}");
                list.push_str(&format!(" {} {} {path}\n", Digest::of(bytes), bytes.len()));
                if !ending.is_empty() {
                    self.write(&format!("dists/{suite}/{path}"), bytes);
                    let hash = Digest::of(bytes);
                    let by_hash = format!("dists/{suite}/main/binary-{architecture}/by-hash/SHA256/{hash}");
                    self.write(&by_hash, bytes);
                }
            }
        }
        let release = format!("{head}SHA256:\n{list}");
        self.write(&format!("dists/{suite}/InRelease"), self.key.sign_at(&release, made).as_bytes());
    }

    /// Puts packages into the pool, and gives the text of a Packages file that lists them.
    pub fn pool(&self, packages: &[Package]) -> String {
        let mut text = String::new();
        for package in packages {
            let bytes = package.deb();
            let filename = package
                .filename
                .clone()
                .unwrap_or_else(|| format!("pool/main/{}_{}_all.deb", package.name, package.version));
            if package.filename.is_none() {
                self.write(&filename, &bytes);
            }
            let (size, hash) = (bytes.len(), Digest::of(&bytes));
            text += &format!("{}Filename: {filename}\nSize: {size}\nSHA256: {hash}\n\n", package.control());
        }
        text
    }
}

/// A Packages file as `.xz` or as `.gz`.
pub fn compress(text: &str, xz: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match xz {
        true => liblzma::read::XzEncoder::new(text.as_bytes(), 1).read_to_end(&mut out),
        false => {
            flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast()).read_to_end(&mut out)
        }
    };
    read.expect("memory can be read");
    out
}

/// A .deb with this control file and these files.
pub fn deb(control: &str, files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let tar = |files: &[(String, &[u8])]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("./{path}"), *content).expect("a short path");
        }
        tar.into_inner().expect("memory can be written")
    };
    let control = tar(&[("control".to_owned(), control.as_bytes())]);
    let files: Vec<(String, &[u8])> =
        files.iter().map(|(path, content)| (path.clone(), content.as_slice())).collect();
    let data = tar(&files);
    ar(&control, &data)
}

/// A .deb without a control file, of links (`a -> b`, `a => b` for a hard one), folders (`a/`) and files (all others), whose
/// bytes are `text`. Its paths and targets are taken as they are, however hostile.
pub fn deb_of(members: &[&str], text: &str) -> Vec<u8> {
    let mut data = Vec::new();
    for member in members {
        let (name, kind, to, bytes) = if let Some((name, to)) = member.split_once(" -> ") {
            (name, b'2', to, "")
        } else if let Some((name, to)) = member.split_once(" => ") {
            (name, b'1', to, "")
        } else if member.ends_with('/') {
            (*member, b'5', "", "")
        } else {
            (*member, b'0', "", text)
        };
        data.extend(tar_member(name, kind, to, bytes.as_bytes()));
    }
    data.resize(data.len() + 1024, 0);
    ar(&[0; 1024], &data)
}

/// A member of a tar archive: header, content, padding. Nothing is checked.
pub fn tar_member(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut member = vec![0; 512];
    member[..name.len()].copy_from_slice(name.as_bytes());
    member[100..107].copy_from_slice(b"0000755");
    member[108..115].copy_from_slice(b"0000000");
    member[116..123].copy_from_slice(b"0000000");
    member[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    member[136..147].copy_from_slice(b"00000000000");
    member[148..156].fill(b' ');
    member[156] = kind;
    member[157..157 + link.len()].copy_from_slice(link.as_bytes());
    member[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = member.iter().map(|byte| u32::from(*byte)).sum();
    member[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    member.extend(content);
    member.resize(member.len().next_multiple_of(512), 0);
    member
}

/// The archive around a package's two others.
fn ar(control: &[u8], data: &[u8]) -> Vec<u8> {
    let mut deb = b"!<arch>\n".to_vec();
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", control), ("data.tar", data)] {
        deb.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, bytes.len()).bytes(),
        );
        deb.extend(bytes);
        if bytes.len() % 2 == 1 {
            deb.push(b'\n');
        }
    }
    deb
}
