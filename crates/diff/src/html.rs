//! A [`Difference`] as one page: no script, nothing from elsewhere, readable without its pictures.

use std::fmt::Write as _;

use crate::blocks::{BlockChanges, State, Stretch, Tally};
use crate::files::{FileChange, FileChanges};
use crate::packages::PackageChange;
use crate::picture::{self, Picture};
use crate::shown::{count, counted, shown, size};
use crate::text::largest;
use crate::{Difference, Identity, PartitionChanges, VolumeChanges};

/// Most rows of a table, unless all are wanted.
const ROWS: usize = 300;
const STYLE: &str = include_str!("page.css");
/// What the pictures are filled with, besides plain colours: who sees no colours sees lines.
const PATTERNS: &str = "<svg class=\"defs\" aria-hidden=\"true\"><defs>\
    <pattern id=\"moved\" width=\"10\" height=\"10\" patternUnits=\"userSpaceOnUse\"><rect class=\"m1\" width=\"10\" height=\"10\"/><path class=\"m2\" d=\"M0 10L10 0\"/></pattern>\
    <pattern id=\"gone\" width=\"10\" height=\"10\" patternUnits=\"userSpaceOnUse\"><rect class=\"g1\" width=\"10\" height=\"10\"/><path class=\"g2\" d=\"M1 1L9 9M9 1L1 9\"/></pattern>\
    <pattern id=\"grid\" width=\"10\" height=\"10\" patternUnits=\"userSpaceOnUse\"><path class=\"lines\" d=\"M10 0V10H0\"/></pattern>\
    </defs></svg>\n";

/// A difference as one self-contained HTML page. Tables of files and stretches are cut short after 300 rows; with `all` they are whole.
pub fn html(difference: &Difference, all: bool) -> String {
    let title = format!("{} → {}", name(&difference.a), name(&difference.b));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{PATTERNS}<h1>What differs</h1>\n"
    );
    page += "<dl class=\"sides\">\n";
    side(&mut page, "A", &difference.a);
    side(&mut page, "B", &difference.b);
    page += "</dl>\n";
    if !difference.remarks.is_empty() {
        page += "<ul class=\"remarks\">\n";
        for remark in &difference.remarks {
            let _ = writeln!(page, "<li>{}</li>", escaped(remark));
        }
        page += "</ul>\n";
    }
    cards(&mut page, difference);
    for volume in &difference.volumes {
        self::volume(&mut page, volume, all);
    }
    if let Some(packages) = difference.packages.as_ref().filter(|packages| !packages.changes.is_empty()) {
        package_table(&mut page, &packages.changes);
    }
    for volume in &difference.volumes {
        for partition in &volume.partitions {
            partition_files(&mut page, &volume.device, partition, all);
        }
    }
    page += "</body>\n</html>\n";
    page
}

/// A text as it may stand in a page, in attributes too.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            character => safe.push(character),
        }
    }
    safe
}

/// Bytes of a stranger as they may stand in a page.
fn safe(bytes: &[u8]) -> String {
    escaped(&shown(bytes))
}

fn name(identity: &Identity) -> String {
    safe(identity.name.as_ref().unwrap_or(&identity.given).as_bytes())
}

fn side(page: &mut String, letter: &str, identity: &Identity) {
    let own = [&identity.name, &identity.arch].into_iter().flatten().map(|text| safe(text.as_bytes()));
    let own: Vec<_> = own.collect();
    let given = safe(identity.given.as_bytes());
    let text = match own.is_empty() {
        true => format!("<code>{given}</code>"),
        false => format!("{} <span class=\"faint\"><code>{given}</code></span>", own.join(", ")),
    };
    let _ = writeln!(page, "<dt>{letter}</dt><dd>{text}</dd>");
}

