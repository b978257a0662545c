use std::io::{Cursor, Read};
use std::path::Path;

use debian::deb::{Deb, Limits};
use debian::tar::{Archive, Kind, Member, clean};

use super::can_be_shown;
use crate::Target;

const BLOCK: usize = 512;
/// Longest name that an archive may bring, and longest pax header: what the reader promises.
const LONGEST_NAME: usize = 1 << 20;

pub(super) const TAR: Target = Target {
    words: &[
        b"ustar\0",
        b"ustar  \0",
        b"../",
        b"/",
        b"././@LongLink",
        b"30 mtime=1350244992.023960108\n",
        b"14 path=../../x\n",
        b"12 size=4096\n",
        b"21 GNU.sparse.major=1\n",
        b"28 SCHILY.xattr.user.a=value\n",
    ],
    repair: repair_tar,
    // Names and pax headers of a MiB each are taken whole, and shown whole in errors.
    fixed_memory: 16 << 20,
    ..Target::new("tar", "a tar archive, as one lies in a package", 16 << 10, |input| {
        let mut archive = Archive::new(input);
        let mut content = 0;
        while let Some(mut member) = match archive.next() {
            Ok(member) => member,
            Err(error) => return can_be_shown(&error),
        } {
            check_member(&member);
            let Ok(read) = std::io::copy(&mut member, &mut std::io::sink()) else { return };
            content += read;
            match member.kind {
                Kind::File { size } => assert_eq!(read, size, "a file is as long as its header says"),
                _ => assert_eq!(read, 0, "only files have content"),
            }
        }
        assert!(content <= input.len() as u64, "content comes from the archive");
        assert!(matches!(archive.next(), Ok(None)), "after the end there is nothing");
    })
};

fn check_member<R: Read>(member: &Member<'_, R>) {
    let names_fit = |path: &[u8]| {
        assert!(!path.is_empty() && path.len() <= LONGEST_NAME && !path.contains(&0));
        assert!(!path.starts_with(b"/"), "a name stays below the root");
        assert!(path.split(|byte| *byte == b'/').all(|part| part != b".."), "a name stays below the root");
        assert_eq!(clean(&clean(path)), clean(path), "a clean name is clean");
    };
    names_fit(&member.path);
    match &member.kind {
        Kind::Hardlink(target) => names_fit(target),
        Kind::Symlink(target) => assert!(!target.is_empty() && !target.contains(&0)),
        _ => {}
    }
    assert!(member.mode <= 0o7777);
}

/// Gives each header that can be reached its checksum.
fn repair_tar(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..136].iter().skip_while(|byte| !byte.is_ascii_digit());
        let size = digits
            .take_while(|byte| (b'0'..=b'7').contains(*byte))
            .fold(0_usize, |size, digit| size << 3 | usize::from(digit - b'0'));
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
}

pub(super) const DEB: Target = Target {
    words: &[
        b"!<arch>\n",
        b"`\n",
        b"debian-binary   ",
        b"control.tar     ",
        b"data.tar.xz     ",
        b"data.tar.zst    ",
        b"_gpgbuilder     ",
        b"2.0\n",
    ],
    repair: repair_deb,
    // An xz stream's dictionary, as large as the reader lets it be, and zstd's window of 128 MiB.
    fixed_memory: 600 << 20,
    ..Target::new("deb", "a package file: ar, compression, tar, control file", 16 << 10, |input| {
        let limits = Limits { control: 1 << 20, data: 1 << 20 };
        let mut deb = match Deb::new(Cursor::new(input), Path::new("a.deb"), limits) {
            Ok(deb) => deb,
            Err(error) => return can_be_shown(&error),
        };
        let control = deb.control();
        if let Err(error) = &control {
            can_be_shown(error);
        }
        if let Ok(control) = control {
            assert!(control.files.contains_key("control"));
            assert!(control.files.keys().all(|name| !name.contains('/') && name != ".."));
            let held: usize = control.files.values().map(|file| file.bytes.len()).sum();
            assert!(held as u64 <= limits.control, "no more than the limit is unpacked");
        }
        let Ok(mut data) = deb.data() else { return };
        let mut content = 0;
        while let Ok(Some(mut member)) = data.next() {
            check_member(&member);
            let Ok(read) = std::io::copy(&mut member, &mut std::io::sink()) else { return };
            content += read;
        }
        assert!(content <= limits.data, "no more than the limit is unpacked");
    })
};

/// Ends each header of the outer archive as it must, and repairs what is not compressed.
fn repair_deb(file: &mut [u8]) {
    let mut at = 8;
    while let Some(header) = file.get_mut(at..at + 60) {
        header[58..].copy_from_slice(b"`\n");
        let name = header[..16].trim_ascii().to_vec();
        let size =
            std::str::from_utf8(&header[48..58]).ok().and_then(|text| text.trim_end().parse::<usize>().ok());
        let Some(size) = size else { return };
        let Some(end) = (at + 60).checked_add(size) else { return };
        if let Some(content) = file.get_mut(at + 60..end)
            && name.ends_with(b".tar")
        {
            repair_tar(content);
        }
        at = end + size % 2;
    }
}
