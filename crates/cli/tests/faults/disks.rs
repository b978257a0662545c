//! Disks that are full, and folders that cannot be written.

use std::fs;
use std::process::Command;

use block::{BlockMapBuilder, Content, Origin};
use lying_mirror::{Behaviour, NOW, Package};
use machine::{Accel, Disk, FirmwareDirs, MachineSpec, Profile, Programs};

use crate::Case;
use crate::house::{DATE, SmallDisk, Tiny, files_below, head, said};

pub(crate) const CASES: &[Case] = &[
    ("no_room_for_downloads", no_room_for_downloads),
    ("no_room_for_the_lock", no_room_for_the_lock),
    ("no_room_for_raw_and_vmdk_at_any_moment", no_room_for_raw_and_vmdk_at_any_moment),
    ("no_room_for_what_a_machine_writes", no_room_for_what_a_machine_writes),
    ("a_limit_of_file_sizes_is_told", a_limit_of_file_sizes_is_told),
    ("a_cache_that_cannot_be_written", a_cache_that_cannot_be_written),
    ("a_lock_that_cannot_be_written", a_lock_that_cannot_be_written),
    ("outputs_that_cannot_be_written", outputs_that_cannot_be_written),
];

fn no_room_for_downloads() {
    let tiny = Tiny::new(Behaviour::default());
    let disk = SmallDisk::new(&tiny.cache, 1 << 20);
    tiny.fails(&[
        "big 1: ",
        "No space left on device",
        "Make room there, or name a cache folder on another disk in BAKEHOUSE_CACHE",
    ]);
    drop(disk);
    tiny.bake(&[]).has_packages();
}

fn no_room_for_the_lock() {
    let mut tiny = Tiny::new(Behaviour::default());
    let disk = SmallDisk::new(&tiny.folder.path().join("small"), 128 << 10);
    for name in ["tiny.yaml", "key.asc"] {
        fs::copy(tiny.folder.path().join(name), disk.path.join(name)).unwrap();
    }
    disk.fill();
    tiny.cache = tiny.folder.path().join("cache");
    let mut command = crate::house::bakehouse(&tiny.cache);
    command.arg("bake").arg(disk.path.join("tiny.yaml")).arg("--no-check").arg("--out").arg(&tiny.out);
    said(command).tells(
        1,
        &["small/tiny.lock: the lock cannot be written: No space left on device", "help: ", "--lock FILE"],
    );
    tiny.left_nothing();
    assert_eq!(fs::read_dir(&disk.path).unwrap().count(), 3, "recipe, key and filler");
}

/// Wherever the disk becomes full while a raw file and its VMDK are written, neither is there afterwards.
fn no_room_for_raw_and_vmdk_at_any_moment() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let noise: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let content = Content::from_bytes(noise);
    let mut map = BlockMapBuilder::new();
    for at in 0..2 {
        map.push_all(at * (4 << 20), content.clone(), Origin::Structure("test"));
    }
    let map = map.finish(16 << 20).unwrap();
    let (mut failed, mut whole) = (0, 0);
    for kib in (0..3000).step_by(100) {
        let disk = SmallDisk::new(&folder.path().join("small"), (kib + 8) << 10);
        let (raw, vmdk) = (disk.path.join("xvda.raw"), disk.path.join("xvda.vmdk"));
        let result =
            formats::write_raw_and_vmdk(&map, &raw, &vmdk, &formats::VmdkOptions::default(), &|_| {});
        let mut names = Vec::new();
        files_below(&disk.path, &mut |path| names.push(path));
        match result {
            Ok(_) => {
                names.sort();
                assert_eq!(names, [raw, vmdk]);
                whole += 1;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("no space left") && text.contains("make room"), "{text}");
                assert!(names.is_empty(), "{names:?}");
                failed += 1;
            }
        }
    }
    assert!(failed > 10 && whole > 2, "{failed} failed, {whole} whole");
}

