//! Which mirror to use: the recipe's, the environment's, the host's own, or the built-in one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::control::Paragraph;

/// The mirror used when nobody names one.
pub const DEFAULT_MAIN: &str = "http://ftp.debian.org/debian";
/// The mirror for security updates used when nobody names one.
pub const DEFAULT_SECURITY: &str = "http://security.debian.org/debian-security";

/// Who chose a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// `distribution.mirror` in the recipe.
    Recipe,
    /// The environment variable `BAKEHOUSE_DEBIAN_MIRROR`.
    Environment,
    /// The host's apt sources.
    Host,
    /// The program's own default.
    Default,
}

/// The addresses from which packages come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// The archive: main and updates. No slash at its end.
    pub main: String,
    /// The security archive.
    pub security: String,
    /// Used when the security archive is not at `security`: set when that address was derived from `main`.
    pub security_fallback: Option<String>,
    /// Who chose them.
    pub chosen_by: ChosenBy,
}

/// A suite of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// `main`, `updates` or `security`: the suite's part in the whole.
    pub role: String,
    /// The archive's address, without a slash at its end; `http:`, `https:` or `file:`.
    pub uri: String,
    /// An address to use when `uri` does not have the suite.
    pub fallback: Option<String>,
    /// The suite, such as `trixie-updates`.
    pub suite: String,
    /// Components, such as `main`.
    pub components: Vec<String>,
    /// Accept an index whose Valid-Until has passed. For archived or frozen repositories only.
    pub valid_until_override: bool,
}

impl Mirrors {
    /// Mirrors from a value with one address or two (main, security) parted by white space. With one, the security
    /// archive is looked for beside it (`…/debian` becomes `…/debian-security`), else at the built-in address.
    pub fn parse(value: &str, chosen_by: ChosenBy) -> Option<Self> {
        let mut uris = value.split_ascii_whitespace().map(|uri| uri.trim_end_matches('/').to_owned());
        let main = uris.next()?;
        let (security, security_fallback) = match uris.next() {
            Some(security) => (security, None),
            None if main.ends_with("/debian") => {
                (format!("{main}-security"), Some(DEFAULT_SECURITY.to_owned()))
            }
            None => (DEFAULT_SECURITY.to_owned(), None),
        };
        uris.next().is_none().then_some(Self { main, security, security_fallback, chosen_by })
    }

    /// The repositories of a Debian suite: main, updates and security; main alone for suites that have no others
    /// (sid, experimental).
    pub fn repositories(&self, suite: &str, components: &[String]) -> Vec<Repository> {
        let repository = |role: &str, uri: &str, suite: String, fallback: Option<String>| Repository {
            role: role.to_owned(),
            uri: uri.to_owned(),
            fallback,
            suite,
            components: components.to_vec(),
            valid_until_override: false,
        };
        let mut all = vec![repository("main", &self.main, suite.to_owned(), None)];
        if !matches!(suite, "sid" | "unstable" | "experimental" | "rc-buggy") {
            all.push(repository("updates", &self.main, format!("{suite}-updates"), None));
            let fallback = self.security_fallback.clone();
            all.push(repository("security", &self.security, format!("{suite}-security"), fallback));
        }
        all
    }

    /// The archives to ask for a file, in order: the one its role names, then the others.
    pub fn archives(&self, role: &str) -> Vec<&str> {
        let security = [Some(self.security.as_str()), self.security_fallback.as_deref()];
        let main = [Some(self.main.as_str())];
        let order: Vec<Option<&str>> = if role == "security" {
            security.into_iter().chain(main).collect()
        } else {
            main.into_iter().chain(security).collect()
        };
        let mut archives: Vec<&str> = Vec::new();
        order.into_iter().flatten().for_each(|uri| {
            if !archives.contains(&uri) {
                archives.push(uri);
            }
        });
        archives
    }
}

/// What the host's apt sources say of Debian.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSources {
    /// `(address, suite)` of each entry for a Debian suite, in the order of the files.
    entries: Vec<(String, String)>,
}

const SUITES: [&str; 16] = [
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "sid",
    "experimental",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "next-stable",
    "stretch",
    "proposed",
];

fn is_debian_suite(suite: &str) -> bool {
    let base = ["-updates", "-security", "-backports", "-proposed-updates"]
        .iter()
        .find_map(|tail| suite.strip_suffix(tail));
    // The form of the security suite before bullseye.
    let base = base.or_else(|| suite.strip_suffix("/updates")).unwrap_or(suite);
    SUITES.contains(&base)
}

fn is_debian_uri(uri: &str) -> bool {
    let known = ["http://", "https://", "file:/"].iter().any(|scheme| uri.starts_with(scheme));
    known && uri.split('/').any(|segment| segment == "debian" || segment == "debian-security")
}

impl HostSources {
    /// Reads `sources.list` and `sources.list.d/*.{list,sources}` in a folder such as `/etc/apt`. What cannot be
    /// read is passed over: these files are a hint, and signatures decide what is believed.
    pub fn read(folder: &Path) -> Self {
        let mut files: Vec<PathBuf> = match fs::read_dir(folder.join("sources.list.d")) {
            Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        files.sort();
        files.insert(0, folder.join("sources.list"));
        let mut sources = Self::default();
        for file in files {
            let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            let Ok(text) = fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()) else {
                continue;
            };
            match ending {
                "list" => sources.add_list(&text),
                "sources" => sources.add_deb822(&text),
                _ => {}
            }
        }
        sources
    }

