//! The `bakehouse` program: arguments, progress, messages, exit codes. What it does is in the other rooms.

mod arguments;
mod baking;
mod differing;
mod explain;
mod images;
mod init;
mod job;
mod pages;
mod shell;
mod store;
mod surroundings;
mod terminal;
mod toolbox;

use std::process::ExitCode;

use anyhow::Result;
use arguments::{Arguments, Command, ValidateArguments};
use clap::Parser;
use recipe::Diagnostics;
use serde_json::json;
use terminal::{Paint, print_json, say};

/// Everything was done and every check held.
const DONE: u8 = 0;
/// The job failed, or a check did not hold.
const FAILED: u8 = 1;
/// The user's mistake: in the recipe, the lock, or the command line.
const MISTAKE: u8 = 2;

fn main() -> ExitCode {
    let command = match arguments() {
        Ok(arguments) => arguments.command,
        Err(code) => return ExitCode::from(code),
    };
    let json = command.json();
    let code = match &command {
        Command::Bake(_) | Command::Check(_) | Command::Verify(_) | Command::Shell(_) => {
            job::run(true, json, || told(run(command), json, job::Place::Bake))
        }
        Command::Tools(_) => job::run(false, json, || told(run(command), json, job::Place::Cache)),
        Command::Store(_) | Command::Image(_) => told(run(command), json, job::Place::Store),
        _ => told(run(command), json, job::Place::Named),
    };
    ExitCode::from(code)
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Init(arguments) => init::init(&arguments),
        Command::Validate(arguments) => validate(arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Bake(arguments) => baking::bake(&arguments),
        Command::Shell(arguments) => shell::shell(&arguments),
        Command::Check(arguments) => baking::check(&arguments),
        Command::Verify(arguments) => baking::verify(&arguments),
        Command::Diff(arguments) => differing::diff(&arguments),
        Command::Tools(arguments) => toolbox::tools(&arguments),
        Command::Store(arguments) => store::store(&arguments),
        Command::Image(arguments) => images::image(&arguments),
        Command::Schema => {
            print_json(&recipe::schema())?;
            Ok(DONE)
        }
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { folder } => pages::man(&folder),
    }
}

/// Tells an error, with `--json` on standard output too, and gives the exit code.
fn told(result: Result<u8>, as_json: bool, place: job::Place) -> u8 {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    let code = match error.downcast_ref::<bake::Error>() {
        Some(error) if error.is_mistake() => MISTAKE,
        None if error.is::<sandbox::EnterError>() || error.is::<init::Refused>() => MISTAKE,
        None if error.is::<surroundings::Unusable>() => MISTAKE,
        None if error.downcast_ref().is_some_and(::store::Error::is_mistake) => MISTAKE,
        None if error.downcast_ref().is_some_and(ec2::Error::is_mistake) => MISTAKE,
        None if error.is::<catalog::ApiError>() || error.is::<images::NotRegistered>() => MISTAKE,
        None if error.downcast_ref().is_some_and(formats::Error::is_mistake) => MISTAKE,
        _ => FAILED,
    };
    // Most messages quote their cause already.
    let text =
        error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        });
    // Mirrors, packages, scripts and guests are quoted in it.
    let text = block::without_escapes(&text);
    let paint = Paint::on_stderr();
    let diagnostics = match error.downcast_ref() {
        Some(bake::Error::Recipe(diagnostics)) => Some(diagnostics),
        _ => None,
    };
    match (diagnostics, error.downcast_ref()) {
        // These are whole messages already.
        (Some(diagnostics), _) => say(diagnostics.render(paint.0).trim_end()),
        (None, Some(bake::Error::Unfit { .. })) => say(text.trim_end()),
        _ => say(format!("{} {}", paint.bad("error:"), text.trim_end())),
    }
    if let Some(advice) = job::advice(&error, text.trim_end(), place) {
        say(advice);
    }
    if as_json {
        let kind = if code == MISTAKE { "mistake" } else { "failure" };
        let problems = diagnostics.map_or_else(|| json!([]), Diagnostics::to_json);
        let api_code = match error.downcast_ref() {
            Some(ec2::Error::Api(error)) => Some(error.code()),
            _ => error
                .downcast_ref()
                .map(catalog::ApiError::code)
                .or_else(|| error.downcast_ref().and_then(images::NotRegistered::code)),
        };
        tell_json(kind, text.trim_end(), api_code, problems);
    }
    code
}

/// What `--json` has of a failure.
fn tell_json(kind: &str, message: &str, api_code: Option<&str>, problems: serde_json::Value) {
    let error = json!({"kind": kind, "message": message, "code": api_code, "problems": problems});
    // It failed already; a reader who has gone changes nothing.
    let _ = print_json(&json!({ "error": error }));
}

/// The command line. A mistake in it is told as clap tells it, and with `--json` on standard output too.
fn arguments() -> Result<Arguments, u8> {
    Arguments::try_parse().map_err(|error| {
        // Help and versions are no mistakes. Nobody is left to be told when the output is closed.
        let _ = error.print();
        let asked =
            std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
        if error.use_stderr() && asked {
            let text = error.render().to_string();
            let message = text.trim_end().strip_prefix("error: ").unwrap_or(&text);
            tell_json("mistake", message, None, json!([]));
        }
        u8::try_from(error.exit_code()).unwrap_or(MISTAKE)
    })
}

fn validate(arguments: ValidateArguments) -> Result<u8> {
    let recipe = arguments.recipe;
    let found = bake::validate(&recipe, arguments.set);
    let (problems, failed) = match found {
        Ok(warnings) => (warnings, None),
        Err(bake::Error::Recipe(diagnostics)) => {
            (diagnostics.clone(), Some(bake::Error::Recipe(diagnostics)))
        }
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        let (name, ok) = (recipe.to_string_lossy(), failed.is_none());
        print_json(&json!({"recipe": name, "ok": ok, "problems": problems.to_json()}))?;
    }
    Ok(match failed {
        Some(error) => told(Err(error.into()), false, job::Place::Named),
        None => {
            if !problems.0.is_empty() {
                say(problems.render(Paint::on_stderr().0));
            }
            say(format!("{}: no mistakes", recipe.display()));
            DONE
        }
    })
}
