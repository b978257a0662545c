//! The same lock gives the same bytes, whoever bakes, wherever, on whatever host; and what a recipe lays down is in them.
//!
//! The first bake is that of whoever runs the tests. The second, by `bakehouse verify --rebuild`, differs in all that a
//! host can differ in: user 1000 with subordinate ids, another folder on a file system in memory, umask, time zone,
//! locale, one thread, a cache without compressed blocks, and firmware of the other kind. The third is the same without
//! subordinate ids. Only root can change the user and hide the firmware; otherwise the test says what it left out.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program that tells what it does")]

#[path = "bytes/hosts.rs"]
mod hosts;
#[path = "bytes/parents.rs"]
mod parents;
#[path = "commands/shapes.rs"]
mod shapes;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::time::Instant;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{Gid, Uid, UnshareFlags};
use serde_json::Value;

/// The user of the second bake.
const USER: u32 = 1000;
/// The first of its subordinate ids.
const SUBORDINATE: u32 = 300_000;
/// The argument with which this program becomes another host and starts a program there.
const ELSEWHERE: &str = "--elsewhere";
/// The same, where the user has no subordinate ids.
const ALONE: &str = "--alone";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let called = Path::new(&arguments[0]).file_name().unwrap_or_default().to_owned();
    if called == "newuidmap" || called == "newgidmap" {
        return map_ids(called == "newuidmap", &arguments[1..]);
    }
    match arguments.get(1).and_then(|argument| argument.to_str()) {
        Some(ELSEWHERE) => return elsewhere(&arguments[2..], true),
        Some(ALONE) => return elsewhere(&arguments[2..], false),
        _ => {}
    }
    let wanted = |name: &str| {
        let mut parts =
            arguments[1..].iter().filter_map(|part| part.to_str()).filter(|part| !part.starts_with('-'));
        let none = parts.clone().next().is_none();
        none || parts.any(|part| name.contains(part))
    };
    let thorough = std::env::var_os("BAKEHOUSE_THOROUGH").is_some();
    let mut cases: Vec<(String, Box<dyn Fn()>)> = vec![
        ("a_recipe_has_the_last_word".into(), Box::new(a_recipe_has_the_last_word)),
        ("a_child_follows_its_parent".into(), Box::new(parents::a_child_follows_its_parent)),
        ("data_volume_x86_64".into(), Box::new(|| same_bytes("data-volume", "x86_64"))),
    ];
    if thorough {
        for (recipe, arch) in [("hello-web", "x86_64"), ("hello-web", "aarch64"), ("data-volume", "aarch64")]
        {
            cases.push((format!("{recipe}_{arch}"), Box::new(move || same_bytes(recipe, arch))));
        }
        for arch in ["x86_64", "aarch64"] {
            let case = move || hosts::twenty_bakes("hello-web", arch);
            cases.push((format!("twenty_bakes_{arch}"), Box::new(case)));
        }
    } else {
        println!(
            "more recipes, the other architecture and twenty hosts are compared by `cargo xtask test --thorough`"
        );
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases.iter().filter(|(name, _)| wanted(name)) {
        let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case)).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        *(if ok { &mut passed } else { &mut failed }) += 1;
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A recipe that lays files where the program, packages and cleaning have theirs, and whose step reads its standard
/// input before its end.
fn a_recipe_has_the_last_word() {
    let Some(path) = std::env::var_os("BAKEHOUSE_TOOLS_PATH") else {
        println!("NOT LOOKED AT: the disk needs debugfs; `cargo xtask test` brings it");
        return;
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let recipe = folder.path().join("words.yaml");
    let padding = "# A line that makes the step longer than what a shell reads at once.\n      ".repeat(400);
    let text = format!(
        "name: words\narchitectures: [x86_64]\npackages: [libcap2-bin, ssl-cert]\nfiles:\n\
         \x20 - {{path: /etc/hostname, content: \"mine\\n\"}}\n\
         \x20 - {{path: /etc/default/grub.d/50_bakehouse.cfg, content: \"GRUB_TIMEOUT=3\\n\"}}\n\
         \x20 - {{path: /var/log/app/README, content: \"logs of app\\n\"}}\n\
         \x20 - {{path: /var/tmp/seed, content: \"seed\\n\"}}\n\
         run:\n  - name: all of it\n    script: |\n\
         \x20     cp /bin/true /root/capable; setcap cap_net_raw+ep /root/capable\n\
         \x20     cat > /root/eaten\n\
         \x20     {padding}\n\
         \x20     echo reached > /root/end\n\
         volumes: [{{device: /dev/xvda, root: true, size: 2GiB}}]\n"
    );
    fs::write(&recipe, text).unwrap();
    let out = folder.path().join("out");
    let mut bake = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    bake.args(["bake", "--no-check", "--arch", "x86_64", "--out"]).arg(&out).arg(&recipe);
    bake.env("BAKEHOUSE_STORE", folder.path().join("store"));
    run("the bake", &mut bake);

    // The root partition lies behind 1 MiB, the BIOS boot partition and the EFI system partition.
    let disk = format!("{}?offset={}", out.join("xvda.raw").display(), 66 << 20);
    let debugfs = |request: &str| {
        let mut command = Command::new("debugfs");
        let output = run(request, command.env("PATH", &path).args(["-R", request, &disk]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(debugfs("cat /etc/hostname"), "mine\n");
    assert_eq!(debugfs("cat /etc/default/grub.d/50_bakehouse.cfg"), "GRUB_TIMEOUT=3\n");
    assert_eq!(debugfs("cat /var/log/app/README"), "logs of app\n");
    assert_eq!(debugfs("cat /var/tmp/seed"), "seed\n");
    assert_eq!(debugfs("cat /root/eaten"), "");
    assert_eq!(debugfs("cat /root/end"), "reached\n");
    let attributes = debugfs("ea_list /root/capable");
    // Version 2, CAP_NET_RAW permitted and effective, for every user namespace.
    assert!(attributes.contains("security.capability (20) = 01 00 00 02 00 20 00 00"), "{attributes}");
    assert_eq!(
        debugfs("cat /etc/ssl/private/ssl-cert-snakeoil.key"),
        "",
        "every machine would have this key"
    );
}

/// Whether any user can come to a path: root's home, where a clone may be, is often closed.
fn is_open(path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .all(|above| fs::metadata(above).is_ok_and(|stat| stat.permissions().mode() & 0o001 != 0))
}

fn same_bytes(recipe: &str, arch: &str) {
    let here = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = if is_open(&here.join("folder")) { tempfile::tempdir_in(here) } else { tempfile::tempdir() };
    let folder = folder.unwrap();
    open(folder.path());
    let mut program = PathBuf::from(env!("CARGO_BIN_EXE_bakehouse"));
    if !is_open(&program) {
        program = folder.path().join("bakehouse");
        fs::copy(env!("CARGO_BIN_EXE_bakehouse"), &program).unwrap();
    }
    let recipes = folder.path().join("recipes");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes"), &recipes);
    let out = folder.path().join("out");
    let file = recipes.join(recipe).with_extension("yaml");
    let mut first = Command::new(env!("CARGO_BIN_EXE_bakehouse"));
    first.args(["bake", "--no-check", "--arch", arch, "--out"]).arg(&out).arg(&file);
    // Its root is made on the disk; where there is memory enough, the others' are not.
    first.env("BAKEHOUSE_STORE", folder.path().join("store")).env("BAKEHOUSE_MEMORY", "0");
    run("the first bake", &mut first);
    vmdk_is_the_raw_disk(&out);

    let memory = Path::new("/dev/shm");
    let other = match tempfile::tempdir_in(memory) {
        Ok(other) => other,
        Err(error) => {
            println!(
                "NOT COMPARED: a folder in memory ({error}): the second bake is on the same file system"
            );
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
        }
    };
    let place = other.path().join("a place with another name");
    copy(&recipes, &place.join("recipes"));
    let cache = place.join("cache");
    copy(&cache_folder().join("downloads"), &cache.join("downloads"));
    let file = place.join("recipes").join(recipe).with_extension("yaml");
    let rebuild: [&OsStr; 7] = [
        program.as_ref(),
        "verify".as_ref(),
        "--rebuild".as_ref(),
        "--json".as_ref(),
        "--recipe".as_ref(),
        file.as_os_str(),
        out.as_os_str(),
    ];
    let host = |second: &mut Command| {
        second.env("BAKEHOUSE_CACHE", &cache).env("TZ", "Asia/Tokyo").env("LC_ALL", "de_DE.UTF-8");
        second.env("RAYON_NUM_THREADS", "1").current_dir(&place);
    };
    if rustix::process::geteuid().is_root() {
        give(&place, USER);
        open(other.path());
        let tools = user_id_helpers(folder.path());
        let listed = || Path::new("/etc").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        let before: BTreeSet<OsString> = listed().collect();
        for (what, who) in [("the bake with subordinate ids", ELSEWHERE), ("the bake without", ALONE)] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.arg(who).arg(folder.path()).args(rebuild).env_clear().env("HOME", &place);
            command.env("PATH", format!("{}:/usr/bin:/bin", tools.display()));
            host(&mut command);
            let output = run(what, &mut command);
            let alone = String::from_utf8_lossy(&output.stderr).contains("this user has one id only");
            assert_eq!(alone, who == ALONE);
            all_are_the_same(&output, &out);
        }
        assert_eq!(listed().collect::<BTreeSet<_>>(), before, "the host's own /etc stays as it is");
    } else {
        println!("NOT COMPARED: other users and other firmware, for which these tests must be run as root");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh"]).args(rebuild);
        host(&mut command);
        all_are_the_same(&run("the second bake", &mut command), &out);
    }
    a_changed_byte_is_found(&out);
}

/// What `verify --rebuild --json` found the same must be every output.
fn all_are_the_same(verify: &Output, out: &Path) {
    let verified: Value = serde_json::from_slice(&verify.stdout).unwrap();
    shapes::assert_documented("bakehouse verify", &verified);
    let mut files: Vec<&str> =
        verified["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    println!("      the same: {}", files.join(", "));
    let mut expected: Vec<String> = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".log"))
        .collect();
    expected.sort();
    files.sort_unstable();
    assert_eq!(files, expected, "every output is compared");
}

/// QEMU must find the same disk in both files of each volume.
fn vmdk_is_the_raw_disk(out: &Path) {
    let Some(path) = std::env::var_os("BAKEHOUSE_TOOLS_PATH") else {
        println!("NOT COMPARED: VMDK and raw files by qemu-img; `cargo xtask test` brings it");
        return;
    };
    let disks = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    for vmdk in disks.filter(|path| path.extension().is_some_and(|extension| extension == "vmdk")) {
        let raw = vmdk.with_extension("raw");
        let mut compare = Command::new("qemu-img");
        compare.env("PATH", &path).args(["compare", "-f", "vmdk", "-F", "raw"]).args([&vmdk, &raw]);
        let output = run("qemu-img compare", &mut compare);
        assert!(String::from_utf8_lossy(&output.stdout).contains("Images are identical"));
    }
}

/// The smallest raw disk of the folder, with one byte changed.
fn a_changed_byte_is_found(out: &Path) {
    use std::os::unix::fs::FileExt;
    let disk = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "raw"))
        .min_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let file = fs::File::options().read(true).write(true).open(&disk).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 1024).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 1024).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bakehouse")).arg("verify").arg(out).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let name = disk.file_name().unwrap().to_str().unwrap();
    assert!(told.contains(&format!("{name}: the disk's digest is ")), "{told}");
}

