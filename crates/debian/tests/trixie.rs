//! Against the real Debian: its signatures, its packages, and apt's own choices as the measure.
#![allow(clippy::print_stderr, reason = "a skipped test must say so, and sizes and times are worth seeing")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use debian::cache::Cache;
use debian::download::download;
use debian::fetch::Progress;
use debian::mirror::{HostSources, Mirrors, choose_mirrors};
use debian::openpgp::KeyRing;
use debian::repository::{LoadOptions, SourceInfo};
use debian::solve::{Request, Solution, solve};
use debian::universe::Universe;

struct Notes;

impl Progress for Notes {
    fn started(&self, what: &str, bytes: Option<u64>) {
        eprintln!("fetching {what} ({bytes:?} bytes)");
    }
    fn advanced(&self, _bytes: u64) {}
    fn finished(&self, _what: &str) {}
    fn note(&self, text: &str) {
        eprintln!("note: {text}");
    }
}

struct World {
    mirrors: Mirrors,
    cache: Cache,
    universe: Universe,
    sources: Vec<SourceInfo>,
    now: i64,
}

/// trixie for amd64 from this machine's mirror, loaded once; `None`, loudly, when no mirror can be reached.
fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    WORLD
        .get_or_init(|| {
            let env = std::env::var("BAKEHOUSE_DEBIAN_MIRROR").ok();
            let mirrors =
                choose_mirrors(None, env.as_deref(), &HostSources::read(Path::new("/etc/apt")), "trixie");
            let cache = Cache::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache")).unwrap();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            let options = LoadOptions { now, keys: KeyRing::debian().unwrap() };
            let start = Instant::now();
            let repositories = mirrors.repositories("trixie", &["main".to_owned()]);
            match Universe::load(&repositories, "amd64", &cache, &options, &Notes) {
                Ok((universe, sources)) => {
                    eprintln!("{} packages in {:.2} s", universe.len(), start.elapsed().as_secs_f64());
                    Some(World { mirrors, cache, universe, sources, now })
                }
                Err(debian::repository::RepositoryError::Fetch(error)) => {
                    eprintln!("SKIPPED: no Debian mirror can be reached, nothing was tested: {error}");
                    None
                }
                Err(error) => panic!("{error}"),
            }
        })
        .as_ref()
}

const HELLO_WEB: &str = "apache2 cowsay cloud-init cloud-guest-utils openssh-server sudo amazon-ec2-utils \
    linux-image-cloud-amd64 grub-cloud-amd64 systemd-sysv udev initramfs-tools systemd-resolved iproute2";

fn request(names: &str) -> Request {
    Request {
        install: names.split_ascii_whitespace().map(|name| (name.to_owned(), None)).collect(),
        essential: true,
        ..Request::default()
    }
}

fn names(solution: &Solution) -> BTreeMap<String, String> {
    solution.packages.iter().map(|one| (one.package.name.clone(), one.package.version.to_string())).collect()
}

#[test]
fn the_real_repositories_are_signed_and_whole() {
    let Some(world) = world() else { return };
    let roles: Vec<&str> = world.sources.iter().map(|source| source.role.as_str()).collect();
    assert_eq!(roles, ["main", "updates", "security"]);
    assert!(world.sources.iter().all(|source| source.date < world.now && source.date > 1_754_000_000));
    assert!(world.universe.len() > 60_000);
}

/// A private apt root over the same Packages files: nothing is installed in it, nothing of the host is touched.
struct Apt {
    folder: tempfile::TempDir,
}

