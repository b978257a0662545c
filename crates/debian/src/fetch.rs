//! Getting bytes from mirrors: http, https and file addresses, with retries, resumed downloads and hash checks.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use block::{Digest, Hasher};

use crate::cache::{Cache, CacheError};

/// Attempts in a row that bring nothing new before an address is given up.
const ATTEMPTS: u32 = 4;

/// How patient a [`Fetcher`] is with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until an answer begins.
    pub answer: Duration,
    /// Between two pieces of an answer.
    pub silence: Duration,
    /// Over this long at least [`Limits::LEAST`] bytes must come: a server that drips is as good as silent.
    pub window: Duration,
    /// Before the second attempt; doubled before each further one.
    pub pause: Duration,
}

impl Limits {
    /// Bytes that must come in each window.
    pub const LEAST: u64 = 16 * 1024;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            window: Duration::from_secs(60),
            pause: Duration::from_millis(700),
        }
    }
}

/// Who wants to know how downloads go. Called from several threads at once.
pub trait Progress: Sync {
    /// A download begins; its size if that is known.
    fn started(&self, what: &str, bytes: Option<u64>);
    /// So many more bytes have come.
    fn advanced(&self, bytes: u64);
    /// A download is done, or given up.
    fn finished(&self, what: &str);
    /// Something a person may want to read: a retry, another mirror.
    fn note(&self, text: &str);
}

/// Progress that nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _what: &str, _bytes: Option<u64>) {}
    fn advanced(&self, _bytes: u64) {}
    fn finished(&self, _what: &str) {}
    fn note(&self, _text: &str) {}
}

/// Bytes that are not those that were promised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{url}: expected {expected_size} bytes with SHA-256 {expected}, got {actual_size} bytes with SHA-256 {actual}. \
     The mirror may be in the middle of an update, or something on the way changes files: try again, or use another mirror"
)]
pub struct Mismatch {
    /// The address.
    pub url: String,
    /// The promised length.
    pub expected_size: u64,
    /// The promised hash.
    pub expected: Digest,
    /// The length that came.
    pub actual_size: u64,
    /// The hash of what came.
    pub actual: Digest,
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server says that it does not have it.
    #[error("{url}: not there (HTTP status {status})")]
    Missing {
        /// The address.
        url: String,
        /// HTTP status; 404 for a file that does not exist.
        status: u16,
    },
    /// The server, or a proxy on the way, answers and does not give it.
    #[error("{url}: the server refuses to give it (HTTP status {status}). {}", advice(*status))]
    Refused {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The server or the way to it fails.
    #[error(
        "{url}: cannot be fetched, after {attempts} attempts: {what}. Is the network up, and the mirror right? Another one \
         can be named in BAKEHOUSE_DEBIAN_MIRROR or in the recipe (distribution.mirror)"
    )]
    Failed {
        /// The address.
        url: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened last.
        what: String,
    },
    /// Bytes came, but not those that were promised.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// More bytes came than may come.
    #[error("{url}: longer than the {limit} bytes that it may have")]
    TooLong {
        /// The address.
        url: String,
        /// The limit.
        limit: u64,
    },
    /// An address of a kind that cannot be fetched.
    #[error("{url}: only http://, https:// and file:// addresses can be fetched")]
    Scheme {
        /// The address.
        url: String,
    },
    /// The cache's folder fails.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl FetchError {
    /// Whether it is certain that the server does not have the file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether the server answers and does not give the file, so that it may be had elsewhere: some servers refuse what
    /// they do not have.
    pub fn is_not_given(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Refused { .. })
    }
}

/// What to do about a refusal.
fn advice(status: u16) -> &'static str {
    match status {
        401 => {
            "It wants a name and password: write them into the mirror's address (http://NAME:PASSWORD@HOST/debian), or \
             use another mirror"
        }
        407 => {
            "A proxy wants a name and password: write them into its address \
             (http_proxy=http://NAME:PASSWORD@HOST:PORT, or https_proxy)"
        }
        403 => {
            "A proxy may forbid it (see http_proxy, https_proxy and no_proxy), or the mirror does not serve this \
             machine: use another mirror (distribution.mirror, or BAKEHOUSE_DEBIAN_MIRROR)"
        }
        _ => {
            "Look whether the address is a Debian mirror's, or use another mirror (distribution.mirror, or \
             BAKEHOUSE_DEBIAN_MIRROR)"
        }
    }
}

