//! The language from the outside: files in, recipes out.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use recipe::{
    Arch, BootMode, Check, Diagnostics, Kernel, LoadOptions, Payload, Recipe, Source, Unit, VolumeType, load,
    request_digest,
};

const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes");

/// Reads `recipe.yaml` among some files.
fn read(files: &[(&str, &str)], set: &[(&str, &str)]) -> Result<Source, Diagnostics> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&folder.path().join("recipe.yaml"), &LoadOptions { set })
}

fn recipe(files: &[(&str, &str)], set: &[(&str, &str)]) -> Recipe {
    let source = read(files, set).unwrap_or_else(|problems| panic!("{problems}"));
    source.for_arch(source.architectures()[0]).unwrap()
}

fn one(text: &str) -> Recipe {
    recipe(&[("recipe.yaml", text)], &[])
}

fn names(recipe: &Recipe) -> Vec<&str> {
    recipe.packages.iter().map(|package| package.name.as_str()).collect()
}

#[test]
fn the_example_that_people_copy_says_what_it_should() {
    let path = Path::new(RECIPES).join("hello-web.yaml");
    let source = load(&path, &LoadOptions::default()).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(source.warnings(), []);
    assert_eq!(source.name(), "hello-web");
    assert_eq!(source.architectures(), [Arch::X86_64, Arch::Aarch64]);
    assert_eq!(source.lock_path(), Path::new(RECIPES).join("hello-web.lock"));
    let recipe = source.for_arch(Arch::X86_64).unwrap();
    assert_eq!(recipe.image_name, "hello-web-1.0.0");
    assert_eq!(recipe.kernel, Kernel::Cloud);
    for name in
        ["cloud-init", "cloud-guest-utils", "openssh-server", "sudo", "amazon-ec2-utils", "apache2", "cowsay"]
    {
        assert!(names(&recipe).contains(&name), "{name}");
    }
    let web = recipe.web.as_ref().unwrap();
    assert_eq!(web.root, "/var/www/html");
    assert_eq!(web.entries[0].path, "index.html");
    assert_eq!(web.entries[0].payload, Payload::Content("<h1>Hello from My Custom AMI!</h1>".to_owned()));
    assert_eq!(recipe.motd[0].key, "40-cow");
    assert_eq!(recipe.motd[0].script, "#!/bin/sh\n/usr/games/cowsay \"Hello from My Custom AMI!\"\n");
    assert_eq!(recipe.default_user().unwrap().name, "ec2-user");
    let root = recipe.root_volume().unwrap();
    assert_eq!((root.device.as_str(), root.size_gib(), root.volume_type), ("/dev/xvda", 4, VolumeType::Gp3));
    assert!(root.delete_on_termination);
    assert_eq!(recipe.checks.len(), 3);
    assert_eq!(
        serde_json::to_value(&recipe.checks[1]).unwrap(),
        serde_json::json!({"login": {"user": "ec2-user", "contains": "Hello from"}})
    );
    let arm = source.for_arch(Arch::Aarch64).unwrap();
    assert_eq!(arm.image.boot_mode, BootMode::Uefi);
    assert_eq!(arm.kernel_package(), "linux-image-cloud-arm64");
}

#[test]
fn another_greeting_reaches_every_text() {
    let path = Path::new(RECIPES).join("hello-web.yaml");
    let options = LoadOptions { set: vec![("greeting".to_owned(), "Moo ${{ arch }}: \"x\"".to_owned())] };
    let recipe = load(&path, &options).unwrap().for_arch(Arch::X86_64).unwrap();
    let page = "<h1>Moo ${{ arch }}: \"x\"</h1>";
    assert_eq!(recipe.web.as_ref().unwrap().entries[0].payload, Payload::Content(page.to_owned()));
    assert!(matches!(&recipe.checks[0], Check::Http { contains: Some(text), .. } if text == page));
}

#[test]
fn the_carried_bases_are_those_beside_the_examples() {
    for name in ["debian-13", "debian-12"] {
        let carried = recipe(&[("recipe.yaml", &format!("name: web\nextends: builtin:{name}\n"))], &[]);
        let text = fs::read_to_string(Path::new(RECIPES).join(format!("base/{name}.yaml"))).unwrap();
        let beside = recipe(&[("recipe.yaml", "name: web\nextends: base.yaml\n"), ("base.yaml", &text)], &[]);
        assert_eq!(serde_json::to_value(carried).unwrap(), serde_json::to_value(beside).unwrap());
    }
}

