//! Whole bakes of a small machine that are killed, interrupted, doubled, or run out of room.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;

use crate::Case;
use crate::house::{Running, Said, SmallDisk, bakehouse, eventually, files_below, said};

pub(crate) const CASES: &[Case] = &[
    ("killed_at_any_moment", killed_at_any_moment),
    ("interrupted", interrupted),
    ("no_room_for_the_root", no_room_for_the_root),
    ("no_room_in_memory", no_room_in_memory),
    ("no_room_for_the_outputs", no_room_for_the_outputs),
    ("two_bakes_of_one_recipe", two_bakes_of_one_recipe),
    ("an_interrupted_check_leaves_no_machine", an_interrupted_check_leaves_no_machine),
];

/// A machine that is baked already, for the case that wants one.
static BAKED: Mutex<Option<(Small, PathBuf)>> = Mutex::new(None);

/// Takes away what no case did.
pub(crate) fn tidy() {
    drop(BAKED.lock().map(|mut baked| baked.take()));
    let _ = fs::remove_file(kept_lock());
}

/// Where the first case leaves its lock for the others, so that only it asks a mirror.
fn kept_lock() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.lock", std::process::id()))
}

/// Marks all processes that come from this suite.
const MARK: &str = "BAKEHOUSE_FAULTS_SUITE";

/// A recipe of what boots and nothing more, and a cache with the downloads of the user's own.
struct Small {
    folder: tempfile::TempDir,
    cache: PathBuf,
    mark: String,
}

impl Small {
    fn new(name: &str) -> Self {
        let named = |name, below| std::env::var_os(name).map(|folder| Path::new(&folder).join(below));
        let own = named("BAKEHOUSE_CACHE", "").or(named("XDG_CACHE_HOME", "bakehouse"));
        let own = own.or(named("HOME", ".cache/bakehouse")).expect("HOME or BAKEHOUSE_CACHE");
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let cache = folder.path().join("cache");
        fs::create_dir(&cache).unwrap();
        for shared in ["downloads", "tools"] {
            fs::create_dir_all(own.join(shared)).unwrap();
            symlink(own.join(shared), cache.join(shared)).unwrap();
        }
        let recipe = format!(
            "name: small\narchitectures: [{}]\nvolumes: [{{device: /dev/xvda, root: true, size: 2GiB}}]\n",
            std::env::consts::ARCH
        );
        fs::write(folder.path().join("small.yaml"), recipe).unwrap();
        // It is not there yet for the first case, or when only one is chosen.
        let _ = fs::copy(kept_lock(), folder.path().join("small.lock"));
        Self { folder, cache, mark: format!("{name}-{}", std::process::id()) }
    }

    fn keep_lock(&self) {
        fs::copy(self.folder.path().join("small.lock"), kept_lock()).unwrap();
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, out: &Path) -> Command {
        let mut command = bakehouse(&self.cache);
        command
            .arg("bake")
            .arg(self.folder.path().join("small.yaml"))
            .arg("--no-check")
            .arg("--out")
            .arg(out);
        command.env(MARK, &self.mark);
        command
    }

    /// What programs of this case still run. Those in a sandbox have another environment, but their process 1 has not.
    fn running(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                left.push(String::from_utf8_lossy(&words).replace('\0', " "));
            }
        }
        left
    }

    fn nothing_runs(&self) {
        eventually("no process is left", || self.running().is_empty());
    }

    /// What is in the cache's folder of work, as paths.
    fn work(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache.join("work")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }
}

/// Outputs are whole, or there are none.
fn no_outputs(out: &Path) {
    let names = fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let names: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with(".bakehouse-")).collect();
    assert!(names.is_empty(), "{names:?}");
}

fn killed_at_any_moment() {
    let small = Small::new("killed");
    let (out, elsewhere) = (small.out("out"), small.out("elsewhere"));
    // Outputs in the making are taken away also by bakes that write to another folder.
    let mut bake = Running::start(small.command(&elsewhere));
    bake.until("] root file system …");
    bake.signal(Signal::KILL);
    bake.end().was_ended_by(9);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    // Every stage once, and the long one where packages are unpacked and where they are configured.
    for (at, more) in [
        ("] lock …", 100),
        ("] packages …", 0),
        ("] root file system: install packages", 1000),
        ("] root file system: make the boot files", 500),
        ("] write …", 200),
    ] {
        let mut bake = Running::start(small.command(&out));
        bake.until(at);
        std::thread::sleep(Duration::from_millis(more));
        bake.signal(Signal::KILL);
        bake.end().was_ended_by(9);
        small.nothing_runs();
        no_outputs(&out);
    }
    // What it left is in the way of nobody, and gone when the next has begun.
    assert!(!small.work().is_empty());
    let bake = said(small.command(&out));
    bake.tells(0, &["] write: done"]);
    assert_eq!(small.work(), [] as [PathBuf; 0]);
    assert!(!elsewhere.exists());
    let mut left = Vec::new();
    files_below(&out, &mut |path| {
        left.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()))
    });
    left.sort();
    let whole = [
        "bake.log",
        "block-device-mappings.json",
        "image.json",
        "register-image.json",
        "xvda.raw",
        "xvda.vmdk",
    ];
    assert_eq!(left, whole);
    small.keep_lock();
    *BAKED.lock().unwrap() = Some((small, out));
}

