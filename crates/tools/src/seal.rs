use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use block::{Digest, Hasher};
use rayon::prelude::*;

use crate::Partial;

/// The file that tells what a tree holds.
const SEAL: &str = "seal";

/// Writes down what is in a tree, by hash, into a file of its own: the last thing before the tree gets its name.
///
/// ```text
/// <sha-256 of the content> <mode, octal> <path>\n      a file
/// <sha-256 of the target> link <path>\n                a link
/// <sha-256 of all the lines above>\n
/// ```
pub(crate) fn seal(tree: &Path) -> io::Result<()> {
    let mut paths = Vec::new();
    collect(tree, Path::new(""), &mut paths)?;
    paths.sort();
    let lines: Vec<Vec<u8>> = paths.par_iter().map(|path| line(tree, path)).collect::<io::Result<_>>()?;
    let mut text = lines.concat();
    let own = format!("{}\n", Digest::of(&text));
    text.extend_from_slice(own.as_bytes());
    fs::write(tree.join(SEAL), text)
}

/// Whether a tree is as it was when it was sealed; else what is wrong with it. Files that were added do not count.
pub(crate) fn check_seal(tree: &Path) -> Result<(), String> {
    let damaged = || "its list of files is damaged".to_owned();
    let text =
        fs::read(tree.join(SEAL)).map_err(|error| format!("its list of files cannot be read ({error})"))?;
    let text = text.strip_suffix(b"\n").ok_or_else(damaged)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let (lines, own) = text.split_at(end);
    if own != Digest::of(lines).to_string().as_bytes() {
        return Err(damaged());
    }
    let lines: Vec<&[u8]> = lines.split_inclusive(|byte| *byte == b'\n').collect();
    lines.par_iter().try_for_each(|expected| {
        let path = expected.trim_ascii_end().splitn(3, |byte| *byte == b' ').nth(2).ok_or_else(damaged)?;
        let path = Path::new(OsStr::from_bytes(path));
        match line(tree, path) {
            Ok(found) if found == *expected => Ok(()),
            Ok(_) => Err(format!("{} was changed", path.display())),
            Err(error) => Err(format!("{} cannot be read ({error})", path.display())),
        }
    })
}

/// Takes a tree out of its place and removes it; nobody finds half of it.
pub(crate) fn discard(tree: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (tree.parent(), tree.file_name().and_then(OsStr::to_str)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let partial = Partial::new(parent, name)?;
    match fs::rename(tree, partial.path().join("damaged")) {
        // Somebody else did the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

fn collect(tree: &Path, below: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(tree.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(tree, &path, paths)?;
        } else if path.as_os_str().as_bytes().contains(&b'\n') {
            return Err(io::Error::other(format!("{}: a line break in a name", path.display())));
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

fn line(tree: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let at = tree.join(path);
    let metadata = fs::symlink_metadata(&at)?;
    let (digest, kind) = if metadata.is_symlink() {
        (Digest::of(&fs::read_link(&at)?.into_os_string().into_vec()), "link".to_owned())
    } else {
        (hash(&at)?, format!("{:o}", metadata.permissions().mode() & 0o7777))
    };
    let mut line = format!("{digest} {kind} ").into_bytes();
    line.extend_from_slice(path.as_os_str().as_bytes());
    line.push(b'\n');
    Ok(line)
}

fn hash(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            got => hasher.update(&buffer[..got]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_is_found_and_named() {
        let parent = tempfile::tempdir().unwrap();
        let tree = parent.path().join("boot-0123456789ab");
        let make = || {
            fs::create_dir_all(tree.join("root/usr")).unwrap();
            fs::write(tree.join("root/usr/a b"), "one").unwrap();
            fs::write(tree.join("tree.json"), "[]").unwrap();
            std::os::unix::fs::symlink("a b", tree.join("root/usr/link")).unwrap();
            seal(&tree).unwrap();
        };
        make();
        assert_eq!(check_seal(&tree), Ok(()));
        let damages: [(&dyn Fn() -> io::Result<()>, &str); 6] = [
            (&|| fs::write(tree.join("root/usr/a b"), "onE"), "root/usr/a b was changed"),
            (&|| fs::remove_file(tree.join("root/usr/a b")), "root/usr/a b cannot be read"),
            (
                &|| fs::set_permissions(tree.join("tree.json"), PermissionsExt::from_mode(0o600)),
                "tree.json was changed",
            ),
            (&|| fs::remove_file(tree.join("root/usr/link")), "root/usr/link cannot be read"),
            (&|| fs::remove_file(tree.join(SEAL)), "its list of files cannot be read"),
            (
                &|| fs::write(tree.join(SEAL), &fs::read(tree.join(SEAL))?[..100]),
                "its list of files is damaged",
            ),
        ];
        for (damage, told) in damages {
            damage().unwrap();
            let found = check_seal(&tree).unwrap_err();
            assert!(found.contains(told), "{found}");
            discard(&tree).unwrap();
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
            make();
        }
    }
}
