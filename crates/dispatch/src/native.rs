//! The tree of the host's programs: packages unpacked into the cache, fit to be mounted at `/.bh/tree`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use block::{Digest, Hasher};
use debian::deb::Deb;
use debian::tar::Kind;
use rayon::prelude::*;
use tree::TreePath;

use crate::elf::{self, Needs};
use crate::{Error, FOLDER, Machine, TREE, choice};

/// Raised when trees get another shape.
const SHAPE: u32 = 4;

/// A package for the host's architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativePackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SHA-256 of the file.
    pub sha256: Digest,
    /// The verified .deb file.
    pub path: PathBuf,
}

/// A program of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: String,
    pub(crate) version: String,
    /// Where the same program lies in the target, relative to its root.
    pub(crate) path: Vec<u8>,
    /// Where it lies in the tree, relative to its `usr`.
    pub(crate) native: String,
    /// `NAME=value` to start it with, or empty.
    pub(crate) variable: String,
}

/// The host's programs and libraries, unpacked.
#[derive(Clone, Debug)]
pub struct NativeTree {
    pub(crate) folder: PathBuf,
    pub(crate) programs: Vec<Program>,
}

impl NativeTree {
    /// The tree of these packages in the cache, unpacked on all cores when it is not there yet or damaged; it appears whole
    /// or not at all. `target`: the machine whose programs will be dispatched.
    pub fn prepare(cache: &Path, packages: &[NativePackage], target: Machine) -> Result<Self, Error> {
        let folder = cache.join("native");
        let tree = folder.join(key(packages, target));
        if tree.exists() && tools::check_seal(&tree).is_err() {
            tools::discard(&tree).map_err(Error::io(&tree, "is damaged and cannot be removed"))?;
        }
        if !tree.exists() {
            fs::create_dir_all(&folder).map_err(Error::io(&folder, "cannot be made"))?;
            let partial = tools::Partial::new(&folder, &key(packages, target))
                .map_err(Error::io(&folder, "cannot be written"))?;
            let usr = partial.path().join("usr");
            fs::create_dir(&usr).map_err(Error::io(usr, "cannot be made"))?;
            build(partial.path(), packages, target)?;
            tools::seal(partial.path()).map_err(Error::io(partial.path(), "cannot be read again"))?;
            match fs::rename(partial.path(), &tree) {
                // Somebody else made the same tree in the meantime: theirs is as good.
                Err(_) if tree.join(INDEX).exists() => {}
                renamed => renamed.map_err(Error::io(&tree, "cannot be put in place"))?,
            }
        }
        let index = tree.join(INDEX);
        let text = fs::read_to_string(&index).map_err(Error::io(&index, "cannot be read"))?;
        let programs = text.lines().filter_map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            Some(Program {
                package: fields.next()?,
                version: fields.next()?,
                path: fields.next()?.into_bytes(),
                native: fields.next()?,
                variable: fields.next()?,
            })
        });
        Ok(Self { programs: programs.collect(), folder: tree })
    }

    /// What is mounted at `/.bh/tree`.
    pub fn usr(&self) -> PathBuf {
        self.folder.join("usr")
    }

    /// How many programs it has.
    pub fn len(&self) -> usize {
        self.programs.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }
}

/// The tree's programs, a line each.
const INDEX: &str = "programs";

/// What a tree is known by: everything that shapes it.
fn key(packages: &[NativePackage], target: Machine) -> String {
    let digests: BTreeSet<String> = packages.iter().map(|package| package.sha256.to_hex()).collect();
    let mut hasher = Hasher::new();
    hasher.field(&SHAPE.to_le_bytes());
    hasher.field(Machine::HOST.name().as_bytes());
    hasher.field(target.name().as_bytes());
    for digest in digests {
        hasher.field(digest.as_bytes());
    }
    format!("{}-for-{}-{}", Machine::HOST.name(), target.name(), &hasher.finish().to_hex()[..12])
}

/// One file of a package that may be a program.
struct Candidate {
    package: usize,
    path: String,
}

/// What unpacking found.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    needs: BTreeMap<String, Needs>,
}

