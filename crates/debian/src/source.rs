//! The one thing that a family of distributions must be able to do, so that another can stand beside Debian.

use std::error::Error;

use crate::cache::Cache;
use crate::download::{DownloadError, Downloaded, FileRequest, download};
use crate::fetch::Progress;
use crate::mirror::Mirrors;
use crate::repository::{LoadOptions, RepositoryError, SourceInfo};
use crate::solve::{Request, Solution, SolveError, solve};
use crate::universe::Universe;

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
        Ok(Self { universe, sources, mirrors, cache })
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
        Ok(download(files, &self.mirrors, self.cache, Some(&self.universe), progress)?)
    }
}
