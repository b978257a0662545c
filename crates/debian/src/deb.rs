//! Reading .deb files, with the file taken as hostile until it has proved otherwise.
//!
//! A .deb is an `ar` archive of `debian-binary`, `control.tar` and `data.tar`, in this order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use liblzma::stream::{MtStreamBuilder, Stream};

use crate::control::{ControlError, Paragraph};
pub use crate::tar::Member;
use crate::tar::{self, Kind, TarError};

/// A .deb file that cannot be used: which one, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct DebError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What can be wrong with a .deb file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It does not begin like a .deb.
    #[error("is no .deb file: it does not begin with `!<arch>`")]
    NotAnArchive,
    /// A member's header is damaged.
    #[error("the archive header at byte {offset} is damaged: {what}")]
    Header {
        /// Place in the file.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A member claims more bytes than the file has.
    #[error("is cut off: member {member} should end at byte {end}, the file has {len}")]
    Truncated {
        /// The member's name.
        member: String,
        /// First byte after the member.
        end: u64,
        /// Length of the file.
        len: u64,
    },
    /// The members are not `debian-binary`, `control.tar`, `data.tar`.
    #[error("expected member {expected}, found {found}")]
    Order {
        /// What has to be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A format version that this program cannot read.
    #[error("has package format version {found:?}; only 2.x can be read")]
    Version {
        /// The first line of `debian-binary`.
        found: String,
    },
    /// A compression that this program cannot read.
    #[error("member {member} has a compression that cannot be read; xz, zst, gz, lzma and none can")]
    Compression {
        /// The member's name.
        member: String,
    },
    /// The archive inside is damaged or not allowed.
    #[error("{member}: {error}")]
    Tar {
        /// Which of the two archives.
        member: String,
        /// What is wrong.
        #[source]
        error: TarError,
    },
    /// The control archive lacks a file or holds something else than files.
    #[error("control.tar: {0}")]
    Control(String),
    /// The `control` file cannot be read.
    #[error(transparent)]
    Fields(#[from] ControlError),
}

/// How much a package may unpack to before it is taken for a decompression bomb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed control archive, which is kept in memory.
    pub control: u64,
    /// Bytes of the uncompressed data archive.
    pub data: u64,
}

impl Default for Limits {
    /// 64 MiB of control files and 16 GiB of data: several times the largest package of Debian.
    fn default() -> Self {
        Self { control: 64 << 20, data: 16 << 30 }
    }
}

#[derive(Clone, Debug)]
struct Part {
    name: String,
    offset: u64,
    len: u64,
}

/// An opened .deb file whose outer structure has been checked.
#[derive(Debug)]
pub struct Deb<R = BufReader<File>> {
    path: PathBuf,
    reader: R,
    control: Part,
    data: Part,
    limits: Limits,
}

/// The control archive of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The fields of the file `control`: Package, Version, Depends and so on.
    pub fields: Paragraph,
    /// Every file by its name: `control`, `md5sums`, `conffiles`, `preinst`, `postinst`, `prerm`, `postrm`,
    /// `triggers`, `templates`, …
    pub files: BTreeMap<String, ControlFile>,
}

/// One file of the control archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

/// The data archive of a package, read front to back.
pub struct DataReader<'a> {
    path: PathBuf,
    member: String,
    archive: tar::Archive<Box<dyn Read + 'a>>,
}

/// Opens a .deb file with the default [`Limits`].
pub fn open(path: &Path) -> Result<Deb, DebError> {
    Deb::open(path)
}

impl Deb {
    /// Opens a .deb file with the default [`Limits`].
    pub fn open(path: &Path) -> Result<Self, DebError> {
        let file = File::open(path)
            .map_err(|error| DebError { path: path.into(), problem: Problem::Read(error) })?;
        Deb::new(BufReader::with_capacity(256 * 1024, file), path, Limits::default())
    }
}

impl<R: BufRead + Seek> Deb<R> {
    /// Takes anything that can be read as a .deb; `path` names it in errors.
    pub fn new(mut reader: R, path: &Path, limits: Limits) -> Result<Self, DebError> {
        match outer(&mut reader) {
            Ok((control, data)) => Ok(Self { path: path.into(), reader, control, data, limits }),
            Err(problem) => Err(DebError { path: path.into(), problem }),
        }
    }

    /// The file's name, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the control archive into memory.
    pub fn control(&mut self) -> Result<Control, DebError> {
        let path = self.path.clone();
        self.read_control().map_err(|problem| DebError { path, problem })
    }

