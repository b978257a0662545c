//! Fetching the .deb files of a goal or of a lock.

use std::path::PathBuf;

use block::Digest;

use crate::cache::Cache;
use crate::fetch::{FetchError, Fetcher, Progress, parallel};
use crate::mirror::Mirrors;
use crate::universe::Universe;

/// Connections at the same time: enough to hide the way to the mirror, few enough to be polite.
const CONNECTIONS: usize = 8;

/// A file of an archive, as a lock names it. No index is needed to fetch it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileRequest {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256.
    pub sha256: Digest,
    /// Where the file is, below the archive's address.
    pub filename: String,
    /// The role of the repository it is from: `main`, `updates`, `security`.
    pub role: String,
}

/// The files of a download, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Where each file is now, in the order of the requests.
    pub paths: Vec<PathBuf>,
    /// How many of them were in the cache already.
    pub hits: usize,
    /// Bytes of the others.
    pub fetched_bytes: u64,
}

/// A package whose version no mirror has any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The package.
    pub name: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The version that was asked for.
    pub version: String,
    /// The newest version that the mirror has instead, where that is known.
    pub now: Option<String>,
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.name, self.version, self.architecture)?;
        match &self.now {
            Some(now) => write!(f, ", replaced by {now}"),
            None => Ok(()),
        }
    }
}

/// Why a package could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No mirror has these versions any more.
    #[error(
        "{} no mirror has any more (asked: {}):{}\n\
         Use a mirror that keeps old versions, or renew the lock with --update",
        if packages.len() == 1 { "a package that".to_owned() } else { format!("{} packages that", packages.len()) },
        asked.join(", "),
        packages.iter().map(|gone| format!("\n  {gone}")).collect::<String>()
    )]
    Gone {
        /// Each of them, in the order of the requests.
        packages: Vec<Gone>,
        /// The addresses that were asked.
        asked: Vec<String>,
    },
    /// A download failed.
    #[error("{name} {version}: {error}")]
    Fetch {
        /// The package.
        name: String,
        /// The version.
        version: String,
        /// What happened.
        #[source]
        error: FetchError,
    },
}

/// Fetches files, several at a time, into the cache, and checks their size and SHA-256. A file that an archive lacks
/// is looked for in the other archives too; what none has is told at the end, all of it at once.
pub fn download(
    files: &[FileRequest],
    mirrors: &Mirrors,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Downloaded, DownloadError> {
    let fetcher = Fetcher::new();
    // The largest first, so that none is left to run alone at the end.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(files[*index].size));
    let done = parallel(&order, CONNECTIONS, |index| {
        one(&fetcher, &files[*index], mirrors, cache, progress).map(|found| (*index, found))
    })?;
    let mut gone: Vec<usize> =
        done.iter().filter(|(_, found)| found.is_none()).map(|(index, _)| *index).collect();
    if !gone.is_empty() {
        gone.sort_unstable();
        let packages = gone.iter().map(|index| &files[*index]).map(|file| Gone {
            name: file.name.clone(),
            architecture: file.architecture.clone(),
            version: file.version.clone(),
            now: None,
        });
        let mut asked: Vec<String> = Vec::new();
        for archive in gone.iter().flat_map(|index| mirrors.archives(&files[*index].role)) {
            if asked.iter().all(|there| there != archive) {
                asked.push(archive.to_owned());
            }
        }
        return Err(DownloadError::Gone { packages: packages.collect(), asked });
    }
    let mut downloaded = Downloaded { paths: vec![PathBuf::new(); files.len()], hits: 0, fetched_bytes: 0 };
    for (index, (path, hit)) in done.into_iter().filter_map(|(index, found)| Some((index, found?))) {
        downloaded.paths[index] = path;
        if hit {
            downloaded.hits += 1;
        } else {
            downloaded.fetched_bytes += files[index].size;
        }
    }
    Ok(downloaded)
}

/// Where a file is, and whether it was there already; none when every archive says that it has no such file.
fn one(
    fetcher: &Fetcher,
    file: &FileRequest,
    mirrors: &Mirrors,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Option<(PathBuf, bool)>, DownloadError> {
    let fail = |error| DownloadError::Fetch { name: file.name.clone(), version: file.version.clone(), error };
    if let Some(path) = cache.get(file.sha256, file.size).map_err(|error| fail(error.into()))? {
        return Ok(Some((path, true)));
    }
    let what = format!("{} {}", file.name, file.version);
    progress.started(&what, Some(file.size));
    let mut failure = None;
    for archive in mirrors.archives(&file.role) {
        let url = format!("{archive}/{}", escape(&file.filename));
        match fetcher.verified(&url, file.size, file.sha256, cache, progress) {
            Ok(path) => {
                progress.finished(&what);
                return Ok(Some((path, false)));
            }
            // No other mirror mends this machine.
            Err(error @ FetchError::Cache(_)) => {
                progress.finished(&what);
                return Err(fail(error));
            }
            Err(error) => {
                if !error.is_missing() {
                    progress.note(&error.to_string());
                    failure.get_or_insert(error);
                }
            }
        }
    }
    progress.finished(&what);
    failure.map_or(Ok(None), |error| Err(fail(error)))
}

/// Names what the repositories have instead of packages that are gone: the newest version of each.
pub fn name_replacements(gone: &mut [Gone], universe: &Universe) {
    for package in gone.iter_mut().filter(|package| package.now.is_none()) {
        let newest = universe.versions_of(&package.name).first();
        package.now = newest.map(|id| universe.version(*id).to_owned());
    }
}

/// Escapes what may not stand in an address as it is: Debian's names hold `+` and `~`, and both are safe.
fn escape(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~+:=@,".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
