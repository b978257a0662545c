//! The path through the house: from a recipe file to disks that booted and were checked.
//!
//! *What comes in:* a [`Request`]: a recipe's path, overrides, where to put things, and `now` (for validity dates only).
//! *What goes out:* a folder of outputs, written whole or not at all, and a [`Baked`] that tells what is in it.
//! *What it may not do:* print (it tells a [`Report`]), read a clock for anything but how long a stage took, or know a
//! terminal.
//!
//! The stages, in order: `recipe` → (`parent`, when one is named) → `lock` → (`outputs`, when they are in their places, and then no
//! other but boots) → (`packages`, `foreign programs` for another architecture, `root file system`; of a kept root the last alone) →
//! `lint` → `disk` → `store` → `write` → `tools` → `boot by …`.
//! The process must be inside the user namespace of [`sandbox::enter`] before any thread is started.

mod check;
mod difference;
mod error;
mod explain;
mod foreign;
mod kept;
mod layout;
mod lint;
mod manifest;
mod opened;
mod origin;
mod outputs;
mod packages;
mod parent;
mod placed;
mod registration;
mod report;
mod roots;
mod verify;
mod volumes;
mod work;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use block::BlockMap;
use recipe::{Arch, Lock, Recipe, Volume};
use store::Store;

pub use check::{Checked, FirmwareChoice, Place, check, machine_programs, programs};
pub use difference::difference;
pub use error::Error;
pub use explain::{ExplainedPackage, ExplainedStage, Explanation, LockState, Question, Why, explain};
pub use layout::{Layout, LayoutError, NameLayout, VolumeLayout};
pub use manifest::{
    Deflate, MANIFEST, Manifest, ManifestAllowed, ManifestPackage, ManifestParent, ManifestVolume,
};
pub use packages::{LockMode, ToolPackages, WRITERS};
pub use parent::ParentChoice;
pub use registration::{MAPPINGS, REGISTRATION};
pub use report::{Outcome, Report, Stage, Stages, Unit};
pub use rootfs::Standing;
pub use roots::is_kept_root;
pub use verify::{Fault, Verification, Verified, verify};

use kept::Kept;
use origin::{LOG, Made};
use outputs::{Finished, Outputs};
use packages::Context;
use parent::{Parent, Wish};
use placed::Placed;
use registration::Written;
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
    /// The image that this one is laid out against, so that few blocks of 512 KiB differ from it at their index.
    pub parent: ParentChoice,
    /// Whether the host's programs may stand for those of an image of another architecture. The image is the same
    /// without, and takes several times as long.
    pub native_dispatch: bool,
    /// Whether to tell where the time went inside the root, and what was emulated.
    pub explain: bool,
    /// Which firmware to boot by afterwards; `None`: not booted at all.
    pub check: Option<FirmwareChoice>,
    /// The store that keeps the volumes' snapshots: a folder, made when it is not there. `None`: they are kept nowhere but in
    /// the outputs.
    pub store: Option<PathBuf>,
    /// The cache folder.
    pub cache: PathBuf,
    /// How many bytes of files in the making may lie in memory. A root whose volume is larger is made on the disk, in the
    /// cache folder. The result is the same.
    pub memory: u64,
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
    /// What the store did with each volume that has content, by device name.
    pub stored: BTreeMap<String, store::PutReport>,
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
    /// Where the lock's file is.
    pub lock_path: PathBuf,
    /// The lock's packages for the recipe's architecture, in its order.
    pub files: Vec<rootfs::PackageFile>,
    /// What runs the image's programs, where its architecture is not the host's.
    pub foreign: Option<rootfs::Foreign>,
}

/// A recipe and its lock, before anything is fetched.
struct Begun {
    recipe: Recipe,
    resolved: packages::Resolved,
    lock_path: PathBuf,
}

fn begin(request: &Request, stages: &Stages<'_>) -> Result<Begun, Error> {
    let (source, recipe) = read(request, stages)?;
    let wish = wish(&recipe, request, stages)?;
    lock(&source, recipe, &wish, request, stages)
}

/// Which image this one is laid out against.
fn wish(recipe: &Recipe, request: &Request, stages: &Stages<'_>) -> Result<Wish, Error> {
    Wish::of(&request.parent, recipe.arch, request.store.as_deref(), stages)
}

