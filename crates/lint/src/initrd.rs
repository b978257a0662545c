//! Which files an initrd holds, as the kernel will unpack it.
//!
//! An initrd is a row of archives in cpio's `newc` form, with zero bytes between them; from some point on it may be
//! compressed, and what is inside is such a row again:
//!
//! ```text
//!   cpio (microcode, modules that are compressed already) | zeros | zstd( cpio | zeros | cpio … )
//! ```
//!
//! Debian 12 and 13 make that with zstd; gzip and xz are understood too. What follows a compressed part is not read.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;

use block::Content;
use liblzma::stream::Stream;

/// Length of a `newc` header: the magic and 13 numbers of 8 hexadecimal digits.
const HEADER: usize = 110;
/// Length of a magic, and of what must be seen to know a compression.
const MAGIC: usize = 6;
/// The longest name with its NUL: Linux's PATH_MAX.
const LONGEST_NAME: u64 = 4096;
/// More than a machine unpacks at boot; what claims to be longer is damaged or hostile.
const LONGEST: u64 = 4 * block::GIB;

/// Memory that an xz stream may ask for: the largest preset needs 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// Why an initrd could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// A compression that is known and not undone here, or a magic nobody knows.
    #[error("{0}")]
    Unknown(String),
    /// Not what the kernel can unpack.
    #[error("{0}")]
    Damaged(String),
}

impl From<io::Error> for InitrdError {
    fn from(error: io::Error) -> Self {
        Self::Damaged(match error.kind() {
            io::ErrorKind::UnexpectedEof => "ends in the middle of an archive".into(),
            _ => format!("cannot be unpacked ({error})"),
        })
    }
}

/// Which of the wanted things an initrd holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Modules of the kernel, of those wanted.
    pub(crate) modules: BTreeSet<String>,
    /// Whether the program is there that the kernel starts.
    pub(crate) init: bool,
}

/// Looks for `/init` and the modules of one kernel by [`module_name`]. Reading ends as soon as all are found.
pub(crate) fn find(
    initrd: impl Read,
    kernel: &str,
    wanted: &BTreeSet<&str>,
    found: &mut Found,
) -> Result<(), InitrdError> {
    let mut see = |path: &[u8]| {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        let path = path.strip_prefix(b"/").unwrap_or(path);
        found.init |= path == b"init";
        if let Some(name) = module_name(path)
            && wanted.contains(name.as_str())
            && is_of_kernel(path, kernel)
        {
            found.modules.insert(name);
        }
        match found.init && found.modules.len() == wanted.len() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    initrd_files(initrd, &mut see)
}

/// Whether a path lies in the folder of a kernel's modules.
fn is_of_kernel(path: &[u8], kernel: &str) -> bool {
    let path = path.strip_prefix(b"usr/").unwrap_or(path);
    let inside = path.strip_prefix(b"lib/modules/").and_then(|rest| rest.strip_prefix(kernel.as_bytes()));
    inside.is_some_and(|rest| rest.starts_with(b"/"))
}

/// The name by which the kernel knows the module in a file: `-` and `_` are one. `None` for other files.
pub(crate) fn module_name(path: &[u8]) -> Option<String> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let plain = [b".xz".as_slice(), b".zst", b".gz"].iter().find_map(|ending| name.strip_suffix(*ending));
    let name = plain.unwrap_or(name).strip_suffix(b".ko")?;
    Some(String::from_utf8_lossy(name).replace('-', "_"))
}

/// Shows the path of every file in an initrd, in its order, until told to stop. Holds 640 KiB and what a decompressor
/// asks for, at most 128 MiB.
pub fn initrd_files(
    initrd: impl Read,
    see: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), InitrdError> {
    let mut input = BufReader::with_capacity(256 * 1024, initrd);
    let Some(magic) = archives(&mut input, see)? else { return Ok(()) };
    let packed = io::Cursor::new(magic).chain(input);
    let plain: Box<dyn Read> = match compression(&magic) {
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(packed)?.single_frame()),
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(packed)),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(io::Error::from)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        Compression::Other(name) => return Err(InitrdError::Unknown(format!("is compressed by {name}"))),
        Compression::None => {
            let magic: String = magic.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(InitrdError::Unknown(format!("has a part that begins with the bytes {magic}")));
        }
    };
    let mut plain = BufReader::with_capacity(256 * 1024, plain.take(LONGEST));
    match archives(&mut plain, see)? {
        None if plain.get_ref().limit() == 0 => {
            Err(InitrdError::Damaged(format!("unpacks to more than {LONGEST} bytes")))
        }
        None => Ok(()),
        Some(_) => {
            Err(InitrdError::Damaged("has something that is no archive inside its compressed part".into()))
        }
    }
}

