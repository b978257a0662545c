use block::Digest;
use debian::control::Paragraph;
use debian::download::FileRequest;
use debian::solve::{Request, SolveError, solve};
use debian::universe::Universe;
use debian::version::Version;
use proptest::prelude::*;

/// A universe from lines such as `a 1 | Depends: b, c | Essential: yes`, one list of lines for each repository.
fn universe(repositories: &[(&str, &str)]) -> Universe {
    let texts = repositories.iter().map(|(role, lines)| {
        let paragraphs: Vec<String> =
            lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(paragraph).collect();
        ("Packages".to_owned(), (*role).to_owned(), paragraphs.join("\n"))
    });
    Universe::from_texts("amd64", texts.collect()).unwrap()
}

fn paragraph(line: &str) -> String {
    let mut parts = line.split(" ; ");
    let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
    let fields: String = parts.map(|field| format!("{field}\n")).collect();
    let architecture = if fields.contains("Architecture:") { "" } else { "Architecture: amd64\n" };
    let hash = Digest::of(line.as_bytes());
    format!(
        "Package: {name}\nVersion: {version}\n{architecture}{fields}Filename: pool/{name}_{version}.deb\nSize: 1\nSHA256: {hash}\n"
    )
}

fn request(names: &str) -> Request {
    let install = names.split_ascii_whitespace().map(|name| match name.split_once('=') {
        Some((name, version)) => (name.to_owned(), Some(Version::parse(version).unwrap())),
        None => (name.to_owned(), None),
    });
    Request { install: install.collect(), ..Request::default() }
}