/// The recipe, for all architectures and for the one that is baked.
fn read(request: &Request, stages: &Stages<'_>) -> Result<(recipe::Source, Recipe), Error> {
    let report = stages.report();
    stages.run("recipe", |_| {
        let source = recipe::load(&request.recipe, &recipe::LoadOptions { set: request.set.clone() })?;
        warn(&source, report);
        let arch = match request.arch.or_else(host_arch) {
            Some(arch) => arch,
            None => source.architectures().first().copied().unwrap_or(Arch::X86_64),
        };
        let recipe = source.for_arch(arch)?;
        lint::check_names(&recipe)?;
        Ok((source, recipe))
    })
}

/// Refuses to write into a folder that the recipe lays into the image.
fn outside_sources(path: &Path, recipe: &Recipe) -> Result<(), Error> {
    let absolute = std::path::absolute(path).map_err(Error::io(path, "cannot be found"))?;
    // What is there of the path, where its links lead.
    let real = absolute.ancestors().find_map(|above| above.canonicalize().ok()).unwrap_or(absolute);
    let payloads = recipe.files.iter().map(|file| &file.payload);
    let web = recipe.web.iter().flat_map(|web| web.entries.iter().map(|entry| &entry.payload));
    let laid = payloads.chain(web).filter_map(|payload| match payload {
        recipe::Payload::Source(source) => Some(source),
        recipe::Payload::Content(_) => None,
    });
    let volumes = recipe.volumes.iter().filter_map(|volume| volume.source.as_ref());
    match laid.chain(volumes).find(|source| source.is_dir() && real.starts_with(source)) {
        Some(source) => Err(Error::InSource { path: path.to_owned(), source_folder: source.clone() }),
        None => Ok(()),
    }
}

/// Finds the recipe's lock, or writes it.
fn lock(
    source: &recipe::Source,
    recipe: Recipe,
    wish: &Wish,
    request: &Request,
    stages: &Stages<'_>,
) -> Result<Begun, Error> {
    let report = stages.report();
    let lock_path = request.lock.clone().unwrap_or_else(|| source.lock_path());
    let resolved = stages.run("lock", |outcome| {
        let context = context(request, report);
        let resolved = packages::resolve(source, &lock_path, request.lock_mode, wish, &context)?;
        outcome.cached = resolved.unchanged;
        if request.explain && resolved.unchanged {
            let (path, time) = (lock_path.display(), catalog::format_time(resolved.lock.time));
            report.line(&format!(
                "lock: {path} holds what the recipe asks for, as of {time}: no repository is asked"
            ));
        }
        Ok::<_, Error>(resolved)
    })?;
    Ok(Begun { recipe, resolved, lock_path })
}

fn context<'a>(request: &'a Request, report: &'a dyn Report) -> Context<'a> {
    Context {
        cache: &request.cache,
        now: request.now,
        mirror: request.mirror.as_deref(),
        expired_suite: None,
        report,
    }
}

impl Begun {
    /// Whether the lock says all that it will say when the root is made.
    fn lock_is_whole(&self) -> bool {
        host_arch() == Some(self.recipe.arch) || foreign::is_locked(&self.resolved.lock, self.recipe.arch)
    }

    fn fetch(self, request: &Request, stages: &Stages<'_>) -> Result<Ingredients, Error> {
        let Self { recipe, mut resolved, lock_path } = self;
        let report = stages.report();
        let context = context(request, report);
        let files = stages.run("packages", |outcome| {
            let (files, fetched) = packages::package_files(&resolved, recipe.arch, &context)?;
            outcome.bytes = Some(fetched);
            outcome.cached = fetched == 0;
            if request.explain {
                let from = if fetched == 0 {
                    "all in the cache, found by their SHA-256"
                } else {
                    "some were not in the cache"
                };
                report.line(&format!("packages: {} files, {from}", files.len()));
            }
            Ok::<_, Error>(files)
        })?;
        let foreign = if host_arch() == Some(recipe.arch) {
            None
        } else {
            Some(stages.run("foreign programs", |_| {
                let wish = foreign::Wish {
                    recipe: &recipe,
                    files: &files,
                    native: request.native_dispatch,
                    lock_path: &lock_path,
                    lock_mode: request.lock_mode,
                };
                foreign::prepare(&wish, &mut resolved, &context)
            })?)
        };
        Ok(Ingredients { recipe, lock: resolved.lock, lock_path, files, foreign })
    }
}

