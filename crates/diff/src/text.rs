//! A [`Difference`] as text: first the sums, then the lists.

use std::fmt::Write as _;

use crate::blocks::{BlockChanges, Tally};
use crate::files::{FileChange, FileChanges, FileTotals};
use crate::packages::{PackageChange, PackageChanges, Step};
use crate::shown::{count, counted, shown, size};
use crate::{Difference, Identity, PartitionChanges};

/// Most lines of a list, unless all are wanted.
const SHOWN: usize = 20;

/// A difference as people read it. Lists of packages and files are cut short after the first 20, the largest files first; with `all` they are
/// whole, files by path.
pub fn text(difference: &Difference, all: bool) -> String {
    let mut text = format!("A  {}\nB  {}\n", identity(&difference.a), identity(&difference.b));
    for remark in &difference.remarks {
        line(&mut text, &format!("remark: {remark}"));
    }
    text.push('\n');
    for (name, what) in summary(difference) {
        line(&mut text, &format!("{name:<10} {what}"));
    }
    if let Some(packages) = difference.packages.as_ref().filter(|packages| !packages.changes.is_empty()) {
        list_packages(&mut text, &packages.changes, all);
    }
    for volume in &difference.volumes {
        for partition in &volume.partitions {
            list_partition(&mut text, &volume.device, partition, all);
        }
    }
    text
}

/// What stands above all lists: a name and a sentence for each.
pub(crate) fn summary(difference: &Difference) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(packages) = &difference.packages {
        rows.push(("packages", packages_line(packages)));
    }
    if let Some(files) = difference.files() {
        rows.push(("files", files_line(&files)));
    }
    let blocks = difference.blocks();
    rows.push(("blocks", blocks_line(&blocks)));
    rows.push(("increment", increment_line(&blocks)));
    rows
}

fn packages_line(packages: &PackageChanges) -> String {
    let mut parts: Vec<String> = packages
        .counts()
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{} {word}", count(number)))
        .collect();
    parts.push(format!("{} the same", count(packages.same)));
    parts.join(", ")
}

fn files_line(files: &FileTotals) -> String {
    let mut parts = Vec::new();
    for (number, bytes, word) in [
        (files.changed, files.changed_bytes, "changed"),
        (files.added, files.added_bytes, "added"),
        (files.removed, files.removed_bytes, "removed"),
    ] {
        if number > 0 {
            parts.push(format!("{} {word} ({})", count(number), size(bytes)));
        }
    }
    parts.push(format!("{} the same", count(files.same)));
    let times = match files.times {
        0 => String::new(),
        times => format!(", {} of them with another time", count(times)),
    };
    parts.join(", ") + &times
}

fn blocks_line(blocks: &BlockChanges) -> String {
    let part = |tally: Tally, word| format!("{} {word} ({})", count(tally.blocks), size(tally.bytes));
    [(blocks.same, "same"), (blocks.moved, "moved"), (blocks.new, "new"), (blocks.gone, "gone")]
        .map(|(tally, word)| part(tally, word))
        .join(", ")
        + ", of 512 KiB"
}

fn increment_line(blocks: &BlockChanges) -> String {
    let Tally { blocks: sent, bytes } = blocks.differing;
    let sent = match sent {
        0 => "nothing".to_owned(),
        sent => format!("{} ({})", counted(sent, "block"), size(bytes)),
    };
    let kept = match blocks.added.blocks {
        0 => "nothing".to_owned(),
        kept => format!("{} ({})", counted(kept, "block"), size(blocks.added.bytes)),
    };
    format!("an EBS snapshot of B after A's sends {sent}; a store that has A keeps {kept} more")
}

fn identity(identity: &Identity) -> String {
    let own = [&identity.name, &identity.arch].into_iter().flatten().map(|text| shown(text.as_bytes()));
    let own = own.collect::<Vec<_>>().join(", ");
    let given = shown(identity.given.as_bytes());
    if own.is_empty() { given } else { format!("{given}: {own}") }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// What is left out of a list.
fn rest(text: &mut String, left: usize, what: &str) {
    if left > 0 {
        line(text, &format!("  … and {}; --all lists every one", counted(left as u64, what)));
    }
}

fn list_packages(text: &mut String, changes: &[PackageChange], all: bool) {
    let shown_ones = if all { changes } else { &changes[..changes.len().min(SHOWN)] };
    let name = |change: &PackageChange| shown(change.name.as_bytes());
    let width = shown_ones.iter().map(|change| name(change).chars().count()).max().unwrap_or(0);
    text.push_str("\npackages\n");
    for change in shown_ones {
        let versions = match &change.step {
            Step::Added(version) | Step::Removed(version) => shown(version.as_bytes()),
            Step::Upgraded(before, after) | Step::Downgraded(before, after) => {
                format!("{} → {}", shown(before.as_bytes()), shown(after.as_bytes()))
            }
        };
        line(text, &format!("  {:<10}  {:<width$}  {versions}", change.step.word(), name(change)));
    }
    rest(text, changes.len() - shown_ones.len(), "package");
}

fn list_partition(text: &mut String, device: &str, partition: &PartitionChanges, all: bool) {
    let title = format!("{device}, {}", partition.title());
    match &partition.files {
        Err(why) if partition.differing_blocks > 0 => {
            let blocks = counted(partition.differing_blocks, "block");
            let verb = if partition.differing_blocks == 1 { "differs" } else { "differ" };
            let _ = write!(
                text,
                "\n{title}\n  {blocks} {verb}; its files are not known: {}\n",
                shown(why.as_bytes())
            );
        }
        Ok(files) if !files.changes.is_empty() => {
            let _ = write!(text, "\n{title}\n");
            let chosen = if all { files.changes.iter().collect() } else { largest(files, SHOWN) };
            for change in &chosen {
                let path = shown(change.path.as_bytes());
                let bytes = change.bytes().map(size).unwrap_or_default();
                let (word, detail) = (change.word(), change.detail());
                line(text, &format!("  {word:<7} {bytes:>10}  /{path}  {detail}"));
            }
            rest(text, files.changes.len() - chosen.len(), "file");
        }
        _ => {}
    }
}

/// The files that most bytes changed of, at most so many; by bytes, then by path.
pub(crate) fn largest(files: &FileChanges, most: usize) -> Vec<&FileChange> {
    let mut changes: Vec<&FileChange> = files.changes.iter().collect();
    changes.sort_by(|one, other| other.bytes().cmp(&one.bytes()).then_with(|| one.path.cmp(&other.path)));
    changes.truncate(most);
    changes
}
