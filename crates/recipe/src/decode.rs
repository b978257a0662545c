//! From the merged tree, variables put in, to a [`Recipe`]: every rule of the language but those of structure.

mod checks;
mod content;
mod names;
mod packages;
mod volumes;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use catalog::Rule;

use crate::diagnostic::{Diagnostic, Span};
use crate::language::{self, Keys, Shape};
use crate::model::Recipe;
use crate::nearest::{advice, nearest};
use crate::yaml::{Key, Node, Value};
use crate::{Arch, Code};

use names::is_file_name;
pub(crate) use names::{is_package_name, is_package_version};

/// Reads the merged recipe for one architecture. `None` only when there are problems; a recipe may come with
/// problems too, and is then not to be used.
pub(crate) fn decode(root: &Node, arch: Arch, problems: &mut Vec<Diagnostic>) -> Option<Recipe> {
    let mut decoder = Decoder { arch, problems };
    decoder.required(root, &language::RECIPE);
    let name = decoder.text(root, "name");
    let version = decoder.text(root, "version");
    let image_name = decoder.image_name(name.as_ref(), version.as_ref());
    let users = decoder.users(root);
    let volumes = decoder.volumes(root);
    let (kernel, kernel_span) = decoder.kernel(root);
    let (files, web) = (decoder.files(root), decoder.web(root));
    decoder.hidden_files(root, &volumes, &files, web.as_ref());
    decoder.root_content(&volumes, &files, web.as_ref());
    let recipe = Recipe {
        image_name: image_name.unwrap_or_default(),
        version: version.map(|(text, _)| text),
        description: decoder.description(root),
        arch,
        distribution: decoder.distribution(root),
        kernel,
        kernel_span,
        packages: decoder.packages(root),
        recommends: decoder.truth(root, "recommends").unwrap_or(false),
        motd: decoder.motd(root),
        web,
        files,
        services: decoder.services(root),
        run: decoder.run(root),
        image: decoder.image(root),
        checks: decoder.checks(root, &users, &volumes),
        allow: decoder.allow(root),
        users,
        volumes,
        name: name?.0,
    };
    Some(recipe)
}

/// The architectures of a merged recipe, each once; both when it names none.
pub(crate) fn architectures(root: &Node, problems: &mut Vec<Diagnostic>) -> Vec<Arch> {
    let Some(list) = root.get("architectures") else { return Arch::ALL.to_vec() };
    let mut found = Vec::new();
    for item in list.items() {
        let Some(scalar) = item.scalar() else { continue };
        match scalar.text.parse::<Arch>() {
            Ok(arch) if found.contains(&arch) => {}
            Ok(arch) => found.push(arch),
            Err(error) => {
                let help = match scalar.text.as_str() {
                    "arm64" => Some("did you mean `aarch64`?".to_owned()),
                    "amd64" => Some("did you mean `x86_64`?".to_owned()),
                    text => advice(text, language::ARCHITECTURES, "the architectures are"),
                };
                problems.push(
                    item.span
                        .error(Code::Architecture, format!("unknown architecture `{}`", error.0), "")
                        .maybe_help(help),
                );
            }
        }
    }
    if list.items().is_empty() && !matches!(list.value, Value::Wrong) {
        problems.push(
            list.span
                .error(Code::Architecture, "a recipe without an architecture", "the list is empty")
                .help("write [x86_64, aarch64], or leave the key out for both"),
        );
    }
    found.sort();
    found
}

struct Decoder<'a> {
    arch: Arch,
    problems: &'a mut Vec<Diagnostic>,
}

type Text = (String, Span);