/// Reads the recipe, finds or writes its lock and fetches the packages: the first stages of [`bake`].
pub fn fetch(request: &Request, stages: &Stages<'_>) -> Result<Ingredients, Error> {
    begin(request, stages)?.fetch(request, stages)
}

/// The architectures that a recipe is for, sorted.
pub fn architectures(recipe: &Path, set: &[(String, String)]) -> Result<Vec<Arch>, Error> {
    let source = recipe::load(recipe, &recipe::LoadOptions { set: set.to_vec() })?;
    Ok(source.architectures().to_vec())
}

/// Bakes a recipe for one architecture. A check that does not hold is in the result; everything else that goes wrong
/// is an error, and then the folder of outputs is as it was before.
pub fn bake(request: &Request, stages: &Stages<'_>) -> Result<Baked, Error> {
    let (source, recipe) = read(request, stages)?;
    // Before the outputs' folder is held: it may be the parent.
    let wish = wish(&recipe, request, stages)?;
    let mut work = WorkFolder::new(&request.cache, "bake")?;
    // Before the long work: a bad place for them is told at once.
    let out = request.out.clone().unwrap_or_else(|| default_out(&recipe));
    let lock_path = request.lock.clone().unwrap_or_else(|| source.lock_path());
    for path in [Some(&out), request.store.as_ref(), Some(&lock_path)].into_iter().flatten() {
        outside_sources(path, &recipe)?;
    }
    let mut outputs = Outputs::open(out, &work)?;
    let begun = lock(&source, recipe, &wish, request, stages)?;
    let parent = Parent::of(&begun.resolved.lock, begun.recipe.arch, &begun.lock_path)?;
    let parent = parent.as_ref();
    let store = kept::open(request.store.as_deref().unwrap_or(&work.path().join("store")))?;

    let placed = Placed::read(&request.cache, outputs.folder());
    let disks =
        begun.recipe.volumes.iter().flat_map(|volume| {
            ["raw", "vmdk"].map(|ending| format!("{}.{ending}", volume.device.file_stem()))
        });
    let others = [MAPPINGS, REGISTRATION, LOG, MANIFEST, check::CHECKS].map(str::to_owned);
    outputs.refuse_others(disks.chain(others), |name| placed.is_there(outputs.folder(), name))?;
    // Before anything is read for the outputs: what changes while they are made is noticed by the next bake.
    let made_from = placed::made_from(request, &begun.recipe, &begun.resolved.lock)?;
    let in_place = stages.run_if("outputs", |outcome| {
        if request.store.is_none() {
            return Ok(None);
        }
        let still = placed.still(outputs.folder(), &made_from, &store);
        outcome.cached = true;
        if request.explain {
            stages.report().line(&match &still {
                Ok(_) => "outputs: in their places, by size, inode and time of change; nothing they follow from has changed".into(),
                Err(why) => format!("outputs: made anew, {why}"),
            });
        }
        Ok::<_, Error>(still.ok())
    })?;
    if let Some((manifest, stored)) = in_place {
        let finished = outputs.kept_in_place();
        drop(work);
        let checks = checks(&finished, request, stages)?;
        return Ok(Baked { manifest, out: finished.folder, stored, checks });
    }

    let Root { recipe, lock, lock_path, built, to_keep } =
        root(begun, &store, &mut work, request, stages).map_err(|error| with_shell(error, request))?;
    let (recipe, lock) = (&recipe, &lock);
    stages.run("lint", |_| lint::examine(recipe, &built, stages.report()))?;
    let maps = stages.run("disk", |outcome| {
        let maps = lay_out(recipe, &built, lock, parent, work.path())?;
        outcome.bytes = Some(maps.iter().flatten().map(BlockMap::data_bytes).sum());
        Ok::<_, Error>(maps)
    })?;
    let kept = stages.run("store", |outcome| {
        let mut kept = Vec::new();
        for (volume, map) in recipe.volumes.iter().zip(&maps) {
            let against = parent.and_then(|parent| parent.volume(volume));
            let keep = |map| kept::keep(&store, recipe, volume, map, against, lock.time, stages);
            kept.push(map.as_ref().map(keep).transpose()?);
        }
        if let Some(to_keep) = &to_keep {
            keep_root(&store, recipe, lock.time, parent, to_keep, &built, stages);
        }
        let new: u64 = kept.iter().flatten().map(|kept| kept.put.new_bytes).sum();
        (outcome.bytes, outcome.cached) = (Some(new), new == 0);
        Ok::<_, Error>(kept)
    })?;
    let (manifest, finished) = stages.run("write", |outcome| {
        let mut written = Vec::new();
        for (volume, kept) in recipe.volumes.iter().zip(&kept) {
            let write = |kept| write_volume(volume, kept, &mut outputs, &placed, &store, request, stages);
            let mut done = kept.as_ref().map(write).transpose()?;
            if let (Some(done), Some(against)) = (&mut done, parent.and_then(|parent| parent.volume(volume)))
            {
                done.parent = Some(ManifestParent::of(against, &done.blocks));
            }
            written.push(done);
        }
        outcome.bytes = Some(written.iter().flatten().map(|written| written.data_bytes).sum());
        let (manifest, registration) = registration::describe(recipe, lock, &written)?;
        outputs.text(MAPPINGS, &json(&registration.block_device_mappings))?;
        outputs.text(REGISTRATION, &json(&registration))?;
        outputs.text(LOG, &json(&Made::new(&request.recipe, &lock_path, &request.set)?))?;
        outputs.text(MANIFEST, &manifest.to_text())?;
        let finished = outputs.finish()?;
        Placed::remember(&request.cache, &finished.folder, &made_from, &finished.names);
        Ok::<_, Error>((manifest, finished))
    })?;
    let devices = recipe.volumes.iter().map(|volume| volume.device.to_string());
    let stored = devices.zip(kept).filter_map(|(device, kept)| Some((device, kept?.put))).collect();
    drop(maps);
    drop(built);
    // Twenty thousand files take a while to go; the machines need not wait for that.
    let tidy = std::thread::spawn(move || drop(work));

    let checks = checks(&finished, request, stages)?;
    // It cannot fail: what stays behind is in the cache, where it does no harm.
    let _ = tidy.join();
    Ok(Baked { manifest, out: finished.folder, stored, checks })
}

