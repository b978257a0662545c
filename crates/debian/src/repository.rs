//! From a repository's address to a verified list of its packages.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use block::{Digest, Hasher};

use crate::cache::{Cache, CacheError};
use crate::control::{ControlError, Paragraph};
use crate::fetch::{FetchError, Fetcher, Mismatch, Progress, parallel};
use crate::mirror::Repository;
use crate::openpgp::{CLOCK_TOLERANCE, KeyRing, OpenPgpError};
use crate::time;
use crate::universe::{IndexError, Universe};

/// Largest InRelease and Packages file that is accepted; Debian's are 0.2 and 60 MiB.
const MAX_RELEASE: u64 = 16 << 20;
const MAX_PACKAGES: u64 = 1 << 30;

/// What a load needs to know besides the repositories.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The time, in seconds since 1970, for validity dates.
    pub now: i64,
    /// The trusted keys.
    pub keys: KeyRing,
}

/// The repository metadata that a universe came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceInfo {
    /// `main`, `updates` or `security`.
    pub role: String,
    /// The suite, such as `trixie-updates`.
    pub suite: String,
    /// Components.
    pub components: Vec<String>,
    /// The Date of its InRelease, in seconds since 1970.
    pub date: i64,
    /// SHA-256 of its InRelease.
    pub sha256: Digest,
    /// The address that it came from.
    pub uri: String,
    /// Fingerprint of the key whose signature counts.
    pub signed_by: String,
}

/// Why a repository cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// Something could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The archive does not have the suite.
    #[error("{uri}: there is no suite {suite} (asked for {url}). Check distribution.suite and the mirror")]
    NoSuite {
        /// The archive.
        uri: String,
        /// The suite.
        suite: String,
        /// The address of its InRelease.
        url: String,
    },
    /// The signature is no good.
    #[error(transparent)]
    Signature(OpenPgpError),
    /// The signature, or its key, is of another time than this machine believes it is.
    #[error("{error}\n{}", clock(*now))]
    Clock {
        /// What is wrong with the signatures.
        error: OpenPgpError,
        /// The time it was checked at.
        now: i64,
    },
    /// The mirror gives an older index than before, and the newer one that was kept has expired.
    #[error(
        "{url}: dated {}, but this mirror gave one of {} before: it was set back, or somebody withholds updates. Use \
         another mirror (distribution.mirror, or BAKEHOUSE_DEBIAN_MIRROR); if the older one is meant, remove {}",
        time::show(*date),
        time::show(*before),
        note.display()
    )]
    Rollback {
        /// The InRelease.
        url: String,
        /// Its Date.
        date: i64,
        /// The Date of the newest that was seen.
        before: i64,
        /// Where that one is kept.
        note: PathBuf,
    },
    /// Something signed cannot be read.
    #[error(transparent)]
    Syntax(#[from] ControlError),
    /// A Packages file cannot be read.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The cache's folder fails.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The index has expired.
    #[error(
        "{url}: expired at {}: the mirror is no longer updated, or somebody withholds updates: use another mirror \
         (distribution.mirror, or BAKEHOUSE_DEBIAN_MIRROR). {}",
        time::show(*until),
        clock(*now)
    )]
    Expired {
        /// The InRelease.
        url: String,
        /// Its Valid-Until.
        until: i64,
        /// Its Date.
        date: i64,
        /// The time it was checked at.
        now: i64,
    },
    /// The index is from the future.
    #[error("{url}: dated {}, which is still to come. {}", time::show(*date), clock(*now))]
    Future {
        /// The InRelease.
        url: String,
        /// Its Date.
        date: i64,
        /// The time it was checked at.
        now: i64,
    },
    /// The index is of another suite.
    #[error("{url}: signed for suite {found}, but {wanted} was asked for: the mirror is wrong, or misleads")]
    OtherSuite {
        /// The InRelease.
        url: String,
        /// What was asked for.
        wanted: String,
        /// What it says it is.
        found: String,
    },
    /// The signed index lacks something.
    #[error("{url}: {what}")]
    Incomplete {
        /// The InRelease.
        url: String,
        /// What is missing.
        what: String,
    },
}

