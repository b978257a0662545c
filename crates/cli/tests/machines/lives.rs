//! Whole lives of machines: first boot, use, upgrade, reboot, end.

use std::fs::OpenOptions;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bake::Manifest;
use block::GIB;
use machine::{BootError, Check, CheckResult, Disk, Machine, MachineSpec, Profile, Shutdown, Stage};
use serde_json::Value;

use crate::checkers::root_of;
use crate::house::{ESP, House, Image, ROOT, e2fsck, fsck_fat, partition, succeeds, within};
use crate::tally::Tally;
use crate::{data_disk, program};

const SECTOR: usize = 512;
/// Of our root file systems.
const BLOCK: u64 = 4096;

/// For whatever a machine does; a busy host under emulation is slow, and what hangs must end some time.
const LIMIT: Duration = Duration::from_secs(1200);

/// What an upgrade of the boot loader replaces.
const LOADER: [&str; 10] = [
    "shim-helpers-amd64-signed",
    "shim-signed",
    "shim-signed-common",
    "grub-common",
    "grub2-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "grub-efi-amd64-unsigned",
    "grub-efi-amd64-signed",
    "grub-cloud-amd64",
];

/// A machine that is up.
struct Guest {
    name: &'static str,
    machine: Machine,
    work: PathBuf,
}

impl Guest {
    fn boot(house: &House, profile: &'static str, disks: Vec<Disk>) -> Self {
        Self::boot_in(house, profile, profile, disks)
    }

    /// Boots a machine whose work folder has a name of its own.
    fn boot_in(house: &House, work: &str, profile: &'static str, disks: Vec<Disk>) -> Self {
        let loaded = Profile::load(profile, None).unwrap();
        let work = house.folder(work);
        let mut spec = MachineSpec::new(loaded, house.accel(), profile, disks);
        spec.boot_limit = Some(LIMIT);
        // What is looked at is up when the system is; some checks fail on purpose and need not be tried for long.
        spec.check_limit = Some(Duration::from_secs(2));
        spec.user_data = Some(b"#!/bin/sh\necho user data ran > /run/user-data\n".into());
        let machine = machine::boot(&spec, &house.programs(), &work, &mut |line| say(profile, line)).unwrap();
        Self { name: profile, machine, work }
    }

    /// Runs a command, which must succeed, and gives what it prints.
    fn run(&mut self, command: &str) -> String {
        let output = self.machine.ssh(command, LIMIT).unwrap();
        assert!(output.success(), "{command}\n{output:#?}");
        output.stdout.trim_end().to_owned()
    }

    /// Runs a script as root, which must succeed, and says how long it took.
    fn root(&mut self, script: &str) -> String {
        let started = Instant::now();
        let command = format!("sudo -n sh -euc '{}'", script.replace('\'', r"'\''"));
        let printed = self.run(&command);
        let first = script.trim().lines().next().unwrap_or_default();
        say(self.name, &format!("`{first}` took {:.0} s", started.elapsed().as_secs_f64()));
        printed
    }

    fn check(&mut self, checks: &[Check]) -> Vec<CheckResult> {
        let name = self.name;
        machine::run_checks(&mut self.machine, checks, &mut |line| say(name, line))
    }

    /// Everything that must hold of any machine, and its page.
    fn is_well(&mut self) {
        let results = self.check(&[page()]);
        assert!(results.iter().all(|result| result.ok), "{results:#?}");
        let names = results.iter().map(|result| result.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names[names.len() - 3..], ["cloud-init", "system", "http :80/"]);
        let complaints = self.root(
            "dmesg | grep -E 'EXT4-fs.*(error|warning)|I/O error|Call Trace' || true; systemctl --failed -q",
        );
        assert_eq!(complaints, "");
    }

    fn reboot(&mut self) {
        let name = self.name;
        self.machine.reboot(&mut |line| say(name, line)).unwrap();
    }

