//! Reading a recipe file and all that it extends.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::decode::{architectures, decode, reason, similar_beside};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity, SourceFile, Span};
use crate::language::{self, Shape};
use crate::nearest::advice;
use crate::origins::{ValueOrigin, origins};
use crate::variables::{Definition, Variables, is_variable_name};
use crate::yaml::{self, Node, Value};
use crate::{Arch, Code, Recipe};

/// The bases that the program carries, for `extends: builtin:…`.
const BUILTIN: &[(&str, &str)] = &[
    ("debian-13", include_str!("../../../recipes/base/debian-13.yaml")),
    ("debian-12", include_str!("../../../recipes/base/debian-12.yaml")),
];
/// How many files a recipe may be built on, itself included.
const MAX_FILES: usize = 16;
/// Variables that the program defines.
const BUILT_IN: [&str; 4] = ["name", "version", "arch", "debian_arch"];

/// Keys that are read before variables are known.
const APART: [&str; 3] = ["vars", "extends", "architectures"];

/// How to read a recipe.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Variables to override: `--set greeting=Hello`.
    pub set: Vec<(String, String)>,
}

/// A recipe that was read, checked for every architecture that it names.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    files: Vec<PathBuf>,
    architectures: Vec<Arch>,
    architectures_span: Span,
    recipes: BTreeMap<Arch, Recipe>,
    origins: BTreeMap<Arch, Vec<ValueOrigin>>,
    name: String,
    warnings: Vec<Diagnostic>,
}

impl Source {
    /// The architectures that the recipe is for, sorted.
    pub fn architectures(&self) -> &[Arch] {
        &self.architectures
    }

    /// The recipe's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The recipe for one architecture; an error when it does not name that one.
    pub fn for_arch(&self, arch: Arch) -> Result<Recipe, Diagnostics> {
        self.recipes.get(&arch).cloned().ok_or_else(|| {
            let named: Vec<_> = self.architectures.iter().map(|arch| arch.as_str()).collect();
            self.architectures_span
                .error(
                    Code::Architecture,
                    format!("this recipe is not for {arch}"),
                    format!("for {}", named.join(", ")),
                )
                .help(format!("add {arch} to `architectures`, or choose another with --arch"))
                .into()
        })
    }

    /// Every value of the recipe for one architecture, with the place that says so; empty when the recipe is not for it.
    pub fn origins(&self, arch: Arch) -> &[ValueOrigin] {
        self.origins.get(&arch).map_or(&[], Vec::as_slice)
    }

    /// What deserves a look, though the recipe can be baked.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Where the lock belongs: `hello-web.lock` beside `hello-web.yaml`.
    pub fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }

    /// The recipe's own file and the files of its bases, the recipe first, by the names that messages use.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Reads a recipe and all that it extends, and checks it for every architecture that it names. The error holds every
/// mistake of every file; what is a warning only is in [`Source::warnings`].
pub fn load(path: &Path, options: &LoadOptions) -> Result<Source, Diagnostics> {
    let mut problems = Vec::new();
    let source = read(path, options, &mut problems);
    let mut unique: Vec<Diagnostic> = Vec::new();
    for problem in problems {
        if !unique.contains(&problem) {
            unique.push(problem);
        }
    }
    let order = source.as_ref().map_or_else(|files| files.clone(), |source| source.files.clone());
    unique.sort_by_key(|problem| {
        (order.iter().position(|file| *file == problem.file).unwrap_or(usize::MAX), problem.span.start)
    });
    match source {
        Ok(source) if !unique.iter().any(|problem| problem.severity == Severity::Error) => {
            Ok(Source { warnings: unique, ..source })
        }
        _ => Err(Diagnostics(unique)),
    }
}

