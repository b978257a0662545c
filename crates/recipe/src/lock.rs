use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use block::Digest;
use catalog::{format_time, parse_time};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::Arch;
use crate::decode::{is_package_name, is_package_version};

/// The version of the lock's format that is written. Others are refused.
pub const LOCK_VERSION: u32 = 1;
/// The largest lock that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// What a recipe's packages were when it was locked: everything that another machine needs to bake the same bytes.
/// It names no mirror: mirrors differ between machines, locks do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The versions of the program's own writers that shape bytes, by name: `ext4` → 1.
    pub writers: BTreeMap<String, u32>,
    /// The newest Date of the InRelease files, in seconds since 1970.
    pub time: i64,
    /// The repository metadata that the packages were found in.
    pub sources: Vec<LockedSource>,
    /// What is locked for each architecture.
    pub archs: BTreeMap<Arch, LockedArch>,
}

/// What is locked for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedArch {
    /// [`crate::request_digest`] of the recipe that was locked.
    pub request: Digest,
    /// The parent that the image's blocks are laid out against.
    pub parent: Option<LockedParent>,
    /// The packages, sorted by name.
    pub packages: Vec<LockedPackage>,
    /// Packages of the other architecture in the same versions, sorted by name: what a host of that architecture runs in
    /// place of the image's own programs while it bakes. They shape no byte of the image.
    pub native: Vec<LockedPackage>,
}

/// The image that another is laid out against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockedParent {
    /// The digest of its root volume's snapshot.
    pub image: Digest,
    /// The SHA-256 of the file beside the lock that says where things lie in it.
    pub layout: Digest,
}

impl LockedArch {
    /// Which architecture its `native` packages are for.
    fn counterpart(arch: Arch) -> Arch {
        match arch {
            Arch::X86_64 => Arch::Aarch64,
            Arch::Aarch64 => Arch::X86_64,
        }
    }
}

/// Which of a suite's repositories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceRole {
    /// The release itself.
    Main,
    /// Its updates.
    Updates,
    /// Its security fixes, which live on a mirror of their own.
    Security,
}

impl SourceRole {
    /// The name in locks: `main`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Updates => "updates",
            Self::Security => "security",
        }
    }
}

/// One InRelease file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedSource {
    /// Which of the suite's repositories; the mirror follows from it.
    pub role: SourceRole,
    /// The suite's name in the archive: `trixie-updates`.
    pub suite: String,
    /// The components in use.
    pub components: Vec<String>,
    /// Its Date, in seconds since 1970.
    pub date: i64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// One package file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// Bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its path below the mirror's root: `pool/main/a/apache2/…`.
    pub filename: String,
    /// Which of the lock's sources lists it.
    pub source: usize,
    /// Whether it is there only because another needs it.
    pub auto: bool,
}

/// Why a lock cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be read or written.
    #[error("{path}: the lock cannot be {action}: {error}", path = path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The text is not a lock.
    #[error(
        "{path}:{line}:{column}: the lock is damaged: {message}; restore it, or write it anew with --update",
        path = path.display()
    )]
    Damaged {
        /// The lock's file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// Another file lies where the lock belongs.
    #[error("{}: is there and is no lock, and stays as it is: name another file with --lock", path.display())]
    Other {
        /// That file.
        path: PathBuf,
    },
    /// Another version of the program wrote it.
    #[error(
        "{path}:{line}: the lock has format version {found}, this program knows version {LOCK_VERSION}; use the program \
         that wrote it, or write it anew with --update",
        path = path.display()
    )]
    Version {
        /// The lock's file.
        path: PathBuf,
        /// Line of the version.
        line: usize,
        /// The version found.
        found: i64,
    },
}

/// Whether a text is a lock, however damaged, or nothing. Any other text is somebody's who put it there for a reason.
fn is_like_a_lock(text: &str) -> bool {
    let line = |line: &str| {
        let version = line.strip_prefix("version = ").unwrap_or_default().trim_end();
        let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
        is_number || line.starts_with("# Written by bakehouse") || line.trim_end() == "[writers]"
    };
    text.trim().is_empty() || text.lines().any(line)
}

impl Lock {
    /// What is locked for an architecture.
    pub fn for_arch(&self, arch: Arch) -> Option<&LockedArch> {
        self.archs.get(&arch)
    }