#[test]
fn the_bases_differ_only_in_the_release() {
    let text = |name: &str| {
        let text = fs::read_to_string(Path::new(RECIPES).join(format!("base/{name}.yaml"))).unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.map(|line| format!("{line}\n").replace("bookworm", "trixie")).collect::<String>()
    };
    assert_eq!(text("debian-12"), text("debian-13"));
}

#[test]
fn the_bases_program_finds_a_disks_names_in_the_smbios_table() {
    if let Some(lacking) = ["sh", "tr", "sed", "head"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err())
    {
        workbench::left_out(&format!(
            "this machine has no {lacking} for the bases' program; machines with several volumes run it in their guests"
        ));
        return;
    }
    let recipe = recipe(&[("recipe.yaml", "name: web\nextends: builtin:debian-13\n")], &[]);
    let file = recipe.files.iter().find(|file| file.path == "/usr/lib/bakehouse/device-names").unwrap();
    let Payload::Content(script) = &file.payload else { panic!("{file:?}") };
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("DMI");
    let strings = ["0=/dev/xvda", "1=/dev/sdf", "2=/dev/sda1", "3=/dev/xvdba", "4=/dev/nvme0n1"]
        .map(|text| format!("bakehouse:device:vol0123456789abcdef{text}\0"))
        .concat();
    fs::write(
        &table,
        [b"\x00\x18\xff\x00bios\0\0\x0b\x05\x0a\x0b\x03".as_slice(), strings.as_bytes(), b"\0\x7f\x04\0\0"]
            .concat(),
    )
    .unwrap();
    assert!(script.contains("/sys/firmware/dmi/tables/DMI"));
    let script = script.replace("/sys/firmware/dmi/tables/DMI", table.to_str().unwrap());
    let names = |arguments: &[&str]| {
        let run =
            Command::new("sh").arg("-c").arg(&script).arg("device-names").args(arguments).output().unwrap();
        run.status.success().then(|| String::from_utf8(run.stdout).unwrap().trim_end().to_owned())
    };
    assert_eq!(names(&["vol0123456789abcdef0"]).as_deref(), Some("xvda sda"));
    assert_eq!(names(&["vol0123456789abcdef0", "1"]).as_deref(), Some("xvda1 sda1"));
    assert_eq!(names(&["vol0123456789abcdef1"]).as_deref(), Some("xvdf sdf"));
    assert_eq!(names(&["vol0123456789abcdef2", "15"]).as_deref(), Some("xvda15 sda15"));
    assert_eq!(names(&["vol0123456789abcdef3"]).as_deref(), Some("xvdba"));
    for unknown in ["vol0123456789abcdef4", "vol0123456789abcdef", "vol.*", ""] {
        assert_eq!(names(&[unknown]), None, "{unknown}");
    }
}

#[test]
fn a_recipe_needs_no_base() {
    let source = read(&[("recipe.yaml", "name: tiny\n")], &[]).unwrap();
    assert_eq!(source.architectures(), Arch::ALL);
    let recipe = source.for_arch(Arch::Aarch64).unwrap();
    assert_eq!(recipe.kernel_package(), "linux-image-cloud-arm64");
    assert_eq!(recipe.distribution.suite, "trixie");
    assert_eq!(recipe.distribution.components, ["main"]);
    assert!(recipe.distribution.updates && recipe.distribution.security && !recipe.recommends);
    assert!(recipe.packages.is_empty() && recipe.users.is_empty() && recipe.default_user().is_none());
    let [root] = &recipe.volumes[..] else { panic!("{:?}", recipe.volumes) };
    assert!(root.root && root.size == 4 << 30 && root.device.as_str() == "/dev/xvda");
}