    /// Powers off; then no checker may find fault with any disk that the machine wrote to.
    fn end(self) {
        let Self { name, machine, work } = self;
        let disks = machine.spec().disks.iter().filter(|disk| disk.ephemeral.is_none());
        let overlays: Vec<PathBuf> =
            disks.map(|disk| machine.overlay(&disk.device).unwrap().to_owned()).collect();
        assert_eq!(machine.shutdown(LIMIT), Shutdown::Clean);
        for (index, overlay) in overlays.iter().enumerate() {
            let raw = work.join(format!("after{index}.raw"));
            let (from, to) = (overlay.to_str().unwrap(), raw.to_str().unwrap());
            succeeds("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", from, to]);
            if index == 0 {
                let said = succeeds("sgdisk", &["-v", to]);
                assert!(said.contains("No problems found"), "{said}");
                fsck_fat(&raw, &work.join("esp.img"));
                e2fsck(&within(&raw, partition(&raw, ROOT).offset));
            } else {
                e2fsck(to);
            }
            std::fs::remove_file(&raw).unwrap();
            say(name, &format!("nothing is wrong with {}", overlay.file_name().unwrap().display()));
        }
    }
}

/// Tells what a machine does, but not all the time that it is waited for.
fn say(machine: &str, line: &str) {
    if !line.starts_with("waiting for ") {
        println!("      {machine}: {line}");
    }
}

fn page() -> Check {
    Check::Http {
        port: 80,
        path: "/".into(),
        status: 200,
        contains: Some("<h1>Hello from My Custom AMI!</h1>".into()),
    }
}

/// A disk with the packages of an upgrade: the newer kernel, and the boot loader's own once more.
fn packages_disk(house: &House, image: &Image, more: Vec<(String, Vec<u8>)>, raw: &Path) {
    let kernels = house.kernels();
    let mut files = more;
    files.push((
        format!("kernel/linux-image-{}.deb", kernels.newer),
        std::fs::read(&kernels.newer_deb).unwrap(),
    ));
    let (lock, downloads) = (image.lock(), house.downloads());
    let locked = &lock.for_arch(recipe::Arch::X86_64).unwrap().packages;
    let mut loader = locked.iter().filter(|package| LOADER.contains(&package.name.as_str())).peekable();
    assert!(loader.peek().is_some());
    for package in loader {
        files.push((format!("loader/{}.deb", package.name), data_disk::package(&downloads, package.sha256)));
    }
    data_disk::of_files(files, raw);
}

pub(crate) fn by_bios(house: &House, tally: &Tally) {
    const CASES: [&str; 5] = [
        "bios_the_first_boot_leaves_a_sound_system",
        "bios_failing_checks_say_what_they_saw",
        "bios_a_guest_reaches_nothing",
        "bios_the_kernel_works_on_our_data_disk",
        "bios_kernel_and_loader_are_upgraded",
    ];
    if !CASES.iter().any(|name| tally.wants(name)) {
        return;
    }
    let up = tally.need("bios_a_larger_volume_comes_up", || {
        let image = house.older();
        let folder = house.folder("disks");
        let (data, expected) = data_disk::write(&folder);
        let packages = folder.join("packages.raw");
        let more = vec![
            ("expected.json".to_owned(), expected.into_bytes()),
            ("exercise.py".to_owned(), data_disk::EXERCISE.into()),
        ];
        packages_disk(house, image, more, &packages);
        let mut root = Disk::volume("/dev/xvda", image.disk());
        root.size = Some(40 * GIB);
        let disks = vec![root, Disk::volume("/dev/xvdf", data), Disk::volume("/dev/xvdg", packages)];
        Guest::boot(house, "x86_64-bios", disks)
    });
    let Some(mut up) = up else { return };
    tally.test(CASES[0], || first_boot(&mut up, &house.kernels().older));
    tally.test(CASES[1], || failing_checks(&mut up));
    tally.test(CASES[2], || reaches_nothing(&mut up));
    tally.test(CASES[3], || data_disk_by_kernel(&mut up));
    tally.thorough(CASES[4], || upgrade(&mut up, &house.kernels().newer));
    tally.need("bios_the_end_leaves_sound_disks", || up.end());
}

