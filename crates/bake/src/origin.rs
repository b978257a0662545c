//! What a folder of outputs was baked from, on this machine: `bake.log`. It names files of the host, so it is a log and
//! no output that another bake gives again.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The file's name in the folder of outputs.
pub(crate) const LOG: &str = "bake.log";

/// What a folder of outputs was baked from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// The recipe's file, absolute.
    pub(crate) recipe: PathBuf,
    /// The lock's file, absolute.
    pub(crate) lock: PathBuf,
    /// Variables that were overridden.
    pub(crate) set: Vec<(String, String)>,
}

impl Made {
    pub(crate) fn new(recipe: &Path, lock: &Path, set: &[(String, String)]) -> Result<Self, Error> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(Error::io(path, "cannot be found"));
        Ok(Self { recipe: absolute(recipe)?, lock: absolute(lock)?, set: set.to_vec() })
    }

    pub(crate) fn read(folder: &Path) -> Result<Self, Error> {
        let wrong = |what: String| Error::NotBaked {
            path: folder.join(LOG),
            reason: format!("does not say what this was baked from ({what}): bake again"),
        };
        let text = fs::read(folder.join(LOG)).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
    }
}
