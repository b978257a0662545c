use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use debian::deb::Deb;
use debian::tar::Kind;
use rayon::prelude::*;
use tree::TreePath;

use crate::{Error, Fetched};

/// Unpacks packages into one folder as any user can: no owners, no devices, no set-user-id. Only names and bytes count
/// for tools. `only`: the paths to take, all if there are none.
pub(crate) fn unpack_all(root: &Path, fetched: &[Fetched], only: &[&str]) -> Result<(), Error> {
    fetched.par_iter().try_for_each(|fetched| {
        unpack(root, &fetched.path, only).map_err(|source| Error::Unpack {
            package: fetched.package.name.clone(),
            folder: root.to_owned(),
            source,
        })
    })
}

fn unpack(root: &Path, deb: &Path, only: &[&str]) -> io::Result<()> {
    let mut deb = Deb::open(deb).map_err(io::Error::other)?;
    let mut data = deb.data().map_err(io::Error::other)?;
    let mut made = HashSet::new();
    while let Some(mut member) = data.next().map_err(io::Error::other)? {
        let path = TreePath::new(&member.path).map_err(io::Error::other)?;
        if path.is_root() || !only.is_empty() && !only.iter().any(|name| name.as_bytes() == path.as_bytes()) {
            continue;
        }
        let target = place(root, &path)?;
        match &member.kind {
            Kind::Dir => make_folders(root, &path, &mut made)?,
            Kind::File { .. } => {
                if let Some(parent) = path.parent() {
                    make_folders(root, &parent, &mut made)?;
                }
                let mode = member.mode & 0o755 | 0o600;
                let mut options = fs::OpenOptions::new();
                // Names shared by packages hold the same bytes in all of them (Multi-Arch: same).
                let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&target)?;
                io::copy(&mut member, &mut file)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
            }
            Kind::Symlink(to) => {
                if let Some(parent) = path.parent() {
                    make_folders(root, &parent, &mut made)?;
                }
                match symlink(relative(&path, to), &target) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made?,
                }
            }
            Kind::Hardlink(to) => {
                let from = place(root, &TreePath::new(to).map_err(io::Error::other)?)?;
                match fs::hard_link(from, &target) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made?,
                }
            }
            // Nothing that a tool needs.
            _ => {}
        }
    }
    Ok(())
}

/// Where a path lies on the host. No component on the way may be a symbolic link: an archive cannot lead outside.
fn place(root: &Path, path: &TreePath) -> io::Result<PathBuf> {
    let mut at = root.to_owned();
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        at.push(std::ffi::OsStr::from_bytes(name));
        if names.peek().is_some() && fs::symlink_metadata(&at).is_ok_and(|found| found.is_symlink()) {
            return Err(io::Error::other(format!(
                "`/{path}` lies behind the symbolic link {}",
                at.display()
            )));
        }
    }
    Ok(at)
}

fn make_folders(root: &Path, path: &TreePath, made: &mut HashSet<TreePath>) -> io::Result<()> {
    if path.is_root() || made.contains(path) {
        return Ok(());
    }
    fs::create_dir_all(place(root, path)?)?;
    made.insert(path.clone());
    Ok(())
}

/// A link's target, rewritten so that an absolute one stays in the tree.
fn relative(path: &TreePath, to: &[u8]) -> PathBuf {
    let target = Path::new(std::ffi::OsStr::from_bytes(to));
    let Ok(inside) = target.strip_prefix("/") else { return target.to_owned() };
    let depth = path.components().count().saturating_sub(1);
    std::iter::repeat_n(Path::new(".."), depth).chain([inside]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_links_stay_in_the_tree() {
        let path = TreePath::new(b"etc/alternatives/nc").unwrap();
        assert_eq!(relative(&path, b"/usr/bin/nc.openbsd"), Path::new("../../usr/bin/nc.openbsd"));
        assert_eq!(relative(&path, b"nc.1"), Path::new("nc.1"));
    }

    #[test]
    fn a_path_behind_a_link_is_refused() {
        let root = tempfile::tempdir().unwrap();
        symlink("/etc", root.path().join("out")).unwrap();
        assert!(place(root.path(), &TreePath::new(b"out/passwd").unwrap()).is_err());
        assert!(place(root.path(), &TreePath::new(b"out").unwrap()).is_ok());
    }
}