fn run(what: &str, command: &mut Command) -> Output {
    let started = Instant::now();
    let output = command.output().unwrap();
    println!("      {what} took {:.0} s", started.elapsed().as_secs_f64());
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// As the program finds it.
fn cache_folder() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("BAKEHOUSE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("bakehouse")))
        .or_else(|| named("HOME").map(|folder| folder.join(".cache/bakehouse")))
        .unwrap()
}

/// Copies a folder; what it holds is listed in an order of its own, and no two copies have the same inodes.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut names: Vec<OsString> =
        fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_by(|a, b| b.cmp(a));
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Gives a folder and all in it to a user.
fn give(folder: &Path, user: u32) {
    lchown(folder, Some(user), Some(user)).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        // Links stay as they are: some of the cache lead to what only a root has.
        if entry.file_type().unwrap().is_dir() {
            give(&entry.path(), user);
        } else {
            lchown(entry.path(), Some(user), Some(user)).unwrap();
        }
    }
}

/// The set-user-id programs that give an ordinary user its subordinate ids: this one, by other names. Returns their folder.
fn user_id_helpers(folder: &Path) -> PathBuf {
    let tools = folder.join("tools");
    fs::create_dir(&tools).unwrap();
    for name in ["newuidmap", "newgidmap"] {
        let helper = tools.join(name);
        fs::copy(std::env::current_exe().unwrap(), &helper).unwrap();
        fs::set_permissions(&helper, PermissionsExt::from_mode(0o4755)).unwrap();
    }
    tools
}