#[test]
fn mappings_merge_lists_append_and_the_rest_is_replaced() {
    let recipe = recipe(
        &[
            (
                "recipe.yaml",
                "name: web\nextends: base/a.yaml\nkernel: generic\npackages: [bb, -sudo, -htop=3, c1]\nmotd: {10-a: null, 20-b: '#!/bin/b'}\ndistribution: {suite: bookworm}\ndescription: null\nrun:\n",
            ),
            (
                "base/a.yaml",
                "extends: ../lower.yaml\nkernel: cloud\npackages: [sudo, vim=1]\nmotd: {10-a: '#!/bin/a', 20-b: '#!/bin/a', 30-c: '#!/bin/a'}\nrun: [{name: x, script: x}]\n",
            ),
            (
                "lower.yaml",
                "description: below\npackages: [vim, less, htop]\ndistribution: {suite: trixie, components: [main, contrib], updates: false}\n",
            ),
        ],
        &[],
    );
    assert_eq!(names(&recipe), ["vim", "less", "bb", "c1"]);
    assert_eq!(recipe.packages[0].version.as_deref(), Some("1"));
    assert_eq!(recipe.kernel, Kernel::Generic);
    assert_eq!(recipe.description, None);
    assert_eq!(recipe.run.len(), 1);
    let motd: Vec<_> =
        recipe.motd.iter().map(|script| (script.key.as_str(), script.script.as_str())).collect();
    assert_eq!(motd, [("20-b", "#!/bin/b"), ("30-c", "#!/bin/a")]);
    assert_eq!(recipe.distribution.suite, "bookworm");
    assert_eq!(recipe.distribution.components, ["main", "contrib"]);
    assert!(!recipe.distribution.updates);
}

#[test]
fn an_entry_takes_the_place_of_the_bases_entry_of_the_same_name() {
    let recipe = recipe(
        &[
            (
                "recipe.yaml",
                "name: web\nextends: base.yaml\nvolumes: [{device: /dev/xvdf, size: 8GiB}]\nfiles: [{path: /a, content: new}]\nusers: [{name: me, groups: [adm]}]\nservices: {disable: [a], enable: [b]}\n",
            ),
            (
                "base.yaml",
                "volumes: [{device: /dev/sdf, size: 1GiB}, {device: /dev/xvda, root: true}]\nfiles: [{path: /a, content: old}, {path: /b, content: b}]\nusers: [{name: me, sudo: true}]\nservices: {enable: [a], disable: [b, c]}\n",
            ),
        ],
        &[],
    );
    let devices: Vec<_> =
        recipe.volumes.iter().map(|volume| (volume.device.as_str(), volume.size_gib())).collect();
    assert_eq!(devices, [("/dev/xvdf", 8), ("/dev/xvda", 4)]);
    let files: Vec<_> = recipe.files.iter().map(|file| (file.path.as_str(), &file.payload)).collect();
    assert_eq!(files[0], ("/a", &Payload::Content("new".to_owned())));
    assert_eq!(files.len(), 2);
    assert!(!recipe.users[0].sudo);
    let units = |units: &[Unit]| -> Vec<String> { units.iter().map(|unit| unit.name.clone()).collect() };
    assert_eq!(units(&recipe.services.enable), ["b.service"]);
    assert_eq!(units(&recipe.services.disable), ["a.service", "c.service"]);
    assert_eq!(format!("{:?}", recipe.services.disable[0].span).rsplit('/').next(), Some("recipe.yaml:6:22"));
    assert_eq!(
        serde_json::to_value(&recipe.services).unwrap(),
        serde_json::json!({"enable": ["b.service"], "disable": ["a.service", "c.service"]})
    );
}

#[test]
fn a_base_can_use_what_the_recipe_sets() {
    let files = [
        ("recipe.yaml", "name: web\nversion: 1.10\nextends: base.yaml\nvars: {who: world, port: 8080}\n"),
        (
            "base.yaml",
            "vars: {who: nobody, greeting: 'Hello ${{ who }}'}\nmotd: {10-a: \"#!/bin/sh\\necho ${{greeting}} $${{ x }} ${{ name }}-${{ version }} ${{ arch }} ${{ debian_arch }}\"}\nchecks:\n  - http: {port: '${{ port }}'}\n",
        ),
    ];
    let plain = recipe(&files, &[]);
    assert_eq!(plain.motd[0].script, "#!/bin/sh\necho Hello world ${{ x }} web-1.10 x86_64 amd64");
    assert!(matches!(plain.checks[0], Check::Http { port: 8080, status: 200, .. }));
    let set = recipe(&files, &[("who", "moon")]);
    assert!(set.motd[0].script.contains("Hello moon"));
}

