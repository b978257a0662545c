//! The path through the house: from a recipe file to disks that booted and were checked.
//!
//! *What comes in:* a [`Request`]: a recipe's path, overrides, where to put things, and `now` (for validity dates only).
//! *What goes out:* a folder of outputs, written whole or not at all, and a [`Baked`] that tells what is in it.
//! *What it may not do:* print (it tells a [`Report`]), read a clock for anything but how long a stage took, or know a
//! terminal.
//!
//! The stages, in order: `recipe` → `lock` → `packages` → `root file system` → `disk` → `write` → `tools` → `boot by …`.
//! The process must be inside the user namespace of [`sandbox::enter`] before any thread is started.

mod check;
mod error;
mod manifest;
mod packages;
mod report;
mod volumes;
mod work;

use std::fs;
use std::path::{Path, PathBuf};

use block::BlockMap;
use recipe::{Arch, BootMode, Lock, Recipe};

pub use check::{Checked, FirmwareChoice, Place, check, machine_programs, programs};
pub use error::Error;
pub use manifest::{MANIFEST, Manifest, ManifestCheck, ManifestPackage, ManifestVolume};
pub use packages::{LockMode, ToolPackages, WRITERS};
pub use report::{Outcome, Report, Stage, Stages, Unit};

use packages::Context;
use volumes::{RootParts, VolumeIds};
use work::WorkFolder;

/// What to bake, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Variables to override.
    pub set: Vec<(String, String)>,
    /// The architecture; the host's if not given.
    pub arch: Option<Arch>,
    /// Where the outputs go; `out/<name>/<arch>` if not given.
    pub out: Option<PathBuf>,
    /// The lock's file; the one beside the recipe if not given.
    pub lock: Option<PathBuf>,
    /// What may be done to the lock.
    pub lock_mode: LockMode,
    /// Which firmware to boot by afterwards; `None`: not booted at all.
    pub check: Option<FirmwareChoice>,
    /// The cache folder.
    pub cache: PathBuf,
    /// `BAKEHOUSE_DEBIAN_MIRROR`.
    pub mirror: Option<String>,
    /// Seconds since 1970, for validity dates only.
    pub now: i64,
}

/// What a bake left.
#[derive(Clone, Debug)]
pub struct Baked {
    /// What the manifest says.
    pub manifest: Manifest,
    /// The folder of outputs.
    pub out: PathBuf,
    /// What was checked; empty when nothing was to be.
    pub checks: Vec<Checked>,
}

