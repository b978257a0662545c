//! From a recipe to exact packages: the lock, the solver, the downloads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use debian::cache::Cache;
use debian::control::Paragraph;
use debian::download::{DownloadError, FileRequest, Gone, download};
use debian::fetch::Progress;
use debian::mirror::{ChosenBy, HostSources, Mirrors, choose_mirrors};
use debian::openpgp::KeyRing;
use debian::repository::{LoadOptions, SourceInfo};
use debian::solve::{Request, Solution, SolveError, solve};
use debian::universe::Universe;
use debian::version::Version;
use recipe::{Arch, Lock, LockError, LockedArch, LockedPackage, LockedSource, Recipe, Source, SourceRole};
use rootfs::PackageFile;
use tools::{Fetched, Provider};

use crate::{Error, Report, Unit};

/// The versions of our own writers that shape an image's bytes. Raised with every change that makes other bytes from
/// the same lock.
pub const WRITERS: [(&str, u32); 5] = [("disk", 1), ("ext4", 1), ("fat", 1), ("rootfs", 3), ("vmdk", 1)];

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
        let mut repositories = mirrors.repositories(suite, components);
        if let Some(recipe) = recipe {
            repositories.retain(|repository| match repository.role.as_str() {
                "updates" => recipe.distribution.updates,
                "security" => recipe.distribution.security,
                _ => true,
            });
        }
        let options = LoadOptions { now: self.now, keys: KeyRing::debian()? };
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

/// What resolving came to.
pub(crate) struct Resolved {
    pub(crate) lock: Lock,
    pub(crate) mirrors: Mirrors,
    /// Whether the lock that was there did, unchanged.
    pub(crate) unchanged: bool,
}

