//! What a recipe says, for one architecture: merged, substituted, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use block::{Digest, Hasher};
use serde::Serialize;

use crate::{Arch, BootMode, DeviceName, Span, VolumeType};

/// A recipe for one architecture: bases merged, variables put in, every rule of the language checked. Paths of
/// sources are absolute and were there when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recipe {
    /// The recipe's name: `hello-web`.
    pub name: String,
    /// Its version, as written.
    pub version: Option<String>,
    /// The image's name: `hello-web-1.0.0`, or the name alone.
    pub image_name: String,
    /// What the image is.
    pub description: Option<String>,
    /// What it is baked for.
    pub arch: Arch,
    /// Where packages come from.
    pub distribution: Distribution,
    /// Which kernel boots.
    pub kernel: Kernel,
    /// Where the recipe names the kernel; `None` when it is the default.
    #[serde(skip)]
    pub kernel_span: Option<Span>,
    /// Packages asked for by name, in the order of the files, each once.
    pub packages: Vec<PackageRequest>,
    /// Whether recommended packages are installed too.
    pub recommends: bool,
    /// Login scripts, sorted by key.
    pub motd: Vec<MotdScript>,
    /// A web site's files.
    pub web: Option<Web>,
    /// Files and folders to lay down, in order, each path once.
    pub files: Vec<FileSpec>,
    /// Accounts, each name once.
    pub users: Vec<User>,
    /// Units to switch on and off.
    pub services: Services,
    /// Scripts to run, in order.
    pub run: Vec<RunStep>,
    /// The disks: exactly one root, each device once.
    pub volumes: Vec<Volume>,
    /// How the image is registered.
    pub image: ImageOptions,
    /// What must be true of the booted machine.
    pub checks: Vec<Check>,
    /// Findings of the lint that are meant.
    pub allow: Vec<AllowedFinding>,
}

impl Recipe {
    /// The image's default user: the first with sudo.
    pub fn default_user(&self) -> Option<&User> {
        self.users.iter().find(|user| user.sudo)
    }

    /// The disk that boots.
    pub fn root_volume(&self) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.root)
    }

    /// The kernel's package.
    pub fn kernel_package(&self) -> String {
        match &self.kernel {
            Kernel::Cloud => format!("linux-image-cloud-{}", self.arch.debian()),
            Kernel::Generic => format!("linux-image-{}", self.arch.debian()),
            Kernel::Package(name) => name.clone(),
        }
    }
}

/// A digest of what decides which packages are chosen: distribution, kernel, packages, recommends, architecture. A
/// lock with another digest no longer fits the recipe.
pub fn request_digest(recipe: &Recipe) -> Digest {
    let mut hasher = Hasher::new();
    let mut field = |text: &str| hasher.field(text.as_bytes());
    field("bakehouse request 1");
    field(recipe.arch.as_str());
    let distribution = &recipe.distribution;
    field(distribution.family.as_str());
    field(&distribution.suite);
    let mut components = distribution.components.clone();
    components.sort();
    field(&components.join(" "));
    for switch in [distribution.updates, distribution.security, recipe.recommends] {
        field(if switch { "on" } else { "off" });
    }
    field(&recipe.kernel_package());
    let mut packages: Vec<_> =
        recipe.packages.iter().map(|package| (&package.name, &package.version)).collect();
    packages.sort();
    for (name, version) in packages {
        field(name);
        field(version.as_deref().unwrap_or(""));
    }
    hasher.finish()
}

/// A family of distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Debian.
    Debian,
}

impl Family {
    /// The name in recipes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debian => "debian",
        }
    }
}

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Distribution {
    /// Which family.
    pub family: Family,
    /// The release's code name: `trixie`.
    pub suite: String,
    /// Parts of the archive, each once.
    pub components: Vec<String>,
    /// A mirror's address, without a slash at its end; `None`: the caller's default.
    pub mirror: Option<String>,
    /// Public keys, ASCII-armoured, that may sign the mirror's index besides Debian's own.
    pub signed_by: Option<String>,
    /// Whether the updates suite is used.
    pub updates: bool,
    /// Whether the security suite is used.
    pub security: bool,
}

/// Which kernel boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kernel {
    /// The small kernel for virtual machines.
    Cloud,
    /// The kernel for all machines.
    Generic,
    /// A kernel's package by name.
    Package(String),
}

/// A package that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackageRequest {
    /// Its name.
    pub name: String,
    /// The one version that will do.
    pub version: Option<String>,
    /// Where the recipe asks for it.
    #[serde(skip)]
    pub span: Span,
}

/// A script of `/etc/update-motd.d`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MotdScript {
    /// The file's name: `40-cow`.
    pub key: String,
    /// The whole script, beginning with `#!`.
    pub script: String,
}

/// What a file or folder of the image is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// This text.
    Content(String),
    /// A file or folder of the baking machine: absolute, resolved, inside the folder of the recipe that names it.
    Source(PathBuf),
}

/// A web site's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Web {
    /// The folder in the image, absolute.
    pub root: String,
    /// What is laid under it, in this order.
    pub entries: Vec<WebEntry>,
}

/// One file, or the one source folder, of a web site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebEntry {
    /// The file's path below the root; empty for the source folder, whose files are laid right under the root.
    pub path: String,
    /// What it is made from.
    pub payload: Payload,
}