/// The checks that a request wants of its outputs.
fn checks(finished: &Finished, request: &Request, stages: &Stages<'_>) -> Result<Vec<Checked>, Error> {
    let Some(choice) = request.check else { return Ok(Vec::new()) };
    // No bake replaces what is checked; others may look at it, too.
    finished.share();
    let out = &finished.folder;
    let place = Place { cache: &request.cache, now: request.now, mirror: request.mirror.as_deref() };
    check::check(out, choice, &place, stages)
}

/// Takes away what processes that were killed left behind: in the cache, and in folders of outputs that they wrote to. What
/// others are at work on stays. What cannot be removed is left for another time.
pub fn sweep(cache: &Path) {
    work::sweep(&cache.join("work"));
    ["tools", "native"].into_iter().for_each(|folder| tools::sweep(&cache.join(folder)));
    let downloads = cache.join("downloads");
    if downloads.is_dir() {
        // It sweeps when it is opened.
        let _ = debian::Cache::open(&downloads);
    }
}

/// Every volume as a disk, in the recipe's order; `None` for one that starts blank.
fn lay_out(
    recipe: &Recipe,
    built: &rootfs::Built,
    lock: &Lock,
    parent: Option<&Parent>,
    work: &Path,
) -> Result<Vec<Option<BlockMap>>, Error> {
    let bios = built.bios.as_ref().map(|images| disk::BiosBoot {
        boot_img: images.boot_img.clone(),
        core_img: images.core_img.clone(),
    });
    let parts = RootParts { tree: &built.tree, esp: &built.esp, bios, time: lock.time };
    let mut maps = Vec::new();
    for volume in &recipe.volumes {
        let against = parent.and_then(|parent| parent.volume(volume));
        let map = match volume.filesystem {
            _ if volume.root => Some(volumes::root_volume(recipe, volume, against, &parts)?),
            Some(recipe::Filesystem::Ext4) if volume.ephemeral.is_none() => {
                let folder = work.join(format!("volume-{}", volume.device.file_stem()));
                fs::create_dir(&folder).map_err(Error::io(&folder, "cannot be made"))?;
                let tree = rootfs::data_tree(volume.source.as_deref(), built.made, &folder)?;
                Some(volumes::data_volume(recipe, volume, against, &tree, lock.time)?)
            }
            _ => None,
        };
        maps.push(map);
    }
    Ok(maps)
}

