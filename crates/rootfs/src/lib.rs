//! Lays down packages and what the recipe adds, runs maintainer scripts in the sandbox, and reads the result as a Tree.

mod accounts;
mod additions;
mod boot;
mod build;
mod clean;
mod compare;
mod dpkg;
mod error;
mod install;
mod lay;
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
pub use build::{Boot, Built, Mount, Report, Request, build};
pub use compare::{Difference, DifferenceKind, compare};
pub use error::Error;
pub use package::PackageFile;
pub use programs::{Progress, Took};
pub use scan::scan;