    fn read_control(&mut self) -> Result<Control, Problem> {
        let name = self.control.name.clone();
        let tar_error = |error| Problem::Tar { member: name.clone(), error };
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let stream = unpack(&mut self.reader, &self.control, self.limits.control)?;
        let mut archive = tar::Archive::new(stream);
        let mut files = BTreeMap::new();
        while let Some(mut member) = archive.next().map_err(tar_error)? {
            let path = shown(&member.clean_path());
            match member.kind {
                Kind::Dir if path.is_empty() => {}
                Kind::File { .. } if !path.contains('/') => {
                    let mut bytes = Vec::new();
                    member.read_to_end(&mut bytes).map_err(|error| tar_error(error.into()))?;
                    let file = ControlFile { mode: member.mode, bytes };
                    if files.insert(path.clone(), file).is_some() {
                        return Err(Problem::Control(format!("file {path:?} comes twice")));
                    }
                }
                _ => return Err(Problem::Control(format!("{path:?} is no plain file at its top"))),
            }
        }
        let control =
            files.get("control").ok_or_else(|| Problem::Control("there is no file `control`".into()))?;
        // Old packages carry a maintainer's name in Latin-1; no field that matters is anything but ASCII.
        let text = String::from_utf8_lossy(&control.bytes);
        Ok(Control { fields: Paragraph::parse("control", &text)?, files })
    }

    /// Starts to read the data archive; can be called again to read it again.
    pub fn data(&mut self) -> Result<DataReader<'_>, DebError> {
        match unpack(&mut self.reader, &self.data, self.limits.data) {
            Ok(stream) => Ok(DataReader {
                path: self.path.clone(),
                member: self.data.name.clone(),
                archive: tar::Archive::new(stream),
            }),
            Err(problem) => Err(DebError { path: self.path.clone(), problem }),
        }
    }
}

impl<'a> DataReader<'a> {
    /// The next member, `None` after the last; what was not read of the one before is skipped. Errors of
    /// [`Read`] on the member are about the same archive.
    #[allow(clippy::should_implement_trait, reason = "a member borrows the reader, so this is no Iterator")]
    pub fn next(&mut self) -> Result<Option<Member<'_, Box<dyn Read + 'a>>>, DebError> {
        let (path, member) = (&self.path, &self.member);
        self.archive.next().map_err(|error| DebError {
            path: path.clone(),
            problem: Problem::Tar { member: member.clone(), error },
        })
    }
}

/// Checks the `ar` structure and finds the two archives.
fn outer<R: Read + Seek>(reader: &mut R) -> Result<(Part, Part), Problem> {
    let len = reader.seek(SeekFrom::End(0)).map_err(Problem::Read)?;
    reader.rewind().map_err(Problem::Read)?;
    let mut magic = [0; 8];
    if len < 8 || reader.read_exact(&mut magic).is_err() || &magic != b"!<arch>\n" {
        return Err(Problem::NotAnArchive);
    }
    let mut at = 8;
    let version = part(reader, &mut at, len, "debian-binary")?;
    if version.name != "debian-binary" {
        return Err(Problem::Order { expected: "debian-binary", found: version.name });
    }
    let mut text = vec![0; version.len.min(64) as usize];
    reader.seek(SeekFrom::Start(version.offset)).map_err(Problem::Read)?;
    reader.read_exact(&mut text).map_err(Problem::Read)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let minor = line.strip_prefix(b"2.").unwrap_or_default();
    if minor.is_empty() || !minor.iter().all(u8::is_ascii_digit) || line.len() == text.len() {
        return Err(Problem::Version { found: String::from_utf8_lossy(line).into_owned() });
    }
    // Members whose name begins with an underscore may stand between these and are passed over, as dpkg does.
    let mut wanted = |expected: &'static str| loop {
        let found = part(reader, &mut at, len, expected)?;
        if found.name == expected
            || found.name.strip_prefix(expected).is_some_and(|rest| rest.starts_with('.'))
        {
            return Ok(found);
        }
        if !found.name.starts_with('_') {
            return Err(Problem::Order { expected, found: found.name });
        }
    };
    let control = wanted("control.tar")?;
    let data = wanted("data.tar")?;
    Ok((control, data))
}

