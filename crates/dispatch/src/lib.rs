//! Programs of another architecture: run as the host's own where both are the same, emulated where not.
//!
//! *What comes in:* .deb files for the host's architecture, in the versions that the image has. *What goes out:* a tree of
//! the host's programs in the cache ([`NativeTree`]), a table of which target program is which of them ([`Table`]), and
//! the [`HANDLER`] that the kernel starts in place of the target's programs. *What it may not do:* change or hide a file
//! of the target, know recipes, or start anything.
//!
//! Maintainer scripts are shell, perl and python; they do the same on every architecture, and emulating their interpreters
//! is what makes a bake for another architecture slow. So the kernel hands each program of the target to the handler,
//! which executes the host's program of the same package and version, if there is one, else the emulator:
//!
//! ```text
//! /.bh/qemu     the emulator, a static program of the host
//! /.bh/table    what may be dispatched: path, size and time of the target's file, path of the host's program
//! /.bh/count    one line for each program that was started: N or E, and its path
//! /.bh/tree     the host's programs and libraries; what is below usr/ in their packages
//! /.bh/lib      -> tree/lib
//! ```
//!
//! A file is dispatched only if it lies where its package laid it with the size and time that it had there. Only programs
//! of the packages in `choice.rs` are: interpreters, shells and tools that treat their input as bytes. Whatever answers for
//! the machine, loads plugins of the target or is not known is emulated.
//!
//! The host's programs find their own libraries and modules without help from the environment: when the tree is made, the
//! folder `/usr/lib/<triplet>` in its ELF files is renamed to `/.bh/lib/<triplet>`, which has the same length, and so are
//! the loader's path and its search path. Python's native modules alone need a variable; the handler sets it for python
//! and takes it away from everything that python starts.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]

mod choice;
mod count;
mod elf;
mod native;
mod table;

use std::path::PathBuf;

pub use choice::{needed, same_source};
pub use count::Counts;
pub use elf::{Needs, needs};
pub use native::{NativePackage, NativeTree};
pub use table::Table;

/// The handler: a static program for the architecture that this crate was built for.
pub static HANDLER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/handler"));

/// The folder inside the target's root that holds all that the handler needs. As long as `/usr`.
pub const FOLDER: &str = "/.bh";

/// Names in [`FOLDER`].
pub const EMULATOR: &str = "qemu";
/// The table's file, written by [`Table::bytes`].
pub const TABLE: &str = "table";
/// The file that the handler adds a line to for each program.
pub const COUNT: &str = "count";
/// Where the native tree is mounted.
pub const TREE: &str = "tree";

/// A machine that programs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit PCs.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Machine {
    /// The machine that this program runs on.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// What uname calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `e_machine` of its ELF files.
    pub fn elf(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// The folder of its libraries below `/usr/lib`.
    pub fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// The emulator of its programs, as the package qemu-user names it.
    pub fn emulator(self) -> &'static str {
        match self {
            Self::X86_64 => "usr/bin/qemu-x86_64",
            Self::Aarch64 => "usr/bin/qemu-aarch64",
        }
    }

    /// Its dynamic loader, as programs name it and as the native tree's programs do: both are equally long.
    fn loader(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("/lib64/ld-linux-x86-64.so.2", "/.bh///ld-linux-x86-64.so.2"),
            Self::Aarch64 => ("/lib/ld-linux-aarch64.so.1", "/.bh/ld-linux-aarch64.so.1"),
        }
    }

    /// The loader's file name, which is a link in [`FOLDER`], and what it leads to.
    fn loader_link(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("ld-linux-x86-64.so.2", "tree/lib64/ld-linux-x86-64.so.2"),
            Self::Aarch64 => ("ld-linux-aarch64.so.1", "tree/lib/ld-linux-aarch64.so.1"),
        }
    }
}

/// Why foreign programs cannot be run, or the native tree not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the baker's.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried, as a clause: `cannot be made`.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The tree of the host's programs could not be put into the cache.
    #[error(transparent)]
    Tree(#[from] tools::Error),
    /// A package cannot be read.
    #[error(transparent)]
    Deb(#[from] debian::deb::DebError),
    /// A package holds what it may not.
    #[error("{package}: /{path} {problem}")]
    Member {
        /// The package.
        package: String,
        /// The path in it.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}

/// Fills an empty folder with what lies in [`FOLDER`] while foreign programs run, but for the table's entries: the
/// emulator (a copy of `emulator`), an empty table, the count, the mount point of the tree and the links into it.
pub fn lay_out(folder: &std::path::Path, emulator: &std::path::Path) -> Result<(), Error> {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let place = |name: &str| folder.join(name);
    fs::create_dir_all(place(TREE)).map_err(Error::io(place(TREE), "cannot be made"))?;
    let qemu = place(EMULATOR);
    if fs::hard_link(emulator, &qemu).is_err() {
        fs::copy(emulator, &qemu).map_err(Error::io(emulator, "cannot be copied"))?;
    }
    fs::write(place(TABLE), []).map_err(Error::io(place(TABLE), "cannot be written"))?;
    fs::write(place(COUNT), []).map_err(Error::io(place(COUNT), "cannot be written"))?;
    // Programs of any user add to it.
    fs::set_permissions(place(COUNT), fs::Permissions::from_mode(0o666))
        .map_err(Error::io(place(COUNT), "cannot be opened to all"))?;
    let (loader, target) = Machine::HOST.loader_link();
    for (name, target) in [("lib", "tree/lib"), (loader, target)] {
        symlink(target, place(name)).map_err(Error::io(place(name), "cannot be made a link"))?;
    }
    Ok(())
}