fn cards(page: &mut String, difference: &Difference) {
    page.push_str("<section class=\"cards\" aria-label=\"Summary\">\n");
    let mut card = |name: &str, great: String, more: String| {
        let _ = writeln!(
            page,
            "<div class=\"card\"><span class=\"name\">{name}</span><b>{great}</b><span class=\"more\">{more}</span></div>"
        );
    };
    let differ = |number: u64| match number {
        0 => "all the same".to_owned(),
        1 => "1 differs".to_owned(),
        number => format!("{} differ", count(number)),
    };
    let listed = |parts: Vec<(u64, String)>| {
        let parts: Vec<_> =
            parts.into_iter().filter(|(number, _)| *number > 0).map(|(_, part)| part).collect();
        parts.join(", ")
    };
    if let Some(packages) = &difference.packages {
        let mut parts: Vec<_> = packages
            .counts()
            .into_iter()
            .map(|(number, word)| (number, format!("{} {word}", count(number))))
            .collect();
        parts.push((packages.same, format!("{} the same", count(packages.same))));
        card("Packages", differ(packages.changes.len() as u64), listed(parts));
    }
    if let Some(files) = difference.files() {
        let part = |number, bytes, word| (number, format!("{} {word} ({})", count(number), size(bytes)));
        let parts = vec![
            part(files.changed, files.changed_bytes, "changed"),
            part(files.added, files.added_bytes, "added"),
            part(files.removed, files.removed_bytes, "removed"),
            (files.same, format!("{} the same", count(files.same))),
            (files.times, format!("{} of them with another time", count(files.times))),
        ];
        card("Files", differ(files.changed + files.added + files.removed), listed(parts));
    }
    let blocks = difference.blocks();
    let part = |tally: Tally, word: &str| (tally.blocks, format!("{} {word}", count(tally.blocks)));
    let great = match blocks.moved.blocks + blocks.new.blocks + blocks.gone.blocks {
        0 => "all the same".to_owned(),
        _ => format!("{} new", size(blocks.new.bytes)),
    };
    let parts = vec![
        part(blocks.same, "same"),
        part(blocks.moved, "moved"),
        part(blocks.new, "new"),
        part(blocks.gone, "gone"),
    ];
    card("Blocks of 512 KiB", great, listed(parts));
    let sent = counted(blocks.differing.blocks, "block");
    let kept = size(blocks.added.bytes);
    card(
        "An EBS snapshot of B after A’s sends",
        size(blocks.differing.bytes),
        format!("{sent}; a store that has A keeps {kept} more"),
    );
    page.push_str("</section>\n");
}

fn volume(page: &mut String, volume: &VolumeChanges, all: bool) {
    let device = escaped(&volume.device);
    let _ = writeln!(page, "<section>\n<h2>{device}: the disk’s blocks</h2>");
    let sizes = match volume.sizes {
        (Some(a), Some(b)) if a == b => format!("{} in both images", size(a)),
        (Some(a), Some(b)) => format!("{} in A, {} in B", size(a), size(b)),
        (Some(a), None) => format!("{}, in A only", size(a)),
        (None, Some(b)) => format!("{}, in B only", size(b)),
        (None, None) => String::new(),
    };
    let picture = Picture::draw(&volume.blocks, &escaped);
    let square = match picture.unit {
        1 => "a square is a block of 512 KiB. Point at one to see which files lie there; the list below them says the same".to_owned(),
        unit => {
            let bytes = size(unit * block::BLOCK_SIZE);
            format!(
                "a square is {unit} blocks, {bytes}, and shows the greatest change in them; the list below them says which files lie there"
            )
        }
    };
    let _ = writeln!(page, "<p>{sizes}. In the pictures rows without data are left out, and {square}.</p>");
    legend(page, &volume.blocks);
    page.push_str("<div class=\"pictures\">\n<h3 class=\"A\">A, before</h3><h3 class=\"B\">B, after</h3>\n");
    for band in &picture.bands {
        let at = format!("from {}", size(band.offset));
        let _ = writeln!(
            page,
            "<p class=\"at A\">{at}</p><div class=\"A\">{}</div><p class=\"at B\">{at}</p><div class=\"B\">{}</div>",
            band.before, band.after
        );
    }
    if picture.bands.is_empty() {
        page.push_str("<p>There is nothing on this volume.</p>\n");
    }
    page.push_str("</div>\n");
    stretch_table(page, &volume.blocks, all);
    page.push_str("</section>\n");
}

fn legend(page: &mut String, blocks: &BlockChanges) {
    page.push_str("<ul class=\"legend\">\n");
    for (state, tally, what) in [
        (State::Same, blocks.same, "at the same place in both"),
        (State::Moved, blocks.moved, "in both, at another place"),
        (State::New, blocks.new, "in B, nowhere in A"),
        (State::Gone, blocks.gone, "in A, nowhere in B"),
    ] {
        let word = state.word();
        let sum = format!("{} · {}", count(tally.blocks), size(tally.bytes));
        let _ = writeln!(
            page,
            "<li><svg viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"{word}\" width=\"10\" height=\"10\"/></svg>\
             <span><strong>{word}</strong> {sum} <span class=\"faint\">{what}</span></span></li>"
        );
    }
    page.push_str("</ul>\n");
}