/// A boot sector that writes to its disk without an end, 127 sectors at a time.
fn writing_boot_sector() -> Vec<u8> {
    #[rustfmt::skip]
    const CODE: &[&[u8]] = &[
        &[0x31, 0xc0],                         // xor ax, ax
        &[0x8e, 0xd8],                         // mov ds, ax
        &[0x8e, 0xd0],                         // mov ss, ax
        &[0xbc, 0x00, 0x7c],                   // mov sp, 0x7c00
        &[0xbe, 0x40, 0x7c],                   // next: mov si, 0x7c40
        &[0xb8, 0x00, 0x43],                   // mov ax, 0x4300 (extended write)
        &[0xb2, 0x80],                         // mov dl, 0x80
        &[0xcd, 0x13],                         // int 0x13
        &[0x66, 0x83, 0x06, 0x48, 0x7c, 0x7f], // add dword [0x7c48], 127
        &[0xeb, 0xee],                         // jmp next
    ];
    let mut sector = CODE.concat();
    sector.resize(0x40, 0);
    // What to write: 127 sectors of memory at 1000:0000, from sector 1 of the disk on.
    sector.extend([0x10, 0, 127, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 0, 0, 0, 0]);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

fn no_room_for_what_a_machine_writes() {
    let qemu = workbench::find("qemu-system-x86_64");
    let qemu = qemu.expect("QEMU is not here: run `cargo xtask test`, which provides it");
    let programs = qemu.parent().unwrap();
    let firmware = FirmwareDirs::below(&programs.join("../root"));
    let programs = Programs::in_folder(programs, "qemu-system-x86_64", firmware);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let base = folder.path().join("disk.raw");
    fs::write(&base, writing_boot_sector()).unwrap();
    fs::File::options().write(true).open(&base).unwrap().set_len(256 << 20).unwrap();
    let before = fs::read(&base).unwrap();
    let disk = SmallDisk::new(&folder.path().join("small"), 8 << 20);
    let profile = Profile::load("x86_64-bios", None).unwrap();
    let mut spec = MachineSpec::new(profile, Accel::Tcg, "full", vec![Disk::volume("/dev/xvda", &base)]);
    spec.logs_in = false;
    let error = machine::boot(&spec, &programs, &disk.path, &mut |_| {}).unwrap_err().to_string();
    for part in ["is the disk full?", disk.path.to_str().unwrap(), "BAKEHOUSE_CACHE"] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    assert!(fs::read(&base).unwrap() == before, "the base was written");
}

/// `ulimit -f` ends a process by a signal, unless it says that it can be told.
fn a_limit_of_file_sizes_is_told() {
    let tiny = Tiny::new(Behaviour::default());
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -f 1000; exec \"$@\"", "sh"]);
    let plain = tiny.command(&[]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.env("BAKEHOUSE_CACHE", &tiny.cache).env("BAKEHOUSE_STORE", tiny.cache.join("store"));
    said(command).tells(1, &["big 1: ", "File too large", "help: ", "ulimit -f"]);
    tiny.left_nothing();
}

fn a_cache_that_cannot_be_written() {
    let tiny = Tiny::new(Behaviour::default());
    let disk = SmallDisk::new(&tiny.cache, 1 << 20);
    disk.read_only();
    tiny.bake(&[]).tells(1, &["cache/work", "Read-only file system", "writable", "BAKEHOUSE_CACHE"]);
    assert!(!tiny.out.exists());
}

fn a_lock_that_cannot_be_written() {
    let tiny = Tiny::new(Behaviour::default());
    let disk = SmallDisk::new(&tiny.folder.path().join("small"), 1 << 20);
    for name in ["tiny.yaml", "key.asc"] {
        fs::copy(tiny.folder.path().join(name), disk.path.join(name)).unwrap();
    }
    disk.read_only();
    let bake = |options: &[&str]| {
        let mut command = crate::house::bakehouse(&tiny.cache);
        command.arg("bake").arg(disk.path.join("tiny.yaml")).arg("--no-check").arg("--out").arg(&tiny.out);
        command.args(options);
        said(command)
    };
    let said = bake(&[]);
    said.tells(1, &["small/tiny.lock: the lock cannot be written", "Read-only", "writable", "--lock FILE"]);
    assert!(!said.text.contains("reading the package indexes"), "told before the work: {}", said.text);
    tiny.left_nothing();
    let elsewhere = tiny.lock();
    bake(&["--lock", elsewhere.to_str().unwrap()]).has_packages();
    assert!(elsewhere.is_file());
}

fn outputs_that_cannot_be_written() {
    let tiny = Tiny::new(Behaviour::default());
    let disk = SmallDisk::new(&tiny.out, 1 << 20);
    disk.read_only();
    let said = tiny.bake(&[]);
    said.tells(1, &["out: ", "Read-only file system", "writable", "--out DIR"]);
    assert!(!said.text.contains("solving"), "told before the work: {}", said.text);
    drop(disk);
    // What is no folder cannot become one.
    fs::remove_dir(&tiny.out).unwrap();
    fs::write(&tiny.out, "mine").unwrap();
    tiny.publish_all(&[Package::new("hello", "1")], &head(DATE), NOW);
    tiny.bake(&[]).tells(2, &["out: ", "folder for the outputs", "--out DIR"]);
    assert_eq!(fs::read(&tiny.out).unwrap(), b"mine");
}