/// `name=version` of each chosen package, in order.
fn chosen(universe: &Universe, request: &Request) -> String {
    match solve(universe, request) {
        Ok(solution) => {
            let shown =
                solution.packages.iter().map(|one| format!("{}={}", one.package.name, one.package.version));
            shown.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

fn main_only(lines: &str, names: &str) -> String {
    chosen(&universe(&[("main", lines)]), &request(names))
}

#[test]
fn the_first_alternative_and_the_real_package_are_liked_best() {
    let lines = "a 1 ; Depends: b | c, mta
        b 1
        c 1
        mta 1
        other-mta 1 ; Provides: mta
        d 1 ; Depends: nothing | c
        e 1 ; Depends: web-server
        web-one 1 ; Provides: web-server
        web-two 1 ; Provides: web-server ; Priority: standard";
    assert_eq!(main_only(lines, "a"), "a=1 b=1 mta=1");
    assert_eq!(main_only(lines, "d"), "c=1 d=1");
    assert_eq!(main_only(lines, "e"), "e=1 web-two=1");
    assert_eq!(main_only(lines, "e web-one"), "e=1 web-one=1");
    // A virtual name with one provider can be asked for; with several it must be said which.
    assert_eq!(main_only("x 1 ; Provides: only", "only"), "x=1");
    assert_eq!(
        main_only(lines, "web-server"),
        "web-server is a virtual package; name the one you want: web-one, web-two"
    );
}

#[test]
fn versions_qualifiers_and_provided_versions_count() {
    let lines = "a 1 ; Depends: b (>= 2)
        b 1 ; Architecture: all
        newer 2 ; Provides: b (= 2.1)
        unversioned 1 ; Provides: b
        c 1 ; Depends: python3:any
        python3 3.13 ; Multi-Arch: allowed
        d 1 ; Depends: b:any
        e 1 ; Depends: b:amd64, b:native
        f 1 ; Depends: b:arm64";
    assert_eq!(main_only(lines, "a"), "a=1 newer=2");
    assert_eq!(main_only(lines, "c"), "c=1 python3=3.13");
    assert_eq!(main_only(lines, "e"), "b=1 e=1");
    assert!(main_only(lines, "d").contains("d 1 needs b:any, but of b there is 1"));
    assert!(main_only(lines, "f").contains("f 1 needs b:arm64, but of b there is 1"));
}

#[test]
fn the_newest_version_of_all_repositories_is_taken_and_of_equal_ones_the_first() {
    let all = universe(&[("main", "a 1\nb 1"), ("updates", "a 1"), ("security", "a 1\nb 1+deb13u1")]);
    let solution = solve(&all, &request("a b")).unwrap();
    let shown: Vec<_> = solution
        .packages
        .iter()
        .map(|one| (one.package.version.to_string(), one.package.role.as_str()))
        .collect();
    assert_eq!(shown, [("1".to_owned(), "main"), ("1+deb13u1".to_owned(), "security")]);
}

#[test]
fn essential_packages_come_with_what_they_need() {
    let all = universe(&[(
        "main",
        "base 1 ; Essential: yes ; Depends: lib\nlib 1\nextra 1\nwas 1 ; Essential: yes\nwas 2",
    )]);
    let request = Request { essential: true, ..request("extra") };
    assert_eq!(chosen(&all, &request), "base=1 extra=1 lib=1");
    let solution = solve(&all, &request).unwrap();
    let flags: Vec<_> = solution.packages.iter().map(|one| (one.essential, one.auto)).collect();
    assert_eq!(flags, [(true, true), (false, false), (false, true)]);
}

#[test]
fn recommends_are_added_where_they_can_be() {
    let all = universe(&[(
        "main",
        "a 1 ; Recommends: b, nowhere, clash | other, d | c
        b 1 ; Recommends: c
        c 1
        clash 1 ; Conflicts: a
        other 1
        d 1 ; Depends: nowhere",
    )]);
    assert_eq!(chosen(&all, &request("a")), "a=1");
    let with = Request { recommends: true, ..request("a") };
    assert_eq!(chosen(&all, &with), "a=1 b=1 c=1");
}

#[test]
fn conflicts_are_told_in_words() {
    let lines = "a 1 ; Depends: b
        b 1 ; Conflicts: c
        c 1
        d 1 ; Depends: c
        e 1 ; Depends: f (>= 3)
        f 2
        g 1 ; Breaks: virtual
        h 1 ; Provides: virtual
        i 1 ; Conflicts: i-like ; Provides: i-like
        j 1 ; Depends: nowhere";
    assert_eq!(
        main_only(lines, "a d"),
        "these packages cannot be installed together:\n  b 1 conflicts with c, which is c 1\n    b 1 comes with a: \
         a 1 needs b\n    c 1 comes with d: d 1 needs c"
    );
    let text = main_only(lines, "e");
    assert!(text.ends_with("e 1 needs f (>= 3), but of f there is 2\n    e 1 is asked for"), "{text}");
    let text = main_only(lines, "g h");
    assert!(text.contains("g 1 breaks virtual, which is h 1"), "{text}");
    assert_eq!(main_only(lines, "i"), "i=1");
    let text = main_only(lines, "j");
    assert!(text.contains("\n  j 1 needs nowhere, but there is no package nowhere\n"), "{text}");
    assert_eq!(
        main_only("apache2 1\ncowsay 1", "apahce2"),
        "there is no package apahce2; did you mean apache2?"
    );
    assert_eq!(main_only("apache2 1\ncowsay 1", "zzzzzzzz"), "there is no package zzzzzzzz");
    assert_eq!(main_only("a 1\na 2", "a=3"), "there is no a 3; the repositories have 2, 1");
    // All names and versions that are not there, not one a run.
    assert_eq!(
        main_only("apache2 1\ncowsay 1", "apahce2 cowsay=2 zzzzzzzz"),
        "there is no package apahce2; did you mean apache2?\nthere is no cowsay 2; the repositories have 1\n\
         there is no package zzzzzzzz"
    );
}

#[test]
fn a_conflict_is_told_with_the_way_to_it() {
    let lines = "web 1 ; Depends: server
        server 2 ; Depends: engine (>= 2), tls
        engine 2 ; Breaks: old-site (<< 3)
        tls 1
        site 1 ; Depends: theme
        theme 1 ; Depends: old-site
        old-site 2
        base 1 ; Essential: yes ; Depends: core
        core 1
        thief 1 ; Conflicts: core
        x 1 ; Depends: y | z
        y 1 ; Conflicts: core
        z 1 ; Depends: nowhere (>= 1)";
    let all = universe(&[("main", lines)]);
    let told = |names: &str, essential| chosen(&all, &Request { essential, ..request(names) });
    let head = "these packages cannot be installed together:\n  ";
    assert_eq!(
        told("web site", false),
        format!(
            "{head}engine 2 breaks old-site (<< 3), which is old-site 2\n    engine 2 comes with web: web 1 needs \
             server, server 2 needs engine (>= 2)\n    old-site 2 comes with site: site 1 needs theme, theme 1 needs \
             old-site"
        )
    );
    assert_eq!(
        told("thief", true),
        format!(
            "{head}thief 1 conflicts with core, which is core 1\n    thief 1 is asked for\n    core 1 comes with an \
             essential package: base 1 needs core"
        )
    );
    // Every alternative has its reason.
    let text = told("x", true);
    assert!(
        text.contains("y 1 conflicts with core, which is core 1\n    y 1 comes with x: x 1 needs y | z"),
        "{text}"
    );
    assert!(text.contains("z 1 needs nowhere (>= 1), but there is no package nowhere"), "{text}");
    // What is kept from before is not what somebody asks for.
    let pinned = vec![("old-site".to_owned(), Version::parse("2").unwrap())];
    let Err(SolveError::Conflict { clashes }) = solve(&all, &Request { pinned, ..request("web site") })
    else {
        panic!("no conflict")
    };
    assert_eq!(clashes.iter().map(|clash| clash.pinned).collect::<Vec<_>>(), [true]);
}

#[test]
fn a_rebuild_for_one_architecture_is_the_version_asked_for() {
    assert_eq!(main_only("a 1-2+b1\na 1-1", "a=1-2"), "a=1-2+b1");
    assert_eq!(main_only("a 1-2+b1\na 1-2", "a=1-2"), "a=1-2");
    assert_eq!(main_only("a 1-2+b2\na 1-2+b1", "a=1-2+b1"), "a=1-2+b1");
    let text = main_only("a 1-2\na 1-1", "a=1-2+b1");
    assert_eq!(text, "there is no a 1-2+b1; the repositories have 1-2, 1-1");
    assert!(main_only("a 1-2+deb13u1", "a=1-2").contains("there is no a 1-2"));
}

#[test]
fn an_older_version_is_taken_only_when_it_is_asked_for_or_kept() {
    let lines = "a 1 ; Depends: b (= 1)\na 2 ; Depends: b (= 2)\nb 1\nb 2\nc 1 ; Depends: b (<< 2)";
    assert_eq!(main_only(lines, "a"), "a=2 b=2");
    assert_eq!(main_only(lines, "a=1"), "a=1 b=1");
    // Nothing asks for an old version here, so a security update is not quietly undone.
    assert!(main_only(lines, "c").contains("c 1 needs b (<< 2), but of b there is 2"));
    let all = universe(&[("main", lines)]);
    let pin = |name: &str, version: &str| (name.to_owned(), Version::parse(version).unwrap());
    let kept = Request { pinned: vec![pin("a", "1"), pin("b", "1")], ..request("a c") };
    assert_eq!(chosen(&all, &kept), "a=1 b=1 c=1");
    // A pin alone installs nothing.
    assert_eq!(chosen(&all, &Request { pinned: vec![pin("a", "1")], ..request("b") }), "b=2");
    let kept = Request { pinned: vec![pin("b", "1")], ..request("a=2") };
    assert!(chosen(&all, &kept).contains("a 2 needs b (= 2), but of b there is 1 (pinned)"));
}

#[test]
fn what_is_asked_for_by_name_and_essential_packages_may_be_older_when_a_kept_version_needs_it() {
    let lines = "libssl 2 ; Depends: libc
        libssl 3 ; Depends: libc
        libssl-dev 2 ; Depends: libssl (= 2)
        libssl-dev 3 ; Depends: libssl (= 3)
        libc 1
        libc 2
        perl-base 2 ; Essential: yes
        perl-base 3 ; Essential: yes
        perl 2 ; Depends: perl-base (= 2)
        perl 3 ; Depends: perl-base (= 3)";
    // A version asked for beside a package that must match it.
    assert_eq!(main_only(lines, "libssl=2 libssl-dev"), "libc=2 libssl=2 libssl-dev=2");
    // A lock from before a security update, and an addition to the recipe after it.
    let all = universe(&[("main", lines)]);
    let pinned = vec![("libssl".to_owned(), Version::parse("2").unwrap())];
    let added = Request { pinned: pinned.clone(), ..request("libssl libssl-dev") };
    assert_eq!(chosen(&all, &added), "libc=2 libssl=2 libssl-dev=2");
    // The addition needs nothing old, so it is the newest.
    let added = Request { pinned, ..request("libssl perl") };
    assert_eq!(chosen(&all, &added), "libc=2 libssl=2 perl=3 perl-base=3");
    let essential = Request { essential: true, ..request("perl=2") };
    assert_eq!(chosen(&all, &essential), "perl=2 perl-base=2");
    let flags: Vec<_> =
        solve(&all, &essential).unwrap().packages.iter().map(|one| (one.essential, one.auto)).collect();
    assert_eq!(flags, [(false, false), (true, true)]);
}

#[test]
fn a_pinned_package_that_is_gone_can_be_added_from_its_deb() {
    let mut all = universe(&[("main", "a 2 ; Depends: b (>= 2)\nb 2\nc 1 ; Depends: b")]);
    let pinned = vec![("b".to_owned(), Version::parse("1").unwrap())];
    let request = Request { pinned, ..request("c") };
    assert!(matches!(solve(&all, &request), Err(SolveError::PinnedGone { .. })));
    let file = FileRequest {
        name: "b".into(),
        version: "1".into(),
        architecture: "amd64".into(),
        size: 7,
        sha256: Digest::of(b"old"),
        filename: "pool/b_1.deb".into(),
        role: "security".into(),
    };
    let fields =
        Paragraph::parse("control", "Package: b\nVersion: 1\nArchitecture: amd64\nDescription: x\n y\n")
            .unwrap();
    all.add(&fields, &file).unwrap();
    let solution = solve(&all, &request).unwrap();
    assert_eq!(solution.packages[0].package.request(), file);
    assert_eq!(solution.packages[1].package.name, "c");
}

#[test]
fn broken_fields_of_a_package_in_the_way_are_an_error() {
    let text = main_only("a 1 ; Depends: b (", "a");
    assert_eq!(
        text,
        "Packages:1: package a: \"b (\" is no relation to a package: a version must stand in round brackets"
    );
    assert_eq!(main_only("a 1\nz 1 ; Depends: b (", "a"), "a=1");
}

proptest! {
    #[test]
    fn a_solution_is_whole_and_free_of_conflicts(
        packages in prop::collection::vec((0..8_usize, 1..4_u8, prop::collection::vec((0..10_usize, 0..10_usize, 0..4_u8), 0..3), prop::option::of(0..8_usize)), 4..24),
        wanted in prop::collection::btree_set(0..8_usize, 1..3),
    ) {
        let mut lines = std::collections::BTreeMap::new();
        for (name, version, needs, clash) in &packages {
            let needs: Vec<String> = needs.iter().map(|(a, b, least)| format!("p{a} (>= {least}) | p{b}")).collect();
            let clash = clash.map_or(String::new(), |clash| format!(" ; Conflicts: p{clash}"));
            let needs = if needs.is_empty() { String::new() } else { format!(" ; Depends: {}", needs.join(", ")) };
            lines.insert((*name, *version), format!("p{name} {version}{needs}{clash}"));
        }
        let text = lines.values().cloned().collect::<Vec<_>>().join("\n");
        let all = universe(&[("main", &text)]);
        let names: Vec<String> = wanted.iter().map(|name| format!("p{name}")).collect();
        match solve(&all, &request(&names.join(" "))) {
            Ok(solution) => {
                let there: Vec<(&str, &str)> =
                    solution.packages.iter().map(|one| (one.package.name.as_str(), one.package.version.as_str())).collect();
                let has = |target: &debian::relation::Target<'_>| {
                    there.iter().any(|(name, version)| *name == target.name && target.accepts(version))
                };
                for name in &names {
                    prop_assert!(there.iter().any(|(there, _)| there == name));
                }
                for one in &solution.packages {
                    let field = |name| debian::relation::parse(one.package.fields.get(name).unwrap_or_default()).unwrap();
                    for group in field("Depends") {
                        prop_assert!(group.iter().any(has), "{} lacks {group:?}", one.package.name);
                    }
                    for target in field("Conflicts").into_iter().flatten() {
                        prop_assert!(target.name == one.package.name || !has(&target));
                    }
                }
                let again = solve(&all, &request(&names.join(" "))).unwrap();
                prop_assert_eq!(again, solution);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
