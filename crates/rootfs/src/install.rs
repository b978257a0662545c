//! Installing the packages: staged ahead, laid down in waves, configured by the root's own dpkg.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sandbox::{Input, Sandbox};

use crate::accounts::Accounts;
use crate::beside::{self, Beside, LANES};
use crate::clean::hold_host_keys_places;
use crate::dpkg::{self, Diversions, Interests, StatOverrides};
use crate::error::{Error, OnFile};
use crate::lay::{Conffiles, Ledger, Surroundings};
use crate::order::{Wave, essential, waves};
use crate::package::{Package, PackageFile};
use crate::programs::{Programs, StandIn, Took};
use crate::root::{Attributes, Root};
use crate::stage::Stager;

/// What installing leaves behind for the scan.
pub(crate) struct Installed {
    pub(crate) packages: Vec<Package>,
    pub(crate) ledger: Ledger,
    /// Indexes of the essential packages and all they need.
    pub(crate) essential: BTreeSet<usize>,
    /// What scripts asked for and is still being done.
    pub(crate) lanes: Vec<Beside>,
}

/// When a package was built: the time in its .deb file's first header, which dpkg-deb takes from the changelog.
pub(crate) fn build_time(path: &Path) -> Result<i64, Error> {
    let mut head = [0; 36];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).on("cannot read", path)?;
    let digits = std::str::from_utf8(&head[24..36]).unwrap_or_default();
    Ok(digits.trim().parse().unwrap_or(0))
}

/// Reads the control archives of all packages, on all cores, in the order of their names.
pub(crate) fn read_packages(files: &[PackageFile]) -> Result<Vec<Package>, Error> {
    use rayon::prelude::*;
    let mut files: Vec<_> = files.iter().collect();
    files.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
    files.into_par_iter().map(Package::read).collect()
}

/// Installs all packages into an empty root. The folders, both empty, are for packages that are read ahead and for what is done
/// beside scripts.
pub(crate) fn install(
    packages: Vec<Package>,
    architecture: &str,
    root: &Root,
    [stage_folder, beside]: [&Path; 2],
    time: i64,
    programs: &mut Programs<'_>,
    stand_ins: &[StandIn],
) -> Result<Installed, Error> {
    let waves = waves(&packages)?;
    merge_usr(root, architecture, &packages, time)?;
    dpkg::create(root, architecture, time)?;
    let order = waves.iter().flat_map(|wave| first_base_files(&packages, &wave.unpack)).collect();
    let stager = Stager::new(&packages, order, stage_folder, time);
    let mut install = Install {
        packages: &packages,
        root,
        time,
        ledger: Ledger::default(),
        interests: Interests::default(),
        stand_ins,
        beside,
        lanes: Vec::new(),
        waited: 0.0,
        laying: 0.0,
    };
    stager.run(|stager| {
        for (number, wave) in waves.iter().enumerate() {
            let last = number + 1 == waves.len();
            install.wave(wave, number == 0, last, stager, programs)?;
        }
        Ok::<_, Error>(())
    })?;
    programs.scripts.push(Took { name: "waiting for packages to be read".into(), seconds: install.waited });
    programs.scripts.push(Took { name: "laying packages down".into(), seconds: install.laying });
    let (ledger, lanes) = (install.ledger, install.lanes);
    let essential = essential(&packages);
    Ok(Installed { packages, ledger, essential, lanes })
}

/// base-files first: its folders have the modes that a system's top folders must have.
fn first_base_files(packages: &[Package], order: &[usize]) -> Vec<usize> {
    let (first, rest): (Vec<_>, Vec<_>) =
        order.iter().partition(|index| &*packages[**index].name == "base-files");
    [first, rest].concat()
}

