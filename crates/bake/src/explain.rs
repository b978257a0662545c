//! What a bake would do, told before it is done.

use std::path::{Path, PathBuf};

use debian::cache::Cache;
use recipe::{Arch, Check, Lock, Recipe, ValueOrigin, Volume};
use serde::Serialize;

use crate::packages::misfit;
use crate::registration::machines;
use crate::{Error, host_arch};

/// What to explain.
#[derive(Clone, Debug)]
pub struct Question {
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Variables to override.
    pub set: Vec<(String, String)>,
    /// The architecture; the host's if not given.
    pub arch: Option<Arch>,
    /// The lock's file; the one beside the recipe if not given.
    pub lock: Option<PathBuf>,
    /// The cache folder; it is looked into and left as it is.
    pub cache: PathBuf,
}

/// A recipe for one architecture, resolved, and what a bake of it would do now.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The image's name.
    pub name: String,
    /// The architecture.
    pub arch: Arch,
    /// The recipe's file and those of its bases, the recipe first.
    pub files: Vec<PathBuf>,
    /// Every value with its place.
    pub values: Vec<ValueOrigin>,
    /// The user who is given the launch key.
    pub default_user: Option<String>,
    /// The lock.
    pub lock: LockState,
    /// The packages: all of the lock's when it fits, else those that are asked for.
    pub packages: Vec<ExplainedPackage>,
    /// The volumes, in the recipe's order.
    pub volumes: Vec<Volume>,
    /// The checks, in the recipe's order.
    pub checks: Vec<Check>,
    /// What a bake would do, stage by stage.
    pub stages: Vec<ExplainedStage>,
}

/// How the lock stands to the recipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockState {
    /// Its file.
    pub path: PathBuf,
    /// Whether it is there and holds what the recipe asks for.
    pub fits: bool,
    /// Why it does not.
    pub reason: Option<String>,
    /// The newest Date of the repositories it was written from: `2026-11-21T08:15:00Z`.
    pub time: Option<String>,
}

/// A package, and why it is in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedPackage {
    /// Its name.
    pub name: String,
    /// The locked version.
    pub version: Option<String>,
    /// Bytes of its .deb file.
    pub size: Option<u64>,
    /// Why it is there.
    pub why: Why,
    /// Where the recipe asks for it: `file:line`.
    pub asked: Option<String>,
    /// Whether its file is in the cache already.
    pub cached: bool,
}

/// Why a package is in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// The recipe or one of its bases names it.
    Recipe,
    /// The machine needs it to boot.
    Boot,
    /// It is essential to the distribution, or another package needs it.
    Needed,
}

/// What a stage of a bake would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedStage {
    /// Its name, as in the summary of a bake.
    pub name: String,
    /// What it would do.
    pub what: String,
}

/// Reads a recipe, its lock and the cache, changes nothing and needs no network.
pub fn explain(question: &Question) -> Result<Explanation, Error> {
    let source = recipe::load(&question.recipe, &recipe::LoadOptions { set: question.set.clone() })?;
    let first = source.architectures().first().copied().unwrap_or(Arch::X86_64);
    let arch = question.arch.or_else(host_arch).unwrap_or(first);
    let recipe = source.for_arch(arch)?;
    let path = question.lock.clone().unwrap_or_else(|| source.lock_path());
    let lock = Lock::read(&path)?;
    let reason = misfit(lock.as_ref(), std::slice::from_ref(&recipe));
    let lock = lock.filter(|_| reason.is_none());
    let packages = packages(&recipe, lock.as_ref(), &question.cache)?;
    let state = LockState {
        path,
        fits: reason.is_none(),
        reason,
        time: lock.as_ref().map(|lock| catalog::format_time(lock.time)),
    };
    let has_parent = lock.as_ref().and_then(|lock| lock.for_arch(arch)?.parent).is_some();
    let stages = stages(&recipe, source.files().len(), &state, has_parent, &packages);
    Ok(Explanation {
        name: recipe.image_name.clone(),
        arch,
        files: source.files().to_vec(),
        values: source.origins(arch).to_vec(),
        default_user: recipe.default_user().map(|user| user.name.clone()),
        lock: state,
        packages,
        stages,
        volumes: recipe.volumes,
        checks: recipe.checks,
    })
}