#[test]
fn texts_keep_their_writing() {
    let recipe = one(
        "name: web\nversion: 1.10\ndescription: 0x1F\nimage: {tags: {Build: 007, On: yes, Ratio: 1.50}}\n",
    );
    assert_eq!(recipe.image_name, "web-1.10");
    assert_eq!(recipe.description.as_deref(), Some("0x1F"));
    let tags: Vec<_> = recipe.image.tags.values().map(String::as_str).collect();
    assert_eq!(tags, ["007", "yes", "1.50"]);
}

#[test]
fn the_whole_language_is_read() {
    let recipe = recipe(
        &[
            (
                "recipe.yaml",
                r#"
name: all
architectures: [x86_64]
distribution: {family: debian, suite: trixie, components: [main, non-free-firmware], mirror: "http://ftp.debian.org/debian/", updates: false, security: true}
kernel: linux-image-6.12.48+deb13-amd64
packages: [apache2=2.4.65-2]
recommends: true
web: {root: /srv/www/, source: site, css/main.css: "a {}"}
files:
  - {path: /opt/app, source: site/}
  - {path: /opt/run, source: site/run.sh, mode: "4755", owner: www-data, group: www-data}
users:
  - {name: someone}
  - {name: admin, sudo: true, shell: /bin/sh, groups: [adm, adm]}
run:
  - {name: tune, script: "sysctl --system || true"}
volumes:
  - {device: /dev/sda1, root: true, size: 3500MiB, type: io1, iops: 150}
  - {device: /dev/xvdf, size: 1GiB, type: gp3, filesystem: ext4, label: data, mount: /srv/data, source: site/, delete_on_termination: true}
  - {device: /dev/xvdg, size: 20GiB, throughput: 250, iops: 4000, encrypted: true}
  - {device: /dev/sdb, ephemeral: 0}
image: {tags: {Team: web}, boot_mode: legacy-bios, imds: optional, ena: false}
checks:
  - login: {contains: Hello}
  - ssh: {run: "true"}
  - mount: {path: /srv/data, device: /dev/sdf}
  - console: {contains: "login:"}
"#,
            ),
            ("site/run.sh", "#!/bin/sh\n"),
        ],
        &[],
    );
    assert_eq!(recipe.distribution.mirror.as_deref(), Some("http://ftp.debian.org/debian"));
    assert_eq!(recipe.kernel_package(), "linux-image-6.12.48+deb13-amd64");
    assert_eq!(recipe.web.as_ref().unwrap().root, "/srv/www");
    assert_eq!(recipe.web.as_ref().unwrap().entries.len(), 2);
    assert_eq!(recipe.files[1].mode, Some(0o4755));
    assert!(matches!(&recipe.files[0].payload, Payload::Source(path) if path.is_absolute()));
    assert_eq!(recipe.default_user().unwrap().name, "admin");
    assert_eq!(recipe.users[1].groups, ["adm"]);
    let [root, data, blank, store] = &recipe.volumes[..] else { panic!("{:?}", recipe.volumes) };
    assert_eq!((root.device.file_stem(), root.size_gib(), root.mount.as_deref()), ("sda1", 4, Some("/")));
    assert!(data.filesystem.is_some() && data.source.is_some() && data.delete_on_termination);
    assert!(blank.filesystem.is_none() && blank.encrypted == Some(true) && !blank.delete_on_termination);
    assert_eq!((store.ephemeral, store.size_gib()), (Some(0), 1));
    assert_eq!((recipe.image.boot_mode, recipe.image.imds.as_deref()), (BootMode::LegacyBios, None));
    assert!(matches!(&recipe.checks[0], Check::Login { user, .. } if user == "admin"));
}

