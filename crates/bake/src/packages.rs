//! From a recipe to exact packages: the lock, the solver, the downloads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use debian::cache::Cache;
use debian::control::Paragraph;
use debian::download::{DownloadError, FileRequest, Gone, download};
use debian::fetch::{FetchError, Progress};
use debian::mirror::{ChosenBy, HostSources, Mirrors, choose_mirrors};
use debian::openpgp::KeyRing;
use debian::repository::{LoadOptions, SourceInfo};
use debian::solve::{Clash, Request, Solution, SolveError, solve};
use debian::universe::Universe;
use debian::version::{Version, source_version};
use recipe::{
    Arch, COMPONENTS, Code, Diagnostic, Diagnostics, Lock, LockError, LockedArch, LockedPackage,
    LockedSource, Recipe, SUITES, Source, SourceRole, Span,
};
use rootfs::PackageFile;
use tools::{Fetched, Provider};

use crate::parent::Wish;
use crate::{Error, Report, Unit};

/// The versions of our own writers that shape an image's bytes. Raised with every change that makes other bytes from
/// the same lock.
pub const WRITERS: [(&str, u32); 5] = [("disk", 1), ("ext4", 3), ("fat", 1), ("rootfs", 5), ("vmdk", 1)];

/// What may be done to the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockMode {
    /// Written when missing; what is pinned stays, what the recipe adds is solved.
    #[default]
    Keep,
    /// It must be there and fit as it is.
    Locked,
    /// All of it is renewed.
    Update,
}

/// What the repositories and downloads are given.
pub(crate) struct Context<'a> {
    pub(crate) cache: &'a Path,
    /// Seconds since 1970, for validity dates only.
    pub(crate) now: i64,
    /// `BAKEHOUSE_DEBIAN_MIRROR`.
    pub(crate) mirror: Option<&'a str>,
    /// A suite whose indexes count although their Valid-Until has passed.
    pub(crate) expired_suite: Option<&'a str>,
    pub(crate) report: &'a dyn Report,
}

impl Context<'_> {
    pub(crate) fn downloads(&self) -> Result<Cache, Error> {
        Ok(Cache::open(&self.cache.join("downloads"))?)
    }

    pub(crate) fn mirrors(&self, recipe: Option<&str>, suite: &str) -> Mirrors {
        let mirrors = choose_mirrors(recipe, self.mirror, &HostSources::read(Path::new("/etc/apt")), suite);
        let by = match mirrors.chosen_by {
            ChosenBy::Recipe => "the recipe",
            ChosenBy::Environment => "BAKEHOUSE_DEBIAN_MIRROR",
            ChosenBy::Host => "this machine's apt sources",
            ChosenBy::Default => "default",
        };
        self.report.line(&format!("mirror: {} (from {by})", mirrors.main));
        mirrors
    }

    pub(crate) fn universe(
        &self,
        mirrors: &Mirrors,
        suite: &str,
        recipe: Option<&Recipe>,
        architecture: &str,
    ) -> Result<(Universe, Vec<SourceInfo>), Error> {
        let main = [String::from("main")];
        let components = recipe.map_or(&main[..], |recipe| &recipe.distribution.components);
        let switches = recipe.map_or(Switches { updates: true, security: true }, |recipe| Switches {
            updates: recipe.distribution.updates,
            security: recipe.distribution.security,
        });
        let own_keys = recipe.and_then(|recipe| recipe.distribution.signed_by.as_deref());
        self.universe_of(mirrors, suite, components, switches, own_keys, architecture)
    }

    fn universe_of(
        &self,
        mirrors: &Mirrors,
        suite: &str,
        components: &[String],
        switches: Switches,
        own_keys: Option<&str>,
        architecture: &str,
    ) -> Result<(Universe, Vec<SourceInfo>), Error> {
        let mut repositories = mirrors.repositories(suite, components);
        repositories.retain(|repository| match repository.role.as_str() {
            "updates" => switches.updates,
            "security" => switches.security,
            _ => true,
        });
        let may_be_expired = self.expired_suite == Some(suite);
        repositories.iter_mut().for_each(|repository| repository.valid_until_override = may_be_expired);
        let mut keys = KeyRing::debian()?;
        if let Some(own) = own_keys {
            keys.add("the keys of distribution.signed_by", own.as_bytes())?;
        }
        let options = LoadOptions { now: self.now, keys };
        let progress = Downloads::new(self.report, None, "of package indexes");
        Ok(Universe::load(&repositories, architecture, &self.downloads()?, &options, &progress)?)
    }

    pub(crate) fn fetch(
        &self,
        files: &[FileRequest],
        mirrors: &Mirrors,
        suite: &str,
    ) -> Result<debian::download::Downloaded, Error> {
        let total = files.iter().map(|file| file.size).sum();
        let progress = Downloads::new(self.report, Some(total), "of packages");
        let cache = self.downloads()?;
        let missing = files.iter().filter(|file| !cache.path(file.sha256).exists());
        let (count, bytes) = missing.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.size));
        if count > 0 {
            self.report.line(&format!("fetching {count} of {} packages, {} MiB", files.len(), bytes >> 20));
        }
        download(files, mirrors, &cache, &progress).map_err(|error| match error {
            DownloadError::Gone { mut packages, asked } => {
                self.name_replacements(&mut packages, files, mirrors, suite);
                DownloadError::Gone { packages, asked }.into()
            }
            other => other.into(),
        })
    }

    /// Asks the mirror's indexes what it has instead. Not being able to tell is no error of its own.
    fn name_replacements(&self, gone: &mut [Gone], files: &[FileRequest], mirrors: &Mirrors, suite: &str) {
        let mut architectures: Vec<&str> = files.iter().map(|file| file.architecture.as_str()).collect();
        architectures.retain(|architecture| *architecture != "all");
        architectures.sort_unstable();
        architectures.dedup();
        for architecture in architectures {
            match self.universe(mirrors, suite, None, architecture) {
                Ok((universe, _)) => {
                    let of_it =
                        |package: &Gone| ["all", architecture].contains(&package.architecture.as_str());
                    let (mut known, rest): (Vec<Gone>, Vec<Gone>) = gone.iter().cloned().partition(of_it);
                    debian::download::name_replacements(&mut known, &universe);
                    gone.clone_from_slice(&[known, rest].concat());
                }
                Err(error) => {
                    self.report.line(&format!("what replaced them cannot be told: {error}"));
                    return;
                }
            }
        }
    }
}

