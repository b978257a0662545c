//! Private keys and credentials, by what files hold and by where programs keep them.
//!
//! A package's own file is the same for everybody and no secret: such files are only searched for private keys, and
//! only in `/etc` and `/root`, where a key would be in use.

use block::{Content, Origin};
use memchr::{memchr, memmem};
use tree::{Node, Tree, TreePath};

use crate::image::start;
use crate::traces::is_host_key;
use crate::{Error, Findings, rules};

/// As much of a file as is searched.
const MOST: u64 = 32 * 1024 * 1024;
/// As much as is looked at to tell text from other things.
const HEAD: u64 = 8 * 1024;
/// Made from packages' files by the packages' own tools, large, and never secret.
const PASSED_OVER: [&[u8]; 5] =
    [b"boot/", b"usr/lib/modules/", b"var/lib/dpkg/info/", b"var/lib/apt/lists/", b"usr/lib/locale/"];

/// Where programs keep what lets them in: the end of a path, the words of which one must be there on a line (none:
/// anything at all), and what it is.
const CREDENTIAL_FILES: [(&str, &[&str], &str); 26] = [
    (".aws/credentials", &["aws_secret_access_key", "aws_session_token"], "AWS credentials"),
    (".aws/config", &["aws_secret_access_key", "aws_session_token"], "AWS credentials"),
    (".boto", &["aws_secret_access_key", "gs_oauth2_refresh_token"], "cloud credentials"),
    (".s3cfg", &["secret_key"], "cloud credentials"),
    (".config/gcloud/credentials.db", &[], "Google Cloud credentials"),
    (".config/gcloud/access_tokens.db", &[], "Google Cloud credentials"),
    (".config/gcloud/application_default_credentials.json", &[], "Google Cloud credentials"),
    (".azure/accessTokens.json", &[], "Azure credentials"),
    (".azure/msal_token_cache.json", &[], "Azure credentials"),
    (".azure/msal_token_cache.bin", &[], "Azure credentials"),
    (".docker/config.json", &["\"auth\"", "\"identitytoken\""], "credentials of a registry"),
    ("containers/auth.json", &["\"auth\"", "\"identitytoken\""], "credentials of a registry"),
    (".kube/config", &["token:", "client-key-data:", "password:"], "credentials of a cluster"),
    (".netrc", &["password"], "passwords"),
    (".npmrc", &["_authToken", "_password", "_auth"], "credentials of a registry"),
    (".pypirc", &["password"], "credentials of a registry"),
    (".cargo/credentials", &["token"], "credentials of a registry"),
    (".cargo/credentials.toml", &["token"], "credentials of a registry"),
    (".git-credentials", &[], "passwords"),
    (".config/git/credentials", &[], "passwords"),
    (".config/gh/hosts.yml", &["oauth_token"], "an access token"),
    (".pgpass", &[], "passwords"),
    (".my.cnf", &["password"], "a password"),
    (".mylogin.cnf", &[], "a password"),
    (".vault-token", &[], "an access token"),
    ("etc/apt/auth.conf", &["password"], "passwords"),
];

/// Files in which people write addresses with a password in them.
const ADDRESS_FILES: [&str; 11] = [
    "etc/apt/sources.list",
    "etc/apt/apt.conf",
    "etc/environment",
    "etc/pip.conf",
    "etc/wgetrc",
    ".config/pip/pip.conf",
    ".pip/pip.conf",
    ".gitconfig",
    ".git/config",
    ".curlrc",
    ".wgetrc",
];
const ADDRESS_FOLDERS: [&str; 2] = ["etc/apt/sources.list.d/", "etc/apt/apt.conf.d/"];

/// Something secret: where and of what kind, never what.
#[derive(Debug, PartialEq, Eq)]
struct Secret {
    line: usize,
    kind: &'static str,
}

