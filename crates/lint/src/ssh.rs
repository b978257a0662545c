//! sshd's settings as it will read them: nobody enters by password, root least of all.

use std::collections::BTreeMap;

use tree::TreePath;

use crate::cloud::Config;
use crate::image::{Image, lines, unquoted};
use crate::{Error, Findings, rules};

/// Includes within includes, as many as sshd follows.
const DEEPEST: usize = 16;

/// A setting: the file, the line, the value. The first one that sshd reads counts.
type Settings = BTreeMap<String, (TreePath, usize, String)>;

/// Looks at sshd's configuration, where there is an sshd.
pub(crate) fn check(image: &Image<'_>, findings: &mut Findings) -> Result<(), Error> {
    if !image.exists("/usr/sbin/sshd") {
        return Ok(());
    }
    let mut settings = Settings::new();
    read(image, "/etc/ssh/sshd_config", &mut settings, DEEPEST)?;
    let get = |key: &str| settings.get(key).map(|(path, line, value)| (path, *line, value.as_str()));
    if let Some((path, line, "yes")) = get("permitrootlogin") {
        let reason = format!("line {line}: PermitRootLogin is yes");
        findings.add(&rules::SSH_ROOT, Some(path), reason, "write `PermitRootLogin no`");
    }
    if let Some((path, line, "yes")) = get("permitemptypasswords") {
        let reason = format!("line {line}: PermitEmptyPasswords is yes");
        findings.add(&rules::SSH_ROOT, Some(path), reason, "write `PermitEmptyPasswords no`");
    }
    let advice = "write `PasswordAuthentication no` into a file of /etc/ssh/sshd_config.d";
    let config = Config::read(image)?;
    // At first boot cloud-init writes what it is told into sshd's configuration, before all else there.
    match config.as_ref().and_then(|config| config.word("ssh_pwauth")) {
        Some((_, _, "false" | "no" | "False")) => {}
        Some((path, line, "true" | "yes" | "True")) => {
            let reason = format!("line {line}: cloud-init is to switch passwords on for ssh");
            findings.add(&rules::SSH_PASSWORD, Some(path), reason, "write `ssh_pwauth: false`");
        }
        _ => match get("passwordauthentication") {
            Some((_, _, "no")) => {}
            Some((path, line, _)) => {
                let reason = format!("line {line}: PasswordAuthentication is not no");
                findings.add(&rules::SSH_PASSWORD, Some(path), reason, advice);
            }
            None => {
                let reason = "PasswordAuthentication is not set, which means yes";
                findings.add(&rules::SSH_PASSWORD, None, reason, advice);
            }
        },
    }
    Ok(())
}

/// Reads a configuration with what it includes, up to its first `Match`: what follows is for some connections only.
fn read(image: &Image<'_>, path: &str, settings: &mut Settings, deeper: usize) -> Result<(), Error> {
    let Some((path, text)) = image.text(path)? else { return Ok(()) };
    for (number, line) in lines(&text) {
        let end = line.find(|letter: char| letter.is_whitespace() || letter == '=').unwrap_or(line.len());
        let (key, value) = line.split_at(end);
        let value = value.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '=');
        match key.to_ascii_lowercase().as_str() {
            "match" => break,
            "include" if deeper > 0 => {
                for pattern in value.split_ascii_whitespace() {
                    for file in included(image, unquoted(pattern)) {
                        read(image, &file, settings, deeper - 1)?;
                    }
                }
            }
            key => {
                let value = unquoted(value).to_ascii_lowercase();
                settings.entry(key.to_owned()).or_insert((path.clone(), number, value));
            }
        }
    }
    Ok(())
}

/// The files of a pattern with at most one star, in its last name.
fn included(image: &Image<'_>, pattern: &str) -> Vec<String> {
    let pattern = match pattern.starts_with('/') {
        true => pattern.to_owned(),
        false => format!("/etc/ssh/{pattern}"),
    };
    let Some((folder, name)) = pattern.rsplit_once('/') else { return Vec::new() };
    let Some((before, after)) = name.split_once('*') else { return vec![pattern] };
    let fits = |name: &&String| {
        !name.starts_with('.')
            && name.len() >= before.len() + after.len()
            && name.starts_with(before)
            && name.ends_with(after)
    };
    image.list(folder).iter().filter(fits).map(|name| format!("{folder}/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use crate::test_image::Sample;

    fn with(text: &str) -> Vec<&'static str> {
        let mut sample = Sample::new();
        sample.replace("etc/cloud/cloud.cfg.d/10-ec2.cfg", "ssh_pwauth: false\n", "");
        sample.text("etc/ssh/sshd_config.d/10-ec2.conf", text);
        sample.rules()
    }

    #[test]
    fn the_first_setting_counts() {
        assert_eq!(with("PasswordAuthentication no\nPermitRootLogin no\n"), [""; 0]);
        assert_eq!(with("PasswordAuthentication no\nPermitRootLogin prohibit-password\n"), [""; 0]);
        assert_eq!(with("passwordauthentication=no\npermitrootlogin \"yes\"\n"), ["ssh-root"]);
        assert_eq!(with("PasswordAuthentication no\nPasswordAuthentication yes\n"), [""; 0]);
        assert_eq!(with("PasswordAuthentication no\nPermitEmptyPasswords yes\n"), ["ssh-root"]);
        assert_eq!(with("PasswordAuthentication no\nMatch User a\nPermitRootLogin yes\n"), [""; 0]);
        assert_eq!(with("PasswordAuthentication yes\n"), ["ssh-password"]);
        assert_eq!(with(""), ["ssh-password"], "sshd's own answer is yes");
    }

    #[test]
    fn cloud_init_has_the_last_word() {
        let mut sample = Sample::new();
        sample.text("etc/ssh/sshd_config.d/10-ec2.conf", "");
        assert_eq!(sample.rules(), [""; 0], "ssh_pwauth is false");
        sample.replace("etc/cloud/cloud.cfg.d/10-ec2.cfg", "ssh_pwauth: false\n", "ssh_pwauth: true\n");
        assert_eq!(sample.rules(), ["ssh-password"]);
    }

    #[test]
    fn without_sshd_nothing_is_said() {
        let mut sample = Sample::new();
        sample.text("etc/ssh/sshd_config", "PermitRootLogin yes\n");
        sample.remove("usr/sbin/sshd");
        assert_eq!(sample.rules(), [""; 0]);
    }
}