/// The source, or the files that were read when it cannot be made.
fn read(path: &Path, options: &LoadOptions, problems: &mut Vec<Diagnostic>) -> Result<Source, Vec<PathBuf>> {
    let mut loader = Loader { problems, documents: Vec::new(), real: Vec::new(), broken: false };
    match read_file(path, 0) {
        Ok(file) => {
            loader.real.push(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
            loader.add(Arc::new(file), None);
        }
        Err(problem) => loader.problems.push(*problem),
    }
    let Loader { documents, broken, .. } = loader;
    let files: Vec<PathBuf> = documents.iter().map(|(file, _)| file.name.clone()).collect();
    if broken || documents.iter().any(|(_, node)| node.is_none()) || documents.is_empty() {
        return Err(files);
    }
    let mut merged: Option<Node> = None;
    for (_, node) in documents.into_iter().rev() {
        merged = match (merged, node) {
            (Some(base), Some(child)) => Some(merge(base, child)),
            (base, child) => child.or(base),
        };
    }
    let Some(mut merged) = merged else { return Err(files) };
    set_variables(&mut merged, options, problems);
    let architectures = architectures(&merged, problems);
    let architectures_span = merged.get("architectures").map_or_else(
        || merged.key("name").map_or_else(|| merged.span.clone(), |key| key.span.clone()),
        |node| node.span.clone(),
    );
    let definitions = definitions(&merged, problems);
    let (mut recipes, mut values) = (BTreeMap::new(), BTreeMap::new());
    for arch in architectures.iter().copied() {
        let mut variables = variables(&definitions, arch, problems);
        let root = part(&merged, |key| !APART.contains(&key), &mut variables, problems);
        if let Some(recipe) = decode(&root, arch, problems) {
            // What is wrong in the variables' own texts was told when they were worked out.
            let apart = part(&merged, |key| APART.contains(&key), &mut variables, &mut Vec::new());
            values.insert(arch, origins(&[root, apart], &recipe));
            recipes.insert(arch, recipe);
        }
    }
    let mut names: Vec<&Recipe> = recipes.values().collect();
    names.dedup_by_key(|recipe| (&recipe.name, &recipe.image_name));
    let Some(name) = names.first().map(|recipe| recipe.name.clone()) else { return Err(files) };
    if names.len() > 1
        && let Some(node) = merged.get("name")
    {
        problems.push(
            node.span
                .error(
                    Code::Name,
                    "the name and version must be the same for all architectures",
                    "uses `arch`",
                )
                .help("the architecture is registered beside the name: leave it out"),
        );
    }
    Ok(Source {
        path: path.to_owned(),
        files,
        architectures,
        architectures_span,
        recipes,
        origins: values,
        name,
        warnings: Vec::new(),
    })
}

/// Some keys of the merged recipe, with variables put in.
fn part(
    merged: &Node,
    wanted: impl Fn(&str) -> bool,
    variables: &mut Variables,
    problems: &mut Vec<Diagnostic>,
) -> Node {
    let entries = merged.entries().iter().filter(|(key, _)| wanted(&key.text));
    let entries = entries.map(|(key, node)| (key.clone(), variables.substitute(node, problems))).collect();
    Node { span: merged.span.clone(), value: Value::Map(entries) }
}

struct Loader<'a> {
    problems: &'a mut Vec<Diagnostic>,
    /// The recipe, its base, the base's base …; no tree where a file could not be read as YAML.
    documents: Vec<(Arc<SourceFile>, Option<Node>)>,
    real: Vec<PathBuf>,
    broken: bool,
}

