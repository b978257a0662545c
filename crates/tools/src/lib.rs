//! Programs that the house runs but does not contain: QEMU and its firmware, ssh, and the checkers of the tests.
//!
//! *What comes in:* a cache folder, a mirror, and the [`Set`] that is wanted. *What goes out:* a folder of programs that
//! run as they are ([`Tools::program`]) and files such as firmware ([`Tools::file`]). *What it may not know:* recipes,
//! images, machines.
//!
//! The programs are Debian packages, resolved, fetched and verified by the `debian` room and unpacked into a private
//! tree in the cache:
//!
//! ```text
//! <cache>/tools/<set>-<key>/root/…        the packages' files, as any user may unpack them
//!                           bin/<program>  a small script that starts the program through the tree's own ld.so
//!                           tree.json      which packages, in which versions
//!                           seal           what each file holds, by hash; written last
//! <cache>/tools/.<set>-<key>.<any>/…      a tree in the making, locked while somebody makes it
//! ```
//!
//! A tree appears by rename, whole or not at all, and is looked through before it is used: a damaged one is made anew. Nothing is installed on the host and no package script is run. Of the
//! host's own programs only `/bin/sh` is used, by the starters: the same QEMU and the same checkers prove an image on every machine.

mod inside;
mod partial;
mod seal;
mod set;
mod unpack;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub use inside::Inside;
pub use partial::sweep;
use partial::{KEY_DIGITS, Partial};
use seal::{check_seal, discard, seal};
use serde::{Deserialize, Serialize};
pub use set::Set;

/// Raised when the shape of a tree changes, so that older ones are not taken for the new.
const SHAPE: u32 = 2;