/// Searches every file that could hold a secret.
pub(crate) fn check(root: &Tree, findings: &mut Findings) -> Result<(), Error> {
    for (path, entry) in root.iter() {
        let Node::File(content) = &entry.node else { continue };
        let packaged = matches!(entry.origin, Origin::Package(_));
        let bytes = path.as_bytes();
        let in_use = bytes.starts_with(b"etc/") || bytes.starts_with(b"root/");
        let passed_over =
            PASSED_OVER.iter().any(|place| bytes.starts_with(place)) || bytes.ends_with(b".pyc");
        if content.is_empty() || passed_over || packaged && !in_use {
            continue;
        }
        // Host keys are a rule of their own.
        if is_host_key(path) || !packaged && by_place(path, content, findings)? {
            continue;
        }
        let Some(text) = text(content, path)? else { continue };
        search(path, &text, packaged, findings);
    }
    Ok(())
}

/// A file's bytes, unless they are no text.
fn text(content: &Content, path: &TreePath) -> Result<Option<Vec<u8>>, Error> {
    let head = start(content, HEAD, path)?;
    if memchr(0, &head).is_some() {
        return Ok(None);
    }
    match content.len() > HEAD {
        true => start(content, MOST, path).map(Some),
        false => Ok(Some(head)),
    }
}

fn search(path: &TreePath, text: &[u8], packaged: bool, findings: &mut Findings) {
    let leave_out = "leave it out, and hand it to instances by user data, a role or a secrets manager";
    if let Some(Secret { line, kind }) = private_key(text) {
        let google = memmem::find(text, b"\"service_account\"").is_some();
        if google && !packaged {
            let reason = format!("line {line} holds the key of a Google Cloud service account");
            findings.add(&rules::CREDENTIALS, Some(path), reason, leave_out);
        } else {
            let advice = match path.as_bytes() {
                b"etc/ssl/private/ssl-cert-snakeoil.key" => {
                    "remove it with its certificate, and run make-ssl-cert at first boot"
                }
                _ => "leave it out, and make or fetch one at first boot",
            };
            findings.add(&rules::PRIVATE_KEY, Some(path), format!("line {line} begins {kind}"), advice);
        }
    }
    if packaged {
        return;
    }
    for Secret { line, kind } in [aws_key(text), azure_key(text), token(text)].into_iter().flatten() {
        findings.add(&rules::CREDENTIALS, Some(path), format!("line {line} holds {kind}"), leave_out);
    }
}

/// What the place of a file says about it; whether that is enough.
fn by_place(path: &TreePath, content: &Content, findings: &mut Findings) -> Result<bool, Error> {
    let ends = |end: &str| {
        let before = path.as_bytes().strip_suffix(end.as_bytes());
        before.is_some_and(|before| before.is_empty() || before.ends_with(b"/"))
    };
    let below = |folder: &str| path.as_bytes().starts_with(folder.as_bytes());
    let advice = "remove it in the last step, or leave it out";
    let mut add = |rule, reason| findings.add(rule, Some(path), reason, advice);
    let kept = CREDENTIAL_FILES.iter().find(|(end, _, _)| ends(end));
    let apt: (&str, &[&str], &str) = ("", &["password"], "passwords");
    if let Some((_, words, kind)) = kept.or(below("etc/apt/auth.conf.d/").then_some(&apt)) {
        let text = start(content, MOST, path)?;
        if words.is_empty() && !text.trim_ascii().is_empty() {
            add(&rules::CREDENTIALS, format!("is where a program keeps {kind}"));
            return Ok(true);
        } else if let Some(line) = line_with(&text, words) {
            add(&rules::CREDENTIALS, format!("line {line} holds {kind}"));
            return Ok(true);
        }
    }
    if ADDRESS_FILES.iter().any(|end| ends(end)) || ADDRESS_FOLDERS.iter().any(|folder| below(folder)) {
        let text = start(content, MOST, path)?;
        let mut lines = text.split(|byte| *byte == b'\n');
        if let Some(index) = lines.position(has_password_in_address) {
            add(&rules::CREDENTIALS, format!("line {} has an address with a password in it", index + 1));
        }
    }
    let name = path.name();
    if name.ends_with(b".key") && path.parent().is_some_and(|folder| folder.name() == b"private-keys-v1.d") {
        add(&rules::PRIVATE_KEY, "is a private key of GnuPG".to_owned());
        return Ok(true);
    }
    if path.as_bytes() == b"var/cache/debconf/passwords.dat" {
        let text = start(content, MOST, path)?;
        let filled =
            |line: &[u8]| line.strip_prefix(b"Value:").is_some_and(|value| !value.trim_ascii().is_empty());
        if let Some(index) = text.split(|byte| *byte == b'\n').position(filled) {
            add(&rules::CREDENTIALS, format!("line {} holds a password that a package asked for", index + 1));
        }
    }
    Ok(false)
}

