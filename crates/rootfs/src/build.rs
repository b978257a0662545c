use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dispatch::{Counts, Machine};
use recipe::{Arch, Recipe};
use sandbox::Sandbox;
use tree::Tree;

use crate::additions::{Additions, STEP, with_script};
use crate::beside::{self, Beside};
use crate::boot::{BiosImages, efi_partition, grub, initrds, kernels, stand_ins_while_configuring};
use crate::clean::clean;
use crate::error::{Error, OnFile};
use crate::install::{Installed, build_time, install, read_packages};
use crate::package::PackageFile;
use crate::programs::{Dispatch, Foreign, Programs, Progress, Took};
use crate::root::{Attributes, Root};
use crate::scan::{Known, scan_with};
use crate::system::{apt_state, configure};

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
    /// What runs the root's programs where the recipe's architecture is not the host's.
    pub foreign: Option<&'a Foreign>,
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
    /// The EFI system partition's files.
    pub esp: Tree,
    /// What a BIOS boots; `None` where the architecture has none.
    pub bios: Option<BiosImages>,
    /// The time of all that the recipe brought, in seconds since 1970: when the newest package was built.
    pub made: i64,
    /// What happened on the way.
    pub report: Report,
}

impl Built {
    /// A root that was made before: its Tree (without what is laid into it last), GRUB's images and its time.
    pub fn again(
        tree: Tree,
        bios: Option<BiosImages>,
        made: i64,
        arch: Arch,
        boot: &Boot,
    ) -> Result<Self, Error> {
        let esp = efi_partition(&tree, arch, boot.root_uuid, made)?;
        Ok(Self { tree, esp, bios, made, report: Report::default() })
    }
}

/// What happened while a root was made. It explains, and is no part of the result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The stages in order.
    pub stages: Vec<Took>,
    /// The programs that ran in the sandbox, in order.
    pub scripts: Vec<Took>,
    /// How often programs of a foreign root ran natively or emulated; `None` for a root of the host's own kind.
    pub programs: Option<Counts>,
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
    let Request { recipe, ref boot, .. } = *request;
    let mut stages = Stages { progress: request.progress, done: Vec::new() };
    let (begun, mut programs) = begin(request)?;
    let Ready { installed, additions } = prepare(request, &begun, &mut programs, &mut stages)?;
    let Begun { root, times, folder, .. } = &begun;
    let made = times.newest;
    stages
        .stage("run steps", || recipe.run.iter().try_for_each(|step| additions.step(step, &mut programs)))?;
    let Installed { packages, ledger, lanes, .. } = installed;
    let bios = stages.stage("make the boot files", || {
        let (needed, beside): (Vec<_>, Vec<_>) = lanes.into_iter().partition(Beside::is_for_initrds);
        wait_for(needed, root, &mut programs)?;
        initrds(root, &mut programs, times.kernel)?;
        let bios = grub(root, recipe.arch, boot.root_uuid, made, &mut programs)?;
        wait_for(beside, root, &mut programs)?;
        Ok(bios)
    })?;
    stages.stage("clean", || clean(root, &ledger, &additions.laid, made))?;
    let mut own_times = BTreeMap::new();
    for kernel in kernels(root)? {
        own_times.insert(format!("boot/initrd.img-{kernel}").into_bytes(), times.kernel);
    }
    let mut built_at = BTreeMap::new();
    for package in &packages {
        let built = build_time(&package.path)?.min(request.time);
        built_at.insert(package.name.as_bytes().to_vec(), (package.name.clone(), built));
    }
    let known = Known {
        ledger: &ledger,
        recipe: &additions.laid,
        time: made,
        times: &own_times,
        packages: &built_at,
    };
    let tree = stages.stage("read the result", || scan_with(folder, Some(&known)))?;
    let esp = efi_partition(&tree, recipe.arch, boot.root_uuid, made)?;
    let counts = programs.counts()?;
    let Programs { scripts, notes, .. } = programs;
    let report = Report { stages: stages.done, scripts, programs: counts, notes };
    Ok(Built { tree, esp, bios, made, report })
}

/// A root in the making, for somebody who wants to look into it.
#[derive(Debug)]
pub struct Standing {
    /// Starts programs in it as its own scripts are started. It lasts as long as the request's work folder.
    pub sandbox: Sandbox,
    /// The recipe's steps that ran to their end, in order.
    pub ran: Vec<String>,
    /// What stopped it before it was finished; `None`: all ran that was to be run.
    pub failed: Option<Error>,
    /// Where the script of the step that failed is, in the sandbox.
    pub script: Option<&'static str>,
}

/// Makes a root file system up to the point where something in it fails, or else all but its boot files; with `steps`
/// the recipe's own steps run, else it stands as they will find it. An error only when there is nothing to look at.
pub fn stand(request: &Request<'_>, steps: bool) -> Result<Standing, Error> {
    let mut stages = Stages { progress: request.progress, done: Vec::new() };
    let (begun, mut programs) = begin(request)?;
    let (mut ran, mut script) = (Vec::new(), None);
    let failed = match prepare(request, &begun, &mut programs, &mut stages) {
        Ok(Ready { installed, additions }) => stages.stage("run steps", || {
            wait_for(installed.lanes, &begun.root, &mut programs)?;
            for step in request.recipe.run.iter().filter(|_| steps) {
                script = Some(step);
                additions.step(step, &mut programs)?;
                script = None;
                ran.push(step.name.clone());
            }
            Ok(())
        }),
        Err(error) => Err(error),
    };
    let failed = match failed {
        Ok(()) => None,
        // Anything else than a program, or the recipe about the files, leaves nothing that is worth a look.
        Err(error @ (Error::Program { .. } | Error::Recipe(_))) => Some(error),
        Err(error) => return Err(error),
    };
    let mut sandbox = programs.ready()?;
    if let Some(step) = script {
        sandbox = with_script(sandbox, step);
    }
    Ok(Standing { sandbox, ran, failed, script: script.map(|_| STEP) })
}

