//! All packages that the repositories offer, ready to be solved over.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use block::Digest;
use rayon::prelude::*;

use crate::control::{ControlError, Paragraph, Paragraphs};
use crate::download::FileRequest;
use crate::relation;
use crate::version::{Version, compare};

/// The number of a package in its universe.
pub type PackageId = u32;

/// One Packages file, its text kept whole; packages point into it.
#[derive(Debug)]
pub(crate) struct IndexText {
    /// What it is called in errors.
    pub(crate) name: String,
    /// The role of the repository that it is from.
    pub(crate) role: String,
    pub(crate) text: String,
}

impl IndexText {
    /// The line of a place in the text, counted from 1. Slow: for errors only.
    fn line(&self, at: usize) -> usize {
        memchr::memchr_iter(b'\n', &self.text.as_bytes()[..at]).count() + 1
    }
}

/// What the solver needs of every package; the rest is read from the text when it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    index: usize,
    paragraph: Range<usize>,
    name: Range<usize>,
    version: Range<usize>,
    architecture: Range<usize>,
    provides: Range<usize>,
    pub(crate) essential: bool,
    pub(crate) priority: Priority,
    pub(crate) multi_arch: MultiArch,
}

/// How much a package belongs to every system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The system needs it.
    Required,
    /// A Unix-like system is expected to have it.
    Important,
    /// A small system for people has it.
    Standard,
    /// Everything else.
    Optional,
    /// As optional; an old word.
    Extra,
}

/// How packages of other architectures may use a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MultiArch {
    No,
    Same,
    Foreign,
    Allowed,
}

/// A package that provides another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The package.
    pub id: PackageId,
    /// The version that it provides the name as, if it says so.
    pub version: Option<Box<str>>,
}

/// The packages of one architecture from a set of repositories.
#[derive(Debug)]
pub struct Universe {
    architecture: String,
    texts: Vec<IndexText>,
    entries: Vec<Entry>,
    by_name: HashMap<Arc<str>, Vec<PackageId>>,
    providers: HashMap<Arc<str>, Vec<Provider>>,
}

/// A package as a repository describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: Version,
    /// Debian's word for the architecture, or `all`.
    pub architecture: String,
    /// Where the .deb is, below the archive's address.
    pub filename: String,
    /// Length of the .deb in bytes.
    pub size: u64,
    /// SHA-256 of the .deb.
    pub sha256: Digest,
    /// The role of the repository it is from: `main`, `updates`, `security`.
    pub role: String,
    /// All fields.
    pub fields: Paragraph,
}

impl Package {
    /// What has to be fetched.
    pub fn request(&self) -> FileRequest {
        FileRequest {
            name: self.name.clone(),
            version: self.version.to_string(),
            architecture: self.architecture.clone(),
            size: self.size,
            sha256: self.sha256,
            filename: self.filename.clone(),
            role: self.role.clone(),
        }
    }
}

/// A Packages file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is not written as it must be.
    #[error(transparent)]
    Syntax(#[from] ControlError),
}

impl Universe {
    /// A universe of the given Packages files: `(name for errors, role, text)`. Packages of other architectures than
    /// `architecture` and `all` are left out. Of equal versions the one from the earlier text counts.
    pub fn from_texts(architecture: &str, texts: Vec<(String, String, String)>) -> Result<Self, IndexError> {
        let texts: Vec<IndexText> =
            texts.into_iter().map(|(name, role, text)| IndexText { name, role, text }).collect();
        let pieces: Vec<(usize, Range<usize>)> = texts
            .iter()
            .enumerate()
            .flat_map(|(index, text)| cut(&text.text).map(move |range| (index, range)))
            .collect();
        let parsed: Vec<Vec<Entry>> = pieces
            .par_iter()
            .map(|(index, range)| read_entries(*index, &texts[*index], range.clone(), architecture))
            .collect::<Result<_, _>>()?;
        let entries: Vec<Entry> = parsed.into_iter().flatten().collect();
        let mut universe = Self {
            architecture: architecture.to_owned(),
            texts,
            entries,
            by_name: HashMap::new(),
            providers: HashMap::new(),
        };
        universe.link(0)?;
        Ok(universe)
    }

    /// Adds one more package, as from a .deb at hand. `fields` is its control paragraph; Filename, Size and SHA256
    /// come from `file`.
    pub fn add(&mut self, fields: &Paragraph, file: &FileRequest) -> Result<(), IndexError> {
        let mut text = String::new();
        for (name, value) in fields.fields() {
            if !["Filename", "Size", "SHA256"].iter().any(|own| own.eq_ignore_ascii_case(name)) {
                text.push_str(&format!("{name}: {value}\n"));
            }
        }
        text.push_str(&format!(
            "Filename: {}\nSize: {}\nSHA256: {}\n",
            file.filename, file.size, file.sha256
        ));
        let index = self.texts.len();
        self.texts.push(IndexText {
            name: format!("{} {}", file.name, file.version),
            role: file.role.clone(),
            text,
        });
        let whole = 0..self.texts[index].text.len();
        let from = self.entries.len();
        let new = read_entries(index, &self.texts[index], whole, &self.architecture)?;
        self.entries.extend(new);
        self.link(from)
    }