enum Compression {
    Zstd,
    Gzip,
    Xz,
    Other(&'static str),
    None,
}

fn compression(magic: &[u8; MAGIC]) -> Compression {
    match magic {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Compression::Xz,
        [0x02, 0x21, 0x4c, 0x18, ..] => Compression::Other("lz4"),
        [0x89, b'L', b'Z', b'O', ..] => Compression::Other("lzo"),
        [b'B', b'Z', b'h', ..] => Compression::Other("bzip2"),
        [0x5d, 0, 0, ..] => Compression::Other("lzma"),
        _ => Compression::None,
    }
}

/// Reads archives up to the end (`None`), or up to something else, whose first bytes it gives. Told to stop is an end.
fn archives(
    input: &mut impl BufRead,
    see: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<Option<[u8; MAGIC]>, InitrdError> {
    loop {
        if skip_zeros(input)? {
            return Ok(None);
        }
        let mut magic = [0; MAGIC];
        input.read_exact(&mut magic)?;
        if !matches!(&magic, b"070701" | b"070702") {
            return Ok(Some(magic));
        }
        loop {
            let name = entry(input, see)?;
            match name {
                ControlFlow::Break(Ended::Archive) => break,
                ControlFlow::Break(Ended::Told) => return Ok(None),
                ControlFlow::Continue(()) => {}
            }
            input.read_exact(&mut magic)?;
            if !matches!(&magic, b"070701" | b"070702") {
                return Err(InitrdError::Damaged("has an archive without its last entry".into()));
            }
        }
    }
}

enum Ended {
    Archive,
    Told,
}

/// Reads one entry behind its magic, with its data and the zeros up to the next place that four divides.
fn entry(
    input: &mut impl BufRead,
    see: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<ControlFlow<Ended>, InitrdError> {
    let mut header = [0; HEADER - MAGIC];
    input.read_exact(&mut header)?;
    let number = |index: usize| {
        let digits = &header[8 * index..8 * (index + 1)];
        // A sign would pass from_str_radix.
        let digits = digits.iter().all(u8::is_ascii_hexdigit).then_some(digits)?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (Some(size), Some(name_size)) = (number(6), number(11)) else {
        return Err(InitrdError::Damaged("has an entry whose header is not numbers".into()));
    };
    if name_size == 0 || name_size > LONGEST_NAME {
        return Err(InitrdError::Damaged(format!("has an entry whose name takes {name_size} bytes")));
    }
    let mut name = vec![0; name_size as usize];
    input.read_exact(&mut name)?;
    let padding = |len: u64| len.wrapping_neg() % 4;
    skip(input, padding(HEADER as u64 + name_size))?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = &name[..end];
    if name == b"TRAILER!!!" {
        return Ok(ControlFlow::Break(Ended::Archive));
    }
    if see(name).is_break() {
        return Ok(ControlFlow::Break(Ended::Told));
    }
    skip(input, size)?;
    skip(input, padding(size))?;
    Ok(ControlFlow::Continue(()))
}

fn skip(input: &mut impl BufRead, bytes: u64) -> io::Result<()> {
    match io::copy(&mut input.take(bytes), &mut io::sink())? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Passes over zeros; whether that was all.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(true);
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let more = zeros < bytes.len();
        input.consume(zeros);
        if more {
            return Ok(false);
        }
    }
}

/// A content from its first byte to its last.
pub(crate) struct ContentReader<'a> {
    content: &'a Content,
    at: u64,
}

impl<'a> ContentReader<'a> {
    pub(crate) fn new(content: &'a Content) -> Self {
        Self { content, at: 0 }
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.content.len() - self.at).unwrap_or(usize::MAX);
        let want = buf.len().min(left);
        self.content.read_at(self.at, &mut buf[..want])?;
        self.at += want as u64;
        Ok(want)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::test_image::cpio;

    const KERNEL: &str = "6.12.1-cloud-amd64";

    fn names(initrd: &[u8]) -> Result<Vec<String>, InitrdError> {
        let mut names = Vec::new();
        initrd_files(initrd, &mut |name| {
            names.push(String::from_utf8_lossy(name).into_owned());
            ControlFlow::Continue(())
        })?;
        Ok(names)
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(bytes, 3).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn archives_follow_one_another_and_the_rest_is_compressed() {
        let early = cpio(&[("kernel/x86/microcode/GenuineIntel.bin", &[7; 1001])]);
        let modules = cpio(&[("usr/lib/modules/v/a.ko.xz", b"12345"), ("b", b"")]);
        let main = cpio(&[("init", b"#!/bin/sh\n"), ("usr/bin/sh", &[0; 70_000])]);
        let expected =
            ["kernel/x86/microcode/GenuineIntel.bin", "usr/lib/modules/v/a.ko.xz", "b", "init", "usr/bin/sh"];
        for pack in [zstd, gzip, xz, <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>] {
            let initrd =
                [&early[..], &[0; 512], &modules, &[0; 324], &pack(&[&main[..], &[0; 300]].concat())]
                    .concat();
            assert_eq!(names(&initrd).unwrap(), expected);
        }
    }

    #[test]
    fn modules_are_found_by_name_and_kernel_and_reading_stops_there() {
        let module = |name: &str| format!("usr/lib/modules/{KERNEL}/kernel/drivers/{name}");
        let wanted = BTreeSet::from(["nvme", "xen_blkfront"]);
        let look = |initrd: &[u8]| {
            let mut found = Found::default();
            find(initrd, KERNEL, &wanted, &mut found).map(|()| found)
        };
        let main = cpio(&[
            ("./init", b""),
            (&module("nvme.ko.zst"), b"x"),
            (&module("xen-blkfront.ko"), b"x"),
            ("last", b"x"),
        ]);
        let mut cut = main.clone();
        cut.truncate(main.len() - 140);
        let found = look(&cut).unwrap();
        assert!(found.init && found.modules.len() == 2);
        let other =
            cpio(&[("lib/modules/6.1.0/nvme.ko", b""), ("lib/modules/6.12.1-cloud-amd64-dbg/nvme.ko", b"")]);
        assert_eq!(look(&other).unwrap(), Found::default());
        assert!(matches!(look(&main[..200]), Err(InitrdError::Damaged(_))));
    }

    #[test]
    fn a_module_is_known_by_the_name_the_kernel_uses() {
        assert_eq!(module_name(b"kernel/drivers/block/xen-blkfront.ko.xz").as_deref(), Some("xen_blkfront"));
        assert_eq!(module_name(b"nvme.ko").as_deref(), Some("nvme"));
        assert_eq!(module_name(b"a/modules.builtin"), None);
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let early = cpio(&[("a", b"")]);
        let unknown = |tail: &[u8]| names(&[&early[..], tail].concat()).unwrap_err().to_string();
        assert_eq!(unknown(&[0x02, 0x21, 0x4c, 0x18, 1, 2, 3]), "is compressed by lz4");
        assert_eq!(unknown(b"squash.."), "has a part that begins with the bytes 737175617368");
        let mut packed = zstd(&cpio(&[("init", &[1; 5000])]));
        packed.truncate(packed.len() - 8);
        assert!(matches!(names(&packed), Err(InitrdError::Damaged(_))));
        assert!(matches!(names(&zstd(b"no archive at all")), Err(InitrdError::Damaged(_))));
        assert!(matches!(names(&early[..early.len() - 130]), Err(InitrdError::Damaged(_))));
        let mut signed = early;
        signed[MAGIC..MAGIC + 8].copy_from_slice(b"00000000");
        signed[MAGIC + 88..MAGIC + 96].copy_from_slice(b"+0000002");
        assert!(matches!(names(&signed), Err(InitrdError::Damaged(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = names(&bytes);
            let _ = names(&[b"070701".as_slice(), &bytes].concat());
        }

        #[test]
        fn a_changed_archive_is_read_or_refused(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            cut in any::<prop::sample::Index>(),
            packed in any::<bool>(),
        ) {
            let mut bytes = cpio(&[("init", b"x"), ("lib/modules/v/nvme.ko", &[3; 99]), ("z", b"")]);
            if packed {
                bytes = [cpio(&[("early", b"1")]), zstd(&bytes)].concat();
            }
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = names(&bytes);
        }

        #[test]
        fn every_name_is_seen(
            entries in proptest::collection::vec(("[a-zA-Z0-9/._-]{1,60}", proptest::collection::vec(any::<u8>(), 0..300)), 0..8),
        ) {
            let borrowed: Vec<(&str, &[u8])> = entries.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
            let expected: Vec<_> = entries.iter().map(|(name, _)| name.clone()).collect();
            prop_assert_eq!(names(&cpio(&borrowed)).unwrap(), expected);
        }
    }
}
