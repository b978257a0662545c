//! What a machine leaves in its files by being a machine: identities, histories, state, logs.

use block::{Content, Origin};
use tree::{Entry, Node, Tree, TreePath};

use crate::firmware::mounted;
use crate::image::{lines, start};
use crate::{Error, Findings, rules};

/// What people typed at prompts.
const HISTORIES: [&[u8]; 16] = [
    b".ash_history",
    b".bash_history",
    b".sh_history",
    b".zsh_history",
    b".zhistory",
    b".histfile",
    b".history",
    b"fish_history",
    b".mysql_history",
    b".mariadb_history",
    b".psql_history",
    b".sqlite_history",
    b".rediscli_history",
    b".python_history",
    b".node_repl_history",
    b".irb_history",
];
/// What programs remember of somebody's work.
const TRACES: [&[u8]; 4] = [b".lesshst", b".viminfo", b".wget-hsts", b"recently-used.xbel"];
/// Where systemd and others keep seeds and keys.
const SEEDS: [&[u8]; 3] =
    [b"var/lib/systemd/random-seed", b"var/lib/systemd/credential.secret", b"var/lib/urandom/random-seed"];
/// What cloud-init keeps of an instance.
const CLOUD_STATE: [&[u8]; 4] =
    [b"var/lib/cloud/instance", b"var/lib/cloud/instances", b"var/lib/cloud/data", b"var/lib/cloud/sem"];
const LEASES: [&[u8]; 4] =
    [b"var/lib/dhcp", b"var/lib/dhcpcd", b"var/lib/NetworkManager", b"run/systemd/netif/leases"];
/// More than a file of keys or an identity has.
const SHORT: u64 = 1024 * 1024;

/// Looks at every file's place, and at a few files' contents.
pub(crate) fn check(root: &Tree, esp: &Tree, findings: &mut Findings) -> Result<(), Error> {
    let mut logs: Option<(&TreePath, usize)> = None;
    let mut cloud: Option<&TreePath> = None;
    for (path, entry) in root.iter() {
        if in_one_of(path, &CLOUD_STATE) && !matches!(entry.node, Node::Directory) && !of_package(entry) {
            cloud.get_or_insert(path);
        }
        let Node::File(content) = &entry.node else { continue };
        if is_host_key(path) {
            let advice = "remove it; cloud-init or ssh-keygen -A makes new ones at first boot";
            findings.add(&rules::SSH_HOST_KEY, Some(path), "is the private half of an ssh host key", advice);
        }
        if content.is_empty() {
            continue;
        }
        check_file(path, content, entry, findings)?;
        if path.as_bytes().starts_with(b"var/log/") && !of_package(entry) {
            logs = logs.map(|(first, count)| (first, count + 1)).or(Some((path, 1)));
        }
    }
    if let Some(path) = cloud {
        let advice = "run `cloud-init clean --logs --seed` in a step";
        findings.add(&rules::CLOUD_INIT_STATE, Some(path), "is left from an instance", advice);
    }
    if let Some((path, count)) = logs {
        let reason = match count {
            1 => "is not empty".to_owned(),
            _ => format!("is not empty, nor are {} others in /var/log", count - 1),
        };
        findings.add(&rules::LOG, Some(path), reason, "empty the logs in the last step");
    }
    for (path, entry) in
        esp.iter().filter(|(path, _)| path.as_bytes().eq_ignore_ascii_case(b"loader/random-seed"))
    {
        if matches!(&entry.node, Node::File(content) if !content.is_empty()) {
            let reason = "is a saved random seed";
            findings.add(&rules::RANDOM_SEED, Some(&mounted(path)), reason, "remove it");
        }
    }
    Ok(())
}

fn check_file(
    path: &TreePath,
    content: &Content,
    entry: &Entry,
    findings: &mut Findings,
) -> Result<(), Error> {
    let text = || Ok(String::from_utf8_lossy(&start(content, SHORT, path)?).into_owned());
    let name = path.name();
    if HISTORIES.contains(&name) && !of_package(entry) {
        findings.add(&rules::HISTORY, Some(path), "is a history of commands", "remove it in the last step");
    }
    if TRACES.contains(&name) && !of_package(entry) {
        findings.add(&rules::TRACE, Some(path), "remembers somebody's work", "remove it in the last step");
    }
    if SEEDS.contains(&path.as_bytes()) {
        findings.add(&rules::RANDOM_SEED, Some(path), "is secret and of one machine", "remove it");
    }
    if matches!(name, b"authorized_keys" | b"authorized_keys2") {
        let keys = lines(&text()?).count();
        if keys > 0 {
            let reason = format!("lets the owners of {keys} keys in");
            let advice = "leave it out of images for others: the launch key comes from the metadata service";
            findings.add(&rules::AUTHORIZED_KEYS, Some(path), reason, advice);
        }
    }
    if matches!(path.as_bytes(), b"etc/machine-id" | b"var/lib/dbus/machine-id")
        && !matches!(text()?.trim(), "" | "uninitialized")
    {
        findings.add(
            &rules::MACHINE_ID,
            Some(path),
            "holds one machine's identity",
            "empty it in the last step",
        );
    }
    if in_one_of(path, &LEASES) && !of_package(entry) {
        findings.add(&rules::LEASE, Some(path), "is a DHCP client's state", "remove it in the last step");
    }
    // The recipe's own is meant; one that was written while configuring is the bake's.
    if path.as_bytes() == b"etc/resolv.conf" && entry.origin == Origin::Configured {
        let servers = text()?;
        let mut servers = lines(&servers).filter_map(|(_, line)| line.strip_prefix("nameserver"));
        if servers.any(|server| !server.trim().starts_with("127.") && server.trim() != "::1") {
            let advice = "remove it; the DHCP client or systemd-resolved writes a new one";
            findings.add(&rules::RESOLVER, Some(path), "was written while the image was made", advice);
        }
    }
    Ok(())
}

