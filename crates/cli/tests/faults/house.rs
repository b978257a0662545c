//! What the cases share: a tiny distribution and its mirror, the program, small disks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lying_mirror::{Archive, Behaviour, NOW, Package, Server};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount, unmount};
use rustix::thread::UnshareFlags;

/// Gives this process mounts that nobody else sees. It must have one thread.
pub(crate) fn own_mounts() -> Result<(), String> {
    sandbox::enter().map_err(|error| error.to_string())?;
    #[allow(deprecated, reason = "it is unsafe for open files only, and they stay shared here")]
    rustix::thread::unshare(UnshareFlags::NEWNS).map_err(|error| error.to_string())?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| error.to_string())
}

/// A disk in memory with so many bytes; it goes when this is dropped.
pub(crate) struct SmallDisk {
    pub(crate) path: PathBuf,
}

impl SmallDisk {
    pub(crate) fn new(path: &Path, bytes: u64) -> Self {
        fs::create_dir_all(path).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes},mode=0755")).unwrap();
        mount("small", path, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self { path: path.to_owned() }
    }

    /// Fills it up.
    pub(crate) fn fill(&self) {
        let mut filler = fs::File::create(self.path.join("filler")).unwrap();
        std::io::copy(&mut std::io::repeat(7), &mut filler).unwrap_err();
    }

    pub(crate) fn read_only(&self) {
        mount_remount(&self.path, MountFlags::RDONLY, c"").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Whoever still has a file open there holds it for a moment.
        for _ in 0..50 {
            if unmount(&self.path, rustix::mount::UnmountFlags::empty()).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) text: String,
}

impl Said {
    /// All of these are in it, and the exit code is this one.
    pub(crate) fn tells(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.status.code(), Some(code), "{}\n{}", self.status, self.text);
        for part in parts {
            assert!(self.text.contains(part), "no {part:?} in:\n{}", self.text);
        }
    }

    /// It was ended by a signal.
    pub(crate) fn was_ended_by(&self, signal: i32) {
        assert_eq!(self.status.signal(), Some(signal), "{}\n{}", self.status, self.text);
    }

    /// It got past the packages: what follows needs a real distribution.
    pub(crate) fn has_packages(&self) {
        assert!(self.text.contains("] packages: done"), "{}", self.text);
    }
}

/// The program with a cache.
pub(crate) fn bakehouse(cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    command.env("BAKEHOUSE_CACHE", cache).env("BAKEHOUSE_STORE", cache.join("store")).stdin(Stdio::null());
    command
}

