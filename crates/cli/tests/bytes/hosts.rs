//! Twenty bakes of one lock, each on another host: users, threads, time zones, locales, folders, file systems and what is
//! kept from earlier bakes change from one to the next, each in a rhythm of its own. All outputs are compared byte by byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountFlags, mount};

use crate::{ALONE, ELSEWHERE, USER, cache_folder, copy, give, open, run, user_id_helpers};

/// How many bakes there are.
const BAKES: usize = 20;
/// Where [`lay_over`] finds the folder that it lays another file system over.
pub(crate) const OVER: &str = "BAKEHOUSE_TEST_OVER";

const THREADS: [&str; 4] = ["1", "2", "3", "8"];
const ZONES: [&str; 5] = ["UTC", "Asia/Tokyo", "America/St_Johns", "Pacific/Apia", "Antarctica/Troll"];
const LOCALES: [&str; 3] = ["C", "de_DE.UTF-8", "tr_TR.UTF-8"];
const FOLDERS: [&str; 3] = ["a", "a place with another name", "ort/für/Bäcker/und-Müller"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    /// Who runs the tests.
    Own,
    /// An ordinary user with subordinate ids, on a host with firmware of the other kind.
    Subordinate,
    /// The same with one id only.
    Alone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileSystem {
    /// Where the tests have their folder.
    Own,
    Memory,
    /// Two folders in memory, one laid over the other.
    Overlay,
}

/// What an earlier bake of the same place left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Downloads alone.
    Nothing,
    /// Downloads, and the store and the cache of the bake that is repeated.
    All,
}

#[derive(Debug)]
struct Host {
    user: User,
    file_system: FileSystem,
    kept: Kept,
    threads: &'static str,
    zone: &'static str,
    locale: &'static str,
    folder: &'static str,
}

impl Host {
    fn number(at: usize, is_root: bool) -> Self {
        let user = [User::Own, User::Subordinate, User::Alone][at % 3];
        let file_system = [FileSystem::Own, FileSystem::Memory, FileSystem::Overlay][at / 3 % 3];
        let (user, file_system) = match (is_root, user, file_system) {
            (false, _, FileSystem::Own) => (User::Own, FileSystem::Own),
            (false, ..) => (User::Own, FileSystem::Memory),
            // Mounts belong to a namespace that only the other hosts have.
            (true, User::Own, FileSystem::Overlay) => (User::Own, FileSystem::Memory),
            (true, user, file_system) => (user, file_system),
        };
        Self {
            user,
            file_system,
            kept: if at % 4 == 3 { Kept::All } else { Kept::Nothing },
            threads: THREADS[at / 2 % THREADS.len()],
            zone: ZONES[at % ZONES.len()],
            locale: LOCALES[at / 4 % LOCALES.len()],
            folder: FOLDERS[at / 5 % FOLDERS.len()],
        }
    }
}