/// Which of a release's repositories beside the main one are used.
#[derive(Clone, Copy)]
struct Switches {
    updates: bool,
    security: bool,
}

/// What resolving came to.
pub(crate) struct Resolved {
    pub(crate) lock: Lock,
    /// Its file.
    path: PathBuf,
    pub(crate) mirrors: Mirrors,
    /// Whether the lock that was there did, unchanged.
    pub(crate) unchanged: bool,
}

/// The lock for a recipe: the one beside it when it fits, else one that is written now.
pub(crate) fn resolve(
    source: &Source,
    path: &Path,
    mode: LockMode,
    parent: &Wish,
    context: &Context<'_>,
) -> Result<Resolved, Error> {
    let resolved = resolve_packages(source, path, mode, context)?;
    let with_parent = parent.apply(&resolved.lock, path, mode == LockMode::Locked)?;
    parent.write(path)?;
    let unchanged = resolved.unchanged && with_parent.is_none();
    let lock = with_parent.unwrap_or(resolved.lock);
    if !unchanged {
        lock.write(path)?;
        context.report.line(&format!("lock: written to {}", path.display()));
    }
    parent.sweep(path);
    Ok(Resolved { lock, unchanged, ..resolved })
}

/// The lock with the packages for a recipe, not written yet where it is another one.
fn resolve_packages(
    source: &Source,
    path: &Path,
    mode: LockMode,
    context: &Context<'_>,
) -> Result<Resolved, Error> {
    let recipes: Vec<Recipe> =
        source.architectures().iter().map(|arch| source.for_arch(*arch)).collect::<Result<_, _>>()?;
    let Some(first) = recipes.first() else {
        return Err(Error::Locked { path: path.into(), reason: "the recipe names no architecture".into() });
    };
    let distribution = &first.distribution;
    let old = match Lock::read(path) {
        // Renewing is what their messages advise.
        Err(LockError::Damaged { .. } | LockError::Version { .. }) if mode == LockMode::Update => None,
        old => old?,
    };
    let mut mirrors = context.mirrors(distribution.mirror.as_deref(), &distribution.suite);
    if !distribution.security {
        // Nothing is asked for there, not even what the mirror lacks.
        mirrors.security.clone_from(&mirrors.main);
        mirrors.security_fallback = None;
    }
    if let Some(lock) = &old {
        check_writers(lock, path, mode)?;
    }
    let misfit = misfit(old.as_ref(), &recipes);
    match (&misfit, mode, &old) {
        (None, LockMode::Keep | LockMode::Locked, Some(lock)) => {
            return Ok(Resolved { lock: lock.clone(), path: path.into(), mirrors, unchanged: true });
        }
        (Some(reason), LockMode::Locked, _) => {
            return Err(Error::Locked { path: path.into(), reason: reason.clone() });
        }
        (Some(reason), ..) => context.report.line(&format!("lock: {reason}; solving")),
        (None, ..) => context.report.line("lock: renewing all of it"),
    }
    Lock::check_place(path)?;
    let pins = old.as_ref().filter(|lock| mode != LockMode::Update && same_repositories(lock, first));
    if mode != LockMode::Update && old.is_some() && pins.is_none() {
        context.report.line("lock: the recipe names other repositories now; nothing stays pinned");
    }
    // Another suite's dates say nothing.
    let before = old.as_ref().filter(|lock| same_repositories(lock, first)).map(|lock| (path, lock));
    let mut lock = write_anew(&recipes, pins, before, &mirrors, context)?;
    for (arch, locked) in &mut lock.archs {
        locked.parent = old.as_ref().and_then(|old| old.for_arch(*arch)?.parent);
    }
    for line in old.iter().flat_map(|old| changes(old, &lock)) {
        context.report.line(&line);
    }
    Ok(Resolved { lock, path: path.into(), mirrors, unchanged: false })
}

