use std::cmp::Ordering;
use std::hash::{DefaultHasher, Hash, Hasher};

use debian::control::{Paragraph, Paragraphs};
use debian::mirror::{HostSources, choose_mirrors};
use debian::relation;
use debian::version::{Version, compare};
use debian::{KeyRing, Request, Universe, solve};

use super::{can_be_shown, text};
use crate::Target;

pub(super) const CONTROL: Target = Target {
    words: &[b"Package: ", b"\n ", b"\n .\n", b"\n\n", b"\n#", b"\r\n", b": "],
    ..Target::new("control", "paragraphs of fields (deb822)", 8 << 10, |input| {
        let text = text(input);
        let mut paragraphs = Paragraphs::new("control", text);
        let mut fields = Vec::new();
        let mut last = 0;
        while match paragraphs.read(&mut fields) {
            Ok(more) => more,
            Err(error) => return can_be_shown(&error),
        } {
            assert!(!fields.is_empty());
            for field in &fields {
                assert!(field.line > last, "lines are in their order");
                last = field.line;
            }
            let Ok(paragraph) = Paragraph::from_fields("control", &fields) else { continue };
            let written = paragraph.to_string();
            let read = Paragraph::parse("control", &written);
            assert_eq!(read.as_ref(), Ok(&paragraph), "what is written reads the same: {written:?}");
        }
    })
};

pub(super) const RELATION: Target = Target {
    words: &[
        b"libc6 (>= 2.36)",
        b" | ",
        b", ",
        b":any",
        b" (<< 1:2.0~rc1-1)",
        b"(= ",
        b"[amd64]",
        b"<!nocheck>",
    ],
    ..Target::new("relation", "the value of Depends and its like", 4 << 10, |input| {
        let groups = match relation::parse(text(input)) {
            Ok(groups) => groups,
            Err(error) => return can_be_shown(&error),
        };
        let written: Vec<String> = groups
            .iter()
            .map(|group| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))
            .collect();
        let written = written.join(", ");
        assert_eq!(
            relation::parse(&written).as_ref(),
            Ok(&groups),
            "what is written reads the same: {written:?}"
        );
        for target in groups.iter().flatten() {
            assert!(!target.name.contains('/') && !target.name.is_empty());
            target.accepts("1:2.0-3");
        }
    })
};

pub(super) const VERSION: Target = Target {
    words: &[b"1:", b"~rc1", b"+deb13u1", b"-1", b"+b2", b"0000", b"\n"],
    ..Target::new("version", "version numbers, one a line, and their order", 512, |input| {
        let hash = |version: &Version| {
            let mut hasher = DefaultHasher::new();
            version.hash(&mut hasher);
            hasher.finish()
        };
        let lines: Vec<&str> = text(input).lines().take(8).collect();
        for (one, other) in lines.iter().flat_map(|one| lines.iter().map(move |other| (one, other))) {
            assert_eq!(compare(one, other), compare(other, one).reverse(), "{one:?} and {other:?}");
        }
        let versions: Vec<Version> = lines.iter().filter_map(|line| Version::parse(line).ok()).collect();
        for one in &versions {
            assert_eq!(Version::parse(one.as_str()).as_ref(), Ok(one));
            for other in &versions {
                assert!(one != other || hash(one) == hash(other), "equal versions have one hash");
                for third in &versions {
                    if one <= other && other <= third {
                        assert!(one.cmp(third) != Ordering::Greater, "{one} <= {other} <= {third}");
                    }
                }
            }
        }
    })
};

/// The one key that is trusted here. Its secret half is nowhere any more.
const KEY: &[u8] = include_bytes!("archive-key.asc");
/// When that key is good.
const NOW: i64 = 1_767_225_600;
/// The texts that it has signed, without white space at their lines' ends: there will never be others.
const SIGNED: [&str; 3] = [
    "A: 1",
    "- dashes\n-----BEGIN PGP SIGNED MESSAGE-----\nFrom here\n\n trailing\nlast line without end",
    "Origin: Debian\nSuite: trixie\nCodename: trixie\nDate: Sat, 06 Sep 2025 10:00:00 UTC\n\
     Valid-Until: Sat, 13 Sep 2025 10:00:00 UTC\nAcquire-By-Hash: yes\nArchitectures: amd64 arm64\n\
     Components: main\nSHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 \
     main/binary-amd64/Packages",
];

/// The library's errors carry a backtrace where `RUST_BACKTRACE` asks for it; the names in it are read from the program.
const BACKTRACE: usize = 512 << 20;