/// How much room compressed blocks of VMDK files may take in the cache.
const GRAIN_CACHE: u64 = 2 << 30;

/// Writes a volume's raw file and its VMDK.
fn write_volume(
    volume: &Volume,
    kept: &Kept<'_>,
    outputs: &mut Outputs,
    placed: &Placed,
    store: &Arc<Store>,
    request: &Request,
    stages: &Stages<'_>,
) -> Result<Written, Error> {
    let stem = volume.device.file_stem();
    let (raw, vmdk) = (format!("{stem}.raw"), format!("{stem}.vmdk"));
    let blocks = kept.blocks();
    let id = |number: u64| {
        let at = blocks.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(blocks[at].1)
    };
    let grains = formats::vmdk::FileGrainCache::open(&request.cache.join("vmdk"), GRAIN_CACHE)?;
    let earlier = placed.earlier(outputs.folder(), &raw, store);
    let same =
        |number: u64| earlier.as_ref().is_some_and(|(_, blocks)| blocks.get(&number).copied() == id(number));
    let earlier = earlier.as_ref().map(|(file, _)| formats::Earlier { file, same: &same });
    let options = formats::VmdkOptions { cache: Some(&grains), digests: Some(&id), earlier };
    let done = std::sync::atomic::AtomicU64::new(0);
    let total = formats::bytes_to_write(kept);
    let progress = |bytes| {
        let done = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
        stages.report().progress(done, Some(total), Unit::Bytes, stem);
    };
    let (raw_path, vmdk_path) = (outputs.make(&raw), outputs.make(&vmdk));
    let (stats, compressed) = formats::write_raw_and_vmdk(kept, &raw_path, &vmdk_path, &options, &progress)?;
    if request.explain {
        let (now, before) = (compressed.compressed_blocks, compressed.cached_blocks);
        let line =
            format!("{vmdk}: {now} blocks compressed now, {before} in an earlier bake and kept in the cache");
        stages.report().line(&line);
    }
    Ok(Written { raw, vmdk, data_bytes: stats.written, blocks: blocks.to_vec(), parent: None })
}

/// A value as text, ending in a line break.
fn json(value: &impl serde::Serialize) -> String {
    // A value of strings and numbers always has a JSON form.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

/// Looks for mistakes in a recipe, for every architecture that it names, and bakes nothing. Gives what deserves a look
/// though the recipe can be baked.
pub fn validate(path: &Path, set: Vec<(String, String)>) -> Result<recipe::Diagnostics, Error> {
    let source = recipe::load(path, &recipe::LoadOptions { set })?;
    for arch in source.architectures() {
        lint::check_names(&source.for_arch(*arch)?)?;
    }
    Ok(recipe::Diagnostics(source.warnings().to_vec()))
}

fn warn(source: &recipe::Source, report: &dyn Report) {
    if !source.warnings().is_empty() {
        report.diagnostics(&recipe::Diagnostics(source.warnings().to_vec()));
    }
}

/// `out/<name>/<arch>`, below the folder where the user stands.
fn default_out(recipe: &Recipe) -> PathBuf {
    Path::new("out").join(&recipe.name).join(recipe.arch.as_str())
}

pub(crate) fn no_root(recipe: &Recipe) -> Error {
    Error::NotBaked { path: PathBuf::from(&recipe.name), reason: "the recipe has no root volume".into() }
}

/// The volumes beside the root that hold a file system from the start.
fn data_volumes(recipe: &Recipe) -> impl Iterator<Item = &Volume> {
    recipe
        .volumes
        .iter()
        .filter(|volume| !volume.root && volume.ephemeral.is_none() && volume.filesystem.is_some())
}

/// The data volumes that are mounted at boot.
fn mounts(recipe: &Recipe) -> Vec<rootfs::Mount> {
    let mounted = data_volumes(recipe).filter_map(|volume| Some((volume, volume.mount.clone()?)));
    let mounts = mounted.map(|(volume, path)| rootfs::Mount {
        uuid: VolumeIds::of(recipe, volume).file_system,
        path,
        kind: "ext4".to_owned(),
    });
    mounts.collect()
}

/// What a recipe's disks will be known by.
fn boot(recipe: &Recipe) -> Result<rootfs::Boot, Error> {
    let volume = recipe.root_volume().ok_or_else(|| no_root(recipe))?;
    let ids = VolumeIds::of(recipe, volume);
    Ok(rootfs::Boot { root_uuid: ids.file_system, esp_id: ids.esp_volume, mounts: mounts(recipe) })
}

/// The root's making as its room wants to have it said; `recipe` is the ingredients' or a part of it.
fn root_request<'a>(
    ingredients: &'a Ingredients,
    recipe: &'a Recipe,
    work: &'a Path,
    progress: &'a RootProgress<'_, '_>,
) -> Result<rootfs::Request<'a>, Error> {
    Ok(rootfs::Request {
        recipe,
        packages: &ingredients.files,
        time: ingredients.lock.time,
        work,
        boot: boot(&ingredients.recipe)?,
        foreign: ingredients.foreign.as_ref(),
        progress,
    })
}