/// A file or folder to lay down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSpec {
    /// Where it goes, absolute.
    pub path: String,
    /// What it is made from.
    pub payload: Payload,
    /// Permission bits; `None`: the source's own executable bit decides (0755 or 0644).
    pub mode: Option<u16>,
    /// The user it belongs to.
    pub owner: String,
    /// The group it belongs to.
    pub group: String,
    /// Where the recipe asks for it.
    #[serde(skip)]
    pub span: Span,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Further groups.
    pub groups: Vec<String>,
    /// Whether it may do everything with sudo, without a password.
    pub sudo: bool,
    /// The login shell, absolute.
    pub shell: String,
    /// Public SSH keys, one line each.
    pub authorized_keys: Vec<String>,
    /// Where the recipe asks for it.
    #[serde(skip)]
    pub span: Span,
}

/// Units to switch on and off; no unit is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Services {
    /// Units that start at boot.
    pub enable: Vec<Unit>,
    /// Units that do not.
    pub disable: Vec<Unit>,
}

/// A unit of systemd. As JSON: its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Unit {
    /// Its name with its suffix: `apache2.service`.
    pub name: String,
    /// Where the recipe asks for it.
    pub span: Span,
}

impl From<Unit> for String {
    fn from(unit: Unit) -> Self {
        unit.name
    }
}

/// A script that runs in the image while it is baked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunStep {
    /// What messages call it.
    pub name: String,
    /// The script; for `/bin/sh` unless it begins with `#!`.
    pub script: String,
    /// Where the recipe says so.
    #[serde(skip)]
    pub span: Span,
}

/// A file system that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filesystem {
    /// ext4.
    Ext4,
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// The name under which it is attached.
    pub device: DeviceName,
    /// Whether it is the disk that boots.
    pub root: bool,
    /// Bytes, whole MiB. The mapping rounds up to GiB: [`Volume::size_gib`].
    pub size: u64,
    /// The EBS type; means nothing for an ephemeral volume.
    pub volume_type: VolumeType,
    /// Provisioned IOPS.
    pub iops: Option<u32>,
    /// MiB/s.
    pub throughput: Option<u32>,
    /// Only for a volume without content.
    pub encrypted: Option<bool>,
    /// Its file system; `None`: blank. The root's is the one of its root partition.
    pub filesystem: Option<Filesystem>,
    /// The file system's label.
    pub label: Option<String>,
    /// Where it is mounted, absolute; `/` for the root.
    pub mount: Option<String>,
    /// A folder of the baking machine whose files fill it.
    pub source: Option<PathBuf>,
    /// Whether it goes when the instance does.
    pub delete_on_termination: bool,
    /// The number of an instance store volume: blank at each start, never in a snapshot.
    pub ephemeral: Option<u8>,
    /// Where the recipe asks for it; the recipe's name when it is the default root.
    #[serde(skip)]
    pub span: Span,
    /// Where the recipe gives its size, or else all of it.
    #[serde(skip)]
    pub size_span: Span,
}

impl Volume {
    /// The size in GiB, rounded up.
    pub fn size_gib(&self) -> u64 {
        self.size.div_ceil(block::GIB)
    }
}

/// How the image is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageOptions {
    /// Tags of the image.
    pub tags: BTreeMap<String, String>,
    /// How firmware starts it. Always [`BootMode::Uefi`] for aarch64.
    pub boot_mode: BootMode,
    /// `v2.0`: instances ask the metadata service with a token; `None`: AWS's default.
    pub imds: Option<String>,
    /// Whether it drives Elastic Network Adapters.
    pub ena: bool,
}

/// A finding of the lint that is meant, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllowedFinding {
    /// The finding's name: `private-key`. Whether there is such a one is not known here.
    pub finding: String,
    /// The file that it is about, absolute; `None`: it is about none.
    pub file: Option<String>,
    /// Why it is meant.
    pub reason: String,
    /// Where the recipe says so.
    #[serde(skip)]
    pub span: Span,
}

/// Something that must be true of the booted machine. As JSON: one key that says the kind, with its fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// A page that the machine serves.
    Http {
        /// TCP port in the machine.
        port: u16,
        /// Path, beginning with `/`.
        path: String,
        /// The status it must answer with.
        status: u16,
        /// A text that the page must hold.
        contains: Option<String>,
    },
    /// What a person sees at login.
    Login {
        /// Who logs in.
        user: String,
        /// A text that the greeting must hold.
        contains: String,
    },
    /// A command that must succeed.
    Ssh {
        /// Who runs it.
        user: String,
        /// The command, for the user's shell.
        run: String,
        /// A text that its output must hold.
        contains: Option<String>,
    },
    /// A volume that must be mounted.
    Mount {
        /// Where.
        path: String,
        /// Under which device name it is attached.
        device: DeviceName,
    },
    /// A text that the console must show.
    Console {
        /// The text.
        contains: String,
    },
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { port, path, .. } => write!(f, "http :{port}{path}"),
            Self::Login { user, .. } => write!(f, "login {user}"),
            Self::Ssh { user, run, .. } => write!(f, "ssh {user}: {run}"),
            Self::Mount { path, device } => write!(f, "mount {device} at {path}"),
            Self::Console { contains } => write!(f, "console shows {contains:?}"),
        }
    }
}
