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

/// Why a package could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// No mirror has this version any more.
    #[error(
        "{name} {version}: no mirror has this version any more (asked: {}).{} \
         Use a mirror that keeps old versions, or renew the lock with --update",
        asked.join(", "),
        now.as_ref().map_or_else(String::new, |now| format!(" The mirror has {now} now."))
    )]
    Gone {
        /// The package.
        name: String,
        /// The version that was asked for.
        version: String,
        /// The addresses that were asked.
        asked: Vec<String>,
        /// The version that the mirror has now, if that is known.
        now: Option<String>,
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
/// is looked for in the other archives too. `known` tells, for errors, which versions there are now.
pub fn download(
    files: &[FileRequest],
    mirrors: &Mirrors,
    cache: &Cache,
    known: Option<&Universe>,
    progress: &dyn Progress,
) -> Result<Downloaded, DownloadError> {
    let fetcher = Fetcher::new();
    // The largest first, so that none is left to run alone at the end.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(files[*index].size));
    let done = parallel(&order, CONNECTIONS, |index| {
        one(&fetcher, &files[*index], mirrors, cache, known, progress).map(|(path, hit)| (*index, path, hit))
    })?;
    let mut downloaded = Downloaded { paths: vec![PathBuf::new(); files.len()], hits: 0, fetched_bytes: 0 };
    for (index, path, hit) in done {
        downloaded.paths[index] = path;
        if hit {
            downloaded.hits += 1;
        } else {
            downloaded.fetched_bytes += files[index].size;
        }
    }
    Ok(downloaded)
}

fn one(
    fetcher: &Fetcher,
    file: &FileRequest,
    mirrors: &Mirrors,
    cache: &Cache,
    known: Option<&Universe>,
    progress: &dyn Progress,
) -> Result<(PathBuf, bool), DownloadError> {
    let fail = |error| DownloadError::Fetch { name: file.name.clone(), version: file.version.clone(), error };
    if let Some(path) = cache.get(file.sha256, file.size).map_err(|error| fail(error.into()))? {
        return Ok((path, true));
    }
    let what = format!("{} {}", file.name, file.version);
    progress.started(&what, Some(file.size));
    let mut asked = Vec::new();
    let mut failure = None;
    for archive in mirrors.archives(&file.role) {
        let url = format!("{archive}/{}", escape(&file.filename));
        match fetcher.verified(&url, file.size, file.sha256, cache, progress) {
            Ok(path) => {
                progress.finished(&what);
                return Ok((path, false));
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
                asked.push(archive.to_owned());
            }
        }
    }
    progress.finished(&what);
    Err(match failure {
        Some(error) => fail(error),
        None => DownloadError::Gone {
            name: file.name.clone(),
            version: file.version.clone(),
            asked,
            now: known.and_then(|all| Some(all.version(*all.versions_of(&file.name).first()?).to_owned())),
        },
    })
}

/// Escapes what may not stand in an address as it is: Debian's names hold `+` and `~`, and both are safe.
fn escape(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~+:=@,".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