    /// The suite of the release itself: `trixie`. Empty for a lock without sources.
    pub fn suite(&self) -> &str {
        let main = self.sources.iter().find(|source| source.role == SourceRole::Main);
        main.map_or("", |source| &source.suite)
    }

    /// The SHA-256 of the lock's text without what shapes no image (`native`): the same for the same content, however it
    /// came about and whatever kind of machine wrote it.
    pub fn digest(&self) -> Digest {
        let mut lock = self.clone();
        lock.archs.values_mut().for_each(|locked| locked.native.clear());
        Digest::of(lock.to_text().as_bytes())
    }

    /// Reads a lock; `None` when there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, LockError> {
        let fail = |error| LockError::Io { path: path.to_owned(), action: "read", error };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
            Ok(metadata) if metadata.len() > MAX_FILE => {
                return Err(LockError::Damaged {
                    path: path.to_owned(),
                    line: 1,
                    column: 1,
                    message: format!("it is larger than {} MiB", MAX_FILE >> 20),
                });
            }
            Ok(_) => {}
        }
        let bytes = std::fs::read(path).map_err(fail)?;
        match String::from_utf8(bytes) {
            Ok(text) if !is_like_a_lock(&text) => Err(LockError::Other { path: path.to_owned() }),
            Ok(text) => Self::from_text(&text, path).map(Some),
            Err(error) if !is_like_a_lock(&String::from_utf8_lossy(error.as_bytes())) => {
                Err(LockError::Other { path: path.to_owned() })
            }
            Err(error) => {
                let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let message = "it is not UTF-8 text".to_owned();
                Err(LockError::Damaged { path: path.to_owned(), line, column: 1, message })
            }
        }
    }

    /// Writes the lock beside its place, then moves it there: whoever reads finds the old text or the new one.
    /// Nothing is promised about a machine that loses its power.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let fail = |error| LockError::Io { path: path.to_owned(), action: "written", error };
        replace_file(path, self.to_text().as_bytes()).map_err(fail)
    }

    /// Whether a lock could be written to a place now. To be asked before the work for one.
    pub fn check_place(path: &Path) -> Result<(), LockError> {
        let fail = |error| LockError::Io { path: path.to_owned(), action: "written", error };
        file_beside(path).map(drop).map_err(fail)
    }

    /// The lock as text: one line for each package, sorted, so that a change shows as the lines that changed. Ends
    /// with a line break.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> fmt::Result {
        // Sources are sorted in the text, so packages may have to point at other numbers than in memory.
        let mut order: Vec<usize> = (0..self.sources.len()).collect();
        order.sort_by_key(|index| {
            let source = &self.sources[*index];
            (source.role, &source.suite, source.date, source.sha256)
        });
        writeln!(out, "# Written by bakehouse: the packages that this recipe's images are made of.")?;
        writeln!(out, "# Keep it with the recipe; `bakehouse bake --update` renews it.")?;
        writeln!(out, "version = {LOCK_VERSION}")?;
        writeln!(out, "time = {}", quoted(&format_time(self.time)))?;
        writeln!(out, "\n[writers]")?;
        for (name, version) in &self.writers {
            writeln!(out, "{} = {version}", quoted(name))?;
        }
        for index in &order {
            let source = &self.sources[*index];
            writeln!(out, "\n[[source]]")?;
            writeln!(out, "role = {}", quoted(source.role.as_str()))?;
            writeln!(out, "suite = {}", quoted(&source.suite))?;
            let components: BTreeSet<String> =
                source.components.iter().map(|component| quoted(component)).collect();
            writeln!(out, "components = [{}]", components.into_iter().collect::<Vec<_>>().join(", "))?;
            writeln!(out, "date = {}", quoted(&format_time(source.date)))?;
            writeln!(out, "sha256 = {}", quoted(&source.sha256.to_hex()))?;
        }
        for (arch, locked) in &self.archs {
            writeln!(out, "\n[arch.{arch}]")?;
            writeln!(out, "request = {}", quoted(&locked.request.to_hex()))?;
            if let Some(parent) = &locked.parent {
                writeln!(out, "parent = {}", quoted(&parent.image.to_hex()))?;
                writeln!(out, "layout = {}", quoted(&parent.layout.to_hex()))?;
            }
            write_packages(out, "packages", &locked.packages, &order)?;
            if !locked.native.is_empty() {
                write_packages(out, "native", &locked.native, &order)?;
            }
        }
        Ok(())
    }

    /// Reads a lock's text; `path` is for messages.
    pub fn from_text(text: &str, path: &Path) -> Result<Self, LockError> {
        let damaged = |at: usize, message: String| {
            let (line, column) = position(text, at);
            // It may quote the file.
            let message = block::without_escapes(&message);
            LockError::Damaged { path: path.to_owned(), line, column, message }
        };
        let toml_error = |error: toml::de::Error| {
            damaged(error.span().map_or(0, |span| span.start), error.message().replace('\n', ", "))
        };
        // The version is looked at before all else: another version may have other keys.
        let head: Head = toml::from_str(text).map_err(toml_error)?;
        if *head.version.get_ref() != i64::from(LOCK_VERSION) {
            return Err(LockError::Version {
                path: path.to_owned(),
                line: position(text, head.version.span().start).0,
                found: *head.version.get_ref(),
            });
        }
        let file: LockFile = toml::from_str(text).map_err(toml_error)?;
        let mut archs = BTreeMap::new();
        let sources = file.source.len();
        let read = |lines: Vec<toml::Spanned<PackageLine>>, arch| {
            read_packages(lines, arch, sources).map_err(|(at, message)| damaged(at, message))
        };
        for (arch, locked) in file.arch {
            let at = locked.request.span().start;
            let packages = read(locked.packages, arch)?;
            let native = read(locked.native, LockedArch::counterpart(arch))?;
            let parent = match (locked.parent, locked.layout) {
                (Some(image), Some(layout)) => Some(LockedParent { image: image.0, layout: layout.0 }),
                (None, None) => None,
                _ => {
                    let message = format!("{arch} has one of `parent` and `layout`: a parent needs both");
                    return Err(damaged(at, message));
                }
            };
            archs.insert(
                arch,
                LockedArch { request: locked.request.into_inner().0, parent, packages, native },
            );
        }
        let sources = file
            .source
            .into_iter()
            .map(|source| LockedSource {
                role: source.role,
                suite: source.suite,
                components: source.components,
                date: source.date.0,
                sha256: source.sha256.0,
            })
            .collect();
        Ok(Self { writers: file.writers, time: file.time.0, sources, archs })
    }
}