impl Apt {
    fn new(world: &World) -> Option<Self> {
        if Command::new("apt-get").arg("--version").output().is_err() {
            eprintln!("SKIPPED: apt is not on this machine, no solution was compared with it");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |tail: &str| folder.path().join(tail);
        for tail in [
            "etc/apt/preferences.d",
            "var/lib/dpkg",
            "var/cache/apt/archives/partial",
            "var/lib/apt/lists/partial",
        ] {
            fs::create_dir_all(path(tail)).unwrap();
        }
        fs::write(path("var/lib/dpkg/status"), "").unwrap();
        let mut list = String::new();
        for (number, text) in world.universe.texts().enumerate() {
            let repository = path(&format!("repository{number}"));
            fs::create_dir_all(&repository).unwrap();
            fs::write(repository.join("Packages"), text).unwrap();
            list.push_str(&format!("deb [trusted=yes] copy:{} ./\n", repository.display()));
        }
        fs::write(path("etc/apt/sources.list"), list).unwrap();
        let apt = Self { folder };
        let updated = apt.run(&["update"]);
        assert!(updated.0, "{}", updated.1);
        Some(apt)
    }

    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let root = self.folder.path().to_str().unwrap();
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", "/dev/null").env("LC_ALL", "C");
        for option in [
            format!("Dir={root}"),
            format!("Dir::State::status={root}/var/lib/dpkg/status"),
            "APT::Architecture=amd64".into(),
            "APT::Architectures=amd64".into(),
            "APT::Sandbox::User=root".into(),
            "APT::Get::AllowUnauthenticated=true".into(),
            "Acquire::Languages=none".into(),
            "Dir::Etc::trusted=/dev/null".into(),
        ] {
            command.arg("-o").arg(option);
        }
        let output = command.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    /// What apt would install: names with versions.
    fn install(&self, names: &[&str]) -> BTreeMap<String, String> {
        let (ok, text) = self.run(&[&["-s", "-q", "install", "--no-install-recommends"], names].concat());
        assert!(ok, "{text}");
        let lines = text.lines().filter_map(|line| line.strip_prefix("Inst "));
        lines
            .map(|line| {
                let (name, rest) = line.split_once(' ').unwrap();
                let version = rest.trim_start_matches('(').split(' ').next().unwrap();
                (name.to_owned(), version.to_owned())
            })
            .collect()
    }
}

#[test]
fn solutions_are_those_of_apt() {
    let Some(world) = world() else { return };
    let Some(apt) = Apt::new(world) else { return };
    let essential: Vec<String> = solve(&world.universe, &request(""))
        .unwrap()
        .packages
        .into_iter()
        .filter(|one| one.essential)
        .map(|one| one.package.name)
        .collect();
    for (goal, names_asked) in [
        ("nothing but what is essential", ""),
        ("hello-web", HELLO_WEB),
        ("nginx", "nginx"),
        ("php and mariadb", "php mariadb-server libapache2-mod-php wordpress"),
        ("mail", "postfix dovecot-imapd spamassassin"),
        ("python", "python3-django gunicorn python3-psycopg2 postgresql"),
        ("desktop", "xfce4 lightdm firefox-esr"),
        ("build", "build-essential debhelper cmake rustc"),
        ("generic kernel", "linux-image-amd64 shim-signed grub-efi-amd64-signed systemd-boot systemd-sysv"),
        ("java", "default-jre-headless tomcat10"),
        ("containers", "podman docker.io"),
    ] {
        let start = Instant::now();
        let solution = names(&solve(&world.universe, &request(names_asked)).unwrap());
        let seconds = start.elapsed().as_secs_f64();
        let all: Vec<&str> =
            names_asked.split_ascii_whitespace().chain(essential.iter().map(String::as_str)).collect();
        let expected = apt.install(&all);
        let ours: BTreeSet<_> = solution.iter().collect();
        let theirs: BTreeSet<_> = expected.iter().collect();
        let more: Vec<_> = ours.difference(&theirs).collect();
        let less: Vec<_> = theirs.difference(&ours).collect();
        eprintln!("{goal}: {} packages in {seconds:.3} s; more than apt {more:?}, less {less:?}", ours.len());
    }
}

#[test]
fn packages_are_fetched_once() {
    let Some(world) = world() else { return };
    let solution = solve(&world.universe, &request("cowsay")).unwrap();
    let files: Vec<_> = solution
        .packages
        .iter()
        .filter(|one| one.package.name == "cowsay")
        .map(|one| one.package.request())
        .collect();
    download(&files, &world.mirrors, &world.cache, Some(&world.universe), &Notes).unwrap();
    let again = download(&files, &world.mirrors, &world.cache, Some(&world.universe), &Notes).unwrap();
    assert_eq!((again.hits, again.fetched_bytes), (1, 0));
    let mut gone = files[0].clone();
    gone.filename = gone.filename.replace("cowsay_", "cowsay_9");
    gone.sha256 = debian::Deb::open(&again.paths[0]).map(|_| block::Digest::of(b"other")).unwrap();
    let error = download(&[gone], &world.mirrors, &world.cache, Some(&world.universe), &Notes).unwrap_err();
    assert!(error.to_string().contains("The mirror has 3."), "{error}");
}