#[test]
fn a_recipe_narrows_and_widens_the_architectures_of_its_base() {
    let named = |own: &str, base: &str| {
        let files = [
            ("recipe.yaml", format!("name: web\nextends: base.yaml\n{own}")),
            ("base.yaml", format!("packages: [less]\n{base}")),
        ];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        read(&files, &[]).unwrap().architectures().to_vec()
    };
    let both = "architectures: [x86_64, aarch64]\n";
    assert_eq!(named("architectures: [aarch64]\n", both), [Arch::Aarch64]);
    assert_eq!(named(both, "architectures: [aarch64]\n"), Arch::ALL);
    assert_eq!(named("", "architectures: [aarch64]\n"), [Arch::Aarch64]);
}

#[test]
fn an_architecture_that_the_recipe_does_not_name_is_refused() {
    let source = read(&[("recipe.yaml", "name: web\narchitectures: [x86_64]\n")], &[]).unwrap();
    let error = source.for_arch(Arch::Aarch64).unwrap_err().to_string();
    assert!(
        error.contains("recipe.yaml:2:16") && error.contains("add aarch64 to `architectures`"),
        "{error}"
    );
}

#[test]
fn the_request_is_what_decides_about_packages() {
    let base = "name: web\npackages: [aa, bb]\n";
    let digest = |text: &str| request_digest(&one(text));
    for same in [
        "name: other\nversion: 2\npackages: [bb, aa]\n",
        "name: web\npackages: [aa, bb]\nmotd: {10-a: '#!/bin/sh'}\n",
        "name: web\npackages: [aa, bb]\nkernel: linux-image-cloud-amd64\n",
        "name: web\npackages: [aa, bb]\ndistribution: {mirror: 'http://ftp.debian.org/debian'}\n",
    ] {
        assert_eq!(digest(same), digest(base), "{same}");
    }
    for other in [
        "name: web\npackages: [aa]\n",
        "name: web\npackages: [aa=1, bb]\n",
        "name: web\npackages: [aa, bb]\nrecommends: true\n",
        "name: web\npackages: [aa, bb]\nkernel: generic\n",
        "name: web\npackages: [aa, bb]\ndistribution: {suite: bookworm}\n",
        "name: web\npackages: [aa, bb]\ndistribution: {security: false}\n",
        "name: web\npackages: [aa, bb]\narchitectures: [aarch64]\n",
    ] {
        assert_ne!(digest(other), digest(base), "{other}");
    }
}

#[test]
fn a_mirror_of_ones_own_may_be_signed_by_keys_beside_the_recipe() {
    let keys = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxx\n-----END PGP PUBLIC KEY BLOCK-----\n";
    let text = |distribution: &str| format!("name: web\ndistribution: {{{distribution}}}\n");
    let mirror = "mirror: 'http://own.example/debian', signed_by: own.asc";
    let recipe = recipe(&[("recipe.yaml", &text(mirror)), ("own.asc", keys)], &[]);
    assert_eq!(recipe.distribution.signed_by.as_deref(), Some(keys));
    for (distribution, content, told) in [
        ("signed_by: own.asc", keys, "name the mirror that these keys sign"),
        (mirror, "no key", "`own.asc` is no file of public keys"),
        ("mirror: 'http://own.example/debian', signed_by: ../own.asc", keys, "outside the recipe's folder"),
        (
            "mirror: 'http://own.example/debian', signed_by: other.asc",
            keys,
            "cannot find the source `other.asc`",
        ),
    ] {
        let files = [("recipe.yaml", &*text(distribution)), ("own.asc", content)];
        let problems = read(&files, &[]).unwrap_err().to_string();
        assert!(problems.contains(told), "{problems}");
    }
}

#[test]
fn messages_are_json_too() {
    let error = read(&[("recipe.yaml", "name: web\npakages: []\n")], &[]).unwrap_err();
    let json = error.to_json();
    assert_eq!(json[0]["severity"], "error");
    assert_eq!((json[0]["line"].as_u64(), json[0]["column"].as_u64()), (Some(2), Some(1)));
    assert_eq!(json[0]["help"], "did you mean `packages`?");
    assert!(error.render(true).contains("\x1b[") && !error.to_string().contains('\x1b'));
}