fn packages(recipe: &Recipe, lock: Option<&Lock>, cache: &Path) -> Result<Vec<ExplainedPackage>, Error> {
    let boot = rootfs::boot_packages(recipe.arch, &recipe.kernel);
    let reason = |name: &str| match recipe.packages.iter().find(|package| package.name == name) {
        Some(package) => {
            let (line, _) = package.span.position();
            (Why::Recipe, Some(format!("{}:{line}", package.span.file().display())))
        }
        None if boot.iter().any(|other| other == name) => (Why::Boot, None),
        None => (Why::Needed, None),
    };
    let Some(locked) = lock.and_then(|lock| lock.for_arch(recipe.arch)) else {
        let asked = recipe.packages.iter().map(|package| (&package.name, package.version.clone()));
        let named = |name: &String| recipe.packages.iter().any(|package| package.name == *name);
        let boot = boot.iter().filter(|name| !named(name)).map(|name| (name, None));
        let packages = asked.chain(boot).map(|(name, version)| {
            let (why, asked) = reason(name);
            ExplainedPackage { name: name.clone(), version, size: None, why, asked, cached: false }
        });
        return Ok(packages.collect());
    };
    let downloads = cache.join("downloads");
    let cache = if downloads.is_dir() { Some(Cache::open(&downloads)?) } else { None };
    let packages = locked.packages.iter().map(|package| {
        let (why, asked) = reason(&package.name);
        let cached = cache.as_ref().is_some_and(|cache| cache.path(package.sha256).exists());
        let (version, size) = (Some(package.version.clone()), Some(package.size));
        ExplainedPackage { name: package.name.clone(), version, size, why, asked, cached }
    });
    Ok(packages.collect())
}

fn stages(
    recipe: &Recipe,
    files: usize,
    lock: &LockState,
    has_parent: bool,
    packages: &[ExplainedPackage],
) -> Vec<ExplainedStage> {
    let mut stages = Vec::new();
    let mut add = |name: &str, what: String| stages.push(ExplainedStage { name: name.to_owned(), what });
    add("recipe", format!("{} read, merged and checked", count(files, "file")));
    match &lock.reason {
        None => add("lock", "fits the recipe: taken as it is, no repository is asked".to_owned()),
        Some(reason) => add("lock", format!("{reason}: packages are chosen and it is written")),
    }
    let size = |cached: bool| {
        let those = packages.iter().filter(|package| package.cached == cached);
        (those.clone().count(), those.filter_map(|package| package.size).sum::<u64>())
    };
    let ((there, _), (missing, bytes)) = (size(true), size(false));
    match lock.fits {
        true => {
            add("packages", format!("{there} are in the cache, {missing} are fetched ({} MiB)", bytes >> 20))
        }
        false => add("packages", "those of the lock are fetched, where the cache lacks them".to_owned()),
    }
    if host_arch() != Some(recipe.arch) {
        add("foreign programs", format!("what runs {} programs on this machine is fetched", recipe.arch));
    }
    let parts = [
        (recipe.motd.len(), "login message"),
        (recipe.web.as_ref().map_or(0, |web| web.entries.len()), "web entry"),
        (recipe.users.len(), "user"),
        (recipe.files.len(), "file"),
        (recipe.services.enable.len() + recipe.services.disable.len(), "service"),
        (recipe.run.len(), "run step"),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| count(*number, what));
    let parts = std::iter::once("packages".to_owned()).chain(parts).collect::<Vec<_>>().join(", then ");
    add("root file system", format!("{parts}, initrd and boot loader"));
    add("lint", "the finished files are looked at as EC2 will".to_owned());
    let filled = recipe.volumes.iter().filter(|volume| volume.ephemeral.is_none());
    let filled = filled.filter(|volume| volume.root || volume.filesystem.is_some()).count();
    let against = if has_parent { ", against the parent that the lock names" } else { "" };
    add("disk", format!("{} laid out{against}", count(filled, "volume")));
    add("store", "each kept as a snapshot, by blocks that earlier images may have brought".to_owned());
    add("write", "raw and VMDK of each, mapping, registration, manifest".to_owned());
    add("tools", "QEMU and firmware, from the cache or fetched into it".to_owned());
    for machine in machines(recipe.arch, recipe.image.boot_mode) {
        add(&format!("boot by {machine}"), count(recipe.checks.len(), "check"));
    }
    stages
}

fn count(number: usize, what: &str) -> String {
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        _ => format!("{number} {what}s"),
    }
}
