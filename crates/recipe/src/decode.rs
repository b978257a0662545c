//! From the merged tree, variables put in, to a [`Recipe`]: every rule of the language but those of structure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use block::{GIB, MIB};

use crate::diagnostic::{Diagnostic, Span};
use crate::language::{self, Keys, Shape};
use crate::limits;
use crate::model::*;
use crate::nearest::{advice, nearest};
use crate::yaml::{Key, Node, Value};
use crate::{Arch, DeviceName};

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
    let recipe = Recipe {
        image_name: image_name.unwrap_or_default(),
        version: version.map(|(text, _)| text),
        description: decoder.text(root, "description").map(|(text, _)| text),
        arch,
        distribution: decoder.distribution(root),
        kernel: decoder.kernel(root),
        packages: decoder.packages(root),
        recommends: decoder.truth(root, "recommends").unwrap_or(false),
        motd: decoder.motd(root),
        web: decoder.web(root),
        files: decoder.files(root),
        services: decoder.services(root),
        run: decoder.run(root),
        image: decoder.image(root),
        checks: decoder.checks(root, &users, &volumes),
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
                    item.span.error(format!("unknown architecture `{}`", error.0), "").maybe_help(help),
                );
            }
        }
    }
    if list.items().is_empty() {
        problems.push(
            list.span
                .error("a recipe without an architecture", "the list is empty")
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
        span: &Span,
        message: impl Into<String>,
        label: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(span.error(message, label).help(help));
    }

    /// Whether something inside a value was found wrong before.
    fn has_problem(&self, node: &Node) -> bool {
        let range = node.span.range();
        self.problems
            .iter()
            .any(|problem| problem.file == node.span.file() && range.contains(&problem.span.start))
    }

    fn required(&mut self, node: &Node, keys: &Keys) {
        if matches!(node.value, Value::Wrong) {
            return;
        }
        for field in keys.fields.iter().filter(|field| field.required) {
            if node.get(field.name).is_none() {
                let message = format!("{} needs a `{}`", keys.what, field.name);
                let label = format!("has no `{}`", field.name);
                self.error(
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
                node.span.error(format!("{what} cannot be `{}`", scalar.text), "unknown").maybe_help(help),
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
                self.error(span, format!("`{name}` cannot be a recipe's name"), "not a name", help);
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
                self.error(span, format!("`{version}` cannot be a recipe's version"), "not a version", help);
            }
        }
        let ((name, span), true) = (name?, good_version) else { return None };
        let (image, at) = match version {
            Some((version, at)) => (format!("{name}-{version}"), at),
            None => (name.clone(), span),
        };
        let (least, most) = limits::IMAGE_NAME;
        if !(least..=most).contains(&image.len()) {
            let message = format!("the image's name has {} characters", image.len());
            self.error(at, message, format!("EC2 takes {least} to {most}"), "choose another name or version");
            return None;
        }
        Some(image)
    }

    fn distribution(&mut self, root: &Node) -> Distribution {
        let mut distribution = Distribution {
            family: Family::Debian,
            suite: "trixie".to_owned(),
            components: vec!["main".to_owned()],
            mirror: None,
            updates: true,
            security: true,
        };
        let Some(node) = root.get("distribution") else { return distribution };
        self.choice(node, "family", language::FAMILIES);
        if let Some((index, _)) = self.choice(node, "suite", language::SUITES) {
            distribution.suite = language::SUITES[index].to_owned();
        }
        if let Some(list) = node.get("components") {
            distribution.components.clear();
            for item in list.items() {
                if let Some(index) = self.word(item, "a component", language::COMPONENTS) {
                    let name = language::COMPONENTS[index];
                    if !distribution.components.iter().any(|other| other == name) {
                        distribution.components.push(name.to_owned());
                    }
                }
            }
            if list.items().is_empty() {
                self.error(
                    &list.span,
                    "a distribution without a component",
                    "the list is empty",
                    "write [main]",
                );
            }
        }
        if let Some((mirror, span)) = self.text(node, "mirror") {
            let address =
                ["http://", "https://", "file:///"].iter().find_map(|scheme| mirror.strip_prefix(scheme));
            let clean = mirror.chars().all(|c| c.is_ascii_graphic()) && !mirror.contains(['?', '#']);
            match address {
                Some(rest) if clean && !rest.is_empty() && !rest.starts_with('/') => {
                    if rest.split('/').next().is_some_and(|host| host.contains('@')) {
                        self.error(&span, "a mirror's address holds a login", "a recipe is no place for it", "take it out; give it to the host's apt configuration instead");
                    }
                    distribution.mirror = Some(mirror.trim_end_matches('/').to_owned());
                }
                _ => self.error(
                    &span,
                    format!("`{mirror}` is not a mirror's address"),
                    "",
                    "write http://, https:// or file:/// and the archive's root, such as http://ftp.debian.org/debian",
                ),
            }
        }
        distribution.updates = self.truth(node, "updates").unwrap_or(true);
        distribution.security = self.truth(node, "security").unwrap_or(true);
        distribution
    }

    fn kernel(&mut self, root: &Node) -> Kernel {
        match self.text(root, "kernel") {
            None => Kernel::Cloud,
            Some((text, span)) => match text.as_str() {
                "cloud" => Kernel::Cloud,
                "generic" => Kernel::Generic,
                name if name.starts_with("linux-image-") && is_package_name(name) => Kernel::Package(text),
                name => {
                    let help = nearest(name, ["cloud", "generic"]).map_or_else(
                        || "write cloud, generic, or the name of a linux-image package".to_owned(),
                        |near| format!("did you mean `{near}`?"),
                    );
                    self.error(&span, format!("`{name}` is not a kernel"), "", help);
                    Kernel::Cloud
                }
            },
        }
    }

    fn packages(&mut self, root: &Node) -> Vec<PackageRequest> {
        let mut wanted: Vec<PackageRequest> = Vec::new();
        for (text, span) in self.texts(root, "packages") {
            if let Some(name) = text.strip_prefix('-') {
                let inherited =
                    wanted.iter().position(|other| other.name == name && !same_file(&other.span, &span));
                match inherited {
                    Some(at) => drop(wanted.remove(at)),
                    None => {
                        let names: Vec<&str> = wanted
                            .iter()
                            .filter(|other| !same_file(&other.span, &span))
                            .map(|other| other.name.as_str())
                            .collect();
                        let help = match nearest(name, names.iter().copied()) {
                            Some(near) => format!("did you mean `-{near}`?"),
                            None if names.is_empty() => {
                                "only packages of a base can be dropped: take the line away".to_owned()
                            }
                            None => format!("the base asks for: {}", names.join(", ")),
                        };
                        self.error(
                            &span,
                            format!("`{name}` is not inherited, so it cannot be dropped"),
                            "",
                            help,
                        );
                    }
                }
                continue;
            }
            let (name, version) = match text.split_once('=') {
                Some((name, version)) => (name.trim().to_owned(), Some(version.trim().to_owned())),
                None => (text.clone(), None),
            };
            if !is_package_name(&name) {
                let lower = name.to_lowercase();
                let help = if is_package_name(&lower) {
                    format!("did you mean `{lower}`?")
                } else if name.contains(':') {
                    "leave the architecture out: packages are of the image's architecture".to_owned()
                } else if name.contains(char::is_whitespace) {
                    "one package an entry: [one, two]".to_owned()
                } else {
                    "small letters, digits, + - and dots, two characters at least".to_owned()
                };
                self.error(&span, format!("`{name}` cannot be a package's name"), "", help);
                continue;
            }
            if let Some(version) = &version
                && !is_package_version(version)
            {
                self.error(
                    &span,
                    format!("`{version}` cannot be a package's version"),
                    "",
                    "write it whole, as in the archive: apache2=2.4.65-2",
                );
                continue;
            }
            let request = PackageRequest { name, version, span };
            match wanted.iter().position(|other| other.name == request.name) {
                Some(at) if same_file(&wanted[at].span, &request.span) => {
                    let first = wanted[at].span.position().0;
                    if wanted[at].version == request.version {
                        self.problems.push(
                            request
                                .span
                                .warning(format!("`{}` is listed twice", request.name), "the second time")
                                .help(format!("its first place is line {first}: keep one of them")),
                        );
                    } else {
                        let message = format!("`{}` is asked for in two versions", request.name);
                        self.error(
                            &request.span,
                            message,
                            "the second",
                            format!("the first is in line {first}: keep one of them"),
                        );
                    }
                }
                Some(at) => wanted[at] = request,
                None => wanted.push(request),
            }
        }
        wanted
    }

    fn motd(&mut self, root: &Node) -> Vec<MotdScript> {
        let mut scripts = Vec::new();
        for (key, node) in others(root.get("motd"), &[]) {
            let Some(scalar) = node.scalar() else { continue };
            if !runs_as_part(&key.text) {
                let fixed = runnable_name(&key.text);
                let help = if fixed.is_empty() {
                    "use letters, digits, dashes and _".to_owned()
                } else {
                    format!("call it `{fixed}`")
                };
                self.error(
                    &key.span,
                    format!("the login script `{}` would never run", key.text),
                    "run-parts --lsbsysinit passes over this name",
                    help,
                );
            }
            if !scalar.text.starts_with("#!") || !scalar.text[2..].trim_start().starts_with('/') {
                let first = first_line(&node.span);
                self.error(
                    &first,
                    format!("the login script `{}` does not say what runs it", key.text),
                    "its first line is not `#!` and a program",
                    "begin it with `#!/bin/sh`",
                );
            }
            scripts.push(MotdScript { key: key.text.clone(), script: scalar.text.clone() });
        }
        scripts.sort_by(|a, b| a.key.cmp(&b.key));
        scripts
    }

    fn web(&mut self, root: &Node) -> Option<Web> {
        let node = root.get("web")?;
        let folder = match self.text(node, "root") {
            Some((text, span)) => self.image_path(&text, &span, "`root`")?,
            None => "/var/www/html".to_owned(),
        };
        let mut entries = Vec::new();
        if let Some((text, span)) = self.text(node, "source")
            && let Some(path) = self.source(&text, &span, true)
        {
            entries.push(WebEntry { path: String::new(), payload: Payload::Source(path) });
        }
        for (key, value) in others(Some(node), &["root", "source"]) {
            let Some(scalar) = value.scalar() else { continue };
            if key.text.is_empty() || !key.text.split('/').all(is_file_name) {
                self.error(
                    &key.span,
                    format!("`{}` is not a path below the web root", key.text),
                    "",
                    "write it relative to the root, without `.` and `..`: css/main.css",
                );
                continue;
            }
            entries.push(WebEntry { path: key.text.clone(), payload: Payload::Content(scalar.text.clone()) });
        }
        Some(Web { root: folder, entries })
    }

    fn files(&mut self, root: &Node) -> Vec<FileSpec> {
        let mut files: Vec<FileSpec> = Vec::new();
        for node in items(root, "files") {
            self.required(node, &language::FILE);
            let content = self.text(node, "content");
            let source = self.text(node, "source");
            let payload = match (content, source) {
                (Some((content, _)), None) => Some(Payload::Content(content)),
                (None, Some((text, span))) => self.source(&text, &span, false).map(Payload::Source),
                (Some(_), Some((_, span))) => {
                    let span = node.key("source").map_or(span, |key| key.span.clone());
                    self.error(
                        &span,
                        "a file has `content` or `source`, not both",
                        "one too many",
                        "take one of them away",
                    );
                    None
                }
                (None, None)
                    if node.get("content").or(node.get("source")).is_some() || self.has_problem(node) =>
                {
                    None
                }
                (None, None) => {
                    self.error(
                        &node.span,
                        "a file without content",
                        "has neither `content` nor `source`",
                        "add `content: \"…\"`, or `source:` with a file or folder beside the recipe",
                    );
                    None
                }
            };
            let mode = match self.text(node, "mode") {
                None => None,
                Some((text, span)) => match u16::from_str_radix(&text, 8) {
                    Ok(mode) if (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) => {
                        if matches!(&payload, Some(Payload::Source(path)) if path.is_dir()) {
                            self.error(
                                &span,
                                "a folder's files keep their own modes",
                                "one mode for a whole folder",
                                "take `mode` away, or list the files one by one",
                            );
                        }
                        Some(mode)
                    }
                    _ => {
                        self.error(
                            &span,
                            format!("`{text}` is not a file's mode"),
                            "not octal",
                            "write three or four octal digits in quotes: \"0644\"",
                        );
                        None
                    }
                },
            };
            let mut name = |key: &str| match self.text(node, key) {
                Some((text, span)) => {
                    if !is_user_name(&text) {
                        self.error(
                            &span,
                            format!("`{text}` cannot be a user or group"),
                            "",
                            "write a name such as `www-data`",
                        );
                    }
                    text
                }
                None => "root".to_owned(),
            };
            let (owner, group) = (name("owner"), name("group"));
            let Some((path, span)) = self.text(node, "path") else { continue };
            let Some(path) = self.image_path(&path, &span, "`path`") else { continue };
            if path == "/" && matches!(payload, Some(Payload::Content(_))) {
                self.error(&span, "`/` is a folder, not a file", "", "write the file's whole path");
                continue;
            }
            let Some(payload) = payload else { continue };
            let file = FileSpec { path, payload, mode, owner, group, span };
            match files.iter().position(|other| other.path == file.path) {
                Some(at) if same_file(&files[at].span, &file.span) => {
                    let first = files[at].span.position().0;
                    self.error(
                        &file.span,
                        format!("`{}` stands here twice", file.path),
                        "the second time",
                        format!("its first place is line {first}: keep one of them"),
                    );
                }
                Some(at) => files[at] = file,
                None => files.push(file),
            }
        }
        files
    }

    fn users(&mut self, root: &Node) -> Vec<User> {
        let mut users: Vec<User> = Vec::new();
        for node in items(root, "users") {
            self.required(node, &language::USER);
            let mut groups = Vec::new();
            for (group, span) in self.texts(node, "groups") {
                if !is_user_name(&group) {
                    self.error(
                        &span,
                        format!("`{group}` cannot be a group's name"),
                        "",
                        "small letters, digits, - and _, 32 characters at most, a letter first",
                    );
                } else if !groups.contains(&group) {
                    groups.push(group);
                }
            }
            let sudo = self.truth(node, "sudo").unwrap_or(false);
            let shell = match self.text(node, "shell") {
                Some((text, span)) => self.image_path(&text, &span, "`shell`").unwrap_or_default(),
                None => "/bin/bash".to_owned(),
            };
            let mut keys = Vec::new();
            for (key, span) in self.texts(node, "authorized_keys") {
                let key = key.trim().to_owned();
                if key.contains("PRIVATE KEY") {
                    self.error(&first_line(&span), "this is a private key", "whoever has the image would have it", "put in the public half, the file that ends in .pub; the private one is no secret any more");
                } else if key.contains('\n') || !key.split_whitespace().any(is_key_type) {
                    self.error(
                        &first_line(&span),
                        "this is not a public SSH key",
                        "",
                        "one line, as in a .pub file: ssh-ed25519 AAAA… name",
                    );
                } else {
                    self.problems.push(
                        span.warning("this key can log in to every machine started from the image", "stays in the image")
                            .help("EC2 gives each instance its launch key; leave keys out of images that others use"),
                    );
                    keys.push(key);
                }
            }
            let Some((name, span)) = self.text(node, "name") else { continue };
            if name == "root" {
                self.error(
                    &span,
                    "root cannot be listed as a user",
                    "root has no login",
                    "give a user `sudo: true` instead",
                );
                continue;
            }
            if !is_user_name(&name) {
                self.error(
                    &span,
                    format!("`{name}` cannot be a user's name"),
                    "",
                    "small letters, digits, - and _, 32 characters at most, a letter first",
                );
                continue;
            }
            let user = User { name, groups, sudo, shell, authorized_keys: keys, span };
            match users.iter().position(|other| other.name == user.name) {
                Some(at) if same_file(&users[at].span, &user.span) => {
                    let first = users[at].span.position().0;
                    self.error(
                        &user.span,
                        format!("the user `{}` stands here twice", user.name),
                        "the second time",
                        format!("the first place is line {first}: keep one of them"),
                    );
                }
                Some(at) => users[at] = user,
                None => users.push(user),
            }
        }
        users
    }

    fn services(&mut self, root: &Node) -> Services {
        let Some(node) = root.get("services") else { return Services::default() };
        let mut listed: Vec<(String, Span, bool)> = Vec::new();
        for (key, on) in [("enable", true), ("disable", false)] {
            for (text, span) in self.texts(node, key) {
                let good = !text.is_empty()
                    && text.len() <= 255
                    && text.chars().all(|c| {
                        c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '.' | '@' | '-' | '\\')
                    });
                if !good {
                    self.error(
                        &span,
                        format!("`{text}` is not a unit's name"),
                        "",
                        "write a name such as `apache2` or `backup.timer`",
                    );
                    continue;
                }
                let known = [
                    ".service",
                    ".socket",
                    ".timer",
                    ".path",
                    ".target",
                    ".mount",
                    ".automount",
                    ".swap",
                    ".slice",
                ];
                let unit = if known.iter().any(|suffix| text.ends_with(suffix)) {
                    text
                } else {
                    format!("{text}.service")
                };
                listed.push((unit, span, on));
            }
        }
        let mut services = Services::default();
        for (index, (unit, span, on)) in listed.iter().enumerate() {
            if services.enable.contains(unit) || services.disable.contains(unit) {
                continue;
            }
            // What a recipe says of a unit counts more than what its base says.
            let mut says = *on;
            let mut by = span;
            for (other, place, on) in &listed[index + 1..] {
                if other != unit || *on == says {
                    continue;
                }
                if same_file(place, by) {
                    self.error(
                        place,
                        format!("`{unit}` is switched on and off"),
                        "the second time",
                        format!("the other place is line {}: keep one of them", by.position().0),
                    );
                } else if depth(place) < depth(by) {
                    (says, by) = (*on, place);
                }
            }
            if says { services.enable.push(unit.clone()) } else { services.disable.push(unit.clone()) }
        }
        services
    }

    fn run(&mut self, root: &Node) -> Vec<RunStep> {
        let mut steps: Vec<RunStep> = Vec::new();
        for node in items(root, "run") {
            self.required(node, &language::RUN);
            let (Some((name, span)), Some((script, script_span))) =
                (self.text(node, "name"), self.text(node, "script"))
            else {
                continue;
            };
            if name.trim().is_empty() || name.chars().any(char::is_control) {
                self.error(
                    &span,
                    "a run step's name is one line of text",
                    "",
                    "call it by what it does: tune",
                );
            }
            if script.trim().is_empty() {
                self.error(
                    &script_span,
                    format!("the script of `{name}` is empty"),
                    "",
                    "write what is to run, or take the step away",
                );
            }
            let step = RunStep { name, script, span };
            match steps.iter().position(|other| other.name == step.name) {
                Some(at) if same_file(&steps[at].span, &step.span) => {
                    let first = steps[at].span.position().0;
                    self.error(
                        &step.span,
                        format!("two run steps are called `{}`", step.name),
                        "the second",
                        format!("the first is in line {first}: give one another name"),
                    );
                }
                Some(at) => steps[at] = step,
                None => steps.push(step),
            }
        }
        steps
    }

    fn volumes(&mut self, root: &Node) -> Vec<Volume> {
        let listed = items(root, "volumes");
        if listed.is_empty() {
            let span = root.key("name").map_or_else(|| root.span.clone(), |key| key.span.clone());
            return DeviceName::new("/dev/xvda")
                .map(|device| vec![root_volume(device, span)])
                .unwrap_or_default();
        }
        let mut volumes: Vec<Volume> = Vec::new();
        let mut unreadable = false;
        for node in listed {
            self.required(node, &language::VOLUME);
            let Some(volume) = self.volume(node) else {
                unreadable = true;
                continue;
            };
            match volumes.iter().position(|other| other.device.same_device(&volume.device)) {
                Some(at) if same_file(&volumes[at].span, &volume.span) => {
                    let first = &volumes[at];
                    let message = if first.device == volume.device {
                        format!("two volumes are attached as `{}`", volume.device)
                    } else {
                        format!("`{}` and `{}` are the same device", first.device, volume.device)
                    };
                    let help =
                        format!("the first is in line {}: give one another name", first.span.position().0);
                    self.error(&volume.span, message, "the second", help);
                }
                Some(at) => volumes[at] = volume,
                None => volumes.push(volume),
            }
        }
        self.across_volumes(root, &volumes, unreadable);
        volumes
    }

    /// The rules that look at several volumes.
    fn across_volumes(&mut self, root: &Node, volumes: &[Volume], unreadable: bool) {
        let mut roots = volumes.iter().filter(|volume| volume.root);
        match roots.next() {
            None => {
                // A volume that could not be read may have been the root.
                if !unreadable {
                    let span = root.key("volumes").map_or_else(|| root.span.clone(), |key| key.span.clone());
                    self.error(
                        &span,
                        "no volume is the root",
                        "none has `root: true`",
                        "add {device: /dev/xvda, root: true, size: 4GiB}",
                    );
                }
            }
            Some(first) => {
                for second in roots {
                    self.error(
                        &second.span,
                        "two volumes are the root",
                        "the second",
                        format!("the first is `{}`: take `root: true` away from one of them", first.device),
                    );
                }
            }
        }
        for (index, volume) in volumes.iter().enumerate() {
            for earlier in &volumes[..index] {
                if volume.ephemeral.is_some() && volume.ephemeral == earlier.ephemeral {
                    let message = format!(
                        "`{}` and `{}` are the same instance store volume",
                        earlier.device, volume.device
                    );
                    self.error(&volume.span, message, "the second", "give each its own number: ephemeral: 1");
                }
                if volume.mount.is_some() && volume.mount == earlier.mount {
                    let message =
                        format!("`{}` and `{}` are mounted at the same place", earlier.device, volume.device);
                    self.error(&volume.span, message, "the second", "give each its own `mount`");
                }
                if volume.label.is_some() && volume.label == earlier.label {
                    let message = format!("`{}` and `{}` have the same label", earlier.device, volume.device);
                    self.error(&volume.span, message, "the second", "give each its own `label`");
                }
            }
        }
    }

    fn volume(&mut self, node: &Node) -> Option<Volume> {
        let root = self.truth(node, "root").unwrap_or(false);
        let ephemeral =
            self.number(node, &language::VOLUME, "ephemeral").and_then(|number| u8::try_from(number).ok());
        let size = self.size(node);
        let volume_type = self
            .choice(node, "type", language::VOLUME_TYPES)
            .map_or(VolumeType::Gp3, |(index, _)| VolumeType::ALL[index]);
        let encrypted = self.truth(node, "encrypted");
        let mount = match self.text(node, "mount") {
            Some((text, span)) => self.image_path(&text, &span, "`mount`").map(|path| (path, span)),
            None => None,
        };
        let source = match self.text(node, "source") {
            Some((text, span)) => self.source(&text, &span, true),
            None => None,
        };
        let label = self.text(node, "label");
        let filesystem = self.choice(node, "filesystem", language::FILESYSTEMS).map(|_| Filesystem::Ext4);
        let has_content =
            node.get("source").is_some() || label.is_some() || mount.is_some() || filesystem.is_some();
        let deleted = self.truth(node, "delete_on_termination");
        let (device, span) = self.text(node, "device")?;
        let device = match DeviceName::new(&device) {
            Ok(device) => device,
            Err(help) => {
                self.error(&span, format!("`{device}` is not a device name"), "", help);
                return None;
            }
        };
        self.device_rules(&device, &span, root, ephemeral.is_some());
        if let Some((label, span)) = &label
            && (label.is_empty()
                || label.len() > 16
                || label.contains('/')
                || label.contains(char::is_whitespace)
                || label.contains(char::is_control))
        {
            self.error(
                span,
                format!("`{label}` cannot be a label"),
                "",
                "16 bytes at most, without spaces and slashes",
            );
        }
        if let Some(number) = ephemeral {
            for key in [
                "root",
                "type",
                "iops",
                "throughput",
                "encrypted",
                "filesystem",
                "label",
                "mount",
                "source",
                "delete_on_termination",
            ] {
                if let (Some(_), Some(at)) = (node.get(key), node.key(key))
                    && (key != "root" || root)
                {
                    self.error(
                        &at.span,
                        format!("instance store has no `{key}`"),
                        format!("this is ephemeral{number}"),
                        "an instance store volume is blank at each start: take this key away",
                    );
                }
            }
        }
        if root {
            if let Some((path, span)) = &mount
                && path != "/"
            {
                self.error(span, "the root is mounted at /", "", "take `mount` away");
            }
            if let Some(at) = node.get("source").and(node.key("source")) {
                self.error(
                    &at.span,
                    "the root is filled by packages and files",
                    "a source for the root",
                    "lay the folder down with `files:`",
                );
            }
        } else if let Some((path, span)) = &mount
            && (path == "/"
                || ["/proc", "/sys", "/dev", "/run"]
                    .iter()
                    .any(|taken| path == taken || path.starts_with(&format!("{taken}/"))))
        {
            self.error(
                span,
                format!("nothing can be mounted at `{path}`"),
                "",
                "choose a folder such as /srv/data",
            );
        }
        if let (Some(true | false), Some(at)) = (encrypted, node.key("encrypted"))
            && ephemeral.is_none()
            && (root || has_content)
        {
            self.error(
                &at.span,
                "EC2 refuses `encrypted` for a volume that comes from a snapshot",
                "this one does",
                "take it away: encrypt when you copy or launch the image",
            );
        }
        let (size, size_span) = match size {
            Some(Some(size)) => size,
            Some(None) if root => (4 * GIB, span.clone()),
            Some(None) if ephemeral.is_some() => (GIB, span.clone()),
            Some(None) => {
                self.error(&node.span, "a volume needs a `size`", "has no `size`", "add `size: 1GiB`");
                return None;
            }
            None => return None,
        };
        let volume = Volume {
            root,
            size,
            volume_type,
            iops: self.number(node, &language::VOLUME, "iops").and_then(|number| u32::try_from(number).ok()),
            throughput: self
                .number(node, &language::VOLUME, "throughput")
                .and_then(|number| u32::try_from(number).ok()),
            encrypted,
            filesystem: (root || has_content).then_some(Filesystem::Ext4),
            label: label.map(|(text, _)| text),
            mount: if root { Some("/".to_owned()) } else { mount.map(|(path, _)| path) },
            source,
            delete_on_termination: deleted.unwrap_or(root),
            ephemeral,
            device,
            span,
            size_span,
        };
        if ephemeral.is_none() {
            self.limits(node, &volume);
        }
        Some(volume)
    }

    fn device_rules(&mut self, device: &DeviceName, span: &Span, root: bool, ephemeral: bool) {
        let disk = device.disk();
        if root && !matches!(device.as_str(), "/dev/xvda" | "/dev/sda1") {
            self.error(
                span,
                format!("the root cannot be `{device}`"),
                "",
                "the root is /dev/xvda or /dev/sda1",
            );
        } else if !root && disk == "xvda" {
            self.error(
                span,
                format!("`{device}` is kept for the root"),
                "no root",
                "add `root: true`, or take /dev/xvdf for data",
            );
        } else if !root {
            let letter = disk.strip_prefix("xvd").unwrap_or_default();
            let (good, range) = if ephemeral {
                (matches!(letter, "b" | "c" | "d" | "e"), "/dev/sdb to /dev/sde")
            } else {
                (
                    letter.len() == 1 && ("f"..="p").contains(&letter),
                    "/dev/xvdf to /dev/xvdp, or /dev/sdf to /dev/sdp",
                )
            };
            if !good {
                let what = if ephemeral { "instance store" } else { "data volumes" };
                self.problems.push(
                    span.warning(
                        format!("`{device}` is not among the names that EC2 recommends for {what}"),
                        "works on most instance types",
                    )
                    .help(format!("use {range}")),
                );
            }
        }
    }

    /// `None` when the size is wrong, `Some(None)` when there is none.
    #[expect(clippy::option_option, reason = "wrong and absent are different")]
    fn size(&mut self, node: &Node) -> Option<Option<(u64, Span)>> {
        let Some((text, span)) = self.text(node, "size") else { return Some(None) };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "GiB" => GIB,
            "MiB" => MIB,
            _ => {
                let help = match unit.trim().to_lowercase().as_str() {
                    _ if number.is_empty() => "write whole GiB or MiB: 4GiB".to_owned(),
                    "m" | "mb" | "mib" => format!("write `{number}MiB`"),
                    "" | "g" | "gb" | "gib" => format!("write `{number}GiB`"),
                    "t" | "tb" | "tib" => {
                        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(1024)) {
                            Some(number) => format!("write `{number}GiB`"),
                            None => "write whole GiB or MiB: 4GiB".to_owned(),
                        }
                    }
                    _ => "write whole GiB or MiB: 4GiB, 512MiB".to_owned(),
                };
                self.error(&span, format!("`{text}` is not a size"), "not whole MiB or GiB", help);
                return None;
            }
        };
        match number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)) {
            Some(size) if size > 0 => Some(Some((size, span))),
            _ => {
                self.error(
                    &span,
                    format!("`{text}` is not a size"),
                    "out of range",
                    "write a size such as 4GiB",
                );
                None
            }
        }
    }

    /// What EC2 takes for the volume's type.
    fn limits(&mut self, node: &Node, volume: &Volume) {
        let limits = &limits::VOLUMES[volume.volume_type as usize];
        let name = limits.name;
        let asked = |key: &str| node.get(key).map_or_else(|| volume.span.clone(), |value| value.span.clone());
        let gib = volume.size_gib();
        let (least, most) = limits.size;
        if !(least..=most).contains(&gib) {
            self.error(
                &volume.size_span,
                format!("a volume of type {name} cannot have {gib} GiB"),
                format!("{name} takes {least} to {most} GiB"),
                "change the size or the type",
            );
        }
        if volume.root && !limits.boot {
            self.error(
                &asked("type"),
                format!("no machine boots from a volume of type {name}"),
                "the root's type",
                "use gp3 for the root",
            );
        }
        match (limits.iops, volume.iops.map(u64::from)) {
            (None, Some(_)) => self.error(
                &asked("iops"),
                format!("a volume of type {name} takes no `iops`"),
                "",
                "take it away, or use gp3, io1 or io2",
            ),
            (Some(_), None) if limits.iops_required => {
                self.error(
                    &asked("type"),
                    format!("a volume of type {name} needs `iops`"),
                    "has none",
                    "add `iops: 1000`, or use gp3",
                );
            }
            (Some((least, most, each)), Some(iops)) => {
                let most_here =
                    most.min(each * gib).max(if limits.iops_required { least } else { limits::GP3_IOPS });
                if !(least..=most_here).contains(&iops) {
                    let label = format!("{name} of {gib} GiB takes {least} to {most_here}");
                    self.error(
                        &asked("iops"),
                        format!("{iops} IOPS are out of range"),
                        label,
                        "change `iops`, or the size",
                    );
                }
            }
            _ => {}
        }
        match (limits.throughput, volume.throughput.map(u64::from)) {
            (None, Some(_)) => self.error(
                &asked("throughput"),
                format!("a volume of type {name} takes no `throughput`"),
                "",
                "take it away, or use gp3",
            ),
            (Some((least, most)), Some(throughput)) => {
                let iops = volume.iops.map_or(limits::GP3_IOPS, u64::from);
                if !(least..=most).contains(&throughput) {
                    self.error(
                        &asked("throughput"),
                        format!("{throughput} MiB/s are out of range"),
                        format!("{name} takes {least} to {most}"),
                        "change `throughput`",
                    );
                } else if throughput * limits::IOPS_PER_THROUGHPUT > iops {
                    let needed = throughput * limits::IOPS_PER_THROUGHPUT;
                    self.error(
                        &asked("throughput"),
                        format!("{throughput} MiB/s need {needed} IOPS"),
                        format!("the volume has {iops}"),
                        format!(
                            "add `iops: {needed}`, or ask for {} MiB/s",
                            iops / limits::IOPS_PER_THROUGHPUT
                        ),
                    );
                }
            }
            _ => {}
        }
    }

    fn image(&mut self, root: &Node) -> ImageOptions {
        let default_mode = match self.arch {
            Arch::X86_64 => BootMode::UefiPreferred,
            Arch::Aarch64 => BootMode::Uefi,
        };
        let mut image = ImageOptions {
            tags: BTreeMap::new(),
            boot_mode: default_mode,
            imds: Some("v2.0".to_owned()),
            ena: true,
        };
        let Some(node) = root.get("image") else { return image };
        if let Some((index, span)) = self.choice(node, "boot_mode", language::BOOT_MODES) {
            image.boot_mode = [BootMode::UefiPreferred, BootMode::Uefi, BootMode::LegacyBios][index];
            if self.arch == Arch::Aarch64 {
                if image.boot_mode == BootMode::LegacyBios {
                    self.error(
                        &span,
                        "aarch64 machines have no BIOS",
                        "the recipe is for aarch64 too",
                        "use uefi-preferred, or take aarch64 out of `architectures`",
                    );
                }
                image.boot_mode = BootMode::Uefi;
            }
        }
        if let Some((index, _)) = self.choice(node, "imds", language::IMDS) {
            image.imds = (index == 0).then(|| "v2.0".to_owned());
        }
        image.ena = self.truth(node, "ena").unwrap_or(true);
        let tags = others(node.get("tags"), &[]);
        if let Some((key, _)) = tags.get(limits::TAGS) {
            self.error(
                &key.span,
                format!("an image has {} tags at most", limits::TAGS),
                "one too many",
                "take some away",
            );
        }
        for (key, value) in tags {
            let Some(scalar) = value.scalar() else { continue };
            let (longest_key, longest_value) = limits::TAG;
            if key.text.is_empty()
                || key.text.chars().count() > longest_key
                || key.text.to_lowercase().starts_with("aws:")
            {
                self.error(
                    &key.span,
                    format!("`{}` cannot be a tag", key.text),
                    "",
                    format!("1 to {longest_key} characters, not beginning with aws:"),
                );
            }
            if scalar.text.chars().count() > longest_value {
                self.error(
                    &value.span,
                    format!("the tag `{}` is too long", key.text),
                    "",
                    format!("{longest_value} characters at most"),
                );
            }
            image.tags.insert(key.text.clone(), scalar.text.clone());
        }
        image
    }

    fn checks(&mut self, root: &Node, users: &[User], volumes: &[Volume]) -> Vec<Check> {
        items(root, "checks").iter().filter_map(|node| self.check(node, users, volumes)).collect()
    }

    fn check(&mut self, node: &Node, users: &[User], volumes: &[Volume]) -> Option<Check> {
        let [(kind, body)] = node.entries() else {
            if !self.has_problem(node) {
                self.error(
                    &node.span,
                    "a check is one of http, login, ssh, mount, console",
                    format!("this has {} of them", node.entries().len()),
                    "one check an entry: - http: {port: 80}",
                );
            }
            return None;
        };
        let keys = language::CHECK.fields.iter().find_map(|field| match field.shape {
            Shape::Keys(keys) if field.name == kind.text => Some(keys),
            _ => None,
        })?;
        self.required(body, keys);
        let contains = self.text(body, "contains");
        if let Some((text, span)) = &contains
            && text.is_empty()
        {
            self.error(
                span,
                "`contains` is empty",
                "every answer holds this",
                "write a text that proves something",
            );
        }
        let contains = contains.map(|(text, _)| text);
        match kind.text.as_str() {
            "http" => {
                let port = self.number(body, keys, "port").unwrap_or(80);
                let status = self.number(body, keys, "status").unwrap_or(200);
                let path = match self.text(body, "path") {
                    Some((path, span)) => {
                        if !path.starts_with('/') || path.chars().any(|c| c.is_whitespace() || c.is_control())
                        {
                            self.error(
                                &span,
                                format!("`{path}` is not a page's path"),
                                "",
                                "it begins with / and has no spaces",
                            );
                        }
                        path
                    }
                    None => "/".to_owned(),
                };
                Some(Check::Http {
                    port: u16::try_from(port).ok()?,
                    path,
                    status: u16::try_from(status).ok()?,
                    contains,
                })
            }
            "login" => {
                Some(Check::Login { user: self.check_user(&kind.span, body, users)?, contains: contains? })
            }
            "ssh" => Some(Check::Ssh {
                user: self.check_user(&kind.span, body, users)?,
                run: self.text(body, "run")?.0,
                contains,
            }),
            "mount" => {
                let (path, path_span) = self.text(body, "path")?;
                let (device, span) = self.text(body, "device")?;
                let path = self.image_path(&path, &path_span, "`path`")?;
                let device = match DeviceName::new(&device) {
                    Ok(device) => device,
                    Err(help) => {
                        self.error(&span, format!("`{device}` is not a device name"), "", help);
                        return None;
                    }
                };
                match volumes.iter().find(|volume| volume.device.same_device(&device)) {
                    None => {
                        let names: Vec<&str> = volumes.iter().map(|volume| volume.device.as_str()).collect();
                        let help = format!("the recipe's volumes are: {}", names.join(", "));
                        self.error(&span, format!("no volume is attached as `{device}`"), "", help);
                    }
                    Some(volume) if volume.mount.as_deref() != Some(path.as_str()) => {
                        let help = match &volume.mount {
                            Some(mount) => format!("`{}` is mounted at `{mount}`", volume.device),
                            None => format!("add `mount: {path}` to the volume `{}`", volume.device),
                        };
                        self.error(
                            &path_span,
                            format!("no volume `{device}` is mounted at `{path}`"),
                            "",
                            help,
                        );
                    }
                    Some(_) => {}
                }
                Some(Check::Mount { path, device })
            }
            _ => Some(Check::Console { contains: contains? }),
        }
    }

    fn check_user(&mut self, kind: &Span, body: &Node, users: &[User]) -> Option<String> {
        match self.text(body, "user") {
            Some((name, span)) => {
                if !users.iter().any(|user| user.name == name) {
                    let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
                    let help = advice(&name, &names, "the recipe's users are")
                        .unwrap_or_else(|| format!("add {{name: {name}}} to `users`"));
                    self.error(&span, format!("no user is called `{name}`"), "", help);
                }
                Some(name)
            }
            None => match users.iter().find(|user| user.sudo) {
                Some(user) => Some(user.name.clone()),
                None => {
                    self.error(
                        kind,
                        "this check needs a `user`",
                        "the recipe has no default user",
                        "add `user:`, or a user with `sudo: true`",
                    );
                    None
                }
            },
        }
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
        let label = if text.starts_with('/') { "not a plain path" } else { "not absolute" };
        self.error(
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
                span,
                format!("the source `{text}` is outside the recipe's folder"),
                "leads out",
                "copy it beside the recipe, and name it relative to that",
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
                self.error(span, format!("cannot find the source `{text}`"), label, help);
                return None;
            }
        };
        if !real.starts_with(&home) {
            self.error(
                span,
                format!("the source `{text}` is outside the recipe's folder"),
                "a symbolic link leads out",
                "copy what it links to beside the recipe",
            );
            return None;
        }
        if folder_wanted && !real.is_dir() {
            self.error(
                span,
                format!("the source `{text}` is not a folder"),
                "",
                "name the folder that holds the files",
            );
            return None;
        }
        if !real.is_dir() && !real.is_file() {
            self.error(
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

/// What an I/O error says, without the number of the system.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// The name nearest to a missing path's, among what its folder holds.
pub(crate) fn similar_beside(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let mut names: Vec<String> = std::fs::read_dir(path.parent()?)
        .ok()?
        .take(10_000)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

fn root_volume(device: DeviceName, span: Span) -> Volume {
    Volume {
        device,
        root: true,
        size: 4 * GIB,
        volume_type: VolumeType::Gp3,
        iops: None,
        throughput: None,
        encrypted: None,
        filesystem: Some(Filesystem::Ext4),
        label: None,
        mount: Some("/".to_owned()),
        source: None,
        delete_on_termination: true,
        ephemeral: None,
        size_span: span.clone(),
        span,
    }
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

/// The nearest name that `run-parts` does run: without an extension, a dash for whatever else is not allowed.
fn runnable_name(name: &str) -> String {
    let stem = [".sh", ".bash", ".py", ".pl"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let dashed: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    dashed.trim_matches('-').to_owned()
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && name.len() <= 255 && !name.contains('\0')
}

fn is_key_type(word: &str) -> bool {
    word.starts_with("ssh-") || word.starts_with("ecdsa-sha2-") || word.starts_with("sk-")
}

/// Debian policy 5.6.7.
pub(crate) fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
}

/// Debian policy 5.6.12.
pub(crate) fn is_package_version(version: &str) -> bool {
    let upstream = match version.split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        Some(_) => return false,
        None => version,
    };
    upstream.starts_with(|c: char| c.is_ascii_digit())
        && upstream.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '~' | ':'))
        && !upstream.ends_with('-')
}

fn is_user_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
}

