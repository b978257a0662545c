//! Whole roots, made twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bake::{Ingredients, LockMode, ParentChoice, Report, Request, Stage, Stages, Unit};
use recipe::Arch;
use tree::Tree;

pub(crate) const TESTS: [(&str, fn()); 1] =
    [("a_dispatched_root_is_the_emulated_one", a_dispatched_root_is_the_emulated_one)];

/// The architecture that this machine is not.
pub(crate) const FOREIGN: Arch = if cfg!(target_arch = "aarch64") { Arch::X86_64 } else { Arch::Aarch64 };

/// What boots and little more, for emulating all of it takes its time: the kernel's initrd, perl, systemd's programs.
const SMALL: &str = r#"
name: dispatch
architectures: [x86_64, aarch64]
packages: [cowsay, python3]
run:
  - {name: machine, script: "{ uname -m; arch; dpkg --print-architecture; } > /etc/machine-names"}
volumes:
  - {device: /dev/xvda, root: true, size: 4GiB, type: gp3}
"#;

/// The example's packages and parts, for thorough runs.
const WHOLE: &str = r#"
name: dispatch
extends: builtin:debian-13
architectures: [x86_64, aarch64]
packages: [apache2, cowsay]
motd:
  40-cow: |
    #!/bin/sh
    /usr/games/cowsay Hello
web:
  root: /var/www/html
  index.html: <h1>Hello</h1>
services: {enable: [apache2]}
run:
  - {name: machine, script: "{ uname -m; arch; dpkg --print-architecture; } > /etc/machine-names"}
volumes:
  - {device: /dev/xvda, root: true, size: 4GiB, type: gp3}
"#;

/// Tells nobody but the person before the terminal.
struct Quiet;

impl Report for Quiet {
    fn started(&self, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>, _: Unit, _: &str) {}
    fn line(&self, text: &str) {
        println!("  {text}");
    }
    fn finished(&self, _: &Stage) {}
}

/// The cache that the program itself would use.
fn cache_folder() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("BAKEHOUSE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("bakehouse")))
        .or_else(|| named("HOME").map(|folder| folder.join(".cache/bakehouse")))
        .expect("BAKEHOUSE_CACHE or HOME is set")
}

/// A private folder in the cache, on the file system of the downloads.
pub(crate) fn work_folder() -> tempfile::TempDir {
    let parent = cache_folder().join("tests");
    fs::create_dir_all(&parent).unwrap();
    tempfile::Builder::new().prefix("dispatch-").tempdir_in(parent).unwrap()
}

/// The packages for an architecture, and what runs their programs, by the lock in `work`.
pub(crate) fn ingredients(work: &Path, arch: Arch, native_dispatch: bool) -> Ingredients {
    let recipe = work.join("dispatch.yaml");
    fs::write(&recipe, if thorough() { WHOLE } else { SMALL }).unwrap();
    let request = Request {
        recipe,
        set: Vec::new(),
        arch: Some(arch),
        out: None,
        lock: std::env::var_os("BAKEHOUSE_TEST_LOCK").map(PathBuf::from),
        lock_mode: LockMode::Keep,
        parent: ParentChoice::Locked,
        native_dispatch,
        explain: false,
        check: None,
        store: None,
        cache: cache_folder(),
        memory: 0,
        mirror: std::env::var("BAKEHOUSE_DEBIAN_MIRROR").ok().filter(|value| !value.trim().is_empty()),
        now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed(),
    };
    bake::fetch(&request, &Stages::new(&Quiet)).unwrap_or_else(|error| panic!("{error}"))
}

/// Makes the root; the programs' counts where they are another machine's.
fn build(work: &Path, name: &str, arch: Arch, native: bool) -> (Tree, Option<rootfs::Counts>) {
    let ingredients = ingredients(work, arch, native);
    let folder = work.join(name);
    fs::create_dir(&folder).unwrap();
    let start = Instant::now();
    let built = rootfs::build(&rootfs::Request {
        recipe: &ingredients.recipe,
        packages: &ingredients.files,
        time: ingredients.lock.time,
        work: &folder,
        boot: rootfs::Boot { root_uuid: [0x11; 16], esp_id: 0x1234_abcd, mounts: Vec::new() },
        foreign: ingredients.foreign.as_ref(),
        progress: &(),
    });
    let built = built.unwrap_or_else(|error| panic!("{name}: {error}"));
    println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    let mut scripts = built.report.scripts.clone();
    scripts.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    for took in scripts.iter().take(8) {
        println!("  {:6.2} s {}", took.seconds, took.name);
    }
    if let Some(counts) = &built.report.programs {
        let (native, emulated) = counts.totals();
        println!("  {native} program starts native, {emulated} emulated:");
        for (path, count) in counts.most_emulated().iter().take(12) {
            println!("  {count:6} {path}");
        }
    }
    (built.tree, built.report.programs)
}

fn a_dispatched_root_is_the_emulated_one() {
    let work = work_folder();
    let (dispatched, counts) = build(work.path(), "dispatched", FOREIGN, true);
    let (native, emulated) = counts.unwrap().totals();
    assert!(native > 9 * emulated, "{native} native, {emulated} emulated");
    if thorough() {
        build(work.path(), "own", host(), true);
    } else {
        println!("the whole example is compared by `cargo xtask test --thorough`");
    }
    let (emulated, counts) = build(work.path(), "emulated", FOREIGN, false);
    assert_eq!(counts.unwrap().totals().0, 0);
    let differences = rootfs::compare(&dispatched, &emulated);
    for difference in &differences {
        println!("  {difference}");
    }
    assert!(differences.is_empty(), "{} differences", differences.len());
}

fn thorough() -> bool {
    std::env::var_os("BAKEHOUSE_THOROUGH").is_some()
}

fn host() -> Arch {
    bake::host_arch().unwrap()
}