/// Writes a file beside its place, then moves it there: whoever reads finds the old bytes or the new ones. Nothing is promised about
/// a machine that loses its power.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = file_beside(path)?;
    new.write_all(bytes)?;
    new.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A new file beside a place, which goes when it is dropped.
fn file_beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    // Beside it may be what others are just writing, on this machine or on one that shares the folder: the name is
    // nobody else's.
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".new")
        // As any file that a program makes: the process's umask takes its part away.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
}

/// One list of packages, a line each, sorted. `order`: the sources' numbers in the text.
fn write_packages(out: &mut String, key: &str, packages: &[LockedPackage], order: &[usize]) -> fmt::Result {
    writeln!(out, "{key} = [")?;
    let mut packages: Vec<&LockedPackage> = packages.iter().collect();
    packages.sort();
    for package in packages {
        let source = order.iter().position(|index| *index == package.source).unwrap_or(package.source);
        writeln!(
            out,
            "  {{ name = {}, version = {}, architecture = {}, auto = {}, source = {source}, size = {}, sha256 = {}, \
             filename = {} }},",
            quoted(&package.name),
            quoted(&package.version),
            quoted(&package.architecture),
            package.auto,
            package.size,
            quoted(&package.sha256.to_hex()),
            quoted(&package.filename),
        )?;
    }
    writeln!(out, "]")?;
    Ok(())
}