impl Resolved {
    /// Fetches what the lock names.
    pub(crate) fn fetch(
        &self,
        packages: &[LockedPackage],
        context: &Context<'_>,
    ) -> Result<debian::download::Downloaded, Error> {
        let requests: Vec<FileRequest> =
            packages.iter().map(|package| file_request(&self.lock, package)).collect();
        context.fetch(&requests, &self.mirrors, self.lock.suite()).map_err(|error| match error {
            Error::Download(source) => self.at_lock(source, packages),
            other => other,
        })
    }

    /// Says where the lock asks for what other bytes came for, or none.
    fn at_lock(&self, source: DownloadError, packages: &[LockedPackage]) -> Error {
        let is_it = |name: &str, version: &str, package: &LockedPackage| {
            package.name == name && package.version == version
        };
        let meant = |package: &LockedPackage| match &source {
            DownloadError::Gone { packages, .. } => {
                packages.iter().any(|gone| is_it(&gone.name, &gone.version, package))
            }
            DownloadError::Fetch { name, version, error: FetchError::Mismatch(_) } => {
                is_it(name, version, package)
            }
            DownloadError::Fetch { .. } => false,
        };
        let digests: Vec<String> =
            packages.iter().filter(|package| meant(package)).map(|package| package.sha256.to_hex()).collect();
        // The lock itself may be one that is not written yet.
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let lines = text.lines().zip(1..);
        let lines = lines.filter(|(text, _)| digests.iter().any(|digest| text.contains(digest.as_str())));
        Error::LockedDownload {
            path: self.path.clone(),
            lines: lines.map(|(_, line)| line).collect(),
            source: Box::new(source),
        }
    }
}

/// Why a lock does not hold what the recipes ask for; `None` when it does.
pub(crate) fn misfit(lock: Option<&Lock>, recipes: &[Recipe]) -> Option<String> {
    let Some(lock) = lock else { return Some("there is no lock yet".to_owned()) };
    let unfit = recipes.iter().find(|recipe| {
        lock.for_arch(recipe.arch).is_none_or(|locked| locked.request != recipe::request_digest(recipe))
    });
    unfit.map(|recipe| format!("the recipe asks for other packages than the lock holds ({})", recipe.arch))
}

/// Whether a lock's packages come from the repositories that a recipe names: the versions of another suite are no pins.
fn same_repositories(lock: &Lock, recipe: &Recipe) -> bool {
    let distribution = &recipe.distribution;
    let main = lock.sources.iter().find(|source| source.role == SourceRole::Main);
    let same_suite = main.is_some_and(|source| source.suite == distribution.suite);
    same_suite
        && lock.sources.iter().all(|source| {
            let wanted = match source.role {
                SourceRole::Main => true,
                SourceRole::Updates => distribution.updates,
                SourceRole::Security => distribution.security,
            };
            wanted && source.components.iter().all(|component| distribution.components.contains(component))
        })
}

fn check_writers(lock: &Lock, path: &Path, mode: LockMode) -> Result<(), Error> {
    if mode == LockMode::Update {
        return Ok(());
    }
    let known = BTreeMap::from(WRITERS);
    for (writer, found) in &lock.writers {
        let known = known.get(writer.as_str()).copied().unwrap_or(0);
        if known != *found {
            return Err(Error::Writer { path: path.into(), writer: writer.clone(), found: *found, known });
        }
    }
    Ok(())
}