/// Why tools could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository could not be read, or its packages not be solved or fetched.
    #[error("the tools ({set}) could not be fetched: {source}")]
    Packages {
        /// Name of the set.
        set: &'static str,
        /// What the package room says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A package could not be unpacked.
    #[error("`{package}` could not be unpacked into {}: {source}", folder.display())]
    Unpack {
        /// The .deb file.
        package: String,
        /// Where to.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cache folder could not be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program or file is not where its package should have put it.
    #[error("the tools tree {} has no `{name}`: remove the folder, and it is fetched again", tree.display())]
    Missing {
        /// The tree.
        tree: PathBuf,
        /// The program or file.
        name: String,
    },
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// One package of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Packages ready to be unpacked: what a [`Provider`] gives.
pub struct Fetched {
    /// Name and version.
    pub package: Package,
    /// The verified .deb file.
    pub path: PathBuf,
}

/// Where packages come from: resolves names with their dependencies and fetches the files.
pub trait Provider {
    /// The packages of a set and all they depend on, as a suite has them.
    fn fetch(
        &self,
        suite: &str,
        packages: &[&str],
    ) -> Result<Vec<Fetched>, Box<dyn std::error::Error + Send + Sync>>;

    /// Something that a person may want to read.
    fn note(&self, _text: &str) {}
}

/// A set of tools, ready to be used.
#[derive(Clone, Debug)]
pub struct Tools {
    tree: PathBuf,
    packages: Vec<Package>,
}

impl Tools {
    /// The set's tree in `cache`, fetched and unpacked when it is not there yet. `fetched` tells whether it was.
    pub fn prepare(set: Set, cache: &Path, provider: &dyn Provider) -> Result<(Self, bool), Error> {
        let damaged = |text: String| provider.note(&text);
        let (tree, new) = sealed_tree(&cache.join("tools"), set.name(), &key(set), &damaged, |partial| {
            let fetched = provider
                .fetch(set.suite(), set.packages())
                .map_err(|source| Error::Packages { set: set.name(), source })?;
            build(partial, set, &fetched)
        })?;
        Ok((Self::open(&tree)?, new))
    }

    fn open(tree: &Path) -> Result<Self, Error> {
        let path = tree.join("tree.json");
        let text = fs::read(&path).map_err(Error::io(&path))?;
        let packages = serde_json::from_slice(&text)
            .map_err(|error| Error::Io { path, source: io::Error::other(error) })?;
        Ok(Self { tree: tree.to_owned(), packages })
    }

    /// The folder of programs, fit for a `PATH`.
    pub fn bin(&self) -> PathBuf {
        self.tree.join("bin")
    }

    /// The folder of the tree.
    pub fn folder(&self) -> &Path {
        &self.tree
    }

    /// What the tree was made from.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// The packages' files: a root file system in which none of their scripts ever ran.
    pub fn root(&self) -> PathBuf {
        self.tree.join("root")
    }

    /// A program of the set, run as it is.
    pub fn program(&self, name: &str) -> Result<PathBuf, Error> {
        self.existing(self.bin().join(name), name)
    }

    /// A file of the tree by its path from the tree's root, such as `usr/share/OVMF/OVMF_CODE_4M.fd`.
    pub fn file(&self, path: &str) -> Result<PathBuf, Error> {
        self.existing(self.root().join(path), path)
    }

    fn existing(&self, path: PathBuf, name: &str) -> Result<PathBuf, Error> {
        if path.exists() {
            Ok(path)
        } else {
            Err(Error::Missing { tree: self.tree.clone(), name: name.into() })
        }
    }
}

/// The tree `<name>-<the key's first digits>` in a folder, and whether it is new: built in an empty folder and sealed when it
/// is not there yet or damaged, which `damaged` is told. It appears whole or not at all, whoever else makes the same one.
pub fn sealed_tree<E: From<Error>>(
    folder: &Path,
    name: &str,
    key: &block::Digest,
    damaged: &dyn Fn(String),
    build: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(PathBuf, bool), E> {
    let name = format!("{name}-{}", &key.to_hex()[..KEY_DIGITS]);
    let tree = folder.join(&name);
    if tree.exists() {
        match check_seal(&tree) {
            Ok(()) => return Ok((tree, false)),
            Err(damage) => {
                damaged(format!("{}: damaged, and made anew: {damage}", tree.display()));
                discard(&tree).map_err(Error::io(&tree))?;
            }
        }
    }
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let partial = Partial::new(folder, &name).map_err(Error::io(folder))?;
    build(partial.path())?;
    seal(partial.path()).map_err(Error::io(partial.path()))?;
    match fs::rename(partial.path(), &tree) {
        // Somebody else made the same tree in the meantime: theirs is as good.
        Err(_) if check_seal(&tree).is_ok() => {}
        renamed => renamed.map_err(Error::io(&tree))?,
    }
    Ok((tree, true))
}

/// What a tree of this set is known by: everything that shapes it but the versions of the packages, which `tree.json`
/// names.
fn key(set: Set) -> block::Digest {
    let mut hasher = block::Hasher::new();
    hasher.field(&SHAPE.to_le_bytes());
    hasher.field(set.suite().as_bytes());
    hasher.field(std::env::consts::ARCH.as_bytes());
    for name in set.packages().iter().chain(set.programs()).chain(set.folders()).chain(set.only()) {
        hasher.field(name.as_bytes());
    }
    for (name, text) in set.files() {
        hasher.field(name.as_bytes());
        hasher.field(text.as_bytes());
    }
    hasher.finish()
}

fn build(partial: &Path, set: Set, fetched: &[Fetched]) -> Result<(), Error> {
    let root = partial.join("root");
    fs::create_dir_all(&root).map_err(Error::io(&root))?;
    unpack::unpack_all(&root, fetched, set.only())?;
    unpack::add(&root, set.folders(), set.files())?;
    let bin = partial.join("bin");
    fs::create_dir_all(&bin).map_err(Error::io(&bin))?;
    for name in set.programs() {
        let script = starter(&root, name)
            .ok_or_else(|| Error::Missing { tree: root.clone(), name: (*name).into() })?;
        let path = bin.join(name);
        fs::write(&path, script).map_err(Error::io(&path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(Error::io(&path))?;
    }
    let packages: Vec<&Package> = fetched.iter().map(|fetched| &fetched.package).collect();
    let path = partial.join("tree.json");
    let text =
        serde_json::to_vec_pretty(&packages).map_err(|error| Error::io(&path)(io::Error::other(error)))?;
    fs::write(&path, text).map_err(Error::io(&path))
}

/// The script that starts a program of the tree: through the tree's own loader and libraries, under its own name.
fn starter(root: &Path, name: &str) -> Option<String> {
    let folder = ["usr/bin", "usr/sbin", "bin", "sbin"]
        .into_iter()
        .find(|folder| root.join(folder).join(name).exists())?;
    let (loader, triplet) = match std::env::consts::ARCH {
        "aarch64" => ("usr/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu"),
        _ => ("usr/lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu"),
    };
    // Python looks for its modules beside its own program, which here is the loader.
    let home = match name {
        "python3" => "export PYTHONHOME=\"$root/usr\" PYTHONDONTWRITEBYTECODE=1\n",
        _ => "",
    };
    Some(format!(
        "#!/bin/sh\n\
         # Starts {name} with the loader and the libraries of its own tree.\n\
         root=${{0%/*}}/../root\n\
         export QEMU_MODULE_DIR=\"$root/usr/lib/{triplet}/qemu\" OPENSSL_CONF=/dev/null\n\
         export MTOOLS_SKIP_CHECK=1 MAGIC=\"$root/usr/lib/file/magic.mgc\"\n{home}\
         exec \"$root/{loader}\" --argv0 {name} --library-path \"$root/usr/lib/{triplet}:$root/usr/lib\" \
         \"$root/{folder}/{name}\" \"$@\"\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives no packages, and first makes what another process with the same id would make at the same time.
    struct Twin<'a> {
        cache: &'a Path,
        theirs: std::cell::OnceCell<(PathBuf, fs::File)>,
    }

    impl Provider for Twin<'_> {
        fn fetch(
            &self,
            _: &str,
            _: &[&str],
        ) -> Result<Vec<Fetched>, Box<dyn std::error::Error + Send + Sync>> {
            let id = std::process::id();
            let theirs =
                self.cache.join(format!("tools/.peer-{}.{id}", &key(Set::Peer).to_hex()[..KEY_DIGITS]));
            fs::create_dir_all(theirs.join("root"))?;
            fs::write(theirs.join("root/half"), "theirs")?;
            let held = fs::File::open(&theirs)?;
            held.try_lock()?;
            self.theirs.set((theirs, held)).map_err(|_| "asked twice")?;
            Ok(Vec::new())
        }
    }

    /// Gives no packages, and counts how often it was asked; remembers what was noted.
    #[derive(Default)]
    struct Counter(std::cell::Cell<u32>, std::cell::RefCell<String>);

    impl Provider for Counter {
        fn fetch(
            &self,
            _: &str,
            _: &[&str],
        ) -> Result<Vec<Fetched>, Box<dyn std::error::Error + Send + Sync>> {
            self.0.set(self.0.get() + 1);
            Ok(Vec::new())
        }

        fn note(&self, text: &str) {
            self.1.borrow_mut().push_str(text);
        }
    }

    #[test]
    fn a_damaged_tree_is_found_and_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let counter = Counter::default();
        let (tools, new) = Tools::prepare(Set::Peer, cache.path(), &counter).unwrap();
        assert!(new && !Tools::prepare(Set::Peer, cache.path(), &counter).unwrap().1);
        assert_eq!(counter.0.get(), 1);
        fs::write(tools.folder().join("tree.json"), "[ ]").unwrap();
        assert!(Tools::prepare(Set::Peer, cache.path(), &counter).unwrap().1);
        assert_eq!(counter.0.get(), 2);
        assert!(counter.1.borrow().contains("tree.json was changed"), "{:?}", counter.1);
        assert_eq!(fs::read(tools.folder().join("tree.json")).unwrap(), b"[]");
    }

    #[test]
    fn a_tree_in_the_making_is_nobody_elses_though_the_process_id_may_be() {
        let cache = tempfile::tempdir().unwrap();
        let twin = Twin { cache: cache.path(), theirs: std::cell::OnceCell::new() };
        let (tools, new) = Tools::prepare(Set::Peer, cache.path(), &twin).unwrap();
        assert!(new && tools.root().join("proc").is_dir() && !tools.root().join("half").exists());
        let (theirs, held) = twin.theirs.into_inner().unwrap();
        assert!(theirs.join("root/half").exists());
        drop(held);
        let tree = tools.folder().file_name().unwrap().to_owned();
        let names: Vec<_> = fs::read_dir(cache.path().join("tools"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.contains(&tree));
    }
}
