//! Against the real Debian: its signatures, its packages, and apt's own choices as the measure.
#![allow(clippy::print_stderr, reason = "a skipped test must say so, and sizes and times are worth seeing")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use debian::cache::Cache;
use debian::download::{DownloadError, download, name_replacements};
use debian::fetch::{Fetcher, Progress};
use debian::mirror::{HostSources, Mirrors, choose_mirrors};
use debian::openpgp::KeyRing;
use debian::repository::{LoadOptions, SourceInfo};
use debian::solve::{Request, Solution, solve};
use debian::tar::Kind;
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
                    workbench::left_out(&format!(
                        "no Debian mirror can be reached, nothing was tested: {error}"
                    ));
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

#[test]
fn bookworm_and_arm64_work_alike() {
    let Some(world) = world() else { return };
    let options = LoadOptions { now: world.now, keys: KeyRing::debian().unwrap() };
    let repositories = world.mirrors.repositories("bookworm", &["main".to_owned()]);
    let (universe, _) = Universe::load(&repositories, "arm64", &world.cache, &options, &Notes).unwrap();
    let goal =
        "linux-image-cloud-arm64 grub-efi-arm64-signed shim-signed apache2 cowsay cloud-init systemd-sysv";
    let solution = solve(&universe, &request(goal)).unwrap();
    assert!(
        solution.packages.iter().all(|one| ["arm64", "all"].contains(&one.package.architecture.as_str()))
    );
    let plain = names(&solution);
    assert!(plain.contains_key("linux-image-cloud-arm64") && plain.len() > 150);
    let more = names(&solve(&universe, &Request { recommends: true, ..request(goal) }).unwrap());
    assert!(more.len() > plain.len() && plain.keys().all(|name| more.contains_key(name)));
    let error = solve(&universe, &request("apahce2")).unwrap_err().to_string();
    assert!(error.contains("did you mean apache2"), "{error}");
    // Both want to be the one mail transport agent.
    let error = solve(&universe, &request("postfix exim4-daemon-light")).unwrap_err().to_string();
    eprintln!("{error}");
    assert!(error.contains("conflicts with mail-transport-agent, which is "), "{error}");
}

/// A private apt root over the same Packages files: nothing is installed in it, nothing of the host is touched.
struct Apt {
    folder: tempfile::TempDir,
}

impl Apt {
    fn new(world: &World) -> Option<Self> {
        if Command::new("apt-get").arg("--version").output().is_err() {
            workbench::left_out("apt is not on this machine, no solution was compared with it");
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
    // What apt has more: it settles each alternative as it meets it, first alternative first, even when another one is
    // needed anyway for something it meets later. Ours knows that and does without; both are right.
    for (goal, names_asked, only_apt) in [
        ("nothing but what is essential", "", &[][..]),
        ("hello-web", HELLO_WEB, &[]),
        ("nginx", "nginx", &[]),
        ("php and mariadb", "php mariadb-server libapache2-mod-php wordpress", &[]),
        // python3-typing-extensions | python3 (>> 3.11): python3 is there.
        ("python", "python3-django gunicorn python3-psycopg2 postgresql", &["python3-typing-extensions"]),
        ("desktop", "xfce4 lightdm firefox-esr", &[]),
        (
            "generic kernel",
            "linux-image-amd64 shim-signed grub-efi-amd64-signed systemd-boot systemd-sysv",
            &[],
        ),
        // crun | runc, and docker.io needs runc.
        ("containers", "podman docker.io", &["containernetworking-plugins", "crun", "libyajl2"]),
    ] {
        let start = Instant::now();
        let solution = names(&solve(&world.universe, &request(names_asked)).unwrap());
        let solved = start.elapsed().as_secs_f64();
        let all = names_asked.split_ascii_whitespace().chain(essential.iter().map(String::as_str));
        let mut expected = apt.install(&all.collect::<Vec<_>>());
        eprintln!(
            "{goal}: {} packages in {solved:.3} s, apt took {:.1} s",
            solution.len(),
            start.elapsed().as_secs_f64() - solved
        );
        for name in only_apt {
            assert!(expected.remove(*name).is_some() && !solution.contains_key(*name), "{goal}: {name}");
        }
        assert_eq!(solution, expected, "{goal}");
    }
}

/// Every member of an archive as dpkg and another reader of tar see it.
fn as_dpkg_sees_it(path: &Path) -> Vec<String> {
    let output = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(path).output().unwrap();
    assert!(output.status.success());
    let mut archive = tar::Archive::new(&output.stdout[..]);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let (header, link) = (entry.header(), entry.link_name_bytes().unwrap_or_default());
        let kind = match header.entry_type() {
            tar::EntryType::Regular => "file",
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "symlink",
            tar::EntryType::Link => "hardlink",
            other => panic!("{other:?}"),
        };
        format!(
            "{} {kind} {} {:o} {}:{} {}:{} {} {}",
            String::from_utf8_lossy(&entry.path_bytes()),
            String::from_utf8_lossy(&link),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.username().unwrap().unwrap(),
            header.groupname().unwrap().unwrap(),
            header.mtime().unwrap(),
            block::Digest::of(&content),
        )
    });
    entries.collect()
}

