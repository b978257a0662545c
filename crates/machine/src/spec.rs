use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::metadata::{GUEST_ADDRESS, GUEST_MAC, Instance, derived_digits};
use crate::qmp::NETWORK;
use crate::{Accel, BootError, DiskBus, Firmware, Launcher, Profile, Programs};

/// One volume of a machine. The machine writes to an overlay; what lies at `base` is only read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The EC2 device name, such as `/dev/xvda`.
    pub device: String,
    /// The raw disk; `None` for a blank one.
    pub base: Option<PathBuf>,
    /// Bytes that the machine sees; `None` for the base's own size. More than the base has is growth.
    pub size: Option<u64>,
    /// The number of an instance store volume; `None` for an EBS volume.
    pub ephemeral: Option<u8>,
}

impl Disk {
    /// An EBS volume with the content and the size of a raw disk.
    pub fn volume(device: impl Into<String>, base: impl Into<PathBuf>) -> Self {
        Self { device: device.into(), base: Some(base.into()), size: None, ephemeral: None }
    }

    /// The serial number by which the guest knows the disk, derived from the device name: as EC2's own, `vol` and 17
    /// hexadecimal digits for an EBS volume, `AWS` and as many for instance store.
    pub fn serial(&self) -> String {
        match self.ephemeral {
            None => volume_serial(&self.device),
            Some(_) => {
                format!("AWS{}", derived_digits(&["instance store serial", &self.device]).to_uppercase())
            }
        }
    }
}

/// The serial number of the EBS volume at an EC2 device name: `vol` and 17 hexadecimal digits.
pub fn volume_serial(device: &str) -> String {
    format!("vol{}", derived_digits(&["volume serial", device]))
}

/// The disk that a device name means, without its `/dev/`: /dev/sdf and /dev/xvdf are one, and the root's /dev/sda1
/// is a whole disk.
fn disk_named(device: &str) -> String {
    let name = device.strip_prefix("/dev/").unwrap_or(device).trim_end_matches(|c: char| c.is_ascii_digit());
    match name.strip_prefix("sd") {
        Some(letter) => format!("xvd{letter}"),
        None => name.to_owned(),
    }
}

/// What to boot, and what it is told about itself.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The kind of machine.
    pub profile: Profile,
    /// How QEMU runs the guest; [`crate::probe_kvm`] knows what works.
    pub accel: Accel,
    /// The image's name; ids follow from it.
    pub name: String,
    /// The number of the launch: another number is another instance of the same image.
    pub launch: u32,
    /// The volumes. The first is the root volume.
    pub disks: Vec<Disk>,
    /// Who logs in with the key from the metadata service.
    pub user: String,
    /// Whether `user` can log in with that key: the image has an ssh server and something that fetches the key. A
    /// machine without is up when its console asks for a login, and what needs a login is not checked by itself.
    pub logs_in: bool,
    /// Such as `local`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
    /// The image's id; derived from the name if there is none.
    pub ami_id: Option<String>,
    /// What cloud-init gets as user data.
    pub user_data: Option<Vec<u8>>,
    /// Where the serial console is written to; `console.log` in the work folder if not given.
    pub console: Option<PathBuf>,
    /// Firmware variables to start from instead of the profile's; the machine gets a copy.
    pub vars: Option<PathBuf>,
    /// Time until the machine must be up; the profile's if not given.
    pub boot_limit: Option<Duration>,
    /// How long a check that does not hold is tried again; if not given, as long as a machine of this kind may need.
    pub check_limit: Option<Duration>,
}

impl MachineSpec {
    /// A machine of the image `name` with these volumes, in region `local` of account 000000000000.
    pub fn new(profile: Profile, accel: Accel, name: impl Into<String>, disks: Vec<Disk>) -> Self {
        Self {
            profile,
            accel,
            name: name.into(),
            launch: 1,
            disks,
            user: "ec2-user".into(),
            logs_in: true,
            region: "local".into(),
            account: "000000000000".into(),
            ami_id: None,
            user_data: None,
            console: None,
            vars: None,
            boot_limit: None,
            check_limit: None,
        }
    }

