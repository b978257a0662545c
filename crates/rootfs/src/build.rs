use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use recipe::Recipe;
use tree::Tree;

use crate::error::{Error, OnFile};
use crate::install::{build_time, install, read_packages};
use crate::package::PackageFile;
use crate::programs::{Programs, Progress, Took};
use crate::root::Root;
use crate::scan::{Known, scan_with};

/// What a root file system is made from.
pub struct Request<'a> {
    /// The recipe, for one architecture.
    pub recipe: &'a Recipe,
    /// Every package of the lock, in any order.
    pub packages: &'a [PackageFile],
    /// The lock's time, in seconds since 1970. Nothing in the result is newer.
    pub time: i64,
    /// An empty private folder on a file system of Linux. It must stay as it is for as long as the trees are used.
    pub work: &'a Path,
    /// What the finished disks will be known by.
    pub boot: Boot,
    /// Who is told how it goes.
    pub progress: &'a dyn Progress,
}

/// What the finished disks will be known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// UUID of the root file system.
    pub root_uuid: [u8; 16],
    /// Volume id of the EFI system partition: `1234-ABCD` is 0x1234ABCD.
    pub esp_id: u32,
    /// File systems of other volumes that are mounted at boot.
    pub mounts: Vec<Mount>,
}

/// A file system that is mounted at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its UUID.
    pub uuid: [u8; 16],
    /// Where, absolute.
    pub path: String,
    /// Its type as mount(8) names it: `ext4`.
    pub kind: String,
}

/// A finished root file system, and what the disk needs beside it.
#[derive(Debug)]
pub struct Built {
    /// The root partition's files.
    pub tree: Tree,
    /// What happened on the way.
    pub report: Report,
}

/// What happened while a root was made. It explains, and is no part of the result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The stages in order.
    pub stages: Vec<Took>,
    /// The programs that ran in the sandbox, in order.
    pub scripts: Vec<Took>,
    /// What somebody may want to know: what could not be hidden from scripts, and the like.
    pub notes: Vec<String>,
}

struct Stages<'a> {
    progress: &'a dyn Progress,
    done: Vec<Took>,
}

impl Stages<'_> {
    fn stage<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.progress.stage(name);
        let start = Instant::now();
        let result = work();
        self.done.push(Took { name: name.into(), seconds: start.elapsed().as_secs_f64() });
        result
    }
}

/// Makes a root file system. The process must have called [`sandbox::enter`] before.
pub fn build(request: &Request<'_>) -> Result<Built, Error> {
    let Request { recipe, packages, time, work, progress, .. } = *request;
    let mut stages = Stages { progress, done: Vec::new() };
    let work = work.canonicalize().on("cannot open", work)?;
    let (root_folder, stage_folder) = (work.join("root"), work.join("stage"));
    for folder in [&root_folder, &stage_folder] {
        std::fs::create_dir(folder).on("cannot make the folder", folder)?;
    }
    let root = Root::open(&root_folder)?;
    root.set_attributes(b".", crate::root::Attributes { mode: 0o755, uid: 0, gid: 0, mtime: time })?;
    let packages = stages.stage("read control archives", || read_packages(packages))?;
    let mut newest = 0;
    for package in &packages {
        newest = newest.max(build_time(&package.path)?);
    }
    let made = if newest > 0 { newest.min(time) } else { time };
    let mut programs = Programs::new(root_folder.clone(), made, progress);
    let installed = stages.stage("install packages", || {
        install(packages, recipe.arch.debian(), &root, &stage_folder, time, &mut programs, &[])
    })?;
    let _ = &installed.packages;
    let recipe_paths = BTreeMap::new();
    let times = BTreeMap::new();
    let known = Known { ledger: &installed.ledger, recipe: &recipe_paths, time: made, times: &times };
    let tree = stages.stage("read the result", || scan_with(&root_folder, Some(&known)))?;
    let report = Report { stages: stages.done, scripts: programs.scripts, notes: programs.notes };
    Ok(Built { tree, report })
}
