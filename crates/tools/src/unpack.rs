use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use debian::deb::Deb;
use debian::tar::Kind;
use rayon::prelude::*;
use tree::TreePath;

use crate::inside::Inside;
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

/// Adds folders and files (path and text) to a tree, in place of what its packages have there.
pub(crate) fn add(root: &Path, folders: &[&str], files: &[(&str, &str)]) -> Result<(), Error> {
    let mut inside = Inside::open(root).map_err(Error::io(root))?;
    let mut add = |name: &str, text: Option<&str>| {
        let path = TreePath::new(name.as_bytes()).map_err(io::Error::other)?;
        match text {
            None => inside.make_folder(&path),
            Some(text) => inside.create(&path)?.write_all(text.as_bytes()),
        }
    };
    let folders = folders.iter().map(|name| (*name, None));
    for (name, text) in folders.chain(files.iter().map(|(name, text)| (*name, Some(*text)))) {
        add(name, text).map_err(Error::io(&root.join(name)))?;
    }
    Ok(())
}

fn unpack(root: &Path, deb: &Path, only: &[&str]) -> io::Result<()> {
    let mut deb = Deb::open(deb).map_err(io::Error::other)?;
    let mut data = deb.data().map_err(io::Error::other)?;
    let mut root = Inside::open(root)?;
    while let Some(mut member) = data.next().map_err(io::Error::other)? {
        let path = TreePath::new(&member.path).map_err(io::Error::other)?;
        if path.is_root() || !only.is_empty() && !only.iter().any(|name| name.as_bytes() == path.as_bytes()) {
            continue;
        }
        match &member.kind {
            Kind::Dir => root.make_folder(&path)?,
            Kind::File { .. } => {
                let mode = member.mode & 0o755 | 0o600;
                let mut file = root.create(&path)?;
                io::copy(&mut member, &mut file)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
            }
            Kind::Symlink(to) => root.symlink(to, &path)?,
            Kind::Hardlink(to) => root.hard_link(&TreePath::new(to).map_err(io::Error::other)?, &path)?,
            // Nothing that a tool needs.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::inside::within;

    /// A package of [`lying_mirror::deb_of`] these members.
    fn deb(folder: &Path, package: &str, members: &[&str], text: &str) -> Fetched {
        let path = folder.join(format!("{package}.deb"));
        fs::write(&path, lying_mirror::deb_of(members, text)).unwrap();
        Fetched { package: crate::Package { name: package.into(), version: "1".into() }, path }
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn no_link_of_a_package_leads_another_package_outside() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("escaped");
        let host = folder.path().display();
        for (link, file) in [
            ("usr/share/x -> ../../../escaped".to_owned(), "usr/share/x"),
            (format!("usr/share/x -> {host}/escaped"), "usr/share/x"),
            ("usr/share/x -> ../../..".to_owned(), "usr/share/x/escaped"),
            (format!("usr/share/x -> {host}"), "usr/share/x/escaped"),
        ] {
            let root = folder.path().join("root");
            fs::create_dir(&root).unwrap();
            let aa = deb(folder.path(), "aa", &[&link], "");
            let bb = deb(folder.path(), "bb", &[file], "bytes of bb");
            let done = unpack_all(&root, &[aa], &[]).and_then(|()| unpack_all(&root, &[bb], &[]));
            assert!(!outside.exists(), "{link}, {file}");
            match done {
                Ok(()) => assert_eq!(read(root.join(file)), "bytes of bb"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("`bb` could not be unpacked"), "{text}");
                    assert!(text.contains("`/usr/share/x` is a symbolic link, and"), "{text}");
                }
            }
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn links_inside_the_tree_lead_where_they_would_in_a_root() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let members = [
            "lib -> usr/lib",
            "lib64 -> /usr/lib",
            "usr/lib/loader",
            "usr/lib/again => usr/lib/loader",
            "usr/bin/",
            "usr/bin/X11 -> .",
            "usr/bin/run -> ../lib/loader",
            "etc/alternatives/run -> /usr/bin/run",
            "etc/far -> ../../../../../usr/lib/loader",
        ];
        unpack_all(&root, &[deb(folder.path(), "aa", &members, "a loader")], &[]).unwrap();
        // A folder that another package has made a link of.
        unpack_all(&root, &[deb(folder.path(), "bb", &["lib/", "usr/lib/loader"], "a loader")], &[]).unwrap();
        for path in ["lib/loader", "lib64/again", "usr/bin/X11/X11/run", "etc/alternatives/run", "etc/far"] {
            assert_eq!(read(root.join(path)), "a loader", "{path}");
        }
        let mode = fs::metadata(root.join("lib/loader")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn what_is_added_to_a_tree_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(folder.path().join("passwd"), "the host's").unwrap();
        std::os::unix::fs::symlink(folder.path(), root.join("etc")).unwrap();
        let error = add(&root, &["proc", "etc"], &[("etc/passwd", "the tree's")]).unwrap_err().to_string();
        assert!(error.contains("`/etc` is a symbolic link"), "{error}");
        assert_eq!(read(folder.path().join("passwd")), "the host's");
        fs::remove_file(root.join("etc")).unwrap();
        add(&root, &["proc"], &[("etc/passwd", "the tree's")]).unwrap();
        assert_eq!(read(root.join("etc/passwd")), "the tree's");
        assert!(root.join("proc").is_dir());
    }

    #[test]
    fn a_hard_link_moves_no_symbolic_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let members = ["a/b/up -> ../../x", "down => a/b/up"];
        let error = unpack_all(&root, &[deb(folder.path(), "aa", &members, "")], &[]).unwrap_err();
        assert!(
            error.to_string().contains("`/down` is a hard link to `/a/b/up`, which is no file"),
            "{error}"
        );
        assert!(fs::symlink_metadata(root.join("down")).is_err());
    }

    #[test]
    fn a_links_target_goes_up_to_the_root_and_then_down() {
        let path = TreePath::new(b"etc/alternatives/nc").unwrap();
        for (to, expected) in [
            ("/usr/bin/nc.openbsd", "../../usr/bin/nc.openbsd"),
            ("nc.1", "nc.1"),
            ("./../alternatives//nc.1", "nc.1"),
            ("../../../../escaped", "../../escaped"),
            ("usr/../../../../escaped", "../../escaped"),
            ("/../..", "../.."),
            (".", "."),
        ] {
            assert_eq!(within(&path, to.as_bytes()), Path::new(expected), "{to}");
        }
    }
}