fn build(partial: &Path, packages: &[NativePackage], target: Machine) -> Result<(), Error> {
    let usr = partial.join("usr");
    let found: Vec<Found> = packages
        .par_iter()
        .enumerate()
        .map(|(index, package)| unpack(&usr, index, package, target))
        .collect::<Result<_, _>>()?;
    let needs: BTreeMap<&str, &Needs> =
        found.iter().flat_map(|found| &found.needs).map(|(path, needs)| (path.as_str(), needs)).collect();
    let variable = python(&usr)?;
    let mut index = String::new();
    for candidate in found.iter().flat_map(|found| &found.candidates) {
        let package = &packages[candidate.package];
        let name = candidate.path.rsplit('/').next().unwrap_or_default();
        if !choice::has_programs(&package.name)
            || !choice::may_run(name)
            || !whole(&usr, &candidate.path, &needs)
        {
            continue;
        }
        let target_path =
            format!("usr/{}", candidate.path).replace(Machine::HOST.triplet(), target.triplet());
        let variable = if name.starts_with("python3") { variable.as_str() } else { "" };
        index += &format!(
            "{}\t{}\t{target_path}\t{}\t{variable}\n",
            package.name, package.version, candidate.path
        );
    }
    let path = partial.join(INDEX);
    fs::write(&path, index).map_err(Error::io(path, "cannot be written"))
}

/// Where a package's path lies below `usr`, or `None` for what no program needs.
fn place(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?;
    let path = path.strip_prefix("usr/").unwrap_or(path);
    let (top, rest) = path.split_once('/')?;
    let unused = |start: &str| path.starts_with(start);
    let wanted = match top {
        "bin" | "sbin" | "lib64" | "libexec" => true,
        "lib" => {
            // Of python's own library the native modules; the rest is the target's.
            let python = rest
                .strip_prefix("python3.")
                .map(|rest| rest.contains("/lib-dynload/") || rest.contains("/_sysconfigdata"));
            python.unwrap_or(true)
                && !["lib/modules/", "lib/firmware/", "lib/debug/", "lib/grub/", "lib/locale/"]
                    .into_iter()
                    .any(unused)
                && !path.ends_with(".a")
        }
        _ => false,
    };
    (wanted && !path.contains(['\t', '\n'])).then(|| path.to_owned())
}

