//! What we lay down and configure against what mmdebstrap does with the same packages: every file, its mode, owner,
//! attributes, content and time. Each difference has its reason below, or fails the test.
//!
//! The namespace must be entered before any thread is started, which the usual test harness does not allow; so this
//! one has its own. It ends with a line `N passed, N failed`.
#![allow(clippy::print_stdout, reason = "a test runner tells its results there")]

#[path = "peer/differences.rs"]
mod differences;
#[path = "peer/peers.rs"]
mod peers;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use bake::Ingredients;
use peers::Peers;
use tree::{Node, Tree, TreePath};

/// molly-guard is there for its diversions: its preinst moves `halt` and its like, which systemd-sysv brings, out of
/// the way.
const RECIPE: &str = r#"
name: peer
extends: builtin:debian-13
architectures: [x86_64]
packages: [apache2, cowsay, molly-guard]
motd:
  40-cow: |
    #!/bin/sh
    /usr/games/cowsay Hello
web:
  root: /var/www/html
  index.html: <h1>Hello</h1>
services: {enable: [apache2]}
volumes:
  - {device: /dev/xvda, root: true, size: 4GiB, type: gp3}
"#;

const OURS: &str = "ours/root";
const THEIRS: &str = "theirs";

type Test = (&'static str, fn(&Both));

const TESTS: [Test; 8] = [
    ("both_hold_exactly_the_locked_packages", both_hold_exactly_the_locked_packages),
    ("every_difference_has_its_reason", every_difference_has_its_reason),
    ("preinst_scripts_ran_before_their_packages_were_laid_down", preinst_scripts_ran),
    ("diverted_files_lie_at_the_diverted_place", diverted_files_lie_at_the_diverted_place),
    ("conffiles_are_known_by_their_hash", conffiles_are_known_by_their_hash),
    ("triggers_ran", triggers_ran),
    ("dpkg_finds_both_whole", dpkg_finds_both_whole),
    ("nothing_is_left_that_must_not_be_shared", nothing_is_left_that_must_not_be_shared),
];

/// The same packages, installed twice.
struct Both {
    ingredients: Ingredients,
    peers: Peers,
    ours: Tree,
    theirs: Tree,
}

impl Both {
    fn make(work: &Path) -> Self {
        let recipe = work.join("peer.yaml");
        fs::write(&recipe, RECIPE).unwrap();
        let ingredients = peers::ingredients(&recipe);
        let folder = work.join("ours");
        fs::create_dir(&folder).unwrap();
        let start = Instant::now();
        let built = rootfs::build(&rootfs::Request {
            recipe: &ingredients.recipe,
            packages: &ingredients.files,
            time: ingredients.lock.time,
            work: &folder,
            boot: rootfs::Boot { root_uuid: [0x11; 16], esp_id: 0x1234_abcd, mounts: Vec::new() },
            foreign: None,
            progress: &(),
        });
        let built = built.unwrap_or_else(|error| panic!("{error}"));
        println!("ours: {} packages in {:.1} s", ingredients.files.len(), start.elapsed().as_secs_f64());
        // What scripts make has this time in both: the day of a password's last change, for one.
        let time = built.tree.get(&TreePath::root()).unwrap().meta.mtime.seconds;
        let peers = Peers::new(&ingredients, work, time);
        let start = Instant::now();
        peers.mmdebstrap(THEIRS);
        println!("mmdebstrap: {:.1} s", start.elapsed().as_secs_f64());
        let theirs = rootfs::scan(&work.join(THEIRS)).unwrap();
        Self { ingredients, peers, ours: built.tree, theirs }
    }

    fn each(&self) -> [(&'static str, &Tree); 2] {
        [(OURS, &self.ours), (THEIRS, &self.theirs)]
    }
}

/// Name, version and state as dpkg of the peers' root reads them.
fn both_hold_exactly_the_locked_packages(both: &Both) {
    let locked: BTreeMap<&str, &str> =
        both.ingredients.files.iter().map(|file| (file.name.as_str(), file.version.as_str())).collect();
    for (folder, _) in both.each() {
        let admin = format!("--admindir={}/{folder}/var/lib/dpkg", peers::WORK);
        let format = "--showformat=${Package} ${Version} ${db:Status-Abbrev}\n";
        let text = both.peers.run(&["dpkg-query", &admin, "--show", format]);
        let found: BTreeMap<&str, &str> = text
            .lines()
            .map(|line| {
                let (package, state) = line.trim_end().rsplit_once(' ').unwrap();
                assert_eq!(state, "ii", "{folder}: {line}");
                package.split_once(' ').unwrap()
            })
            .collect();
        assert_eq!(found, locked, "{folder}");
    }
}

fn every_difference_has_its_reason(both: &Both) {
    let unexplained = differences::unexplained(&both.ingredients.recipe, &both.ours, &both.theirs);
    assert!(unexplained.is_empty(), "without a reason:\n{}", unexplained.join("\n"));
}

/// base-passwd makes the accounts in its preinst; molly-guard asks for its diversions there.
fn preinst_scripts_ran(both: &Both) {
    for (folder, tree) in both.each() {
        assert!(text(tree, "var/lib/dpkg/info/base-passwd.preinst").contains("/etc/passwd"), "{folder}");
        assert!(text(tree, "etc/passwd").starts_with("root:x:0:0:root:/root:/bin/bash\n"), "{folder}");
        assert!(text(tree, "var/lib/dpkg/info/molly-guard.preinst").contains("dpkg-divert"), "{folder}");
        assert!(text(tree, "var/lib/dpkg/diversions").contains("/usr/sbin/halt\n"), "{folder}");
    }
}

fn diverted_files_lie_at_the_diverted_place(both: &Both) {
    for (folder, tree) in both.each() {
        let diversion = "/usr/sbin/halt\n/usr/sbin/halt.no-molly-guard\nmolly-guard\n";
        assert!(text(tree, "var/lib/dpkg/diversions").contains(diversion), "{folder}");
        assert_eq!(link(tree, "usr/sbin/halt"), "../lib/molly-guard/molly-guard", "{folder}");
        assert_eq!(link(tree, "usr/sbin/halt.no-molly-guard"), "../bin/systemctl", "{folder}");
        // Whose file it is stays as it was: systemd-sysv's list has the name that its archive has.
        assert!(text(tree, "var/lib/dpkg/info/systemd-sysv.list").contains("\n/usr/sbin/halt\n"), "{folder}");
    }
}

fn conffiles_are_known_by_their_hash(both: &Both) {
    for (folder, tree) in both.each() {
        for path in ["etc/apache2/apache2.conf", "etc/molly-guard/rc", "etc/ssh/moduli"] {
            let file = format!("{}/{folder}/{path}", peers::WORK);
            let hash = both.peers.run(&["md5sum", &file]);
            let line = format!("\n /{path} {}\n", &hash[..32]);
            assert!(text(tree, "var/lib/dpkg/status").contains(&line), "{folder}: no{line}");
        }
    }
}

/// What only triggers make: of libc-bin, ca-certificates, systemd, debianutils.
fn triggers_ran(both: &Both) {
    for (folder, tree) in both.each() {
        assert!(file(tree, "etc/ld.so.cache").starts_with(b"glibc-ld.so.cache1.1"), "{folder}");
        assert!(text(tree, "etc/ssl/certs/ca-certificates.crt").contains("BEGIN CERTIFICATE"), "{folder}");
        assert!(file(tree, "var/lib/systemd/catalog/database").starts_with(b"RHHHKSLP"), "{folder}");
        assert!(text(tree, "etc/shells").contains("/usr/bin/dash\n"), "{folder}");
        assert_eq!(text(tree, "var/lib/dpkg/triggers/Unincorp"), "", "{folder}");
    }
}

/// dpkg's own look at states, and at the bytes of every packaged file.
fn dpkg_finds_both_whole(both: &Both) {
    for (folder, _) in both.each() {
        let root = format!("--root={}/{folder}", peers::WORK);
        assert_eq!(both.peers.run(&["dpkg", &root, "--audit"]), "", "{folder}");
        assert_eq!(both.peers.run(&["dpkg", &root, "--verify"]), "", "{folder}");
    }
}

fn nothing_is_left_that_must_not_be_shared(both: &Both) {
    let tree = &both.ours;
    assert!(file(tree, "etc/machine-id").is_empty());
    for (path, entry) in tree.iter() {
        let name = path.to_string();
        let bad = name.starts_with("etc/ssh/ssh_host_")
            || name.ends_with(".dpkg-new")
            || name.ends_with("-old") && name.starts_with("var/lib/dpkg/")
            || name.starts_with("usr/sbin/policy-rc.d")
            || matches!(entry.node, Node::CharDevice { .. } | Node::BlockDevice { .. } | Node::Socket);
        assert!(!bad, "/{name} must not be in an image");
    }
    let grub = text(tree, "boot/grub/grub.cfg");
    assert!(grub.contains("linux\t/boot/vmlinuz-") && grub.contains("initrd\t/boot/initrd.img-"), "{grub}");
    let shadow = text(tree, "etc/shadow");
    let root = shadow.lines().find(|line| line.starts_with("root:")).and_then(|line| line.split(':').nth(1));
    assert!(matches!(root, Some("*" | "!" | "!*")), "root has a password: {root:?}");
}

fn node<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
    tree.get(&TreePath::new(path.as_bytes()).unwrap()).map(|entry| &entry.node)
}

fn file(tree: &Tree, path: &str) -> Vec<u8> {
    match node(tree, path) {
        Some(Node::File(content)) => content.read_all().unwrap(),
        other => panic!("/{path} is no file: {other:?}"),
    }
}

fn text(tree: &Tree, path: &str) -> String {
    String::from_utf8(file(tree, path)).unwrap()
}

fn link(tree: &Tree, path: &str) -> String {
    match node(tree, path) {
        Some(Node::Symlink(target)) => String::from_utf8_lossy(target).into_owned(),
        other => panic!("/{path} is no link: {other:?}"),
    }
}

fn main() -> ExitCode {
    match sandbox::enter() {
        // Our root's owners are kept by a process of the sandbox's own; mmdebstrap has no such help.
        Ok(sandbox::Identity::Pretended { lack, .. }) => {
            println!("NOT COMPARED: mmdebstrap cannot run where a user has one id only ({lack})");
            println!("0 passed, 0 failed, {} left out", TESTS.len());
            return ExitCode::SUCCESS;
        }
        Ok(_) => {}
        Err(error) => {
            println!("cannot enter a user namespace: {error}\n0 passed, {} failed", TESTS.len());
            return ExitCode::FAILURE;
        }
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let work = peers::work_folder();
    let Ok(both) = catch_unwind(|| Both::make(work.path())) else {
        println!("0 passed, {} failed", TESTS.len());
        return ExitCode::FAILURE;
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let ok = catch_unwind(AssertUnwindSafe(|| test(&both))).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if ok { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed, {failed} failed");
    drop(both);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