/// The picture in words: every stretch that is not the same.
fn stretch_table(page: &mut String, blocks: &BlockChanges, all: bool) {
    let mut rows: Vec<(&Stretch, &str)> = blocks.before.iter().map(|stretch| (stretch, "A")).collect();
    rows.extend(blocks.after.iter().map(|stretch| (stretch, "B")));
    rows.retain(|(stretch, _)| stretch.state != State::Same);
    rows.sort_by_key(|(stretch, image)| (stretch.start, *image));
    if rows.is_empty() {
        return;
    }
    let left = if all { 0 } else { rows.len().saturating_sub(ROWS) };
    let _ = writeln!(
        page,
        "<details><summary>The pictures in words: {}</summary>\n<div class=\"scroll\"><table>\n\
         <tr><th>Image</th><th class=\"number\">First block</th><th class=\"number\">Place</th><th class=\"number\">Blocks</th><th>State</th><th>Files in them</th></tr>",
        match rows.len() {
            1 => "1 stretch".to_owned(),
            number => format!("{} stretches", count(number as u64)),
        }
    );
    for (stretch, image) in &rows[..rows.len() - left] {
        let place = size(stretch.start * block::BLOCK_SIZE);
        let files = escaped(&picture::files(stretch));
        let (start, len, word) = (count(stretch.start), count(stretch.len), stretch.state.word());
        let _ = writeln!(
            page,
            "<tr><td>{image}</td><td class=\"number\">{start}</td><td class=\"number\">{place}</td><td class=\"number\">{len}</td>\
             <td class=\"word\">{word}</td><td class=\"path\">{files}</td></tr>"
        );
    }
    page.push_str("</table></div>\n");
    rest(page, left);
    page.push_str("</details>\n");
}

/// Says what a table leaves out.
fn rest(page: &mut String, left: usize) {
    if left > 0 {
        let left = count(left as u64);
        let _ = writeln!(
            page,
            "<p class=\"faint\">{left} more are left out; <code>--all</code> brings every one.</p>"
        );
    }
}

fn package_table(page: &mut String, changes: &[PackageChange]) {
    page.push_str(
        "<section>\n<h2>Packages</h2>\n<div class=\"scroll\"><table>\n<tr><th>Package</th><th>Step</th><th>Version</th></tr>\n",
    );
    for change in changes {
        let (before, after) = change.step.versions();
        let versions: Vec<_> =
            [before, after].into_iter().flatten().map(|text| safe(text.as_bytes())).collect();
        let _ = writeln!(
            page,
            "<tr><td class=\"path\">{}</td><td class=\"word\">{}</td><td class=\"path\">{}</td></tr>",
            safe(change.name.as_bytes()),
            change.step.word(),
            versions.join(" → ")
        );
    }
    page.push_str("</table></div>\n</section>\n");
}

fn partition_files(page: &mut String, device: &str, partition: &PartitionChanges, all: bool) {
    let heading = format!("{}, {}", escaped(device), escaped(&partition.title()));
    let files = match &partition.files {
        Err(why) if partition.differing_blocks > 0 => {
            let blocks = counted(partition.differing_blocks, "block");
            let _ = writeln!(
                page,
                "<section>\n<h2>{heading}</h2>\n<p>Its files are not known: {}. What differs lies in {blocks}.</p>\n</section>",
                safe(why.as_bytes())
            );
            return;
        }
        Ok(files) if !files.changes.is_empty() => files,
        _ => return,
    };
    let _ = writeln!(page, "<section>\n<h2>Files of {heading}</h2>");
    for (word, title) in [("changed", "Changed"), ("added", "Only in B"), ("removed", "Only in A")] {
        let of_word: Vec<_> = files.changes.iter().filter(|change| change.word() == word).cloned().collect();
        if !of_word.is_empty() {
            file_table(page, title, of_word, all);
        }
    }
    page.push_str("</section>\n");
}

fn file_table(page: &mut String, title: &str, changes: Vec<FileChange>, all: bool) {
    let number = changes.len();
    let bytes = changes.iter().filter_map(FileChange::bytes).fold(0, u64::saturating_add);
    let changes = FileChanges { changes, ..FileChanges::default() };
    let shown_ones = largest(&changes, if all { usize::MAX } else { ROWS });
    let open = if number <= 30 { " open" } else { "" };
    let (counted, bytes) = (counted(number as u64, "file"), size(bytes));
    let _ = writeln!(
        page,
        "<details{open}><summary><strong>{title}</strong>: {counted}, {bytes}</summary>\n<div class=\"scroll\"><table>\n\
         <tr><th>Path</th><th class=\"number\">Size</th><th>What</th></tr>"
    );
    for change in &shown_ones {
        let _ = writeln!(
            page,
            "<tr><td class=\"path\">/{}</td><td class=\"number\">{}</td><td>{}</td></tr>",
            safe(change.path.as_bytes()),
            change.bytes().map(size).unwrap_or_default(),
            escaped(&change.detail())
        );
    }
    page.push_str("</table></div>\n");
    rest(page, number - shown_ones.len());
    page.push_str("</details>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_end_what_it_stands_in() {
        assert_eq!(escaped("<script>\"a\" & 'b'"), "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;");
        assert_eq!(safe(b"</title>\x00\xff"), "&lt;/title&gt;\\x00\\xff");
    }
}