pub(crate) fn twenty_bakes(recipe: &str, arch: &str) {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("NOT COMPARED: other users and other firmware, for which these tests must be run as root");
    }
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    let program = folder.path().join("bakehouse");
    fs::copy(env!("CARGO_BIN_EXE_bakehouse"), &program).unwrap();
    let recipes = folder.path().join("recipes");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes"), &recipes);
    // The lock that all share, and the downloads that it names.
    let mut first = Command::new(&program);
    first.args(["bake", "--no-check", "--arch", arch, "--out"]).arg(folder.path().join("first"));
    first
        .arg(recipes.join(recipe).with_extension("yaml"))
        .env("BAKEHOUSE_STORE", folder.path().join("store"));
    run("the bake that makes the lock", &mut first);
    let expected = outputs(&folder.path().join("first"));
    let lock = fs::read_to_string(recipes.join(recipe).with_extension("lock")).unwrap();
    let tools = is_root.then(|| user_id_helpers(folder.path()));

    for at in 1..BAKES {
        let host = Host::number(at, is_root);
        let base = match host.file_system {
            FileSystem::Own => tempfile::tempdir(),
            FileSystem::Memory | FileSystem::Overlay => tempfile::tempdir_in("/dev/shm"),
        };
        let base = base.unwrap();
        open(base.path());
        let place = base.path().join(host.folder);
        copy(&recipes, &place.join("recipes"));
        copy_named(&cache_folder().join("downloads"), &place.join("cache/downloads"), &lock);
        if host.user != User::Own {
            give(base.path(), USER);
            open(base.path());
        }
        let times = if host.kept == Kept::All { 2 } else { 1 };
        for time in 0..times {
            // The second time there is nothing in place, but the root is kept, and compressed blocks are. What is written over
            // an overlay's folder is seen in its own namespace alone: the outputs go elsewhere.
            let out = match host.file_system {
                FileSystem::Overlay => folder.path().join(format!("beside{at}")),
                _ => base.path().to_owned(),
            };
            fs::create_dir_all(&out).unwrap();
            if host.user != User::Own {
                give(&out, USER);
            }
            let out = out.join(format!("out{time}"));
            let mut command = match host.user {
                User::Own => Command::new(&program),
                User::Subordinate | User::Alone => {
                    let mut command = Command::new(std::env::current_exe().unwrap());
                    command.arg(if host.user == User::Alone { ALONE } else { ELSEWHERE });
                    command.arg(folder.path()).arg(&program);
                    command
                }
            };
            command.args(["bake", "--no-check", "--locked", "--arch", arch, "--out"]).arg(&out);
            command.arg(place.join("recipes").join(recipe).with_extension("yaml"));
            command.env_clear().env("HOME", &place).env("BAKEHOUSE_CACHE", place.join("cache"));
            command.env("BAKEHOUSE_STORE", place.join("store")).current_dir(&place);
            command.env("TZ", host.zone).env("LC_ALL", host.locale).env("RAYON_NUM_THREADS", host.threads);
            if let Some(mirror) = std::env::var_os("BAKEHOUSE_DEBIAN_MIRROR") {
                command.env("BAKEHOUSE_DEBIAN_MIRROR", mirror);
            }
            let path = tools.as_ref().map_or_else(String::new, |tools| format!("{}:", tools.display()));
            command.env("PATH", format!("{path}/usr/bin:/bin"));
            if host.file_system == FileSystem::Overlay {
                command.env(OVER, base.path());
            }
            run(&format!("bake {} of {BAKES}: {host:?}, time {}", at + 1, time + 1), &mut command);
            assert_eq!(outputs(&out), expected, "{host:?}");
            fs::remove_dir_all(&out).unwrap();
        }
    }
}

/// Lays another file system over a folder, in this mount namespace: everything that is written to the folder goes to
/// memory, and nothing of it stays. `layers` is a folder of the test's own, in which that memory is mounted; what lies
/// above belongs to `user`.
pub(crate) fn lay_over(folder: &Path, layers: &Path, user: u32) {
    fs::create_dir_all(layers).unwrap();
    mount("none", layers, "tmpfs", MountFlags::empty(), None).unwrap();
    let (upper, work) = (layers.join("upper"), layers.join("work"));
    fs::create_dir(&upper).unwrap();
    fs::create_dir(&work).unwrap();
    std::os::unix::fs::chown(&upper, Some(user), Some(user)).unwrap();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", folder.display(), upper.display(), work.display());
    let options = std::ffi::CString::new(options).unwrap();
    mount("none", folder, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
}

/// The digest of every output that must be the same.
fn outputs(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.ends_with(".log") {
            found.insert(name, digest(&path));
        }
    }
    found
}

fn digest(path: &Path) -> String {
    let mut hasher = block::Hasher::new();
    let mut file = File::open(path).unwrap();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return hasher.finish().to_hex(),
            read => hasher.update(&piece[..read]),
        }
    }
}

/// Copies what a lock names of the downloads, and all that is not named by its digest.
fn copy_named(from: &Path, to: &Path, lock: &str) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<PathBuf> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort_by(|a, b| b.cmp(a));
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if path.is_dir() {
            copy_named(&path, &to.join(name), lock);
        } else if !is_digest || lock.contains(name) {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}