    /// The disk that is attached under a device name, by either of its names.
    pub fn disk(&self, device: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk_named(&disk.device) == disk_named(device))
    }

    /// What the metadata service tells the machine. `public_key` is an OpenSSH public key line. As on EC2, instance
    /// store on NVMe is not in the block device mapping.
    pub fn instance(&self, public_key: &str) -> Instance {
        let mut block_devices = Vec::new();
        let mut volumes = 0;
        for (index, disk) in self.disks.iter().enumerate() {
            if index == 0 {
                block_devices.push(("ami".into(), disk.device.clone()));
                block_devices.push(("root".into(), disk.device.clone()));
            } else if let Some(number) = disk.ephemeral {
                if self.profile.disk_bus != DiskBus::Nvme {
                    block_devices.push((format!("ephemeral{number}"), disk.device.clone()));
                }
            } else {
                volumes += 1;
                block_devices.push((format!("ebs{volumes}"), disk.device.clone()));
            }
        }
        let architecture = match self.profile.architecture.as_str() {
            "aarch64" => "arm64",
            other => other,
        };
        Instance {
            ami_id: self
                .ami_id
                .clone()
                .unwrap_or_else(|| format!("ami-{}", derived_digits(&["image", &self.name]))),
            instance_id: self.instance_id(),
            instance_type: self.profile.smbios.product.clone(),
            architecture: architecture.into(),
            region: self.region.clone(),
            account: self.account.clone(),
            public_keys: vec![("bakehouse".into(), public_key.trim().into())],
            block_devices,
            user_data: self.user_data.clone(),
        }
    }

    /// `i-` and 17 hexadecimal digits, derived from the image's name and the launch.
    pub fn instance_id(&self) -> String {
        format!("i-{}", derived_digits(&["instance", &self.name, &self.launch.to_string()]))
    }

    /// The UUID and the serial number of the machine: equal, and beginning with `ec2`, as EC2's own are.
    pub(crate) fn machine_uuid(&self) -> String {
        let launch = self.launch.to_string();
        let mut uuid = block::derived_uuid(&self.name, "machine", &launch);
        uuid[0] = 0xec;
        uuid[1] = 0x20 | uuid[1] & 0x0f;
        block::format_uuid(uuid)
    }
}

/// The files and sockets of one machine.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) overlays: Vec<PathBuf>,
    pub(crate) vars: Option<PathBuf>,
    pub(crate) console: PathBuf,
    pub(crate) firmware_log: PathBuf,
    pub(crate) qmp: PathBuf,
    pub(crate) metadata: PathBuf,
}

/// A value of one of QEMU's comma-separated options.
fn value(path: &Path) -> Result<String, BootError> {
    let text = path.to_str().ok_or_else(|| BootError::NotUtf8 { path: path.into() })?;
    Ok(text.replace(',', ",,"))
}

