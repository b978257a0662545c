//! YAML text into a tree in which every value knows its place. Bounded in size, depth and expansion.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle};

use crate::Code;
use crate::diagnostic::{Diagnostic, SourceFile, Span};

/// The largest recipe file, in bytes.
pub(crate) const MAX_FILE: u64 = 1 << 20;
/// How deep lists and mappings may nest.
const MAX_DEPTH: usize = 32;
/// How many values a file may hold after its aliases are expanded.
const MAX_NODES: usize = 100_000;
/// How many bytes of text a file may hold after its aliases are expanded.
const MAX_TEXT: usize = 8 << 20;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
    /// Something else than what belongs here, which was said already.
    Wrong,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) span: Span,
    pub(crate) text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    /// The text, never turned into a number or back.
    pub(crate) text: String,
    /// Written without quotes, so it may stand for a number, a truth value or nothing.
    pub(crate) plain: bool,
    /// Made by variables, so it may stand for a number or a truth value.
    pub(crate) substituted: bool,
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.plain && matches!(s.text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|(name, node)| name.text == key && !node.is_null()).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    pub(crate) fn key(&self, key: &str) -> Option<&Key> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name.text == key).map(|(name, _)| name),
            _ => None,
        }
    }

    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    pub(crate) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) if !self.is_null() => Some(scalar),
            _ => None,
        }
    }

    /// What the value is, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Wrong => "nothing",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(scalar) if scalar.plain && matches!(scalar.text.as_str(), "true" | "false") => {
                "a truth value"
            }
            Value::Scalar(scalar) if scalar.plain && scalar.text.parse::<f64>().is_ok() => "a number",
            Value::Scalar(_) => "text",
        }
    }

    fn weight(&self) -> (usize, usize) {
        let add = |(nodes, text): (usize, usize), node: &Node| {
            let (more, longer) = node.weight();
            (nodes + more, text + longer)
        };
        match &self.value {
            Value::Wrong => (1, 0),
            Value::Scalar(scalar) => (1, scalar.text.len()),
            Value::List(items) => items.iter().fold((1, 0), add),
            Value::Map(entries) => entries.iter().fold((1, 0), |sum, (key, node)| {
                let (nodes, text) = add(sum, node);
                (nodes, text + key.text.len())
            }),
        }
    }
}

/// Reads one document. Repeated keys and the like are added to `problems`; what cannot be read at all gives `None`.
pub(crate) fn parse(file: &Arc<SourceFile>, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        block_nesting_limit: 2 * MAX_DEPTH,
        flow_nesting_limit: 2 * MAX_DEPTH,
    };
    let mut builder =
        Builder { file, problems, stack: Vec::new(), root: None, anchors: HashMap::new(), nodes: 0, text: 0 };
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(&file.text, options) {
        match event {
            Ok((Event::DocumentStart(..), span)) => {
                documents += 1;
                if documents == 2 {
                    let at = span.byte_range().unwrap_or(0..0);
                    let second = Span::new(file, at);
                    builder.problems.push(
                        second
                            .error(
                                Code::NotYaml,
                                "a recipe is one document, this file holds several",
                                "a second document begins",
                            )
                            .help("keep one document in the file"),
                    );
                    return None;
                }
            }
            Ok((event, span)) => {
                if let Err(problem) = builder.event(event, span) {
                    builder.problems.push(*problem);
                    return None;
                }
            }
            Err(error) => {
                let at = error.marker().byte_offset().unwrap_or(0);
                let span = Span::new(file, at..at + 1);
                let line = line_of(&file.text, at);
                let diagnostic =
                    span.error(Code::NotYaml, "this is not YAML", error.info().replace('\n', ", "));
                builder.problems.push(if line.contains("${{") {
                    diagnostic.help("inside [ ] or { } a text with ${{ … }} must stand in quotes")
                } else if line.contains('\t') {
                    diagnostic.help("indent with spaces, YAML takes no tabs")
                } else {
                    diagnostic.help("look at the indentation, the quotes and the brackets on this line and the one before")
                });
                return None;
            }
        }
    }
    match builder.root {
        Some(root) => Some(root),
        None => {
            builder.problems.push(
                Diagnostic::about_file(Code::EmptyFile, &file.name, "the file is empty")
                    .help("a recipe has at least a `name:`"),
            );
            None
        }
    }
}

