//! What the cases share: folders, programs, baked images, partitions.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use debian::{
    Cache, FileRequest, HostSources, KeyRing, LoadOptions, Silent, Universe, Version, choose_mirrors,
};
use machine::{Accel, FirmwareDirs, Programs};

pub(crate) struct House {
    /// Where the suite writes. Goes at the end.
    folder: tempfile::TempDir,
    /// The cache of the user, so that nothing is fetched twice.
    pub(crate) cache: PathBuf,
    hello: OnceLock<Image>,
    older: OnceLock<Image>,
    kernels: OnceLock<Kernels>,
    accel: OnceLock<Accel>,
}

/// A baked image.
pub(crate) struct Image {
    /// The folder of outputs.
    pub(crate) out: PathBuf,
    pub(crate) recipe: PathBuf,
    /// What the program printed on standard output and standard error.
    pub(crate) json: String,
    pub(crate) progress: String,
}

impl Image {
    pub(crate) fn disk(&self) -> PathBuf {
        self.out.join("xvda.raw")
    }

    pub(crate) fn lock(&self) -> recipe::Lock {
        recipe::Lock::read(&self.recipe.with_extension("lock")).unwrap().unwrap()
    }
}

/// The newest kernel for clouds and the one before it.
pub(crate) struct Kernels {
    /// Such as `6.12.107+deb13-cloud-amd64`.
    pub(crate) older: String,
    pub(crate) newer: String,
    /// The package of the newer one.
    pub(crate) newer_deb: PathBuf,
}

impl House {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let named = |name, below| std::env::var_os(name).map(|folder| Path::new(&folder).join(below));
        let cache = named("BAKEHOUSE_CACHE", "").or(named("XDG_CACHE_HOME", "bakehouse"));
        let cache = cache.or(named("HOME", ".cache/bakehouse")).expect("HOME or BAKEHOUSE_CACHE");
        let (hello, older, kernels, accel) =
            (OnceLock::new(), OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { folder, cache, hello, older, kernels, accel }
    }

