//! Debian's control syntax: paragraphs of `Field: value`, and the relations between packages.

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
    /// The value without the white space around it. Continuation lines keep their line feed and leading space.
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
        for field in fields {
            if paragraph.get(field.name).is_some() {
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