/// The first line, from 1, that is no comment and holds one of the words.
fn line_with(text: &[u8], words: &[&str]) -> Option<usize> {
    let holds = |line: &[u8]| {
        let line = line.trim_ascii();
        !line.starts_with(b"#")
            && !line.starts_with(b";")
            && words.iter().any(|word| memmem::find(line, word.as_bytes()).is_some())
    };
    text.split(|byte| *byte == b'\n').position(holds).map(|index| index + 1)
}

fn line_of(text: &[u8], place: usize) -> usize {
    memchr::memchr_iter(b'\n', &text[..place]).count() + 1
}

/// A private key in PEM, OpenSSH's, PGP's or PuTTY's form: the words around it and a key between them.
fn private_key(text: &[u8]) -> Option<Secret> {
    const BEGIN: &[u8] = b"-----BEGIN ";
    const LABELS: [(&[u8], &str); 8] = [
        (b"PRIVATE KEY-----", "a private key"),
        (b"ENCRYPTED PRIVATE KEY-----", "an encrypted private key"),
        (b"RSA PRIVATE KEY-----", "an RSA private key"),
        (b"EC PRIVATE KEY-----", "an EC private key"),
        (b"DSA PRIVATE KEY-----", "a DSA private key"),
        (b"OPENSSH PRIVATE KEY-----", "an OpenSSH private key"),
        (b"SSH2 ENCRYPTED PRIVATE KEY-----", "an ssh private key"),
        (b"PGP PRIVATE KEY BLOCK-----", "a PGP private key"),
    ];
    let pem = memmem::find_iter(text, BEGIN).find_map(|place| {
        let rest = &text[place + BEGIN.len()..];
        let (label, kind) = LABELS.iter().find(|(label, _)| rest.starts_with(label))?;
        holds_key(&rest[label.len()..]).then(|| Secret { line: line_of(text, place), kind })
    });
    let putty = || {
        text.starts_with(b"PuTTY-User-Key-File-").then_some(Secret { line: 1, kind: "a PuTTY private key" })
    };
    let age = || {
        let place = memmem::find(text, b"AGE-SECRET-KEY-1")?;
        let key = text[place + 16..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        (key >= 58).then(|| Secret { line: line_of(text, place), kind: "an age private key" })
    };
    pem.or_else(putty).or_else(age)
}

/// Whether a key follows: a program that only names the words around keys has none between them.
fn holds_key(rest: &[u8]) -> bool {
    let rest = &rest[..rest.len().min(1000)];
    let rest = &rest[..memmem::find(rest, b"-----END").unwrap_or(rest.len())];
    // In JSON and the like the line breaks are written `\n`.
    let breaks = |text: &[u8]| memmem::find(text, b"\\n").or_else(|| memmem::find(text, b"\\r"));
    let is_key = |word: &[u8]| {
        word.len() >= 32
            && word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
    };
    rest.split(|byte| byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b',')).any(|word| {
        let mut word = word;
        while let Some(at) = breaks(word) {
            if is_key(&word[..at]) {
                return true;
            }
            word = &word[at + 2..];
        }
        is_key(word)
    })
}