/// A recipe with its root.
struct Root {
    recipe: Recipe,
    lock: Lock,
    lock_path: PathBuf,
    built: rootfs::Built,
    /// What the root was made from, and its Tree before anything was laid into it last; `None` when it was kept already, or
    /// is not to be.
    to_keep: Option<(roots::Inputs, tree::Tree)>,
}

/// The root of a recipe: one that is kept in the store, or a new one; and then what is laid into it last.
fn root(
    begun: Begun,
    store: &Arc<Store>,
    work: &mut WorkFolder,
    request: &Request,
    stages: &Stages<'_>,
) -> Result<Root, Error> {
    let explain = |line: String| {
        if request.explain {
            stages.report().line(&line)
        }
    };
    let (base, late) = rootfs::divide(&begun.recipe);
    // A folder each, for what is laid into a kept root and could not stay there, into a new one, and for a root made whole.
    let [kept_work, late_work, whole_work] =
        ["late-kept", "late", "whole"].map(|name| work.path().join(name));
    for folder in [&kept_work, &late_work, &whole_work] {
        fs::create_dir(folder).map_err(Error::io(folder, "cannot be made"))?;
    }
    let inputs = roots::Inputs::of(&base, &begun.resolved.lock, &boot(&begun.recipe)?)?;
    if request.store.is_some() && begun.lock_is_whole() {
        let found = stages.run_if("root file system", |outcome| {
            let Some(kept) = roots::find(store, &inputs)? else { return Ok(None) };
            outcome.cached = true;
            explain("root file system: kept from an earlier bake of the same packages and settings".into());
            let boot = boot(&begun.recipe)?;
            let mut built = rootfs::Built::again(kept.tree, kept.bios, kept.made, begun.recipe.arch, &boot)?;
            let laid = late.lay(&mut built.tree, built.made, &kept_work)?;
            Ok::<_, Error>(laid.is_ok().then_some(built))
        })?;
        if let Some(built) = found {
            let Begun { recipe, resolved, lock_path } = begun;
            return Ok(Root { recipe, lock: resolved.lock, lock_path, built, to_keep: None });
        }
        if request.explain {
            explain(match roots::nearest(store, &inputs)? {
                Some(changed) => {
                    format!("root file system: made anew, for these changed: {}", changed.join(", "))
                }
                None => "root file system: made anew, for none is kept yet".to_owned(),
            });
        }
    }
    let ingredients = begun.fetch(request, stages)?;
    let (place, in_memory) = quick_place(work, &ingredients.recipe, request)?;
    explain(format!("root file system: made {}", if in_memory { "in memory" } else { "on the disk" }));
    let mut built = build_root(&ingredients, &base, &place, request.explain, stages)?;
    let mut to_keep = request.store.is_some().then(|| (inputs, built.tree.clone()));
    if let Err(rootfs::InTheWay(path)) = late.lay(&mut built.tree, built.made, &late_work)? {
        explain(format!(
            "root file system: made once more, for `/{path}` is a link, or a file with several names"
        ));
        built = build_root(&ingredients, &ingredients.recipe, &whole_work, request.explain, stages)?;
        to_keep = None;
    }
    let Ingredients { recipe, lock, lock_path, .. } = ingredients;
    Ok(Root { recipe, lock, lock_path, built, to_keep })
}