fn first_boot(guest: &mut Guest, kernel: &str) {
    guest.is_well();
    assert_eq!(guest.run("uname -r"), kernel);
    assert_eq!(guest.run("cat /run/user-data"), "user data ran");
    let size: u64 = guest.run("df --output=size --block-size=1 / | tail -n 1").trim().parse().unwrap();
    assert!(size > 38 * GIB, "{size}");
    assert_eq!(guest.run("cat /etc/machine-id").len(), 32);
    assert!(guest.run("ls /etc/ssh").contains("ssh_host_ed25519_key.pub"));

    assert_eq!(guest.root("dpkg --verify"), "");
    assert_eq!(guest.root("dpkg --audit"), "");
    guest.root("apt-get check");
    let upgrade = guest.root("apt-get -s upgrade");
    assert!(upgrade.contains("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded."), "{upgrade}");
    let config = guest.root("grub-mkconfig 2>/dev/null | diff - /boot/grub/grub.cfg || true");
    assert_eq!(config, "", "GRUB's configuration as the machine would write it, and as it was baked");
}

fn failing_checks(guest: &mut Guest) {
    let user = || "ec2-user".to_owned();
    let http = |port, path: &str, status, text: Option<&str>| Check::Http {
        port,
        path: path.into(),
        status,
        contains: text.map(str::to_owned),
    };
    let ssh = |run: &str, text: Option<&str>| Check::Ssh {
        user: user(),
        run: run.into(),
        contains: text.map(str::to_owned),
    };
    let mount = |path: &str, device: &str| Check::Mount { path: path.into(), device: device.into() };
    let cases = [
        (
            http(80, "/", 200, Some("Good morning")),
            &["Good morning", "<h1>Hello from My Custom AMI!</h1>"][..],
        ),
        (http(80, "/", 404, None), &["status 200, not 404"]),
        (http(80, "/gone", 200, None), &["status 404, not 200"]),
        (http(81, "/", 200, None), &["no answer"]),
        (
            Check::Login { user: user(), contains: "a sheep".into() },
            &["a sheep", "Hello from My Custom AMI!"],
        ),
        (Check::Login { user: "nobody".into(), contains: "x".into() }, &["nothing was seen", "ssh failed"]),
        (ssh("echo before; exit 3", None), &["status 3", "before"]),
        (ssh("echo something else", Some("wanted")), &["wanted", "something else"]),
        (mount("/srv", "/dev/xvdf"), &["nothing is mounted at /srv"]),
        (mount("/", "/dev/xvdf"), &["/dev/vda1", "/dev/xvdf is /dev/vdb"]),
        (mount("/", "/dev/xvdz"), &["has no /dev/xvdz"]),
        (Check::Console { contains: "never said".into() }, &["does not show `never said`"]),
    ];
    let checks = cases.iter().map(|(check, _)| check.clone()).collect::<Vec<_>>();
    let results = guest.check(&checks);
    let results = &results[results.len() - checks.len()..];
    for (result, (check, expected)) in results.iter().zip(&cases) {
        assert!(!result.ok, "{check:?}: {result:?}");
        assert!(expected.iter().all(|text| result.detail.contains(text)), "{expected:?}: {result:#?}");
    }
    // And they hold when they should.
    let checks = [
        page(),
        http(80, "/gone", 404, None),
        Check::Login { user: user(), contains: "Hello from".into() },
        ssh("echo wanted", Some("wanted")),
        mount("/", "/dev/xvda"),
        Check::Console { contains: "Linux version".into() },
    ];
    let results = guest.check(&checks);
    assert!(results.iter().all(|result| result.ok), "{results:#?}");
}