/// Fetches from mirrors; keeps its connections open between calls.
#[derive(Clone, Debug)]
pub struct Fetcher {
    agent: ureq::Agent,
    limits: Limits,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

/// What one attempt came to.
enum Attempt {
    Done,
    Missing(u16),
    Refused(u16),
    Retry(String),
    /// It broke off, but brought bytes that were not there before.
    Further(String),
    TooLong,
    /// This machine fails, whatever the server does.
    Local(CacheError),
}

impl Fetcher {
    /// A fetcher; a proxy is taken from the environment (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`).
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// The same with another patience.
    pub fn with_limits(limits: Limits) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("bakehouse/", env!("CARGO_PKG_VERSION")))
            // Files are wanted as they are: their hashes are over the compressed bytes.
            .accept_encoding("identity")
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(Some(limits.silence))
            .max_idle_connections(32)
            .max_idle_connections_per_host(16)
            .build();
        Self { agent: config.into(), limits }
    }

    /// A small file into memory, at most `limit` bytes.
    pub fn small(&self, url: &str, limit: u64, progress: &dyn Progress) -> Result<Vec<u8>, FetchError> {
        if let Some(path) = file_path(url)? {
            let file = open_local(url, &path)?;
            let mut bytes = Vec::new();
            let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
            read.map_err(|error| FetchError::Failed {
                url: url.into(),
                attempts: 1,
                what: error.to_string(),
            })?;
            if bytes.len() as u64 > limit {
                return Err(FetchError::TooLong { url: url.into(), limit });
            }
            return Ok(bytes);
        }
        let mut bytes = Vec::new();
        self.retry(url, progress, || {
            bytes.clear();
            let response = match self.agent.get(url).call() {
                Ok(response) => response,
                Err(error) => return Attempt::Retry(words(&error)),
            };
            let status = response.status().as_u16();
            if status != 200 {
                return refused(status);
            }
            let mut body =
                Paced::new(response.into_body().into_with_config().limit(u64::MAX).reader(), self.limits);
            match body.by_ref().take(limit.saturating_add(1)).read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > limit => Attempt::TooLong,
                Ok(_) => Attempt::Done,
                Err(error) => Attempt::Retry(error.to_string()),
            }
        })
        .map_err(|error| match error {
            FetchError::TooLong { url, .. } => FetchError::TooLong { url, limit },
            other => other,
        })?;
        Ok(bytes)
    }

    /// A file whose length and hash are known, into the cache. What is in the cache already is not fetched; a
    /// download that breaks off is resumed where it broke off, if the server can.
    pub fn verified(
        &self,
        url: &str,
        size: u64,
        sha256: Digest,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<PathBuf, FetchError> {
        if let Some(path) = cache.get(sha256, size)? {
            return Ok(path);
        }
        let mut incoming = cache.begin()?;
        let part = incoming.path().to_owned();
        let mut sink = Sink::new(incoming.file(), &part, size, progress);
        if let Some(path) = file_path(url)? {
            let mut file = open_local(url, &path)?;
            sink.copy(&mut file).map_err(|error| match error {
                CopyError::Read(error) => {
                    FetchError::Failed { url: url.into(), attempts: 1, what: error.to_string() }
                }
                CopyError::Write(error) => error.into(),
            })?;
        } else {
            // What the server said of the file, so that two halves of different files are never put together.
            let mut tag = None;
            let mut fresh_start = 0;
            let mut furthest = 0;
            let result = self.retry(url, progress, || {
                let attempt = match self.attempt(url, &mut sink, &mut tag) {
                    Attempt::Retry(reason) if sink.written > furthest => {
                        furthest = sink.written;
                        Attempt::Further(reason)
                    }
                    attempt => attempt,
                };
                // A whole file with the wrong hash is worth one more try from the start: a resumed or a stale one.
                if matches!(attempt, Attempt::Done)
                    && sink.hasher.clone().finish() != sha256
                    && fresh_start < 1
                {
                    fresh_start += 1;
                    return match sink.restart() {
                        Ok(()) => Attempt::Retry("the bytes do not have the promised hash".into()),
                        Err(error) => Attempt::Local(error),
                    };
                }
                attempt
            });
            match result {
                Ok(()) | Err(FetchError::TooLong { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (actual, actual_size) = (sink.hasher.finish(), sink.written);
        if (actual, actual_size) != (sha256, size) {
            let url = url.to_owned();
            let mismatch = Mismatch { url, expected_size: size, expected: sha256, actual_size, actual };
            return Err(FetchError::Mismatch(Box::new(mismatch)));
        }
        // The part's own length must be what was hashed: nothing else may have written to it.
        let length = incoming.file().metadata().map(|metadata| metadata.len());
        if length.ok() != Some(size) {
            let error = io::Error::other("it was changed by someone else");
            return Err(CacheError { path: part, action: "cannot be used", error }.into());
        }
        Ok(cache.commit(incoming, sha256)?)
    }

    fn attempt(&self, url: &str, sink: &mut Sink<'_>, tag: &mut Option<String>) -> Attempt {
        let mut request = self.agent.get(url);
        let resumed = match tag {
            Some(tag) if sink.written > 0 => {
                request = request
                    .header("Range", format!("bytes={}-", sink.written))
                    .header("If-Range", tag.as_str());
                true
            }
            _ => false,
        };
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => return Attempt::Retry(words(&error)),
        };
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        match response.status().as_u16() {
            200 => {
                if let Err(error) = sink.restart() {
                    return Attempt::Local(error);
                }
                // A weak tag does not promise the same bytes; a date does well enough, since the hash decides.
                *tag =
                    header("etag").filter(|tag| !tag.starts_with("W/")).or_else(|| header("last-modified"));
            }
            206 if resumed => {
                let wanted = format!("bytes {}-", sink.written);
                if !header("content-range").is_some_and(|range| range.starts_with(&wanted)) {
                    *tag = None;
                    return Attempt::Retry("the server resumed at another place".into());
                }
            }
            416 => {
                *tag = None;
                return Attempt::Retry("the server cannot resume there".into());
            }
            status => return refused(status),
        }
        let mut body =
            Paced::new(response.into_body().into_with_config().limit(u64::MAX).reader(), self.limits);
        match sink.copy(&mut body) {
            Ok(()) if sink.written > sink.limit => Attempt::TooLong,
            Ok(()) if sink.written < sink.limit => {
                Attempt::Retry(format!("{} of {} bytes came", sink.written, sink.limit))
            }
            Ok(()) => Attempt::Done,
            Err(CopyError::Read(error)) => Attempt::Retry(error.to_string()),
            Err(CopyError::Write(error)) => Attempt::Local(error),
        }
    }

    fn retry(
        &self,
        url: &str,
        progress: &dyn Progress,
        mut attempt: impl FnMut() -> Attempt,
    ) -> Result<(), FetchError> {
        let mut failures = 0;
        loop {
            let reason = match attempt() {
                Attempt::Done => return Ok(()),
                Attempt::Missing(status) => return Err(FetchError::Missing { url: url.into(), status }),
                Attempt::Refused(status) => return Err(FetchError::Refused { url: url.into(), status }),
                Attempt::TooLong => return Err(FetchError::TooLong { url: url.into(), limit: 0 }),
                Attempt::Local(error) => return Err(error.into()),
                Attempt::Retry(reason) => reason,
                Attempt::Further(reason) => {
                    failures = 0;
                    reason
                }
            };
            failures += 1;
            if failures >= ATTEMPTS {
                return Err(FetchError::Failed { url: url.into(), attempts: ATTEMPTS, what: reason });
            }
            progress.note(&format!("{url}: {reason}; trying again"));
            std::thread::sleep(self.limits.pause * 2_u32.pow(failures - 1));
        }
    }
}

/// What went wrong on the way, in a person's words where the library's say little.
fn words(error: &ureq::Error) -> String {
    let text = error.to_string();
    match error {
        ureq::Error::Timeout(_) => format!("it does not answer in time ({text})"),
        // A certificate counts for some years; a machine that believes in another decade refuses it.
        _ if text.contains("ertificate") => format!("{text}; is this machine's clock right?"),
        _ => text,
    }
}

/// Passes bytes on as long as enough of them come.
struct Paced<R> {
    from: R,
    limits: Limits,
    since: Instant,
    bytes: u64,
}

impl<R: Read> Paced<R> {
    fn new(from: R, limits: Limits) -> Self {
        Self { from, limits, since: Instant::now(), bytes: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.from.read(buffer).map_err(|error| {
            // The library wraps its own error.
            match error.to_string().contains("timeout") || error.kind() == io::ErrorKind::TimedOut {
                true => io::Error::other(format!("nothing came for {} s", self.limits.silence.as_secs_f32())),
                false => error,
            }
        })?;
        self.bytes += got as u64;
        let elapsed = self.since.elapsed();
        if got > 0 && elapsed >= self.limits.window {
            if self.bytes < Limits::LEAST {
                let (bytes, seconds) = (self.bytes, elapsed.as_secs_f32());
                return Err(io::Error::other(format!("only {bytes} bytes came in {seconds:.0} s")));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(got)
    }
}

fn refused(status: u16) -> Attempt {
    match status {
        // Too many requests, and whatever is the server's own trouble, may be over in a moment.
        408 | 429 | 500..=599 => Attempt::Retry(format!("HTTP status {status}")),
        404 | 410 => Attempt::Missing(status),
        _ => Attempt::Refused(status),
    }
}

/// Why bytes could not be copied.
enum CopyError {
    /// No more of them come.
    Read(io::Error),
    /// They cannot be kept.
    Write(CacheError),
}

/// Writes what comes, hashes it, counts it, and stops one byte past the limit.
struct Sink<'a> {
    file: &'a mut File,
    path: &'a Path,
    hasher: Hasher,
    written: u64,
    limit: u64,
    progress: &'a dyn Progress,
}

impl<'a> Sink<'a> {
    /// A sink for an empty file; `path` is its name in messages.
    fn new(file: &'a mut File, path: &'a Path, limit: u64, progress: &'a dyn Progress) -> Self {
        Self { file, path, hasher: Hasher::new(), written: 0, limit, progress }
    }

    fn cannot_write(&self, error: io::Error) -> CacheError {
        CacheError { path: self.path.to_owned(), action: "cannot be written", error }
    }

    fn restart(&mut self) -> Result<(), CacheError> {
        if self.written > 0 {
            let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
            emptied.map_err(|error| self.cannot_write(error))?;
        }
        self.hasher = Hasher::new();
        self.written = 0;
        Ok(())
    }

    fn copy(&mut self, from: &mut dyn Read) -> Result<(), CopyError> {
        let mut buffer = vec![0; 64 * 1024];
        while self.written <= self.limit {
            let got = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Read(error)),
            };
            let written = self.file.write_all(&buffer[..got]);
            written.map_err(|error| CopyError::Write(self.cannot_write(error)))?;
            self.hasher.update(&buffer[..got]);
            self.written += got as u64;
            self.progress.advanced(got as u64);
        }
        Ok(())
    }
}

/// The path of a `file://` address, percent signs decoded; `None` for http and https.
fn file_path(url: &str) -> Result<Option<PathBuf>, FetchError> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(None);
    }
    let scheme = || FetchError::Scheme { url: url.to_owned() };
    let rest = url.strip_prefix("file:").ok_or_else(scheme)?;
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(scheme());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    use std::os::unix::ffi::OsStringExt;
    Ok(Some(std::ffi::OsString::from_vec(bytes).into()))
}

fn open_local(url: &str, path: &Path) -> Result<File, FetchError> {
    File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FetchError::Missing { url: url.into(), status: 404 },
        _ => FetchError::Failed { url: url.into(), attempts: 1, what: error.to_string() },
    })
}

