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
    #[error("{what} failed with {status}; its last words:\n{tail}")]
    Program {
        /// Which one: `preinst of package dash`, `configuring the packages`, `run step "tune"`, …
        what: String,
        /// `exit code 1`, `signal 11`.
        status: String,
        /// Its last lines of output.
        tail: String,
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

/// Adds what was tried, and on which file, to the system's answer.
pub(crate) trait OnFile<T> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> OnFile<T> for Result<T, E> {
    fn on(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::File { action, path: path.into(), source: source.into() })
    }
}