fn part<R: Read + Seek>(
    reader: &mut R,
    at: &mut u64,
    len: u64,
    expected: &'static str,
) -> Result<Part, Problem> {
    let offset = *at;
    if offset >= len {
        return Err(Problem::Order { expected, found: "the end of the file".into() });
    }
    if len - offset < 60 {
        return Err(Problem::Truncated { member: expected.into(), end: offset.saturating_add(60), len });
    }
    let mut header = [0; 60];
    reader.seek(SeekFrom::Start(offset)).map_err(Problem::Read)?;
    reader.read_exact(&mut header).map_err(Problem::Read)?;
    let damaged = |what| Problem::Header { offset, what };
    if &header[58..] != b"`\n" {
        return Err(damaged("it does not end as it must"));
    }
    let text = std::str::from_utf8(&header).map_err(|_| damaged("it is not ASCII"))?;
    let field = |from: usize, to: usize| text.get(from..to).map(|field| field.trim_end_matches(' '));
    let name = field(0, 16).ok_or_else(|| damaged("it is not ASCII"))?;
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Err(damaged("the member's name cannot be one of a package"));
    }
    let size =
        field(48, 58).filter(|size| !size.is_empty() && size.bytes().all(|digit| digit.is_ascii_digit()));
    let size: u64 =
        size.and_then(|size| size.parse().ok()).ok_or_else(|| damaged("the size is no number"))?;
    // At most ten digits and a real file's length: these sums cannot overflow.
    let start = offset + 60;
    let end = start + size;
    if end > len {
        return Err(Problem::Truncated { member: name.into(), end, len });
    }
    *at = end + size % 2;
    Ok(Part { name: name.into(), offset: start, len: size })
}

/// Memory an xz stream may ask for: the largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;
/// Below this many compressed bytes threads cost more than they bring.
const THREADS_FROM: u64 = 4 << 20;

fn unpack<'a, R: BufRead + Seek>(
    reader: &'a mut R,
    part: &Part,
    limit: u64,
) -> Result<Box<dyn Read + 'a>, Problem> {
    reader.seek(SeekFrom::Start(part.offset)).map_err(Problem::Read)?;
    let raw = reader.take(part.len);
    let lzma =
        |stream: Result<Stream, liblzma::stream::Error>| stream.map_err(|error| Problem::Read(error.into()));
    let compression = part.name.split_once(".tar").map_or("", |(_, rest)| rest);
    let stream: Box<dyn Read + 'a> = match compression {
        "" => Box::new(raw),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
        ".xz" => {
            let stream = if part.len < THREADS_FROM {
                Stream::new_stream_decoder(XZ_MEMORY, 0)
            } else {
                let threads =
                    std::thread::available_parallelism().map_or(1, |count| count.get().min(8)) as u32;
                let mut builder = MtStreamBuilder::new();
                builder.threads(threads).memlimit_threading(XZ_MEMORY).memlimit_stop(XZ_MEMORY).decoder()
            };
            Box::new(liblzma::bufread::XzDecoder::new_stream(raw, lzma(stream)?))
        }
        ".lzma" => {
            Box::new(liblzma::bufread::XzDecoder::new_stream(raw, lzma(Stream::new_lzma_decoder(XZ_MEMORY))?))
        }
        ".zst" => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(Problem::Read)?;
            // Level 22 uses a window of 2^27 bytes.
            decoder.window_log_max(27).map_err(Problem::Read)?;
            Box::new(decoder)
        }
        _ => return Err(Problem::Compression { member: part.name.clone() }),
    };
    Ok(Box::new(Bounded { stream, left: limit, limit }))
}

/// Passes bytes on until there are more than the limit.
struct Bounded<S> {
    stream: S,
    left: u64,
    limit: u64,
}