/// The packages of one list; where in the text the damage is, and what, when there is some.
fn read_packages(
    lines: Vec<toml::Spanned<PackageLine>>,
    arch: Arch,
    sources: usize,
) -> Result<Vec<LockedPackage>, (usize, String)> {
    let mut packages: Vec<LockedPackage> = Vec::with_capacity(lines.len());
    for line in lines {
        let at = line.span().start;
        let line = line.into_inner();
        let wrong = if line.source >= sources {
            Some(format!("`{}` comes from source {}, which is not in the lock", line.name, line.source))
        } else if !is_package_name(&line.name) || !is_package_version(&line.version) {
            Some(format!("`{}` `{}` cannot be a package and its version", line.name, line.version))
        } else if line.architecture != "all" && line.architecture != arch.debian() {
            Some(format!("`{}` is for {}, not for {}", line.name, line.architecture, arch.debian()))
        } else if !is_pool_path(&line.filename) {
            Some(format!("`{}` is not a path below a mirror", line.filename))
        } else if packages.last().is_some_and(|earlier| earlier.name >= line.name) {
            Some(format!("`{}` is out of order or there twice", line.name))
        } else {
            None
        };
        if let Some(message) = wrong {
            return Err((at, message));
        }
        packages.push(LockedPackage {
            name: line.name,
            version: line.version,
            architecture: line.architecture,
            size: line.size,
            sha256: line.sha256.0,
            filename: line.filename,
            source: line.source,
            auto: line.auto,
        });
    }
    Ok(packages)
}

#[derive(Deserialize)]
struct Head {
    version: toml::Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    #[serde(rename = "version")]
    _version: i64,
    time: Time,
    writers: BTreeMap<String, u32>,
    #[serde(default)]
    source: Vec<SourceTable>,
    #[serde(default)]
    arch: BTreeMap<Arch, ArchTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceTable {
    role: SourceRole,
    suite: String,
    components: Vec<String>,
    date: Time,
    sha256: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchTable {
    request: toml::Spanned<Hex>,
    parent: Option<Hex>,
    layout: Option<Hex>,
    packages: Vec<toml::Spanned<PackageLine>>,
    #[serde(default)]
    native: Vec<toml::Spanned<PackageLine>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackageLine {
    name: String,
    version: String,
    architecture: String,
    auto: bool,
    source: usize,
    size: u64,
    sha256: Hex,
    filename: String,
}

struct Hex(Digest);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::from_hex(&text)
            .map(Self)
            .ok_or_else(|| D::Error::custom("a SHA-256 is 64 hexadecimal digits"))
    }
}

struct Time(i64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text).map(Self).ok_or_else(|| D::Error::custom("a time looks like 2026-01-31T12:00:00Z"))
    }
}