fn as_we_see_it(path: &Path) -> Vec<String> {
    let mut deb = debian::Deb::open(path).unwrap();
    let mut data = deb.data().unwrap();
    let mut all = Vec::new();
    while let Some(mut member) = data.next().unwrap() {
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        let (kind, link) = match &member.kind {
            Kind::File { .. } => ("file", Vec::new()),
            Kind::Dir => ("dir", Vec::new()),
            Kind::Symlink(link) => ("symlink", link.clone()),
            Kind::Hardlink(link) => ("hardlink", link.clone()),
            other => panic!("{other:?}"),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        all.push(format!(
            "{} {kind} {} {:o} {}:{} {}:{} {} {}",
            text(&member.path),
            text(&link),
            member.mode,
            member.uid,
            member.gid,
            text(&member.uname),
            text(&member.gname),
            member.mtime,
            block::Digest::of(&content),
        ));
    }
    all
}

#[test]
fn real_packages_are_read_as_dpkg_reads_them() {
    let Some(world) = world() else { return };
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        workbench::left_out("dpkg-deb is not on this machine, no package was compared with it");
        return;
    }
    // Hard links, setuid files, foreign groups, long names, scripts, and a large archive of several xz blocks.
    let names = [
        "perl-base",
        "sudo",
        "login",
        "cron",
        "systemd",
        "ca-certificates",
        "mailutils",
        "git",
        "cloud-init",
    ];
    let files: Vec<_> = names
        .iter()
        .map(|name| world.universe.package(world.universe.versions_of(name)[0]).unwrap().request())
        .collect();
    let downloaded = download(&files, &world.mirrors, &world.cache, &Notes).unwrap();
    for (name, path) in names.iter().zip(&downloaded.paths) {
        assert_eq!(as_we_see_it(path), as_dpkg_sees_it(path), "{name}");
        let control = debian::Deb::open(path).unwrap().control().unwrap();
        assert_eq!(control.fields.get("Package"), Some(*name));
        let output = Command::new("dpkg-deb").arg("--info").arg(path).arg("control").output().unwrap();
        assert_eq!(control.files["control"].bytes, output.stdout, "{name}");
    }
}

#[test]
fn gpgv_agrees_on_the_real_index() {
    let Some(world) = world() else { return };
    let url = format!("{}/dists/trixie/InRelease", world.mirrors.main);
    let text = Fetcher::new().small(&url, 1 << 24, &Notes).unwrap();
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if !Path::new(keyring).exists() {
        workbench::left_out(&format!("{keyring} is not on this machine, no signature was compared with it"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let keys = KeyRing::debian().unwrap();
    let changed =
        String::from_utf8(text.clone()).unwrap().replacen("Origin: Debian", "Origin: Nobody", 1).into_bytes();
    for (text, expected) in [(text, true), (changed, false)] {
        let file = folder.path().join("InRelease");
        fs::write(&file, &text).unwrap();
        let mut gpgv = workbench::tool("gpgv");
        gpgv.arg("--homedir").arg(folder.path()).arg("--keyring").arg(keyring).arg(file);
        assert_eq!(keys.verify(&url, &text, world.now).is_ok(), expected);
        assert_eq!(gpgv.output().unwrap().status.success(), expected);
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
    download(&files, &world.mirrors, &world.cache, &Notes).unwrap();
    let again = download(&files, &world.mirrors, &world.cache, &Notes).unwrap();
    assert_eq!((again.hits, again.fetched_bytes), (1, 0));
    let mut gone = files[0].clone();
    gone.filename = gone.filename.replace("cowsay_", "cowsay_9");
    gone.sha256 = debian::Deb::open(&again.paths[0]).map(|_| block::Digest::of(b"other")).unwrap();
    let mut error = download(&[gone], &world.mirrors, &world.cache, &Notes).unwrap_err();
    if let DownloadError::Gone { packages, .. } = &mut error {
        name_replacements(packages, &world.universe);
    }
    assert!(error.to_string().contains("replaced by 3."), "{error}");
}
