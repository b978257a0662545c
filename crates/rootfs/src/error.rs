use std::io;
use std::path::PathBuf;

/// Why a root file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the root, or of the work folder, could not be read or written.
    #[error("{action} `{}`: {source}", path.display())]
    File {
        /// What was tried: `cannot write`, `cannot read`, …
        action: &'static str,
        /// The file, as the finished machine or the host names it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A package's file is damaged or hostile.
    #[error(transparent)]
    Deb(#[from] debian::deb::DebError),
    /// A package's control file lacks a field, or is another package than was asked for.
    #[error("package {package}: its control file {problem}")]
    Control {
        /// The package.
        package: String,
        /// What is wrong.
        problem: String,
    },
    /// A member of a package's archive cannot be laid down.
    #[error("package {package}: `/{path}` {problem}")]
    Member {
        /// The package.
        package: String,
        /// The member.
        path: String,
        /// Why it was refused.
        problem: String,
    },
    /// Two packages bring the same file and neither replaces the other.
    #[error(
        "`/{path}` comes with package {first} and with package {second}, and neither replaces the other's files; leave one of the packages out"
    )]
    Conflict {
        /// The file.
        path: String,
        /// The package unpacked first.
        first: String,
        /// The other one.
        second: String,
    },
    /// Packages wait for each other by Pre-Depends.
    #[error("these packages cannot be unpacked, because their Pre-Depends lead in a circle or are missing: {}", packages.join(", "))]
    PreDepends {
        /// The packages left over.
        packages: Vec<String>,
    },
    /// The root's programs are for another architecture, and what runs them could not be laid out.
    #[error(transparent)]
    Foreign(#[from] dispatch::Error),
    /// A program in the sandbox failed.
    #[error("{what} failed: {status}{}", last_words(place.as_deref(), tail))]
    Program {
        /// Which one: `preinst of package dash`, `configuring the packages`, `run step "tune"`, …
        what: String,
        /// `exit code 1`, `killed by signal 11 (SIGSEGV)`.
        status: String,
        /// Where the recipe says that it is to run: `recipe.yaml:12:5`.
        place: Option<String>,
        /// Its last lines of output, in order.
        tail: Vec<String>,
    },
    /// The sandbox could not start a program.
    #[error("{what}: {source}")]
    Sandbox {
        /// What was to be run.
        what: String,
        /// What the sandbox said.
        source: sandbox::SandboxError,
    },
    /// Something that the recipe asks for does not fit the packages; the text is the whole message, with its place.
    #[error("{0}")]
    Recipe(recipe::Diagnostics),
    /// The boot loader's files are not as this program expects them.
    #[error("boot loader: {0}")]
    Boot(String),
    /// The files do not make a tree.
    #[error(transparent)]
    Tree(#[from] tree::TreeError),
    /// A name that no tree can hold.
    #[error(transparent)]
    Path(#[from] tree::PathError),
}

/// The lines below a failure: its place, and what the program said last.
fn last_words(place: Option<&str>, tail: &[String]) -> String {
    let mut text = place.map(|place| format!("\n --> {place}")).unwrap_or_default();
    if tail.iter().all(|line| line.trim().is_empty()) {
        text += "\n  = note: it printed nothing";
    }
    for line in tail {
        // What a program prints is not for the terminal of whoever reads the message.
        let plain: String = line.chars().map(|c| if block::is_obeyed(c) { ' ' } else { c }).collect();
        text += format!("\n  | {plain}").trim_end_matches(' ');
    }
    text
}

/// Adds what was tried, and on which file, to the system's answer.
pub(crate) trait OnFile<T> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> OnFile<T> for Result<T, E> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::File { action, path: path.into(), source: source.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_told_with_its_place_and_its_last_lines() {
        let program = |place: Option<&str>, tail: &[&str]| Error::Program {
            what: "run step `tune`".into(),
            status: "exit code 3".into(),
            place: place.map(str::to_owned),
            tail: tail.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(
            program(Some("web.yaml:4:5"), &["begins", "", "no \u{1b}[1msuch file"]).to_string(),
            "run step `tune` failed: exit code 3\n --> web.yaml:4:5\n  | begins\n  |\n  | no  [1msuch file"
        );
        assert_eq!(
            program(None, &[]).to_string(),
            "run step `tune` failed: exit code 3\n  = note: it printed nothing"
        );
    }
}
