//! Two images, wherever they are, as [`diff`] compares them.

use std::path::Path;

use diff::Difference;

use crate::opened::Opened;
use crate::{Error, Stages};

/// What differs between the images `a` and `b`. Each is a folder that a bake left, an image file (raw or VMDK), or a snapshot of the
/// store in the folder `store`, by name or id. Disks are read, nothing is written; a folder is held against bakes meanwhile.
pub fn difference(a: &Path, b: &Path, store: &Path, stages: &Stages<'_>) -> Result<Difference, Error> {
    let report = stages.report();
    let a = stages.run("read A", |_| Opened::open(a, store, report))?;
    let b = stages.run("read B", |_| Opened::open(b, store, report))?;
    stages.run("compare", |_| Ok(diff::compare(&a.image, &b.image, &debian::version::compare)?))
}