impl Baked {
    /// Whether every check held.
    pub fn checks_hold(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// The architecture of this machine, if images can be baked for it.
pub fn host_arch() -> Option<Arch> {
    std::env::consts::ARCH.parse().ok()
}

/// What a bake begins with: the recipe for one architecture, its lock, and the packages' verified files.
#[derive(Clone, Debug)]
pub struct Ingredients {
    /// The recipe.
    pub recipe: Recipe,
    /// The lock, as it is in its file now.
    pub lock: Lock,
    /// The lock's packages for the recipe's architecture, in its order.
    pub files: Vec<rootfs::PackageFile>,
}

/// Reads the recipe, finds or writes its lock and fetches the packages: the first stages of [`bake`].
pub fn fetch(request: &Request, stages: &Stages<'_>) -> Result<Ingredients, Error> {
    let report = stages.report();
    let (source, recipe) = stages.run("recipe", |_| {
        let source = recipe::load(&request.recipe, &recipe::LoadOptions { set: request.set.clone() })?;
        warn(&source, report);
        let arch = match request.arch.or_else(host_arch) {
            Some(arch) => arch,
            None => source.architectures().first().copied().unwrap_or(Arch::X86_64),
        };
        let recipe = source.for_arch(arch)?;
        supported(&recipe)?;
        Ok::<_, Error>((source, recipe))
    })?;
    let lock_path = request.lock.clone().unwrap_or_else(|| source.lock_path());
    let context =
        Context { cache: &request.cache, now: request.now, mirror: request.mirror.as_deref(), report };
    let resolved = stages.run("lock", |outcome| {
        let resolved = packages::resolve(&source, &lock_path, request.lock_mode, &context)?;
        outcome.cached = resolved.unchanged;
        Ok::<_, Error>(resolved)
    })?;
    let files = stages.run("packages", |outcome| {
        let (files, fetched) = packages::package_files(&resolved, recipe.arch, &context)?;
        outcome.bytes = Some(fetched);
        outcome.cached = fetched == 0;
        Ok::<_, Error>(files)
    })?;
    Ok(Ingredients { recipe, lock: resolved.lock, files })
}

/// Bakes a recipe for one architecture. A check that does not hold is in the result; everything else that goes wrong
/// is an error, and then the folder of outputs is as it was before.
pub fn bake(request: &Request, stages: &Stages<'_>) -> Result<Baked, Error> {
    let Ingredients { recipe, lock, files } = fetch(request, stages)?;
    let out = OutFolder::open(request.out.clone().unwrap_or_else(|| default_out(&recipe)))?;

    let work = WorkFolder::new(&request.cache, "bake")?;
    let built = build_root(&recipe, &files, &lock, work.path(), stages)?;
    let volume = recipe.root_volume().ok_or_else(|| no_root(&recipe))?;
    let map = stages.run("disk", |outcome| {
        let bios = built.bios.as_ref().map(|images| disk::BiosBoot {
            boot_img: images.boot_img.clone(),
            core_img: images.core_img.clone(),
        });
        let parts = RootParts { tree: &built.tree, esp: &built.esp, bios, time: lock.time };
        let map = volumes::root_volume(&recipe, volume, &parts)?;
        outcome.bytes = Some(map.data_bytes());
        Ok::<_, Error>(map)
    })?;
    let manifest = stages.run("write", |outcome| {
        let raw = format!("{}.raw", volume.device.file_stem());
        let written = write_raw(&map, &out.path, &raw, stages)?;
        outcome.bytes = Some(written);
        let manifest = manifest_of(&recipe, &lock, volume, raw, written);
        out.write(MANIFEST, &manifest.to_text())?;
        Ok::<_, Error>(manifest)
    })?;
    drop(map);
    drop(built);
    // Twenty thousand files take a while to go; the machines need not wait for that.
    let tidy = std::thread::spawn(move || drop(work));

    let checks = match request.check {
        Some(choice) => {
            let place = Place { cache: &request.cache, now: request.now, mirror: request.mirror.as_deref() };
            check::check(&out.path, choice, &place, stages)?
        }
        None => Vec::new(),
    };
    // It cannot fail: what stays behind is in the cache, where it does no harm.
    let _ = tidy.join();
    Ok(Baked { manifest, out: out.path.clone(), checks })
}

/// Looks for mistakes in a recipe, for every architecture that it names, and bakes nothing. Warnings go to the report.
pub fn validate(path: &Path, set: Vec<(String, String)>, report: &dyn Report) -> Result<(), Error> {
    let source = recipe::load(path, &recipe::LoadOptions { set })?;
    warn(&source, report);
    Ok(())
}

fn warn(source: &recipe::Source, report: &dyn Report) {
    if !source.warnings().is_empty() {
        report.line(recipe::Diagnostics(source.warnings().to_vec()).to_string().trim_end());
    }
}

/// `out/<name>/<arch>`, below the folder where the user stands.
fn default_out(recipe: &Recipe) -> PathBuf {
    Path::new("out").join(&recipe.name).join(recipe.arch.as_str())
}

/// Refuses what the language has and this version cannot bake yet, at its place in the recipe.
fn supported(recipe: &Recipe) -> Result<(), Error> {
    if host_arch() != Some(recipe.arch) {
        return Err(Error::ForeignArch { arch: recipe.arch, host: std::env::consts::ARCH });
    }
    let problems: Vec<_> = recipe
        .volumes
        .iter()
        .filter(|volume| !volume.root)
        .map(|volume| {
            volume
                .span
                .error("data and instance store volumes cannot be baked yet", "only the root volume can")
                .help("leave the volume out; the language keeps it for a later version")
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Unsupported(recipe::Diagnostics(problems))) }
}

fn no_root(recipe: &Recipe) -> Error {
    Error::NotBaked { path: PathBuf::from(&recipe.name), reason: "the recipe has no root volume".into() }
}

fn build_root(
    recipe: &Recipe,
    files: &[rootfs::PackageFile],
    lock: &Lock,
    work: &Path,
    stages: &Stages<'_>,
) -> Result<rootfs::Built, Error> {
    let volume = recipe.root_volume().ok_or_else(|| no_root(recipe))?;
    let ids = VolumeIds::of(recipe, volume);
    stages.run("root file system", |_| {
        let progress = RootProgress { stages };
        let built = rootfs::build(&rootfs::Request {
            recipe,
            packages: files,
            time: lock.time,
            work,
            boot: rootfs::Boot { root_uuid: ids.file_system, esp_id: ids.esp_volume, mounts: Vec::new() },
            progress: &progress,
        })?;
        for note in &built.report.notes {
            stages.report().line(note);
        }
        Ok::<_, Error>(built)
    })
}

/// The folder of outputs. It is made before the long work, so that a bad place is told at once; what was made and
/// stayed empty goes again.
struct OutFolder {
    path: PathBuf,
}

impl OutFolder {
    fn open(path: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::io(&path, "cannot be made a folder for the outputs"))?;
        let folder = Self { path };
        let probe = folder.path.join(format!(".bakehouse-{}", std::process::id()));
        fs::write(&probe, []).map_err(Error::io(&folder.path, "outputs cannot be written here"))?;
        fs::remove_file(&probe).map_err(Error::io(probe, "cannot be removed"))?;
        Ok(folder)
    }

    /// A small file, there whole or not at all.
    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let new = self.path.join(format!(".{name}.{}", std::process::id()));
        fs::write(&new, text).map_err(Error::io(&new, "cannot be written"))?;
        let path = self.path.join(name);
        fs::rename(&new, &path).map_err(Error::io(path, "cannot be replaced"))
    }
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        // Only an empty folder can be removed this way.
        let _ = fs::remove_dir(&self.path);
    }
}

