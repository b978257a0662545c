//! Lays down packages and what the recipe adds, runs maintainer scripts in the sandbox, and reads the result as a Tree.
//!
//! *What comes in:* a [`Request`]: the recipe, the .deb files of the lock, one time, what the disks will be known by,
//! and an empty folder to work in. *What goes out:* [`Built`]: the Tree of the root partition and that of the EFI
//! system partition, GRUB's images for a BIOS, and a report. *What it may not do:* use the network, know a disk's or a
//! file system's layout, or let the clock, the host's files or the number of its cores into the result.
//!
//! The way of a bake:
//!
//! 1. **Read ahead** (`stage`): workers on all cores uncompress packages into private files, hashing them on the way.
//! 2. **Waves** (`order`): the essential packages first, then whatever has its Pre-Depends configured. `preinst`
//!    scripts run from `tmp.ci` as with dpkg.
//! 3. **Lay down** (`lay`): staged files are renamed into the root by dpkg's rules (diversions, overrides, Replaces,
//!    conffiles, shared folders). The kernel resolves every path inside the root, so no archive leads out of it.
//! 4. **The database** (`dpkg`) is written as dpkg would have left it after unpacking, so that the root's own dpkg
//!    configures the packages, wave by wave, and runs each trigger once, at the end. What scripts ask for and none waits for
//!    (compiled Python, lists of modules) is done beside them (`beside`).
//! 5. **Additions** (`additions`, `system`), in order: motd, web, users, files, what makes it a machine, services,
//!    then the recipe's `run` steps. What nothing that runs here looks at can be left out ([`divide`]) and laid into the
//!    finished Tree ([`Late::lay`]), so that the rest is the same whatever it says.
//! 6. **Boot files** (`boot`): initrds, `/boot/grub`, `grub.cfg` by the image's own `grub-mkconfig` with a `grub-probe`
//!    that answers as the finished disk will.
//! 7. **Clean** (`clean`) and **scan** (`scan`): keys, logs and identities go; the folder becomes a Tree.
//!
//! Times: a package's file keeps the archive's time, but no later than the lock's, and so does a folder, whatever came into
//! it. What is made while baking gets the time of what it follows from: an initrd the newest kernel's, compiled Python its
//! source's, dpkg's records their package's, links and folders that of the package's folder they are in; the rest the build
//! time of the newest package. So they stay the same for as long as those do. The same times are SOURCE_DATE_EPOCH for the programs that make them.
//!
//! What differs from an installation by mmdebstrap is listed, with reasons, in `crates/cli/tests/peer/differences.rs`.
//! Backups that tools leave (`passwd-`, `status-old`, …) are not kept: they tell how the image was made and help nobody.

mod accounts;
mod additions;
mod beside;
mod boot;
mod build;
mod clean;
mod compare;
mod data;
mod dpkg;
mod error;
mod install;
mod late;
mod lay;
mod lines;
mod order;
mod package;
mod programs;
mod root;
mod scan;
mod stage;
mod system;
#[cfg(test)]
mod test_packages;

pub use boot::{BiosImages, boot_packages};
pub use build::{Boot, Built, Mount, Report, Request, Standing, build, stand};
pub use compare::{Difference, DifferenceKind, compare};
pub use data::data_tree;
pub use dispatch::Counts;
pub use error::Error;
pub use late::{InTheWay, Late, divide};
pub use package::PackageFile;
pub use programs::{Foreign, Progress, Took};
pub use scan::scan;
