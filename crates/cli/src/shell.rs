//! `shell`.

use std::ffi::OsString;
use std::io::IsTerminal;

use anyhow::{Context, Result};
use bake::{LockMode, ParentChoice, Stages, Standing};
use recipe::Recipe;

use crate::arguments::ShellArguments;
use crate::surroundings::{cache_folder, memory, mirror, now};
use crate::terminal::{Paint, Terminal, say};

/// A shell that every root has; the better one where it is there.
const SHELL: &str = "if [ -x /bin/bash ]; then exec /bin/bash; fi; exec /bin/sh";

/// `bakehouse shell`: the exit code is that of the shell or command.
pub(crate) fn shell(arguments: &ShellArguments) -> Result<u8> {
    let request = bake::Request {
        recipe: arguments.recipe.clone(),
        set: arguments.set.clone(),
        arch: arguments.arch,
        out: None,
        lock: arguments.lock.clone(),
        lock_mode: LockMode::Keep,
        parent: ParentChoice::Locked,
        native_dispatch: !arguments.no_native_dispatch,
        explain: false,
        check: None,
        store: None,
        cache: cache_folder()?,
        memory: memory()?,
        mirror: mirror()?,
        now: now()?,
    };
    let terminal = Terminal::new();
    let stages = Stages::new(&terminal);
    let visited = bake::stand(&request, !arguments.before_run, &stages, |recipe, standing| {
        terminal.close();
        visit(recipe, standing, &arguments.command)
    });
    terminal.close();
    visited?
}

fn visit(recipe: &Recipe, standing: &Standing, command: &[OsString]) -> Result<u8> {
    let paint = Paint::on_stderr();
    let where_it_stands = match (&standing.failed, standing.ran.len(), recipe.run.len()) {
        (Some(failed), ..) => {
            say(format!("{} {failed}", paint.bad("error:")));
            "as it was when that failed".to_owned()
        }
        (None, _, 0) => "before its boot files are made".to_owned(),
        (None, 0, _) => "before its `run` scripts".to_owned(),
        (None, ran, _) => format!("after {ran} `run` script{}", if ran == 1 { "" } else { "s" }),
    };
    say(format!("This is the root of {} for {}, {where_it_stands}.", recipe.image_name, recipe.arch));
    if let Some(script) = standing.script {
        say(format!("The script is {script}: try it with `sh -ex {script}`."));
    }
    say("What you change in here is thrown away; `exit` leaves.");
    let mut sandbox = standing.sandbox.clone();
    if std::io::stdin().is_terminal()
        && let Some(kind) = std::env::var_os("TERM")
    {
        sandbox = sandbox.env("TERM", kind);
    }
    let exit = match command {
        [] => sandbox.attach(&["/bin/sh", "-c", SHELL]),
        command => sandbox.attach(command),
    };
    let exit = exit.with_context(|| format!("in the root of {}", recipe.image_name))?;
    // As shells tell of a signal.
    let code = exit.code.or(exit.signal.map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::FAILED))
}
