//! Signed Debian repositories, version order, the solver, the download cache, and reading .deb files.
//!
//! *What comes in:* the names of repositories and packages, files, and the time as a value. *What goes out:* which
//! packages make a goal whole ([`solve`]), their files on disk with their hashes checked, and what is inside
//! such a file ([`deb`]). *What it may not do:* read a clock, trust an unsigned or expired index, or know what an
//! image is.

pub mod cache;
pub mod control;
pub mod deb;
pub mod download;
pub mod fetch;
pub mod mirror;
pub mod openpgp;
pub mod relation;
pub mod repository;
pub mod solve;
pub mod tar;
mod time;
pub mod universe;
pub mod version;

pub use cache::Cache;
pub use deb::Deb;
pub use download::{DownloadError, Downloaded, FileRequest, download};
pub use fetch::{Limits, Progress, Silent};
pub use mirror::{ChosenBy, HostSources, Mirrors, Repository, choose_mirrors};
pub use openpgp::KeyRing;
pub use repository::{LoadOptions, RepositoryError, SourceInfo};
pub use solve::{Chosen, Request, Solution, SolveError, solve};
pub use time::show as show_time;
pub use universe::{Package, Universe};
pub use version::Version;