fn unpack(usr: &Path, index: usize, package: &NativePackage, target: Machine) -> Result<Found, Error> {
    let mut deb = Deb::open(&package.path)?;
    let mut data = deb.data()?;
    let mut found = Found::default();
    while let Some(mut member) = data.next()? {
        let path = member.clean_path();
        let wrong = |problem: String| Error::Member {
            package: package.name.clone(),
            path: String::from_utf8_lossy(&path).into_owned(),
            problem,
        };
        TreePath::new(&path).map_err(|error| wrong(error.to_string()))?;
        let Some(path) = place(&path) else { continue };
        let at = usr.join(&path);
        if let Some(parent) = at.parent()
            && !matches!(member.kind, Kind::Dir)
        {
            no_links(usr, &path).map_err(&wrong)?;
            fs::create_dir_all(parent).map_err(Error::io(parent, "cannot be made"))?;
        }
        let executable = member.mode & 0o111 != 0;
        match member.kind.clone() {
            Kind::File { .. } => {
                let mut bytes = Vec::new();
                member.read_to_end(&mut bytes).map_err(Error::io(&package.path, "cannot be read"))?;
                if let Some(needs) = adapt(&path, &mut bytes, target) {
                    if executable && (needs.interpreter.is_some() || needs.libraries.is_empty()) {
                        found.candidates.push(Candidate { package: index, path: path.clone() });
                    }
                    found.needs.insert(path.clone(), needs);
                }
                write(&at, &bytes, if executable { 0o755 } else { 0o644 })?;
            }
            Kind::Symlink(to) => {
                // A package's links stay below its own usr, wherever that is.
                let to = inside(&path, &to);
                match symlink(&to, &at) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(Error::io(&at, "cannot be made a link"))?,
                }
            }
            Kind::Hardlink(to) => {
                let Some(to) = place(&debian::tar::clean(&to)) else { continue };
                no_links(usr, &to).map_err(&wrong)?;
                fs::hard_link(usr.join(&to), &at).map_err(Error::io(&at, "cannot be linked"))?;
                if let Some(needs) = found.needs.get(&to).cloned() {
                    found.candidates.push(Candidate { package: index, path: path.clone() });
                    found.needs.insert(path, needs);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// No component on the way may be a link: an archive cannot lead outside.
fn no_links(usr: &Path, path: &str) -> Result<(), String> {
    let mut at = usr.to_owned();
    for name in Path::new(path).parent().unwrap_or(Path::new("")) {
        at.push(name);
        if fs::symlink_metadata(&at).is_ok_and(|found| found.is_symlink()) {
            return Err(format!("lies behind the link {}", at.display()));
        }
    }
    Ok(())
}

fn write(at: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(at)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(Error::io(at, "cannot be written"))
}

/// A link's target, so that an absolute one into /usr stays in the tree.
fn inside(path: &str, to: &[u8]) -> PathBuf {
    let target = Path::new(OsStr::from_bytes(to));
    let Ok(absolute) = target.strip_prefix("/") else { return target.to_owned() };
    let absolute = absolute.strip_prefix("usr").unwrap_or(absolute);
    let depth = path.split('/').count() - 1;
    std::iter::repeat_n(Path::new(".."), depth).chain([absolute]).collect()
}

/// Makes a file work from its new place; what it needs if it is of the host's ELF.
fn adapt(path: &str, bytes: &mut Vec<u8>, target: Machine) -> Option<Needs> {
    let host = Machine::HOST;
    let Some(before) = elf::needs(bytes, host.elf()) else {
        // Perl's own description of itself must speak of the target, and so python's.
        let name = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/perl") && matches!(name, "Config.pm" | "Config_heavy.pl" | "Config_git.pl")
            || name.starts_with("_sysconfigdata")
        {
            *bytes = replace_text(bytes, host.triplet().as_bytes(), target.triplet().as_bytes());
        }
        return None;
    };
    let libraries = format!("/usr/lib/{}", host.triplet());
    overwrite(bytes, libraries.as_bytes(), format!("{FOLDER}/lib/{}", host.triplet()).as_bytes());
    let (loader, new_loader) = host.loader();
    if let Some(range) = &before.interpreter_text
        && before.interpreter.as_deref() == Some(loader.as_bytes())
    {
        bytes[range.start..range.start + new_loader.len()].copy_from_slice(new_loader.as_bytes());
    }
    for range in &before.folder_texts {
        let text = &mut bytes[range.clone()];
        overwrite(text, b"/usr/lib/", b"/.bh/lib/");
    }
    if path.rsplit('/').next().is_some_and(|name| name.starts_with("ld-linux")) {
        overwrite(bytes, b"/etc/ld.so.cache", b"/.bh/ld.so.cache");
        overwrite(bytes, b"/etc/ld.so.preload", b"/.bh/ld.so.preload");
    }
    elf::needs(bytes, host.elf())
}

/// Puts `new` wherever `old` is; both are equally long.
fn overwrite(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], old) {
        bytes[from + at..from + at + old.len()].copy_from_slice(new);
        from += at + old.len();
    }
}

fn replace_text(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(at) = find(rest, old) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    loop {
        from += bytes.get(from..)?.iter().position(|byte| *byte == first)?;
        if bytes[from..].starts_with(wanted) {
            return Some(from);
        }
        from += 1;
    }
}

/// Whether the loader will find every library that a program needs, and those that they need.
fn whole(usr: &Path, program: &str, needs: &BTreeMap<&str, &Needs>) -> bool {
    let usual = [format!("lib/{}", Machine::HOST.triplet()), "lib64".into(), "lib".into()];
    let mut waiting = vec![program.to_owned()];
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        // What a link leads to.
        let Ok(real) = usr.join(&path).canonicalize() else { return false };
        let Some(real) =
            usr.canonicalize().ok().and_then(|usr| real.strip_prefix(usr).ok().map(PathBuf::from))
        else {
            return false;
        };
        let Some(real) = real.to_str() else { return false };
        if !seen.insert(real.to_owned()) {
            continue;
        }
        let Some(needs) = needs.get(real) else { return false };
        for library in &needs.libraries {
            let Ok(library) = std::str::from_utf8(library) else { return false };
            let folders = needs.folders.iter().filter_map(|folder| {
                std::str::from_utf8(folder).ok()?.strip_prefix(FOLDER)?.strip_prefix('/').map(str::to_owned)
            });
            let place = folders
                .chain(usual.iter().cloned())
                .map(|folder| format!("{folder}/{library}"))
                .find(|place| usr.join(place).exists());
            let Some(place) = place else { return false };
            waiting.push(place);
        }
    }
    true
}

/// Gathers python's native modules in a folder of their own, so that everything else is taken from the target; the
/// variable that makes python look there.
fn python(usr: &Path) -> Result<String, Error> {
    let folder = usr.join("python");
    fs::create_dir_all(&folder).map_err(Error::io(&folder, "cannot be made"))?;
    let link = |from: &Path, name: &OsStr| {
        let relative = Path::new("..").join(from.strip_prefix(usr).unwrap_or(from));
        let at = folder.join(name);
        symlink(relative, &at).map_err(Error::io(at, "cannot be made a link"))
    };
    let mut paths = vec![format!("{FOLDER}/{TREE}/python")];
    for entry in sorted(&usr.join("lib/python3/dist-packages"))? {
        if has_modules(&entry)? {
            link(&entry, entry.file_name().unwrap_or_default())?;
        }
    }
    for version in sorted(&usr.join("lib"))? {
        let name = version.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("python3.") {
            continue;
        }
        if version.join("lib-dynload").is_dir() {
            paths.push(format!("{FOLDER}/{TREE}/lib/{name}/lib-dynload"));
        }
        for entry in sorted(&version)? {
            let name = entry.file_name().unwrap_or_default();
            if name.as_bytes().starts_with(b"_sysconfigdata") {
                link(&entry, name)?;
            }
        }
    }
    Ok(format!("PYTHONPATH={}", paths.join(":")))
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(folder, "cannot be read")(error)),
    };
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(Error::io(folder, "cannot be read"))?;
    paths.sort();
    Ok(paths)
}

