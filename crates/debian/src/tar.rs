//! A strict, streaming reader of the tar archives inside .deb files: v7, ustar, GNU long names and pax headers.
//!
//! It is our own because a package is hostile input: raw names, bounded memory whatever the headers claim, one
//! error for each way in which an archive can be wrong, and the end of the archive checked.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Longest name or link target taken from a GNU or pax header. Linux itself ends at 4096.
const MAX_NAME: u64 = 64 * 1024;
/// Largest pax header: room for names and for extended attributes of 64 KiB.
const MAX_PAX: u64 = 1024 * 1024;

/// So many bytes of a name are shown in errors.
const LONGEST_SHOWN: usize = 256;

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be read or uncompressed.
    #[error("cannot read the archive: {0}")]
    Read(#[from] io::Error),
    /// The archive ends where it must not.
    #[error("the archive is cut off in {0}")]
    Truncated(String),
    /// A header's checksum does not fit.
    #[error("the header at byte {offset} of the archive has a wrong checksum: the archive is damaged")]
    Checksum {
        /// Place of the header in the uncompressed archive.
        offset: u64,
    },
    /// A number in a header cannot be read or is too large.
    #[error("{member}: field {field} holds no usable number")]
    Number {
        /// The member's name as far as it is known.
        member: String,
        /// Which field.
        field: &'static str,
    },
    /// A kind of member that no package may hold.
    #[error("{member}: members of type {kind:?} are not allowed in a package")]
    Kind {
        /// The member's name.
        member: String,
        /// The type byte as a character.
        kind: char,
    },
    /// A name that leaves the root, or is no name.
    #[error("{member}: the name {what}")]
    Name {
        /// The member's name.
        member: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An extension header that cannot be read or is larger than any real one.
    #[error("the extension header at byte {offset} of the archive {what}")]
    Extension {
        /// Place of the header in the uncompressed archive.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Something other than zeros after the end mark.
    #[error("there is data after the archive's end mark")]
    Trailing,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes; read the member to get them.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link and what it points to, as written.
    Symlink(Vec<u8>),
    /// A further name of an earlier file: that file's name in the archive, as written.
    Hardlink(Vec<u8>),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One member of an archive: its description, and its content through [`Read`].
#[derive(Debug)]
pub struct Member<'r, R> {
    /// The name as written, e.g. `./usr/bin/`. It does not begin with `/` and has no `..` and no NUL.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: at most 0o7777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The owner's name; empty when the archive has none. dpkg looks it up in the target first.
    pub uname: Vec<u8>,
    /// The group's name; empty when the archive has none.
    pub gname: Vec<u8>,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Extended attributes from pax headers, in the order of the headers.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    archive: &'r mut Archive<R>,
}

impl<R> Member<'_, R> {
    /// The name without `./` in front and `/` behind: `usr/bin`; empty for the root folder itself.
    pub fn clean_path(&self) -> Vec<u8> {
        clean(&self.path)
    }
}

impl<R: Read> Read for Member<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let archive = &mut *self.archive;
        let want = usize::try_from(archive.left).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let got = archive.reader.read(&mut buf[..want])?;
        if got == 0 {
            let name = shown(&self.path);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Truncated(name)));
        }
        archive.left -= got as u64;
        archive.offset += got as u64;
        Ok(got)
    }
}

/// A name without empty and `.` components: `./usr/bin/` becomes `usr/bin`, `./` becomes nothing.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    parts.join(&b'/')
}

/// An archive being read, front to back.
#[derive(Debug)]
pub struct Archive<R> {
    reader: R,
    /// Bytes of the uncompressed archive that were read.
    offset: u64,
    /// Content bytes of the current member not read yet, and the padding after them.
    left: u64,
    padding: u64,
    done: bool,
}