/// Nothing but the metadata service answers: not the host under any of its addresses, nor its link-local ones.
fn reaches_nothing(guest: &mut Guest) {
    // A server on every address of this host, which the guest must not find.
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let mut reached =
        |address: [u8; 4], port: u16| guest.machine.guest_can_connect(address.into(), port).unwrap();
    assert!(reached([169, 254, 169, 254], 80));
    let mut hidden = vec![
        ([169, 254, 169, 254], 443),
        ([169, 254, 169, 254], port),
        ([169, 254, 169, 253], 53),
        ([169, 254, 170, 2], 80),
        ([172, 31, 0, 1], port),
        ([172, 31, 0, 2], 53),
        ([127, 0, 0, 1], port),
        ([192, 0, 2, 1], 80),
    ];
    // No packet is sent: this only asks which address of the host would be used.
    let own = UdpSocket::bind("0.0.0.0:0").unwrap();
    if own.connect("192.0.2.1:9").is_ok()
        && let IpAddr::V4(address) = own.local_addr().unwrap().ip()
    {
        hidden.push((address.octets(), port));
    }
    for (address, port) in hidden {
        assert!(!reached(address, port), "{address:?} port {port}");
    }
    // A name server's answer to a question over UDP would have a first byte.
    let question = r#"timeout 10 bash -c '
        exec 3<>/dev/udp/172.31.0.2/53
        printf "\1\1\1\0\0\1\0\0\0\0\0\0\3deb\0\0\1\0\1" >&3
        head -c 1 <&3 | wc -c'"#;
    let answered = guest.machine.ssh(question, LIMIT).unwrap();
    assert!(!answered.stdout.contains('1'), "{answered:?}");
    host.set_nonblocking(true).unwrap();
    assert_eq!(host.accept().map(|_| ()).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

fn data_disk_by_kernel(guest: &mut Guest) {
    guest.root("mkdir /mnt/data /mnt/packages; mount -r /dev/xvdg /mnt/packages; mount /dev/xvdf /mnt/data");
    let said = guest.root("python3 /mnt/packages/exercise.py /mnt/packages/expected.json /mnt/data");
    say(guest.name, &said);
    guest.root("umount /mnt/data /mnt/packages");
    let complaints = guest.root("dmesg | grep -E 'EXT4-fs.*(error|warning)' || true");
    assert_eq!(complaints, "");
}

fn upgrade(guest: &mut Guest, kernel: &str) {
    guest.root("mkdir -p /mnt/packages; mount -r /dev/xvdg /mnt/packages");
    let install = |guest: &mut Guest, what: &str| {
        guest.root(&format!("DEBIAN_FRONTEND=noninteractive dpkg -i /mnt/packages/{what}/*.deb 2>&1"))
    };
    install(guest, "kernel");
    install(guest, "loader");
    guest.root("umount /mnt/packages");
    assert_eq!(guest.root("dpkg --audit"), "");
    guest.machine.write_file("/home/ec2-user/a file", b"kept", LIMIT).unwrap();
    guest.reboot();
    assert_eq!(guest.machine.read_file("/home/ec2-user/a file", LIMIT).unwrap().stdout, "kept");
    assert_eq!(guest.run("uname -r"), kernel);
    guest.is_well();
}

pub(crate) fn by_secure_boot(house: &House, tally: &Tally) {
    tally.test("secure_boot_refuses_a_changed_loader_and_a_changed_kernel", || {
        refuses_changed_programs(house);
    });
    tally.test("secure_boot_comes_up_and_is_told", || {
        let disks = vec![Disk::volume("/dev/xvda", house.older().disk())];
        let mut guest = Guest::boot(house, "x86_64-uefi-secure-boot", disks);
        is_secure(&mut guest);
        guest.end();
    });
    tally.thorough("secure_boot_and_the_same_upgrade", || {
        let image = house.older();
        let packages = house.folder("secure disks").join("packages.raw");
        packages_disk(house, image, Vec::new(), &packages);
        let disks = vec![Disk::volume("/dev/xvda", image.disk()), Disk::volume("/dev/xvdg", packages)];
        let mut guest = Guest::boot(house, "x86_64-uefi-secure-boot", disks);
        guest.is_well();
        assert_eq!(guest.run("uname -r"), house.kernels().older);
        is_secure(&mut guest);
        upgrade(&mut guest, &house.kernels().newer);
        is_secure(&mut guest);
        guest.end();
    });
}

/// What Microsoft's keys vouch for is every byte of the loader and of the kernel: one that differs, and neither runs.
fn refuses_changed_programs(house: &House) {
    let image = house.older();
    for (program, stage, said, likely) in [
        ("loader", Stage::Firmware, "Security Violation", "the boot loader is not signed"),
        ("kernel", Stage::BootLoader, "bad shim signature", "a kernel that is not signed"),
    ] {
        let disk = program::copy_image(house, image, &format!("changed {program}")).join("xvda.raw");
        match program {
            "loader" => change_loader(&disk),
            _ => change_kernel(&disk, &house.kernels().older),
        }
        let profile = Profile::load("x86_64-uefi-secure-boot", None).unwrap();
        let mut spec =
            MachineSpec::new(profile, house.accel(), "changed", vec![Disk::volume("/dev/xvda", disk)]);
        spec.boot_limit = Some(LIMIT);
        let work = house.folder(&format!("secure boot of a changed {program}"));
        let failed = machine::boot(&spec, &house.programs(), &work, &mut |line| say(program, line));
        let Err(BootError::NotUp { stage: came_to, cause, console, .. }) = failed else {
            panic!("{program}: {failed:?}")
        };
        assert_eq!(came_to, stage, "{console:#?}");
        assert!(cause.is_some_and(|cause| cause.contains(likely)), "{program}: {cause:?}");
        assert!(console.iter().any(|line| line.contains(said)), "{program}: {console:#?}");
    }
}

/// Changes one byte in the middle of GRUB, wherever the EFI system partition has it.
fn change_loader(disk: &Path) {
    let loader = root_of(disk).read("/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed").unwrap();
    let middle = loader.len() / 2 / SECTOR * SECTOR;
    let sector = &loader[middle..middle + SECTOR];
    let esp = partition(disk, ESP);
    let mut bytes = vec![0; esp.len as usize];
    let file = OpenOptions::new().read(true).write(true).open(disk).unwrap();
    file.read_exact_at(&mut bytes, esp.offset).unwrap();
    let copies: Vec<usize> =
        bytes.chunks(SECTOR).enumerate().filter(|(_, chunk)| *chunk == sector).map(|(at, _)| at).collect();
    assert!(!copies.is_empty());
    for at in copies {
        file.write_all_at(&[sector[0] ^ 1], esp.offset + (at * SECTOR) as u64).unwrap();
    }
}

/// Changes one byte in the middle of a kernel.
fn change_kernel(disk: &Path, kernel: &str) {
    let path = format!("/boot/vmlinuz-{kernel}");
    let middle = root_of(disk).metadata(path.as_str()).unwrap().len() / 2 / BLOCK;
    let root = partition(disk, ROOT).offset;
    let said = succeeds("debugfs", &["-R", &format!("bmap {path} {middle}"), &within(disk, root)]);
    let block: u64 = said.lines().find_map(|line| line.trim().parse().ok()).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(disk).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, root + block * BLOCK).unwrap();
    file.write_all_at(&[byte[0] ^ 1], root + block * BLOCK).unwrap();
}

/// The example with a data volume and instance store, on one machine after the other, each with all checks.
pub(crate) fn with_volumes(house: &House, tally: &Tally) {
    const CASES: [&str; 3] = [
        "volumes_are_baked_and_checked_by_uefi",
        "volumes_are_found_on_nitro_and_instance_store_is_blank",
        "volumes_are_found_by_bios_and_instance_store_is_blank_again",
    ];
    if !CASES.iter().any(|name| tally.wants(name)) {
        return;
    }
    let recipe = house.recipes("volumes").join("data-volume.yaml");
    let image = tally.need(CASES[0], || {
        let image = house.bake(&recipe, &["--firmware", "uefi"]);
        let manifest = Manifest::read(&image.out).unwrap();
        let volumes =
            manifest.volumes.iter().map(|volume| (&*volume.device, volume.raw.as_deref(), volume.size));
        let expected = [
            ("/dev/xvda", Some("xvda.raw"), 4 * GIB),
            ("/dev/xvdf", Some("xvdf.raw"), GIB),
            ("/dev/sdb", None, GIB),
        ];
        assert_eq!(volumes.collect::<Vec<_>>(), expected);
        let told: Value = serde_json::from_str(&image.json).unwrap();
        let checks = told["checks"].as_array().unwrap();
        assert!(checks.iter().any(|check| check["name"] == "mount /dev/xvdf at /srv/data"), "{checks:#?}");
        assert!(checks.iter().all(|check| check["ok"] == true && check["firmware"] == "uefi"), "{checks:#?}");
        e2fsck(image.out.join("xvdf.raw").to_str().unwrap());
        image
    });
    let Some(image) = image else { return };
    tally.test(CASES[1], || volumes_are_found(house, &image, "x86_64-nitro", "/dev/nvme"));
    // In the same work folder: what the first wrote is there when this one starts.
    tally.thorough(CASES[2], || volumes_are_found(house, &image, "x86_64-bios", "/dev/vd"));
}

fn volumes_are_found(house: &House, image: &Image, profile: &'static str, root: &str) {
    let manifest = Manifest::read(&image.out).unwrap();
    let disks: Vec<Disk> = manifest
        .volumes
        .iter()
        .map(|volume| Disk {
            device: volume.device.clone(),
            base: volume.raw.as_ref().map(|raw| image.out.join(raw)),
            size: volume.raw.is_none().then_some(volume.size),
            ephemeral: volume.ephemeral,
        })
        .collect();
    let mut guest = Guest::boot_in(house, "machine with volumes", profile, disks);
    let results = guest.check(&manifest.checks);
    assert!(results.iter().all(|result| result.ok), "{profile}: {results:#?}");
    assert!(guest.run("findmnt --noheadings --output SOURCE /").starts_with(root));
    let is = |guest: &mut Guest, name: &str, other: &str| {
        assert_eq!(
            guest.run(&format!("readlink -e /dev/{name}")),
            guest.run(&format!("readlink -e {other}"))
        );
    };
    for (name, other) in [
        ("sda", "/dev/xvda"),
        ("sda1", "/dev/xvda1"),
        ("sda15", "/dev/disk/by-partlabel/esp"),
        ("sdf", "/dev/xvdf"),
        ("xvdf", "/dev/disk/by-label/data"),
        ("xvdb", "/dev/sdb"),
    ] {
        is(&mut guest, name, other);
    }
    // A mount by name would have waited for these.
    guest.run("systemctl is-active dev-xvdf.device dev-sdf.device");
    assert_eq!(guest.run("ls /srv/data; ls /mnt"), "index.html\nlost+found\nnotes\nstyle.css");
    guest.root("cmp --bytes=67108864 /dev/sdb /dev/zero; ! blkid --probe /dev/sdb");
    guest.root("mkfs.ext4 -q /dev/sdb; mount /dev/sdb /mnt; echo kept > /srv/data/kept");
    guest.end();
}

fn is_secure(guest: &mut Guest) {
    assert_eq!(guest.run("mokutil --sb-state"), "SecureBoot enabled");
    assert_eq!(guest.root("cat /sys/kernel/security/lockdown"), "none [integrity] confidentiality");
}