fn write_anew(
    recipes: &[Recipe],
    pins: Option<&Lock>,
    before: Option<(&Path, &Lock)>,
    mirrors: &Mirrors,
    context: &Context<'_>,
) -> Result<Lock, Error> {
    let mut sources: Vec<LockedSource> = Vec::new();
    let mut archs = BTreeMap::new();
    for recipe in recipes {
        context.report.line(&format!(
            "reading the package indexes of {} for {}",
            recipe.distribution.suite, recipe.arch
        ));
        let suite = &recipe.distribution.suite;
        let (mut universe, infos) = context.universe(mirrors, suite, Some(recipe), recipe.arch.debian())?;
        for info in &infos {
            let seen = before.and_then(|(path, lock)| Some((path, newest(lock, info)?)));
            if let Some((path, locked)) = seen.filter(|(_, locked)| *locked > info.date) {
                let (suite, uri) = (info.suite.clone(), info.uri.clone());
                return Err(Error::Behind { path: path.to_owned(), suite, uri, locked, found: info.date });
            }
        }
        let pinned = match pins.and_then(|lock| lock.for_arch(recipe.arch).map(|locked| (lock, locked))) {
            Some((lock, locked)) => pin(&mut universe, lock, locked, mirrors, context)?,
            None => Vec::new(),
        };
        let known = RefCell::default();
        let elsewhere = |name: &str| find_elsewhere(name, recipe, mirrors, context, &known);
        let solution = solve_recipe(&universe, recipe, pinned, &elsewhere)?;
        for info in &infos {
            let source = locked_source(info);
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        let packages = locked_packages(&solution, &sources);
        context.report.line(&format!(
            "{}: {} packages, {} MiB to fetch at most",
            recipe.arch,
            packages.len(),
            packages.iter().map(|package| package.size).sum::<u64>() >> 20
        ));
        let request = recipe::request_digest(recipe);
        archs.insert(recipe.arch, LockedArch { request, parent: None, packages, native: Vec::new() });
    }
    let time = sources.iter().map(|source| source.date).max().unwrap_or(0);
    let writers = WRITERS.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect();
    Ok(Lock { writers, time, sources, archs })
}

/// The newest Date that a lock has of a suite.
fn newest(lock: &Lock, info: &SourceInfo) -> Option<i64> {
    let same =
        lock.sources.iter().filter(|source| source.role == role(&info.role) && source.suite == info.suite);
    same.map(|source| source.date).max()
}

/// Makes sure that the universe knows every pinned package, and names them for the solver.
fn pin(
    universe: &mut Universe,
    lock: &Lock,
    locked: &LockedArch,
    mirrors: &Mirrors,
    context: &Context<'_>,
) -> Result<Vec<(String, Version)>, Error> {
    let mut pinned = Vec::new();
    let mut gone = Vec::new();
    for package in &locked.packages {
        let there =
            universe.versions_of(&package.name).iter().any(|id| universe.version(*id) == package.version);
        if !there {
            gone.push(file_request(lock, package));
        }
        if let Ok(version) = Version::parse(&package.version) {
            pinned.push((package.name.clone(), version));
        }
    }
    let fetched = context.fetch(&gone, mirrors, lock.suite())?;
    for (file, path) in gone.iter().zip(&fetched.paths) {
        let control =
            debian::deb::open(path).and_then(|mut deb| deb.control()).map_err(rootfs::Error::from)?;
        let fields: &Paragraph = &control.fields;
        universe.add(fields, file).map_err(debian::repository::RepositoryError::from)?;
    }
    Ok(pinned)
}

fn solve_recipe(
    universe: &Universe,
    recipe: &Recipe,
    pinned: Vec<(String, Version)>,
    elsewhere: &dyn Fn(&str) -> Vec<String>,
) -> Result<Solution, Error> {
    let mut install: Vec<(String, Option<Version>)> = Vec::new();
    for package in &recipe.packages {
        let version = package.version.as_deref().map(Version::parse).transpose().map_err(|error| {
            Error::from(Diagnostics::from(package.span.error(
                Code::PackageVersion,
                error.to_string(),
                "this version",
            )))
        })?;
        install.push((package.name.clone(), version));
    }
    for name in rootfs::boot_packages(recipe.arch, &recipe.kernel) {
        if !install.iter().any(|(there, _)| *there == name) {
            install.push((name, None));
        }
    }
    let request = Request { install, recommends: recipe.recommends, essential: true, pinned };
    solve(universe, &request).map_err(|problem| explain(recipe, problem, elsewhere))
}

/// What repositories hold that a recipe does not name; `None`: they cannot be read now.
type Elsewhere = RefCell<BTreeMap<(&'static str, Arch), Option<Universe>>>;

/// Where a package is that the recipe's repositories do not have: what to write, for each place. What cannot be looked
/// at now holds nothing.
fn find_elsewhere(
    name: &str,
    recipe: &Recipe,
    mirrors: &Mirrors,
    context: &Context<'_>,
    known: &Elsewhere,
) -> Vec<String> {
    context.report.line(&format!("looking for {name} in other components, architectures and releases"));
    let distribution = &recipe.distribution;
    let look = |suite: &'static str, arch: Arch| {
        let mut known = known.borrow_mut();
        let universe = known.entry((suite, arch)).or_insert_with(|| {
            let components = COMPONENTS.map(str::to_owned);
            let switches = Switches { updates: distribution.updates, security: distribution.security };
            let own_keys = distribution.signed_by.as_deref();
            let universe =
                context.universe_of(mirrors, suite, &components, switches, own_keys, arch.debian());
            Some(universe.ok()?.0)
        });
        let universe = universe.as_ref()?;
        let id = *universe.versions_of(name).first()?;
        let filename = universe.package(id).ok()?.filename;
        // The pool is parted by component.
        let part =
            filename.split('/').find_map(|part| COMPONENTS.into_iter().find(|component| *component == part));
        let component = part.unwrap_or("main");
        Some((universe.version(id).to_owned(), component))
    };
    let component_line = |component: &str| match distribution.components.iter().any(|own| own == component) {
        true => String::new(),
        false => {
            let all = distribution.components.iter().map(String::as_str).chain([component]);
            format!("`distribution: {{components: [{}]}}`", all.collect::<Vec<_>>().join(", "))
        }
    };
    let mut places = Vec::new();
    let own = SUITES.into_iter().find(|suite| *suite == distribution.suite).unwrap_or(SUITES[0]);
    if let Some((version, component)) = look(own, recipe.arch) {
        let what = match component_line(component) {
            // Everything else being equal, the updates or the security suite has it.
            line if line.is_empty() => "switch `updates` and `security` on".to_owned(),
            line => format!("write {line}"),
        };
        return vec![format!("{} has {name} {version} in {component}: {what}", distribution.suite)];
    }
    for arch in Arch::ALL.into_iter().filter(|arch| *arch != recipe.arch) {
        if let Some((version, component)) = look(own, arch) {
            let line = component_line(component);
            let and = if line.is_empty() { line } else { format!(" and {line}") };
            places.push(format!(
                "there is {name} {version} for {arch} alone: write `architectures: [{arch}]`{and}"
            ));
        }
    }
    for suite in SUITES.into_iter().filter(|suite| *suite != distribution.suite) {
        if let Some((version, _)) = look(suite, recipe.arch) {
            places.push(format!(
                "{suite} has {name} {version}: an image is of one release, `distribution: {{suite: {suite}}}`"
            ));
        }
    }
    places
}

/// Points at the recipe's own lines where the mistake is in what they name. `elsewhere` says where a package that is
/// not to be had is: what to write for it.
fn explain(recipe: &Recipe, problem: SolveError, elsewhere: &dyn Fn(&str) -> Vec<String>) -> Error {
    match problem {
        SolveError::Several(problems) => {
            let mut told = Diagnostics::default();
            for problem in problems {
                match explain(recipe, problem, elsewhere) {
                    Error::Recipe(diagnostics) => told.0.extend(diagnostics.0),
                    other => return other,
                }
            }
            Error::Recipe(told)
        }
        SolveError::Conflict { clashes } => explain_conflict(recipe, clashes),
        SolveError::Unknown { .. } | SolveError::Virtual { .. } | SolveError::NoVersion { .. } => {
            match explain_name(recipe, &problem, elsewhere) {
                Some(diagnostic) => Error::Recipe(diagnostic.into()),
                None => Error::Solve { problem: Box::new(problem) },
            }
        }
        SolveError::PinnedGone { .. } | SolveError::Syntax(_) => Error::Solve { problem: Box::new(problem) },
    }
}

/// Where a recipe asks for a package.
fn asked_at<'r>(recipe: &'r Recipe, name: &str) -> Option<&'r Span> {
    let package = recipe.packages.iter().find(|package| package.name == name).map(|package| &package.span);
    package.or_else(|| recipe.kernel_span.as_ref().filter(|_| recipe.kernel_package() == name))
}