impl Loader<'_> {
    /// `outside`: who names it, for a file that is not below the recipe's folder.
    fn add(&mut self, file: Arc<SourceFile>, outside: Option<Span>) {
        let before = self.problems.len();
        let node = yaml::parse(&file, self.problems).and_then(|node| {
            language::check_structure(node, &Shape::Keys(&language::RECIPE), "a recipe", self.problems)
        });
        if let Some(span) = outside
            && let Some(problem) = self.problems.get(before)
        {
            // A stranger's recipe may point at what is no recipe but somebody's secrets: nothing of it is shown.
            let label = format!("its line {} is not as a recipe's", problem.line);
            let help = format!("see what is wrong with it: bakehouse validate {}", file.name.display());
            let message = format!("the base `{}` cannot be read as a recipe", span.text());
            self.problems.truncate(before);
            self.problems.push(span.error(Code::Base, message, label).help(help));
            self.documents.push((file, None));
            return;
        }
        let extends = node.as_ref().and_then(|node| {
            let node = node.get("extends")?;
            Some((node.scalar()?.text.clone(), node.span.clone()))
        });
        let nothing = node.as_ref().is_some_and(Node::is_null);
        if nothing {
            self.problems.push(
                Diagnostic::about_file(Code::EmptyFile, &file.name, "the file is empty")
                    .help("a recipe has at least a `name:`"),
            );
        }
        self.documents.push((Arc::clone(&file), node.filter(|_| !nothing)));
        let Some((base, span)) = extends else { return };
        match self.find(&file, &base, &span) {
            Ok((file, outside)) => self.add(Arc::new(file), outside.then_some(span)),
            Err(problem) => {
                self.broken = true;
                self.problems.push(*problem);
            }
        }
    }

    /// The base that a file names, and whether it lies outside of the recipe's folder.
    fn find(
        &mut self,
        file: &SourceFile,
        base: &str,
        span: &Span,
    ) -> Result<(SourceFile, bool), Box<Diagnostic>> {
        let depth = self.documents.len();
        if depth >= MAX_FILES {
            return Err(Box::new(
                span.error(Code::Base, "too many bases", format!("more than {MAX_FILES} files"))
                    .help("merge some of them into one"),
            ));
        }
        if let Some(name) = base.strip_prefix("builtin:") {
            let names: Vec<&str> = BUILTIN.iter().map(|(name, _)| *name).collect();
            let Some((_, text)) = BUILTIN.iter().find(|(other, _)| *other == name) else {
                return Err(Box::new(
                    span.error(Code::Base, format!("the program carries no base `{name}`"), "")
                        .maybe_help(advice(name, &names, "it carries")),
                ));
            };
            let file = SourceFile {
                name: PathBuf::from(base),
                folder: None,
                text: (*text).to_owned(),
                depth,
                outside: false,
            };
            return Ok((file, false));
        }
        if base.contains("${{") {
            return Err(Box::new(
                span.error(Code::Base, "`extends` cannot hold a variable", "read before variables are known")
                    .help("write the path out"),
            ));
        }
        let Some(folder) = &file.folder else {
            return Err(Box::new(
                span.error(Code::Base, "a base of the program extends a file", "").help("use builtin:…"),
            ));
        };
        if Path::new(base).is_absolute() {
            return Err(Box::new(
                span.error(
                    Code::Base,
                    format!("the base `{base}` is not named beside the recipe"),
                    "an absolute path",
                )
                .help(format!("write the path relative to {}", file.name.display())),
            ));
        }
        let path = folder.join(base);
        let real = path.canonicalize().map_err(|error| {
            let near = similar_beside(&path).map(|near| Path::new(base).with_file_name(near));
            let help = match near {
                Some(near) => format!("did you mean `{}`?", near.display()),
                None => format!("the path is relative to {}", file.name.display()),
            };
            Box::new(
                span.error(Code::Base, format!("cannot read the base `{base}`"), reason(&error)).help(help),
            )
        })?;
        let is_recipe =
            |path: &Path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        if !is_recipe(&path) || !is_recipe(&real) {
            return Err(Box::new(
                span.error(
                    Code::Base,
                    format!("the base `{base}` is no recipe"),
                    "its name does not end in .yaml",
                )
                .help("name a recipe's file, and let no link lead to anything else"),
            ));
        }
        if self.real.contains(&real) {
            let chain: Vec<String> =
                self.documents.iter().map(|(file, _)| file.name.display().to_string()).collect();
            return Err(Box::new(
                span.error(Code::Base, "a recipe extends itself", "leads back")
                    .help(format!("the chain is {} → {base}", chain.join(" → "))),
            ));
        }
        let home = self.real.first().and_then(|recipe| recipe.parent());
        let outside = home.is_none_or(|home| !real.starts_with(home));
        self.real.push(real);
        let shown = tidy(&file.name.parent().unwrap_or(Path::new("")).join(base));
        let mut found = read_file(&path, depth).map_err(|problem| {
            Box::new(
                span.error(Code::Base, format!("cannot read the base `{base}`"), problem.message.clone())
                    .maybe_help(problem.help.clone()),
            )
        })?;
        found.name = shown;
        found.outside = outside;
        Ok((found, outside))
    }
}

/// `a/../b` without the detour, for messages.
fn tidy(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

fn read_file(path: &Path, depth: usize) -> Result<SourceFile, Box<Diagnostic>> {
    let fail = |message: String| Box::new(Diagnostic::about_file(Code::NotReadable, path, message));
    let cannot = |error: std::io::Error| {
        let gone = error.kind() == std::io::ErrorKind::NotFound;
        let help = Some(path)
            .filter(|_| gone)
            .and_then(similar_beside)
            .map(|near| format!("did you mean `{}`?", path.with_file_name(near).display()));
        Box::new(
            Diagnostic::about_file(
                Code::NotReadable,
                path,
                format!("cannot read the file: {}", reason(&error)),
            )
            .maybe_help(help),
        )
    };
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if !metadata.is_file() {
        return Err(Box::new(fail("this is not a file".to_owned()).help("name the recipe's .yaml file")));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(yaml::MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() as u64 > yaml::MAX_FILE {
        return Err(Box::new(
            fail(format!("the file is larger than {} MiB", yaml::MAX_FILE >> 20))
                .help("keep large content in files of its own and name them by `source:`"),
        ));
    }
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceFile {
            name: path.to_owned(),
            folder: Some(folder.to_owned()),
            text,
            depth,
            outside: false,
        }),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(Box::new(fail(format!("the file is not UTF-8 text: line {line}")).help("save it as UTF-8")))
        }
    }
}