/// The id of an AWS access key, where its secret is in the file too.
fn aws_key(text: &[u8]) -> Option<Secret> {
    let id = [b"AKIA", b"ASIA"].iter().find_map(|prefix| {
        memmem::find_iter(text, prefix).find(|place| {
            let end = place + 20;
            let part_of_word = |at: usize| text.get(at).is_some_and(u8::is_ascii_alphanumeric);
            text.get(place + 4..end).is_some_and(|rest| {
                rest.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            }) && !text[*place..end].ends_with(b"EXAMPLE")
                && !part_of_word(end)
                && !place.checked_sub(1).is_some_and(part_of_word)
        })
    })?;
    let mut words = text.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')));
    let is_secret = |word: &[u8]| {
        let has = |kind: fn(&u8) -> bool| word.iter().any(kind);
        word.len() == 40
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit)
            && !word.ends_with(b"EXAMPLEKEY")
    };
    words
        .any(is_secret)
        .then(|| Secret { line: line_of(text, id), kind: "an AWS access key with its secret" })
}

/// The key of an Azure storage account in a connection string.
fn azure_key(text: &[u8]) -> Option<Secret> {
    const BEFORE: &[u8] = b"AccountKey=";
    let place = memmem::find_iter(text, BEFORE).find(|place| {
        let key = text[place + BEFORE.len()..].iter();
        key.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count() >= 80
    })?;
    Some(Secret { line: line_of(text, place), kind: "the key of an Azure storage account" })
}

/// Access tokens that say by their first letters what they are.
fn token(text: &[u8]) -> Option<Secret> {
    const TOKENS: [(&[u8], usize, &str); 6] = [
        (b"ghp_", 36, "a GitHub token"),
        (b"gho_", 36, "a GitHub token"),
        (b"ghs_", 36, "a GitHub token"),
        (b"github_pat_", 59, "a GitHub token"),
        (b"glpat-", 20, "a GitLab token"),
        (b"npm_", 36, "an npm token"),
    ];
    TOKENS.iter().find_map(|(prefix, length, kind)| {
        let place = memmem::find_iter(text, prefix).find(|place| {
            let rest = text[place + prefix.len()..].iter();
            let word = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
            rest.take_while(word).count() >= *length
                && !place.checked_sub(1).is_some_and(|at| text[at].is_ascii_alphanumeric())
        })?;
        Some(Secret { line: line_of(text, place), kind })
    })
}