/// How many versions of a package a message names.
const VERSIONS: usize = 5;

fn explain_name(
    recipe: &Recipe,
    problem: &SolveError,
    elsewhere: &dyn Fn(&str) -> Vec<String>,
) -> Option<Diagnostic> {
    match problem {
        SolveError::Unknown { name, near } => {
            let span = asked_at(recipe, name)?;
            let label = format!("not in {} for {}", recipe.distribution.suite, recipe.arch);
            let mut told = span.error(Code::UnknownPackage, format!("there is no package {name}"), label);
            let places = elsewhere(name);
            for place in &places {
                told = told.note(place.as_str());
            }
            let help = match near.join(", ") {
                near if !near.is_empty() => format!("did you mean {near}?"),
                _ if places.is_empty() => "look the name up in the distribution's package list".to_owned(),
                _ => return Some(told),
            };
            Some(told.help(help))
        }
        SolveError::Virtual { name, providers } => {
            let message = format!("{name} is a virtual package");
            let told =
                asked_at(recipe, name)?.error(Code::VirtualPackage, message, "provided by several packages");
            Some(told.help(format!("name one of them: {}", providers.join(", "))))
        }
        SolveError::NoVersion { name, version, there } => {
            let message = format!("there is no {name} {version}");
            let label = format!("no repository has this version for {}", recipe.arch);
            let told = asked_at(recipe, name)?.error(Code::PackageVersion, message, label);
            let mut shown = there.iter().take(VERSIONS).cloned().collect::<Vec<_>>().join(", ");
            if there.len() > VERSIONS {
                shown += &format!(" and {} older ones", there.len() - VERSIONS);
            }
            let source = source_version(version);
            let rebuilt = source != version && there.iter().any(|other| source_version(other) == source);
            Some(told.help(match rebuilt {
                true => {
                    format!("write `{name}={source}`: rebuilds of it for one architecture (+b1) count as it")
                }
                false => format!("there is: {shown}"),
            }))
        }
        _ => None,
    }
}