fn of_package(entry: &Entry) -> bool {
    matches!(entry.origin, Origin::Package(_))
}

/// Whether this is where sshd looks for the private half of a host key.
pub(crate) fn is_host_key(path: &TreePath) -> bool {
    let key = path.as_bytes().strip_prefix(b"etc/ssh/ssh_host_").and_then(|rest| rest.strip_suffix(b"_key"));
    key.is_some_and(|kind| !kind.contains(&b'/'))
}

/// Whether a path is one of these, or lies below one.
fn in_one_of(path: &TreePath, places: &[&[u8]]) -> bool {
    places.iter().any(|place| {
        path.as_bytes().strip_prefix(*place).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::test_image::Sample;

    fn with(path: &str, text: &str) -> Vec<&'static str> {
        let mut sample = Sample::new();
        sample.text(path, text);
        sample.rules()
    }

    #[test]
    fn identities_are_made_by_each_machine() {
        assert_eq!(with("etc/machine-id", ""), [""; 0]);
        assert_eq!(with("etc/machine-id", "uninitialized\n"), [""; 0]);
        assert_eq!(with("etc/machine-id", "0123456789abcdef0123456789abcdef\n"), ["machine-id"]);
        assert_eq!(with("var/lib/dbus/machine-id", "0123456789abcdef0123456789abcdef\n"), ["machine-id"]);
        assert_eq!(
            with("etc/ssh/ssh_host_ed25519_key", ""),
            ["ssh-host-key"],
            "an empty one keeps sshd from starting"
        );
        let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n", "b3BlbnNz".repeat(8));
        assert_eq!(with("etc/ssh/ssh_host_rsa_key", &key), ["ssh-host-key"], "once");
        assert_eq!(with("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA"), [""; 0]);
        assert_eq!(with("var/lib/systemd/random-seed", "0"), ["random-seed"]);
        assert_eq!(with("var/lib/systemd/credential.secret", "0"), ["random-seed"]);
        let mut sample = Sample::new();
        sample.esp_bytes("loader/random-seed", b"0");
        assert_eq!(sample.rules(), ["random-seed"]);
    }

    #[test]
    fn histories_and_traces_are_told_apart() {
        assert_eq!(with("root/.bash_history", "ls\n"), ["history"]);
        assert_eq!(with("home/ec2-user/.psql_history", "select 1;\n"), ["history"]);
        assert_eq!(with("root/.bash_history", ""), [""; 0]);
        assert_eq!(with("root/.wget-hsts", "x"), ["trace"]);
        assert_eq!(with("root/.viminfo", "x"), ["trace"]);
    }

    #[test]
    fn keys_of_people_are_named() {
        let keys = "home/ec2-user/.ssh/authorized_keys";
        assert_eq!(with(keys, "# none\n"), [""; 0]);
        let mut sample = Sample::new();
        sample.text(keys, "ssh-ed25519 AAAAsecret me\n\nssh-rsa BBBB you\n");
        let findings = sample.lint(&sample.facts());
        assert_eq!(findings[0].rule, "authorized-keys");
        assert_eq!(findings[0].reason, "lets the owners of 2 keys in");
    }

    #[test]
    fn state_of_an_instance_stays_behind() {
        assert_eq!(with("var/lib/cloud/instances/i-1/user-data.txt", "x"), ["cloud-init-state"]);
        assert_eq!(with("var/lib/cloud/data/instance-id", "i-1"), ["cloud-init-state"]);
        assert_eq!(with("var/lib/cloud/scripts/per-boot/mine", "#!/bin/sh\n"), [""; 0]);
        assert_eq!(with("var/lib/dhcp/dhclient.leases", "lease {}"), ["lease"]);
        assert_eq!(with("var/lib/dhcpcd/eth0.lease", "x"), ["lease"]);
        assert_eq!(with("var/log/journal/0123/system.journal", "x"), ["log"]);
        assert_eq!(with("var/log/lastlog", ""), [""; 0]);
        let mut sample = Sample::new();
        sample.text("var/log/a", "x");
        sample.text("var/log/b/c", "x");
        assert_eq!(sample.lint(&sample.facts())[0].reason, "is not empty, nor are 1 others in /var/log");
    }

    #[test]
    fn the_resolver_is_the_machines_own() {
        let with = |origin: Origin, text: &str| {
            let mut sample = Sample::new();
            sample.put("etc/resolv.conf", Entry::file(0o644, text, origin));
            sample.rules()
        };
        assert_eq!(with(Origin::Configured, "nameserver 10.0.0.2\n"), ["resolver"]);
        assert_eq!(with(Origin::Configured, "nameserver 127.0.0.53\n"), [""; 0]);
        assert_eq!(with(Origin::Recipe("files".into()), "nameserver 10.0.0.2\n"), [""; 0]);
        assert_eq!(with(Origin::Package(Arc::from("p")), "nameserver 10.0.0.2\n"), [""; 0]);
    }
}
