//! Real machines in a real QEMU.
//!
//! The programs come from the folders in BAKEHOUSE_TOOLS_PATH, then from PATH. Firmware lies beside them in
//! `../root/usr/share` (the tools tree) or in `/usr/share`. The tests with a whole system want a bootable raw disk in
//! BAKEHOUSE_TEST_DISK; without one they say that they are skipped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machine::{
    Accel, BootError, Check, Disk, DiskBus, FirmwareDirs, MachineSpec, Profile, Programs, Shutdown, Stage,
    boot_sector,
};

fn programs() -> Programs {
    let folders = ["BAKEHOUSE_TOOLS_PATH", "PATH"].into_iter().filter_map(std::env::var_os);
    let mut folders = folders.flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>());
    let folder = folders.find(|folder| folder.join("qemu-system-x86_64").is_file());
    let folder =
        folder.unwrap_or_else(|| panic!("QEMU is not here: run `cargo xtask test`, which provides it"));
    let tree = folder.join("../root");
    let firmware = FirmwareDirs::below(if tree.is_dir() { &tree } else { Path::new("/") });
    Programs::in_folder(&folder, "qemu-system-x86_64", firmware)
}

/// Written past the test's capture, so that it is seen.
fn say(line: &str) {
    let mut terminal = std::io::stderr();
    terminal.write_all(format!("{line}\n").as_bytes()).unwrap();
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
        let Err(BootError::NotUp { stage, console, .. }) = failed else { panic!("{profile}: {failed:?}") };
        assert_eq!(stage, Stage::Firmware, "{profile}");
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
    say(&format!("guests run under {}", accel.name()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    assert_eq!(machine::probe_kvm(&programs(), "aarch64", folder.path()), Accel::Tcg);

    // What the probe promises must hold.
    let disk = boot_sector_disk(folder.path(), "promised");
    let spec = MachineSpec { accel, ..spec("x86_64-bios", &disk) };
    let machine = machine::start(&spec, &programs(), &folder.path().join("work"), &mut |_| {}).unwrap();
    wait_for(|| machine.console().contains("promised"));
}

#[test]
fn a_whole_system_comes_up_is_checked_and_reaches_nothing() {
    let Some(disk) = std::env::var_os("BAKEHOUSE_TEST_DISK") else {
        say(
            "SKIPPED: a_whole_system_comes_up_is_checked_and_reaches_nothing (BAKEHOUSE_TEST_DISK names no disk)",
        );
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.raw");
    std::fs::write(&data, vec![0; 16 << 20]).unwrap();
    let profile = std::env::var("BAKEHOUSE_TEST_PROFILE").unwrap_or("x86_64-bios".into());
    let mut spec = spec(&profile, Path::new(&disk));
    let grown = std::fs::metadata(&disk).unwrap().len() + (4 << 30);
    spec.disks[0].size = Some(grown);
    spec.disks.push(Disk::volume("/dev/xvdf", &data));
    spec.user_data = Some(b"#!/bin/sh\necho user data ran > /run/user-data\n".into());

    // A server on every address of this host, which the guest must not find.
    let host = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let host_port = host.local_addr().unwrap().port();

    let mut machine =
        machine::boot(&spec, &programs(), &folder.path().join("work"), &mut |line| say(line)).unwrap();
    let limit = Duration::from_secs(120);
    let checks = [
        Check::Ssh {
            user: "ec2-user".into(),
            run: "cat /run/user-data".into(),
            contains: Some("data ran".into()),
        },
        Check::Console { contains: "Linux version".into() },
        Check::Login { user: "ec2-user".into(), contains: "Linux".into() },
        Check::Ssh {
            user: "ec2-user".into(),
            run: "echo right; false".into(),
            contains: Some("right".into()),
        },
        Check::Http { port: 1, path: "/".into(), status: 200, contains: None },
        Check::Mount { path: "/proc/nowhere".into(), device: "/dev/xvda".into() },
    ];
    let results = machine::run_checks(&mut machine, &checks, &mut |line| say(line));
    let verdicts = results.iter().map(|result| (result.name.as_str(), result.ok)).collect::<Vec<_>>();
    assert_eq!(verdicts[..3], [("boot", true), ("cloud-init", true), ("system", true)], "{results:#?}");
    assert_eq!(
        verdicts[3..].iter().map(|(_, ok)| *ok).collect::<Vec<_>>(),
        [true, true, true, false, false, false]
    );

    // The root file system has grown into the larger volume.
    let size = machine.ssh("df --output=size --block-size=1 / | tail -n 1", limit).unwrap().stdout;
    assert!(size.trim().parse::<u64>().unwrap() > 4 << 30, "{size}");

    // Nothing but the metadata service answers: not the host under any of its addresses, nor its link-local ones.
    let mut reached = |address: [u8; 4], port: u16| machine.guest_can_connect(address.into(), port).unwrap();
    assert!(reached([169, 254, 169, 254], 80));
    for (address, port) in [
        ([169, 254, 169, 254], 443),
        ([169, 254, 169, 254], host_port),
        ([169, 254, 169, 253], 53),
        ([169, 254, 170, 2], 80),
        ([172, 31, 0, 1], host_port),
        ([172, 31, 0, 2], 53),
        ([127, 0, 0, 1], host_port),
        ([192, 0, 2, 1], 80),
    ] {
        assert!(!reached(address, port), "{address:?} port {port}");
    }
    let own = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // No packet is sent: this only asks which address of the host would be used.
    if own.connect("192.0.2.1:9").is_ok()
        && let std::net::IpAddr::V4(address) = own.local_addr().unwrap().ip()
    {
        assert!(!reached(address.octets(), host_port), "{address}");
    }
    // A name server's answer to a question over UDP would have a first byte.
    let question = r#"timeout 10 bash -c '
        exec 3<>/dev/udp/172.31.0.2/53
        printf "\1\1\1\0\0\1\0\0\0\0\0\0\3deb\0\0\1\0\1" >&3
        head -c 1 <&3 | wc -c'"#;
    let answered = machine.ssh(question, limit).unwrap();
    assert!(!answered.stdout.contains('1'), "{answered:?}");
    host.set_nonblocking(true).unwrap();
    assert_eq!(host.accept().map(|_| ()).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    machine.write_file("/home/ec2-user/a file", b"kept", limit).unwrap();
    machine.reboot(&mut |line| say(line)).unwrap();
    assert_eq!(machine.read_file("/home/ec2-user/a file", limit).unwrap().stdout, "kept");
    assert_eq!(machine.shutdown(limit), Shutdown::Clean);
}
