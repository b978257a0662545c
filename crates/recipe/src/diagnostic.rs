use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use crate::Code;

/// The text that a recipe, a base or a `--set` was read from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// What messages call it: the path as the user wrote it, `builtin:…`, or `--set`.
    pub(crate) name: PathBuf,
    /// The folder that its `source:` keys are relative to; none for what is not a file.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) text: String,
    /// How far it is from the recipe itself: 0, then 1 for its base, and so on.
    pub(crate) depth: usize,
    /// Whether it lies outside of the recipe's folder.
    pub(crate) outside: bool,
}

/// A place in a recipe: which file, which bytes of it. Cheap to clone; makes diagnostics that point at it.
#[derive(Clone, PartialEq, Eq)]
pub struct Span {
    file: Arc<SourceFile>,
    start: usize,
    end: usize,
}

impl Span {
    pub(crate) fn new(file: &Arc<SourceFile>, range: Range<usize>) -> Self {
        let start = floor_boundary(&file.text, range.start);
        let end = floor_boundary(&file.text, range.end).max(start);
        Self { file: Arc::clone(file), start, end }
    }

    pub(crate) fn source(&self) -> &Arc<SourceFile> {
        &self.file
    }

    /// The file, by the name that messages use.
    pub fn file(&self) -> &Path {
        &self.file.name
    }

    /// The bytes of the file that the span covers.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The text that the span covers.
    pub fn text(&self) -> &str {
        &self.file.text[self.start..self.end]
    }

    /// The part of the span that covers `range` of its text.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        Self::new(&self.file, self.start + range.start..(self.start + range.end).min(self.end))
    }

    /// Line and column of the first character, both counted from 1, columns in characters.
    pub fn position(&self) -> (usize, usize) {
        position(&self.file.text, self.start)
    }

    /// Line and column just after the last character that is not a space or a line break.
    fn end_position(&self) -> (usize, usize) {
        let covered = self.text().trim_end().len();
        position(&self.file.text, if covered == 0 { self.end } else { self.start + covered })
    }

    /// An error that points here; `label` stands beside the underlined text.
    pub fn error(&self, code: Code, message: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Severity::Error, code, self, message.into(), label.into())
    }

    /// A warning that points here.
    pub fn warning(&self, code: Code, message: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        Diagnostic::at(Severity::Warning, code, self, message.into(), label.into())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        write!(f, "{}:{line}:{column}", self.file.name.display())
    }
}

fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The recipe cannot be baked.
    Error,
    /// It can, but something about it deserves a look.
    Warning,
}