    fn link(&mut self, from: usize) -> Result<(), IndexError> {
        let mut names: HashMap<Arc<str>, Vec<PackageId>> = std::mem::take(&mut self.by_name);
        let mut providers = std::mem::take(&mut self.providers);
        for id in from..self.entries.len() {
            let id = id as PackageId;
            let name = self.name(id);
            match names.get_mut(name) {
                Some(ids) => ids.push(id),
                None => drop(names.insert(name.into(), vec![id])),
            }
            let entry = &self.entries[id as usize];
            let text = &self.texts[entry.index];
            for group in relation::parse(&text.text[entry.provides.clone()])
                .map_err(|error| self.broken(id, &error))?
            {
                for target in group {
                    let provider =
                        Provider { id, version: target.version.map(|(_, version)| version.into()) };
                    match providers.get_mut(target.name) {
                        Some(all) => Vec::push(all, provider),
                        None => drop(providers.insert(target.name.into(), vec![provider])),
                    }
                }
            }
        }
        // Newest first; of equal versions the one read first.
        for ids in names.values_mut().filter(|ids| ids.len() > 1) {
            ids.sort_by(|a, b| compare(self.version(*b), self.version(*a)).then_with(|| a.cmp(b)));
            // `1.0` and `1.00` are two ways to write one version.
            ids.dedup_by(|later, earlier| compare(self.version(*later), self.version(*earlier)).is_eq());
        }
        self.by_name = names;
        self.providers = providers;
        Ok(())
    }

    pub(crate) fn broken(&self, id: PackageId, error: &relation::RelationError) -> ControlError {
        let entry = &self.entries[id as usize];
        let text = &self.texts[entry.index];
        let (file, line) = (text.name.clone(), text.line(entry.paragraph.start));
        ControlError { file, line, what: format!("package {}: {error}", self.name(id)) }
    }

    /// Debian's word for the architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// How many packages there are, counting each version.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no package.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The texts of all Packages files, in the order in which they were given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|text| text.text.as_str())
    }

    fn slice(&self, id: PackageId, range: &Range<usize>) -> &str {
        &self.texts[self.entries[id as usize].index].text[range.clone()]
    }

    pub(crate) fn entry(&self, id: PackageId) -> &Entry {
        &self.entries[id as usize]
    }

    /// A package's name.
    pub fn name(&self, id: PackageId) -> &str {
        self.slice(id, &self.entries[id as usize].name)
    }

    /// A package's version.
    pub fn version(&self, id: PackageId) -> &str {
        self.slice(id, &self.entries[id as usize].version)
    }

    /// A package's architecture, or `all`.
    pub fn package_architecture(&self, id: PackageId) -> &str {
        self.slice(id, &self.entries[id as usize].architecture)
    }

    /// The role of the repository that a package is from.
    pub fn role(&self, id: PackageId) -> &str {
        &self.texts[self.entries[id as usize].index].role
    }

    /// The versions of a package, newest first.
    pub fn versions_of(&self, name: &str) -> &[PackageId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Who provides a virtual name, and as which version.
    pub fn providers_of(&self, name: &str) -> &[Provider] {
        self.providers.get(name).map_or(&[], Vec::as_slice)
    }

    /// The names of all packages, sorted.
    pub fn names(&self) -> BTreeSet<&str> {
        self.by_name.keys().map(|name| &**name).collect()
    }

    /// The fields of a package, straight from the text.
    pub fn field<'a>(&'a self, id: PackageId, wanted: &[&str]) -> Vec<Option<&'a str>> {
        let entry = &self.entries[id as usize];
        let text = &self.texts[entry.index];
        let mut fields = Vec::new();
        let mut values = vec![None; wanted.len()];
        // It was read once before, so it can be read again.
        if Paragraphs::new(&text.name, &text.text[entry.paragraph.clone()]).read(&mut fields).is_ok() {
            for field in fields {
                if let Some(place) = wanted.iter().position(|name| name.eq_ignore_ascii_case(field.name)) {
                    values[place] = Some(field.value);
                }
            }
        }
        values
    }

    /// All that is known of a package. An error when the index does not say where its file is, or how it is hashed.
    pub fn package(&self, id: PackageId) -> Result<Package, ControlError> {
        let entry = &self.entries[id as usize];
        let text = &self.texts[entry.index];
        let fail = |what: &str| ControlError {
            file: text.name.clone(),
            line: text.line(entry.paragraph.start),
            what: format!("package {}: {what}", self.name(id)),
        };
        let fields = Paragraph::parse(&text.name, &text.text[entry.paragraph.clone()])?;
        let filename = fields.get("Filename").ok_or_else(|| fail("there is no Filename"))?;
        let escapes =
            filename.starts_with('/') || filename.split('/').any(|part| part == ".." || part.is_empty());
        if escapes || filename.contains(|c: char| c.is_ascii_control() || c == '?' || c == '#') {
            return Err(fail(&format!(
                "Filename {filename:?} is no path below the archive: the mirror's index is wrong, or misleads; use another mirror"
            )));
        }
        let size =
            fields.get("Size").and_then(|size| size.parse().ok()).ok_or_else(|| fail("there is no Size"))?;
        let sha256 =
            fields.get("SHA256").and_then(Digest::from_hex).ok_or_else(|| fail("there is no SHA256"))?;
        Ok(Package {
            name: self.name(id).to_owned(),
            version: Version::parse(self.version(id)).map_err(|error| fail(&error.to_string()))?,
            architecture: self.package_architecture(id).to_owned(),
            filename: filename.to_owned(),
            size,
            sha256,
            role: text.role.clone(),
            fields,
        })
    }

    /// Names of packages that look like `name`, the most alike first; at most `count`.
    pub fn names_like(&self, name: &str, count: usize) -> Vec<&str> {
        let most = name.len() / 3 + 1;
        let mut near: Vec<(usize, &str)> = self
            .by_name
            .keys()
            .filter(|candidate| name.len().abs_diff(candidate.len()) <= most)
            .map(|candidate| (strsim::osa_distance(name, candidate), &**candidate))
            .filter(|(distance, _)| *distance <= most)
            .collect();
        near.sort_unstable();
        near.into_iter().take(count).map(|(_, name)| name).collect()
    }
}

