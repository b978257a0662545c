//! `diff`.

use std::io::Write;

use anyhow::{Context, Result};
use bake::Stages;
use formats::Target;

use crate::arguments::DiffArguments;
use crate::surroundings::store_folder;
use crate::terminal::{Terminal, print, print_json, say};
use crate::{DONE, FAILED};

/// `bakehouse diff`.
pub(crate) fn diff(arguments: &DiffArguments) -> Result<u8> {
    // A place where nothing can be written is told before the work; nothing stays there meanwhile.
    arguments.html.as_deref().map(Target::create).transpose()?;
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