#[test]
fn what_is_no_recipe_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str| load(&folder.path().join(name), &LoadOptions::default()).unwrap_err().to_string();
    fs::write(folder.path().join("large.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    fs::write(folder.path().join("bytes.yaml"), b"name: web\n\xff").unwrap();
    assert!(load("").contains("this is not a file"));
    assert!(load("larg.yaml").contains("large.yaml`?"));
    assert!(load("large.yaml").contains("larger than 1 MiB"));
    assert!(load("bytes.yaml").contains("not UTF-8 text: line 2"));
}

#[test]
fn generated_files_are_up_to_date() {
    let schema = serde_json::to_string_pretty(&recipe::schema()).unwrap() + "\n";
    let docs = Path::new(RECIPES).join("../docs");
    for (path, now) in [
        (Path::new(RECIPES).join("recipe.schema.json"), schema),
        (docs.join("recipe.md"), recipe::reference()),
    ] {
        if std::env::var_os("UPDATE_MESSAGES").is_some() {
            fs::write(&path, &now).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == now, "{} is old: run `cargo xtask generate`", path.display());
    }
}

fn word() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "name",
        "extends",
        "vars",
        "packages",
        "volumes",
        "device",
        "root",
        "size",
        "checks",
        "http",
        "web",
        "motd",
        "files",
        "path",
        "source",
        "content",
        "users",
        "web",
        "web: ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "\n- ",
        "${{ name }}",
        "${{",
        "}}",
        "$${{",
        "&a ",
        "*a",
        "!!str ",
        "|\n",
        ">-\n  ",
        "\"",
        "'",
        "#",
        "4GiB",
        "/dev/xvda",
        "true",
        "null",
        "-1",
        "..",
        "/",
        "40-cow",
        "#!/bin/sh",
        "é",
        "\u{feff}",
        "\t",
        "---\n",
        "? ",
        "<<",
    ];
    prop_oneof![8 => proptest::sample::select(WORDS).prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_breaks_the_reader(words in proptest::collection::vec(word(), 0..40), named in any::<bool>()) {
        let text = if named { format!("name: web\n{}", words.concat()) } else { words.concat() };
        match read(&[("recipe.yaml", &text)], &[("greeting", "x")]) {
            Ok(_) => {}
            Err(problems) => {
                prop_assert!(problems.has_errors());
                prop_assert!(!problems.to_string().is_empty());
                for problem in &problems.0 {
                    prop_assert!(problem.line == 0 || problem.source_line.chars().count() + 1 >= problem.column);
                }
            }
        }
    }

    #[test]
    fn every_number_of_mistakes_is_told_at_once(count in 1_usize..20) {
        let text: String = (0..count).map(|index| format!("unknown{index}: 1\n")).collect();
        let problems = read(&[("recipe.yaml", &format!("name: web\n{text}"))], &[]).unwrap_err();
        prop_assert_eq!(problems.0.len(), count);
    }
}

#[test]
fn a_strangers_recipe_reads_and_shows_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("recipe/inside")).unwrap();
    let secret = "aws_secret_access_key: wJalrXUtnFEMI\n";
    for name in ["credentials", "secret.yaml", "recipe/inside/plain"] {
        fs::write(path(name), secret).unwrap();
    }
    fs::write(path("broken.yaml"), "name: [wJalrXUtnFEMI\n").unwrap();
    fs::write(path("typed.yaml"), "name: {key: wJalrXUtnFEMI}\n").unwrap();
    for (link, target) in
        [("link.yaml", "../credentials"), ("linked.yaml", "../secret.yaml"), ("files", "..")]
    {
        std::os::unix::fs::symlink(target, path("recipe").join(link)).unwrap();
    }
    std::os::unix::fs::symlink(path("credentials"), path("recipe/inside/link")).unwrap();
    let absolute = path("secret.yaml");
    let shown = |text: &str| {
        fs::write(path("recipe/recipe.yaml"), text).unwrap();
        match load(&path("recipe/recipe.yaml"), &LoadOptions::default()) {
            Ok(_) => panic!("accepted: {text}"),
            Err(problems) => problems.to_string() + &problems.to_json().to_string(),
        }
    };
    for (base, expected) in [
        ("../credentials", "does not end in .yaml"),
        ("inside/plain", "does not end in .yaml"),
        ("link.yaml", "does not end in .yaml"),
        ("../secret.yaml", "cannot be read as a recipe"),
        ("../broken.yaml", "cannot be read as a recipe"),
        ("../typed.yaml", "cannot be read as a recipe"),
        ("linked.yaml", "cannot be read as a recipe"),
        (absolute.to_str().unwrap(), "an absolute path"),
        ("/etc/passwd", "an absolute path"),
        ("${{ arch }}.yaml", "cannot hold a variable"),
        ("/dev/stdin", "an absolute path"),
        ("builtin:../secret", "carries no base"),
    ] {
        let text = shown(&format!("name: web\nextends: \"{base}\"\n"));
        assert!(text.contains(expected), "{base}: {text}");
        assert!(!text.contains("wJalr") && !text.contains("aws_"), "{base}: {text}");
    }
    for source in [
        "../credentials",
        "../../etc/passwd",
        "/etc/passwd",
        "inside/link",
        "files/credentials",
        "inside/../../credentials",
        "${{ up }}/credentials",
    ] {
        let text =
            shown(&format!("name: web\nvars: {{up: ..}}\nfiles: [{{path: /x, source: \"{source}\"}}]\n"));
        assert!(text.contains("outside the recipe's folder"), "{source}: {text}");
        assert!(!text.contains("wJalr"), "{source}: {text}");
    }
    // A link in a folder goes into the image as the link that it is.
    fs::write(path("recipe/recipe.yaml"), "name: web\nfiles: [{path: /x, source: inside}]\n").unwrap();
    assert!(load(&path("recipe/recipe.yaml"), &LoadOptions::default()).is_ok());
}