/// Whether a line that is no comment has `scheme://user:password@host` in it. `$…` is a variable and no password.
fn has_password_in_address(line: &[u8]) -> bool {
    let comment =
        [b"#".as_slice(), b"//", b";"].iter().any(|start| line.trim_ascii_start().starts_with(start));
    !comment
        && memmem::find_iter(line, b"://").any(|place| {
            let rest = &line[place + 3..];
            let end = rest
                .iter()
                .position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'"' | b'\''));
            let host = &rest[..end.unwrap_or(rest.len())];
            let Some(at) = memchr::memrchr(b'@', host) else { return false };
            memchr(b':', &host[..at]).is_some_and(|colon| colon + 1 < at && host[colon + 1] != b'$')
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tree::Entry;

    use super::*;
    use crate::test_image::Sample;

    const BODY: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7";

    fn pem(label: &str) -> String {
        format!("-----BEGIN {label}PRIVATE KEY-----\n{BODY}\n-----END {label}PRIVATE KEY-----\n")
    }

    fn said(path: &str, text: &str) -> Vec<String> {
        let mut sample = Sample::new();
        sample.text(path, text);
        let findings = sample.lint(&sample.facts());
        for finding in &findings {
            let all = format!("{finding}{finding:?}");
            assert!(!all.contains(BODY) && !all.contains("hunter2") && !all.contains(&secret()), "{all}");
        }
        findings.iter().map(|finding| format!("{}: {}", finding.rule, finding.reason)).collect()
    }

    fn secret() -> String {
        ["wJalrXUtnFEMI", "K7MDENG", "bPxRfiCY1234567890"].join("/")
    }

    #[test]
    fn private_keys_are_found_in_every_form() {
        assert_eq!(said("srv/app/tls.pem", &pem("")), ["private-key: line 1 begins a private key"]);
        let openssh = format!("\n{}", pem("OPENSSH "));
        assert_eq!(
            said("home/ec2-user/.ssh/id", &openssh),
            ["private-key: line 2 begins an OpenSSH private key"]
        );
        let encrypted =
            pem("RSA ").replacen('\n', "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1);
        assert_eq!(said("etc/a.key", &encrypted), ["private-key: line 1 begins an RSA private key"]);
        let in_yaml = pem("EC ").replace('\n', "\n      ");
        assert_eq!(said("etc/app.yaml", &in_yaml), ["private-key: line 1 begins an EC private key"]);
        let in_json = format!("{{\n\"key\": \"{}\"}}", pem("").replace('\n', "\\n"));
        assert_eq!(said("etc/app.json", &in_json), ["private-key: line 2 begins a private key"]);
        let pgp = "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n".to_owned() + BODY + "\n=abcd\n";
        assert_eq!(said("root/key.asc", &pgp), ["private-key: line 1 begins a PGP private key"]);
        assert_eq!(
            said("root/.gnupg/private-keys-v1.d/AB.key", "(11:private-key"),
            ["private-key: is a private key of GnuPG"]
        );
    }

    #[test]
    fn words_about_keys_are_no_keys() {
        let script = "#!/bin/sh\ngrep -q -e '-----BEGIN RSA PRIVATE KEY-----' \"$1\" && echo '-----END RSA PRIVATE KEY-----'\n";
        assert_eq!(said("usr/local/bin/tool", script), [""; 0]);
        let public = format!("-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----\n");
        assert_eq!(said("etc/ssl/certs/a.pem", &public), [""; 0]);
    }

    #[test]
    fn a_packages_own_example_is_no_secret_but_in_use() {
        let with = |path: &str| {
            let mut sample = Sample::new();
            sample.put(path, Entry::file(0o600, pem(""), Origin::Package(Arc::from("p"))));
            sample.rules()
        };
        assert_eq!(with("usr/share/doc/p/examples/key.pem"), [""; 0]);
        assert_eq!(with("etc/p/key.pem"), ["private-key"]);
    }

    #[test]
    fn the_snakeoil_key_has_its_own_advice() {
        let mut sample = Sample::new();
        sample.text("etc/ssl/private/ssl-cert-snakeoil.key", &pem(""));
        let findings = sample.lint(&sample.facts());
        assert!(findings[0].advice.contains("make-ssl-cert"), "{findings:?}");
    }

    #[test]
    fn credentials_of_clouds_are_found() {
        let id = ["AKIA", "ABCDEFGHIJKLMNOP"].concat();
        let both = format!("export KEY={id}\nexport SECRET={}\n", secret());
        assert_eq!(
            said("opt/app/env", &both),
            ["credentials: line 1 holds an AWS access key with its secret"]
        );
        let both = format!("aws_access_key_id={id}\naws_secret_access_key={}\n", secret());
        assert_eq!(
            said("root/.aws/credentials", &both),
            ["credentials: line 2 holds AWS credentials"],
            "once"
        );
        assert_eq!(said("opt/app/env", &format!("KEY={id}\n")), [""; 0], "an id alone is no secret");
        let sum = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(said("opt/app/env", &format!("KEY={id}\n{sum}\n")), [""; 0], "a SHA-1 is no secret");
        let example = format!("AKIAIOSFODNN7EXAMPLE\n{}\n", secret());
        assert_eq!(said("opt/app/env", &example), [""; 0]);
        let google = format!(
            "{{\"type\": \"service_account\",\n \"private_key\": \"{}\"}}",
            pem("").replace('\n', "\\n")
        );
        assert_eq!(
            said("opt/g.json", &google),
            ["credentials: line 2 holds the key of a Google Cloud service account"]
        );
        let azure = format!("AccountName=a;AccountKey={}==;\n", "Ab1/".repeat(22));
        assert_eq!(said("opt/a", &azure), ["credentials: line 1 holds the key of an Azure storage account"]);
        assert_eq!(
            said("opt/t", &format!("\ntoken: ghp_{}", "a1B2".repeat(9))),
            ["credentials: line 2 holds a GitHub token"]
        );
    }

    #[test]
    fn files_of_credentials_are_known_by_their_place() {
        for (path, text) in [
            ("root/.aws/credentials", "[default]\naws_secret_access_key = hunter2\n"),
            ("home/a/.netrc", "machine a login b password hunter2\n"),
            ("root/.docker/config.json", "{\"auths\": {\"r\": {\"auth\": \"hunter2\"}}}"),
            ("root/.npmrc", "//r/:_authToken=hunter2\n"),
            ("root/.git-credentials", "https://a:hunter2@b\n"),
            ("root/.pgpass", "*:*:*:a:hunter2\n"),
            ("etc/apt/auth.conf.d/90", "machine a login b password hunter2\n"),
            ("etc/apt/sources.list.d/a.sources", "URIs: https://user:hunter2@host/debian\n"),
            ("etc/environment", "http_proxy=http://user:hunter2@proxy:3128/\n"),
            ("var/cache/debconf/passwords.dat", "Name: a/pw\nTemplate: a/pw\nValue: hunter2\n"),
        ] {
            let said = said(path, text);
            assert!(said.len() == 1 && said[0].starts_with("credentials: "), "{path}: {said:?}");
        }
        for (path, text) in [
            ("root/.aws/credentials", "# aws_secret_access_key = none\n"),
            ("root/.docker/config.json", "{\"auths\": {\"r\": {}}, \"credsStore\": \"ecr-login\"}"),
            ("root/.pgpass", "\n"),
            ("etc/apt/sources.list.d/a.sources", "# https://user:password@host\nURIs: http://host/a:b@c\n"),
            ("etc/environment", "http_proxy=http://user:${PASSWORD}@proxy/\n"),
            ("var/cache/debconf/passwords.dat", "Name: a/pw\nValue: \nTemplate: a/pw\n"),
        ] {
            assert_eq!(said(path, text), [""; 0], "{path}");
        }
    }

    #[test]
    fn what_is_no_text_is_not_searched() {
        let mut sample = Sample::new();
        sample.bytes("opt/cache.bin", &[b"\0".as_slice(), pem("").as_bytes()].concat());
        assert_eq!(sample.rules(), [""; 0]);
        sample.text("opt/large", &("x\n".repeat(HEAD as usize) + &pem("")));
        assert_eq!(sample.rules(), ["private-key"]);
    }

    proptest! {
        #[test]
        fn any_text_is_searched_without_a_fall(
            parts in proptest::collection::vec(prop_oneof![
                Just("-----BEGIN ".to_owned()), Just("RSA PRIVATE KEY-----".to_owned()), Just("\\n".to_owned()),
                Just("AKIA".to_owned()), Just("ghp_".to_owned()), Just("AccountKey=".to_owned()),
                Just("AGE-SECRET-KEY-1".to_owned()), Just("://a:b@".to_owned()), "[A-Za-z0-9/+=\n ]{0,60}",
            ], 0..12)
        ) {
            let text = parts.concat();
            let _ = (private_key(text.as_bytes()), aws_key(text.as_bytes()), azure_key(text.as_bytes()));
            let _ = (token(text.as_bytes()), has_password_in_address(text.as_bytes()));
        }
    }
}