/// Mappings merge, lists append, all else is replaced; `architectures` too, so that a recipe can be for fewer than its
/// base. A child's empty value takes away what is inherited, unless
/// that is a list or a mapping.
fn merge(base: Node, child: Node) -> Node {
    if child.is_null() && !matches!(base.value, Value::Scalar(_)) {
        return base;
    }
    match (base.value, child.value) {
        (Value::Map(base), Value::Map(entries)) => {
            let mut merged = base;
            for (key, node) in entries {
                match merged.iter().position(|(other, _)| other.text == key.text) {
                    Some(at) => {
                        let (_, inherited) = merged.remove(at);
                        let node = match key.text.as_str() {
                            "architectures" if !node.is_null() => node,
                            _ => merge(inherited, node),
                        };
                        merged.insert(at, (key, node));
                    }
                    None => merged.push((key, node)),
                }
            }
            Node { span: child.span, value: Value::Map(merged) }
        }
        (Value::List(mut base), Value::List(items)) => {
            base.extend(items);
            Node { span: child.span, value: Value::List(base) }
        }
        (_, value) => Node { span: child.span, value },
    }
}

/// Puts `--set` values in place of what the recipe says.
fn set_variables(root: &mut Node, options: &LoadOptions, problems: &mut Vec<Diagnostic>) {
    for (name, value) in &options.set {
        let text = format!("{name}={value}");
        let file = SourceFile { name: PathBuf::from("--set"), folder: None, text, depth: 0, outside: false };
        let file = Arc::new(file);
        let key_span = Span::new(&file, 0..name.len());
        let value_span = Span::new(&file, name.len() + 1..name.len() + 1 + value.len());
        let Value::Map(entries) = &mut root.value else { return };
        let vars = entries.iter_mut().find(|(key, _)| key.text == "vars").map(|(_, node)| node);
        let known: Vec<String> =
            vars.iter().flat_map(|node| node.entries()).map(|(key, _)| key.text.clone()).collect();
        let place = match vars.map(|node| &mut node.value) {
            Some(Value::Map(vars)) => {
                vars.iter_mut().find(|(key, _)| key.text == *name).map(|(_, node)| node)
            }
            _ => None,
        };
        match place {
            Some(node) => {
                let scalar =
                    yaml::Scalar { text: value.replace("${{", "$${{"), plain: false, substituted: true };
                *node = Node { span: value_span, value: Value::Scalar(scalar) };
            }
            None if BUILT_IN.contains(&name.as_str()) => problems.push(
                key_span
                    .error(Code::Variable, format!("the variable `{name}` is built in"), "")
                    .help("change it in the recipe itself"),
            ),
            None => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let help = advice(name, &known, "the recipe's variables are")
                    .unwrap_or_else(|| "the recipe has no `vars`".to_owned());
                problems.push(
                    key_span
                        .error(Code::UnknownVariable, format!("the recipe has no variable `{name}`"), "")
                        .help(help),
                );
            }
        }
    }
}

fn definitions(root: &Node, problems: &mut Vec<Diagnostic>) -> BTreeMap<String, Definition> {
    let mut definitions = BTreeMap::new();
    for (key, node) in root.get("vars").map_or(&[][..], Node::entries) {
        let Some(scalar) = node.scalar() else { continue };
        if BUILT_IN.contains(&key.text.as_str()) {
            problems.push(
                key.span
                    .error(Code::Variable, format!("the variable `{}` is built in", key.text), "")
                    .help("choose another name"),
            );
            continue;
        }
        if !is_variable_name(&key.text) {
            problems.push(
                key.span
                    .error(Code::Variable, format!("`{}` cannot be a variable's name", key.text), "")
                    .help("small letters, digits and _, a letter first"),
            );
            continue;
        }
        definitions
            .insert(key.text.clone(), Definition { text: scalar.text.clone(), span: node.span.clone() });
    }
    for name in ["name", "version"] {
        if let Some(node) = root.get(name)
            && let Some(scalar) = node.scalar()
        {
            definitions
                .insert(name.to_owned(), Definition { text: scalar.text.clone(), span: node.span.clone() });
        }
    }
    definitions
}

fn variables(
    definitions: &BTreeMap<String, Definition>,
    arch: Arch,
    problems: &mut Vec<Diagnostic>,
) -> Variables {
    let fixed = [("arch", arch.as_str()), ("debian_arch", arch.debian())];
    let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut withheld = BTreeMap::new();
    if !definitions.contains_key("version") {
        withheld.insert("version".to_owned(), "the recipe has no `version`");
    }
    Variables::resolve(definitions, BTreeMap::from(fixed), withheld, problems)
}