/// Makes `/bin`, `/lib`, `/sbin` and their like links into `/usr` before anything is laid down.
fn merge_usr(root: &Root, architecture: &str, packages: &[Package], time: i64) -> Result<(), Error> {
    let folder = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: time };
    let suffixes: &[&str] = match architecture {
        "amd64" if packages.iter().any(|package| &*package.name == "usr-is-merged") => {
            &["bin", "lib", "lib32", "lib64", "libx32", "sbin"]
        }
        "amd64" => &["bin", "lib", "lib64", "sbin"],
        _ => &["bin", "lib", "sbin"],
    };
    for name in suffixes {
        root.make_folders(format!("usr/{name}").as_bytes(), folder)?;
        root.symlink(format!("usr/{name}").as_bytes(), name.as_bytes(), folder)?;
    }
    Ok(())
}

struct Install<'a> {
    packages: &'a [Package],
    root: &'a Root,
    time: i64,
    ledger: Ledger,
    interests: Interests,
    stand_ins: &'a [StandIn],
    /// An empty folder for what is done beside, and what does it.
    beside: &'a Path,
    lanes: Vec<Beside>,
    /// Seconds spent waiting for packages to be read, and laying them down.
    waited: f64,
    laying: f64,
}

impl Install<'_> {
    fn wave(
        &mut self,
        wave: &Wave,
        first: bool,
        last: bool,
        stager: &Stager<'_>,
        programs: &mut Programs<'_>,
    ) -> Result<(), Error> {
        let conffiles = if first { Conffiles::InPlace } else { Conffiles::Waiting };
        let mut paragraphs = String::new();
        for index in first_base_files(self.packages, &wave.unpack) {
            // The very first packages bring the shell: their preinst scripts can only run once all of them are there.
            if !first {
                self.preinst(index, programs)?;
            }
            self.interests.add(&self.packages[index]);
            paragraphs.push_str(&self.unpack(index, stager, conffiles, programs)?);
        }
        dpkg::add_status(self.root, &paragraphs, self.time)?;
        self.interests.write(self.root, self.time)?;
        if first {
            for index in &wave.unpack {
                self.preinst(*index, programs)?;
            }
        }
        self.configure(wave, last, programs)
    }

    fn unpack(
        &mut self,
        index: usize,
        stager: &Stager<'_>,
        conffiles: Conffiles,
        programs: &mut Programs<'_>,
    ) -> Result<String, Error> {
        let start = Instant::now();
        let staged = stager.take(index)?;
        self.waited += start.elapsed().as_secs_f64();
        let start = Instant::now();
        let package = &self.packages[index];
        let accounts = Accounts::read(self.root)?;
        let around = Surroundings {
            root: self.root,
            overrides: &StatOverrides::read(self.root, &accounts)?,
            accounts: &accounts,
            diversions: &Diversions::read(self.root)?,
        };
        let folder = staged.folder.clone();
        let laid = self.ledger.lay(self.packages, index, staged, &around, conffiles)?;
        std::fs::remove_dir_all(&folder).on("cannot remove", &folder)?;
        if let Some(dispatch) = programs.dispatch.as_mut().filter(|dispatch| dispatch.knows(&package.name)) {
            for (path, laid) in &self.ledger.laid {
                if laid.package == package.name
                    && let Some(file) = laid.file
                {
                    dispatch.laid(&package.name, package.version.as_str(), path, file.size, laid.mtime);
                }
            }
        }
        for path in &laid.list {
            self.interests.laid(path);
        }
        dpkg::write_info(self.root, package, &laid.list, self.time)?;
        for robbed in &laid.robbed {
            let list = self.ledger.lists.get(robbed).map(Vec::as_slice).unwrap_or_default();
            let path = format!("{}/info/{}.list", dpkg::FOLDER, self.packages[*robbed].info_name());
            let plain = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: self.time };
            self.root.write(path.as_bytes(), &dpkg::list_text(list), plain)?;
        }
        self.laying += start.elapsed().as_secs_f64();
        Ok(dpkg::status_paragraph(package, &laid.conffiles))
    }

    /// Runs a package's preinst as dpkg does: from `tmp.ci`, beside the other control files.
    fn preinst(&self, index: usize, programs: &mut Programs<'_>) -> Result<(), Error> {
        let package = &self.packages[index];
        if package.control_file("preinst").is_none() {
            return Ok(());
        }
        let folder = format!("{}/tmp.ci", dpkg::FOLDER);
        let plain = Attributes { mode: 0o755, uid: 0, gid: 0, mtime: self.time };
        self.root.make_folders(folder.as_bytes(), plain)?;
        for (name, file) in &package.control.files {
            let attributes = Attributes { mode: file.mode, ..plain };
            self.root.write(format!("{folder}/{name}").as_bytes(), &file.bytes, attributes)?;
        }
        let sandbox = self
            .sandbox(programs)?
            .env("DPKG_MAINTSCRIPT_PACKAGE", &*package.name)
            .env("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1")
            .env("DPKG_MAINTSCRIPT_ARCH", &package.architecture)
            .env("DPKG_MAINTSCRIPT_NAME", "preinst")
            .env("DPKG_MAINTSCRIPT_DEBUG", "0")
            .env("DPKG_ADMINDIR", "/var/lib/dpkg")
            .env("DPKG_ROOT", "")
            .env("DPKG_FORCE", "security-mac,downgrade")
            .env("DPKG_RUNNING_VERSION", self.dpkg_version());
        let script = format!("/{folder}/preinst");
        let what = format!("preinst of package {}", package.name);
        programs.run_timed(&what, &sandbox, &[script.as_str(), "install"], Input::Null)?;
        self.root.forget();
        self.root.remove_all(folder.as_bytes())?;
        Ok(())
    }

    fn dpkg_version(&self) -> &str {
        let dpkg = self.packages.iter().find(|package| &*package.name == "dpkg");
        dpkg.map_or("1.22.0", |package| package.version.as_str())
    }

    fn sandbox(&self, programs: &Programs<'_>) -> Result<Sandbox, Error> {
        let mut sandbox = programs.sandbox();
        for stand_in in self.stand_ins {
            let folder = stand_in.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let is_there = match stand_in.beside {
                Some(program) => {
                    self.root.exists(program.as_bytes())? && self.root.exists(folder.as_bytes())?
                }
                None => true,
            };
            if is_there {
                sandbox = sandbox.hide_with(&stand_in.path, stand_in.script.as_bytes(), 0o755);
            }
        }
        for stand_in in beside::python_stand_ins(self.root)? {
            sandbox = sandbox.hide_with(&stand_in.path, stand_in.script.as_bytes(), 0o644);
        }
        Ok(sandbox)
    }

    /// Everything is laid down now.
    fn start_lanes(&mut self, programs: &mut Programs<'_>) -> Result<(), Error> {
        let sandbox = programs.ready()?;
        let what = "what is done beside scripts";
        let places = sandbox.places().map_err(|source| Error::Sandbox { what: what.into(), source })?;
        let places = Arc::new(places);
        for (number, lane) in LANES.into_iter().enumerate() {
            let work = self.beside.join(number.to_string());
            self.lanes.push(Beside::start(lane, self.root, work, &sandbox, places.clone())?);
        }
        Ok(())
    }

    /// Lets dpkg configure what the wave says; triggers wait for the last wave, so that each runs once.
    fn configure(&mut self, wave: &Wave, last: bool, programs: &mut Programs<'_>) -> Result<(), Error> {
        let mut argv: Vec<String> =
            ["dpkg", "--configure", "--force-unsafe-io", "--force-confnew", "--log=/dev/null"]
                .map(Into::into)
                .into();
        if last {
            argv.push("--pending".into());
        } else {
            argv.push("--no-triggers".into());
            if wave.configure.is_empty() {
                return Ok(());
            }
            argv.extend(wave.configure.iter().map(|index| self.packages[*index].info_name()));
        }
        hold_host_keys_places(self.root, self.time)?;
        if last {
            self.start_lanes(programs)?;
        }
        let sandbox = self.sandbox(programs)?;
        let (root, lanes) = (self.root, &mut self.lanes);
        let mut looked = Ok(());
        programs.dpkg("configuring the packages", &sandbox, &argv, &mut || {
            for lane in lanes.iter_mut() {
                let result = lane.look(root);
                looked = std::mem::replace(&mut looked, Ok(())).and(result);
            }
        })?;
        self.root.forget();
        looked
    }
}
