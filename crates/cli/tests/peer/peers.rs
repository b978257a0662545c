//! mmdebstrap and its like in a private root: programs of the tools set `peer`, run in the sandbox, without network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bake::{Ingredients, LockMode, ParentChoice, Report, Request, Stage, Stages, ToolPackages, Unit};
use recipe::Arch;
use sandbox::{Input, Sandbox};
use tools::{Set, Tools};

/// Where the work folder and the repository are inside.
pub(crate) const WORK: &str = "/mnt";
const REPOSITORY: &str = "/srv";

/// Tells nobody but the person before the terminal.
pub(crate) struct Quiet;

impl Report for Quiet {
    fn started(&self, _: &str) {}
    fn progress(&self, _: u64, _: Option<u64>, _: Unit, _: &str) {}
    fn line(&self, text: &str) {
        println!("  {text}");
    }
    fn finished(&self, _: &Stage) {}
}

/// The cache that the program itself would use.
pub(crate) fn cache_folder() -> PathBuf {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("BAKEHOUSE_CACHE")
        .or_else(|| named("XDG_CACHE_HOME").map(|folder| folder.join("bakehouse")))
        .or_else(|| named("HOME").map(|folder| folder.join(".cache/bakehouse")))
        .expect("BAKEHOUSE_CACHE or HOME is set")
}

fn mirror() -> Option<String> {
    std::env::var("BAKEHOUSE_DEBIAN_MIRROR").ok().filter(|value| !value.trim().is_empty())
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// A set of tools, fetched where it is not in the cache yet. Of sid, which moves every day and whose index a mirror may have long
/// after it expired, any index with a good signature will do for a comparison.
pub(crate) fn tools(set: Set) -> Tools {
    let (cache, mirror) = (cache_folder(), mirror());
    let provider = ToolPackages {
        cache: &cache,
        now: now(),
        mirror: mirror.as_deref(),
        expired_suite: Some("sid"),
        report: &Quiet,
    };
    Tools::prepare(set, &cache, &provider).unwrap_or_else(|error| panic!("{error}")).0
}

/// A private folder in the cache: on the file system of the downloads, so that these can be linked into it.
pub(crate) fn work_folder() -> tempfile::TempDir {
    let parent = cache_folder().join("tests");
    fs::create_dir_all(&parent).unwrap();
    tempfile::Builder::new().prefix("peer-").tempdir_in(parent).unwrap()
}

/// The recipe's lock (written beside it when it is not there) and its packages.
pub(crate) fn ingredients(recipe: &Path) -> Ingredients {
    let request = Request {
        recipe: recipe.to_owned(),
        set: Vec::new(),
        arch: Some(Arch::X86_64),
        out: None,
        lock: None,
        lock_mode: LockMode::Keep,
        parent: ParentChoice::Locked,
        native_dispatch: true,
        explain: false,
        check: None,
        store: None,
        cache: cache_folder(),
        memory: 0,
        mirror: mirror(),
        now: now(),
    };
    bake::fetch(&request, &Stages::new(&Quiet)).unwrap_or_else(|error| panic!("{error}"))
}

/// The peers, and the repository that they install from.
pub(crate) struct Peers {
    sandbox: Sandbox,
    include: String,
}

impl Peers {
    /// Makes a flat repository of exactly these packages in `work`, and fetches the peers when they are not there.
    /// `time` is SOURCE_DATE_EPOCH for all that they run.
    pub(crate) fn new(ingredients: &Ingredients, work: &Path, time: i64) -> Self {
        let tools = tools(Set::Peer);
        let repository = work.join("repository");
        fs::create_dir(&repository).unwrap();
        fs::write(repository.join("Packages"), packages_file(ingredients, &repository)).unwrap();
        // The same environment as the maintainer scripts have in a bake, so that nothing differs for its sake.
        let sandbox = Sandbox::new(&tools.root())
            .may_mount(true)
            .bind(work, WORK, false)
            .bind(&repository, REPOSITORY, true)
            .env("SOURCE_DATE_EPOCH", time.to_string())
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("DEBCONF_NONINTERACTIVE_SEEN", "true")
            .env("DEBCONF_NOWARNINGS", "yes")
            .env("PERL_HASH_SEED", "0")
            .env("PYTHONHASHSEED", "0")
            .env("MTOOLS_SKIP_CHECK", "1");
        let wanted = ingredients.files.iter().filter(|file| !file.auto).map(|file| file.name.as_str());
        Self { sandbox, include: wanted.collect::<Vec<_>>().join(",") }
    }

    /// Runs a program; a failure ends the test or bench with all that was printed.
    pub(crate) fn run(&self, argv: &[&str]) -> String {
        let mut output = Vec::new();
        let exit = self.sandbox.run(argv, Input::Null, &mut |bytes| output.extend_from_slice(bytes));
        let output = String::from_utf8_lossy(&output).into_owned();
        let exit = exit.unwrap_or_else(|error| panic!("{}: {error}", argv[0]));
        assert!(exit.success(), "{}: {exit}\n{output}", argv.join(" "));
        output
    }

    /// Installs the packages by mmdebstrap into the folder `name` of the work folder.
    pub(crate) fn mmdebstrap(&self, name: &str) -> String {
        let root = format!("{WORK}/{name}");
        let include = format!("--include={}", self.include);
        let source = format!("deb [trusted=yes] copy:{REPOSITORY} ./");
        self.run(&[
            "mmdebstrap",
            "--mode=root",
            "--variant=essential",
            "--format=directory",
            "--aptopt=APT::Sandbox::User \"root\"",
            &include,
            "",
            &root,
            &source,
        ])
    }
}

/// The index of a repository of these packages, each linked into `folder` under its usual name.
fn packages_file(ingredients: &Ingredients, folder: &Path) -> String {
    let locked =
        &ingredients.lock.for_arch(ingredients.recipe.arch).expect("the lock has the architecture").packages;
    let mut text = String::new();
    for (locked, file) in locked.iter().zip(&ingredients.files) {
        assert_eq!(locked.name, file.name);
        let name = format!("{}_{}.deb", file.name, file.architecture);
        fs::hard_link(&file.path, folder.join(&name)).unwrap();
        let control = debian::deb::open(&file.path).and_then(|mut deb| deb.control()).unwrap();
        for (field, value) in control.fields.fields() {
            let space = if value.starts_with('\n') { "" } else { " " };
            text += &format!("{field}:{space}{}\n", value.trim_end());
        }
        text += &format!("Filename: ./{name}\nSize: {}\nSHA256: {}\n\n", locked.size, locked.sha256.to_hex());
    }
    text
}