/// What a root file system begins with.
struct Begun {
    root: Root,
    folder: PathBuf,
    /// For packages that are read ahead, and for what is done beside scripts.
    folders: [PathBuf; 2],
    times: Times,
}

fn begin<'a>(request: &Request<'a>) -> Result<(Begun, Programs<'a>), Error> {
    let Request { recipe, time, work, progress, .. } = *request;
    let work = work.canonicalize().on("cannot open", work)?;
    let (folder, folders) = (work.join("root"), ["stage", "beside"].map(|name| work.join(name)));
    for folder in [&folder, &folders[0], &folders[1]] {
        std::fs::create_dir(folder).on("cannot make the folder", folder)?;
        without_inherited_acl(folder)?;
    }
    let root = Root::open(&folder)?;
    let times = Times::of(request.packages, time)?;
    root.set_attributes(b".", Attributes { mode: 0o755, uid: 0, gid: 0, mtime: times.newest })?;
    let mut programs = Programs::new(folder.clone(), times.newest, progress);
    if let Some(foreign) = request.foreign {
        let machine = match recipe.arch {
            Arch::X86_64 => Machine::X86_64,
            Arch::Aarch64 => Machine::Aarch64,
        };
        programs.dispatch = Some(Dispatch::new(machine, work.join("dispatch"), foreign)?);
    }
    Ok((Begun { root, folder, folders, times }, programs))
}

/// The stage in which it is waited for what is done beside.
const WAIT: &str = "wait for what is done beside";

fn wait_for(lanes: Vec<Beside>, root: &Root, programs: &mut Programs<'_>) -> Result<(), Error> {
    lanes.into_iter().try_for_each(|lane| lane.finish(root, programs))
}

/// A root file system as the recipe's own steps find it.
struct Ready<'r> {
    installed: Installed,
    additions: Additions<'r>,
}

fn prepare<'r>(
    request: &Request<'_>,
    begun: &'r Begun,
    programs: &mut Programs<'_>,
    stages: &mut Stages<'_>,
) -> Result<Ready<'r>, Error> {
    let Request { recipe, time, ref boot, .. } = *request;
    let Begun { root, folders: [stage_folder, beside], times, .. } = begun;
    let made = times.newest;
    let native = recipe.arch.debian();
    let stand_ins = stand_ins_while_configuring(boot.root_uuid);
    let packages = stages.stage("read control archives", || read_packages(request.packages))?;
    let mut installed = stages.stage("install packages", || {
        install(packages, native, root, [stage_folder, beside], time, programs, &stand_ins)
    })?;
    if !beside::nothing_looks_at(recipe) {
        let lanes = std::mem::take(&mut installed.lanes);
        stages.stage(WAIT, || wait_for(lanes, root, programs))?;
    }
    let mut additions = Additions::new(root, made);
    stages.stage("add what the recipe says", || {
        additions.check(recipe)?;
        additions.motd_web_files(recipe)?;
        for user in &recipe.users {
            additions.user(user)?;
        }
        if let Some(user) = recipe.default_user() {
            additions.cloud_init(user)?;
        }
        apt_state(root, &installed, native, made)?;
        configure(recipe, boot, &mut additions)?;
        // Last, so that a recipe has the last word on any file.
        additions.files(recipe)?;
        additions.services(recipe, programs)
    })?;
    if !recipe.run.is_empty() {
        // A step may take packages away, or read what they compile.
        let lanes = std::mem::take(&mut installed.lanes);
        stages.stage(WAIT, || wait_for(lanes, root, programs))?;
    }
    Ok(Ready { installed, additions })
}

/// Takes the access control lists away that a new folder has from the one above it: what is made in it would have
/// them, too, and the modes of the host's choice.
fn without_inherited_acl(folder: &Path) -> Result<(), Error> {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match rustix::fs::removexattr(folder, name) {
            Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error).on("cannot take the access control list from", folder),
        }
    }
    Ok(())
}

/// The times that what is made while baking gets. They follow from the packages, not from the day of the bake, so
/// that caches and the initrd stay the same for as long as the packages do.
struct Times {
    /// When the newest package was built.
    newest: i64,
    /// When the newest kernel was built: nothing in the initrd is newer.
    kernel: i64,
}

impl Times {
    fn of(packages: &[PackageFile], latest: i64) -> Result<Self, Error> {
        let (mut newest, mut kernel) = (0, 0);
        for package in packages {
            let built = build_time(&package.path)?.min(latest);
            newest = newest.max(built);
            if package.name.starts_with("linux-image-") {
                kernel = kernel.max(built);
            }
        }
        let or_latest = |time| if time > 0 { time } else { latest };
        Ok(Self { newest: or_latest(newest), kernel: or_latest(kernel) })
    }
}