/// How many contradictions of a goal a message tells.
const CLASHES: usize = 4;

fn explain_conflict(recipe: &Recipe, clashes: Vec<Clash>) -> Error {
    let mut asked: Vec<&str> = Vec::new();
    for chain in clashes.iter().flat_map(|clash| &clash.because) {
        if let Some(name) = chain.asked.as_deref().filter(|name| !asked.contains(name)) {
            asked.push(name);
        }
    }
    let Some((first, span)) = asked.iter().find_map(|name| Some((*name, asked_at(recipe, name)?))) else {
        return Error::Solve { problem: Box::new(SolveError::Conflict { clashes }) };
    };
    let others: Vec<&str> = asked.iter().copied().filter(|name| *name != first).collect();
    let message = match others.as_slice() {
        [] => format!("{first} cannot be installed"),
        others => format!("{first} cannot be installed together with {}", others.join(", ")),
    };
    let place = |name: &str| match asked_at(recipe, name) {
        Some(span) => {
            let (line, column) = span.position();
            format!(" ({}:{line}:{column})", span.file().display())
        }
        None => " (the machine needs it to boot)".to_owned(),
    };
    let mut told = span.error(Code::PackageConflict, message, "asked for here");
    for clash in clashes.iter().take(CLASHES) {
        told = told.note(clash.what.as_str());
        for chain in &clash.because {
            told = told.note(format!("    {}", chain.told(place)));
        }
    }
    if clashes.len() > CLASHES {
        told = told.note(format!("and {} more contradictions", clashes.len() - CLASHES));
    }
    let help = match (clashes.iter().any(|clash| clash.pinned), others.is_empty()) {
        (true, _) => "renew the lock with --update: it keeps older versions",
        (_, true) => "take it out of `packages`, or ask for another version of it: name=version",
        (_, false) => "take one of them out of `packages`, or ask for other versions: name=version",
    };
    Error::Recipe(told.help(help).into())
}

fn locked_source(info: &SourceInfo) -> LockedSource {
    LockedSource {
        role: role(&info.role),
        suite: info.suite.clone(),
        components: info.components.clone(),
        date: info.date,
        sha256: info.sha256,
    }
}

pub(crate) fn role(name: &str) -> SourceRole {
    match name {
        "updates" => SourceRole::Updates,
        "security" => SourceRole::Security,
        _ => SourceRole::Main,
    }
}

fn locked_packages(solution: &Solution, sources: &[LockedSource]) -> Vec<LockedPackage> {
    let packages = solution.packages.iter().map(|chosen| {
        let package = &chosen.package;
        let wanted = role(&package.role);
        LockedPackage {
            name: package.name.clone(),
            version: package.version.to_string(),
            architecture: package.architecture.clone(),
            size: package.size,
            sha256: package.sha256,
            filename: package.filename.clone(),
            source: sources.iter().position(|source| source.role == wanted).unwrap_or(0),
            // What every root has is nobody's dependency, as in a root that debootstrap made.
            auto: chosen.auto && !chosen.essential,
        }
    });
    packages.collect()
}

fn file_request(lock: &Lock, package: &LockedPackage) -> FileRequest {
    FileRequest {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        size: package.size,
        sha256: package.sha256,
        filename: package.filename.clone(),
        role: lock.sources.get(package.source).map_or("main", |source| source.role.as_str()).to_owned(),
    }
}

/// What a new lock changes, a line a package.
fn changes(old: &Lock, new: &Lock) -> Vec<String> {
    let mut lines = Vec::new();
    for (arch, locked) in &new.archs {
        let versions = |locked: &LockedArch| -> BTreeMap<String, String> {
            locked.packages.iter().map(|package| (package.name.clone(), package.version.clone())).collect()
        };
        let before = old.for_arch(*arch).map(versions).unwrap_or_default();
        let after = versions(locked);
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            match (before.get(name), after.get(name)) {
                (Some(old), Some(new)) if old != new => {
                    lines.push(format!("  {arch}: {name} {old} -> {new}"))
                }
                (Some(old), None) => lines.push(format!("  {arch}: {name} {old} goes")),
                (None, Some(new)) => lines.push(format!("  {arch}: {name} {new} comes")),
                _ => {}
            }
        }
    }
    lines
}

