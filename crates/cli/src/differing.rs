//! `diff`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use bake::Stages;
use formats::Target;

use crate::arguments::DiffArguments;
use crate::init::Refused;
use crate::surroundings::store_folder;
use crate::terminal::{Terminal, print, print_json, say};
use crate::{DONE, FAILED};

/// `bakehouse diff`.
pub(crate) fn diff(arguments: &DiffArguments) -> Result<u8> {
    // A place where nothing can be written is told before the work; nothing stays there meanwhile.
    if let Some(path) = &arguments.html {
        only_a_page_is_replaced(path)?;
        Target::create(path)?;
    }
    let store = store_folder(arguments.store.as_deref())?;
    let terminal = Terminal::new();
    let stages = Stages::new(&terminal);
    let difference = bake::difference(&arguments.a, &arguments.b, &store, &stages);
    terminal.close();
    let difference = difference?;
    if let Some(path) = &arguments.html {
        let page = Target::create(path)?;
        let html = ::diff::html(&difference, arguments.all);
        page.file().write_all(html.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        page.finish()?;
        say(format!("wrote {}", path.display()));
    }
    if arguments.json {
        print_json(&::diff::json(&difference))?;
    } else {
        print(::diff::text(&difference, arguments.all).trim_end())?;
    }
    Ok(if arguments.exit_code && !difference.is_empty() { FAILED } else { DONE })
}

/// A file that is there already and is no page was meant for something else: one of the images, maybe.
fn only_a_page_is_replaced(path: &Path) -> Result<(), Refused> {
    let mut start = [0; 15];
    let Ok(mut file) = File::open(path) else { return Ok(()) };
    let is_page = match file.read(&mut start) {
        Ok(read) => read == 0 || start.eq_ignore_ascii_case(b"<!doctype html>"),
        Err(_) => false,
    };
    let reason = "is there already and is no HTML page: name another file";
    if is_page { Ok(()) } else { Err(Refused { path: path.to_owned(), reason }) }
}
