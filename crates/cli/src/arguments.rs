//! The command line.

use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use bake::{FirmwareChoice, LockMode, ParentChoice};
use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use recipe::Arch;

use crate::images::ImageArguments;
use crate::store::StoreArguments;

/// Bakes bootable machine images from recipes, boots them and checks them.
#[derive(Debug, Parser)]
#[command(name = "bakehouse", version, max_term_width = 110, after_long_help = AFTER)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Exit codes: 0 done and every check held; 1 the job failed, or a check did not hold; 2 a mistake in the recipe or on \
the command line.

Environment: BAKEHOUSE_CACHE, the cache folder [default: bakehouse in the user's cache folder]; \
BAKEHOUSE_STORE, the store [default: bakehouse/store in the user's data folder]; \
BAKEHOUSE_DEBIAN_MIRROR, a Debian mirror [default: that of the host's apt sources, else a public one]; \
BAKEHOUSE_MEMORY, how much memory files in the making may take [default: half of what is free]; NO_COLOR, \
CLICOLOR and CLICOLOR_FORCE, whether there are colours.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Begin a recipe of one's own
    ///
    /// Writes a recipe with examples, its JSON Schema beside it for editors, and a .gitignore. The recipe's name is that of
    /// its folder or file. Nothing is overwritten.
    Init(InitArguments),
    /// Look for mistakes in a recipe, and bake nothing
    Validate(ValidateArguments),
    /// Show what comes of a recipe: values, packages, volumes, checks, what a bake would do
    ///
    /// Every value is shown with the file and line that says so, bases merged and variables put in. The recipe, its lock and
    /// the cache are read; nothing is fetched or written.
    Explain(ExplainArguments),
    /// Bake a recipe: packages, root file system, disk, boot, checks
    Bake(BakeArguments),
    /// Open a shell in the root file system of a recipe, where a script fails or after all of them
    ///
    /// Packages are laid down and configured and the recipe's `run` scripts run as in a bake. When a script fails, of the
    /// recipe or of a package, the shell opens on what it left behind; else before the boot files are made. The sandbox is
    /// that of a bake: no network, no files of the host. Changes are thrown away.
    Shell(ShellArguments),
    /// Boot what was baked and run its checks again
    Check(CheckArguments),
    /// Look whether outputs are whole, and whether baking again gives the same bytes
    Verify(VerifyArguments),
    /// Say what differs between two images: packages, files, blocks, and their sizes
    ///
    /// Each image is a folder that `bakehouse bake` wrote, an image file (raw or VMDK), or a snapshot of the store. Packages are those of
    /// image.json, or of dpkg's database on the disk where there is no image.json or the disk was changed since. Files are read
    /// from ext4 and FAT; of other file systems only blocks are compared. Differences are no failure: the exit code is 0.
    Diff(DiffArguments),
    /// Fetch the programs that are run besides this one (QEMU, firmware, checkers) and say which they are
    Tools(ToolsArguments),
    /// Keep raw images as snapshots in a store of blocks, each block once
    Store(StoreArguments),
    /// Register what was baked as images, and look after these: list, copy, share, tag, deprecate, deregister
    ///
    /// The account is this machine's own: it lies in the store, and no cloud hears of it. Every rule is EC2's, and so are the
    /// names and the JSON.
    Image(ImageArguments),
    /// Print the JSON Schema of the recipe language
    Schema,
    /// Print the completions of a shell
    ///
    /// For bash, in ~/.local/share/bash-completion/completions (make it when it is missing): bakehouse completions bash >
    /// ~/.local/share/bash-completion/completions/bakehouse
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder; made when it is missing
        folder: PathBuf,
    },
}