/// Cuts a text into pieces of some MiB, each a whole number of paragraphs.
fn cut(text: &str) -> impl Iterator<Item = Range<usize>> {
    const PIECE: usize = 2 << 20;
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= text.len() {
            return None;
        }
        let start = at;
        let from = text.len().min(start + PIECE);
        let end =
            memchr::memmem::find(&text.as_bytes()[from..], b"\n\n").map_or(text.len(), |end| from + end + 2);
        at = end;
        Some(start..end)
    })
}

fn read_entries(
    index: usize,
    text: &IndexText,
    range: Range<usize>,
    wanted_architecture: &str,
) -> Result<Vec<Entry>, ControlError> {
    let base = text.text.as_ptr() as usize;
    let piece = &text.text[range.clone()];
    let shift = |error: ControlError| ControlError { line: error.line + text.line(range.start) - 1, ..error };
    let place = |part: &str| {
        let start = part.as_ptr() as usize - base;
        start..start + part.len()
    };
    let mut paragraphs = Paragraphs::new(&text.name, piece);
    let mut fields = Vec::new();
    let mut entries = Vec::new();
    while paragraphs.read(&mut fields).map_err(shift)? {
        let (mut name, mut version, mut architecture, mut provides) = ("", "", "", "");
        let (mut essential, mut priority, mut multi_arch) = (false, Priority::Optional, MultiArch::No);
        for field in &fields {
            match field.name {
                "Package" => name = field.value,
                "Version" => version = field.value,
                "Architecture" => architecture = field.value,
                "Provides" => provides = field.value,
                "Essential" => essential = field.value == "yes",
                "Priority" => {
                    priority = match field.value {
                        "required" => Priority::Required,
                        "important" => Priority::Important,
                        "standard" => Priority::Standard,
                        "extra" => Priority::Extra,
                        _ => Priority::Optional,
                    }
                }
                "Multi-Arch" => {
                    multi_arch = match field.value {
                        "same" => MultiArch::Same,
                        "foreign" => MultiArch::Foreign,
                        "allowed" => MultiArch::Allowed,
                        _ => MultiArch::No,
                    }
                }
                _ => {}
            }
        }
        let (Some(first), Some(last)) = (fields.first(), fields.last()) else { continue };
        let start = place(first.name).start;
        let fail = |what: String| ControlError { file: text.name.clone(), line: text.line(start), what };
        if name.is_empty() || version.is_empty() || architecture.is_empty() {
            return Err(fail("a package needs Package, Version and Architecture".to_owned()));
        }
        if architecture != "all" && architecture != wanted_architecture {
            continue;
        }
        if let Err(error) = Version::parse(version) {
            return Err(fail(format!("package {name}: {error}")));
        }
        entries.push(Entry {
            index,
            paragraph: start..place(last.value).end,
            name: place(name),
            version: place(version),
            architecture: place(architecture),
            provides: if provides.is_empty() { 0..0 } else { place(provides) },
            essential,
            priority,
            multi_arch,
        });
    }
    Ok(entries)
}