#[test]
fn a_strangers_recipe_does_not_choose_among_the_files_of_another_base() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("private/keys")).unwrap();
    fs::create_dir_all(path("strange")).unwrap();
    fs::write(path("private/keys/id"), "secret").unwrap();
    fs::write(path("private/page"), "a page").unwrap();
    let shown = |source: &str| {
        let base = format!("vars: {{site: page}}\nfiles: [{{path: /x, source: \"{source}\"}}]\n");
        fs::write(path("private/base.yaml"), base).unwrap();
        let recipe = "name: web\nextends: ../private/base.yaml\nvars: {site: keys/id}\n";
        fs::write(path("strange/r.yaml"), recipe).unwrap();
        load(&path("strange/r.yaml"), &LoadOptions::default()).err().map(|problems| problems.to_string())
    };
    assert!(shown("${{ site }}").unwrap().contains("holds a variable, which a recipe may set"));
    assert_eq!(shown("page"), None);
}

#[test]
fn the_recipes_own_folder_is_no_source() {
    let text = read(&[("recipe.yaml", "name: web\nweb: {source: .}\n")], &[]).unwrap_err().to_string();
    assert!(text.contains("is the recipe's own folder") && text.contains("site/"), "{text}");
}

#[test]
fn a_strangers_recipe_names_no_place_outside() {
    // What becomes a file's name beside the outputs, or a place in the image.
    for line in [
        "name: ../web",
        "name: a/b",
        "name: ..",
        "name: \"a\\0b\"",
        "name: web\nversion: ../1",
        "name: web\nversion: 1/2",
        "name: web\nvars: {v: ../../x}\nversion: ${{ v }}",
        "name: web\nvolumes: [{device: /dev/../x, root: true}]",
        "name: web\nvolumes: [{device: /dev/xvda, root: true}, {device: /etc/passwd, size: 1GiB}]",
        "name: web\nvolumes: [{device: /dev/xvda, root: true}, {device: /dev/xvdf/../../x, size: 1GiB}]",
        "name: web\nweb: {../index.html: x}",
        "name: web\nweb: {a/../../b: x}",
        "name: web\nweb: {/etc/passwd: x}",
        "name: web\nweb: {root: /srv/../../x, index.html: x}",
        "name: web\nfiles: [{path: ../x, content: x}]",
        "name: web\nfiles: [{path: /srv/../../x, content: x}]",
        "name: web\nmotd: {../x: '#!/bin/sh'}",
        "name: web\nusers: [{name: ../x}]",
        "name: web\nservices: {enable: [../../x]}",
        "name: web\npackages: [../x]",
        "name: web\nkernel: ../x",
    ] {
        assert!(read(&[("recipe.yaml", &format!("{line}\n"))], &[]).is_err(), "{line}");
    }
}