/// Runs `work` on every item, on at most `threads` threads; results in the items' order. After an error no new item
/// is begun, and the error of the first item that has one is returned.
pub(crate) fn parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let result = work(item);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            done.push((index, result));
        }
        done
    };
    let mut all: Vec<(usize, Result<R, E>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(items.len())).map(|_| scope.spawn(run)).collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.flatten().collect()
    });
    all.sort_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_full_disk_is_told_at_once_and_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let answers = std::thread::spawn(move || {
            let mut answered = 0;
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let got = stream.read(&mut [0; 4096]).unwrap();
                if got == 0 {
                    break;
                }
                answered += 1;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
            }
            answered
        });
        let address = url.trim_start_matches("http://").trim_end_matches("/file").to_owned();
        // A device on which there never is any room.
        let path = Path::new("/dev/full");
        let mut file = File::options().write(true).open(path).unwrap();
        let mut sink = Sink::new(&mut file, path, 5, &Silent);
        let fetcher = Fetcher::new();
        let error = fetcher.retry(&url, &Silent, || fetcher.attempt(&url, &mut sink, &mut None)).unwrap_err();
        drop(std::net::TcpStream::connect(address).unwrap());
        assert_eq!(answers.join().unwrap(), 1, "{error}");
        assert!(matches!(&error, FetchError::Cache(_)), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("/dev/full: cannot be written: No space left on device"), "{text}");
        assert!(
            text.ends_with("Make room there, or name a cache folder on another disk in BAKEHOUSE_CACHE"),
            "{text}"
        );
    }
}