impl Command {
    /// Whether standard output is to hold one JSON object, even when it fails.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::Validate(arguments) => arguments.json,
            Self::Explain(arguments) => arguments.json,
            Self::Bake(arguments) => arguments.json,
            Self::Check(arguments) => arguments.json,
            Self::Verify(arguments) => arguments.json,
            Self::Diff(arguments) => arguments.json,
            Self::Tools(arguments) => arguments.json,
            Self::Store(arguments) => arguments.json,
            Self::Image(arguments) => arguments.json,
            Self::Init(_) | Self::Shell(_) | Self::Schema | Self::Completions { .. } | Self::Man { .. } => {
                false
            }
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// The recipe's file (NAME.yaml), or a folder for it [default: this folder]
    #[arg(value_name = "DIR|FILE")]
    pub(crate) place: Option<PathBuf>,
    /// Write a workflow for GitHub Actions, too, that bakes and checks the recipe; the recipe may be there already
    #[arg(long)]
    pub(crate) ci: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BakeArguments {
    /// The recipe's file
    pub(crate) recipe: PathBuf,
    /// The architecture to bake for: x86_64, aarch64, or all of the recipe's [default: this machine's]
    #[arg(long, value_parser = ArchParser::<ArchChoice>::new(&["x86_64", "aarch64", "all"]))]
    pub(crate) arch: Option<ArchChoice>,
    /// Folder for the outputs; with --arch all each architecture gets one of its own in it [default: out/<name>/<arch>]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The store that keeps the volumes as snapshots: a folder [default: that of BAKEHOUSE_STORE, else bakehouse/store
    /// in the user's data folder]
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<PathBuf>,
    /// The lock's file [default: <recipe>.lock beside the recipe]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Lay the image out against this one, so that an EBS snapshot after it sends few blocks: a folder that `bakehouse bake` wrote (or the one
    /// above it), an image file, or a snapshot's name or id. The lock remembers it, and a file <recipe>.<arch>.layout beside the lock
    /// where things lie in it; `none` takes it out of the lock
    #[arg(long, value_name = "IMAGE")]
    parent: Option<PathBuf>,
    /// Override a variable of the recipe
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Fail when the lock is missing or does not fit the recipe
    #[arg(long, conflicts_with = "update")]
    locked: bool,
    /// Renew the whole lock and say what changes
    #[arg(long)]
    update: bool,
    /// Emulate every program of a foreign architecture; the image is the same, and takes several times as long
    #[arg(long)]
    pub(crate) no_native_dispatch: bool,
    /// Tell why each stage did its work or took it from the cache, where the time went, and which programs were emulated
    #[arg(long)]
    pub(crate) explain: bool,
    /// Do not boot the result
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Which firmware to boot the result by
    #[arg(long, value_enum, default_value_t)]
    pub(crate) firmware: Firmware,
    /// Print one JSON object on standard output at the end
    #[arg(long)]
    pub(crate) json: bool,
}

impl BakeArguments {
    pub(crate) fn parent(&self) -> ParentChoice {
        match &self.parent {
            None => ParentChoice::Locked,
            Some(none) if none == "none" => ParentChoice::Without,
            Some(image) => ParentChoice::Image(image.clone()),
        }
    }

