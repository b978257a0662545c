//! The recipe language, and the lock that pins what a recipe asks for.
//!
//! *What comes in:* the path of a recipe, and the variables that the caller overrides. *What goes out:* a
//! [`Source`], and from it one [`Recipe`] for each architecture, with bases merged, variables put in and every rule
//! checked; or [`Diagnostics`], all at once, each with file, line, column and what to do. Beside it the [`Lock`] and
//! the language's JSON [`schema`] and its [`reference()`] page. *What it may not do:* touch the network, a package index or a disk image, or read
//! any file but the recipe, its bases and the lock; of sources it looks only whether and where they are.
//!
//! A file goes through these steps: text → a tree whose values know their place (`yaml`), bounded in size, depth and
//! expansion → structure checked against one table (`language`), which is also the schema → merged over its base
//! (`source`) → variables put in (`variables`) → the typed recipe (`decode`, `model`). Because values keep their
//! place, a mistake in a base points at the base's own file. Texts are never turned into numbers and back: a version
//! 1.10 stays 1.10.

mod arch;
mod code;
mod decode;
mod diagnostic;
mod language;
mod lock;
mod model;
mod nearest;
mod origins;
mod reference;
mod source;
mod variables;
mod yaml;

pub use arch::{Arch, UnknownArch};
pub use catalog::{BootMode, DeviceName, VolumeType};
pub use code::Code;
pub use diagnostic::{Diagnostic, Diagnostics, Severity, Span};
pub use language::{COMPONENTS, SUITES, schema};
pub use lock::{
    LOCK_VERSION, Lock, LockError, LockedArch, LockedPackage, LockedParent, LockedSource, SourceRole,
    replace_file,
};
pub use model::{
    AllowedFinding, Check, Distribution, Family, FileSpec, Filesystem, ImageOptions, Kernel, MotdScript,
    PackageRequest, Payload, Recipe, RunStep, Services, Unit, User, Volume, Web, WebEntry, request_digest,
};
pub use nearest::nearest;
pub use origins::ValueOrigin;
pub use reference::reference;
pub use source::{LoadOptions, Source, load};