/// What to do when times do not fit.
fn clock(now: i64) -> String {
    format!(
        "This machine's clock says {}: if that looks wrong, set it right (`timedatectl set-ntp true`, or `date -s`) and \
         try again",
        time::show(now)
    )
}

struct Release {
    url: String,
    base: String,
    info: SourceInfo,
    by_hash: bool,
    /// Path below the suite's folder, with its SHA-256 and size.
    files: HashMap<String, (Digest, u64)>,
    components: Vec<String>,
}

/// One Packages file to fetch.
struct Wanted<'a> {
    release: &'a Release,
    path: String,
    plain: (Digest, u64),
}

impl Universe {
    /// Fetches, verifies and reads the package lists of all repositories, for one architecture (Debian's word, such
    /// as `amd64`). The sources come back in the order of `repositories`; of equal versions the package from the
    /// earlier repository counts.
    pub fn load(
        repositories: &[Repository],
        architecture: &str,
        cache: &Cache,
        options: &LoadOptions,
        progress: &dyn Progress,
    ) -> Result<(Self, Vec<SourceInfo>), RepositoryError> {
        let fetcher = Fetcher::new();
        let releases =
            parallel(repositories, 4, |one| fetch_release(&fetcher, one, cache, options, progress))?;
        let mut wanted = Vec::new();
        for release in &releases {
            wanted.extend(packages_files(release, architecture)?);
        }
        let texts = parallel(&wanted, 4, |one| fetch_packages(&fetcher, one, cache, progress))?;
        let universe = Self::from_texts(architecture, texts)?;
        Ok((universe, releases.into_iter().map(|release| release.info).collect()))
    }
}