    pub(crate) fn lock_mode(&self) -> LockMode {
        match (self.locked, self.update) {
            (true, _) => LockMode::Locked,
            (_, true) => LockMode::Update,
            _ => LockMode::Keep,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The folder that `bakehouse bake` wrote
    pub(crate) folder: PathBuf,
    /// Which firmware to boot by
    #[arg(long, value_enum, default_value_t)]
    pub(crate) firmware: Firmware,
    /// Print one JSON object on standard output at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The folder that `bakehouse bake` wrote
    pub(crate) folder: PathBuf,
    /// Bake again from the lock, and say where the outputs first differ
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// The recipe's file [default: where it was when it was baked]
    #[arg(long, value_name = "FILE", requires = "rebuild")]
    pub(crate) recipe: Option<PathBuf>,
    /// The lock's file [default: where it was when it was baked]
    #[arg(long, value_name = "FILE", requires = "rebuild")]
    pub(crate) lock: Option<PathBuf>,
    /// Print one JSON object on standard output at the end
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The first image: a folder that `bakehouse bake` wrote, an image file, or a snapshot's name or id
    pub(crate) a: PathBuf,
    /// The second image, which is told as what came of the first
    pub(crate) b: PathBuf,
    /// Write one HTML page with a picture of the disks' blocks, too
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// List every package and file, files by path
    #[arg(long)]
    pub(crate) all: bool,
    /// Exit with 1 when the images differ
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// The store that snapshots are looked for in: a folder [default: that of BAKEHOUSE_STORE, else bakehouse/store in the
    /// user's data folder]
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<PathBuf>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArguments {
    /// The recipe's file
    pub(crate) recipe: PathBuf,
    /// Override a variable of the recipe
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Print one JSON object with the mistakes on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The recipe's file
    pub(crate) recipe: PathBuf,
    /// The architecture [default: this machine's]
    #[arg(long, value_name = "ARCH", value_parser = ArchParser::<Arch>::new(&["x86_64", "aarch64"]))]
    pub(crate) arch: Option<Arch>,
    /// The lock's file [default: <recipe>.lock beside the recipe]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Override a variable of the recipe
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Print one JSON object on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArguments {
    /// The recipe's file
    pub(crate) recipe: PathBuf,
    /// The architecture [default: this machine's]
    #[arg(long, value_name = "ARCH", value_parser = ArchParser::<Arch>::new(&["x86_64", "aarch64"]))]
    pub(crate) arch: Option<Arch>,
    /// The lock's file [default: <recipe>.lock beside the recipe]
    #[arg(long, value_name = "FILE")]
    pub(crate) lock: Option<PathBuf>,
    /// Override a variable of the recipe
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Run none of the recipe's own `run` scripts before
    #[arg(long)]
    pub(crate) before_run: bool,
    /// Emulate every program of a foreign architecture
    #[arg(long)]
    pub(crate) no_native_dispatch: bool,
    /// What to run in place of a shell; its exit code is this program's
    #[arg(last = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ToolsArguments {
    /// Only this set [default: boot and check]
    #[arg(long, value_enum)]
    pub(crate) set: Option<ToolSet>,
    /// Print nothing but the folders of programs, as a PATH
    #[arg(long)]
    pub(crate) print_path: bool,
    /// Print one JSON object on standard output at the end
    #[arg(long, conflicts_with = "print_path")]
    pub(crate) json: bool,
}

/// Which firmware to boot by.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Firmware {
    /// All that the image boots by
    #[default]
    All,
    /// BIOS only
    Bios,
    /// UEFI only
    Uefi,
    /// UEFI with every volume on NVMe, as Nitro instances have them
    Nitro,
}

impl From<Firmware> for FirmwareChoice {
    fn from(firmware: Firmware) -> Self {
        match firmware {
            Firmware::All => Self::All,
            Firmware::Bios => Self::Bios,
            Firmware::Uefi => Self::Uefi,
            Firmware::Nitro => Self::Nitro,
        }
    }
}

/// Which architectures to bake for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ArchChoice {
    /// Every one that the recipe names.
    All,
    /// This one.
    One(Arch),
}

impl FromStr for ArchChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            _ => {
                text.parse().map(Self::One).map_err(|error: recipe::UnknownArch| format!("{error}, or `all`"))
            }
        }
    }
}

/// Reads an architecture, and lets completions know which there are.
#[derive(Clone)]
struct ArchParser<T>(&'static [&'static str], PhantomData<fn() -> T>);

impl<T> ArchParser<T> {
    fn new(values: &'static [&'static str]) -> Self {
        Self(values, PhantomData)
    }
}

impl<T> TypedValueParser for ArchParser<T>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        TypedValueParser::parse_ref(&T::from_str, command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

/// Tools that are wanted together.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ToolSet {
    /// What boots and checks x86_64 images
    Boot,
    /// What boots and checks aarch64 images
    BootAarch64,
    /// What runs programs of the other architecture while baking
    Emulate,
    /// The independent checkers of the tests
    Check,
    /// Others who make images, for comparisons; fetched on demand only
    Peer,
}

impl From<ToolSet> for tools::Set {
    fn from(set: ToolSet) -> Self {
        match set {
            ToolSet::Boot => Self::Boot,
            ToolSet::BootAarch64 => Self::BootAarch64,
            ToolSet::Emulate => Self::Emulate,
            ToolSet::Check => Self::Check,
            ToolSet::Peer => Self::Peer,
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`: write --set name=value"))?;
    if key.is_empty() {
        return Err(format!("`{text}` has no name before its `=`: write --set name=value"));
    }
    Ok((key.to_owned(), value.to_owned()))
}
