//! `${{ name }}` in texts.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Code;
use crate::diagnostic::{Diagnostic, Span};
use crate::nearest::nearest;
use crate::yaml::{Node, Scalar, Value};

/// The longest text that variables may make, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// How many bytes all texts of a recipe may hold once variables are put in.
const MAX_TOTAL: usize = 32 << 20;

/// One piece of a text.
enum Piece<'a> {
    Text(&'a str),
    /// What stands between `${{` and `}}`, and the place of the whole, in bytes; no name when it is never closed.
    Use(Option<&'a str>, Range<usize>),
}

/// Takes a text apart. `$${{` stands for `${{` itself.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find("${{").map(|found| at + found) {
        if text[done..found].ends_with('$') {
            pieces.push(Piece::Text(&text[done..found - 1]));
            pieces.push(Piece::Text("${{"));
            at = found + 3;
            done = at;
            continue;
        }
        pieces.push(Piece::Text(&text[done..found]));
        match text[found..].find("}}").map(|close| found + close) {
            Some(close) => {
                pieces.push(Piece::Use(Some(text[found + 3..close].trim()), found..close + 2));
                at = close + 2;
            }
            None => {
                pieces.push(Piece::Use(None, found..found + 3));
                at = found + 3;
            }
        }
        done = at;
    }
    pieces.push(Piece::Text(&text[done..]));
    pieces
}

/// Whether a text uses a variable, or writes `$${{`.
fn uses_variables(text: &str) -> bool {
    text.contains("${{")
}

/// The names that variables may have.
pub(crate) fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Variables with their final texts.
pub(crate) struct Variables {
    values: BTreeMap<String, String>,
    /// Names that exist but have no value here, with the reason.
    withheld: BTreeMap<String, &'static str>,
    made: usize,
}

/// A variable as it is defined: a text that may use others.
pub(crate) struct Definition {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Variables {
    /// Works out every variable's text, those that use others after them. Uses of variables that do not exist, or
    /// that need themselves, are problems. `fixed` are those that the program gives.
    pub(crate) fn resolve(
        definitions: &BTreeMap<String, Definition>,
        fixed: BTreeMap<String, String>,
        withheld: BTreeMap<String, &'static str>,
        problems: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut variables = Self { values: fixed, withheld, made: 0 };
        for name in definitions.keys() {
            variables.settle(name, definitions, &mut Vec::new(), problems);
        }
        variables
    }

    fn settle(
        &mut self,
        name: &str,
        definitions: &BTreeMap<String, Definition>,
        open: &mut Vec<String>,
        problems: &mut Vec<Diagnostic>,
    ) {
        if self.values.contains_key(name) {
            return;
        }
        let Some(definition) = definitions.get(name) else { return };
        if open.iter().any(|other| other == name) || open.len() > 64 {
            problems.push(
                definition
                    .span
                    .error(
                        Code::Variable,
                        format!("the variable `{name}` needs itself"),
                        format!("{} → {name}", open.join(" → ")),
                    )
                    .help("give one of them a text of its own"),
            );
            self.values.insert(name.to_owned(), String::new());
            return;
        }
        open.push(name.to_owned());
        for piece in pieces(&definition.text) {
            if let Piece::Use(Some(used), _) = piece {
                self.settle(used, definitions, open, problems);
            }
        }
        open.pop();
        if !self.values.contains_key(name) {
            let all: Vec<String> = definitions.keys().chain(self.values.keys()).cloned().collect();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let text = self.expand(&definition.text, &definition.span, &all, problems);
            self.values.insert(name.to_owned(), text);
        }
    }

    fn expand(&mut self, text: &str, span: &Span, all: &[&str], problems: &mut Vec<Diagnostic>) -> String {
        if !uses_variables(text) {
            return text.to_owned();
        }
        let mut out = String::new();
        let mut nth = 0;
        for piece in pieces(text) {
            let name = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Piece::Use(name, _) => name,
            };
            // Looked for only when there is something to tell.
            let at = nth;
            let here = || place(span, at);
            nth += 1;
            let Some(name) = name else {
                problems.push(
                    here()
                        .error(Code::Variable, "a variable is not closed", "begins here")
                        .help("write ${{ name }}, or $${{ for the three characters themselves"),
                );
                continue;
            };
            if let Some(value) = self.values.get(name) {
                out.push_str(value);
            } else if let Some(reason) = self.withheld.get(name) {
                problems.push(here().error(
                    Code::Variable,
                    format!("the variable `{name}` has no value here"),
                    *reason,
                ));
            } else if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                problems.push(
                    here()
                        .error(Code::Variable, "this is not a variable's name", "small letters, digits and _")
                        .help("write ${{ name }}, or $${{ for the three characters themselves"),
                );
            } else {
                let mut known: Vec<&str> = all.to_vec();
                known.extend(self.withheld.keys().map(String::as_str));
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("define it: vars: {{{name}: …}}"),
                };
                problems.push(
                    here()
                        .error(Code::UnknownVariable, format!("unknown variable `{name}`"), "defined nowhere")
                        .help(help),
                );
            }
        }
        self.made = self.made.saturating_add(out.len());
        if out.len() > MAX_TEXT || self.made > MAX_TOTAL {
            problems.push(
                span.error(
                    Code::TooLarge,
                    "a text grows too large when its variables are put in",
                    "this one",
                )
                .help(format!(
                    "a text may hold {} MiB, all of them {} MiB",
                    MAX_TEXT >> 20,
                    MAX_TOTAL >> 20
                )),
            );
            return String::new();
        }
        out
    }

    /// The same tree with every text's variables put in.
    pub(crate) fn substitute(&mut self, node: &Node, problems: &mut Vec<Diagnostic>) -> Node {
        let value = match &node.value {
            Value::Scalar(scalar) if uses_variables(&scalar.text) => {
                let all: Vec<String> = self.values.keys().cloned().collect();
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                let text = self.expand(&scalar.text, &node.span, &all, problems);
                Value::Scalar(Scalar { text, plain: false, substituted: true })
            }
            Value::Wrong => Value::Wrong,
            Value::Scalar(scalar) => Value::Scalar(scalar.clone()),
            Value::List(items) => {
                Value::List(items.iter().map(|item| self.substitute(item, problems)).collect())
            }
            Value::Map(entries) => Value::Map(
                entries.iter().map(|(key, value)| (key.clone(), self.substitute(value, problems))).collect(),
            ),
        };
        Node { span: node.span.clone(), value }
    }
}

/// Where in the file the `nth` use of a variable in a text stands; the whole text when its writing hides it.
fn place(span: &Span, nth: usize) -> Span {
    let uses = pieces(span.text()).into_iter().filter_map(|piece| match piece {
        Piece::Use(_, range) => Some(range),
        Piece::Text(_) => None,
    });
    match uses.into_iter().nth(nth) {
        Some(range) => span.part(range),
        None => span.clone(),
    }
}