    /// Adds a text in the one-line format: `deb [options] uri suite components…`.
    pub fn add_list(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim_ascii();
            let Some(mut rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])) else {
                continue;
            };
            rest = rest.trim_ascii_start();
            if let Some(options) = rest.strip_prefix('[') {
                rest = options.split_once(']').map_or("", |(_, rest)| rest);
            }
            let mut words = rest.split_ascii_whitespace();
            if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
                self.add(uri, suite);
            }
        }
    }

    /// Adds a text in the deb822 format.
    pub fn add_deb822(&mut self, text: &str) {
        let Ok(paragraphs) = Paragraph::parse_all("sources", text) else { return };
        for paragraph in paragraphs {
            let words = |name| paragraph.get(name).unwrap_or_default().split_ascii_whitespace();
            let off = paragraph.get("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
            if off || !words("Types").any(|kind| kind == "deb") {
                continue;
            }
            for uri in words("URIs") {
                words("Suites").for_each(|suite| self.add(uri, suite));
            }
        }
    }

    fn add(&mut self, uri: &str, suite: &str) {
        let (uri, suite) = (uri.trim_end_matches('/'), suite.trim_end_matches('/'));
        if is_debian_uri(uri) && is_debian_suite(suite) {
            self.entries.push((uri.to_owned(), suite.to_owned()));
        }
    }

    /// The archive that has `suite`, else any archive of the same kind.
    fn find(&self, suite: &str, security: bool) -> Option<&str> {
        let is_security = |suite: &str| suite.ends_with("-security") || suite.ends_with("/updates");
        let kind = || self.entries.iter().filter(|(_, suite)| is_security(suite) == security);
        let found = kind().find(|(_, entry)| entry == suite).or_else(|| kind().next());
        found.map(|(uri, _)| uri.as_str())
    }
}

/// Chooses the mirrors for a suite: the recipe's, else the environment's (`BAKEHOUSE_DEBIAN_MIRROR`), else the host's
/// apt sources, else the built-in ones. A value that is empty or holds more than two addresses is passed over.
pub fn choose_mirrors(recipe: Option<&str>, env: Option<&str>, host: &HostSources, suite: &str) -> Mirrors {
    let named = recipe.and_then(|value| Mirrors::parse(value, ChosenBy::Recipe));
    if let Some(mirrors) =
        named.or_else(|| env.and_then(|value| Mirrors::parse(value, ChosenBy::Environment)))
    {
        return mirrors;
    }
    let Some(main) = host.find(suite, false) else {
        return Mirrors {
            main: DEFAULT_MAIN.to_owned(),
            security: DEFAULT_SECURITY.to_owned(),
            security_fallback: None,
            chosen_by: ChosenBy::Default,
        };
    };
    let security = host.find(&format!("{suite}-security"), true);
    let value = security.map_or_else(|| main.to_owned(), |security| format!("{main} {security}"));
    match Mirrors::parse(&value, ChosenBy::Host) {
        Some(mirrors) => Mirrors { security_fallback: Some(DEFAULT_SECURITY.to_owned()), ..mirrors },
        None => choose_mirrors(None, None, &HostSources::default(), suite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_names_a_mirror_wins() {
        let mut host = HostSources::default();
        host.add_list("deb [signed-by=/x arch=amd64] http://host.example/debian trixie main\n");
        let chosen = |recipe, env| {
            let mirrors = choose_mirrors(recipe, env, &host, "trixie");
            (mirrors.main, mirrors.security, mirrors.chosen_by)
        };
        let own = |text: &str| text.to_owned();
        assert_eq!(
            chosen(Some("http://r.example/debian/"), Some("http://e.example/debian")),
            (own("http://r.example/debian"), own("http://r.example/debian-security"), ChosenBy::Recipe)
        );
        assert_eq!(
            chosen(None, Some("file:///srv/debian http://e.example/sec")),
            (own("file:///srv/debian"), own("http://e.example/sec"), ChosenBy::Environment)
        );
        assert_eq!(
            chosen(None, None),
            (own("http://host.example/debian"), own("http://host.example/debian-security"), ChosenBy::Host)
        );
        assert_eq!(chosen(Some("  "), None).2, ChosenBy::Host);
        let mirrors = choose_mirrors(None, None, &HostSources::default(), "trixie");
        assert_eq!((mirrors.main.as_str(), mirrors.chosen_by), (DEFAULT_MAIN, ChosenBy::Default));
    }

    #[test]
    fn only_debians_own_entries_of_the_host_count() {
        let mut host = HostSources::default();
        host.add_list(
            "# deb http://commented.example/debian trixie main\n\
             deb-src http://src.example/debian trixie main\n\
             deb cdrom:[Debian]/ trixie main\n\
             deb http://third.example/apt stable main\n\
             deb https://vendor.example/debian vendor-suite main\n\
             deb mirror+file:/etc/apt/mirrors/debian.list trixie main\n",
        );
        assert_eq!(host, HostSources::default());
        host.add_deb822(
            "Types: deb\nURIs: http://a.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
             Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n\n\
             Types: deb deb-src\nURIs: http://a.example/debian-security\nSuites: bookworm-security\nComponents: main\n",
        );
        let mirrors = choose_mirrors(None, None, &host, "trixie");
        assert_eq!(mirrors.main, "http://a.example/debian");
        assert_eq!(mirrors.security, "http://a.example/debian-security");
        assert_eq!(
            mirrors.archives("security"),
            ["http://a.example/debian-security", DEFAULT_SECURITY, "http://a.example/debian",]
        );
        let suites: Vec<String> =
            mirrors.repositories("trixie", &["main".into()]).into_iter().map(|one| one.suite).collect();
        assert_eq!(suites, ["trixie", "trixie-updates", "trixie-security"]);
        assert_eq!(mirrors.repositories("sid", &["main".into()]).len(), 1);
    }
}