/// The .deb files of a lock for one architecture, verified. Also says how many bytes had to be fetched.
pub(crate) fn package_files(
    resolved: &Resolved,
    arch: Arch,
    context: &Context<'_>,
) -> Result<(Vec<PackageFile>, u64), Error> {
    let locked = resolved.lock.for_arch(arch).map_or(&[][..], |locked| &locked.packages);
    let downloaded = resolved.fetch(locked, context)?;
    let files = locked.iter().zip(downloaded.paths).map(|(package, path)| PackageFile {
        name: package.name.clone(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        path,
        auto: package.auto,
    });
    Ok((files.collect(), downloaded.fetched_bytes))
}

/// Resolves and fetches the packages of the tools tree.
pub struct ToolPackages<'a> {
    /// The cache folder.
    pub cache: &'a Path,
    /// Seconds since 1970, for validity dates only.
    pub now: i64,
    /// A mirror that the user names.
    pub mirror: Option<&'a str>,
    /// A suite whose indexes count although their Valid-Until has passed: for comparisons with programs that no stable
    /// suite has. Signatures and hashes are checked all the same.
    pub expired_suite: Option<&'a str>,
    /// Who is told.
    pub report: &'a dyn Report,
}

impl Provider for ToolPackages<'_> {
    fn note(&self, text: &str) {
        self.report.line(text);
    }

    fn fetch(
        &self,
        suite: &str,
        packages: &[&str],
    ) -> Result<Vec<Fetched>, Box<dyn std::error::Error + Send + Sync>> {
        let context = Context {
            cache: self.cache,
            now: self.now,
            mirror: self.mirror,
            expired_suite: self.expired_suite,
            report: self.report,
        };
        let mirrors = context.mirrors(None, suite);
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let (universe, _) = context.universe(&mirrors, suite, None, architecture)?;
        let install = packages.iter().map(|name| ((*name).to_owned(), None)).collect();
        let solution = solve(&universe, &Request { install, ..Request::default() })?;
        let requests: Vec<FileRequest> =
            solution.packages.iter().map(|chosen| chosen.package.request()).collect();
        let downloaded = context.fetch(&requests, &mirrors, suite)?;
        let fetched = requests.into_iter().zip(downloaded.paths).map(|(request, path)| Fetched {
            package: tools::Package { name: request.name, version: request.version },
            path,
        });
        Ok(fetched.collect())
    }
}

/// Passes the downloads' progress on.
struct Downloads<'a> {
    report: &'a dyn Report,
    total: Option<u64>,
    what: &'static str,
    done: AtomicU64,
    /// Told last, so that the report is not called for every few bytes.
    told: Mutex<u64>,
}

impl<'a> Downloads<'a> {
    fn new(report: &'a dyn Report, total: Option<u64>, what: &'static str) -> Self {
        Self { report, total, what, done: AtomicU64::new(0), told: Mutex::new(0) }
    }
}

