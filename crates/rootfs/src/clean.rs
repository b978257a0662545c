//! Taking away what must not be shared: keys, logs, identities, caches, and the traces of baking.

use std::collections::BTreeMap;

use block::Origin;
use rustix::fs::FileType;

use crate::error::Error;
use crate::lay::Ledger;
use crate::root::{Attributes, Root};

/// Names of the host keys that openssh-server makes.
const HOST_KEYS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

/// Puts something in the place of ssh's host keys, so that configuring the package makes none. [`clean`] takes it away.
pub(crate) fn hold_host_keys_places(root: &Root, time: i64) -> Result<(), Error> {
    let private = Attributes { mode: 0o600, uid: 0, gid: 0, mtime: time };
    if !root.exists(b"etc/ssh")? {
        return Ok(());
    }
    HOST_KEYS
        .iter()
        .try_for_each(|kind| root.write(format!("etc/ssh/ssh_host_{kind}_key").as_bytes(), b"", private))
}

/// Files and folders that go, with all below them.
const GONE: [&str; 30] = [
    ".dockerenv",
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/mtab.bak",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "etc/.resolv.conf.systemd-resolved.bak",
    "root/.bash_history",
    "root/.cache",
    "root/.viminfo",
    "root/.lesshst",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/available-old",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/lib/urandom/random-seed",
    "var/lib/cloud/instance",
    "var/lib/cloud/instances",
    "var/lib/cloud/data",
];

/// Folders that are emptied but for what packages brought.
const EMPTIED: [&str; 11] = [
    "tmp",
    "var/tmp",
    "run",
    "dev",
    "proc",
    "sys",
    "var/lib/dhcp",
    "var/lib/dhcpcd",
    "var/lib/NetworkManager",
    "var/lib/apt/lists",
    "var/cache/apt/archives",
];

/// Cleans the root for sharing. What packages and the recipe brought stays.
pub(crate) fn clean(
    root: &Root,
    ledger: &Ledger,
    recipe: &BTreeMap<Vec<u8>, (Origin, i64)>,
    time: i64,
) -> Result<(), Error> {
    root.forget();
    let keep = Keep { ledger, recipe };
    for path in GONE.iter().filter(|path| !keep.is_of_recipe(path.as_bytes())) {
        root.remove_all(path.as_bytes())?;
    }
    for folder in EMPTIED {
        empty(root, folder.as_bytes(), &keep)?;
    }
    for name in root.list(b"etc/ssh")? {
        let path = [b"etc/ssh/".as_slice(), &name].concat();
        // A key that the recipe lays down is for the lint to judge: taking it away in silence helps nobody.
        if keep.is_of_recipe(&path) && root.lstat(&path)?.is_some_and(|stat| stat.st_size > 0) {
            continue;
        }
        if name.starts_with(b"ssh_host_") && (name.ends_with(b"_key") || name.ends_with(b"_key.pub")) {
            root.remove(&path)?;
        }
    }
    identities(root, &keep)?;
    let plain = Attributes { mode: 0o644, uid: 0, gid: 0, mtime: time };
    if !keep.is_of_recipe(b"etc/machine-id") {
        root.write(b"etc/machine-id", b"", plain)?;
    }
    logs(root, b"var/log", &keep, time)
}

/// What stays.
struct Keep<'a> {
    /// What packages brought.
    ledger: &'a Ledger,
    /// What the recipe laid down.
    recipe: &'a BTreeMap<Vec<u8>, (Origin, i64)>,
}

impl Keep<'_> {
    fn has(&self, path: &[u8]) -> bool {
        self.ledger.laid.contains_key(path) || self.is_of_recipe(path)
    }

    /// Whether the recipe laid it down, or something below it.
    fn is_of_recipe(&self, path: &[u8]) -> bool {
        let below = self.recipe.range(path.to_vec()..).next();
        below.is_some_and(|(found, _)| {
            found == path || found.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"))
        })
    }
}

/// Keys and names that packages draw for the machine they are installed on. Every machine of an image would share
/// them, so they go; what makes them anew at a first boot is in [`crate::system`].
const IDENTITIES: [&str; 6] = [
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/bind/rndc.key",
    "etc/nvme/hostid",
    "etc/nvme/hostnqn",
    "etc/iscsi/initiatorname.iscsi",
];

fn identities(root: &Root, keep: &Keep<'_>) -> Result<(), Error> {
    for path in IDENTITIES.iter().filter(|path| !keep.has(path.as_bytes())) {
        root.remove_all(path.as_bytes())?;
    }
    for name in root.list(b"etc/dropbear")? {
        let path = [b"etc/dropbear/".as_slice(), &name].concat();
        if name.starts_with(b"dropbear_") && name.ends_with(b"_host_key") && !keep.has(&path) {
            root.remove(&path)?;
        }
    }
    // The certificate's link by hash points to nothing now.
    for name in root.list(b"etc/ssl/certs")? {
        let path = [b"etc/ssl/certs/".as_slice(), &name].concat();
        if root.read_link(&path)?.as_deref() == Some(b"ssl-cert-snakeoil.pem") {
            root.remove(&path)?;
        }
    }
    Ok(())
}

/// Takes away all of a folder that no package brought.
fn empty(root: &Root, folder: &[u8], keep: &Keep<'_>) -> Result<(), Error> {
    for name in root.list(folder)? {
        let path = [folder, b"/", &name].concat();
        if keep.has(&path) {
            if is(root, &path, FileType::Directory)? {
                empty(root, &path, keep)?;
            }
        } else {
            root.remove_all(&path)?;
        }
    }
    Ok(())
}

fn is(root: &Root, path: &[u8], kind: FileType) -> Result<bool, Error> {
    Ok(root.lstat(path)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind))
}

/// Logs of the baking go. Those that packages made for the machine itself, with owner and mode, stay and are emptied.
fn logs(root: &Root, folder: &[u8], keep: &Keep<'_>, time: i64) -> Result<(), Error> {
    const OF_BAKING: [&[u8]; 4] = [
        b"var/log/alternatives.log",
        b"var/log/bootstrap.log",
        b"var/log/dpkg.log",
        b"var/log/fontconfig.log",
    ];
    for name in root.list(folder)? {
        let path = [folder, b"/", &name].concat();
        if is(root, &path, FileType::Directory)? {
            logs(root, &path, keep, time)?;
        } else if is(root, &path, FileType::RegularFile)? && !keep.has(&path) {
            if OF_BAKING.contains(&path.as_slice()) || path.starts_with(b"var/log/apt/") {
                root.remove(&path)?;
            } else {
                root.rewrite(&path, b"", Attributes { mode: 0o644, uid: 0, gid: 0, mtime: time })?;
            }
        }
    }
    Ok(())
}
