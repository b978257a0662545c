//! Debian's control syntax: paragraphs of `Field: value`, and the relations between packages.

use std::collections::HashSet;
use std::fmt;

/// A place in a control file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct ControlError {
    /// The file's name, as the reader of the message knows it.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// One field of a paragraph, borrowed from the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The field's name, as written.
    pub name: &'a str,
    /// The value without the white space around it. Continuation lines keep their line feed and leading space;
    /// a comment between them stays.
    pub value: &'a str,
    /// Line of the field's name, counted from 1.
    pub line: usize,
}

/// Reads the paragraphs of a text one after the other; copies nothing.
#[derive(Clone, Debug)]
pub struct Paragraphs<'a> {
    file: &'a str,
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Paragraphs<'a> {
    /// The paragraphs of `text`; `file` names it in errors.
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, at: 0, line: 0 }
    }

    fn error(&self, what: String) -> ControlError {
        ControlError { file: self.file.to_owned(), line: self.line, what }
    }

    fn next_line(&mut self) -> Option<(usize, &'a str)> {
        let start = self.at;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let (line, next) = match memchr::memchr(b'\n', rest.as_bytes()) {
            Some(end) => (&rest[..end], start + end + 1),
            None => (rest, self.text.len()),
        };
        self.at = next;
        self.line += 1;
        Some((start, line))
    }

    /// Reads the next paragraph into `fields`, which is emptied first; false at the end of the text.
    /// One buffer for all paragraphs keeps a large index fast to read.
    pub fn read(&mut self, fields: &mut Vec<Field<'a>>) -> Result<bool, ControlError> {
        fields.clear();
        // Where the value of the last field starts and ends in the text.
        let mut value = (0, 0);
        while let Some((start, line)) = self.next_line() {
            let end = start + line.len();
            match line.as_bytes().first() {
                Some(b' ' | b'\t') => {
                    if line.trim_ascii().is_empty() {
                        if fields.is_empty() {
                            continue;
                        }
                        break;
                    }
                    let Some(last) = fields.last_mut() else {
                        return Err(self.error("a continuation line without a field before it".into()));
                    };
                    value.1 = end;
                    last.value = self.text[value.0..value.1].trim_ascii();
                }
                Some(b'#') => {}
                None | Some(b'\r') if line.trim_ascii().is_empty() => {
                    if !fields.is_empty() {
                        break;
                    }
                }
                _ => {
                    let Some(colon) = memchr::memchr(b':', line.as_bytes()) else {
                        return Err(self.error(format!("expected `Field: value`, found {line:?}")));
                    };
                    let name = &line[..colon];
                    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                        return Err(self.error(format!("{name:?} is no field name")));
                    }
                    value = (start + colon + 1, end);
                    let text = self.text[value.0..value.1].trim_ascii();
                    fields.push(Field { name, value: text, line: self.line });
                }
            }
        }
        Ok(!fields.is_empty())
    }
}

/// A paragraph that owns its text: fields in the order in which they were written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Paragraph {
    fields: Vec<(String, String)>,
}

impl Paragraph {
    /// Reads a text that holds one paragraph. An empty text, a second paragraph and a repeated field are errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, ControlError> {
        let mut paragraphs = Paragraphs::new(file, text);
        let mut fields = Vec::new();
        if !paragraphs.read(&mut fields)? {
            return Err(ControlError { file: file.into(), line: 1, what: "no field at all".into() });
        }
        let first = Self::from_fields(file, &fields)?;
        if paragraphs.read(&mut fields)? {
            let line = fields[0].line;
            return Err(ControlError { file: file.into(), line, what: "a second paragraph".into() });
        }
        Ok(first)
    }

    /// Copies borrowed fields; a field that comes twice is an error.
    pub fn from_fields(file: &str, fields: &[Field<'_>]) -> Result<Self, ControlError> {
        let mut paragraph = Self::default();
        let mut names = HashSet::new();
        for field in fields {
            if !names.insert(field.name.to_ascii_lowercase()) {
                let what = format!("field {} comes twice", field.name);
                return Err(ControlError { file: file.into(), line: field.line, what });
            }
            paragraph.fields.push((field.name.to_owned(), field.value.to_owned()));
        }
        Ok(paragraph)
    }

    /// Reads all paragraphs of a text.
    pub fn parse_all(file: &str, text: &str) -> Result<Vec<Self>, ControlError> {
        let mut paragraphs = Paragraphs::new(file, text);
        let (mut fields, mut all) = (Vec::new(), Vec::new());
        while paragraphs.read(&mut fields)? {
            all.push(Self::from_fields(file, &fields)?);
        }
        Ok(all)
    }

    /// The value of a field, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All fields, in the order in which they were written.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl fmt::Display for Paragraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}

impl fmt::Debug for Paragraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.fields()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_keep_their_lines_and_paragraphs_end_at_blank_lines() {
        let text = "\n# comment\nA: 1\nB:\n two\n  three\n .\n# comment\n four \nC : x\n \t\n\nD: last";
        let mut paragraphs = Paragraphs::new("x", text);
        let mut fields = Vec::new();
        assert!(paragraphs.read(&mut fields).is_err(), "a name with a blank in it");
        let text = text.replace("C :", "C:");
        let mut paragraphs = Paragraphs::new("x", &text);
        assert!(paragraphs.read(&mut fields).unwrap());
        let shown: Vec<_> = fields.iter().map(|field| (field.name, field.value, field.line)).collect();
        assert_eq!(shown[0], ("A", "1", 3));
        assert_eq!((shown[1].0, shown[1].2), ("B", 4));
        assert_eq!(shown[2], ("C", "x", 10));
        assert!(paragraphs.read(&mut fields).unwrap());
        assert_eq!((fields[0].name, fields[0].value, fields[0].line), ("D", "last", 13));
        assert!(!paragraphs.read(&mut fields).unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        let message = |text| Paragraph::parse("control", text).unwrap_err().to_string();
        assert_eq!(message("A: 1\nno colon\n"), "control:2: expected `Field: value`, found \"no colon\"");
        assert_eq!(message("  first\n"), "control:1: a continuation line without a field before it");
        assert_eq!(message("A: 1\na: 2\n"), "control:2: field a comes twice");
        assert_eq!(message("A: 1\n\nB: 2\n"), "control:3: a second paragraph");
        assert_eq!(message("\n\n"), "control:1: no field at all");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([A-C]: ?[a-z:#é]{0,4}\r?\n| [a-z .#]{0,3}\n|\n|#[a-z]?\n|.{0,5}){0,12}") {
            let mut paragraphs = Paragraphs::new("x", &text);
            let mut fields = Vec::new();
            while let Ok(true) = paragraphs.read(&mut fields) {
                prop_assert!(!fields.is_empty());
                for field in &fields {
                    prop_assert!(text.lines().nth(field.line - 1).unwrap().starts_with(field.name));
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            // Capitals alone: names that differ by case are one field.
            fields in prop::collection::btree_map("[A-Z][A-Z-]{0,6}", "[!-~]([ -~]{0,8}[!-~])?(\n [!-~]{1,4}){0,3}", 1..6),
        ) {
            let text: String = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let paragraph = Paragraph::parse("x", &text).unwrap();
            let read: Vec<_> = paragraph.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(read, fields.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(paragraph.to_string(), text);
        }
    }
}
