//! The picture of a volume's blocks: rows of squares, one picture for A and one for B, over the same places of the disk.

use std::fmt::Write as _;

use block::BLOCK_SIZE;

use crate::blocks::{BlockChanges, State, Stretch};
use crate::shown::{counted, shown, size};

/// Squares in a row.
const COLUMNS: u64 = 64;
/// Most rows that have anything in them; on larger volumes a square stands for several blocks.
const ROWS: usize = 256;
/// A square's side, in the picture's own unit.
const SIDE: u64 = 10;

/// Both pictures of a volume.
pub(crate) struct Picture {
    /// Blocks that a square stands for.
    pub(crate) unit: u64,
    /// The parts of the disk that have blocks, in their order.
    pub(crate) bands: Vec<Band>,
}

/// Neighbouring rows.
pub(crate) struct Band {
    /// Where it begins, in bytes of the disk.
    pub(crate) offset: u64,
    /// A's blocks as an SVG.
    pub(crate) before: String,
    /// B's.
    pub(crate) after: String,
}

/// Neighbouring squares of one state.
struct Patch {
    square: u64,
    squares: u64,
    state: State,
    title: String,
}

impl Picture {
    /// Draws the blocks of a volume. `escape` makes of a text what may stand in a page.
    pub(crate) fn draw(changes: &BlockChanges, escape: &dyn Fn(&str) -> String) -> Self {
        let mut unit = 1;
        let rows = loop {
            let rows = rows(changes, unit);
            if rows.len() <= ROWS {
                break rows;
            }
            unit *= 2;
        };
        let (before, after) = (patches(&changes.before, unit, escape), patches(&changes.after, unit, escape));
        let bands = bands(&rows).into_iter().map(|(first, count)| Band {
            offset: first * COLUMNS * unit * BLOCK_SIZE,
            before: svg(&before, first, count, "A", unit),
            after: svg(&after, first, count, "B", unit),
        });
        Self { unit, bands: bands.collect() }
    }
}