impl<S: Read> Read for Bounded<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.stream.read(buf)?;
        self.left = self.left.checked_sub(got as u64).ok_or_else(|| {
            io::Error::other(format!(
                "it unpacks to more than {} bytes, which no real package does: it looks like a decompression bomb",
                self.limit
            ))
        })?;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut bytes =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100644, content.len()).into_bytes();
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
        bytes
    }

    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = b"!<arch>\n".to_vec();
        members.iter().for_each(|(name, content)| bytes.extend(member(name, content)));
        bytes
    }

    fn compress(kind: &str, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match kind {
            "" => out.extend_from_slice(bytes),
            ".gz" => {
                drop(flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut out))
            }
            ".xz" => drop(liblzma::read::XzEncoder::new(bytes, 0).read_to_end(&mut out)),
            ".lzma" => {
                let options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
                let stream = Stream::new_lzma_encoder(&options).unwrap();
                drop(liblzma::read::XzEncoder::new_stream(bytes, stream).read_to_end(&mut out));
            }
            ".zst" => out = zstd::encode_all(bytes, 1).unwrap(),
            _ => unreachable!(),
        }
        out
    }

    fn control_tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o755);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn data_tar() -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        builder.append_data(&mut header, "./usr/", io::empty()).unwrap();
        let mut header = ::tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o4755);
        header.set_mtime(1_700_000_000);
        header.set_username("root").unwrap();
        header.set_groupname("shadow").unwrap();
        header.set_uid(0);
        header.set_gid(42);
        let long = format!("./usr/{}", "long/".repeat(40));
        builder.append_data(&mut header, format!("{long}file"), &b"hello"[..]).unwrap();
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "./usr/link", "../../etc/x").unwrap();
        header.set_entry_type(::tar::EntryType::Link);
        builder.append_link(&mut header, "./usr/hard", format!("{long}file")).unwrap();
        builder.into_inner().unwrap()
    }

    const FIELDS: &str = "Package: test\nVersion: 1\nArchitecture: all\nDescription: one\n two\n";

    fn deb(kind: &str) -> Vec<u8> {
        let control = compress(kind, &control_tar(&[("./control", FIELDS), ("./postinst", "#!/bin/sh\n")]));
        let data = compress(kind, &data_tar());
        let (control_name, data_name) = (format!("control.tar{kind}"), format!("data.tar{kind}"));
        ar(&[("debian-binary", b"2.0\n"), (&control_name, &control), ("_extra", b"odd"), (&data_name, &data)])
    }

    fn parse(bytes: Vec<u8>) -> Result<Deb<Cursor<Vec<u8>>>, DebError> {
        Deb::new(Cursor::new(bytes), Path::new("test.deb"), Limits::default())
    }

    /// Clean path, kind and content of a member.
    type Found = (Vec<u8>, Kind, Vec<u8>);

    fn read_all<R: BufRead + Seek>(deb: &mut Deb<R>) -> Result<Vec<Found>, String> {
        deb.control().map_err(|error| error.to_string())?;
        let mut data = deb.data().map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        while let Some(mut member) = data.next().map_err(|error| error.to_string())? {
            let mut content = Vec::new();
            member.read_to_end(&mut content).map_err(|error| error.to_string())?;
            all.push((member.clean_path(), member.kind.clone(), content));
        }
        Ok(all)
    }

    #[test]
    fn every_compression_gives_the_same_package() {
        for kind in ["", ".gz", ".xz", ".lzma", ".zst"] {
            let mut deb = parse(deb(kind)).unwrap();
            let control = deb.control().unwrap();
            assert_eq!(control.fields.get("package"), Some("test"));
            assert_eq!(control.fields.get("Description"), Some("one\n two"));
            assert_eq!(
                control.files["postinst"],
                ControlFile { mode: 0o755, bytes: b"#!/bin/sh\n".to_vec() }
            );
            let mut data = deb.data().unwrap();
            assert_eq!(data.next().unwrap().unwrap().kind, Kind::Dir);
            let file = data.next().unwrap().unwrap();
            assert_eq!((file.mode, file.uid, file.gid, file.mtime), (0o4755, 0, 42, 1_700_000_000));
            assert_eq!((file.uname.as_slice(), file.gname.as_slice()), (&b"root"[..], &b"shadow"[..]));
            assert_eq!(file.path.len(), 6 + 200 + 4);
            assert_eq!(data.next().unwrap().unwrap().kind, Kind::Symlink(b"../../etc/x".to_vec()));
            assert!(
                matches!(data.next().unwrap().unwrap().kind, Kind::Hardlink(target) if target.len() == 210)
            );
            assert!(data.next().unwrap().is_none() && data.next().unwrap().is_none());
        }
    }

    #[test]
    fn a_package_cut_off_at_any_byte_is_refused() {
        for kind in ["", ".gz", ".xz", ".zst"] {
            let whole = deb(kind);
            let padding = usize::from(whole.ends_with(b"\n"));
            for len in 0..whole.len() - padding {
                let cut = parse(whole[..len].to_vec()).map_err(|error| error.to_string());
                assert!(cut.and_then(|mut deb| read_all(&mut deb)).is_err(), "{kind} {len}");
            }
        }
    }

    #[test]
    fn the_inner_archives_cut_off_at_any_byte_are_refused() {
        let control = control_tar(&[("./control", FIELDS)]);
        let data = data_tar();
        for kind in ["", ".gz", ".xz", ".lzma", ".zst"] {
            let data = compress(kind, &data);
            let step = if kind.is_empty() { 97 } else { 1 };
            for len in (0..data.len()).step_by(step) {
                let name = format!("data.tar{kind}");
                // Without compression one block of zeros is enough of an end.
                if kind.is_empty() && data[len..].iter().all(|byte| *byte == 0) {
                    continue;
                }
                let bytes =
                    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (&name, &data[..len])]);
                let error =
                    parse(bytes).map_err(|error| error.to_string()).and_then(|mut deb| read_all(&mut deb));
                assert!(error.is_err(), "{kind} {len} of {}", data.len());
            }
        }
    }

    fn data_error(tar: &[u8]) -> String {
        let control = control_tar(&[("./control", FIELDS)]);
        let bytes = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", tar)]);
        parse(bytes).map_err(|error| error.to_string()).and_then(|mut deb| read_all(&mut deb)).unwrap_err()
    }

    fn one_member(name: &[u8], link: &[u8], kind: u8) -> Vec<u8> {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.as_mut_bytes()[156] = kind;
        header.set_cksum();
        let mut tar = header.as_bytes().to_vec();
        tar.resize(512 * 3, 0);
        tar
    }

    #[test]
    fn names_that_leave_the_root_are_refused() {
        assert!(data_error(&one_member(b"./a/../../b", b"", b'0')).contains("holds .."));
        assert!(data_error(&one_member(b"/etc/passwd", b"", b'0')).contains("is absolute"));
        assert!(data_error(&one_member(b"", b"", b'0')).contains("is empty"));
        assert!(data_error(&one_member(b"./a", b"../b", b'1')).contains("holds .."));
        assert!(data_error(&one_member(b"./a", b"/b", b'1')).contains("is absolute"));
        assert!(data_error(&one_member(b"./a", b"", b'2')).contains("points to no name"));
        assert!(data_error(&one_member(b"./", b"x", b'2')).contains("root folder"));
        assert!(data_error(&one_member(b"./sparse", b"", b'S')).contains("not allowed"));
    }

    #[test]
    fn members_out_of_order_and_foreign_versions_are_refused() {
        let control = control_tar(&[("./control", FIELDS)]);
        let message = |members: &[(&str, &[u8])]| parse(ar(members)).unwrap_err().to_string();
        let version: (&str, &[u8]) = ("debian-binary", b"2.0\n");
        assert!(message(&[("control.tar", &control)]).contains("expected member debian-binary"));
        assert!(
            message(&[version, ("data.tar", b"")]).contains("expected member control.tar, found data.tar")
        );
        assert!(message(&[version, ("control.tar", &control)]).contains("found the end of the file"));
        assert!(message(&[("debian-binary", b"3.0\n")]).contains("version \"3.0\""));
        let mut deb = parse(ar(&[version, ("control.tar", &control), ("data.tar.br", b"")])).unwrap();
        assert!(deb.data().err().unwrap().to_string().contains("compression"));
    }

    #[test]
    fn a_decompression_bomb_is_stopped() {
        let bomb = compress(".xz", &vec![0; 1 << 20]);
        let control = control_tar(&[("./control", FIELDS)]);
        let bytes = ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.xz", &bomb)]);
        let limits = Limits { data: 100_000, ..Limits::default() };
        let mut deb = Deb::new(Cursor::new(bytes), Path::new("bomb.deb"), limits).unwrap();
        assert!(read_all(&mut deb).unwrap_err().contains("decompression bomb"));
    }

    #[test]
    fn data_after_the_end_mark_is_refused() {
        let mut tar = data_tar();
        tar.extend_from_slice(&one_member(b"./hidden", b"", b'0'));
        assert!(data_error(&tar).contains("after the archive's end mark"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn damaged_packages_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), kind in 0..4_usize) {
            let mut bytes = deb(["", ".gz", ".xz", ".zst"][kind]);
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(mut deb) = parse(bytes) {
                let _ = read_all(&mut deb);
            }
        }

        #[test]
        fn damaged_archives_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
            let mut tar = data_tar();
            for (at, value) in changes {
                let at = at.index(tar.len());
                tar[at] = value;
            }
            // Checksums are put right, so that the damage reaches what is behind them.
            for block in tar.chunks_exact_mut(512) {
                let mut header = ::tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(block);
                if &block[257..262] == b"ustar" {
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            }
            let mut archive = tar::Archive::new(&tar[..]);
            while let Ok(Some(mut member)) = archive.next() {
                let _ = io::copy(&mut member, &mut io::sink());
            }
        }
    }
}
