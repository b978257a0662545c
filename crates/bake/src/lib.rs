//! The path through the house: from a recipe file to disks that booted and were checked.

mod report;

pub use report::{Outcome, Report, Stage, Stages, Unit};