/// The rows that have a block of A or B in them, sorted.
fn rows(changes: &BlockChanges, unit: u64) -> Vec<u64> {
    let row = |block: u64| block / unit / COLUMNS;
    let mut rows: Vec<u64> = Vec::new();
    for stretch in changes.before.iter().chain(&changes.after) {
        rows.extend(row(stretch.start)..=row(stretch.start + stretch.len - 1));
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Rows joined to `(first, count)`; a single empty one between others is drawn with them.
fn bands(rows: &[u64]) -> Vec<(u64, u64)> {
    let mut bands: Vec<(u64, u64)> = Vec::new();
    for row in rows {
        match bands.last_mut().filter(|(first, count)| *row <= first + count + 1) {
            Some((first, count)) => *count = row - *first + 1,
            None => bands.push((*row, 1)),
        }
    }
    bands
}

fn patches(stretches: &[Stretch], unit: u64, escape: &dyn Fn(&str) -> String) -> Vec<Patch> {
    if unit == 1 {
        let patch = |stretch: &Stretch| Patch {
            square: stretch.start,
            squares: stretch.len,
            state: stretch.state,
            title: escape(&title(stretch)),
        };
        return stretches.iter().map(patch).collect();
    }
    // A square shows the greatest change in it: a stretch may share its first and last square with others.
    let mut patches: Vec<Patch> = Vec::new();
    let mut push = |square: u64, squares: u64, state: State| match patches
        .last_mut()
        .filter(|last| last.state == state && last.square + last.squares == square)
    {
        Some(last) => last.squares += squares,
        None => patches.push(Patch { square, squares, state, title: String::new() }),
    };
    let mut pending: Option<(u64, State)> = None;
    for stretch in stretches {
        let (first, last) = (stretch.start / unit, (stretch.start + stretch.len - 1) / unit);
        let mut from = first;
        if let Some((square, state)) = pending.take() {
            let shared = square == first;
            let state = if shared { state.max(stretch.state) } else { state };
            if shared && first == last {
                pending = Some((square, state));
                continue;
            }
            push(square, 1, state);
            from += u64::from(shared);
        }
        if last > from {
            push(from, last - from, stretch.state);
        }
        pending = Some((last, stretch.state));
    }
    if let Some((square, state)) = pending {
        push(square, 1, state);
    }
    for patch in &mut patches {
        let (from, to) = (patch.square * unit, (patch.square + patch.squares) * unit);
        let place = format!("{} to {}", size(from * BLOCK_SIZE), size(to * BLOCK_SIZE));
        patch.title = escape(&format!("{place}: {} in every square", patch.state.word()));
    }
    patches
}

/// What a stretch is, in a line: where, how much, in which state, whose bytes.
pub(crate) fn title(stretch: &Stretch) -> String {
    let last = stretch.start + stretch.len - 1;
    let blocks = match stretch.len {
        1 => format!("block {last}"),
        _ => format!("blocks {} to {last}", stretch.start),
    };
    let place = size(stretch.start * BLOCK_SIZE);
    format!("{blocks} at {place}: {}; {}", stretch.state.word(), files(stretch))
}

/// Which files lie in a stretch, some by name.
pub(crate) fn files(stretch: &Stretch) -> String {
    if stretch.file_count == 0 {
        return "no file".to_owned();
    }
    let named: Vec<_> = stretch.files.iter().map(|path| format!("/{}", shown(path.as_bytes()))).collect();
    match stretch.file_count - named.len() as u64 {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// One band of one image. A patch that goes over several rows is one shape.
fn svg(patches: &[Patch], first: u64, count: u64, image: &str, unit: u64) -> String {
    let (start, end) = (first * COLUMNS, (first + count) * COLUMNS);
    let inside: Vec<_> =
        patches.iter().filter(|patch| patch.square < end && patch.square + patch.squares > start).collect();
    let sum = |state| -> u64 {
        inside
            .iter()
            .filter(|patch| patch.state == state)
            .map(|patch| (patch.square + patch.squares).min(end) - patch.square.max(start))
            .sum()
    };
    let sums: Vec<_> = [State::Same, State::Moved, State::New, State::Gone]
        .into_iter()
        .map(|state| (sum(state), state.word()))
        .filter(|(sum, _)| *sum > 0)
        .map(|(sum, word)| format!("{sum} {word}"))
        .collect();
    let what = if unit == 1 { "block" } else { "square" };
    let sums = if sums.is_empty() { "no data".to_owned() } else { sums.join(", ") };
    let label = format!(
        "{image} from {} on, {}: {sums}",
        size(start * unit * BLOCK_SIZE),
        counted(count * COLUMNS, what)
    );
    let (width, height) = (COLUMNS * SIDE, count * SIDE);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\"><rect class=\"empty\" width=\"{width}\" height=\"{height}\"/>"
    );
    for patch in inside {
        let mut shape = String::new();
        let (mut at, to) = (patch.square.max(start), (patch.square + patch.squares).min(end));
        while at < to {
            let row_end = (at / COLUMNS + 1) * COLUMNS;
            let stop = to.min(row_end);
            let (x, y, w) = (at % COLUMNS * SIDE, (at - start) / COLUMNS * SIDE, (stop - at) * SIDE);
            let _ = write!(shape, "M{x} {y}h{w}v{SIDE}h-{w}z");
            at = stop;
        }
        let _ = write!(
            svg,
            "<path class=\"{}\" d=\"{shape}\"><title>{}</title></path>",
            patch.state.word(),
            patch.title
        );
    }
    let _ = write!(svg, "<rect class=\"grid\" width=\"{width}\" height=\"{height}\"/></svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(start: u64, len: u64, state: State) -> Stretch {
        Stretch { start, len, state, files: Vec::new(), file_count: 0 }
    }

    fn drawn(before: Vec<Stretch>, after: Vec<Stretch>) -> Picture {
        Picture::draw(&BlockChanges { before, after, ..BlockChanges::default() }, &|text| text.to_owned())
    }

    #[test]
    fn rows_without_blocks_are_left_out() {
        let picture = drawn(
            vec![stretch(0, 70, State::Same), stretch(10_000, 1, State::Gone)],
            vec![stretch(0, 70, State::Same), stretch(200, 1, State::New)],
        );
        assert_eq!(picture.unit, 1);
        let offsets: Vec<_> = picture.bands.iter().map(|band| band.offset / BLOCK_SIZE).collect();
        assert_eq!(offsets, [0, 156 * 64]);
        assert!(picture.bands[0].after.contains("B from 0 B on, 256 blocks: 70 same, 1 new"));
        assert!(picture.bands[1].after.contains("no data"));
        assert!(picture.bands[0].before.contains("M0 0h640v10h-640zM0 10h60v10h-60z"));
        assert!(picture.bands[1].before.contains("block 10000 at 4.9 GiB: gone; no file"));
        assert!(drawn(Vec::new(), Vec::new()).bands.is_empty());
    }

    #[test]
    fn a_square_of_several_blocks_shows_the_greatest_change() {
        let far = COLUMNS * (ROWS as u64 + 100);
        let picture = drawn(
            Vec::new(),
            vec![stretch(0, 3, State::Same), stretch(3, 1, State::New), stretch(4, far, State::Same)],
        );
        assert_eq!(picture.unit, 2);
        let band = &picture.bands[0].after;
        assert!(band.contains("<path class=\"same\" d=\"M0 0h10v10h-10z\">"), "{band}");
        assert!(band.contains("<path class=\"new\" d=\"M10 0h10v10h-10z\">"), "{band}");
        assert!(band.contains("1.0 MiB to 2.0 MiB: new in every square"), "{band}");
    }
}
