use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::metadata::{GUEST_ADDRESS, GUEST_MAC, Instance, derived_digits};
use crate::program::quoted;
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

    /// The serial number by which the guest knows the volume: `vol` and 17 hexadecimal digits, derived from the
    /// device name.
    pub fn serial(&self) -> String {
        volume_serial(&self.device)
    }
}

/// The serial number of the volume at an EC2 device name: `vol` and 17 hexadecimal digits.
pub fn volume_serial(device: &str) -> String {
    format!("vol{}", derived_digits(&["volume serial", device]))
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
            region: "local".into(),
            account: "000000000000".into(),
            ami_id: None,
            user_data: None,
            console: None,
            vars: None,
            boot_limit: None,
        }
    }

    /// What the metadata service tells the machine. `public_key` is an OpenSSH public key line.
    pub fn instance(&self, public_key: &str) -> Instance {
        let mut block_devices = Vec::new();
        let mut volumes = 0;
        for (index, disk) in self.disks.iter().enumerate() {
            if index == 0 {
                block_devices.push(("ami".into(), disk.device.clone()));
                block_devices.push(("root".into(), disk.device.clone()));
            } else if let Some(number) = disk.ephemeral {
                block_devices.push((format!("ephemeral{number}"), disk.device.clone()));
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
    let line = socat.shell_words(&["-", &address])?;
    debug_assert!(line.ends_with(&quoted(&address)));
    Some(line)
}