impl Decoder<'_> {
    fn error(
        &mut self,
        code: Code,
        span: &Span,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(span.error(code, message, label).help(help));
    }

    /// Whether something inside a value was found wrong before.
    fn has_problem(&self, node: &Node) -> bool {
        let range = node.span.range();
        self.problems
            .iter()
            .any(|problem| problem.file == node.span.file() && range.contains(&problem.span.start))
    }

    /// Whether a key of a mapping was told already to be this one, misspelled.
    fn is_misspelled(&self, node: &Node, name: &str) -> bool {
        let range = node.span.range();
        let advice = format!("did you mean `{name}`?");
        // Keys of one mapping stand below each other, or between the same braces.
        let column = match &node.value {
            Value::Map(entries) => entries.first().map(|(key, _)| key.span.position()),
            _ => None,
        };
        self.problems.iter().any(|problem| {
            problem.code == Code::UnknownKey
                && problem.help.as_deref() == Some(&advice)
                && problem.file == node.span.file()
                && range.contains(&problem.span.start)
                && column.is_none_or(|(line, column)| problem.column == column || problem.line == line)
        })
    }

    fn required(&mut self, node: &Node, keys: &Keys) {
        if matches!(node.value, Value::Wrong) {
            return;
        }
        for field in keys.fields.iter().filter(|field| field.required) {
            if node.get(field.name).is_none() && !self.is_misspelled(node, field.name) {
                let message = format!("{} needs a `{}`", keys.what, field.name);
                let label = format!("has no `{}`", field.name);
                self.error(
                    Code::MissingKey,
                    &node.span,
                    message,
                    label,
                    format!("add `{}:` ({})", field.name, lower(field.doc)),
                );
            }
        }
    }

    fn text(&mut self, node: &Node, key: &str) -> Option<Text> {
        let node = node.get(key)?;
        node.scalar().map(|scalar| (scalar.text.clone(), node.span.clone()))
    }

    fn truth(&mut self, node: &Node, key: &str) -> Option<bool> {
        let node = node.get(key)?;
        let scalar = node.scalar()?;
        match scalar.text.as_str() {
            "true" | "True" | "TRUE" if scalar.plain || scalar.substituted => Some(true),
            "false" | "False" | "FALSE" if scalar.plain || scalar.substituted => Some(false),
            text => {
                let help = match text.to_lowercase().as_str() {
                    "true" | "yes" | "on" | "y" | "1" => "write `true`, without quotes",
                    "false" | "no" | "off" | "n" | "0" => "write `false`, without quotes",
                    _ => "write `true` or `false`, without quotes",
                };
                self.error(
                    Code::WrongType,
                    &node.span,
                    format!("`{key}` takes true or false, not {}", node.describe()),
                    "",
                    help,
                );
                None
            }
        }
    }

    fn number(&mut self, node: &Node, keys: &Keys, key: &str) -> Option<u64> {
        let node = node.get(key)?;
        let scalar = node.scalar()?;
        let (least, most) = keys
            .fields
            .iter()
            .find_map(|field| match field.shape {
                Shape::Number(least, most) if field.name == key => Some((least, most)),
                _ => None,
            })
            .unwrap_or((0, u64::MAX));
        let digits = !scalar.text.is_empty() && scalar.text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || !(scalar.plain || scalar.substituted) {
            let help =
                if digits { "take the quotes away".to_owned() } else { format!("write {least} to {most}") };
            self.error(
                Code::WrongType,
                &node.span,
                format!("`{key}` takes a whole number, not {}", node.describe()),
                "",
                help,
            );
            return None;
        }
        match scalar.text.parse() {
            Ok(number) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.error(
                    Code::OutOfRange,
                    &node.span,
                    format!("`{key}` is out of range"),
                    format!("not between {least} and {most}"),
                    format!("write {least} to {most}"),
                );
                None
            }
        }
    }

    fn choice(&mut self, node: &Node, key: &str, words: &[&'static str]) -> Option<(usize, Span)> {
        let node = node.get(key)?;
        self.word(node, &format!("`{key}`"), words).map(|index| (index, node.span.clone()))
    }

    fn word(&mut self, node: &Node, what: &str, words: &[&'static str]) -> Option<usize> {
        let scalar = node.scalar()?;
        let found = words.iter().position(|word| *word == scalar.text);
        if found.is_none() {
            let help = advice(&scalar.text, words, "it is one of");
            self.problems.push(
                node.span
                    .error(Code::WrongValue, format!("{what} cannot be `{}`", scalar.text), "unknown")
                    .maybe_help(help),
            );
        }
        found
    }

    fn texts(&mut self, node: &Node, key: &str) -> Vec<Text> {
        let Some(list) = node.get(key) else { return Vec::new() };
        list.items()
            .iter()
            .filter_map(|item| item.scalar().map(|scalar| (scalar.text.clone(), item.span.clone())))
            .collect()
    }

    fn image_name(&mut self, name: Option<&Text>, version: Option<&Text>) -> Option<String> {
        let name = name.filter(|(name, span)| {
            let good = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-');
            if !good {
                let help = "use small letters, digits, dots and dashes, a letter or digit first";
                self.error(
                    Code::Name,
                    span,
                    format!("`{name}` cannot be a recipe's name"),
                    "not a name",
                    help,
                );
            }
            good
        });
        let mut good_version = true;
        if let Some((version, span)) = version {
            good_version = version.starts_with(|c: char| c.is_ascii_alphanumeric())
                && version.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            if !good_version {
                let help = "it becomes a part of the image's name: use letters, digits, dots, dashes and _, a letter or \
                            digit first";
                self.error(
                    Code::Name,
                    span,
                    format!("`{version}` cannot be a recipe's version"),
                    "not a version",
                    help,
                );
            }
        }
        let ((name, span), true) = (name?, good_version) else { return None };
        let (image, at) = match version {
            Some((version, at)) => (format!("{name}-{version}"), at),
            None => (name.clone(), span),
        };
        let broken = catalog::image_name_rules(&image);
        for rule in &broken {
            let (message, label) = match rule {
                Rule::NameLength { length, .. } => {
                    let (least, most) = catalog::IMAGE_NAME;
                    let message = format!("the image's name has {}", count(*length, "character"));
                    (message, format!("EC2 takes {least} to {most}"))
                }
                other => (format!("EC2 does not take the image's name: {other}"), String::new()),
            };
            self.error(Code::Ec2Rule, at, message, label, "choose another name or version");
        }
        broken.is_empty().then_some(image)
    }

    fn description(&mut self, root: &Node) -> Option<String> {
        let (text, span) = self.text(root, "description")?;
        let length = text.chars().count();
        if length > catalog::MAX_DESCRIPTION {
            self.error(
                Code::Ec2Rule,
                &span,
                "the image's description is too long",
                count(length, "character"),
                format!("EC2 takes {} at most", catalog::MAX_DESCRIPTION),
            );
        }
        Some(text)
    }

    /// A path in the image: absolute, without `.`, `..`, doubled slashes and a slash at its end.
    fn image_path(&mut self, text: &str, span: &Span, what: &str) -> Option<String> {
        let trimmed = if text.len() > 1 { text.strip_suffix('/').unwrap_or(text) } else { text };
        if let Some(rest) = trimmed.strip_prefix('/')
            && (rest.is_empty() || rest.split('/').all(is_file_name))
            && trimmed.len() < 4096
        {
            return Some(trimmed.to_owned());
        }
        let longest = trimmed.split('/').map(str::len).max().unwrap_or_default();
        if longest > 255 || trimmed.len() >= 4096 {
            let (what_long, most) =
                if longest > 255 { ("a name", "255 bytes") } else { ("the path", "4095 bytes") };
            let bytes = if longest > 255 { longest } else { trimmed.len() };
            self.error(
                Code::Path,
                span,
                format!("{what} takes a path in the image, and {what_long} in this one has {bytes} bytes"),
                "too long",
                format!("file systems take {most} at most: shorten it"),
            );
            return None;
        }
        let label = if text.starts_with('/') { "not a plain path" } else { "not absolute" };
        self.error(
            Code::Path,
            span,
            format!("{what} takes a path in the image, not `{text}`"),
            label,
            "begin with /, without `.`, `..` and doubled slashes",
        );
        None
    }

    /// A file or folder of the baking machine: below the folder of the file that names it, wherever links lead.
    fn source(&mut self, text: &str, span: &Span, folder_wanted: bool) -> Option<PathBuf> {
        let file = Arc::clone(span.source());
        let Some(folder) = &file.folder else {
            self.error(
                Code::Source,
                span,
                "this base comes with the program and has no folder",
                "no source can be beside it",
                "use `content`",
            );
            return None;
        };
        let relative = Path::new(text);
        if text.is_empty()
            || text.contains('\0')
            || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            self.error(
                Code::Source,
                span,
                format!("the source `{text}` is outside the recipe's folder"),
                "leads out",
                "copy it beside the recipe, and name it relative to that",
            );
            return None;
        }
        // Else a stranger's recipe could choose among the files of a base that is not its own.
        if file.outside && span.text().contains("${{") {
            self.error(
                Code::Source,
                span,
                "a base outside of the recipe's folder names its sources itself",
                "holds a variable, which a recipe may set",
                "write the path out",
            );
            return None;
        }
        let path = folder.join(relative);
        let (real, home) = match (path.canonicalize(), folder.canonicalize()) {
            (Ok(real), Ok(home)) => (real, home),
            (Err(error), _) | (_, Err(error)) => {
                let help = similar_beside(&path).map(|near| relative.with_file_name(near)).map_or_else(
                    || "a source is a file or folder beside the recipe that names it".to_owned(),
                    |near| format!("did you mean `{}`?", near.display()),
                );
                let label = if error.kind() == std::io::ErrorKind::NotFound {
                    "nothing is there".to_owned()
                } else {
                    reason(&error)
                };
                self.error(Code::Source, span, format!("cannot find the source `{text}`"), label, help);
                return None;
            }
        };
        if !real.starts_with(&home) {
            self.error(
                Code::Source,
                span,
                format!("the source `{text}` is outside the recipe's folder"),
                "a symbolic link leads out",
                "copy what it links to beside the recipe",
            );
            return None;
        }
        if real == home {
            self.error(
                Code::Source,
                span,
                format!("the source `{text}` is the recipe's own folder"),
                "holds the recipe, its lock and maybe the images",
                "keep the files in a folder of their own beside the recipe: `source: site/`",
            );
            return None;
        }
        if folder_wanted && !real.is_dir() {
            self.error(
                Code::Source,
                span,
                format!("the source `{text}` is not a folder"),
                "",
                "name the folder that holds the files",
            );
            return None;
        }
        if !real.is_dir() && !real.is_file() {
            self.error(
                Code::Source,
                span,
                format!("the source `{text}` is neither a file nor a folder"),
                "",
                "a device, a pipe or a socket cannot go into an image",
            );
            return None;
        }
        Some(real)
    }
}