fn open(folder: &Path) {
    fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
}

/// `--elsewhere FOLDER PROGRAM ARGUMENT…`: in a mount namespace of its own, with or without subordinate ids in /etc/subuid
/// and /etc/subgid, and with firmware of the other kind in /sys, runs a program as user 1000.
fn elsewhere(arguments: &[OsString], subordinate: bool) -> ExitCode {
    #[expect(deprecated, reason = "the unsafe form is for shared file descriptors, which stay as they are")]
    rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
    let folder = Path::new(&arguments[0]);
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let ids = folder.join("subordinate-ids");
    let lines = if subordinate { format!("{USER}:{SUBORDINATE}:65536\n") } else { String::new() };
    fs::write(&ids, lines).unwrap();
    let files = ["/etc/subuid", "/etc/subgid"];
    if !files.iter().all(|file| Path::new(file).exists()) {
        // What the host has not is made in a layer of this namespace alone.
        hosts::lay_over(Path::new("/etc"), &folder.join("over-etc"), 0);
    }
    for file in files {
        if !Path::new(file).exists() {
            fs::write(file, "").unwrap();
        }
        mount_bind(&ids, file).unwrap();
    }
    let uefi = Path::new("/sys/firmware/efi").exists();
    if Path::new("/sys/firmware").exists() {
        mount("none", "/sys/firmware", "tmpfs", MountFlags::empty(), None).unwrap();
    } else {
        // A root in which nobody mounted what the kernel says of the machine.
        mount("none", "/sys", "tmpfs", MountFlags::empty(), None).unwrap();
        fs::create_dir("/sys/firmware").unwrap();
    }
    if !uefi {
        fs::create_dir("/sys/firmware/efi").unwrap();
    }
    if let Some(covered) = std::env::var_os(hosts::OVER) {
        hosts::lay_over(Path::new(&covered), &folder.join("over"), USER);
    }
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::thread::set_thread_groups(&[]).unwrap();
    let id = (Uid::from_raw(USER), Gid::from_raw(USER));
    rustix::thread::set_thread_res_gid(id.1, id.1, id.1).unwrap();
    rustix::thread::set_thread_res_uid(id.0, id.0, id.0).unwrap();
    let error = Command::new(&arguments[1]).args(&arguments[2..]).exec();
    eprintln!("{}: {error}", arguments[1].display());
    ExitCode::FAILURE
}

/// What the set-user-id programs of this name do, without asking /etc/subuid: `newuidmap PID (INSIDE OUTSIDE COUNT)…`.
fn map_ids(users: bool, arguments: &[OsString]) -> ExitCode {
    let numbers: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let [process, ranges @ ..] = numbers.as_slice() else { return ExitCode::FAILURE };
    let text: String = ranges.chunks(3).map(|range| range.join(" ") + "\n").collect();
    let file = format!("/proc/{process}/{}", if users { "uid_map" } else { "gid_map" });
    match fs::write(&file, text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}