fn write_raw(map: &BlockMap, out: &Path, name: &str, stages: &Stages<'_>) -> Result<u64, Error> {
    let done = std::sync::atomic::AtomicU64::new(0);
    let total = map.data_bytes();
    let stats = formats::write_raw(map, &out.join(name), &|bytes| {
        let done = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
        stages.report().progress(done, Some(total), Unit::Bytes, name);
    })?;
    Ok(stats.written)
}

fn manifest_of(
    recipe: &Recipe,
    lock: &Lock,
    volume: &recipe::Volume,
    raw: String,
    data_bytes: u64,
) -> Manifest {
    let firmware: &[&str] = match (recipe.arch, recipe.image.boot_mode) {
        (Arch::Aarch64, _) | (_, BootMode::Uefi) => &["uefi", "nitro"],
        (_, BootMode::LegacyBios) => &["bios"],
        (_, BootMode::UefiPreferred) => &["bios", "uefi", "nitro"],
    };
    let packages = lock.for_arch(recipe.arch).map_or(&[][..], |locked| &locked.packages);
    Manifest {
        format: manifest::FORMAT,
        name: recipe.image_name.clone(),
        arch: recipe.arch.as_str().to_owned(),
        description: recipe.description.clone(),
        default_user: recipe.default_user().map(|user| user.name.clone()),
        firmware: firmware.iter().map(|name| (*name).to_owned()).collect(),
        lock: lock.digest().to_hex(),
        time: lock.time,
        volumes: vec![ManifestVolume {
            device: volume.device.to_string(),
            raw: Some(raw),
            size: volume.size,
            data_bytes,
            ephemeral: None,
        }],
        packages: packages
            .iter()
            .map(|package| ManifestPackage {
                name: package.name.clone(),
                version: package.version.clone(),
                architecture: package.architecture.clone(),
            })
            .collect(),
        checks: recipe.checks.iter().map(ManifestCheck::from).collect(),
    }
}

struct RootProgress<'a, 'b> {
    stages: &'a Stages<'b>,
}

impl rootfs::Progress for RootProgress<'_, '_> {
    fn stage(&self, name: &str) {
        self.stages.report().line(&format!("root file system: {name}"));
    }

    fn line(&self, line: &str) {
        self.stages.report().progress(0, None, Unit::Things, line);
    }
}
