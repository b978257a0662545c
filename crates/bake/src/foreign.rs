//! What runs the programs of an image whose architecture is not the host's: the emulator, and the host's own programs
//! in the image's versions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dispatch::{Machine, NativePackage, NativeTree};
use recipe::{Arch, Lock, LockedPackage, Recipe};
use rootfs::{Foreign, PackageFile};
use sandbox::{Input, Sandbox, SandboxError};
use tools::{Set, Tools};

use crate::packages::{Context, LockMode, Resolved, ToolPackages, role};
use crate::work::WorkFolder;
use crate::{Error, host_arch};

/// How foreign programs are to be run.
pub(crate) struct Wish<'a> {
    pub(crate) recipe: &'a Recipe,
    /// The image's packages.
    pub(crate) files: &'a [PackageFile],
    /// Whether the host's programs may stand for the image's; else all are emulated.
    pub(crate) native: bool,
    pub(crate) lock_path: &'a Path,
    pub(crate) lock_mode: LockMode,
}

/// The emulator and the native tree for a recipe of another architecture, fetched and unpacked when they are not there
/// yet. A lock that names no native packages gets them, unless it may not change.
pub(crate) fn prepare(
    wish: &Wish<'_>,
    resolved: &mut Resolved,
    context: &Context<'_>,
) -> Result<Foreign, Error> {
    let target = match wish.recipe.arch {
        Arch::X86_64 => Machine::X86_64,
        Arch::Aarch64 => Machine::Aarch64,
    };
    probe(wish.recipe.arch, target, context.cache)?;
    let provider = ToolPackages {
        cache: context.cache,
        now: context.now,
        mirror: context.mirror,
        expired_suite: None,
        report: context.report,
    };
    let (tools, _) = Tools::prepare(Set::Emulate, context.cache, &provider)?;
    let emulator = tools.file(target.emulator())?;
    if !wish.native {
        return Ok(Foreign { emulator, native: None });
    }
    let native = native_packages(wish, resolved, context)?;
    let downloaded = resolved.fetch(&native, context)?;
    let packages: Vec<NativePackage> = native
        .into_iter()
        .zip(downloaded.paths)
        .map(|(package, path)| NativePackage {
            name: package.name,
            version: package.version,
            sha256: package.sha256,
            path,
        })
        .collect();
    let tree = NativeTree::prepare(context.cache, &packages, target)?;
    context.report.line(&format!(
        "{} of the image's programs run as this machine's own, from {} packages; the others are emulated",
        tree.len(),
        packages.len()
    ));
    Ok(Foreign { emulator, native: Some(tree) })
}

/// Whether a lock names the host's packages for images of another architecture already.
pub(crate) fn is_locked(lock: &Lock, arch: Arch) -> bool {
    let has_host = host_arch().is_some_and(|host| lock.for_arch(host).is_some());
    has_host || lock.for_arch(arch).is_some_and(|locked| !locked.native.is_empty())
}

/// Asks the kernel, before anything is fetched, whether it lets foreign programs run: in an empty root, where there is
/// no program.
fn probe(arch: Arch, target: Machine, cache: &Path) -> Result<(), Error> {
    let root = WorkFolder::new(cache, "probe")?;
    let foreign =
        sandbox::Foreign { machine: target.name(), elf_machine: target.elf(), handler: dispatch::HANDLER };
    match Sandbox::new(root.path()).foreign(foreign).run(&["/none"], Input::Null, &mut |_| {}) {
        Ok(_) | Err(SandboxError::Execute { .. }) => Ok(()),
        Err(source) => Err(Error::ForeignArch { arch, host: std::env::consts::ARCH, source }),
    }
}

/// The host's packages: of the lock's own list for the host's architecture, else of its `native` list, else of the
/// repositories as they are now.
fn native_packages(
    wish: &Wish<'_>,
    resolved: &mut Resolved,
    context: &Context<'_>,
) -> Result<Vec<LockedPackage>, Error> {
    let image: BTreeMap<&str, &str> = wish
        .files
        .iter()
        .filter(|file| file.architecture != "all")
        .map(|file| (file.name.as_str(), file.version.as_str()))
        .collect();
    let needed = needed(wish.files, &image)?;
    let fits = |package: &LockedPackage| {
        package.architecture != "all"
            && needed.contains(package.name.as_str())
            && image
                .get(package.name.as_str())
                .is_some_and(|version| dispatch::same_source(version, &package.version))
    };
    let Some(host) = host_arch() else { return Ok(Vec::new()) };
    let locked = resolved.lock.for_arch(host).map(|locked| &locked.packages);
    let listed = resolved.lock.for_arch(wish.recipe.arch).map(|locked| &locked.native);
    if let Some(packages) = locked.or(listed.filter(|list| !list.is_empty())) {
        return Ok(packages.iter().filter(|package| fits(package)).cloned().collect());
    }
    let suite = &wish.recipe.distribution.suite;
    let (universe, _) = context.universe(&resolved.mirrors, suite, Some(wish.recipe), host.debian())?;
    let mut native = Vec::new();
    for name in &needed {
        for id in universe.versions_of(name) {
            let package = universe.package(*id).map_err(debian::repository::RepositoryError::from)?;
            let package = LockedPackage {
                name: package.name,
                version: package.version.to_string(),
                architecture: package.architecture,
                size: package.size,
                sha256: package.sha256,
                filename: package.filename,
                source: source(&resolved.lock, &package.role),
                auto: true,
            };
            if fits(&package) {
                native.push(package);
                break;
            }
        }
    }
    if wish.lock_mode != LockMode::Locked
        && let Some(locked) = resolved.lock.archs.get_mut(&wish.recipe.arch)
    {
        locked.native = native.clone();
        resolved.lock.write(wish.lock_path)?;
        context.report.line(&format!(
            "lock: {} packages of this machine's architecture noted in {}",
            native.len(),
            wish.lock_path.display()
        ));
    }
    Ok(native)
}

fn source(lock: &Lock, name: &str) -> usize {
    lock.sources.iter().position(|source| source.role == role(name)).unwrap_or(0)
}

/// Which packages the native tree needs, by what the image's own packages depend on.
fn needed<'n>(files: &[PackageFile], image: &BTreeMap<&'n str, &str>) -> Result<BTreeSet<&'n str>, Error> {
    let mut depends: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.architecture != "all") {
        let control =
            debian::deb::open(&file.path).and_then(|mut deb| deb.control()).map_err(rootfs::Error::from)?;
        let fields = ["Pre-Depends", "Depends"].into_iter().filter_map(|name| control.fields.get(name));
        depends.insert(&file.name, fields.map(str::to_owned).collect());
    }
    let names = image.keys().copied().collect();
    Ok(dispatch::needed(&names, |name| depends.get(name).cloned().unwrap_or_default()))
}
