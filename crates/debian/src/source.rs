//! The one thing that a family of distributions must be able to do, so that another can stand beside Debian.

use std::error::Error;

use crate::cache::Cache;
use crate::deb::{Deb, DebError};
use crate::download::{DownloadError, Downloaded, FileRequest, download, name_replacements};
use crate::fetch::Progress;
use crate::mirror::Mirrors;
use crate::repository::{LoadOptions, RepositoryError, SourceInfo};
use crate::solve::{Request, Solution, SolveError, solve};
use crate::universe::{IndexError, Universe};
use crate::version::compare;

/// Packages of a distribution: which ones a goal needs, and their files.
pub trait PackageSource {
    /// What can go wrong.
    type Error: Error + Send + Sync + 'static;

    /// The signed metadata that decisions rest on.
    fn sources(&self) -> &[SourceInfo];

    /// The packages that make a request whole, sorted by name.
    fn resolve(&self, request: &Request) -> Result<Solution, Self::Error>;

    /// The packages' files, each checked against its size and SHA-256.
    fn fetch(&self, files: &[FileRequest], progress: &dyn Progress) -> Result<Downloaded, Self::Error>;
}

/// Debian, from its archive and the security archive.
#[derive(Debug)]
pub struct DebianSource<'c> {
    universe: Universe,
    sources: Vec<SourceInfo>,
    mirrors: Mirrors,
    cache: &'c Cache,
}

/// Why Debian's packages cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// The repositories cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The request has no solution.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// A file cannot be had.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// A package of the lock cannot be read.
    #[error(transparent)]
    Deb(#[from] Box<DebError>),
    /// The fields of a package of the lock cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl<'c> DebianSource<'c> {
    /// Fetches and verifies the package lists of a suite (`trixie`) with its updates and security suites.
    pub fn load(
        mirrors: Mirrors,
        suite: &str,
        components: &[String],
        architecture: &str,
        cache: &'c Cache,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<Self, RepositoryError> {
        let repositories = mirrors.repositories(suite, components);
        let (universe, sources) = Universe::load(&repositories, architecture, cache, options, progress)?;
        Ok(Self::new(universe, sources, mirrors, cache))
    }

    /// A source over a universe that was loaded already.
    pub fn new(universe: Universe, sources: Vec<SourceInfo>, mirrors: Mirrors, cache: &'c Cache) -> Self {
        Self { universe, sources, mirrors, cache }
    }

    /// Makes the packages of a lock part of what is on offer, also those that the repositories have replaced since:
    /// these are fetched (from the cache, or a mirror that still has them) and what they depend on is read from the
    /// .deb itself. After this all of them can be pinned.
    pub fn keep(&mut self, locked: &[FileRequest], progress: &dyn Progress) -> Result<(), DebianError> {
        let known = |file: &&FileRequest| {
            let versions = self.universe.versions_of(&file.name).iter();
            versions.into_iter().any(|id| compare(self.universe.version(*id), &file.version).is_eq())
        };
        let gone: Vec<FileRequest> = locked.iter().filter(|file| !known(file)).cloned().collect();
        let fetched = self.fetch(&gone, progress)?;
        for (file, path) in gone.iter().zip(&fetched.paths) {
            let control = Deb::open(path).and_then(|mut deb| deb.control()).map_err(Box::new)?;
            self.universe.add(&control.fields, file)?;
        }
        Ok(())
    }

    /// All packages on offer.
    pub fn universe(&self) -> &Universe {
        &self.universe
    }
}

impl PackageSource for DebianSource<'_> {
    type Error = DebianError;

    fn sources(&self) -> &[SourceInfo] {
        &self.sources
    }

    fn resolve(&self, request: &Request) -> Result<Solution, DebianError> {
        Ok(solve(&self.universe, request)?)
    }

    fn fetch(&self, files: &[FileRequest], progress: &dyn Progress) -> Result<Downloaded, DebianError> {
        let downloaded = download(files, &self.mirrors, self.cache, progress);
        Ok(downloaded.map_err(|mut error| {
            if let DownloadError::Gone { packages, .. } = &mut error {
                name_replacements(packages, &self.universe);
            }
            error
        })?)
    }
}