/// Whether a path is a native module, or a folder with one in it.
fn has_modules(path: &Path) -> Result<bool, Error> {
    if !path.is_dir() {
        return Ok(path.extension().is_some_and(|extension| extension == "so"));
    }
    for entry in sorted(path)? {
        if has_modules(&entry)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_tree_is_found_and_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let target = match Machine::HOST {
            Machine::X86_64 => Machine::Aarch64,
            Machine::Aarch64 => Machine::X86_64,
        };
        let prepare = || NativeTree::prepare(cache.path(), &[], target).unwrap();
        let tree = prepare();
        fs::write(tree.folder.join(INDEX), "evil\t1\tusr/bin/sh\tbin/evil\t\n").unwrap();
        let again = prepare();
        assert!(again.is_empty() && again.folder == tree.folder);
        fs::remove_dir_all(tree.folder.join("usr")).unwrap();
        fs::remove_file(tree.folder.join(INDEX)).unwrap();
        assert!(prepare().usr().is_dir());
        assert_eq!(fs::read_dir(cache.path().join("native")).unwrap().count(), 1);
    }

    #[test]
    fn only_what_programs_need_is_kept() {
        let kept = |path: &str| place(path.as_bytes());
        assert_eq!(kept("bin/dash").as_deref(), Some("bin/dash"));
        assert_eq!(kept("usr/bin/dash").as_deref(), Some("bin/dash"));
        assert_eq!(kept("lib/x86_64-linux-gnu/libc.so.6").as_deref(), Some("lib/x86_64-linux-gnu/libc.so.6"));
        assert_eq!(
            kept("usr/lib/python3.13/lib-dynload/_json.so").as_deref(),
            Some("lib/python3.13/lib-dynload/_json.so")
        );
        for path in [
            "usr/share/doc/dash/copyright",
            "etc/shells",
            "usr/lib/python3.13/os.py",
            "usr",
            "lib/modules/6/x",
        ] {
            assert_eq!(kept(path), None, "{path}");
        }
    }

    #[test]
    fn places_of_libraries_are_renamed() {
        let mut bytes = b"\0/usr/lib/x\0/usr/lib/x/perl\0/lib/x\0".to_vec();
        overwrite(&mut bytes, b"/usr/lib/x", b"/.bh/lib/x");
        assert_eq!(bytes, b"\0/.bh/lib/x\0/.bh/lib/x/perl\0/lib/x\0");
        assert_eq!(
            replace_text(b"arch=x86_64-linux-gnu;", b"x86_64", b"aarch64"),
            b"arch=aarch64-linux-gnu;"
        );
    }

    #[test]
    fn absolute_links_stay_in_the_tree() {
        assert_eq!(inside("bin/awk", b"/usr/bin/mawk"), Path::new("../bin/mawk"));
        assert_eq!(inside("lib/x/libm.so", b"/lib/x/libm.so.6"), Path::new("../../lib/x/libm.so.6"));
        assert_eq!(inside("bin/sh", b"dash"), Path::new("dash"));
    }
}
