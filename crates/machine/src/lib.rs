//! Boots finished disks in QEMU and checks them.
//!
//! *What comes in:* raw disks with their EC2 device names, a machine profile ([`Profile`], data from `qemu/`), the
//! programs of others ([`Programs`]) and checks ([`Check`]). *What goes out:* a running [`Machine`], its console, and
//! [`CheckResult`]s. *What it may not do:* change what was baked (machines write to qcow2 overlays), know recipes
//! beyond their checks, or start a kernel by any way but the disk's own boot loader.
//!
//! # What the guest finds
//! - **Firmware:** SeaBIOS, or EDK II with a copy of the variables, with or without Secure Boot.
//! - **Identity:** SMBIOS type 1 with manufacturer `Amazon EC2` and a UUID and serial number that are equal and begin
//!   with `ec2`; the board's asset tag is the instance id. Stock cloud-init takes that for EC2.
//! - **Metadata service:** IMDSv2 at 169.254.169.254 ([`MetadataService`]).
//! - **Volumes:** each disk's serial number has 20 characters, as EC2's have: `vol` and 17 hexadecimal digits for an
//!   EBS volume ([`volume_serial`]), `AWS` and 17 for instance store, which is blank at each start. Which device
//!   name a disk has on EC2 is told in SMBIOS type 11 (OEM strings), one string a disk:
//!   `bakehouse:device:<serial>=<device name>`, such as `bakehouse:device:vol0123456789abcdef0=/dev/xvdf`.
//!   Linux shows these in `/sys/firmware/dmi/entries/11-0/raw`: a header of 5 bytes, then the strings, each ended by NUL.
//! - **Network:** one card with the address 172.31.0.15 in a network that ends at the metadata service: QEMU's
//!   `restrict` drops all else, so no guest reaches the host, the host's link-local addresses or the world.
//!   What the host wants of the guest goes through ports of 127.0.0.1 that the kernel picks ([`Machine::port`]).

mod accel;
mod boot;
mod cause;
mod check;
mod console;
mod error;
mod http;
mod metadata;
mod probe;
mod process;
mod profile;
mod program;
mod qmp;
mod spec;
mod ssh;

pub use accel::Accel;
pub use boot::{Log, Machine, Shutdown, boot, start};
pub use cause::{FailedUnit, failed_units, likely_cause};
pub use check::{Check, CheckResult, boot_and_check, run_checks};
pub use console::{Stage, fatal_line, stage, telling_lines};
pub use error::BootError;
pub use http::{Page, read_page};
pub use metadata::{Instance, MetadataService};
pub use probe::{boot_sector, probe_kvm};
pub use process::Output;
pub use profile::{BootLimit, DiskBus, Firmware, Profile, ProfileError, Smbios};
pub use program::{FirmwareDirs, Launcher, Programs};
pub use qmp::{Qmp, QmpError};
pub use spec::{Disk, MachineSpec, volume_serial};