    /// A new folder.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A new folder with a copy of the examples.
    pub(crate) fn recipes(&self, name: &str) -> PathBuf {
        let folder = self.folder(name);
        copy_examples(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes"), &folder);
        folder
    }

    /// The program that is tested, as a command.
    pub(crate) fn bakehouse(&self, arguments: &[&OsStr]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
        command.args(arguments).env("BAKEHOUSE_CACHE", &self.cache);
        command.env("BAKEHOUSE_STORE", self.folder.path().join("store"));
        command
    }

    /// Bakes a recipe into the folder `out` beside it.
    pub(crate) fn bake(&self, recipe: &Path, options: &[&str]) -> Image {
        let out = recipe.with_extension("out");
        let mut arguments: Vec<&OsStr> =
            vec!["bake".as_ref(), recipe.as_ref(), "--out".as_ref(), out.as_ref(), "--json".as_ref()];
        arguments.extend(options.iter().map(OsStr::new));
        let started = Instant::now();
        let output = self.bakehouse(&arguments).output().unwrap();
        let (json, progress) = (text(&output.stdout), text(&output.stderr));
        println!(
            "      {} {} took {:.0} s",
            recipe.display(),
            options.join(" "),
            started.elapsed().as_secs_f64()
        );
        assert!(output.status.success(), "{}\n{json}\n{progress}", output.status);
        Image { out, recipe: recipe.into(), json, progress }
    }

    /// The example, baked once; booted only if the first who wants it has it checked.
    pub(crate) fn hello(&self, options: &[&str]) -> &Image {
        self.hello.get_or_init(|| self.bake(&self.recipes("hello").join("hello-web.yaml"), options))
    }

    /// The example with the kernel before the newest.
    pub(crate) fn older(&self) -> &Image {
        self.older.get_or_init(|| {
            let recipe = self.recipes("older").join("older.yaml");
            let kernel = self.kernels().older.replace("amd64", "${{ debian_arch }}");
            let text = format!("name: older\nextends: hello-web.yaml\nkernel: \"linux-image-{kernel}\"\n");
            fs::write(&recipe, text).unwrap();
            self.bake(&recipe, &["--no-check"])
        })
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        self.kernels.get_or_init(|| {
            let mirror = std::env::var("BAKEHOUSE_DEBIAN_MIRROR").ok();
            let host = HostSources::read(Path::new("/etc/apt"));
            let mirrors = choose_mirrors(None, mirror.as_deref(), &host, "trixie");
            let cache = self.downloads();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            let options = LoadOptions { now, keys: KeyRing::debian().unwrap() };
            let repositories = mirrors.repositories("trixie", &["main".to_owned()]);
            let (universe, _) = Universe::load(&repositories, "amd64", &cache, &options, &Silent).unwrap();
            let mut kernels = Vec::new();
            for name in universe.names() {
                if let Some(kernel) = name.strip_prefix("linux-image-")
                    && kernel.ends_with("+deb13-cloud-amd64")
                {
                    let package = universe.package(universe.versions_of(name)[0]).unwrap();
                    kernels.push((
                        Version::parse(&package.version.to_string()).unwrap(),
                        kernel.to_owned(),
                        package,
                    ));
                }
            }
            kernels.sort_by(|one, other| one.0.cmp(&other.0));
            let (_, newer, package) = kernels.pop().expect("a kernel for clouds");
            let (_, older, _) = kernels.pop().expect("a kernel before the newest");
            println!("      kernels: {older} and then {newer}");
            let request: FileRequest = package.request();
            let mut fetched = debian::download(&[request], &mirrors, &cache, &Silent).unwrap();
            Kernels { older, newer, newer_deb: fetched.paths.remove(0) }
        })
    }

    pub(crate) fn downloads(&self) -> Cache {
        Cache::open(&self.cache.join("downloads")).unwrap()
    }

    pub(crate) fn programs(&self) -> Programs {
        let qemu = workbench::find("qemu-system-x86_64");
        let qemu =
            qemu.unwrap_or_else(|| panic!("QEMU is not here: run `cargo xtask test`, which provides it"));
        let folder = qemu.parent().unwrap();
        let tree = folder.join("../root");
        let firmware = FirmwareDirs::below(if tree.is_dir() { &tree } else { Path::new("/") });
        Programs::in_folder(folder, "qemu-system-x86_64", firmware)
    }

    pub(crate) fn accel(&self) -> Accel {
        *self.accel.get_or_init(|| machine::probe_kvm(&self.programs(), "x86_64", &self.folder("probe")))
    }
}

/// Copies a folder, but no locks: the examples go without.
fn copy_examples(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy_examples(&from, &to);
        } else if from.extension() != Some("lock".as_ref()) {
            fs::copy(&from, &to).unwrap();
        }
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs one of the checkers.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = workbench::tool(name);
    command.args(arguments).env("E2FSCK_CONFIG", "/nonexistent");
    command.output().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs one of the checkers, which must succeed.
pub(crate) fn succeeds(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name} {}: {}\n{said}", arguments.join(" "), output.status);
    said
}

/// Where a partition lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Partition {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// The partition with this number, as the disk's GPT tells.
pub(crate) fn partition(disk: &Path, number: u64) -> Partition {
    let mut entry = [0; 128];
    // The usual place of the table: the third sector.
    File::open(disk).unwrap().read_exact_at(&mut entry, 2 * 512 + (number - 1) * 128).unwrap();
    let sector = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
    let (first, last) = (sector(32), sector(40));
    assert!(first > 0, "{} has no partition {number}", disk.display());
    Partition { offset: first * 512, len: (last + 1 - first) * 512 }
}

pub(crate) const ESP: u64 = 15;
pub(crate) const ROOT: u64 = 1;

/// A file system in a disk, in the words of e2fsprogs.
pub(crate) fn within(disk: &Path, offset: u64) -> String {
    format!("{}?offset={offset}", disk.display())
}

/// A full check of an ext4 file system, which must find nothing to complain of.
pub(crate) fn e2fsck(file_system: &str) {
    let said = succeeds("e2fsck", &["-f", "-n", file_system]);
    let expected = |line: &str| {
        line.starts_with("Pass ")
            || line.starts_with("e2fsck ")
            || line.contains(" files (")
            || line.is_empty()
    };
    assert!(said.lines().all(expected), "{said}");
}

/// Cuts a partition out and has fsck.fat check it.
pub(crate) fn fsck_fat(disk: &Path, to: &Path) {
    let esp = partition(disk, ESP);
    let mut bytes = vec![0; esp.len as usize];
    File::open(disk).unwrap().read_exact_at(&mut bytes, esp.offset).unwrap();
    fs::write(to, bytes).unwrap();
    succeeds("fsck.fat", &["-n", to.to_str().unwrap()]);
}
