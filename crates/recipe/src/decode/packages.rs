//! Where packages come from, which kernel boots and which packages are asked for.

use super::Decoder;
use super::names::{is_package_name, is_package_version};
use super::same_file;
use crate::language;
use crate::model::{Distribution, Family, Kernel, PackageRequest};
use crate::nearest::nearest;
use crate::yaml::Node;
use crate::{Code, Span};

impl Decoder<'_> {
    pub(super) fn distribution(&mut self, root: &Node) -> Distribution {
        let mut distribution = Distribution {
            family: Family::Debian,
            suite: "trixie".to_owned(),
            components: vec!["main".to_owned()],
            mirror: None,
            signed_by: None,
            updates: true,
            security: true,
        };
        let Some(node) = root.get("distribution") else { return distribution };
        self.choice(node, "family", language::FAMILIES);
        if let Some((index, _)) = self.choice(node, "suite", &language::SUITES) {
            distribution.suite = language::SUITES[index].to_owned();
        }
        if let Some(list) = node.get("components") {
            distribution.components.clear();
            for item in list.items() {
                if let Some(index) = self.word(item, "a component", &language::COMPONENTS) {
                    let name = language::COMPONENTS[index];
                    if !distribution.components.iter().any(|other| other == name) {
                        distribution.components.push(name.to_owned());
                    }
                }
            }
            if list.items().is_empty() {
                self.error(
                    Code::WrongValue,
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
                        self.error(Code::Secret, &span, "a mirror's address holds a login", "a recipe is no place for it", "take it out; give it to the host's apt configuration instead");
                    }
                    distribution.mirror = Some(mirror.trim_end_matches('/').to_owned());
                }
                _ => self.error(Code::Mirror,
                    &span,
                    format!("`{mirror}` is not a mirror's address"),
                    "",
                    "write http://, https:// or file:/// and the archive's root, such as http://ftp.debian.org/debian",
                ),
            }
        }
        if let Some((text, span)) = self.text(node, "signed_by") {
            distribution.signed_by = self.keys(&text, &span);
            if distribution.mirror.is_none() {
                self.error(
                    Code::Mirror,
                    &span,
                    "keys without a mirror",
                    "Debian's own mirrors are signed by keys that the program knows",
                    "name the mirror that these keys sign: `mirror: http://…`, or take the line away",
                );
            }
        }
        distribution.updates = self.truth(node, "updates").unwrap_or(true);
        distribution.security = self.truth(node, "security").unwrap_or(true);
        distribution
    }

    /// The text of a file of public keys.
    fn keys(&mut self, text: &str, span: &Span) -> Option<String> {
        const LARGEST: u64 = 1 << 20;
        let path = self.source(text, span, false)?;
        let read =
            std::fs::metadata(&path).and_then(|found| match found.is_file() && found.len() <= LARGEST {
                true => std::fs::read_to_string(&path),
                false => Err(std::io::ErrorKind::InvalidData.into()),
            });
        match read {
            Ok(keys) if keys.trim_start().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----") => Some(keys),
            _ => {
                self.error(
                    Code::Source,
                    span,
                    format!("`{text}` is no file of public keys"),
                    "",
                    "write the keys with `gpg --export --armor`; the file begins with -----BEGIN PGP PUBLIC KEY BLOCK-----",
                );
                None
            }
        }
    }

    /// The kernel, and where the recipe names it.
    pub(super) fn kernel(&mut self, root: &Node) -> (Kernel, Option<Span>) {
        let Some((text, span)) = self.text(root, "kernel") else { return (Kernel::Cloud, None) };
        let kernel = match text.as_str() {
            "cloud" => Kernel::Cloud,
            "generic" => Kernel::Generic,
            name if name.starts_with("linux-image-") && is_package_name(name) => Kernel::Package(text),
            name => {
                let help = nearest(name, ["cloud", "generic"]).map_or_else(
                    || "write cloud, generic, or the name of a linux-image package".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                self.error(Code::Kernel, &span, format!("`{name}` is not a kernel"), "", help);
                Kernel::Cloud
            }
        };
        (kernel, Some(span))
    }

    pub(super) fn packages(&mut self, root: &Node) -> Vec<PackageRequest> {
        let mut wanted: Vec<PackageRequest> = Vec::new();
        for (text, span) in self.texts(root, "packages") {
            if let Some(name) = text.strip_prefix('-') {
                // Whatever its version: a list holds a package once.
                let name = name.split('=').next().unwrap_or(name).trim();
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
                            Code::PackageName,
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
                self.error(
                    Code::PackageName,
                    &span,
                    format!("`{name}` cannot be a package's name"),
                    "",
                    help,
                );
                continue;
            }
            if let Some(version) = &version
                && !is_package_version(version)
            {
                self.error(
                    Code::PackageVersion,
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
                                .warning(
                                    Code::Repeated,
                                    format!("`{}` is listed twice", request.name),
                                    "the second time",
                                )
                                .help(format!("its first place is line {first}: keep one of them")),
                        );
                    } else {
                        let message = format!("`{}` is asked for in two versions", request.name);
                        self.error(
                            Code::Contradiction,
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
}