/// QEMU's arguments for a machine, after the launcher's own.
pub(crate) fn qemu_arguments(
    spec: &MachineSpec,
    programs: &Programs,
    places: &Places,
) -> Result<Vec<OsString>, BootError> {
    let profile = &spec.profile;
    let mut arguments = Vec::<OsString>::new();
    let mut add = |option: &str, value: String| arguments.extend([option.into(), value.into()]);
    for folder in &programs.firmware.qemu_data {
        let folder = folder.to_str().ok_or_else(|| BootError::NotUtf8 { path: folder.clone() })?;
        add("-L", folder.into());
    }
    add("-name", spec.name.replace(',', ",,"));
    let cpu = match spec.accel {
        Accel::Kvm => "host",
        Accel::Tcg => &profile.cpu,
    };
    add("-accel", spec.accel.option().into());
    add("-cpu", cpu.into());
    add("-smp", profile.cpus.to_string());
    add("-m", profile.memory.to_string());
    add("-display", "none".into());
    add("-boot", "strict=on".into());

    let mut machine = profile.machine.clone();
    if let Firmware::Uefi { code, secure, .. } = &profile.firmware {
        let code = programs.firmware.find_uefi(code).ok_or_else(|| BootError::MissingFirmware {
            file: code.clone(),
            searched: programs.firmware.uefi.clone(),
        })?;
        machine.push_str(",pflash0=firmware-code,pflash1=firmware-vars");
        let vars = places.vars.clone().unwrap_or_default();
        for (node, path, read_only) in [("firmware-code", code, true), ("firmware-vars", vars, false)] {
            let path = path.to_str().ok_or_else(|| BootError::NotUtf8 { path: path.clone() })?;
            let file = json!({"driver": "file", "filename": path, "read-only": read_only});
            let node = json!({"driver": "raw", "node-name": node, "read-only": read_only, "file": file});
            add("-blockdev", node.to_string());
        }
        if *secure {
            add("-global", "driver=cfi.pflash01,property=secure,value=on".into());
        }
    } else {
        // SeaBIOS says on this port what it does; the serial console stays the system's own.
        add("-chardev", format!("file,id=firmware,path={}", value(&places.firmware_log)?));
        add("-device", "isa-debugcon,iobase=0x402,chardev=firmware".into());
    }
    add("-machine", machine);

    let uuid = spec.machine_uuid();
    let smbios = &profile.smbios;
    add(
        "-smbios",
        format!(
            "type=1,manufacturer={},product={},uuid={uuid},serial={uuid}",
            smbios.manufacturer.replace(',', ",,"),
            smbios.product.replace(',', ",,"),
        ),
    );
    let manufacturer = smbios.manufacturer.replace(',', ",,");
    add("-smbios", format!("type=2,manufacturer={manufacturer},asset={}", spec.instance_id()));
    add("-smbios", format!("type=3,manufacturer={manufacturer},asset={manufacturer}"));
    for disk in &spec.disks {
        let device = disk.device.replace(',', ",,");
        add("-smbios", format!("type=11,value=bakehouse:device:{}={device}", disk.serial()));
    }

    for (index, (disk, overlay)) in spec.disks.iter().zip(&places.overlays).enumerate() {
        let path = overlay.to_str().ok_or_else(|| BootError::NotUtf8 { path: overlay.clone() })?;
        // A machine that is thrown away needs no flushes to the host's disk.
        let cache = json!({"no-flush": true});
        let file = json!({"driver": "file", "filename": path, "cache": cache});
        let node = json!({
            "driver": "qcow2", "node-name": format!("disk{index}"), "discard": "unmap", "cache": cache, "file": file,
        });
        add("-blockdev", node.to_string());
        let model = match profile.disk_bus {
            DiskBus::VirtioBlk => "virtio-blk-pci",
            DiskBus::Nvme => "nvme",
        };
        let boot = if index == 0 { ",bootindex=1" } else { "" };
        add("-device", format!("{model},drive=disk{index},serial={}{boot}", disk.serial()));
    }

    let metadata =
        places.metadata.to_str().ok_or_else(|| BootError::NotUtf8 { path: places.metadata.clone() })?;
    let forward = relay(&programs.socat, metadata)
        .ok_or_else(|| BootError::NotUtf8 { path: programs.socat.program.clone() })?;
    // The network 160.0.0.0/4 has the metadata service's link-local address and EC2's usual private ones on one
    // link. `restrict` leaves the guest nothing but that one forwarded address.
    add(
        "-netdev",
        format!(
            "user,id={NETWORK},restrict=on,ipv6=off,net=160.0.0.0/4,host=172.31.0.1,dns=172.31.0.2,\
             dhcpstart={GUEST_ADDRESS},guestfwd=tcp:169.254.169.254:80-cmd:{}",
            forward.replace(',', ",,")
        ),
    );
    add("-device", format!("{},netdev={NETWORK},mac={GUEST_MAC},romfile=", profile.network_device));
    if let Some(device) = &profile.rng_device {
        add("-device", device.clone());
    }
    add("-chardev", format!("file,id=console,path={}", value(&places.console)?));
    add("-serial", "chardev:console".into());
    add("-chardev", format!("socket,id=monitor,path={},server=on,wait=off", value(&places.qmp)?));
    add("-mon", "chardev=monitor,mode=control".into());
    arguments.extend(["-nodefaults".into(), "-no-user-config".into()]);
    Ok(arguments)
}