fn interrupted() {
    let small = Small::new("interrupted");
    let out = small.out("new/out");
    for (signal, number) in [(Signal::INT, 2), (Signal::TERM, 15)] {
        let mut bake = Running::start(small.command(&out));
        bake.until("] root file system: install packages");
        std::thread::sleep(Duration::from_millis(1000));
        bake.signal(signal);
        let said = bake.end();
        // Now, not later: nothing runs, and nothing is left.
        assert_eq!(small.running(), [] as [String; 0]);
        said.was_ended_by(number);
        assert!(said.text.contains("interrupted: nothing was left half-made but the logs"), "{}", said.text);
        assert_eq!(small.work(), [] as [PathBuf; 0]);
        assert!(!out.exists());
    }
    // A shell's background job, or one under nohup, is not to be interrupted.
    let mut command = Command::new("/bin/sh");
    let plain = small.command(&out);
    command.args(["-c", "trap '' INT; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.env("BAKEHOUSE_CACHE", &small.cache).env("BAKEHOUSE_STORE", small.cache.join("store"));
    command.env(MARK, &small.mark);
    let mut bake = Running::start(command);
    bake.until("] root file system …");
    bake.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(500));
    assert!(bake.child.try_wait().unwrap().is_none());
    bake.signal(Signal::TERM);
    bake.end().was_ended_by(15);
}

fn no_room_for_the_root() {
    let small = Small::new("root");
    let disk = SmallDisk::new(&small.cache.join("work"), 96 << 20);
    let mut command = small.command(&small.out("out"));
    command.env("BAKEHOUSE_MEMORY", "0");
    said(command).tells(1, &["No space left on device", "help: the disk is full", "BAKEHOUSE_CACHE=FOLDER"]);
    assert_eq!(small.work(), [] as [PathBuf; 0]);
    assert!(!small.out("out").exists());
    drop(disk);
}

/// What is said of the place of a root that memory is large enough for.
fn in_memory_where_it_can_be(said: &Said) -> &'static str {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // Files in memory have the attributes of users since then; owners that a process keeps are kept on the disk.
    if version < (6, 6) || said.text.contains("this user has one id only") {
        println!("NOT TRIED: a root in memory, which this kernel, or a user with one id, does not have");
        return "root file system: made on the disk";
    }
    "root file system: made in memory"
}

fn no_room_in_memory() {
    let small = Small::new("memory");
    let available = fs::read_to_string("/proc/meminfo").unwrap();
    let available = available.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    if available.unwrap_or(0) < 6 << 20 {
        println!("NOT TRIED: more in memory than there is room for: this machine has less than 6 GiB free");
        return;
    }
    let recipe = small.folder.path().join("small.yaml");
    let step = "run: [{name: scratch, script: dd if=/dev/zero of=/var/tmp/scratch bs=1M count=2200 && rm /var/tmp/scratch}]\n";
    fs::write(&recipe, fs::read_to_string(&recipe).unwrap() + step).unwrap();
    let mut command = small.command(&small.out("out"));
    command.arg("--explain").env("BAKEHOUSE_MEMORY", "2GiB");
    let said = said(command);
    if in_memory_where_it_can_be(&said).ends_with("memory") {
        said.tells(
            1,
            &[
                "made in memory",
                "scratch",
                "No space left on device",
                "help: the disk is full",
                "BAKEHOUSE_MEMORY=0",
            ],
        );
        assert!(!small.out("out").exists());
    } else {
        said.tells(0, &["made on the disk"]);
    }
    assert_eq!(small.work(), [] as [PathBuf; 0]);
}

fn no_room_for_the_outputs() {
    let small = Small::new("outputs");
    let out = small.out("out");
    let disk = SmallDisk::new(&out, 64 << 20);
    fs::write(out.join("mine.txt"), "stays").unwrap();
    said(small.command(&out)).tells(1, &["xvda.", "no space left", "make room or choose another disk"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(small.work(), [] as [PathBuf; 0]);
    drop(disk);
}

fn two_bakes_of_one_recipe() {
    let small = Small::new("two");
    let (one, other) = (small.out("one"), small.out("other"));
    let mut first = Running::start(small.command(&one));
    let second = Running::start(small.command(&other));
    first.until("] root file system …");
    said(small.command(&one)).tells(2, &["one: another bake is writing here", "--out"]);
    for said in [first.end(), second.end()] {
        said.tells(0, &["] write: done"]);
    }
    for name in ["image.json", "xvda.vmdk"] {
        assert!(fs::read(one.join(name)).unwrap() == fs::read(other.join(name)).unwrap(), "{name} differs");
    }
    assert_eq!(small.work(), [] as [PathBuf; 0]);
}

fn an_interrupted_check_leaves_no_machine() {
    let (small, out) = BAKED.lock().unwrap().take().unwrap_or_else(|| {
        let small = Small::new("check");
        let out = small.out("out");
        said(small.command(&out)).tells(0, &[]);
        (small, out)
    });
    let mut command = bakehouse(&small.cache);
    command.arg("check").arg(&out).env(MARK, &small.mark);
    let mut check = Running::start(command);
    check.until("] boot by ");
    eventually("QEMU runs", || small.running().iter().any(|words| words.contains("qemu-system-")));
    check.signal(Signal::INT);
    let said = check.end();
    assert_eq!(small.running(), [] as [String; 0]);
    said.was_ended_by(2);
    assert_eq!(small.work(), [] as [PathBuf; 0]);
    assert!(!out.join("checks.json").exists() && out.join("image.json").exists());
}