/// The lock for a recipe: the one beside it when it fits, else one that is written now.
pub(crate) fn resolve(
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
    let mirrors = context.mirrors(distribution.mirror.as_deref(), &distribution.suite);
    let misfit = match &old {
        None => Some("there is no lock yet".to_owned()),
        Some(lock) => {
            check_writers(lock, path, mode)?;
            let unfit = recipes.iter().find(|recipe| {
                lock.for_arch(recipe.arch)
                    .is_none_or(|locked| locked.request != recipe::request_digest(recipe))
            });
            unfit.map(|recipe| {
                format!("the recipe asks for other packages than the lock holds ({})", recipe.arch)
            })
        }
    };
    match (&misfit, mode, &old) {
        (None, LockMode::Keep | LockMode::Locked, Some(lock)) => {
            return Ok(Resolved { lock: lock.clone(), mirrors, unchanged: true });
        }
        (Some(reason), LockMode::Locked, _) => {
            return Err(Error::Locked { path: path.into(), reason: reason.clone() });
        }
        (Some(reason), ..) => context.report.line(&format!("lock: {reason}; solving")),
        (None, ..) => context.report.line("lock: renewing all of it"),
    }
    let pins = old.as_ref().filter(|lock| mode != LockMode::Update && same_repositories(lock, first));
    if mode != LockMode::Update && old.is_some() && pins.is_none() {
        context.report.line("lock: the recipe names other repositories now; nothing stays pinned");
    }
    let lock = write_anew(&recipes, pins, &mirrors, context)?;
    for line in old.iter().flat_map(|old| changes(old, &lock)) {
        context.report.line(&line);
    }
    lock.write(path)?;
    context.report.line(&format!("lock: written to {}", path.display()));
    Ok(Resolved { lock, mirrors, unchanged: false })
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
        let pinned = match pins.and_then(|lock| lock.for_arch(recipe.arch).map(|locked| (lock, locked))) {
            Some((lock, locked)) => pin(&mut universe, lock, locked, mirrors, context)?,
            None => Vec::new(),
        };
        let solution = solve_recipe(&universe, recipe, pinned)?;
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
) -> Result<Solution, Error> {
    let mut install: Vec<(String, Option<Version>)> = Vec::new();
    for package in &recipe.packages {
        let version = package.version.as_deref().map(Version::parse).transpose().map_err(|error| {
            Error::from(recipe::Diagnostics::from(package.span.error(
                recipe::Code::PackageVersion,
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
    solve(universe, &request).map_err(|problem| explain(recipe, problem))
}

/// Points at the recipe's own line when the mistake is a package that it names.
fn explain(recipe: &Recipe, problem: SolveError) -> Error {
    let named = match &problem {
        SolveError::Unknown { name, .. }
        | SolveError::Virtual { name, .. }
        | SolveError::NoVersion { name, .. } => name,
        _ => return Error::Solve { problem: Box::new(problem) },
    };
    let package = recipe.packages.iter().find(|package| package.name == *named).map(|package| &package.span);
    let kernel = recipe.kernel_span.as_ref().filter(|_| recipe.kernel_package() == *named);
    let Some(span) = package.or(kernel) else {
        return Error::Solve { problem: Box::new(problem) };
    };
    let (label, help) = match &problem {
        SolveError::Unknown { near, .. } => {
            let alone = |arch: Arch| format!("if it is for {arch} alone, write `architectures: [{arch}]`");
            let near = near.join(", ");
            // The lock of a recipe for both architectures is solved for x86_64 first: there the package is known.
            let help = match (recipe.arch, near.as_str()) {
                (Arch::X86_64, "") => {
                    let alone = alone(Arch::Aarch64);
                    format!("look the name up in the distribution's package list; {alone}")
                }
                (Arch::X86_64, near) => format!("did you mean {near}?"),
                (Arch::Aarch64, "") => alone(Arch::X86_64),
                (Arch::Aarch64, near) => format!("{}; or did you mean {near}?", alone(Arch::X86_64)),
            };
            (format!("not in {} for {}", recipe.distribution.suite, recipe.arch), help)
        }
        SolveError::Virtual { providers, .. } => {
            ("provided by several packages".to_owned(), format!("name one of them: {}", providers.join(", ")))
        }
        SolveError::NoVersion { there, .. } => {
            ("no repository has this version".to_owned(), format!("there is: {}", there.join(", ")))
        }
        _ => (String::new(), String::new()),
    };
    let code = match &problem {
        SolveError::Unknown { .. } => recipe::Code::UnknownPackage,
        SolveError::Virtual { .. } => recipe::Code::VirtualPackage,
        _ => recipe::Code::PackageVersion,
    };
    let message = match &problem {
        SolveError::Unknown { name, .. } => format!("there is no package {name}"),
        SolveError::Virtual { name, .. } => format!("{name} is a virtual package"),
        SolveError::NoVersion { name, version, .. } => format!("there is no {name} {version}"),
        other => other.to_string(),
    };
    Error::Recipe(span.error(code, message, label).help(help).into())
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

pub(crate) fn file_request(lock: &Lock, package: &LockedPackage) -> FileRequest {
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
    let requests: Vec<FileRequest> =
        locked.iter().map(|package| file_request(&resolved.lock, package)).collect();
    let downloaded = context.fetch(&requests, &resolved.mirrors, resolved.lock.suite())?;
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
    /// Who is told.
    pub report: &'a dyn Report,
}

impl Provider for ToolPackages<'_> {
    fn fetch(&self, packages: &[&str]) -> Result<Vec<Fetched>, Box<dyn std::error::Error + Send + Sync>> {
        let context = Context { cache: self.cache, now: self.now, mirror: self.mirror, report: self.report };
        let mirrors = context.mirrors(None, tools::SUITE);
        let architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let (universe, _) = context.universe(&mirrors, tools::SUITE, None, architecture)?;
        let install = packages.iter().map(|name| ((*name).to_owned(), None)).collect();
        let solution = solve(&universe, &Request { install, ..Request::default() })?;
        let requests: Vec<FileRequest> =
            solution.packages.iter().map(|chosen| chosen.package.request()).collect();
        let downloaded = context.fetch(&requests, &mirrors, tools::SUITE)?;
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

    #[test]
    fn a_package_of_one_architecture_is_told_with_the_line_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.yaml");
        std::fs::write(&path, "name: web\npackages: [intel-microcode]\n").unwrap();
        let source = recipe::load(&path, &recipe::LoadOptions::default()).unwrap();
        assert_eq!(source.architectures(), [Arch::X86_64, Arch::Aarch64]);
        let told = |arch, near: &[&str]| {
            let near = near.iter().map(|name| (*name).to_owned()).collect();
            let problem = SolveError::Unknown { name: "intel-microcode".into(), near };
            explain(&source.for_arch(arch).unwrap(), problem).to_string()
        };
        for near in [&[][..], &["amd64-microcode"]] {
            let text = told(Arch::Aarch64, near);
            assert!(text.contains("recipe.yaml:2:12") && text.contains("for aarch64"), "{text}");
            assert!(
                text.contains("help: if it is for x86_64 alone, write `architectures: [x86_64]`"),
                "{text}"
            );
            assert_eq!(text.contains("did you mean amd64-microcode?"), !near.is_empty(), "{text}");
        }
        assert!(told(Arch::X86_64, &[]).contains("`architectures: [aarch64]`"));
        assert!(told(Arch::X86_64, &["near"]).contains("help: did you mean near?"));
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
