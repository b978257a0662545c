//! The tree of the host's programs: packages unpacked into the cache, fit to be mounted at `/.bh/tree`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use block::{Digest, Hasher};
use debian::deb::Deb;
use debian::tar::Kind;
use rayon::prelude::*;
use tools::Inside;
use tree::TreePath;

use crate::elf::{self, Needs};
use crate::{Error, FOLDER, Machine, TREE, choice};

/// Raised when trees get another shape.
const SHAPE: u32 = 5;

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
        let name = format!("{}-for-{}", Machine::HOST.name(), target.name());
        let (tree, _) =
            tools::sealed_tree(&cache.join("native"), &name, &key(packages, target), &|_| {}, |partial| {
                let usr = partial.join("usr");
                fs::create_dir(&usr).map_err(Error::io(usr, "cannot be made"))?;
                build(partial, packages, target)
            })?;
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
fn key(packages: &[NativePackage], target: Machine) -> Digest {
    let digests: BTreeSet<String> = packages.iter().map(|package| package.sha256.to_hex()).collect();
    let mut hasher = Hasher::new();
    hasher.field(&SHAPE.to_le_bytes());
    hasher.field(Machine::HOST.name().as_bytes());
    hasher.field(target.name().as_bytes());
    for digest in digests {
        hasher.field(digest.as_bytes());
    }
    hasher.finish()
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
    let mut tree = Inside::open(usr).map_err(Error::io(usr, "cannot be opened"))?;
    while let Some(mut member) = data.next()? {
        let whole = member.clean_path();
        let wrong = |problem: String| Error::Member {
            package: package.name.clone(),
            path: String::from_utf8_lossy(&whole).into_owned(),
            problem,
        };
        TreePath::new(&whole).map_err(|error| wrong(error.to_string()))?;
        let Some(path) = place(&whole) else { continue };
        let at = TreePath::new(path.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let refused = |error: io::Error| wrong(format!("cannot be unpacked: {error}"));
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
                let mode = Permissions::from_mode(if executable { 0o755 } else { 0o644 });
                let write = |mut file: File| {
                    file.write_all(&bytes)?;
                    file.set_permissions(mode)
                };
                tree.create(&at).and_then(write).map_err(refused)?;
            }
            Kind::Symlink(to) => tree.symlink(&inside(&path, &to), &at).map_err(refused)?,
            Kind::Hardlink(to) => {
                let Some(to) = place(&debian::tar::clean(&to)) else { continue };
                let from = TreePath::new(to.as_bytes()).map_err(|error| wrong(error.to_string()))?;
                tree.hard_link(&from, &at).map_err(refused)?;
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

/// Where a link of a package leads, seen from the tree, whose root is the package's `usr`. Where it leads out of `usr`,
/// nothing is found.
fn inside(path: &str, to: &[u8]) -> Vec<u8> {
    let mut at: Vec<&[u8]> = Vec::new();
    if !to.starts_with(b"/") {
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        at.extend(std::iter::once("usr").chain(above.split('/')).map(str::as_bytes));
    }
    for part in to.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(at.pop()),
            name => at.push(name),
        }
    }
    let below = at.strip_prefix(&[&b"usr"[..]]).unwrap_or(&at);
    [b"/", below.join(&b'/').as_slice()].concat()
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
    fn links_lead_where_they_would_in_a_root() {
        for (path, to, expected) in [
            ("bin/awk", "/usr/bin/mawk", "/bin/mawk"),
            ("lib/x/libm.so", "/lib/x/libm.so.6", "/lib/x/libm.so.6"),
            ("bin/sh", "dash", "/bin/dash"),
            ("lib/x/libz.so", "../../lib/x/libz.so.1", "/lib/x/libz.so.1"),
            ("lib/x/libz.so", "../../../lib/x/libz.so.1", "/lib/x/libz.so.1"),
            ("lib/x/libz.so", "../../../usr/lib/x/libz.so.1", "/lib/x/libz.so.1"),
            ("bin/x", "../../../../../../etc/passwd", "/etc/passwd"),
        ] {
            assert_eq!(String::from_utf8_lossy(&inside(path, to.as_bytes())), expected, "{path} -> {to}");
        }
    }

    #[test]
    fn no_link_of_a_package_leads_outside() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("escaped");
        let target = if Machine::HOST == Machine::X86_64 { Machine::Aarch64 } else { Machine::X86_64 };
        let host = folder.path().display();
        for (link, file) in [
            ("usr/bin/x -> ../../../../../escaped".to_owned(), "usr/bin/x"),
            (format!("usr/bin/x -> {host}/escaped"), "usr/bin/x"),
            ("usr/bin/x -> ../../../../..".to_owned(), "usr/bin/x/escaped"),
            (format!("usr/bin/x -> {host}"), "usr/bin/x/escaped"),
        ] {
            let package = |name: &str, member: &str| {
                let path = folder.path().join(name);
                fs::write(&path, lying_mirror::deb_of(&[member], "the stranger's")).unwrap();
                let sha256 = block::Digest::of(member.as_bytes());
                NativePackage { name: name.into(), version: "1".into(), sha256, path }
            };
            // In one package, and in two that are unpacked at the same time.
            let both = folder.path().join("both.deb");
            fs::write(&both, lying_mirror::deb_of(&[&link, file], "the stranger's")).unwrap();
            let one = NativePackage { path: both, ..package("one", &link) };
            for packages in [vec![one], vec![package("a", &link), package("b", file)]] {
                let cache = folder.path().join("cache");
                let done = NativeTree::prepare(&cache, &packages, target);
                assert!(!outside.exists(), "{link}, {file}");
                if let Err(error) = done {
                    let text = error.to_string();
                    assert!(
                        text.contains("/usr/bin/x/escaped cannot be unpacked: `/bin/x` is a symbolic link"),
                        "{text}"
                    );
                }
                fs::remove_dir_all(&cache).unwrap();
            }
        }
    }
}