fn fetch_release(
    fetcher: &Fetcher,
    repository: &Repository,
    cache: &Cache,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Release, RepositoryError> {
    let address = |uri: &str| {
        let uri = uri.trim_end_matches('/');
        (uri.to_owned(), format!("{uri}/dists/{}", repository.suite))
    };
    let (mut uri, mut base) = address(&repository.uri);
    let mut bytes = fetcher.small(&format!("{base}/InRelease"), MAX_RELEASE, progress);
    if let (Err(error), Some(fallback)) = (&bytes, &repository.fallback)
        && error.is_not_given()
    {
        progress.note(&format!("{uri} does not give {}, trying {fallback}", repository.suite));
        (uri, base) = address(fallback);
        bytes = fetcher.small(&format!("{base}/InRelease"), MAX_RELEASE, progress);
    }
    let url = format!("{base}/InRelease");
    let bytes = match bytes {
        Err(error) if error.is_missing() => {
            return Err(RepositoryError::NoSuite { uri, suite: repository.suite.clone(), url });
        }
        other => other?,
    };
    let release = read_release(repository, uri.clone(), base.clone(), &bytes, options)?;
    // A mirror that goes back in time withholds updates, whoever makes it do so: the newest that it ever gave counts.
    let note = Digest::of(url.as_bytes());
    let kept = cache.note(note).map(|kept| read_release(repository, uri, base, &kept, options));
    let (date, shown) = (release.info.date, time::show(release.info.date));
    match kept {
        Some(Ok(kept)) if kept.info.date > date => {
            progress.note(&format!(
                "{url}: the mirror gives an index of {shown}, older than the one of {} that it gave before; the newer one \
                 counts (to go back, remove {})",
                time::show(kept.info.date),
                cache.note_path(note).display()
            ));
            return Ok(kept);
        }
        Some(Err(RepositoryError::Expired { date: before, .. })) if before > date => {
            return Err(RepositoryError::Rollback { url, date, before, note: cache.note_path(note) });
        }
        Some(Ok(kept)) if kept.info.sha256 == release.info.sha256 => {}
        // One that cannot be read any more, or is older, makes room.
        _ => cache.put_note(note, &bytes)?,
    }
    Ok(release)
}

/// Reads an InRelease and checks all that can be checked of it alone.
fn read_release(
    repository: &Repository,
    uri: String,
    base: String,
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<Release, RepositoryError> {
    let url = format!("{base}/InRelease");
    let verified =
        options.keys.verify(&url, bytes, options.now).map_err(|error| match error.is_of_another_time() {
            true => RepositoryError::Clock { error, now: options.now },
            false => RepositoryError::Signature(error),
        })?;
    let fields = Paragraph::parse(&url, &verified.text)?;
    let incomplete = |what: String| RepositoryError::Incomplete { url: url.clone(), what };
    let names: Vec<&str> = ["Suite", "Codename"].iter().filter_map(|name| fields.get(name)).collect();
    if !names.contains(&repository.suite.as_str()) {
        let (wanted, found) = (repository.suite.clone(), names.join(" / "));
        return Err(RepositoryError::OtherSuite { url, wanted, found });
    }
    let date = |name: &str| {
        let read = |text| {
            time::parse_release_date(text)
                .ok_or_else(|| incomplete(format!("{name}: {text:?} is no date in UTC")))
        };
        fields.get(name).map(read).transpose()
    };
    let signed = date("Date")?.ok_or_else(|| incomplete("there is no Date".into()))?;
    let now = options.now;
    if signed > now.saturating_add(CLOCK_TOLERANCE) {
        return Err(RepositoryError::Future { url, date: signed, now });
    }
    match date("Valid-Until")? {
        Some(until) if until < now && !repository.valid_until_override => {
            return Err(RepositoryError::Expired { url, until, date: signed, now });
        }
        _ => {}
    }
    let mut files = HashMap::new();
    let list = fields.get("SHA256").ok_or_else(|| incomplete("there is no list of SHA256".into()))?;
    for line in list.lines().map(str::trim_ascii).filter(|line| !line.is_empty()) {
        let mut words = line.split_ascii_whitespace();
        let hash = words.next().and_then(Digest::from_hex);
        let size = words.next().and_then(|size| size.parse().ok());
        match (hash, size, words.next(), words.next()) {
            (Some(hash), Some(size), Some(path), None) => drop(files.insert(path.to_owned(), (hash, size))),
            _ => return Err(incomplete(format!("{line:?} is no line of a list of SHA256"))),
        }
    }
    Ok(Release {
        info: SourceInfo {
            role: repository.role.clone(),
            suite: repository.suite.clone(),
            components: repository.components.clone(),
            date: signed,
            sha256: Digest::of(bytes),
            uri,
            signed_by: verified.fingerprint,
        },
        by_hash: fields.get("Acquire-By-Hash") == Some("yes"),
        files,
        components: fields
            .get("Components")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect(),
        url,
        base,
    })
}

/// The Packages files of the wanted components: for the architecture and, where it is apart, for `all`.
fn packages_files<'a>(release: &'a Release, architecture: &str) -> Result<Vec<Wanted<'a>>, RepositoryError> {
    let incomplete = |what: String| RepositoryError::Incomplete { url: release.url.clone(), what };
    let mut wanted = Vec::new();
    for component in &release.info.components {
        // The security archive calls its components `updates/main`; their folder is `main` all the same.
        let known = |name: &String| name == component || name.rsplit('/').next() == Some(component);
        if !release.components.is_empty() && !release.components.iter().any(known) {
            let there = release.components.join(", ");
            return Err(incomplete(format!("there is no component {component}; there are {there}")));
        }
        let path = format!("{component}/binary-{architecture}/Packages");
        let plain = release.files.get(&path).copied();
        let plain =
            plain.ok_or_else(|| incomplete(format!("there are no packages for {architecture} ({path})")))?;
        wanted.push(Wanted { release, path, plain });
    }
    Ok(wanted)
}