/// A running program whose progress is read as it comes.
pub(crate) struct Running {
    pub(crate) child: Child,
    progress: BufReader<ChildStderr>,
    text: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let progress = BufReader::new(child.stderr.take().unwrap());
        Self { child, progress, text: String::new() }
    }

    /// Waits until a line has this in it.
    pub(crate) fn until(&mut self, part: &str) {
        loop {
            let mut line = String::new();
            let got = self.progress.read_line(&mut line).unwrap();
            self.text.push_str(&line);
            assert!(got > 0, "it ended before {part:?}:\n{}", self.text);
            if line.contains(part) {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        self.progress.read_to_string(&mut self.text).unwrap();
        Said { status: self.child.wait().unwrap(), text: self.text }
    }
}

/// Runs a command to its end.
pub(crate) fn said(command: Command) -> Said {
    Running::start(command).end()
}

/// A distribution of a dozen packages without content, its mirror, and a recipe that asks for it.
pub(crate) struct Tiny {
    pub(crate) archive: Archive,
    pub(crate) server: Server,
    /// Holds the recipe, the key and the folders below.
    pub(crate) folder: tempfile::TempDir,
    pub(crate) cache: PathBuf,
    pub(crate) out: PathBuf,
}

/// Of the packages that every recipe asks for, on either architecture.
const NEEDED: [&str; 11] = [
    "e2fsprogs",
    "grub-cloud-amd64",
    "grub-efi-arm64",
    "grub-efi-arm64-signed",
    "initramfs-tools",
    "linux-image-cloud-amd64",
    "linux-image-cloud-arm64",
    "shim-signed",
    "systemd-sysv",
    "udev",
    "zstd",
];

/// Where the package `big` is in the archive.
pub(crate) const BIG: &str = "pool/main/big_1_all.deb";

/// Where the tiny suite's index is.
pub(crate) const RELEASE: &str = "dists/trixie/InRelease";

/// The first fields of a Release.
pub(crate) fn head(date: &str) -> String {
    format!("Suite: stable\nCodename: trixie\nDate: {date}\nAcquire-By-Hash: yes\nComponents: main\n")
}

/// The Date of the tiny suite.
pub(crate) const DATE: &str = "Sun, 01 Jun 2025 00:00:00 UTC";

impl Tiny {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        let archive = Archive::new();
        let server = Server::start(archive.folder.path(), behaviour);
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (cache, out) = (folder.path().join("cache"), folder.path().join("out"));
        let tiny = Self { archive, server, folder, cache, out };
        tiny.publish("1", &head(DATE), NOW);
        fs::write(tiny.folder.path().join("key.asc"), tiny.archive.key.armored()).unwrap();
        tiny.recipe(&tiny.server.uri);
        tiny
    }

    pub(crate) fn recipe_file(&self) -> PathBuf {
        self.folder.path().join("tiny.yaml")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.folder.path().join("tiny.lock")
    }

    /// Writes the recipe for a mirror.
    pub(crate) fn recipe(&self, mirror: &str) {
        fs::write(self.recipe_file(), recipe(mirror)).unwrap();
    }

    /// Writes the suite, with `hello` in a version, signed at a time.
    pub(crate) fn publish(&self, version: &str, head: &str, made: i64) {
        self.publish_all(&[Package::new("hello", version).with("Depends: big\n")], head, made);
    }

    /// Writes the suite with these packages besides those that are always needed.
    pub(crate) fn publish_all(&self, more: &[Package], head: &str, made: i64) {
        let mut packages: Vec<Package> = NEEDED.iter().map(|name| Package::new(name, "1")).collect();
        packages.push(Package::new("base", "1").with("Essential: yes\n"));
        let mut big = Package::new("big", "1");
        let noise = (0..500_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) >> 7).to_le_bytes());
        big.files.push(("usr/share/big".to_owned(), noise.collect()));
        packages.push(big);
        packages.extend_from_slice(more);
        let list = self.archive.pool(&packages);
        self.archive.signed_suite("trixie", head, &["amd64", "arm64"], &list, made);
    }

    /// All paths under which the mirror has the suite's package list.
    pub(crate) fn lists(&self) -> Vec<String> {
        let folder = self.archive.path("dists/trixie/main");
        let mut paths = Vec::new();
        files_below(&folder, &mut |path| {
            paths.push(path.strip_prefix(self.archive.folder.path()).unwrap().to_str().unwrap().to_owned());
        });
        assert!(!paths.is_empty());
        paths
    }

    pub(crate) fn command(&self, options: &[&str]) -> Command {
        let mut command = bakehouse(&self.cache);
        command
            .arg("bake")
            .arg(self.recipe_file())
            .arg("--no-check")
            .arg("--out")
            .arg(&self.out)
            .args(options);
        command
    }

    pub(crate) fn bake(&self, options: &[&str]) -> Said {
        said(self.command(options))
    }

    /// Bakes, which must fail with a message that has these parts, and leave neither outputs nor parts of downloads.
    pub(crate) fn fails(&self, parts: &[&str]) {
        self.bake(&[]).tells(1, parts);
        self.left_nothing();
    }

    pub(crate) fn left_nothing(&self) {
        assert!(!self.out.exists());
        let mut left = Vec::new();
        for folder in ["downloads/incoming", "work"] {
            files_below(&self.cache.join(folder), &mut |path| left.push(path));
        }
        assert!(left.is_empty(), "{left:?}");
    }

    /// The file of the cache with this content.
    pub(crate) fn cached(&self, content: &[u8]) -> PathBuf {
        self.cache.join("downloads/by-hash/sha256").join(block::Digest::of(content).to_hex())
    }
}

/// A recipe for the host's architecture that asks a mirror for `hello`.
pub(crate) fn recipe(mirror: &str) -> String {
    format!(
        "name: tiny\narchitectures: [{}]\npackages: [hello]\n\
         distribution: {{suite: trixie, mirror: '{mirror}', signed_by: key.asc, updates: false, security: false}}\n",
        std::env::consts::ARCH
    )
}

/// The same fault for many paths.
pub(crate) fn each<T: Clone>(paths: Vec<String>, value: &T) -> BTreeMap<String, T> {
    paths.into_iter().map(|path| (path, value.clone())).collect()
}

/// Calls `found` for each file below a folder, which may be missing.
pub(crate) fn files_below(folder: &Path, found: &mut dyn FnMut(PathBuf)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path(), found),
            _ => found(entry.path()),
        }
    }
}

/// Waits until something is true; how long it may take is no matter of the test.
pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < Duration::from_secs(60), "not so after a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