/// The command that carries one connection of the guest to the metadata service's socket.
fn relay(socat: &Launcher, socket: &str) -> Option<String> {
    // socat's own address syntax takes a backslash before what would end the path.
    let mut address = String::from("UNIX-CONNECT:");
    for character in socket.chars() {
        if ",:!'\"\\(){}[]".contains(character) {
            address.push('\\');
        }
        address.push(character);
    }
    socat.shell_words(&["-", &address])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FirmwareDirs;

    fn arguments(profile: &str, firmware: FirmwareDirs) -> Result<Vec<String>, BootError> {
        let profile = Profile::load(profile, None).unwrap();
        let disks = vec![
            Disk::volume("/dev/xvda", "/out/xvda.raw"),
            Disk { device: "/dev/sdb".into(), base: None, size: Some(1 << 30), ephemeral: Some(0) },
            Disk::volume("/dev/xvdf", "/out/xvdf.raw"),
        ];
        let spec = MachineSpec::new(profile, Accel::Tcg, "hello-web-1.0.0", disks);
        let places = Places {
            overlays: ["/w/disk0.qcow2", "/w/disk1.qcow2", "/w/disk2.qcow2"].map(PathBuf::from).into(),
            vars: Some("/w/vars.fd".into()),
            console: "/w/a,b.log".into(),
            firmware_log: "/w/firmware.log".into(),
            qmp: "/s/qmp".into(),
            metadata: "/s/meta,data".into(),
        };
        let programs = Programs::in_folder(Path::new("/bin"), "qemu-system-x86_64", firmware);
        let arguments = qemu_arguments(&spec, &programs, &places)?;
        Ok(arguments.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    fn values<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
        arguments.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn a_bios_machine_boots_its_disk_and_nothing_else() {
        let arguments = arguments("x86_64-bios", FirmwareDirs::default()).unwrap();
        for never in ["-kernel", "-initrd", "-append", "-bios"] {
            assert!(!arguments.iter().any(|word| word == never), "{never}");
        }
        assert_eq!(values(&arguments, "-boot"), ["strict=on"]);
        let devices = values(&arguments, "-device");
        let bootable = devices.iter().filter(|device| device.contains("bootindex")).collect::<Vec<_>>();
        assert_eq!(bootable.len(), 1);
        assert!(bootable[0].contains("drive=disk0"), "{bootable:?}");
        assert!(devices.iter().any(|device| device.ends_with("romfile=")));
    }

    #[test]
    fn the_network_ends_at_the_metadata_service() {
        let arguments = arguments("x86_64-bios", FirmwareDirs::default()).unwrap();
        let [network] = values(&arguments, "-netdev")[..] else { panic!("one network") };
        assert!(network.contains(",restrict=on,") && network.contains(",ipv6=off,"), "{network}");
        // Once for the shell, once for socat, once for QEMU.
        assert!(
            network
                .ends_with(r"guestfwd=tcp:169.254.169.254:80-cmd:/bin/socat - 'UNIX-CONNECT:/s/meta\,,data'"),
            "{network}"
        );
        assert!(values(&arguments, "-chardev").contains(&"file,id=console,path=/w/a,,b.log"));
    }

    #[test]
    fn the_machine_says_that_it_is_ec2_and_what_its_disks_are() {
        let arguments = arguments("x86_64-bios", FirmwareDirs::default()).unwrap();
        let smbios = values(&arguments, "-smbios");
        let field = |name: &str| smbios[0].split(',').find_map(|field| field.strip_prefix(name)).unwrap();
        assert_eq!(field("uuid="), field("serial="));
        assert!(field("uuid=").starts_with("ec2"));
        let blank = Disk { ephemeral: Some(0), ..Disk::volume("/dev/sdb", "") };
        assert!(blank.serial().starts_with("AWS") && volume_serial("/dev/xvdf").starts_with("vol"));
        for (device, serial) in [
            ("/dev/xvda", volume_serial("/dev/xvda")),
            ("/dev/sdb", blank.serial()),
            ("/dev/xvdf", volume_serial("/dev/xvdf")),
        ] {
            assert_eq!(serial.len(), 20);
            let told = format!("type=11,value=bakehouse:device:{serial}={device}");
            assert!(smbios.contains(&told.as_str()), "{told}");
            assert!(
                values(&arguments, "-device").iter().any(|shown| shown.contains(&format!("serial={serial}")))
            );
        }
    }

    #[test]
    fn on_nitro_every_volume_is_an_nvme_disk_with_a_controller() {
        let folder = tempfile::tempdir().unwrap();
        for (profile, code) in
            [("x86_64-nitro", "OVMF_CODE_4M.fd"), ("aarch64-nitro", "AAVMF_CODE.no-secboot.fd")]
        {
            std::fs::write(folder.path().join(code), []).unwrap();
            let firmware = FirmwareDirs { qemu_data: Vec::new(), uefi: vec![folder.path().into()] };
            let arguments = arguments(profile, firmware).unwrap();
            let devices = values(&arguments, "-device");
            let disks: Vec<_> = devices.iter().filter(|device| device.contains("drive=")).collect();
            assert!(disks.len() == 3 && disks.iter().all(|disk| disk.starts_with("nvme,")), "{disks:?}");
        }
    }

    #[test]
    fn a_disk_is_found_by_either_of_its_names() {
        let profile = Profile::load("x86_64-bios", None).unwrap();
        let disks = ["/dev/sda1", "/dev/sdb", "/dev/xvdf"].map(|device| Disk::volume(device, "x"));
        let spec = MachineSpec::new(profile, Accel::Tcg, "x", disks.into());
        for (asked, found) in [
            ("/dev/xvda", Some("/dev/sda1")),
            ("/dev/sda1", Some("/dev/sda1")),
            ("/dev/xvdb", Some("/dev/sdb")),
            ("/dev/sdf", Some("/dev/xvdf")),
            ("/dev/xvdg", None),
        ] {
            assert_eq!(spec.disk(asked).map(|disk| disk.device.as_str()), found, "{asked}");
        }
    }

    #[test]
    fn secure_boot_guards_its_variables_and_missing_firmware_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let firmware = FirmwareDirs { qemu_data: Vec::new(), uefi: vec![folder.path().into()] };
        let error = arguments("x86_64-uefi-secure-boot", firmware.clone()).unwrap_err().to_string();
        assert!(
            error.contains("OVMF_CODE_4M.secboot.fd") && error.contains(folder.path().to_str().unwrap()),
            "{error}"
        );

        std::fs::write(folder.path().join("OVMF_CODE_4M.secboot.fd"), []).unwrap();
        let arguments = arguments("x86_64-uefi-secure-boot", firmware).unwrap();
        assert_eq!(
            values(&arguments, "-machine"),
            ["q35,smm=on,pflash0=firmware-code,pflash1=firmware-vars"]
        );
        assert_eq!(values(&arguments, "-global"), ["driver=cfi.pflash01,property=secure,value=on"]);
        let code = values(&arguments, "-blockdev")[0];
        assert!(code.contains("secboot.fd") && code.contains(r#""read-only":true"#), "{code}");
    }

    #[test]
    fn instances_are_told_their_volumes_and_keep_their_names() {
        let profile = Profile::load("x86_64-bios", None).unwrap();
        let disks = vec![
            Disk::volume("/dev/xvda", "a"),
            Disk { device: "/dev/sdb".into(), base: None, size: Some(1), ephemeral: Some(0) },
            Disk::volume("/dev/xvdf", "f"),
        ];
        let spec = MachineSpec::new(profile, Accel::Tcg, "hello-web-1.0.0", disks);
        let instance = spec.instance("ssh-ed25519 AAAA bakehouse\n");
        let devices = instance
            .block_devices
            .iter()
            .map(|(name, device)| format!("{name}={device}"))
            .collect::<Vec<_>>();
        assert_eq!(devices, ["ami=/dev/xvda", "root=/dev/xvda", "ephemeral0=/dev/sdb", "ebs1=/dev/xvdf"]);
        assert_eq!(instance, spec.instance("ssh-ed25519 AAAA bakehouse"));
        let nitro = MachineSpec { profile: Profile::load("x86_64-nitro", None).unwrap(), ..spec.clone() };
        let names = nitro.instance("").block_devices.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names, ["ami", "root", "ebs1"]);
        let next = MachineSpec { launch: 2, ..spec.clone() };
        assert_ne!(next.instance_id(), spec.instance_id());
        assert_ne!(next.machine_uuid(), spec.machine_uuid());
        assert_eq!(next.instance("").ami_id, spec.instance("").ami_id);
    }
}