impl Progress for Downloads<'_> {
    fn started(&self, _what: &str, _bytes: Option<u64>) {}

    fn advanced(&self, bytes: u64) {
        const STEP: u64 = 256 * 1024;
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Ok(mut told) = self.told.try_lock()
            && done >= *told + STEP
        {
            *told = done;
            self.report.progress(done, self.total, Unit::Bytes, self.what);
        }
    }

    fn finished(&self, _what: &str) {}

    fn note(&self, text: &str) {
        self.report.line(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a recipe with these packages when the repository holds `lines`: a package each, with its fields
    /// behind ` ; `.
    fn told(lines: &str, packages: &str, pins: &[(&str, &str)], elsewhere: &[&str]) -> String {
        let paragraphs: Vec<String> = lines
            .lines()
            .map(|line| {
                let mut parts = line.trim().split(" ; ");
                let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
                let fields: String = parts.map(|field| format!("{field}\n")).collect();
                format!("Package: {name}\nVersion: {version}\nArchitecture: all\n{fields}")
            })
            .collect();
        let text = ("Packages".to_owned(), "main".to_owned(), paragraphs.join("\n"));
        let universe = Universe::from_texts("amd64", vec![text]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.yaml");
        std::fs::write(&path, format!("name: web\npackages:\n{packages}\n")).unwrap();
        let source = recipe::load(&path, &recipe::LoadOptions::default()).unwrap();
        let recipe = source.for_arch(Arch::X86_64).unwrap();
        let pins = pins.iter().map(|(name, version)| ((*name).to_owned(), Version::parse(version).unwrap()));
        let places = |_: &str| elsewhere.iter().map(|place| (*place).to_owned()).collect();
        let problem = solve_recipe(&universe, &recipe, pins.collect(), &places).unwrap_err();
        problem.to_string().replace(&format!("{}/", folder.path().display()), "")
    }

    /// What a machine needs to boot, none of it in anybody's way.
    fn boot() -> String {
        rootfs::boot_packages(Arch::X86_64, &recipe::Kernel::Cloud)
            .iter()
            .map(|name| format!("\n{name} 1"))
            .collect()
    }

    #[test]
    fn names_that_are_not_to_be_had_are_told_at_their_lines() {
        let lines = format!(
            "apache2 2.4-1\napache2 2.4-0\ncowsay 3-1+b2\none 1 ; Provides: mta\ntwo 1 ; Provides: mta{}",
            boot()
        );
        let packages = "  - apahce2\n  - apache2=2.2\n  - cowsay=3-1+b1\n  - mta\n  - unheard-of";
        assert_eq!(
            told(&lines, packages, &[], &["bookworm has it"]),
            "\
error: there is no package apahce2
 --> recipe.yaml:3:5
  |
3 |   - apahce2
  |     ^^^^^^^ not in trixie for x86_64
  = note: bookworm has it
  = help: did you mean apache2?

error: there is no apache2 2.2
 --> recipe.yaml:4:5
  |
4 |   - apache2=2.2
  |     ^^^^^^^^^^^ no repository has this version for x86_64
  = help: there is: 2.4-1, 2.4-0

error: there is no cowsay 3-1+b1
 --> recipe.yaml:5:5
  |
5 |   - cowsay=3-1+b1
  |     ^^^^^^^^^^^^^ no repository has this version for x86_64
  = help: write `cowsay=3-1`: rebuilds of it for one architecture (+b1) count as it

error: mta is a virtual package
 --> recipe.yaml:6:5
  |
6 |   - mta
  |     ^^^ provided by several packages
  = help: name one of them: one, two

error: there is no package unheard-of
 --> recipe.yaml:7:5
  |
7 |   - unheard-of
  |     ^^^^^^^^^^ not in trixie for x86_64
  = note: bookworm has it
"
        );
    }

    #[test]
    fn a_conflict_is_told_with_who_needs_what_and_who_forbids_it() {
        let lines = format!(
            "web 1 ; Depends: engine (>= 2)\nengine 2 ; Conflicts: classic\nsite 1 ; Depends: classic\nclassic 1\n\
             late 1 ; Depends: engine (>= 3)\nold 1 ; Breaks: linux-image-cloud-amd64{}",
            boot()
        );
        assert_eq!(
            told(&lines, "  - web\n  - site", &[], &[]),
            "\
error: web cannot be installed together with site
 --> recipe.yaml:3:5
  |
3 |   - web
  |     ^^^ asked for here
  = note: engine 2 conflicts with classic, which is classic 1
  = note:     engine 2 comes with web (recipe.yaml:3:5): web 1 needs engine (>= 2)
  = note:     classic 1 comes with site (recipe.yaml:4:5): site 1 needs classic
  = help: take one of them out of `packages`, or ask for other versions: name=version
"
        );
        let text = told(&lines, "  - late", &[], &[]);
        assert!(text.contains("error: late cannot be installed\n"), "{text}");
        assert!(text.contains("note: late 1 needs engine (>= 3), but of engine there is 2\n"), "{text}");
        assert!(text.contains("help: take it out of `packages`, or ask for another version of it"), "{text}");
        let text = told(&lines, "  - late", &[("engine", "2")], &[]);
        assert!(
            text.contains("of engine there is 2 (pinned)") && text.contains("help: renew the lock"),
            "{text}"
        );
        let text = told(&lines, "  - old", &[], &[]);
        assert!(
            text.contains("linux-image-cloud-amd64 1 is asked for (the machine needs it to boot)"),
            "{text}"
        );
    }

    #[test]
    fn pins_of_another_suite_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.yaml");
        let recipe = |distribution: &str| {
            std::fs::write(&path, format!("name: web\ndistribution: {{{distribution}}}\n")).unwrap();
            let source = recipe::load(&path, &recipe::LoadOptions::default()).unwrap();
            source.for_arch(Arch::X86_64).unwrap()
        };
        let locked = |role, suite: &str| LockedSource {
            role,
            suite: suite.into(),
            components: vec!["main".into()],
            date: 0,
            sha256: block::Digest::of(b""),
        };
        let lock = Lock {
            writers: BTreeMap::new(),
            time: 0,
            sources: vec![
                locked(SourceRole::Main, "bookworm"),
                locked(SourceRole::Security, "bookworm-security"),
            ],
            archs: BTreeMap::new(),
        };
        assert!(same_repositories(&lock, &recipe("suite: bookworm")));
        assert!(same_repositories(&lock, &recipe("suite: bookworm, components: [main, contrib]")));
        assert!(!same_repositories(&lock, &recipe("suite: trixie")));
        assert!(!same_repositories(&lock, &recipe("suite: bookworm, security: false")));
        assert!(!same_repositories(&lock, &recipe("suite: bookworm, components: [contrib]")));
    }
}