/// A path that cannot leave the mirror's root, wherever it is joined.
fn is_pool_path(path: &str) -> bool {
    path.split('/').all(|part| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_' | '~' | '%' | ':'))
    })
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn package(name: &str, source: usize) -> LockedPackage {
        LockedPackage {
            name: name.to_owned(),
            version: "1:2.4.65-2~deb13u1".to_owned(),
            architecture: "all".to_owned(),
            size: 1234,
            sha256: Digest::of(name.as_bytes()),
            filename: format!("pool/main/a/{name}/{name}_2.4.65-2%7edeb13u1_all.deb"),
            source,
            auto: source == 1,
        }
    }

    fn source(role: SourceRole, suite: &str) -> LockedSource {
        LockedSource {
            role,
            suite: suite.to_owned(),
            components: vec!["main".to_owned()],
            date: 1_763_200_000,
            sha256: Digest::of(suite.as_bytes()),
        }
    }

    fn lock() -> Lock {
        let locked = LockedArch {
            request: Digest::of(b"asked"),
            parent: None,
            packages: vec![package("adduser", 0), package("cowsay", 1)],
            native: Vec::new(),
        };
        Lock {
            writers: BTreeMap::from([("ext4".to_owned(), 1), ("gpt".to_owned(), 2)]),
            time: 1_763_200_000,
            sources: vec![
                source(SourceRole::Main, "trixie"),
                source(SourceRole::Security, "trixie-security"),
            ],
            archs: BTreeMap::from([(Arch::X86_64, locked)]),
        }
    }

    #[test]
    fn native_packages_are_for_the_other_architecture_and_change_no_digest() {
        let mut with = lock();
        let dash = LockedPackage { architecture: "arm64".into(), ..package("dash", 1) };
        with.archs.get_mut(&Arch::X86_64).unwrap().native = vec![dash];
        assert_eq!(read(&with.to_text()).unwrap(), with);
        assert_eq!(with.digest(), lock().digest());
        let wrong = with.to_text().replace("\"arm64\"", "\"amd64\"");
        assert!(read(&wrong).unwrap_err().contains("`dash` is for amd64, not for arm64"));
    }

    #[test]
    fn a_parent_is_its_digest_and_its_layouts() {
        let mut with = lock();
        let parent = LockedParent { image: Digest::of(b"image"), layout: Digest::of(b"layout") };
        with.archs.get_mut(&Arch::X86_64).unwrap().parent = Some(parent);
        let text = with.to_text();
        assert_eq!(read(&text).unwrap(), with);
        assert_ne!(with.digest(), lock().digest(), "it shapes the image");
        for key in ["parent", "layout"] {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            let error = read(&text.replace(&format!("{line}\n"), "")).unwrap_err();
            assert!(error.contains("a parent needs both"), "{error}");
        }
    }

    fn read(text: &str) -> Result<Lock, String> {
        Lock::from_text(text, Path::new("web.lock")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = lock().to_text();
        assert!(text.ends_with("]\n"));
        assert_eq!(read(&text).unwrap(), lock());
        assert_eq!(read(&text).unwrap().to_text(), text);
    }

    #[test]
    fn the_text_does_not_depend_on_the_order_in_memory() {
        let mut other = lock();
        other.sources.reverse();
        let packages = &mut other.archs.get_mut(&Arch::X86_64).unwrap().packages;
        packages.reverse();
        for package in packages {
            package.source = 1 - package.source;
        }
        assert_eq!(other.to_text(), lock().to_text());
        assert_eq!(other.digest(), lock().digest());
    }

    #[test]
    fn one_package_is_one_line() {
        let mut newer = lock();
        newer.archs.get_mut(&Arch::X86_64).unwrap().packages[1].version = "2.4.66-1".to_owned();
        let (old, new) = (lock().to_text(), newer.to_text());
        assert_eq!(old.lines().zip(new.lines()).filter(|(old, new)| old != new).count(), 1);
        assert_eq!(old.lines().count(), new.lines().count());
    }

    #[test]
    fn a_lock_is_a_file_that_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.lock");
        assert_eq!(Lock::read(&path).unwrap(), None);
        lock().write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Some(lock()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn nobody_writes_into_a_lock_that_another_is_writing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.lock");
        let other = folder.path().join("web.lock.new");
        std::fs::write(&other, "half of ano").unwrap();
        lock().write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), Some(lock()));
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "half of ano");
        // It may be read by whoever may read what this user makes.
        let made = folder.path().join("made");
        std::fs::write(&made, []).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&made));
    }

    #[test]
    fn damage_is_told_with_its_line() {
        let text = lock().to_text();
        let line = |needle: &str| text.lines().position(|line| line.contains(needle)).unwrap() + 1;
        for (from, to, at, message) in [
            ("version = 1\n", "version = 2\n", line("version = 1"), "format version 2"),
            ("ext4\" = 1", "ext4\" = x", line("ext4"), "damaged"),
            ("source = 1", "source = 7", line("cowsay"), "source 7, which is not in the lock"),
            ("pool/main/a/cowsay/", "pool/../../etc/", line("cowsay"), "not a path below a mirror"),
            ("\"all\", auto = true", "\"arm64\", auto = true", line("cowsay"), "is for arm64, not for amd64"),
            ("name = \"cowsay\"", "name = \"aa\"", line("cowsay"), "out of order"),
            ("name = \"cowsay\"", "name = \"Cow\"", line("cowsay"), "cannot be a package"),
            ("request = \"", "request = \"zz", line("request"), "64 hexadecimal digits"),
            ("auto = true, ", "auto = true, colour = 1, ", line("cowsay"), "unknown field `colour`"),
            ("[arch.x86_64]", "[arch.mips]", line("[arch.x86_64]"), "mips"),
            ("[writers]", "<<<<<<< HEAD\n[writers]", line("[writers]"), "damaged"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = read(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(message) && error.starts_with(&format!("web.lock:{at}")), "{to}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,300}") {
            let _ = read(&text);
            let _ = read(&format!("{}{text}", lock().to_text()));
        }
    }
}
