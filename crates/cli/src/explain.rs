//! `explain`.

use anyhow::Result;
use bake::{Explanation, Question, Why};
use recipe::ValueOrigin;

use crate::DONE;
use crate::arguments::ExplainArguments;
use crate::surroundings::cache_folder;
use crate::terminal::{Paint, bytes, print, print_json};

/// The widest that a value is shown, in characters.
const WIDE: usize = 60;

/// `bakehouse explain`.
pub(crate) fn explain(arguments: &ExplainArguments) -> Result<u8> {
    let question = Question {
        recipe: arguments.recipe.clone(),
        set: arguments.set.clone(),
        arch: arguments.arch,
        lock: arguments.lock.clone(),
        cache: cache_folder()?,
    };
    let explanation = bake::explain(&question)?;
    if arguments.json {
        print_json(&explanation)?;
    } else {
        print(text(&explanation, Paint::on_stdout()).trim_end())?;
    }
    Ok(DONE)
}

fn text(explanation: &Explanation, paint: Paint) -> String {
    let files: Vec<_> = explanation.files.iter().map(|file| file.display().to_string()).collect();
    let title = format!("{} for {}", explanation.name, explanation.arch);
    let mut text = format!("{}, from {}\n", paint.strong(&title), files.join(" and "));
    let mut section = |name: &str, lines: Vec<String>| {
        text += &format!("\n{}\n", paint.strong(name));
        for line in lines {
            text += &format!("  {line}\n");
        }
    };
    section("Values", values(&explanation.values, paint));
    section("Packages", packages(explanation, paint));
    section("Volumes", volumes(explanation));
    let always = "what holds for every machine: it boots, cloud-init is done where it is installed, no unit has failed";
    let checks = std::iter::once(always.to_owned()).chain(explanation.checks.iter().map(ToString::to_string));
    section("Checks, on each machine that it boots on", checks.collect());
    let width = explanation.stages.iter().map(|stage| stage.name.len()).max().unwrap_or(0);
    let stages = explanation.stages.iter().map(|stage| format!("{:width$}  {}", stage.name, stage.what));
    section("What a bake would do", stages.collect());
    text
}

/// A table: key, value, place.
fn values(values: &[ValueOrigin], paint: Paint) -> Vec<String> {
    let shown: Vec<(String, String)> =
        values.iter().map(|value| (value.key.clone(), one_line(&value.value))).collect();
    let widest = |column: fn(&(String, String)) -> &String| {
        shown.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
    };
    let (key, text) = (widest(|row| &row.0), widest(|row| &row.1));
    let rows = shown.iter().zip(values).map(|((name, value), origin)| {
        format!("{name:key$}  {value:text$}  {}", paint.faint(&place(origin)))
    });
    rows.collect()
}

fn place(origin: &ValueOrigin) -> String {
    match &origin.file {
        None => "default".to_owned(),
        // An option of the command line has no lines.
        Some(file) if file.as_os_str() == "--set" => "--set".to_owned(),
        Some(file) => format!("{}:{}", file.display(), origin.line),
    }
}

/// A value's first line that says something, cut where it is too long.
fn one_line(value: &str) -> String {
    let mut lines = value.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or_default();
    let more = lines.count();
    let cut: String = first.chars().map(|c| if block::is_obeyed(c) { ' ' } else { c }).take(WIDE).collect();
    match (cut.chars().count() < first.chars().count(), more) {
        (false, 0) => cut,
        (true, 0) => format!("{cut}…"),
        (_, more) => format!("{cut} … and {more} more line{}", if more == 1 { "" } else { "s" }),
    }
}

fn packages(explanation: &Explanation, paint: Paint) -> Vec<String> {
    let (lock, packages) = (&explanation.lock, &explanation.packages);
    let path = lock.path.display();
    let mut lines = vec![match (&lock.time, &lock.reason) {
        (Some(time), _) => {
            let total: u64 = packages.iter().filter_map(|package| package.size).sum();
            format!("{path}: {} packages, {}, as of {time}", packages.len(), bytes(total))
        }
        (None, reason) => {
            format!("{path}: {}; these are asked for:", reason.as_deref().unwrap_or("not read"))
        }
    }];
    let asked: Vec<_> = packages.iter().filter(|package| package.why != Why::Needed).collect();
    let width = asked.iter().map(|package| package.name.len()).max().unwrap_or(0);
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let widest = asked.iter().map(|package| version(&package.version).len()).max().unwrap_or(0);
    for package in &asked {
        let why = package.asked.as_deref().unwrap_or("needed to boot");
        let (name, version) = (&package.name, version(&package.version));
        lines.push(format!("{name:width$}  {version:widest$}  {}", paint.faint(why)));
    }
    let others = packages.len() - asked.len();
    if others > 0 {
        lines.push(format!(
            "and {others} others that these need or that every Debian has (--json lists them)"
        ));
    }
    lines
}

fn volumes(explanation: &Explanation) -> Vec<String> {
    let volumes = explanation.volumes.iter().map(|volume| {
        let mut words = vec![volume.device.to_string(), bytes(volume.size)];
        match volume.ephemeral {
            Some(number) => words.push(format!("instance store {number}, blank at each start")),
            None => words.push(volume.volume_type.as_str().to_owned()),
        }
        if volume.root {
            words.push("root: GPT, EFI system partition, ext4".to_owned());
        } else if volume.filesystem.is_some() {
            words.push("ext4".to_owned());
        } else if volume.ephemeral.is_none() {
            words.push("blank".to_owned());
        }
        words.extend(volume.label.iter().map(|label| format!("label {label}")));
        words.extend(volume.mount.iter().filter(|_| !volume.root).map(|mount| format!("at {mount}")));
        words.extend(volume.source.iter().map(|source| format!("filled from {}", source.display())));
        if volume.ephemeral.is_none() && !volume.delete_on_termination {
            words.push("outlives its instance".to_owned());
        }
        words.join(", ")
    });
    volumes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_take_one_line() {
        assert_eq!(one_line("a"), "a");
        assert_eq!(one_line(""), "");
        assert_eq!(one_line("#!/bin/sh\n\necho \t hi\n"), "#!/bin/sh … and 1 more line");
        assert_eq!(one_line(&"x".repeat(61)), format!("{}…", "x".repeat(60)));
    }
}