/// `1 character`, `2 characters`.
fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// What an I/O error says, without the number of the system.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The name nearest to a missing path's, among what its folder holds.
pub(crate) fn similar_beside(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .ok()?
        .take(10_000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        // A link of that very name leads nowhere.
        .filter(|found| found != name)
        .collect();
    names.sort();
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

fn items<'n>(root: &'n Node, key: &str) -> &'n [Node] {
    root.get(key).map_or(&[], Node::items)
}

fn others<'n>(node: Option<&'n Node>, known: &[&str]) -> Vec<&'n (Key, Node)> {
    node.map_or(&[][..], Node::entries)
        .iter()
        .filter(|(key, _)| !known.contains(&key.text.as_str()))
        .collect()
}

fn same_file(a: &Span, b: &Span) -> bool {
    Arc::ptr_eq(a.source(), b.source())
}

/// How far a file is from the recipe itself: 0, then 1 for its base.
fn depth(span: &Span) -> usize {
    span.source().depth
}

fn first_line(span: &Span) -> Span {
    let text = span.text();
    // A block text begins with its `|` or `>`; its first line is the next.
    let skipped = if text.starts_with(['|', '>']) { text.find('\n').map_or(0, |at| at + 1) } else { 0 };
    let indent = text[skipped..].len() - text[skipped..].trim_start_matches([' ', '\n']).len();
    let start = skipped + indent;
    let end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    span.part(start..end)
}

fn lower(doc: &str) -> String {
    let first = doc.split(". ").next().unwrap_or(doc);
    let mut chars = first.trim_end_matches('.').chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