/// The text of a Packages file: from the cache, else the smallest form that the mirror has, unpacked. Both the packed
/// and the unpacked bytes are checked against the signed list.
fn fetch_packages(
    fetcher: &Fetcher,
    wanted: &Wanted<'_>,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<(String, String, String), RepositoryError> {
    let Wanted { release, path, plain: (sha256, size) } = wanted;
    let name = format!("{}/{path}", release.base);
    let incomplete = |what: String| RepositoryError::Incomplete { url: name.clone(), what };
    if *size > MAX_PACKAGES {
        return Err(incomplete(format!("{size} bytes of package list are more than this program reads")));
    }
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| incomplete("it is not UTF-8".into()));
    let result = |text| (name.clone(), release.info.role.clone(), text);
    let read = |path: PathBuf| {
        std::fs::read(&path).map_err(|error| CacheError { path, action: "cannot be read", error })
    };
    if let Some(path) = cache.get(*sha256, *size)? {
        return Ok(result(text(read(path)?)?));
    }
    let forms = [".xz", ".gz", ""].into_iter().filter_map(|ending| {
        let (hash, size) = release.files.get(&format!("{path}{ending}"))?;
        Some((ending, *hash, *size))
    });
    let mut missing = None;
    for (ending, hash, packed_size) in forms {
        // It is read whole, too, and is smaller than what it unpacks to but for a few bytes.
        if packed_size > size + (64 << 10) {
            return Err(incomplete(format!("{path}{ending} has {packed_size} bytes, and {size} unpacked")));
        }
        let what = format!("{} {path}", release.info.suite);
        progress.started(&what, Some(packed_size));
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let by_hash = release.by_hash.then(|| format!("{}/{folder}/by-hash/SHA256/{hash}", release.base));
        let by_name = format!("{}/{path}{ending}", release.base);
        let mut fetched = Err(FetchError::Missing { url: by_name.clone(), status: 404 });
        for url in by_hash.into_iter().chain([by_name]) {
            fetched = fetcher.verified(&url, packed_size, hash, cache, progress);
            if !fetched.as_ref().is_err_and(FetchError::is_not_given) {
                break;
            }
        }
        progress.finished(&what);
        let packed = match fetched {
            Ok(packed) => packed,
            Err(error) if error.is_not_given() => {
                missing = Some(error);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let bytes = read(packed)?;
        if ending.is_empty() {
            return Ok(result(text(bytes)?));
        }
        let unpacked = unpack(ending, &bytes, *size)
            .map_err(|error| incomplete(format!("cannot be unpacked: {error}")))?;
        let mut hasher = Hasher::new();
        hasher.update(&unpacked);
        let (actual, actual_size) = (hasher.finish(), unpacked.len() as u64);
        if (actual, actual_size) != (*sha256, *size) {
            let url = name.clone();
            let mismatch = Mismatch { url, expected_size: *size, expected: *sha256, actual_size, actual };
            return Err(FetchError::Mismatch(Box::new(mismatch)).into());
        }
        let mut incoming = cache.begin()?;
        let path = incoming.path().to_owned();
        let written = incoming.file().write_all(&unpacked);
        written.map_err(|error| CacheError { path, action: "cannot be written", error })?;
        cache.commit(incoming, *sha256)?;
        return Ok(result(text(unpacked)?));
    }
    Err(missing
        .map_or_else(|| incomplete("no form of it is on the signed list".into()), RepositoryError::Fetch))
}

fn unpack(ending: &str, bytes: &[u8], size: u64) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::with_capacity(size as usize);
    let limit = size + 1;
    if ending == ".gz" {
        flate2::read::MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut unpacked)?;
    } else {
        liblzma::read::XzDecoder::new_multi_decoder(bytes).take(limit).read_to_end(&mut unpacked)?;
    }
    Ok(unpacked)
}
