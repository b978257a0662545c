//! `completions` and `man`: what is made from the command line's own description.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::DONE;
use crate::arguments::Arguments;
use crate::init::Refused;
use crate::terminal::{print_as_it_is, say};

/// `bakehouse completions`.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "bakehouse", &mut script);
    print_as_it_is(String::from_utf8(script)?.trim_end())?;
    Ok(DONE)
}

/// `bakehouse man`.
pub(crate) fn man(folder: &Path) -> Result<u8> {
    if folder.metadata().is_ok_and(|place| !place.is_dir()) {
        let reason = "is there and no folder: give another name";
        return Err(Refused { path: folder.to_owned(), reason }.into());
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    // There is a page for each command; one that says so again for each of them is of no use.
    let program = Arguments::command().disable_help_subcommand(true);
    clap_mangen::generate_to(program, folder)
        .with_context(|| format!("cannot write manual pages into {}", folder.display()))?;
    say(format!(
        "wrote manual pages into {}: man -l {}",
        folder.display(),
        folder.join("bakehouse.1").display()
    ));
    Ok(DONE)
}