/// Where a root is made: in memory when there is enough of it for all that the root's volume can hold. Whether it is.
fn quick_place(work: &mut WorkFolder, recipe: &Recipe, request: &Request) -> Result<(PathBuf, bool), Error> {
    let size = recipe.root_volume().ok_or_else(|| no_root(recipe))?.size;
    work.quick_folder("root", size, request.memory)
}

/// Keeps a root for later bakes. That it could not be kept is told, and stops nothing.
fn keep_root(
    store: &Store,
    recipe: &Recipe,
    time: i64,
    parent: Option<&Parent>,
    (inputs, tree): &(roots::Inputs, tree::Tree),
    built: &rootfs::Built,
    stages: &Stages<'_>,
) {
    let Some(volume) = recipe.root_volume() else { return };
    let keep = || {
        let against = parent.and_then(|parent| parent.volume(volume));
        let map = volumes::root_file_system(recipe, volume, against, tree, time)?;
        roots::keep(store, inputs, tree, built, &map)
    };
    if let Err(error) = keep() {
        stages.report().line(&format!("the root could not be kept for later bakes: {error}"));
    }
}

fn build_root(
    ingredients: &Ingredients,
    recipe: &Recipe,
    work: &Path,
    explain: bool,
    stages: &Stages<'_>,
) -> Result<rootfs::Built, Error> {
    stages.run("root file system", |_| {
        let progress = RootProgress { stages };
        let built = rootfs::build(&root_request(ingredients, recipe, work, &progress)?)?;
        for line in explanation(&built.report, explain) {
            stages.report().line(&line);
        }
        for note in &built.report.notes {
            stages.report().line(note);
        }
        Ok::<_, Error>(built)
    })
}

/// Makes the root file system of a recipe up to the point where something in it fails, else all of it but its boot files,
/// and hands it to `visit`; what is changed in there is thrown away. With `steps` the recipe's own steps run, else the
/// root stands as they will find it. Of the request, outputs and checks mean nothing here.
pub fn stand<T>(
    request: &Request,
    steps: bool,
    stages: &Stages<'_>,
    visit: impl FnOnce(&Recipe, &rootfs::Standing) -> T,
) -> Result<T, Error> {
    let ingredients = fetch(request, stages)?;
    let mut work = WorkFolder::new(&request.cache, "shell")?;
    let (place, _) = quick_place(&mut work, &ingredients.recipe, request)?;
    let standing = stages.run("root file system", |_| {
        let progress = RootProgress { stages };
        Ok::<_, Error>(rootfs::stand(
            &root_request(&ingredients, &ingredients.recipe, &place, &progress)?,
            steps,
        )?)
    })?;
    Ok(visit(&ingredients.recipe, &standing))
}

/// What is worth telling of a root's making: how many programs of a foreign root ran how; with `all` also where the time
/// went and every program that was emulated.
fn explanation(report: &rootfs::Report, all: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if all {
        for took in &report.stages {
            lines.push(format!("{:8.1} s  {}", took.seconds, took.name));
        }
        let mut scripts: Vec<_> = report.scripts.iter().collect();
        scripts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        lines.push(format!("the longest of {} steps inside the root:", scripts.len()));
        lines.extend(scripts.iter().take(15).map(|took| format!("{:8.1} s  {}", took.seconds, took.name)));
    }
    if let Some(counts) = &report.programs {
        let (native, emulated) = counts.totals();
        let percent = 100.0 * native as f64 / (native + emulated).max(1) as f64;
        lines.push(format!("program starts: {native} native ({percent:.1} %), {emulated} emulated"));
        if all {
            let most = counts.most_emulated();
            lines.extend(most.into_iter().map(|(path, count)| format!("{count:8}    {path} emulated")));
        }
    }
    lines
}

/// A failed script's error, with the way to a shell where it failed.
fn with_shell(error: Error, request: &Request) -> Error {
    match error {
        Error::Root(source @ rootfs::Error::Program { .. }) => {
            let path = request.recipe.display().to_string();
            let mut shell = block::shell_word(&path);
            if let Some(arch) = request.arch.filter(|arch| Some(*arch) != host_arch()) {
                shell += &format!(" --arch {arch}");
            }
            Error::Script { source: Box::new(source), shell }
        }
        other => other,
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