/// The most that the extensions of one member may have together.
const MAX_EXTENSIONS: u64 = 2 << 20;

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    uname: Option<Vec<u8>>,
    gname: Option<Vec<u8>>,
    mtime: Option<i64>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    /// Reads the archive that `reader` gives, already uncompressed.
    pub fn new(reader: R) -> Self {
        Self { reader, offset: 0, left: 0, padding: 0, done: false }
    }

    /// The next member, whether or not the last one was read to its end; `None` after the last one, when the end
    /// mark was found and nothing but zeros follows it.
    #[allow(clippy::should_implement_trait, reason = "a member borrows the archive, so this is no Iterator")]
    pub fn next(&mut self) -> Result<Option<Member<'_, R>>, TarError> {
        if self.done {
            return Ok(None);
        }
        self.skip_content()?;
        let mut extensions = Extensions::default();
        let mut extended = 0;
        loop {
            let start = self.offset;
            let Some(header) = self.header()? else {
                self.finish()?;
                return Ok(None);
            };
            let kind = header[156];
            let member = shown(until_nul(&header[..100]));
            let number = |field, range: std::ops::Range<usize>| {
                parse_number(&header[range]).ok_or(TarError::Number { member: member.clone(), field })
            };
            let stored = number("size", 124..136)?;
            let stored = u64::try_from(stored)
                .map_err(|_| TarError::Number { member: member.clone(), field: "size" })?;
            if matches!(kind, b'L' | b'K' | b'x' | b'g') {
                extended += stored;
                if extended > MAX_EXTENSIONS {
                    let what = "is one of more than any file needs";
                    return Err(TarError::Extension { offset: start, what });
                }
            }
            match kind {
                b'L' | b'K' => {
                    let name = self.extension(start, stored, MAX_NAME)?;
                    let name = until_nul(&name).to_vec();
                    *(if kind == b'L' { &mut extensions.path } else { &mut extensions.link }) = Some(name);
                    continue;
                }
                b'x' => {
                    let records = self.extension(start, stored, MAX_PAX)?;
                    extensions.take(&records).map_err(|what| TarError::Extension { offset: start, what })?;
                    continue;
                }
                b'g' => {
                    // Packages have no use for global defaults; only a comment, as git writes it, is harmless.
                    let records = self.extension(start, stored, MAX_PAX)?;
                    let only_comment =
                        pax_records(&records).is_ok_and(|all| all.iter().all(|(key, _)| *key == b"comment"));
                    if !only_comment {
                        return Err(TarError::Extension { offset: start, what: "sets global defaults" });
                    }
                    continue;
                }
                _ => {}
            }
            return self.member(&header, stored, extensions).map(Some);
        }
    }

    fn member(
        &mut self,
        header: &[u8; BLOCK],
        stored: u64,
        extensions: Extensions,
    ) -> Result<Member<'_, R>, TarError> {
        let posix = &header[257..263] == b"ustar\0";
        let gnu = &header[257..265] == b"ustar  \0";
        let path = extensions.path.unwrap_or_else(|| {
            let name = until_nul(&header[..100]);
            let prefix = if posix { until_nul(&header[345..500]) } else { b"" };
            if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
        });
        let shown = shown(&path);
        check_name(&path, &shown)?;
        let number = |field, range: std::ops::Range<usize>| -> Result<u64, TarError> {
            let value = parse_number(&header[range]).and_then(|value| u64::try_from(value).ok());
            value.ok_or(TarError::Number { member: shown.clone(), field })
        };
        let narrow = |field, value: u64| -> Result<u32, TarError> {
            u32::try_from(value).map_err(|_| TarError::Number { member: shown.clone(), field })
        };
        let id = |field, range, pax: Option<u32>| match pax {
            Some(value) => Ok(value),
            None => narrow(field, number(field, range)?),
        };
        let device = || -> Result<(u32, u32), TarError> {
            Ok((
                narrow("devmajor", number("devmajor", 329..337)?)?,
                narrow("devminor", number("devminor", 337..345)?)?,
            ))
        };
        let link = || -> Result<Vec<u8>, TarError> {
            let link = extensions.link.clone().unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
            if link.is_empty() || link.contains(&0) {
                return Err(TarError::Name {
                    member: shown.clone(),
                    what: "is a link that points to no name",
                });
            }
            Ok(link)
        };
        let size = extensions.size.unwrap_or(stored);
        let kind = match header[156] {
            // The old way to write a directory: a file whose name ends in a slash.
            b'0' | 0 if path.ends_with(b"/") && size == 0 => Kind::Dir,
            b'0' | 0 | b'7' => Kind::File { size },
            b'1' => {
                let link = link()?;
                check_name(&link, &format!("{shown} -> {}", self::shown(&link)))?;
                Kind::Hardlink(link)
            }
            b'2' => Kind::Symlink(link()?),
            b'3' => device().map(|(major, minor)| Kind::Char { major, minor })?,
            b'4' => device().map(|(major, minor)| Kind::Block { major, minor })?,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Kind { member: shown, kind: char::from(other) }),
        };
        if !matches!(kind, Kind::File { .. } | Kind::Dir) && clean(&path).is_empty() {
            return Err(TarError::Name {
                member: shown,
                what: "is the root folder, but the member is no folder",
            });
        }
        if matches!(kind, Kind::File { .. }) && (path.ends_with(b"/") || clean(&path).is_empty()) {
            return Err(TarError::Name { member: shown, what: "is a folder's, but the member is a file" });
        }
        let name = |pax: Option<Vec<u8>>, range: std::ops::Range<usize>| {
            pax.unwrap_or_else(|| if posix || gnu { until_nul(&header[range]).to_vec() } else { Vec::new() })
        };
        let member = Member {
            mode: narrow("mode", number("mode", 100..108)? & 0o7777)?,
            uid: id("uid", 108..116, extensions.uid)?,
            gid: id("gid", 116..124, extensions.gid)?,
            mtime: match extensions.mtime {
                Some(time) => time,
                None => parse_number(&header[136..148])
                    .and_then(|time| i64::try_from(time).ok())
                    .ok_or(TarError::Number { member: shown.clone(), field: "mtime" })?,
            },
            uname: name(extensions.uname, 265..297),
            gname: name(extensions.gname, 297..329),
            xattrs: extensions.xattrs,
            path,
            archive: self,
            kind,
        };
        // A size on anything but a file is meaningless for links and devices, but its bytes are there all the same.
        let content = if matches!(member.kind, Kind::File { .. }) { size } else { 0 };
        if content == 0
            && size != 0
            && !matches!(member.kind, Kind::File { .. })
            && !matches!(header[156], b'1' | b'2')
        {
            return Err(TarError::Number { member: shown, field: "size" });
        }
        member.archive.left = content;
        member.archive.padding = pad(content);
        Ok(member)
    }

    /// Reads one header block; `None` for a block of zeros.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut header = [0; BLOCK];
        let start = self.offset;
        self.fill(&mut header, "a header")?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let stored = parse_number(&header[148..156]);
        let sum = |signed: bool| -> i128 {
            let value = |byte: u8| if signed { i128::from(byte as i8) } else { i128::from(byte) };
            let whole: i128 = header.iter().map(|byte| value(*byte)).sum();
            let field: i128 = header[148..156].iter().map(|byte| value(*byte)).sum();
            whole - field + 8 * i128::from(b' ')
        };
        if stored != Some(sum(false)) && stored != Some(sum(true)) {
            return Err(TarError::Checksum { offset: start });
        }
        Ok(Some(header))
    }

    fn fill(&mut self, buf: &mut [u8], what: &str) -> Result<(), TarError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.reader.read(&mut buf[filled..]) {
                Ok(0) => return Err(TarError::Truncated(format!("{what} at byte {}", self.offset))),
                Ok(got) => {
                    filled += got;
                    self.offset += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn extension(&mut self, start: u64, size: u64, limit: u64) -> Result<Vec<u8>, TarError> {
        if size > limit {
            return Err(TarError::Extension { offset: start, what: "is larger than any real one" });
        }
        let mut bytes = vec![0; (size + pad(size)) as usize];
        self.fill(&mut bytes, "an extension header")?;
        bytes.truncate(size as usize);
        Ok(bytes)
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let mut scratch = [0; 16 * 1024];
        let mut left =
            self.left.checked_add(self.padding).ok_or_else(|| TarError::Truncated("a file".into()))?;
        while left > 0 {
            let piece = left.min(scratch.len() as u64) as usize;
            self.fill(&mut scratch[..piece], "a file's content")?;
            left -= piece as u64;
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// After the first block of zeros: everything to the end must be zeros too. Reading to the very end also has
    /// the decompressor check its own checksums.
    fn finish(&mut self) -> Result<(), TarError> {
        self.done = true;
        let mut scratch = [0; 16 * 1024];
        loop {
            match self.reader.read(&mut scratch) {
                Ok(0) => return Ok(()),
                Ok(got) if scratch[..got].iter().all(|byte| *byte == 0) => self.offset += got as u64,
                Ok(_) => return Err(TarError::Trailing),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Extensions {
    fn take(&mut self, records: &[u8]) -> Result<(), &'static str> {
        fn decimal<T: std::str::FromStr>(value: &[u8]) -> Result<Option<T>, &'static str> {
            let text = std::str::from_utf8(value).map_err(|_| "holds a number that is none")?;
            text.parse().map(Some).map_err(|_| "holds a number that is none")
        }
        for (key, value) in pax_records(records)? {
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = decimal(value)?,
                b"uid" => self.uid = decimal(value)?,
                b"gid" => self.gid = decimal(value)?,
                b"uname" => self.uname = Some(value.to_vec()),
                b"gname" => self.gname = Some(value.to_vec()),
                b"mtime" => {
                    // Fractions of a second are dropped, towards the past as a file system would.
                    let whole = value.split(|byte| *byte == b'.').next().unwrap_or(value);
                    let negative_fraction = value.starts_with(b"-")
                        && value
                            .get(whole.len() + 1..)
                            .is_some_and(|rest| rest.iter().any(|digit| *digit != b'0'));
                    let whole: Option<i64> = decimal(whole)?;
                    self.mtime = whole.map(|time| time.saturating_sub(negative_fraction.into()));
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err("describes a sparse file, which no package holds");
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

type Record<'a> = (&'a [u8], &'a [u8]);

/// The `length key=value\n` records of a pax header.
fn pax_records(mut rest: &[u8]) -> Result<Vec<Record<'_>>, &'static str> {
    const BROKEN: &str = "is no list of `length key=value` records";
    let mut records = Vec::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or(BROKEN)?;
        let digits = std::str::from_utf8(&rest[..space]).map_err(|_| BROKEN)?;
        let length: usize = digits.parse().map_err(|_| BROKEN)?;
        let record = rest.get(space + 1..length).ok_or(BROKEN)?;
        let record = record.strip_suffix(b"\n").ok_or(BROKEN)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
        records.push((&record[..equals], &record[equals + 1..]));
        rest = &rest[length..];
    }
    Ok(records)
}

fn check_name(path: &[u8], shown: &str) -> Result<(), TarError> {
    let fail = |what| Err(TarError::Name { member: shown.to_owned(), what });
    if path.is_empty() {
        return fail("is empty");
    }
    if path.contains(&0) {
        return fail("holds a NUL byte");
    }
    if path.starts_with(b"/") {
        return fail("is absolute; a package's names begin with ./");
    }
    if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return fail("holds .. and would leave the root");
    }
    Ok(())
}

/// A name as errors show it: its beginning, without anything that a terminal would obey.
fn shown(name: &[u8]) -> String {
    let (start, rest) = name.split_at(name.len().min(LONGEST_SHOWN));
    let mut text = block::without_escapes(&String::from_utf8_lossy(start)).replace('\n', "?");
    if !rest.is_empty() {
        text.push('…');
    }
    text
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
}

fn pad(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// A header's number: octal digits between blanks, or GNU's base 256. Blank counts as zero.
fn parse_number(field: &[u8]) -> Option<i128> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement, the first bit being the marker, the second the sign.
        let negative = first & 0x40 != 0;
        let start = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        return rest
            .iter()
            .try_fold(start, |value, byte| value.checked_mul(256).map(|value| value + i128::from(*byte)));
    }
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return None;
    }
    digits[..end].iter().try_fold(0_i128, |value, digit| match digit {
        b'0'..=b'7' => Some(value * 8 + i128::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use lying_mirror::tar_member;

    use super::*;

    #[test]
    fn one_member_has_no_more_extensions_than_it_needs() {
        let record = |length: usize| {
            let start = format!("{length} SCHILY.xattr.user.a=");
            format!("{start}{}\n", "x".repeat(length - start.len() - 1))
        };
        let archive = |extensions: usize| {
            let mut bytes = Vec::new();
            for _ in 0..extensions {
                bytes.extend(tar_member("name", b'x', "", record(MAX_PAX as usize).as_bytes()));
            }
            bytes.extend(tar_member("name", b'0', "", b""));
            bytes.resize(bytes.len() + 2 * BLOCK, 0);
            bytes
        };
        let fits = (MAX_EXTENSIONS / MAX_PAX) as usize;
        let bytes = archive(fits);
        assert!(Archive::new(&bytes[..]).next().is_ok_and(|member| member.is_some()));
        let bytes = archive(fits + 1);
        let error = Archive::new(&bytes[..]).next().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("more than any file needs"), "{error}");
    }
}