pub(super) const IN_RELEASE: Target = Target {
    words: &[
        b"-----BEGIN PGP SIGNED MESSAGE-----\n",
        b"Hash: SHA256\n",
        b"\n-----BEGIN PGP SIGNATURE-----\n",
        b"\n-----END PGP SIGNATURE-----\n",
        b"\n- -----",
        b"\r\n",
        b"NotDashEscaped: You need GnuPG to verify this message\n",
    ],
    fixed_memory: (16 << 20) + BACKTRACE,
    ..Target::new("in-release", "a clear-signed index, and its signatures", 16 << 10, |input| {
        let mut keys = KeyRing::empty();
        keys.add("archive-key.asc", KEY).expect("a key that is good");
        let verified = keys.verify("InRelease", input, NOW);
        if let Err(error) = &verified {
            can_be_shown(error);
        }
        if let Ok(verified) = verified {
            assert!(keys.fingerprints().contains(&verified.fingerprint));
            let lines: Vec<&str> = verified.text.lines().map(str::trim_end).collect();
            let signed = SIGNED.contains(&lines.join("\n").trim_end());
            assert!(signed, "a text that nobody signed is believed: {:?}", verified.text);
        }
    })
};

pub(super) const KEYS: Target = Target {
    words: &[b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n", b"\n-----END PGP PUBLIC KEY BLOCK-----\n"],
    fixed_memory: (16 << 20) + BACKTRACE,
    ..Target::new("keys", "a file of public keys", 16 << 10, |input| {
        let mut keys = KeyRing::empty();
        match keys.add("keys", input) {
            Ok(()) => assert!(!keys.fingerprints().is_empty()),
            Err(_) => drop(keys.fingerprints()),
        }
    })
};

pub(super) const PACKAGES: Target = Target {
    words: &[
        b"\n\nPackage: ",
        b"\nVersion: ",
        b"\nArchitecture: amd64",
        b"\nDepends: ",
        b"\nPre-Depends: ",
        b"\nProvides: ",
        b"\nConflicts: ",
        b"\nBreaks: ",
        b"\nMulti-Arch: same",
        b"\nEssential: yes",
        b"\nFilename: pool/a.deb",
        b"\nSize: 1",
        b"\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ],
    fixed_memory: 32 << 20,
    memory_a_byte: 4096,
    ..Target::new("packages", "a list of packages, and a solution over it", 4 << 10, |input| {
        let index = ("Packages".to_owned(), "main".to_owned(), text(input).to_owned());
        let Ok(universe) = Universe::from_texts("amd64", vec![index]) else { return };
        for id in 0..universe.len() as u32 {
            assert!(matches!(universe.package_architecture(id), "amd64" | "all"));
            // Of equal versions one counts.
            let versions = universe.versions_of(universe.name(id)).iter();
            let equal =
                |other: &u32| compare(universe.version(*other), universe.version(id)) == Ordering::Equal;
            assert!(versions.filter(|other| equal(other)).count() == 1);
            let Ok(package) = universe.package(id) else { continue };
            assert!(!package.filename.starts_with('/'));
            assert!(package.filename.split('/').all(|part| part != ".."), "the file is below the archive");
        }
        let names: Vec<String> = universe.names().into_iter().take(4).map(str::to_owned).collect();
        universe.names_like("libc", 3);
        for name in names {
            let request =
                Request { install: vec![(name.clone(), None)], essential: true, ..Request::default() };
            let Ok(solution) = solve(&universe, &request) else { continue };
            let chosen: Vec<&str> = solution.packages.iter().map(|one| one.package.name.as_str()).collect();
            assert!(chosen.contains(&name.as_str()), "what was asked for is there");
            assert!(chosen.is_sorted_by(|one, other| one < other), "each package once, sorted");
        }
    })
};

pub(super) const APT_SOURCES: Target = Target {
    words: &[
        b"deb ",
        b"[trusted=yes] ",
        b"http://a.example/debian ",
        b"trixie ",
        b"main",
        b"Types: deb\n",
        b"URIs: ",
    ],
    ..Target::new("apt-sources", "the host's lists of package sources", 4 << 10, |input| {
        let text = text(input);
        let mut host = HostSources::default();
        host.add_list(text);
        host.add_deb822(text);
        let mirrors = choose_mirrors(None, None, &host, "trixie");
        for uri in [&mirrors.main, &mirrors.security] {
            assert!(["http://", "https://", "file:/"].iter().any(|scheme| uri.starts_with(scheme)), "{uri}");
        }
        choose_mirrors(Some(text), None, &host, "trixie");
    })
};