fn line_of(text: &str, at: usize) -> &str {
    let at = at.min(text.len());
    let start = text.as_bytes()[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let end =
        text.as_bytes()[at..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |more| at + more);
    text.get(start..end).unwrap_or("")
}

enum Open {
    List { start: usize, anchor: usize, items: Vec<Node> },
    Map { start: usize, anchor: usize, entries: Vec<(Key, Node)>, key: Option<Key> },
}

struct Builder<'a> {
    file: &'a Arc<SourceFile>,
    problems: &'a mut Vec<Diagnostic>,
    stack: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    text: usize,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, place: granit_parser::Span) -> Result<(), Box<Diagnostic>> {
        let span = Span::new(self.file, place.byte_range().unwrap_or(0..0));
        let tag_span =
            place.tag_span().and_then(|tag| tag.byte_range()).map(|range| Span::new(self.file, range));
        let tag_span = tag_span.as_ref().unwrap_or(&span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tagged = self.tag(tag.as_deref(), tag_span);
                let plain = style == ScalarStyle::Plain && !tagged;
                self.count((1, text.len()), &span)?;
                let node = Node {
                    span,
                    value: Value::Scalar(Scalar { text: text.into_owned(), plain, substituted: false }),
                };
                self.finish(node, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), tag_span);
                self.open(Open::List { start: span.range().start, anchor, items: Vec::new() }, &span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(tag.as_deref(), tag_span);
                self.open(
                    Open::Map { start: span.range().start, anchor, entries: Vec::new(), key: None },
                    &span,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let end = span.range().end;
                match self.stack.pop() {
                    Some(Open::List { start, anchor, items }) => {
                        let end = items.last().map_or(end, |node| node.span.range().end.max(start));
                        let node = Node { span: Span::new(self.file, start..end), value: Value::List(items) };
                        self.finish(node, anchor)
                    }
                    Some(Open::Map { start, anchor, entries, .. }) => {
                        let end = entries.last().map_or(end, |(_, node)| node.span.range().end.max(start));
                        let node =
                            Node { span: Span::new(self.file, start..end), value: Value::Map(entries) };
                        self.finish(node, anchor)
                    }
                    None => Ok(()),
                }
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).map(Node::weight) {
                Some(weight) => {
                    self.count(weight, &span)?;
                    match self.anchors.get(&anchor).cloned() {
                        Some(node) => self.finish(node, 0),
                        None => Ok(()),
                    }
                }
                None => Err(Box::new(
                    span.error(
                        Code::NotYaml,
                        "an alias inside the value that it names",
                        "this would never end",
                    )
                    .help("write the value out"),
                )),
            },
            Event::UnresolvedAlias(name) => {
                let message = format!("the alias `*{name}` names no anchor");
                self.problems.push(
                    span.error(Code::NotYaml, message, "nothing above is marked with this name").help(
                        format!("mark a value with `&{name}` above this line, or put the text in quotes"),
                    ),
                );
                let node = Node {
                    span,
                    value: Value::Scalar(Scalar { text: String::new(), plain: true, substituted: false }),
                };
                self.finish(node, 0)
            }
            _ => Ok(()),
        }
    }

    /// Whether the value is marked as text; any other tag is a problem.
    fn tag(&mut self, tag: Option<&granit_parser::Tag>, span: &Span) -> bool {
        match tag {
            None => false,
            Some(tag) if tag.core_suffix() == Some("str") => true,
            Some(tag) => {
                let message = format!("the tag `{}` has no meaning in a recipe", tag.original());
                self.problems.push(span.error(Code::NotYaml, message, "tagged").help("take the tag away"));
                false
            }
        }
    }

    fn open(&mut self, open: Open, span: &Span) -> Result<(), Box<Diagnostic>> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(Box::new(
                span.error(Code::TooLarge, "nested too deeply", format!("more than {MAX_DEPTH} levels"))
                    .help("a recipe needs five levels at most"),
            ));
        }
        self.stack.push(open);
        self.count((1, 0), span)
    }

    /// Counts values and text, so that aliases cannot make a small file grow without end.
    fn count(&mut self, (nodes, text): (usize, usize), span: &Span) -> Result<(), Box<Diagnostic>> {
        self.nodes += nodes;
        self.text += text;
        if self.nodes > MAX_NODES || self.text > MAX_TEXT {
            return Err(Box::new(
                span.error(
                    Code::TooLarge,
                    "the file holds too much, with its aliases expanded",
                    "at this value",
                )
                .help(format!("a recipe may hold {MAX_NODES} values and {} MiB of text", MAX_TEXT >> 20)),
            ));
        }
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Box<Diagnostic>> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some(key) => {
                    match entries.iter().find(|(earlier, _)| earlier.text == key.text) {
                        Some((earlier, _)) => self.problems.push(
                            key.span
                                .error(
                                    Code::RepeatedKey,
                                    format!("the key `{}` stands here twice", key.text),
                                    "the second time",
                                )
                                .help(format!(
                                    "its first place is line {}: keep one of them",
                                    earlier.span.position().0
                                )),
                        ),
                        None => entries.push((key, node)),
                    };
                }
                None => match node.value {
                    Value::Scalar(scalar) => *key = Some(Key { span: node.span, text: scalar.text }),
                    _ => {
                        return Err(Box::new(
                            node.span
                                .error(
                                    Code::NotYaml,
                                    "a key must be a single word or text",
                                    format!("this is {}", node.describe()),
                                )
                                .help("a text that begins with `{` or `[` must stand in quotes"),
                        ));
                    }
                },
            },
        }
        Ok(())
    }
}