/// Whether `run-parts --lsbsysinit` runs a file of this name: the LANANA, LSB hierarchical and cron name spaces.
fn runs_as_part(name: &str) -> bool {
    if [".dpkg-old", ".dpkg-dist", ".dpkg-new", ".dpkg-tmp"].iter().any(|suffix| name.ends_with(suffix)) {
        return false;
    }
    let word = |text: &str, more: &[char]| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(&c))
    };
    let cron = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let hierarchical = match name.rsplit_once('-') {
        Some((spaces, last)) => {
            word(last, &[])
                && spaces.strip_prefix('_').unwrap_or(spaces).split('-').all(|part| word(part, &['_', '.']))
        }
        None => false,
    };
    cron || hierarchical
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_scripts_run_when_run_parts_says_so() {
        for good in ["40-cow", "motd", "_foo.bar-baz", "example.org-greeting", "A_b"] {
            assert!(runs_as_part(good), "{good}");
        }
        for bad in ["40-cow.sh", "cow.dpkg-new", "a b", "", "Example.org-x", "x~", "-.x"] {
            assert!(!runs_as_part(bad), "{bad}");
        }
    }

    #[test]
    fn package_names_and_versions_follow_debian_policy() {
        for good in ["g++", "libc6", "0ad", "linux-image-6.12.48+deb13-cloud-amd64"] {
            assert!(is_package_name(good), "{good}");
        }
        for bad in ["a", "Apache2", "libc6:amd64", "-x", "a_b", ""] {
            assert!(!is_package_name(bad), "{bad}");
        }
        for good in ["2.4.65-2", "1:10.0p1-7+deb13u4", "0~rc1", "1:2:3-4"] {
            assert!(is_package_version(good), "{good}");
        }
        for bad in ["", "x", "1-", "a:1", "1_2", ":1"] {
            assert!(!is_package_version(bad), "{bad}");
        }
    }
}
