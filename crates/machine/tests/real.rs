//! Real machines in a real QEMU.
//!
//! The programs come from the folders in BAKEHOUSE_TOOLS_PATH, then from PATH. Firmware lies beside them in
//! `../root/usr/share` (the tools tree) or in `/usr/share`. Whole systems are booted by the program's own suite, in
//! `crates/cli/tests/machines`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use machine::{
    Accel, BootError, Disk, DiskBus, FirmwareDirs, MachineSpec, Profile, Programs, Shutdown, Stage,
    boot_sector,
};

fn programs() -> Programs {
    let qemu = workbench::find("qemu-system-x86_64");
    let qemu = qemu.unwrap_or_else(|| panic!("QEMU is not here: run `cargo xtask test`, which provides it"));
    let folder = qemu.parent().unwrap();
    let tree = folder.join("../root");
    let firmware = FirmwareDirs::below(if tree.is_dir() { &tree } else { Path::new("/") });
    Programs::in_folder(folder, "qemu-system-x86_64", firmware)
}

fn boot_sector_disk(folder: &Path, word: &str) -> PathBuf {
    let path = folder.join("disk.raw");
    let mut disk = boot_sector(word).to_vec();
    disk.resize(1 << 20, 0);
    std::fs::write(&path, disk).unwrap();
    path
}

fn spec(profile: &str, disk: &Path) -> MachineSpec {
    let profile = Profile::load(profile, None).unwrap();
    MachineSpec::new(profile, Accel::Tcg, "boot-sector", vec![Disk::volume("/dev/xvda", disk)])
}

fn wait_for(mut what: impl FnMut() -> bool) {
    // A host may be slow; a machine that never does it must not hang the tests.
    for _ in 0..1200 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("two minutes have gone by");
}

#[test]
fn a_boot_sector_boots_by_bios_and_speaks_on_the_console() {
    let folder = tempfile::tempdir().unwrap();
    let disk = boot_sector_disk(folder.path(), "hello, world");
    let before = std::fs::read(&disk).unwrap();
    let work = folder.path().join("work, with a comma");
    let spec = spec("x86_64-bios", &disk);
    let mut machine = machine::start(&spec, &programs(), &work, &mut |_| {}).unwrap();
    wait_for(|| machine.console().contains("hello, world"));
    assert_eq!(machine.console_path(), work.canonicalize().unwrap().join("console.log"));

    assert_eq!(machine.qmp().status().unwrap(), "running");
    assert!(machine.qmp().execute("no-such-command", serde_json::json!({})).is_err());
    let (ssh, http) = (machine.port(22).unwrap(), machine.port(80).unwrap());
    assert_ne!(ssh, http);
    assert_eq!(machine.port(80).unwrap(), http);

    // The guest has no system that heeds the power button.
    assert_eq!(machine.shutdown(Duration::from_millis(500)), Shutdown::Forced);
    assert_eq!(std::fs::read(&disk).unwrap(), before);
}

#[test]
fn a_boot_sector_boots_from_nvme_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = spec("x86_64-bios", &boot_sector_disk(folder.path(), "from nvme"));
    spec.profile.disk_bus = DiskBus::Nvme;
    let machine = machine::start(&spec, &programs(), &folder.path().join("work"), &mut |_| {}).unwrap();
    wait_for(|| machine.console().contains("from nvme"));
}

#[test]
fn two_machines_of_one_disk_run_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let disk = boot_sector_disk(folder.path(), "hello");
    let spec = spec("x86_64-bios", &disk);
    let start =
        |name: &str| machine::start(&spec, &programs(), &folder.path().join(name), &mut |_| {}).unwrap();
    let (mut first, mut second) = (start("first"), start("second"));
    assert_ne!(first.port(22).unwrap(), second.port(22).unwrap());
    wait_for(|| first.console().contains("hello") && second.console().contains("hello"));
}

#[test]
fn a_disk_that_no_firmware_can_boot_fails_with_the_firmware_s_words() {
    let folder = tempfile::tempdir().unwrap();
    let blank = folder.path().join("blank.raw");
    std::fs::write(&blank, vec![0; 1 << 20]).unwrap();
    let disk = boot_sector_disk(folder.path(), "never said");
    for (profile, disk, said) in [
        ("x86_64-bios", &blank, "No bootable device."),
        ("x86_64-uefi", &disk, "BdsDxe: failed to load Boot0001"),
    ] {
        let work = folder.path().join(profile);
        let failed = machine::boot(&spec(profile, disk), &programs(), &work, &mut |_| {});
        let Err(BootError::NotUp { stage, cause, console, .. }) = failed else {
            panic!("{profile}: {failed:?}")
        };
        assert_eq!(stage, Stage::Firmware, "{profile}");
        assert!(cause.is_some_and(|cause| cause.starts_with("the firmware found nothing")), "{cause:?}");
        assert!(console.iter().any(|line| line.contains(said)), "{profile}: {console:#?}");
    }
}

#[test]
fn what_qemu_refuses_is_told_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let disk = boot_sector_disk(folder.path(), "hello");
    let mut spec = spec("x86_64-bios", &disk);
    spec.profile.network_device = "no-such-card".into();
    let failed = machine::start(&spec, &programs(), &folder.path().join("work"), &mut |_| {});
    assert!(
        matches!(&failed, Err(BootError::Qemu { message }) if message.contains("no-such-card")),
        "{failed:?}"
    );

    spec.disks[0].base = Some(folder.path().join("gone.raw"));
    let failed = machine::start(&spec, &programs(), &folder.path().join("work"), &mut |_| {});
    assert!(matches!(&failed, Err(BootError::File { path, .. }) if path.ends_with("gone.raw")), "{failed:?}");
}

#[test]
fn the_probe_finds_a_way_to_run_guests() {
    let folder = tempfile::tempdir().unwrap();
    let accel = machine::probe_kvm(&programs(), "x86_64", folder.path());
    workbench::say(&format!("guests run under {}", accel.name()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    assert_eq!(machine::probe_kvm(&programs(), "aarch64", folder.path()), Accel::Tcg);

    // What the probe promises must hold.
    let disk = boot_sector_disk(folder.path(), "promised");
    let spec = MachineSpec { accel, ..spec("x86_64-bios", &disk) };
    let machine = machine::start(&spec, &programs(), &folder.path().join("work"), &mut |_| {}).unwrap();
    wait_for(|| machine.console().contains("promised"));
}