/// One thing to tell about a recipe: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of mistake it is.
    pub code: Code,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The file, as the user named it.
    pub file: PathBuf,
    /// Line, counted from 1; 0 when the message is about the file as a whole.
    pub line: usize,
    /// Column in characters, counted from 1; 0 when the message is about the file as a whole.
    pub column: usize,
    /// The line in which it ends; 0 when the message is about the file as a whole.
    pub end_line: usize,
    /// The column after its last character; 0 when the message is about the file as a whole.
    pub end_column: usize,
    /// The bytes of the file that are underlined.
    pub span: Range<usize>,
    /// The line of the file, as it stands there; empty when the message is about the file as a whole.
    pub source_line: String,
    /// Characters of `source_line` to underline.
    pub width: usize,
    /// What to say beside the underlined text; may be empty.
    pub label: String,
    /// What else there is to know, a line each.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    fn at(severity: Severity, code: Code, span: &Span, message: String, label: String) -> Self {
        let text = &span.file.text;
        let (line, column) = span.position();
        let (end_line, end_column) = span.end_position();
        let line_start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[span.start..].find('\n').map_or(text.len(), |at| span.start + at);
        let covered = text[span.start..span.end.min(line_end)].trim_end();
        Self {
            severity,
            code,
            message,
            file: span.file.name.clone(),
            line,
            column,
            end_line,
            end_column,
            span: span.range(),
            source_line: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            width: covered.chars().count().max(1),
            label,
            notes: Vec::new(),
            help: None,
        }
    }

    /// An error about a file as a whole: it is missing, too large, not text.
    pub fn about_file(code: Code, file: &Path, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            file: file.to_owned(),
            line: 0,
            column: 0,
            end_line: 0,
            end_column: 0,
            span: 0..0,
            source_line: String::new(),
            width: 0,
            label: String::new(),
            notes: Vec::new(),
            help: None,
        }
    }

    /// The same, with something else to know.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same, with advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, with advice if there is any.
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    fn render(&self, paint: Paint, out: &mut dyn fmt::Write) -> fmt::Result {
        let (word, colour) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        writeln!(
            out,
            "{}{}",
            paint.with(colour, word),
            paint.with("1", &format!(": {}", printable(&self.message)))
        )?;
        let file = printable(&self.file.display().to_string());
        if self.line == 0 {
            writeln!(out, " {} {file}", paint.with("1;34", "-->"))?;
            return self.render_advice(" ", paint, out);
        }
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let bar = paint.with("1;34", "|");
        let (line, before) = window(&self.source_line, self.column - 1, self.width);
        let carets = "^".repeat(self.width.min(line.chars().count().saturating_sub(before)).max(1));
        let label =
            if self.label.is_empty() { String::new() } else { format!(" {}", printable(&self.label)) };
        writeln!(out, "{margin}{} {file}:{}:{}", paint.with("1;34", "-->"), self.line, self.column)?;
        writeln!(out, "{margin} {bar}")?;
        writeln!(out, "{} {bar} {line}", paint.with("1;34", &number))?;
        writeln!(
            out,
            "{margin} {bar} {}{}",
            " ".repeat(before),
            paint.with(colour, &format!("{carets}{label}"))
        )?;
        self.render_advice(&margin, paint, out)
    }

    fn render_advice(&self, margin: &str, paint: Paint, out: &mut dyn fmt::Write) -> fmt::Result {
        let sign = paint.with("1;34", "=");
        for note in &self.notes {
            writeln!(out, "{margin} {sign} note: {}", printable(note))?;
        }
        if let Some(help) = &self.help {
            writeln!(out, "{margin} {sign} help: {}", printable(help))?;
        }
        Ok(())
    }
}

/// The longest line that is shown whole, in characters.
const SHOWN: usize = 120;

/// The part of a line around the underlined text, fit for a terminal, and how many characters of it stand before
/// the underlined text.
fn window(line: &str, column: usize, width: usize) -> (String, usize) {
    let line: Vec<char> = line.chars().map(printable_char).collect();
    if line.len() <= SHOWN {
        return (line.into_iter().collect(), column);
    }
    let from = if column + width <= SHOWN { 0 } else { column.saturating_sub(SHOWN / 3) };
    let to = (from + SHOWN).min(line.len());
    let mut shown: String = if from > 0 { "…".to_owned() } else { String::new() };
    shown.extend(&line[from..to]);
    if to < line.len() {
        shown.push('…');
    }
    (shown, column - from + usize::from(from > 0))
}

fn printable_char(c: char) -> char {
    match c {
        '\t' => ' ',
        c if block::is_obeyed(c) => '\u{fffd}',
        c => c,
    }
}

fn printable(text: &str) -> String {
    text.chars().map(printable_char).collect()
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// All that there is to tell about a recipe, in the order of files and lines. Displays as text for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Text for people: each with file, line, column and the underlined text; with terminal colours or without.
    pub fn render(&self, colour: bool) -> String {
        let mut out = String::new();
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            // Writing into a String cannot fail.
            let _ = diagnostic.render(Paint(colour), &mut out);
        }
        out
    }

    /// One JSON array, an object for each diagnostic: `file`, `line`, `column`, `end_line`, `end_column` (from 1, in
    /// characters, the end exclusive; 0 where the message is about a file as a whole), `start` and `end` (bytes of the
    /// file), `severity` (`error`, `warning`), `code`, `message`, `label` (may be empty), `notes` (a list of texts) and `help`
    /// (may be null).
    pub fn to_json(&self) -> serde_json::Value {
        self.0
            .iter()
            .map(|d| {
                json!({
                    "file": d.file.to_string_lossy(), "line": d.line, "column": d.column, "end_line": d.end_line,
                    "end_column": d.end_column, "start": d.span.start, "end": d.span.end, "severity": d.severity,
                    "code": d.code, "message": d.message, "label": d.label, "notes": d.notes,
                    "help": d.help,
                })
            })
            .collect()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}
